"""The gradient of the fused Gromov-Wasserstein objective at a plan that is held."""

from typing import Any

import torch
from torch import Tensor

from graphkd.ot.fused.lowrank import LowRank, Relation, joined, times, transposed
from graphkd.ot.fused.products import Map, conjugated, product
from graphkd.ot.fused.structure import Loss
from graphkd.ot.gradients import once
from graphkd.typing import Real


class FusedEnvelope(torch.autograd.Function):
    r"""The objective's value; its slopes in cost and relations at a fixed plan P, and given ones in the masses.

    With r = P 1, c = P^T 1 and the loss's factors of :mod:`graphkd.ot.fused.structure`,

    .. math::
        \frac{dV}{dM} = (1 - \alpha) P, \quad
        \frac{dV}{dC} = \alpha (f_1'(C) \circ r r^\top - P h_2(D) P^\top), \quad
        \frac{dV}{dD} = \alpha (f_2'(D) \circ c c^\top - h_2'(D) \circ P^\top C P)

    Of the size of the plan it keeps the plan alone, and what it was given.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        alpha: Real,
        loss: Loss,
        value: Tensor,
        plan: Tensor,
        slopes: tuple[Tensor, Tensor | None],
        cost: Tensor,
        a: Tensor,
        b: Tensor,
        *factors: Tensor | None,
    ) -> Tensor:
        ctx.alpha, ctx.loss = alpha, loss
        ctx.save_for_backward(plan, *slopes, *factors)
        return value.view_as(value)

    @staticmethod
    @once
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        plan, slope_a, slope_b, *factors = ctx.saved_tensors
        wanted: tuple[bool, ...] = ctx.needs_input_grad[5:]
        of_masses = grad_value.unsqueeze(-1)
        of_cost = (1 - ctx.alpha) * of_masses.unsqueeze(-1)
        of_relations = ctx.alpha * of_masses.unsqueeze(-1)
        student, teacher = joined(factors[0], factors[1]), joined(factors[2], factors[3])
        # A plan of mostly zeros carries a relation from one graph to the other at little cost.
        slopes = (
            *_slopes(student, teacher, plan, ctx.loss, wanted[3:5], is_teacher=False),
            *_slopes(teacher, student, plan.mT, ctx.loss, wanted[5:7], is_teacher=True),
        )
        return (
            *[None] * 5,
            of_cost * plan if wanted[0] else None,
            of_masses * slope_a if wanted[1] else None,
            of_masses * slope_b if wanted[2] and slope_b is not None else None,
            *(None if slope is None else slope.mul_(of_relations) for slope in slopes),
        )


def _slopes(
    relation: Relation, other: Relation, plan: Tensor, loss: Loss, wanted: tuple[bool, ...], *, is_teacher: bool
) -> list[Tensor | None]:
    """The derivative with respect to a relation, or to its two factors; rows of the plan are the relation's nodes."""
    if not any(wanted):
        return [None, None]
    mass = plan.sum(-1, keepdim=True)
    if isinstance(relation, LowRank):
        carry = product(plan)
        # With a square loss dC = 2 (C o m m^T - P D P^T); then dL = dC R and dR = dC^T L, from right to left.
        turned = transposed(relation), transposed(other)
        return [
            _factor_slope(*pair, carry, plan, mass) if is_wanted else None
            for pair, is_wanted in zip(((relation, other), turned), wanted, strict=True)
        ]
    slope = (loss.slope_f2 if is_teacher else loss.slope_f1)(relation).mul_(mass).mul_(mass.mT)
    if isinstance(other, LowRank):
        carry = product(plan)
        return [slope.sub_(carry(other.left) @ carry(other.right).mT, alpha=2), None]
    if is_teacher:
        return [slope.addcmul_(loss.slope_h2(relation), conjugated(other, plan), value=-1), None]
    return [slope.sub_(conjugated(loss.h2(other), plan)), None]


def _factor_slope(relation: Relation, other: Relation, carry: Map, plan: Tensor, mass: Tensor) -> Tensor:
    assert isinstance(relation, LowRank)
    left, right = relation.left, relation.right
    return 2 * (mass * left @ (right.mT @ (mass * right)) - carry(times(other, plan.mT @ right)))
