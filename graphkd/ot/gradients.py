r"""Gradients of a solved transport problem, in three modes.

The numbers are computed first, without gradient; these functions attach what is known about them.

- ``envelope``: the value's gradient at the solution needs only the solution.
- ``implicit``: potentials as functions of cost and masses through the equations that they solve.
- ``unroll``: potentials as functions of cost and masses through the sweeps that were run, kept as two vectors each.

Plan and value follow from the potentials by :class:`PlanOf` and ordinary autograd, so that one derivation serves all.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from graphkd.ot.domains import Array, Log, Scaling, factor_of, scaled
from graphkd.ot.sweeps import Sweeps
from graphkd.precision import no_autocast
from graphkd.typing import Real

Gradients = tuple[Tensor | None, ...]


def once(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """A backward that torch refuses to differentiate again, and that runs without autocast."""

    @wraps(backward)
    def run(ctx: Any, *gradients: Tensor) -> Gradients:
        with no_autocast(gradients[0].device):
            return backward(ctx, *gradients)

    return torch.autograd.function.once_differentiable(run)  # pyright: ignore


class Envelope(torch.autograd.Function):
    """A value whose gradient is known: the plan for the cost, given slopes for the masses."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, slope_a: Tensor, slope_b: Tensor, plan: Tensor, value: Tensor
    ) -> Tensor:
        ctx.save_for_backward(slope_a, slope_b, plan)
        return value.view_as(value)

    @staticmethod
    @once
    def backward(ctx: Any, grad_value: Tensor) -> Gradients:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        slope_a, slope_b, plan = ctx.saved_tensors
        scale = grad_value.unsqueeze(-1)
        wanted = ctx.needs_input_grad
        return (
            scale.unsqueeze(-1) * plan if wanted[0] else None,
            scale * slope_a if wanted[1] else None,
            scale * slope_b if wanted[2] else None,
            *[None] * 4,
        )


class NoGradient(torch.autograd.Function):
    """A plan without gradient: a loss that reads it is refused, where a constant would silently teach nothing."""

    @staticmethod
    def forward(ctx: Any, remedy: str, plan: Tensor, *inputs: Tensor) -> Tensor:  # noqa: D102
        ctx.remedy = remedy
        return plan.view_as(plan)

    @staticmethod
    def backward(ctx: Any, grad_plan: Tensor) -> Gradients:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        raise ValueError(
            "this plan has no gradient, got a loss that reads it: "
            f"{ctx.remedy}, or plan.detach() where it is a constant"
        )


def centred(potential: Tensor) -> Tensor:
    """A slope along masses that keep their sum."""
    return potential - potential.mean(-1, keepdim=True)


