"""Mirror descent: proximal steps by few Sinkhorn sweeps, batched, without waiting for an accelerator."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from graphkd import checks
from graphkd.ot.fused.objective import Found, Objective, rounded
from graphkd.ot.problem import Relative, resolve
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

    plan: Tensor
    log_plan: Tensor
    phi: Tensor
    gamma: Tensor
    pull: Tensor
    f: Tensor
    g: Tensor
    rho: Tensor
    change: Tensor
    value: Tensor
    caution: Tensor


class Mirror:
    r"""Steps :math:`\arg\min_P \langle G_k, P\rangle + \rho\, \mathrm{KL}(P \,\|\, P_k)`, G the objective's slope.

    What all entries of a row or a column of G have in common changes no plan whose masses are kept; it is taken out
    and given back to the potentials.
    """

    def __init__(self, objective: Objective, rho: Real | Relative, num_inner: int) -> None:
        self.objective, self.rho, self.num_inner = objective, rho, num_inner
        a, b = objective.a, objective.b
        # Means in which nodes count by their mass are those of the graph without its padding.
        self.share_a, self.share_b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
        self.massless = None if checks.can_look(b) and bool((b > 0).all()) else (b == 0).unsqueeze(-2)
        # Rounding makes a slope that is constant look as if it were not.
        largest = objective.constant.abs().amax((-2, -1), keepdim=True)
        self.rounding = (30 * torch.finfo(b.dtype).eps * largest).clamp_min_(1e-30)

    def run(self, start: Tensor | None, num_iters: int, tol: Real | None) -> Found:
        """Take the steps; a problem that met the tolerance is frozen, and on the CPU the loop ends when all have."""
        objective = self.objective
        state, crossed = self._begin(start)
        count = torch.zeros_like(state.change, dtype=torch.int64)
        active: Tensor | None = None
        for step in range(num_iters):
            last = state
            state = self._step(state, objective.slope(state.plan, crossed))
            if tol is not None or step + 1 == num_iters:
                state = state._replace(change=(state.plan - last.plan).abs_().sum((-2, -1)) / objective.a.sum(-1))
            state = _where(active, state, last)
            count += 1 if active is None else active
            if tol is not None:
                active = state.change > tol
                if checks.can_look(active):
                    if not bool(active.any()):
                        break
                    active = None if bool(active.all()) else active
            if step + 1 < num_iters:
                crossed = objective.crossed.of(state.plan)
        plan = rounded(state.plan, objective.a, None if objective.semi_relaxed else objective.b)
        slope = objective.slope(plan, objective.crossed.of(plan))
        converged = state.change <= (SMALL_CHANGE if tol is None else tol)
        return Found(plan, slope, state.f, state.g, converged, count, state.rho)

    def _begin(self, start: Tensor | None) -> tuple[State, Tensor]:
        a, b = self.objective.a, self.objective.b
        zero_a, zero_b = torch.zeros_like(a), torch.zeros_like(b)
        plan, crossed = self.objective.start(start)
        log_plan = torch.zeros_like(plan)
        if start is not None:
            product = self.objective.start(None)[0]
            ratio = torch.where(product > 0, start / product, 1.0)
            log_plan = ((1 - KEPT) * ratio + KEPT).log()
        phi = zero_a - b.sum(-1, keepdim=True).log()
        rho = torch.ones_like(phi[..., :1, None])
        change = torch.full_like(phi[..., 0], 2)
        value = torch.full_like(change, torch.inf)
        return State(plan, log_plan, phi, zero_b, zero_b, zero_a, zero_b, rho, change, value, rho), crossed

    def _step(self, state: State, slope: Tensor) -> State:
        a, b = self.objective.a, self.objective.b
        value = (slope + self.objective.linear).mul_(state.plan).sum((-2, -1))
        uphill = (value - state.value > UPHILL * state.value.abs())[..., None, None]
        caution = torch.where(uphill, 2 * state.caution, state.caution)
        of_rows = _product(slope, self.share_b)
        slope -= of_rows.unsqueeze(-1)
        of_columns = torch.zeros_like(b) if self.objective.semi_relaxed else _product(slope.mT, self.share_a)
        slope -= of_columns.unsqueeze(-2)
        rho = caution * self._weight(slope)
        narrow = rho.squeeze(-1)
        log_plan = torch.addcdiv(state.log_plan, slope, rho, value=-1)
        # The columns begin where the last step left them; the rows follow, by a kernel whose largest entries are one.
        gamma = state.gamma + state.pull / narrow
        exponent = log_plan + gamma.unsqueeze(-2)
        top = (exponent if self.massless is None else exponent.masked_fill(self.massless, -torch.inf)).amax(-1)
        kernel = exponent.sub_(top.unsqueeze(-1)).clamp_(LOWEST, -LOWEST).exp_()
        u, v = scalings(kernel, a, b, 0 if self.objective.semi_relaxed else self.num_inner)
        phi, gamma = u.log() - top, gamma + v.log()
        pull = narrow * (gamma - state.gamma)
        f = narrow * (phi - state.phi) + of_rows
        plan = kernel.mul_((a * u).unsqueeze(-1)).mul_((b * v).unsqueeze(-2))
        return State(plan, log_plan, phi, gamma, pull, f, pull + of_columns, rho, state.change, value, caution)

    def _weight(self, slope: Tensor) -> Tensor:
        """The weight of the divergence, in units of the slope, whose mean has been taken out."""
        if not isinstance(self.rho, Relative):
            return resolve(self.rho, slope).expand(*slope.shape[:-2], 1, 1)
        square = (self.share_a * _product(slope.square(), self.share_b)).sum(-1)
        return self.rho.share * square.sqrt()[..., None, None].maximum(self.rounding)


def _product(x: Tensor, vector: Tensor) -> Tensor:
    return (x @ vector.unsqueeze(-1)).squeeze(-1)


def scalings(kernel: Tensor, a: Tensor, b: Tensor, num_sweeps: int) -> tuple[Tensor, Tensor]:
    """The vectors u, v that give diag(a u) K diag(b v) the sums a and b, by Sinkhorn sweeps; by none, the sums a only.

    >>> scalings(torch.full((2, 2), 0.5), torch.ones(2), torch.ones(2), 1)
    (tensor([1., 1.]), tensor([1., 1.]))
    """
    if checks.can_look(kernel):
        # numpy takes a third of torch's time for a product of a matrix with a vector.
        with np.errstate(all="ignore"):
            u, v = _scalings(kernel.numpy(), a.numpy(), b.numpy(), np.ones_like(b.numpy()), num_sweeps)
        return torch.from_numpy(u), torch.from_numpy(v)  # pyright: ignore
    return _scalings(kernel, a, b, torch.ones_like(b), num_sweeps)


def _scalings(kernel: Any, a: Any, b: Any, v: Any, num_sweeps: int) -> tuple[Any, Any]:
    """The same for tensors and for arrays."""
    u = 1 / (kernel @ (b * v)[..., None])[..., 0]
    for sweep in range(num_sweeps):
        if sweep:
            u = 1 / (kernel @ (b * v)[..., None])[..., 0]
        v = 1 / ((a * u)[..., None, :] @ kernel)[..., 0, :]
    return u, v


def _where(active: Tensor | None, new: State, old: State) -> State:
    """The new state of active problems, the old of others."""
    if active is None:
        return new
    return State(*(_choose(active, *pair) for pair in zip(new, old, strict=True)))


def _choose(active: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(active.reshape(active.shape + (1,) * (new.dim() - active.dim())), new, old)
