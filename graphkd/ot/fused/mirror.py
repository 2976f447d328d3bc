"""Mirror descent: proximal steps by few Sinkhorn sweeps, batched, without waiting for an accelerator."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from graphkd import checks
from graphkd.ot.domains import Array
from graphkd.ot.fused.objective import Found, Objective, rounded
from graphkd.ot.problem import Relative
from graphkd.typing import Real

LOWEST = -80.0
"""The smallest exponent that is taken: subnormal numbers would make every product ten times slower."""

KEPT = 1e-3
"""The share of the product of the masses in a start, without which its zeros could never change."""

UPHILL = 1e-3
"""By what share of it a step may raise the objective: plans before rounding lack some mass."""

SMALL_CHANGE = 1e-3
"""What share of the mass the last step may have moved where no tolerance is given."""


class State(NamedTuple):
    r"""A step of mirror descent: the plan :math:`P_{ij} = a_i b_j \exp(S_{ij} + \phi_i + \gamma_j)`.

    S sums what the steps added, so that an entry which became small can come back; the vectors keep the masses.

    Attributes:
        plan: P.
        log_plan: S.
        phi: Of the rows.
        gamma: Of the columns.
        pull: By how much of its slope the last step changed ``gamma``; the next is likely to do the same.
        f: The step's potentials in the rows.
        g: In the columns.
        rho: The weight of the step's divergence.
        change: What share of the mass it moved.
        value: Twice the objective before it.
        caution: What ``rho`` is multiplied by: doubled after each step that led uphill.
    """

    plan: Array
    log_plan: Array
    phi: Array
    gamma: Array
    pull: Array
    f: Array
    g: Array
    rho: Array
    change: Array
    value: Array
    caution: Array


class Mirror:
    r"""Steps :math:`\arg\min_P \langle G_k, P\rangle + \rho\, \mathrm{KL}(P \,\|\, P_k)`, G the objective's slope.

    What all entries of a row or a column of G have in common changes no plan whose masses are kept; it is taken out
    and given back to the potentials.

    On the CPU the steps run on numpy arrays that share the tensors' memory, by functions that both libraries have:
    numpy does a small operation in a third of torch's time.
    """

    def __init__(self, objective: Objective, rho: Real | Relative, num_inner: int) -> None:
        self.objective, self.rho, self.num_inner = objective, rho, num_inner
        self.on_numpy = checks.can_look(objective.b)
        self.lib: Any = np if self.on_numpy else torch
        self.linear, self.a, self.b = map(self._array, (objective.linear, objective.a, objective.b))
        # Means in which nodes count by their mass are those of the graph without its padding.
        self.share_a, self.share_b = self.a / self.a.sum(-1)[..., None], self.b / self.b.sum(-1)[..., None]
        self.massless = None if self.on_numpy and (self.b > 0).all() else (self.b == 0)[..., None, :]
        # Rounding makes a slope that is constant look as if it were not.
        largest = objective.constant.abs().amax((-2, -1), keepdim=True)
        self.rounding = self._array((30 * torch.finfo(largest.dtype).eps * largest).clamp_min_(1e-30))

    def run(self, start: Tensor | None, num_iters: int, tol: Real | None) -> Found:
        """Take the steps; a problem that met the tolerance is frozen, and on the CPU the loop ends when all have."""
        with np.errstate(all="ignore"):
            state, count = self._descend(start, num_iters, tol)
        objective = self.objective
        plan, f, g, change, rho = map(self._tensor, (state.plan, state.f, state.g, state.change, state.rho))
        plan = rounded(plan, objective.a, None if objective.semi_relaxed else objective.b)
        slope = objective.slope(plan, objective.crossed.of(plan))
        return Found(plan, slope, f, g, change <= (SMALL_CHANGE if tol is None else tol), self._tensor(count), rho)

    def _descend(self, start: Tensor | None, num_iters: int, tol: Real | None) -> tuple[State, Array]:
        state, slope = self._begin(start)
        count = self._array(torch.zeros_like(self.objective.a[..., 0], dtype=torch.int64))
        active: Any = None
        for step in range(num_iters):
            if step:
                plan = torch.from_numpy(state.plan) if self.on_numpy else state.plan  # pyright: ignore
                slope = self._array(self.objective.slope(plan, self.objective.crossed.of(plan)))
            last = state
            state = self._step(state, slope)
            if tol is not None or step + 1 == num_iters:
                state = state._replace(change=abs(state.plan - last.plan).sum((-2, -1)) / self.a.sum(-1))
            if active is not None:
                state = State(*(self._choose(active, *pair) for pair in zip(state, last, strict=True)))
            count = count + (1 if active is None else active)
            if tol is not None:
                active = state.change > tol
                if self.on_numpy and not active.any():
                    break
        return state, count

    def _begin(self, start: Tensor | None) -> tuple[State, Array]:
        plan, crossed = self.objective.start(start)
        log_plan = torch.zeros_like(plan)
        if start is not None:
            product = self.objective.start(None)[0]
            log_plan = ((1 - KEPT) * torch.where(product > 0, start / product, 1.0) + KEPT).log()
        slope = self._array(self.objective.slope(plan, crossed))
        zero_a, zero_b = 0 * self.a, 0 * self.b
        total = self.b.sum(-1)
        one = (0 * total + 1)[..., None, None]
        phi = zero_a - self.lib.log(total)[..., None]
        infinite = 0 * total + np.inf
        plan, log_plan = self._array(plan), self._array(log_plan)
        return State(plan, log_plan, phi, zero_b, zero_b, zero_a, zero_b, one, infinite, infinite, one), slope

    def _step(self, state: State, slope: Array) -> State:
        lib, a, b = self.lib, self.a, self.b
        value = _inner(slope, state.plan) + _inner(self.linear, state.plan)
        uphill = value - state.value > UPHILL * abs(state.value)
        caution = state.caution + state.caution * uphill[..., None, None]
        of_rows = _product(slope, self.share_b)
        slope = slope - of_rows[..., None]
        of_columns = 0 * b
        if not self.objective.semi_relaxed:
            of_columns = _product(slope.swapaxes(-1, -2), self.share_a)
            slope -= of_columns[..., None, :]
        rho = caution * self._weight(slope)
        narrow = rho[..., 0]
        slope /= rho
        log_plan = state.log_plan - slope
        # The columns begin where the last step left them; the rows follow, by a kernel whose largest entries are one.
        gamma = state.gamma + state.pull / narrow
        kernel = log_plan + gamma[..., None, :]
        top = lib.amax(kernel if self.massless is None else lib.where(self.massless, -np.inf, kernel), -1)
        kernel -= top[..., None]
        lib.clip(kernel, LOWEST, -LOWEST, out=kernel)
        lib.exp(kernel, out=kernel)
        u, v = scalings(kernel, a, b, 0 if self.objective.semi_relaxed else self.num_inner)
        phi, gamma = lib.log(u) - top, gamma + lib.log(v)
        pull = narrow * (gamma - state.gamma)
        f = narrow * (phi - state.phi) + of_rows
        kernel *= (a * u)[..., None]
        kernel *= (b * v)[..., None, :]
        return State(kernel, log_plan, phi, gamma, pull, f, pull + of_columns, rho, state.change, value, caution)

    def _weight(self, slope: Array) -> Array:
        """The weight of the divergence, in units of the slope, whose mean has been taken out."""
        if not isinstance(self.rho, Relative):
            return 0 * self.rounding + self.rho
        square = (self.share_a * _product(slope * slope, self.share_b)).sum(-1)
        return self.rho.share * self.lib.maximum(self.lib.sqrt(square)[..., None, None], self.rounding)

    def _choose(self, active: Array, new: Array, old: Array) -> Array:
        """The new state of active problems, the old of others."""
        return self.lib.where(active.reshape(active.shape + (1,) * (new.ndim - active.ndim)), new, old)

    def _array(self, x: Tensor) -> Array:
        return x.numpy() if self.on_numpy else x

    def _tensor(self, x: Array) -> Tensor:
        return torch.as_tensor(x) if self.on_numpy else x


def scalings(kernel: Array, a: Array, b: Array, num_sweeps: int) -> tuple[Array, Array]:
    """The vectors u, v that give diag(a u) K diag(b v) the sums a and b, by Sinkhorn sweeps; by none, the sums a only.

    >>> scalings(torch.full((2, 2), 0.5), torch.ones(2), torch.ones(2), 1)
    (tensor([1., 1.]), tensor([1., 1.]))
    """
    turned, v = kernel.swapaxes(-1, -2), 0 * b + 1
    u = 1 / _product(kernel, b * v)
    for sweep in range(num_sweeps):
        if sweep:
            u = 1 / _product(kernel, b * v)
        v = 1 / _product(turned, a * u)
    return u, v


def _product(x: Array, vector: Array) -> Array:
    if x.ndim == 2:
        return x.dot(vector) if isinstance(x, np.ndarray) else x @ vector
    return (x @ vector[..., None])[..., 0]


def _inner(x: Array, y: Array) -> Array:
    if x.ndim == 2:
        return x.ravel().dot(y.ravel())
    return (x * y).sum((-2, -1))
