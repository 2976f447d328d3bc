r"""What two graphs' relations cost under a plan: the quadratic part of the Gromov-Wasserstein objective.

For a loss of the form :math:`L(s, t) = f_1(s) + f_2(t) - s\, h_2(t)` the sum over four indices is a matter of matrix
products (Peyré, Cuturi, Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices", ICML 2016): with
r = P 1 and c = P^T 1,

.. math::
    \sum_{ijkl} L(C_{ik}, D_{jl}) P_{ij} P_{kl}
    = r^\top f_1(C)\, r + c^\top f_2(D)\, c - \langle C P h_2(D)^\top, P\rangle
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from graphkd.ot.fused.lowrank import LowRank, Relation, at, detached, scaled, transposed
from graphkd.ot.fused.products import Map, is_symmetric, product

LossName = Literal["square", "kl"]

TINY = 1e-18
"""Where the logarithms of the KL loss begin: relations below it, such as zeros, count as this."""


class Loss(NamedTuple):
    """An elementwise loss by its factors, and the slopes of these."""

    f1: Map
    f2: Map
    h2: Map
    slope_f1: Map
    slope_f2: Map
    slope_h2: Map


def _double(x: Tensor) -> Tensor:
    return 2 * x


def _two(x: Tensor) -> Tensor:
    return torch.full_like(x, 2)


def _same(x: Tensor) -> Tensor:
    return x


def _log(x: Tensor) -> Tensor:
    return x.clamp_min(TINY).log()


def _entropy(x: Tensor) -> Tensor:
    return x * _log(x) - x


def _inverse(x: Tensor) -> Tensor:
    # Below TINY the logarithm is constant.
    return torch.where(x >= TINY, x, torch.inf).reciprocal()


LOSSES = {
    "square": Loss(torch.square, torch.square, _double, _double, _double, _two),
    "kl": Loss(_entropy, _same, _log, _log, torch.ones_like, _inverse),
}


@dataclass(frozen=True)
class Structure:
    """Two checked relations and a loss between them; its methods record no gradient of the relations.

    Attributes:
        student: C (*b n n).
        teacher: D (*b m m).
        loss: The loss by its factors; for relations of low rank the square.
    """

    student: Relation
    teacher: Relation
    loss: Loss

    def detached(self) -> "Structure":
        """The same without gradient."""
        return Structure(detached(self.student), detached(self.teacher), self.loss)

    def __getitem__(self, index: tuple[int, ...]) -> "Structure":
        """One problem of a batch."""
        return Structure(at(self.student, index), at(self.teacher, index), self.loss)

    def rows(self, mass: Tensor) -> Tensor:
        r"""The derivative of :math:`r^\top f_1(C)\, r` with respect to r."""
        return _slope(self.student, self.loss.f1, mass)

    def columns(self, mass: Tensor) -> Tensor:
        r"""The derivative of :math:`c^\top f_2(D)\, c` with respect to c."""
        return _slope(self.teacher, self.loss.f2, mass)

    def crossed(self) -> "Crossed":
        r"""The derivative of :math:`\langle C P h_2(D)^\top, P\rangle`, for any P."""
        student, teacher = self.student, self.teacher
        h2 = scaled(teacher, 2) if isinstance(teacher, LowRank) else self.loss.h2(teacher)
        if is_symmetric(student) and is_symmetric(teacher):
            h2 = scaled(h2, 2)
            return Crossed(h2, (product(student), product(h2)), None)
        back = product(transposed(student)), product(transposed(h2))
        return Crossed(h2, (product(student), product(h2)), back)


class Crossed(NamedTuple):
    r"""The map :math:`P \mapsto C P h^\top + C^\top P h`, h standing for :math:`h_2(D)`.

    Attributes:
        h: What it is made of, twice where both are symmetric.
        forth: The products with C and with h.
        back: Those with their transposes; None where both are symmetric, and the two terms one.
    """

    h: Relation
    forth: tuple[Map, Map]
    back: tuple[Map, Map] | None

    def of(self, plan: Tensor) -> Tensor:
        """The map at a plan."""
        left, right = self.forth
        forth = left(right(plan.mT).mT)
        return forth if self.back is None else forth.add_(self.back[0](self.back[1](plan.mT).mT))

    def of_vertex(self, plan: Tensor) -> Tensor:
        """The map at a plan of mostly zeros, which is half the work."""
        if isinstance(self.h, LowRank):
            return self.of(plan)
        carry = product(plan)
        forth = self.forth[0](carry(self.h.mT))
        return forth if self.back is None else forth.add_(self.back[0](carry(self.h)))

    def of_masses(self, a: Tensor, b: Tensor) -> Tensor:
        """The map at the plan a b^T."""
        a, b = a.unsqueeze(-1), b.unsqueeze(-1)
        left, right = self.forth
        forth = left(a) @ right(b).mT
        return forth if self.back is None else forth.add_(self.back[0](a) @ self.back[1](b).mT)


def _slope(relation: Relation, f: Map, mass: Tensor) -> Tensor:
    """The derivative of m^T f(C) m with respect to m."""
    if isinstance(relation, LowRank):
        # A row of the squared relation, weighted by masses, is a quadratic form in that row of the factors.
        forth = _weighted_squares(relation, mass)
        return 2 * forth if relation.symmetric else forth + _weighted_squares(transposed(relation), mass)
    values, x = f(relation), mass.unsqueeze(-1)
    return (values @ x + values.mT @ x).squeeze(-1)


def _weighted_squares(relation: Relation, mass: Tensor) -> Tensor:
    assert isinstance(relation, LowRank)
    weights = relation.right.mT @ (mass.unsqueeze(-1) * relation.right)
    return ((relation.left @ weights) * relation.left).sum(-1)
