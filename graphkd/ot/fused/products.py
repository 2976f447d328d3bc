"""Products of matrices by the cheapest way that their entries allow; none records a gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array  # pyright: ignore # scipy has no types
from torch import Tensor

from graphkd import checks
from graphkd.ot.fused.lowrank import LowRank, Relation, times

Map = Callable[[Tensor], Tensor]

SPARSE = 0.08
"""Up to this share of entries that are not zero a sparse product is cheaper: an entry takes twelve times as long."""

SMALL = 192
"""Below this many columns dense products are cheaper in any case."""


def product(relation: Relation) -> Map:
    """The product with a matrix (*b n m), as a function of the other factor (*b m k).

    >>> product(torch.eye(2))(torch.ones(2, 1))
    tensor([[1.],
            [1.]])
    """
    if isinstance(relation, LowRank):
        return lambda x: times(relation, x)
    if is_sparse(relation):
        return Sparse(relation).times
    return relation.matmul


def conjugated(x: Tensor, plan: Tensor) -> Tensor:
    """P X P^T, which is cheap for a plan of mostly zeros."""
    if not is_sparse(plan):
        return plan @ x @ plan.mT
    carry = Sparse(plan).times
    return carry(carry(x).mT).mT


def is_sparse(x: Tensor) -> bool:
    """Whether a matrix is known to have so many zeros that a sparse product pays."""
    if x.shape[-1] < SMALL or not checks.can_look(x):
        return False
    return int(x.count_nonzero()) < SPARSE * x.numel()


class Sparse:
    """A matrix of mostly zeros on the CPU; a batch is one matrix of blocks."""

    def __init__(self, matrix: Tensor) -> None:
        *batch, n, m = matrix.shape
        entries = matrix.contiguous().numpy().reshape(-1)
        # Several times as fast as asking the matrix itself.
        places = np.flatnonzero(entries != 0)
        rows, columns = np.divmod(places, m)
        num_rows, num_columns = len(entries) // m, len(entries) // n
        starts = np.searchsorted(rows, np.arange(num_rows + 1)).astype(np.int32)
        columns = (columns + rows // n * m).astype(np.int32)
        self.shape = *batch, n
        self.blocks: Any = csr_array((entries[places], columns, starts), shape=(num_rows, num_columns))

    def times(self, x: Tensor) -> Tensor:
        """The product with x, of every problem."""
        found = self.blocks @ x.contiguous().numpy().reshape(-1, x.shape[-1])
        return torch.from_numpy(found).reshape(*self.shape, x.shape[-1])  # pyright: ignore


def is_symmetric(relation: Relation) -> bool:
    """Whether a relation is known to be symmetric; where looking is not free it is not."""
    if isinstance(relation, LowRank):
        return relation.symmetric
    if not checks.can_look(relation):
        return False
    if torch.equal(relation, relation.mT):
        return True
    # What a product of matrices leaves of symmetry is worth as little as its last digits.
    gap, size = (relation - relation.mT).abs_().max(), relation.abs().max()
    return bool(gap <= 10 * torch.finfo(relation.dtype).eps * size)
