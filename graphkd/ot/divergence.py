"""The Sinkhorn divergence: entropic transport without its bias."""

from jaxtyping import Shaped
from torch import Tensor

from graphkd import checks
from graphkd.ot.problem import Relative, prepare, resolve
from graphkd.ot.sinkhorn import Options, solve
from graphkd.typing import Real, Transport


def sinkhorn_divergence(
    cost: Shaped[Tensor, "*c n m"],
    row_cost: Shaped[Tensor, "*r n n"],
    column_cost: Shaped[Tensor, "*s m m"],
    a: Shaped[Tensor, "..."] | None = None,
    b: Shaped[Tensor, "..."] | None = None,
    *,
    epsilon: Real | Relative,
    num_iters: int = 100,
    tol: Real | None = 1e-6,
    tau: Real = 1,
) -> Transport:
    r"""Debiased entropic transport, zero for equal point sets.

    .. math::
        S_\epsilon(a, b) = \mathrm{OT}_\epsilon(a, b) - \tfrac12 \mathrm{OT}_\epsilon(a, a)
        - \tfrac12 \mathrm{OT}_\epsilon(b, b) + \tfrac{\epsilon}{2} \Bigl(\sum_i a_i - \sum_j b_j\Bigr)^2

    with the value of :func:`~graphkd.ot.sinkhorn` as OT. For costs such as the squared Euclidean distance it is
    non-negative, convex in each mass, and zero only for equal measures.

    Args:
        cost: M between rows and columns.
        row_cost: The same cost among the rows.
        column_cost: The same cost among the columns.
        a: Mass of the rows (n) or (\*b n); uniform, summing to one, by default.
        b: Mass of the columns; uniform by default.
        epsilon: Entropic weight in units of the cost; :class:`Relative` refers to ``cost``, for all three problems.
        num_iters: Sweeps, at most.
        tol: As for :func:`~graphkd.ot.sinkhorn`.
        tau: How firmly both masses are held, in [0, 1].

    Returns:
        The transport from rows to columns with the divergence as ``value``, differentiable by all costs and masses;
        ``marginal_error``, ``converged`` and ``num_iters`` are the worst of the three problems.

    Raises:
        ValueError: As :func:`~graphkd.ot.sinkhorn` does.

    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> cost = torch.cdist(x, x)
    >>> sinkhorn_divergence(cost, cost, cost, epsilon=0.5).value.round(decimals=3)
    tensor(0.)

    Source: Feydy, Séjourné, Vialard, Amari, Trouvé, Peyré, "Interpolating between Optimal Transport and MMD using
    Sinkhorn Divergences", AISTATS 2019, arXiv:1810.08278; relaxed masses: Séjourné et al., arXiv:1910.12958.
    """
    options = Options(epsilon, num_iters, tol, tau_a=tau, tau_b=tau)
    options.check()
    across = prepare(cost, a, b, equal=options.balanced)
    scale = resolve(epsilon, across.cost)
    rows, columns = prepare(row_cost, across.a, across.a), prepare(column_cost, across.b, across.b)
    three = [solve(problem, scale, options) for problem in (across, rows, columns)]
    value, own, other = (x.value for x in three)
    assert value is not None and own is not None and other is not None
    gap = across.a.sum(-1) - across.b.sum(-1)
    value = value - (own + other) / 2 + scale[..., 0, 0] / 2 * gap.square()
    checks.in_range(value, cost=across.cost, row_cost=rows.cost, column_cost=columns.cost)
    error, converged, num_iters_ = three[0].marginal_error, three[0].converged, three[0].num_iters
    for transport in three[1:]:
        error = error.maximum(transport.marginal_error)
        converged = converged & transport.converged
        num_iters_ = num_iters_.maximum(transport.num_iters)
    return three[0]._replace(value=value, marginal_error=error, converged=converged, num_iters=num_iters_)