class PlanOf(torch.autograd.Function):
    """The plan of two potentials; keeps nothing of its size but the plan itself."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: Tensor, plan: Tensor
    ) -> Tensor:
        ctx.save_for_backward(cost, a, b, f, g, epsilon, plan)
        return plan.view_as(plan)

    @staticmethod
    @once
    def backward(ctx: Any, grad_plan: Tensor) -> Gradients:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        cost, a, b, f, g, epsilon, plan = ctx.saved_tensors
        flow = grad_plan * plan / epsilon
        grad_a = grad_b = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            # The plan over the mass, which stays finite where the mass is zero.
            factor = factor_of(cost, f, g, epsilon).mul_(grad_plan)
            grad_a = (factor * b.unsqueeze(-2)).sum(-1)
            grad_b = (factor * a.unsqueeze(-1)).sum(-2)
        return -flow, grad_a, grad_b, flow.sum(-1), flow.sum(-2), None, None


class Implicit(torch.autograd.Function):
    r"""Potentials by the implicit function theorem.

    At the solution :math:`f = \tau_a F(g, M, b)` and :math:`g = \tau_b G(f, M, a)`, both soft minima, whose derivatives
    are averages. Eliminating the rows leaves one symmetric system in the columns, a graph's Laplacian when both masses
    are kept, which is solved in float64 by Cholesky's method.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: Tensor, tau_a: Real, tau_b: Real
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cost, a, b, f, g, epsilon)
        ctx.taus = tau_a, tau_b
        return f.view_as(f), g.view_as(g)

    @staticmethod
    @once
    def backward(ctx: Any, grad_f: Tensor, grad_g: Tensor) -> Gradients:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        cost, a, b, f, g, epsilon = (x.double() for x in ctx.saved_tensors)
        tau_a, tau_b = ctx.taus
        factor = factor_of(cost, f, g, epsilon)
        row_sums, column_sums = _product(factor, b), _product(factor.mT, a)
        over_rows, over_columns = a / row_sums, grad_g / column_sums

        def back_to_columns(rows: Tensor) -> Tensor:
            return _product(factor.mT, rows)

        rhs = tau_a * tau_b * back_to_columns(over_rows * _product(factor, over_columns))
        rhs = rhs - tau_a * back_to_columns(grad_f / row_sums)
        zeta = solve_columns(factor, over_rows, b, tau_a * tau_b, b * rhs)
        rows = grad_f - tau_b * a * _product(factor, over_columns + b * zeta)
        columns = over_columns + b * zeta
        # What is left of rows and columns are the cotangents of F / tau_a and of G / (tau_b column_sums).
        rows = tau_a * rows / row_sums
        columns = tau_b * columns
        wanted = ctx.needs_input_grad
        narrow = epsilon.squeeze(-1)
        grad_cost = None
        if wanted[0]:
            grad_cost = rows.unsqueeze(-1) * b.unsqueeze(-2) + a.unsqueeze(-1) * columns.unsqueeze(-2)
            grad_cost = grad_cost.mul_(factor).to(ctx.saved_tensors[0].dtype)
        grad_a = (-narrow * _product(factor, columns)).to(grad_f.dtype) if wanted[1] else None
        grad_b = (-narrow * _product(factor.mT, rows)).to(grad_f.dtype) if wanted[2] else None
        return grad_cost, grad_a, grad_b, *[None] * 5


class Unroll(torch.autograd.Function):
    """Potentials by the sweeps that were run, from the last back to the first."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, initial: Tensor | None, domain: Log | Scaling, run: Sweeps
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cost, a, b)
        ctx.domain, ctx.run = domain, run
        return domain.potentials(run.left, run.right)

    @staticmethod
    @once
    def backward(ctx: Any, grad_f: Tensor, grad_g: Tensor) -> Gradients:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        _ = ctx.saved_tensors  # raises if someone changed them in place: the domain shares their memory
        domain: Log | Scaling = ctx.domain
        if isinstance(domain, Log):
            *found, start = _back_in_log(domain, ctx.run, grad_f, grad_g, ctx.needs_input_grad[0])
        else:
            *found, start = _back_in_scaling(domain, ctx.run, grad_f, grad_g, ctx.needs_input_grad[0])
        return *found, start if ctx.needs_input_grad[3] else None, None, None


def _back_in_scaling(
    domain: Scaling, run: Sweeps, grad_f: Tensor, grad_g: Tensor, wants_cost: bool
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """Each product K x adds an outer product to the kernel's gradient: all of them are one product at the end."""
    epsilon = domain.epsilon.squeeze(-1)
    left_grad = domain.array(-domain.tau_a * epsilon * grad_f) / run.left
    right_grad = domain.array(-domain.tau_b * epsilon * grad_g) / run.right
    grad_a, grad_b = 0 * domain.a, 0 * domain.b
    outer: list[tuple[Array, Array]] = []
    grad_start = grad_b
    for step in range(len(run.history) - 1, -1, -1):
        left, _, active = run.history[step]
        before = run.history[step - 1][1] if step else run.start
        left_kept, right_kept = 0, 0
        if active is not None:
            mask = domain.array(active.unsqueeze(-1).to(grad_f.dtype))
            left_kept, right_kept = left_grad * (1 - mask), right_grad * (1 - mask)
            left_grad, right_grad = left_grad * mask, right_grad * mask
        if wants_cost:
            outer.append((domain.scaled_rows(left), right_grad))
        over_left = scaled(domain.times(right_grad), left, domain.tau_a)
        grad_a = grad_a + over_left
        left_grad = left_grad - domain.tau_a * (domain.a * over_left / left)
        if wants_cost:
            outer.append((left_grad, domain.scaled_columns(before)))
        over_right = scaled(domain.times_t(left_grad), before, domain.tau_b)
        grad_b = grad_b + over_right
        grad_start = domain.b * over_right
        right_grad = right_kept - domain.tau_b * (grad_start / before)
        left_grad = left_kept
    masses = domain.tensor(grad_a), domain.tensor(grad_b), domain.tensor(grad_start) / epsilon
    if not wants_cost:
        return None, *masses
    # Steps next to columns for one product per problem; next to problems where all share one kernel.
    axis = 0 if domain.shared else -1
    lefts = torch.stack([domain.tensor(left) for left, _ in outer], axis)
    rights = torch.stack([domain.tensor(right) for _, right in outer], axis)
    if domain.shared:
        grad_kernel = lefts.flatten(0, -2).mT @ rights.flatten(0, -2)
    else:
        grad_kernel = lefts @ rights.mT
    return grad_kernel.mul_(domain.tensor(domain.kernel)).div_(-domain.epsilon), *masses


