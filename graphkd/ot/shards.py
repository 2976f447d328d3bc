"""Sinkhorn's half-sweeps where the rows of the cost are spread over processes: only numbers per column travel.

The half-sweep that sums over columns needs nothing from others. The one that sums over rows adds up what the processes
found for each column: m numbers when scaling; in the log domain twice as many, the best of all and a sum relative to
it. Whatever decides how the sweeps go on is one number that all processes have from one of them.

``axis`` says which of the last two axes of a cost is spread: -2, or -1 where rows and columns are exchanged.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from graphkd import checks, parallel
from graphkd.ot.absorbed import DRIFT, Absorbed
from graphkd.ot.domains import SPREAD, Array, DomainName, Log, Scaling
from graphkd.ot.gradients import Envelope, Gradients, once


def summed(x: Tensor) -> Tensor:
    """The sum over processes, in the tensor's own memory.

    >>> summed(torch.ones(2))
    tensor([1., 1.])
    """
    if parallel.world() > 1:
        dist.all_reduce(x)
    return x


def lowest(x: Tensor) -> Tensor:
    """The smallest over processes, in the tensor's own memory.

    >>> lowest(torch.ones(2))
    tensor([1., 1.])
    """
    if parallel.world() > 1:
        dist.all_reduce(x, dist.ReduceOp.MIN)
    return x


class ShardedLog(Log):
    """Half-sweeps on the potentials."""

    def __init__(self, cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, axis: int) -> None:
        super().__init__(cost, a, b, epsilon)
        self.axis = axis

    def _softmin(self, other: Tensor, mass: Tensor, axis: int) -> Tensor:
        own = super()._softmin(other, mass, axis)
        if axis != self.axis:
            return own
        # Rows that all lack mass have no say; their soft minimum is NaN.
        own = own.where((mass > 0).any(), torch.inf)
        best = lowest(own.clone())
        return best - self.narrow * summed(((best - own) / self.narrow).exp()).log()

    def excess(self, old: Tensor, new: Tensor) -> Tensor:
        """By how much the masses were off before the columns were renewed: one number, the same in all processes."""
        return _agreed_sum(super().excess(old, new), self.axis)


class ShardedScaling(Scaling):
    """Half-sweeps by one product each; both masses are kept."""

    def __init__(
        self,
        cost: Tensor,
        a: Tensor,
        b: Tensor,
        epsilon: Tensor,
        axis: int,
        offsets: tuple[Tensor | None, Tensor | None],
    ) -> None:
        super().__init__(cost, a, b, epsilon, offsets)
        self.axis = axis

    def times(self, x: Array) -> Array:  # noqa: D102
        return self._total(super().times(x), -1)

    def times_t(self, x: Array) -> Array:  # noqa: D102
        return self._total(super().times_t(x), -2)

    def _total(self, sums: Array, axis: int) -> Array:
        return self.array(summed(self.tensor(sums))) if axis == self.axis else sums

    def advance(self, right: Array, count: int) -> tuple[Array, Array]:  # noqa: D102
        left = right
        for _ in range(count):
            left = self.rows(right)
            right = self.columns(left)
        return left, right

    def excess(self, old: Array, new: Array) -> Tensor:  # noqa: D102
        return _agreed_sum(self.tensor(super().excess(old, new)), self.axis)


class ShardedAbsorbed(Absorbed):
    """Scaling at any epsilon; all processes renew their kernels in the same sweep."""

    def __init__(self, cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, axis: int) -> None:
        self.problem = cost, a, b, epsilon
        self.axis = axis
        self.inner = ShardedLog(*self.problem, axis)

    def settle(self, left: Array, right: Array, before: Array) -> tuple[Array, Array]:  # noqa: D102
        logs = self.inner if isinstance(self.inner, Log) else None
        if logs is None:
            smallest, largest = min(left.min(), right.min()), max(left.max(), right.max())
            far = not (smallest > np.exp(-DRIFT) and largest < np.exp(DRIFT))
        else:
            far = bool((((right - before) / logs.narrow).abs() > DRIFT).any())
        far = bool(summed(torch.tensor(float(far))) > 0)
        # Log sweeps go on while they move far; a kernel is kept until the potentials have moved far.
        if far == (logs is not None):
            return left, right
        offsets = self.inner.potentials(left, right)
        self.inner = ShardedScaling(*self.problem, self.axis, offsets)
        return np.ones_like(self.inner.a), np.ones_like(self.inner.b)


def domain_of(
    name: DomainName, cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, axis: int, reach: float
) -> ShardedLog | ShardedScaling | ShardedAbsorbed:
    """The problem in a domain; ``auto`` takes the fastest that is safe for costs that differ by ``reach``."""
    if name == "log" or (name == "auto" and not checks.can_look(cost)):
        return ShardedLog(cost, a, b, epsilon, axis)
    if name == "auto" and not reach < SPREAD[cost.dtype] * float(epsilon):
        return ShardedAbsorbed(cost, a, b, epsilon, axis)
    nearest = cost.amin(-1)
    return ShardedScaling(cost, a, b, epsilon, axis, (lowest(nearest) if axis == -1 else nearest, None))


class ShardedEnvelope(Envelope):
    """A value that all processes have, with the gradient of the sum of what they make of it."""

    @staticmethod
    @once
    def backward(ctx: Any, grad_value: Tensor) -> Gradients:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        slope_a, slope_b, plan = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        # Every process's value depends on these rows; on this process's copy of b only its own.
        scale = summed(grad_value.clone()) if wanted[0] or wanted[1] else grad_value
        return (
            scale * plan if wanted[0] else None,
            scale * slope_a if wanted[1] else None,
            grad_value * slope_b if wanted[2] else None,
            *[None] * 4,
        )


def _agreed_sum(excess: Tensor, axis: int) -> Tensor:
    """The sum over all columns, of which there may be some in each process; a tensor of one number."""
    total = excess.sum(-1, keepdim=True)
    return parallel.agreed(summed(total) if axis == -1 else total)
