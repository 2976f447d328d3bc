"""Newton's method on the columns' potential: few steps where sweeps would need hundreds."""

import torch
from torch import Tensor

from graphkd import checks
from graphkd.ot.domains import Log, factor_of
from graphkd.ot.gradients import solve_columns
from graphkd.typing import Real

RIDGE = 0.1
"""How much of the diagonal is added, as a multiple of the marginal error: almost separate groups would step too far."""

HALVINGS = 10
"""How often a step is halved, at most, before the sweeps' own step is taken instead."""


def newton(
    cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: Tensor, num_iters: int, tol: Real | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Maximise the dual in the columns' potential, the rows' being solved for, in float64; then one sweep.

    .. math::
        D(g) = \langle f(g), a\rangle + \langle g, b\rangle, \quad \nabla D = b - P^\top 1, \quad
        -\epsilon \nabla^2 D = \mathrm{diag}(P^\top 1) - P^\top \mathrm{diag}(a)^{-1} P

    with the step halved until D grows by a share of what its slope promises.

    Returns:
        f, g, the plan, and the number of steps per problem.
    """
    cost_wide, a_wide, b_wide, scale = (x.detach().double() for x in (cost, a, b, epsilon))
    kernel = Log(cost_wide, a_wide, b_wide, scale)
    narrow = scale.squeeze(-1)
    right = g.double()
    left = kernel.rows(right)
    value = _dual(left, right, a_wide, b_wide)
    count = torch.zeros(value.shape, dtype=torch.int64, device=value.device)
    for _ in range(num_iters):
        swept = kernel.columns(left)
        # At the swept columns the sums are met: the ratio of both tells the sums at the columns as they are.
        excess = b_wide * (((right - swept) / narrow).clamp(-80, 80).exp() - 1)
        gap = excess.abs().sum(-1) / b_wide.sum(-1)
        active = gap > (1e-12 if tol is None else tol)
        if checks.can_look(active) and not bool(active.any()):
            break
        count = count + active
        factor = factor_of(cost_wide, left, right, scale)
        ridge = RIDGE * gap.clamp(1e-12, 1).unsqueeze(-1)
        step = -narrow * solve_columns(factor, a_wide, b_wide, 1, excess, ridge)
        promise = -(step * excess).sum(-1)
        # Where no share of the step helps, a sweep still does.
        new_right, new_left = swept, kernel.rows(swept)
        new_value = _dual(new_left, new_right, a_wide, b_wide)
        searching = active
        for halving in range(HALVINGS):
            trial = right + step * 0.5**halving
            trial_left = kernel.rows(trial)
            trial_value = _dual(trial_left, trial, a_wide, b_wide)
            good = searching & (trial_value >= value + 1e-4 * 0.5**halving * promise) & (trial_value >= new_value)
            wide_good = good.unsqueeze(-1)
            new_right, new_left = torch.where(wide_good, trial, new_right), torch.where(wide_good, trial_left, new_left)
            new_value = torch.where(good, trial_value, new_value)
            searching = searching & ~good
            if checks.can_look(searching) and not bool(searching.any()):
                break
        keep = active.unsqueeze(-1)
        right, left = torch.where(keep, new_right, right), torch.where(keep, new_left, left)
        value = torch.where(active, new_value, value)
    right = kernel.columns(left)
    plan = kernel.plan(left, right)
    return left.to(cost.dtype), right.to(cost.dtype), plan.to(cost.dtype), count


def _dual(f: Tensor, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (f * a).sum(-1) + (g * b).sum(-1)