def _back_in_log(
    domain: Log, run: Sweeps, grad_f: Tensor, grad_g: Tensor, wants_cost: bool
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """Each half-sweep is a soft minimum, whose derivative is the average that the two potentials around it define."""
    cost, a, b, epsilon, narrow = domain.cost, domain.a, domain.b, domain.epsilon, domain.narrow
    left_grad, right_grad = grad_f, grad_g
    grad_cost = torch.zeros_like(cost)
    grad_a, grad_b = torch.zeros_like(a), torch.zeros_like(b)
    for step in range(len(run.history) - 1, -1, -1):
        left, right, active = run.history[step]
        before = run.history[step - 1][1] if step else run.start
        left_kept, right_kept = torch.zeros_like(left), torch.zeros_like(right)
        if active is not None:
            mask = active.unsqueeze(-1)
            left_kept, right_kept = left_grad.masked_fill(mask, 0), right_grad.masked_fill(mask, 0)
            left_grad, right_grad = left_grad.masked_fill(~mask, 0), right_grad.masked_fill(~mask, 0)
        if domain.tau_b:
            flow = factor_of(cost, left, right / domain.tau_b, epsilon).mul_(domain.tau_b * right_grad.unsqueeze(-2))
            total = flow.sum(-1)
            grad_a = grad_a - narrow * total
            left_grad = left_grad - a * total
            grad_cost += flow.mul_(a.unsqueeze(-1))
        right_grad = right_kept
        if domain.tau_a:
            flow = factor_of(cost, left / domain.tau_a, before, epsilon).mul_(domain.tau_a * left_grad.unsqueeze(-1))
            total = flow.sum(-2)
            grad_b = grad_b - narrow * total
            right_grad = right_grad - b * total
            grad_cost += flow.mul_(b.unsqueeze(-2))
        left_grad = left_kept
    return grad_cost if wants_cost else None, grad_a, grad_b, right_grad


def solve_columns(
    factor: Tensor, over_rows: Tensor, b: Tensor, tau: Real, rhs: Tensor, ridge: Tensor | float = 1e-13
) -> Tensor:
    """Solve (diag(L 1) - tau L) x = rhs with L = diag(b) E^T diag(over_rows) E diag(b), at the support of b."""
    spread = factor * b.unsqueeze(-2)
    weights = spread.mT @ (over_rows.unsqueeze(-1) * spread)
    degree = weights.sum(-1)
    system = torch.diag_embed(degree) - tau * weights
    if tau == 1:
        # A constant added to all columns, and taken from all rows, changes nothing: the plan does not see it.
        system = system + (b.unsqueeze(-1) * b.unsqueeze(-2)) / b.sum(-1)[..., None, None]
    # Columns without mass decide nothing; a little of the diagonal keeps almost separate groups apart.
    system.diagonal(dim1=-2, dim2=-1).add_(torch.where(b > 0, ridge * degree, 1.0))
    cholesky: Tensor = torch.linalg.cholesky_ex(system).L  # pyright: ignore # torch does not type its result
    return torch.cholesky_solve(rhs.unsqueeze(-1), cholesky).squeeze(-1)  # pyright: ignore


def _product(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
