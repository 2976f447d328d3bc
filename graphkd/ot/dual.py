"""The dual objective of entropic transport: what two potentials are worth, and how that moves with the masses."""

from collections.abc import Callable

import torch
from torch import Tensor

from graphkd.ot.domains import factor_of
from graphkd.ot.gradients import centred
from graphkd.typing import Real

_dot: Callable[[Tensor, Tensor], Tensor] = torch.linalg.vecdot  # pyright: ignore # torch does not type it


def value_of(
    a: Tensor, b: Tensor, f: Tensor, g: Tensor, plan: Tensor, epsilon: Tensor, tau_a: Real, tau_b: Real
) -> Tensor:
    """The dual objective of two potentials."""
    value = _dot(earned(f, epsilon, tau_a), a) + _dot(earned(g, epsilon, tau_b), b)
    if tau_a == tau_b == 1:
        return value
    return value - epsilon[..., 0, 0] * (plan.sum((-2, -1)) - a.sum(-1) * b.sum(-1))


def slopes_of(
    cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: Tensor, tau_a: Real, tau_b: Real
) -> tuple[Tensor, Tensor]:
    """The value's derivatives by the masses, at fixed potentials."""
    if tau_a == tau_b == 1:
        return centred(f), centred(g)
    factor = factor_of(cost.detach(), f, g, epsilon) - 1
    narrow = epsilon.squeeze(-1)
    slope_a = earned(f, epsilon, tau_a) - narrow * (factor * b.detach().unsqueeze(-2)).sum(-1)
    slope_b = earned(g, epsilon, tau_b) - narrow * (factor * a.detach().unsqueeze(-1)).sum(-2)
    return slope_a, slope_b


def earned(potential: Tensor, epsilon: Tensor, tau: Real) -> Tensor:
    """What a unit of mass earns at a potential: all of it where the mass is kept, nothing where it is free."""
    if tau in (0, 1):
        return potential if tau else 0 * potential
    rho = epsilon.squeeze(-1) * (tau / (1 - tau))
    return -rho * (-potential / rho).expm1()
