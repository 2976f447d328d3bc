"""The fused Gromov-Wasserstein objective as its solvers see it: plans and derivatives, without gradients."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graphkd.ot.fused.structure import Crossed, Structure
from graphkd.typing import Real


class Found(NamedTuple):
    """Where a solver ended: a plan, its slope and that slope's potentials, and how it got there."""

    plan: Tensor
    slope: Tensor
    f: Tensor
    g: Tensor
    converged: Tensor
    num_iters: Tensor
    epsilon: Tensor


@dataclass(frozen=True)
class Objective:
    r"""The objective :math:`(1 - \alpha) \langle P, M\rangle + \alpha \sum L(C_{ik}, D_{jl}) P_{ij} P_{kl}` of plans.

    Attributes:
        linear: (1 - alpha) M (*b n m).
        structure: The relations and their loss.
        alpha: The weight of the structure.
        a: Mass of the rows.
        b: Mass of the columns; where it is free, that of the product plan.
        semi_relaxed: Whether the mass of the columns is free.
        constant: What the slopes of all plans have in common.
        crossed: What depends on the plan, as a map.
    """

    linear: Tensor
    structure: Structure
    alpha: Real
    a: Tensor
    b: Tensor
    semi_relaxed: bool
    constant: Tensor
    crossed: Crossed

    @classmethod
    def of(
        cls, cost: Tensor, structure: Structure, alpha: Real, a: Tensor, b: Tensor, semi_relaxed: bool
    ) -> "Objective":
        """The objective of a checked problem."""
        linear = (1 - alpha) * cost
        constant = linear + alpha * structure.rows(a).unsqueeze(-1)
        if not semi_relaxed:
            constant += alpha * structure.columns(b).unsqueeze(-2)
        return cls(linear, structure, alpha, a, b, semi_relaxed, constant, structure.crossed())

    def __getitem__(self, index: tuple[int, ...]) -> "Objective":
        """One problem of a batch."""
        structure = self.structure[index]
        linear, a, b, constant = (x[index] for x in (self.linear, self.a, self.b, self.constant))
        return Objective(linear, structure, self.alpha, a, b, self.semi_relaxed, constant, structure.crossed())

    def start(self, plan: Tensor | None) -> tuple[Tensor, Tensor]:
        """A plan, or the product of the masses where there is none, and ``crossed`` of it."""
        if plan is not None:
            return plan, self.crossed.of(plan)
        shares = self.b / self.b.sum(-1, keepdim=True)
        return self.a.unsqueeze(-1) * shares.unsqueeze(-2), self.crossed.of_masses(self.a, shares)

    def slope(self, plan: Tensor, crossed: Tensor) -> Tensor:
        """The derivative with respect to a plan that has the masses asked for, given ``crossed`` of it."""
        slope = torch.sub(self.constant, crossed, alpha=self.alpha)
        if self.semi_relaxed:
            slope += self.alpha * self.structure.columns(plan.sum(-2)).unsqueeze(-2)
        return slope

    def value(self, plan: Tensor, slope: Tensor) -> Tensor:
        """The objective at a plan, given its slope."""
        structural = ((slope - self.linear) * plan).sum((-2, -1)) / 2
        # A sum of losses of at least 0: what is below is rounding.
        return (self.linear * plan).sum((-2, -1)) + structural.clamp_min(0)


def rounded(plan: Tensor, a: Tensor, b: Tensor | None) -> Tensor:
    """A plan near another that has the masses a and b, or the masses a alone.

    >>> rounded(torch.tensor([[0.5, 0.0], [0.25, 0.25]]), torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5]))
    tensor([[0.3333, 0.1667],
            [0.1667, 0.3333]])

    Source: Altschuler, Weed, Rigollet, "Near-linear time approximation algorithms for optimal transport via Sinkhorn
    iteration", NeurIPS 2017, arXiv:1705.09634.
    """
    rows = plan.sum(-1)
    plan = plan * torch.where(rows > a, a / rows, 1.0).unsqueeze(-1)
    if b is not None:
        columns = plan.sum(-2)
        plan *= torch.where(columns > b, b / columns, 1.0).unsqueeze(-2)
    else:
        b = plan.sum(-2)
    row_gap, column_gap = (a - plan.sum(-1)).clamp_min_(0), (b - plan.sum(-2)).clamp_min_(0)
    total = row_gap.sum(-1).maximum(column_gap.sum(-1)).clamp_min_(torch.finfo(plan.dtype).tiny)
    return plan.add_((row_gap / total.unsqueeze(-1)).unsqueeze(-1) * column_gap.unsqueeze(-2))
