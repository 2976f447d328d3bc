"""The two number systems that Sinkhorn's half-sweeps run in.

:class:`Log` and :class:`Scaling` have the same methods. A state is what the sweeps pass on, a number per row (left) or
column (right), in the domain's own units; ``potentials`` and ``plan`` turn a pair of states into what a caller sees.
"""

from typing import Literal

import torch
from torch import Tensor

from graphkd import checks
from graphkd.typing import Real

Domain = Literal["auto", "scaling", "log"]


class Log:
    """Half-sweeps on the potentials themselves: stable at any epsilon."""

    def __init__(self, cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor) -> None:
        self.cost, self.a, self.b, self.epsilon = cost, a, b, epsilon

    def enter(self, g: Tensor) -> Tensor:
        """The column state of a column potential."""
        return g

    def rows(self, right: Tensor) -> Tensor:
        """The row state that meets the row masses, given the columns."""
        return self._softmin(self.cost - right.unsqueeze(-2), self.b.unsqueeze(-2), -1)

    def columns(self, left: Tensor) -> Tensor:
        """The column state that meets the column masses, given the rows."""
        return self._softmin(self.cost - left.unsqueeze(-1), self.a.unsqueeze(-1), -2)

    def _softmin(self, x: Tensor, mass: Tensor, axis: int) -> Tensor:
        """-epsilon log sum mass exp(-x / epsilon), with finite gradients where the mass is zero."""
        x = -x / self.epsilon
        top = x.detach().masked_fill(mass == 0, -torch.inf).amax(axis, keepdim=True)
        # Below exp(-80) nothing is added in float32, and subnormal numbers would make every sweep ten times slower.
        total = (mass * (x - top).clamp(-80, 80).exp()).sum(axis)
        return -self.epsilon.squeeze(axis) * (total.log() + top.squeeze(axis))

    def ratio(self, old: Tensor, new: Tensor) -> Tensor:
        """By what factor the columns sum to more than b once the rows moved: exp((g_old - g_new) / epsilon)."""
        # A ratio of infinity would make NaN of a zero mass.
        return ((old - new) / self.epsilon.squeeze(-1)).clamp_max(80).exp()

    def potentials(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The potentials (f, g) of two states."""
        return left, right

    def plan(self, left: Tensor, right: Tensor) -> Tensor:
        """The plan of two states."""
        exponent = (left.unsqueeze(-1) + right.unsqueeze(-2) - self.cost) / self.epsilon
        return self.a.unsqueeze(-1) * self.b.unsqueeze(-2) * exponent.clamp(-80, 80).exp()


class Scaling:
    """Half-sweeps on exp(f / epsilon), exp(g / epsilon): one matrix-vector product each.

    The row minimum of the cost is taken out of the kernel so that every row has an entry of one; the row potentials put
    it back. A stabilizer would not commute with that, so there the kernel stays as published.
    """

    def __init__(self, cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, stabilizer: Real) -> None:
        self.a, self.b, self.epsilon, self.stabilizer = a, b, epsilon, stabilizer
        low = cost.detach().amin(-1, keepdim=True)
        self.low = torch.zeros_like(low) if stabilizer else low
        self.kernel = ((self.low - cost) / epsilon).exp()

    def enter(self, g: Tensor) -> Tensor:
        """The column state of a column potential."""
        return (g / self.epsilon.squeeze(-1)).exp()

    def rows(self, right: Tensor) -> Tensor:
        """The row state that meets the row masses, given the columns."""
        return self._inverse((self.kernel @ (self.b * right).unsqueeze(-1)).squeeze(-1))

    def columns(self, left: Tensor) -> Tensor:
        """The column state that meets the column masses, given the rows."""
        return self._inverse(((self.a * left).unsqueeze(-2) @ self.kernel).squeeze(-2))

    def _inverse(self, sums: Tensor) -> Tensor:
        return (sums + self.stabilizer if self.stabilizer else sums).reciprocal()

    def ratio(self, old: Tensor, new: Tensor) -> Tensor:
        """By what factor the columns sum to more than b once the rows moved: exp((g_old - g_new) / epsilon)."""
        return old / new

    def potentials(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The potentials (f, g) of two states."""
        epsilon = self.epsilon.squeeze(-1)
        return epsilon * left.log() + self.low.squeeze(-1), epsilon * right.log()

    def plan(self, left: Tensor, right: Tensor) -> Tensor:
        """The plan of two states."""
        return (self.a * left).unsqueeze(-1) * self.kernel * (self.b * right).unsqueeze(-2)


def in_domain(domain: Domain, cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, stabilizer: Real) -> Log | Scaling:
    """The problem in a domain; ``auto`` takes scaling where that is seen to be safe, or needed for the stabilizer."""
    if domain == "auto":
        domain = "scaling" if stabilizer > 0 or _scaling_is_safe(cost, epsilon) else "log"
    if domain == "scaling":
        return Scaling(cost, a, b, epsilon, stabilizer)
    return Log(cost, a, b, epsilon)


def _scaling_is_safe(cost: Tensor, epsilon: Tensor) -> bool:
    """Whether no entry of exp(-M / epsilon) can underflow; only asked where looking is free."""
    if not checks.can_look(cost):
        return False
    with torch.no_grad():
        spread = (cost.amax((-2, -1), keepdim=True) - cost.amin((-2, -1), keepdim=True)) / epsilon
        return bool((spread < (40 if cost.dtype == torch.float32 else 300)).all())
