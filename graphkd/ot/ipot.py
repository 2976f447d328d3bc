"""The inexact proximal point method: exact transport by a sequence of entropic steps."""

import torch
from jaxtyping import Shaped
from torch import Tensor

from graphkd import checks
from graphkd.ot.gradients import Envelope, NoGradient, centred
from graphkd.ot.problem import marginal_error, prepare
from graphkd.ot.sinkhorn import Order
from graphkd.precision import no_autocast
from graphkd.typing import Real, Transport


def ipot(
    cost: Shaped[Tensor, "*c n m"],
    a: Shaped[Tensor, "..."] | None = None,
    b: Shaped[Tensor, "..."] | None = None,
    *,
    beta: Real = 0.5,
    num_iters: int = 50,
    num_inner: int = 1,
    order: Order = "rows_first",
) -> Transport:
    r"""Optimal transport without regularisation, by proximal steps of Sinkhorn's kind.

    .. math::
        P^{t+1} \approx \arg\min_{P 1 = a,\; P^\top 1 = b} \langle P, M\rangle + \beta \, \mathrm{KL}(P \,\|\, P^t)

    each solved by a few sweeps that start from the last step's scaling. In contrast to
    :func:`~graphkd.ot.sinkhorn` the limit does not depend on the step size.

    Args:
        cost: M, finite. Leading axes are independent problems.
        a: Mass of the rows (n) or (\*b n); uniform, summing to one, by default.
        b: Mass of the columns, with the same sum as ``a``; uniform by default.
        beta: Weight of the proximal term, in units of the cost: smaller steps further.
        num_iters: Proximal steps.
        num_inner: Sweeps in each.
        order: Whether rows or columns are updated first; the marginal of the others is exact at the end.

    Returns:
        A transport with ``value`` :math:`\langle P, M\rangle`, whose gradient is that at the optimal plan, dM = P,
        da = f, db = g; a loss that reads the plan raises. ``converged`` judges the marginals, to 1e-3; how far the
        value is from its limit it cannot know.

    Raises:
        ValueError: As :func:`~graphkd.ot.sinkhorn` does.

    >>> ipot(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).plan.round(decimals=3)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])

    Source: Xie, Wang, Wang, Zha, "A Fast Proximal Point Method for Computing Exact Wasserstein Distance", UAI 2019,
    arXiv:1802.04307.
    """
    checks.positive("beta", beta)
    checks.at_least("num_iters", num_iters, 1)
    checks.at_least("num_inner", num_inner, 1)
    checks.one_of("order", order, ("rows_first", "columns_first"))
    cost, a, b, status = prepare(cost, a, b)
    with no_autocast(cost.device):
        with torch.no_grad():
            if order == "rows_first":
                plan, f, g = _steps(cost, a, b, beta, num_iters, num_inner)
            else:
                plan, g, f = _steps(cost.mT, b, a, beta, num_iters, num_inner)
                plan = plan.mT
            value = (plan * cost).sum((-2, -1))
            error = marginal_error(plan, a, b)
        value = Envelope.apply(cost, a, b, centred(f), centred(g), plan, value)
        plan = NoGradient.apply("use sinkhorn(..., gradient='implicit')", plan, cost, a, b)
    return Transport(
        plan=plan,
        value=value,
        potentials=(f, g),
        marginal_error=error,
        converged=error <= 1e-3,
        num_iters=torch.full_like(error, num_iters, dtype=torch.int64),
        epsilon=torch.zeros((), dtype=cost.dtype, device=cost.device),
        status=status,
    )


def _steps(
    cost: Tensor, a: Tensor, b: Tensor, beta: Real, num_iters: int, num_inner: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The last plan and the potentials of exact transport that its scalings tend to.

    The plan is kept as a logarithm, but for the row masses: what vanished may come back, and nothing underflows.
    """
    reach = cost / beta
    log_plan = torch.zeros_like(cost)
    log_columns = torch.full_like(b, 1 / b.shape[-1]).log()
    plan = log_plan
    log_rows = row_sums = torch.ones_like(a)
    for _ in range(num_iters):
        log_plan = (log_plan - reach).add_(log_columns.unsqueeze(-2))
        top = log_plan.amax(-1, keepdim=True)
        log_plan = log_plan.sub_(top).clamp_min_(-80)
        plan = log_plan.exp()
        columns = b.sign()
        for _ in range(num_inner):
            row_sums = (plan * columns.unsqueeze(-2)).sum(-1)
            columns = b / (plan * (a / row_sums).unsqueeze(-1)).sum(-2)
        log_rows = -row_sums.log() - top.squeeze(-1)
        step = columns.log().clamp_min(-80)
        log_plan = (log_plan - row_sums.log().unsqueeze(-1)).add_(step.unsqueeze(-2))
        log_columns = log_columns + step
        plan = plan.mul_((a / row_sums).unsqueeze(-1)).mul_(columns.unsqueeze(-2))
    f, g = beta * log_rows, beta * log_columns
    # A column without mass has the highest potential that no row objects to.
    return plan, f, torch.where(b > 0, g, (cost - f.unsqueeze(-1)).amin(-2))
