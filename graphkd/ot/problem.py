"""What every solver is given: a cost, two masses, an epsilon; checked, raised to float32, and of one batch shape."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from graphkd import checks
from graphkd.precision import raised
from graphkd.typing import BAD_COST, BAD_MASS, UNEQUAL_MASS, Real

Norm = Literal["l1", "max"]

EQUAL = 1e-4
"""By what share of their sum the masses of the two sides may differ."""


@dataclass(frozen=True)
class Relative:
    """An epsilon given as a share of the cost's standard deviation, taken per problem and without gradient.

    >>> Relative(0.05)
    Relative(share=0.05)
    """

    share: Real

    def __post_init__(self) -> None:
        checks.positive("share", self.share)

    def of(self, cost: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b 1 1"]:
        """Epsilon in units of a cost; 1 for a constant cost, where any epsilon gives the product of the masses."""
        spread = cost.detach().flatten(-2).std(-1, correction=0)[..., None, None]
        # The mean of equal numbers is off by their rounding.
        rounding = 4 * torch.finfo(cost.dtype).eps * cost.detach().abs().amax((-2, -1), keepdim=True)
        return torch.where(spread > rounding, self.share * spread, 1.0)


def resolve(epsilon: Real | Relative, cost: Float[Tensor, "*b n m"]) -> Float[Tensor, "*e 1 1"]:
    """Epsilon in units of a cost, as a tensor that broadcasts with it."""
    if isinstance(epsilon, Relative):
        return epsilon.of(cost)
    return torch.full((1, 1), epsilon, dtype=cost.dtype, device=cost.device)


class Problem(NamedTuple):
    """A checked problem: cost and masses in one dtype, on one device, with the same leading axes.

    Attributes:
        cost: M, with gradient history.
        a: Mass of the rows.
        b: Mass of the columns.
        status: Per problem the bits of :class:`~graphkd.typing.Transport`'s status; all zero where a bad value would
            have raised.
    """

    cost: Float[Tensor, "*b n m"]
    a: Float[Tensor, "*b n"]
    b: Float[Tensor, "*b m"]
    status: Int[Tensor, "*b"]


def prepare(cost: Tensor, a: Tensor | None, b: Tensor | None, *, equal: bool = True) -> Problem:
    """Check costs and masses, raise half precision, make missing masses uniform, give all the same leading axes.

    Args:
        cost: M (..., n, m).
        a: Mass of the rows, or None.
        b: Mass of the columns, or None.
        equal: Whether both sides need the same total mass.

    Raises:
        ValueError: For wrong types, shapes, dtypes or devices; and on the CPU, where looking at values is free, for
            non-finite entries, negative masses, sums of zero and unequal sums. On an accelerator values are judged
            there, and the result's status tells.
    """
    checks.rows("cost", cost)
    checks.same_device(cost=cost, a=a, b=b)
    cost = raised(cost)
    n, m = cost.shape[-2:]
    a, total = (uniform(n, cost), 1.0) if a is None else _mass("a", a, n, cost)
    b, other = (uniform(m, cost), 1.0) if b is None else _mass("b", b, m, cost)
    judged = None if checks.can_look(cost) else judge(cost, a, b, equal)
    cost, a, b = _same_batch(cost, a, b)
    if judged is not None:
        return Problem(cost, a, b, judged.expand(cost.shape[:-2]))
    if equal:
        difference = np.max(abs(total - other) / total)
        if difference > EQUAL:
            raise ValueError(f"a and b need equal sums, got sums that differ by {difference:.3g} of a's")
    return Problem(cost, a, b, torch.zeros(cost.shape[:-2], dtype=torch.int64))


def mass(name: str, x: Tensor, size: int, like: Tensor) -> Tensor:
    """Masses (..., size) that may meet a cost, in its dtype."""
    return _mass(name, x, size, like)[0]


def _mass(name: str, x: Tensor, size: int, like: Tensor) -> tuple[Tensor, Any]:
    """The same, and their sums where looking is free."""
    checks.floating(name, x)
    if x.dim() < 1 or x.shape[-1] != size or x.numel() == 0:
        raise ValueError(f"{name} needs {size} masses for a cost of shape {tuple(like.shape)}, got {tuple(x.shape)}")
    x = x.to(like.dtype)
    sums = None
    if checks.can_look(x):
        # Numpy looks at a few numbers in less time than torch.
        seen: Any = x.detach().numpy()
        low, sums = seen.min(), seen.sum(-1)
        if not (low >= 0 and 0 < sums.min() and sums.max() < float("inf")):
            checks.finite(name, x)
            raise ValueError(
                f"{name} needs masses of at least 0 with a finite sum above 0, got a smallest mass of {low:.3g} "
                f"and sums from {sums.min():.3g} to {sums.max():.3g}"
            )
    return x, sums


def uniform(size: int, like: Tensor) -> Float[Tensor, " n"]:
    """Uniform masses 1/n for the last axis, in the dtype and on the device of another tensor.

    >>> uniform(4, torch.zeros(1))
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    return torch.full((size,), 1 / size, dtype=like.dtype, device=like.device)


def marginal_error(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""Summed error of both marginals as a share of the mass, :math:`(\|P 1 - a\|_1 + \|P^\top 1 - b\|_1) / \|a\|_1`.

    >>> marginal_error(torch.eye(2), torch.ones(2), torch.tensor([1.0, 0.5]))
    tensor(0.2500)
    """
    return errors(plan.sum(-1), plan.sum(-2), a, b)


@torch.no_grad()
def errors(rows: Tensor, columns: Tensor, a: Tensor, b: Tensor, norm: Norm = "l1") -> Tensor:
    """How far a plan's sums are from the masses: summed over both sides as a share of the mass, or the largest."""
    row_gap, column_gap = (rows - a).abs(), (columns - b).abs()
    if norm == "max":
        return row_gap.amax(-1).maximum(column_gap.amax(-1))
    return (row_gap.sum(-1) + column_gap.sum(-1)) / a.sum(-1)


def expands(shape: torch.Size, wanted: torch.Size) -> bool:
    """Whether a tensor of a shape can be expanded to another."""
    return len(shape) <= len(wanted) and all(x in (1, y) for x, y in zip(shape[::-1], wanted[::-1], strict=False))


def _same_batch(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if cost.shape[:-2] == a.shape[:-1] == b.shape[:-1]:
        return cost, a, b
    try:
        shapes = cost.shape[:-2], a.shape[:-1], b.shape[:-1]
        batch = torch.Size(torch.broadcast_shapes(*shapes))  # pyright: ignore # torch does not type its arguments
    except RuntimeError as error:
        raise ValueError(
            f"needs leading axes that broadcast, got cost {tuple(cost.shape)}, a {tuple(a.shape)}, b {tuple(b.shape)}"
        ) from error
    return cost.expand(*batch, *cost.shape[-2:]), a.expand(*batch, a.shape[-1]), b.expand(*batch, b.shape[-1])


@torch.no_grad()
def judge(cost: Tensor, a: Tensor, b: Tensor, equal: bool) -> Tensor:
    """The status bits, without waiting for the device."""
    total, other = a.sum(-1), b.sum(-1)
    bad_cost = ~torch.isfinite(cost).all(-1).all(-1)
    good_mass = (a >= 0).all(-1) & (b >= 0).all(-1) & (total > 0) & (other > 0) & torch.isfinite(total + other)
    unequal = ((total - other).abs() > EQUAL * total) & equal
    return BAD_COST * bad_cost.long() + BAD_MASS * (~good_mass).long() + UNEQUAL_MASS * unequal.long()
