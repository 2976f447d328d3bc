"""Gradients of a solved transport problem that need no look back at how it was solved."""

from typing import Any

import torch
from torch import Tensor


class Envelope(torch.autograd.Function):
    """The value's gradient at the solution: dM = P, da = f, db = g (centred: masses move along equal sums)."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, plan: Tensor, value: Tensor
    ) -> Tensor:
        ctx.save_for_backward(f, g, plan)
        return value.view_as(value)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        f, g, plan = ctx.saved_tensors
        scale = grad_value.unsqueeze(-1)
        centred_f = f - f.mean(-1, keepdim=True)
        centred_g = g - g.mean(-1, keepdim=True)
        return scale.unsqueeze(-1) * plan, scale * centred_f, scale * centred_g, None, None, None, None


class NoGradient(torch.autograd.Function):
    """The plan of an envelope solve: a loss that reads it is refused, where a constant would silently teach nothing."""

    @staticmethod
    def forward(ctx: Any, cost: Tensor, a: Tensor, b: Tensor, plan: Tensor) -> Tensor:  # noqa: D102
        return plan.view_as(plan)

    @staticmethod
    def backward(ctx: Any, grad_plan: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        raise ValueError(
            "the plan of an envelope solve has no gradient, got a loss that reads it: "
            "use gradient='unroll', or plan.detach() where it is a constant"
        )
