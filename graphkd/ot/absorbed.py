"""Scaling at any epsilon: potentials absorbed in the kernel whenever they have moved."""

import numpy as np
from torch import Tensor

from graphkd.ot.domains import Array, Log, Scaling

DRIFT = 15.0
"""How far, in units of epsilon, absorbed potentials may move before they are absorbed again."""


class Absorbed:
    """Balanced half-sweeps at any epsilon on the CPU: log sweeps first, then scaling with the potentials absorbed.

    Potentials move less with every sweep. Once they move by little, the kernel that has them absorbed has sums near
    one, and it is renewed when they have drifted.
    """

    def __init__(self, cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor) -> None:
        self.problem = cost, a, b, epsilon
        self.inner: Log | Scaling = Log(*self.problem)

    def enter(self, g: Tensor | None) -> Array:  # noqa: D102
        return self.inner.enter(g)

    def rows(self, right: Array) -> Array:  # noqa: D102
        return self.inner.rows(right)

    def columns(self, left: Array) -> Array:  # noqa: D102
        return self.inner.columns(left)

    def advance(self, right: Array, count: int) -> tuple[Array, Array]:  # noqa: D102
        left = right
        for _ in range(count):
            before = right
            left = self.inner.rows(right)
            left, right = self.settle(left, self.inner.columns(left), before)
        return left, right

    def excess(self, old: Array, new: Array) -> Array:  # noqa: D102
        return self.inner.excess(old, new)

    def settle(self, left: Array, right: Array, before: Array) -> tuple[Array, Array]:  # noqa: D102
        if isinstance(self.inner, Log):
            if bool((((right - before) / self.inner.narrow).abs() > DRIFT).any()):
                return left, right
        else:
            lowest = min(left.min(), right.min())
            highest = max(left.max(), right.max())
            if lowest > np.exp(-DRIFT) and highest < np.exp(DRIFT):
                return left, right
        self.inner = Scaling(*self.problem, offsets=self.inner.potentials(left, right))
        return np.ones_like(self.inner.a), np.ones_like(self.inner.b)

    def potentials(self, left: Array, right: Array) -> tuple[Tensor, Tensor]:  # noqa: D102
        return self.inner.potentials(left, right)

    def plan(self, left: Array, right: Array) -> Tensor:  # noqa: D102
        return self.inner.plan(left, right)
