"""Relations between nodes, dense or by factors of low rank: the same few operations for both."""

from typing import NamedTuple

import torch
from torch import Tensor

from graphkd.typing import Real


class LowRank(NamedTuple):
    r"""A relation by its factors, :math:`C = L R^\top`: products with it cost n times the rank instead of n^2.

    Attributes:
        left: L (\*b n k).
        right: R (\*b n k).
        symmetric: Whether L R^T is symmetric, which halves the work. Only set it where that is so.

    >>> x = torch.tensor([[0.0, 1.0], [3.0, 5.0]])
    >>> LowRank.sqeuclidean(x).dense()
    tensor([[ 0., 25.],
            [25.,  0.]])
    """

    left: Tensor
    right: Tensor
    symmetric: bool = False

    @classmethod
    def gram(cls, x: Tensor) -> "LowRank":
        """The inner products of features x (*b n d), of rank d."""
        return cls(x, x, True)

    @classmethod
    def sqeuclidean(cls, x: Tensor) -> "LowRank":
        """The squared Euclidean distances of features x (*b n d), of rank d + 2."""
        # Distances between points near the origin lose fewer digits.
        x = x - x.mean(-2, keepdim=True)
        squares = x.square().sum(-1, keepdim=True)
        ones = torch.ones_like(squares)
        return cls(torch.cat([squares, ones, -2 * x], -1), torch.cat([ones, squares, x], -1), True)

    def dense(self) -> Tensor:
        """The relation itself (*b n n)."""
        return self.left @ self.right.mT


Relation = Tensor | LowRank
"""A relation, or its factors."""


def parts(relation: Relation) -> tuple[Tensor, Tensor | None]:
    """A relation as one tensor or two."""
    return (relation.left, relation.right) if isinstance(relation, LowRank) else (relation, None)


def joined(left: Tensor, right: Tensor | None, symmetric: bool = False) -> Relation:
    """What :func:`parts` has taken apart."""
    return left if right is None else LowRank(left, right, symmetric)


def expanded(relation: Relation, batch: torch.Size) -> Relation:
    """A relation with leading axes that broadcast to a batch's."""
    left, right = (None if x is None else x.expand(*batch, *x.shape[-2:]) for x in parts(relation))
    assert left is not None
    return joined(left, right, isinstance(relation, LowRank) and relation.symmetric)


def at(relation: Relation, index: tuple[int, ...]) -> Relation:
    """One problem's relation of a batch."""
    if isinstance(relation, LowRank):
        return LowRank(relation.left[index], relation.right[index], relation.symmetric)
    return relation[index]


def detached(relation: Relation) -> Relation:
    """A relation without gradient."""
    if isinstance(relation, LowRank):
        return LowRank(relation.left.detach(), relation.right.detach(), relation.symmetric)
    return relation.detach()


def transposed(relation: Relation) -> Relation:
    """C^T."""
    return LowRank(relation.right, relation.left, relation.symmetric) if isinstance(relation, LowRank) else relation.mT


def scaled(relation: Relation, factor: Real) -> Relation:
    """A multiple of C."""
    return relation._replace(left=factor * relation.left) if isinstance(relation, LowRank) else factor * relation


def times(relation: Relation, x: Tensor) -> Tensor:
    """C x, by the factors where there are such."""
    return relation.left @ (relation.right.mT @ x) if isinstance(relation, LowRank) else relation @ x
