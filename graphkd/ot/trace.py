"""How Sinkhorn's algorithm converges: the error that each sweep leaves."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from graphkd.ot.domains import DomainName
from graphkd.ot.problem import Relative, marginal_error, prepare, resolve
from graphkd.ot.sinkhorn import Options, Order
from graphkd.ot.sweeps import choose
from graphkd.precision import no_autocast
from graphkd.typing import Real


@torch.no_grad()
def marginal_errors(
    cost: Shaped[Tensor, "*c n m"],
    a: Shaped[Tensor, "..."] | None = None,
    b: Shaped[Tensor, "..."] | None = None,
    *,
    epsilon: Real | Relative,
    num_iters: int = 100,
    order: Order = "rows_first",
    domain: DomainName = "auto",
) -> Float[Tensor, " t *b"]:
    r"""The marginal error of entropic transport after each of Sinkhorn's sweeps.

    .. math::
        e_t = \frac{\|P_t 1 - a\|_1 + \|P_t^\top 1 - b\|_1}{\|a\|_1}

    with :math:`P_t` the plan after t sweeps. Entry t - 1 is what :func:`~graphkd.ot.sinkhorn` with ``num_iters=t`` says
    in ``marginal_error``; all of them cost one run, and a plan per sweep. Without gradient.

    Args:
        cost: M, finite. Leading axes are independent problems.
        a: Mass of the rows (n) or (\*b n); uniform, summing to one, by default.
        b: Mass of the columns, with the same sum as ``a``; uniform by default.
        epsilon: Entropic weight in units of the cost, or :class:`~graphkd.ot.Relative` to its standard deviation.
        num_iters: Sweeps, t in total.
        order: Whether rows or columns are updated first.
        domain: See :func:`~graphkd.ot.sinkhorn`.

    Raises:
        ValueError: As :func:`~graphkd.ot.sinkhorn`.

    >>> errors = marginal_errors(torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.2]]), epsilon=0.1, num_iters=20)
    >>> errors.shape, bool(errors[-1] < errors[0] / 100)
    (torch.Size([20]), True)
    """
    options = Options(epsilon, num_iters, order=order, domain=domain)
    options.check()
    cost, a, b, _ = prepare(cost, a, b)
    entropic = resolve(epsilon, cost)
    if order == "columns_first":
        cost, a, b = cost.mT, b, a
    with no_autocast(cost.device):
        kernel = choose(domain, cost, a, b, entropic, 1, 1, 0, keeps_history=False)
        right = kernel.enter(None)
        errors: list[Tensor] = []
        for _ in range(num_iters):
            left, right = kernel.advance(right, 1)
            errors.append(marginal_error(kernel.plan(left, right), a, b))
    return torch.stack(errors)
