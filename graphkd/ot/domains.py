"""The number systems that Sinkhorn's half-sweeps run in.

They have the same methods, those of :class:`Log`. A state is what the sweeps pass on, a number per row (left) or
column (right), in the domain's own units; ``potentials`` turns a pair of them into what a caller sees. A domain
computes without gradient: :mod:`graphkd.ot.gradients` differentiates what was run.

On the CPU the scaling domain runs on numpy arrays that share the tensors' memory: numpy calls the same BLAS as torch
with a third of the overhead, and has a fast product of many small matrices with one vector each.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from graphkd import checks
from graphkd.typing import Real

Array = Any
"""A torch tensor, or the numpy array that shares its memory."""

DomainName = Literal["auto", "scaling", "log"]

SPREAD = {torch.float32: 40.0, torch.float64: 300.0}
"""How many epsilon a cost may span for exp(-M / epsilon) and its scalings to stay in range."""

REACH = {torch.float32: 80.0, torch.float64: 600.0}
"""The largest exponent that is taken: beyond it numbers overflow or, subnormal, make every product ten times slower."""


class Log:
    """Half-sweeps on the potentials themselves: stable at any epsilon, on any device, traceable by a compiler."""

    def __init__(self, cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, tau_a: Real = 1, tau_b: Real = 1) -> None:
        self.cost, self.a, self.b, self.epsilon = cost, a, b, epsilon
        self.tau_a, self.tau_b = tau_a, tau_b
        self.narrow = epsilon.squeeze(-1)

    def enter(self, g: Tensor | None) -> Tensor:
        """The column state of a column potential, or of zero."""
        return torch.zeros_like(self.b) if g is None else g

    def rows(self, right: Tensor) -> Tensor:
        """The row state that meets the row masses, given the columns."""
        return self.tau_a * self._softmin(right.unsqueeze(-2), self.b.unsqueeze(-2), -1)

    def columns(self, left: Tensor) -> Tensor:
        """The column state that meets the column masses, given the rows."""
        return self.tau_b * self._softmin(left.unsqueeze(-1), self.a.unsqueeze(-1), -2)

    def _softmin(self, other: Tensor, mass: Tensor, axis: int) -> Tensor:
        """-epsilon log sum mass exp((other - M) / epsilon), with one exponential per entry."""
        x = (torch.where(mass > 0, other, -torch.inf) - self.cost) / self.epsilon
        top = x.detach().amax(axis, keepdim=True)
        low = -REACH[x.dtype]
        if torch.is_grad_enabled():
            x = (x - top).clamp_min(low).exp() * mass
        else:
            x = x.sub_(top).clamp_min_(low).exp_().mul_(mass)
        return -self.narrow * (x.sum(axis).log() + top.squeeze(axis))

    def advance(self, right: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The states after a number of sweeps, at least one."""
        left = right
        for _ in range(count):
            left = self.rows(right)
            right = self.columns(left)
        return left, right

    def excess(self, old: Tensor, new: Tensor) -> Tensor:
        """By how much each column's mass was off before its state was renewed, as seen at the renewal."""
        # A ratio of infinity would make NaN of a zero mass.
        return self.b * (((old - new) / self.narrow).clamp_max(80).exp() - 1).abs()

    def settle(self, left: Tensor, right: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """The states after a sweep, expressed anew where the domain wants to."""
        return left, right

    def potentials(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The potentials (f, g) of two states."""
        return left, right

    def plan(self, left: Tensor, right: Tensor) -> Tensor:
        """The plan of two states."""
        return plan_of(self.cost, self.a, self.b, left, right, self.epsilon)


class Scaling:
    r"""Half-sweeps by one matrix-vector product each, of :math:`K = \exp((f^0 + g^0 - M) / \epsilon)`.

    States are the sums that a half-sweep meets, :math:`s = K (b r^{-\tau_b})` and :math:`r = K^\top (a s^{-\tau_a})`,
    so that :math:`f = f^0 - \epsilon \log s`. The offsets keep the kernel in range; they need both masses kept and no
    stabilizer, and without them the kernel stays as published.

    Args:
        cost: M, or with ``shared`` one (n m) for all problems, whose products are then those of matrices.
        a: Mass of the rows.
        b: Mass of the columns.
        epsilon: Entropic weight.
        offsets: f0 and g0, each None for zeros; the sweeps start at g0.
        tau_a: How firmly the row masses are held.
        tau_b: How firmly the column masses are held.
        stabilizer: Added to every sum.
        shared: Whether all problems have one cost.
    """

    def __init__(
        self,
        cost: Tensor,
        a: Tensor,
        b: Tensor,
        epsilon: Tensor,
        offsets: tuple[Tensor | None, Tensor | None] = (None, None),
        tau_a: Real = 1,
        tau_b: Real = 1,
        stabilizer: Real = 0,
        shared: bool = False,
    ) -> None:
        self.cost, self.epsilon, self.offsets, self.shared = cost, epsilon, offsets, shared
        self.tau_a, self.tau_b, self.stabilizer = tau_a, tau_b, stabilizer
        self.on_numpy = checks.can_look(a)
        exponent = -cost if offsets[0] is None else offsets[0].unsqueeze(-1) - cost
        if offsets[1] is not None:
            exponent.add_(offsets[1].unsqueeze(-2))
        exponent.div_(epsilon)
        if offsets[0] is not None:
            exponent.clamp_(-REACH[cost.dtype], REACH[cost.dtype])
        self.kernel = self.array(exponent.exp_())
        self.kernel_t = self.array(exponent.mT)
        self.a, self.b = self.array(a), self.array(b)

    def array(self, x: Tensor) -> Array:
        """A tensor in the form that the sweeps compute with."""
        return x.numpy() if self.on_numpy else x

    def tensor(self, x: Array) -> Tensor:
        """An array of the sweeps as a tensor."""
        return x if isinstance(x, Tensor) else torch.from_numpy(x)  # pyright: ignore[reportUnknownMemberType]

    def times(self, x: Array) -> Array:
        """K x of every problem."""
        return self._product(self.kernel, self.kernel_t, x)

    def times_t(self, x: Array) -> Array:
        """The transposed kernel times x, of every problem."""
        return self._product(self.kernel_t, self.kernel, x)

    def _product(self, kernel: Array, transposed: Array, x: Array) -> Array:
        if self.shared:
            return x @ transposed
        if kernel.ndim == 2:
            return kernel @ x
        return (kernel @ x[..., None])[..., 0]

    def enter(self, g: Tensor | None) -> Array:  # noqa: D102
        if g is None or not self.tau_b:
            return self.array(torch.ones_like(self.tensor(self.b)))
        return self.array((-g / (self.tau_b * self.epsilon.squeeze(-1))).exp())

    def scaled_rows(self, left: Array) -> Array:
        """The row masses with their scaling, U in P = diag(U) K diag(V)."""
        return scaled(self.a, left, self.tau_a)

    def scaled_columns(self, right: Array) -> Array:
        """The column masses with their scaling, V in P = diag(U) K diag(V)."""
        return scaled(self.b, right, self.tau_b)

    def rows(self, right: Array) -> Array:  # noqa: D102
        sums = self.times(self.scaled_columns(right))
        return sums + self.stabilizer if self.stabilizer else sums

    def columns(self, left: Array) -> Array:  # noqa: D102
        sums = self.times_t(self.scaled_rows(left))
        return sums + self.stabilizer if self.stabilizer else sums

    def advance(self, right: Array, count: int) -> tuple[Array, Array]:  # noqa: D102
        left = right
        if not self.on_numpy or self.shared or self.stabilizer or self.tau_a != 1 or self.tau_b != 1:
            for _ in range(count):
                left = self.rows(right)
                right = self.columns(left)
            return left, right
        # The same in place and without a call per product: at 64 nodes that is half of the time.
        u, v, left, right = np.empty_like(self.a), np.empty_like(self.b), np.empty_like(self.a), np.array(right)
        # For one matrix numpy has a product with less to do around it.
        single = self.kernel.ndim == 2
        product, divide = np.dot if single else np.matmul, np.divide
        u_, v_, left_, right_ = (x if single else x[..., None] for x in (u, v, left, right))
        a, b, kernel, kernel_t = self.a, self.b, self.kernel, self.kernel_t
        for _ in range(count):
            divide(b, right, v)
            product(kernel, v_, left_)
            divide(a, left, u)
            product(kernel_t, u_, right_)
        return left, right

    def excess(self, old: Array, new: Array) -> Array:  # noqa: D102
        ratio = new / old
        return self.b * abs((ratio if self.tau_b == 1 else ratio**self.tau_b) - 1)

    def settle(self, left: Array, right: Array, before: Array) -> tuple[Array, Array]:  # noqa: D102
        return left, right

    def potentials(self, left: Array, right: Array) -> tuple[Tensor, Tensor]:  # noqa: D102
        log = np.log if self.on_numpy else torch.log
        epsilon = self.array(self.epsilon.squeeze(-1))
        found: list[Tensor] = []
        for sums, tau, offset in zip((left, right), (self.tau_a, self.tau_b), self.offsets, strict=True):
            potential = -tau * epsilon * log(sums)
            if offset is not None:
                potential += self.array(offset)
            found.append(self.tensor(potential))
        return found[0], found[1]

    def plan(self, left: Array, right: Array) -> Tensor:
        """The plan of two states; of a shared cost, the mean over all problems."""
        u, v = self.tensor(self.scaled_rows(left)), self.tensor(self.scaled_columns(right))
        kernel = self.tensor(self.kernel)
        if self.shared:
            return (u.mT @ v).mul_(kernel).div_(u.shape[0])
        return (u.unsqueeze(-1) * kernel).mul_(v.unsqueeze(-2))


def plan_of(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: Tensor) -> Tensor:
    """The plan of two potentials."""
    return factor_of(cost, f, g, epsilon) * a.unsqueeze(-1) * b.unsqueeze(-2)


def factor_of(cost: Tensor, f: Tensor, g: Tensor, epsilon: Tensor) -> Tensor:
    """The plan of two potentials as a multiple of the masses, exp((f + g - M) / epsilon)."""
    reach = REACH[cost.dtype]
    return ((f.unsqueeze(-1) + g.unsqueeze(-2) - cost) / epsilon).clamp(-reach, reach).exp()


def scaled(mass: Array, sums: Array, tau: Real) -> Array:
    """Masses, or what flows to them, with the scaling of a state."""
    if tau == 1:
        return mass / sums
    return mass * sums ** (-tau)
