"""Exact optimal transport by a network simplex on the CPU: the one place that calls POT, Python Optimal Transport."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from torch import Tensor

from graphkd import checks
from graphkd.ot.gradients import Envelope, NoGradient, centred
from graphkd.ot.problem import marginal_error, prepare
from graphkd.typing import Transport

Array = NDArray[np.float64]

UNCHECKED = {"check_marginals": False, "center_dual": False}
"""What POT need not do: the sums are made equal, and centring takes one line."""

ROUNDS = 8
"""How long :func:`still_optimal` tries."""


def exact(
    cost: Shaped[Tensor, "*c n m"],
    a: Shaped[Tensor, "..."] | None = None,
    b: Shaped[Tensor, "..."] | None = None,
    *,
    max_iters: int = 1_000_000,
) -> Transport:
    r"""Optimal transport without regularisation between masses a and b.

    .. math::
        \min_{P \ge 0,\; P 1 = a,\; P^\top 1 = b} \langle P, M\rangle
        = \max_{f_i + g_j \le M_{ij}} \langle f, a\rangle + \langle g, b\rangle

    by the network simplex, one problem after the other, in float64. The cost is copied to the CPU and the plan back, so
    an accelerator waits; for steps that must not wait there is :func:`~graphkd.ot.sinkhorn`.

    The value has gradients, by the envelope theorem: dM = P, da = f, db = g, centred. Where the plan or the potentials
    are not unique these are subgradients. A node without mass has the slope of giving it some,
    :math:`f_i = \min_j M_{ij} - g_j`. The plan has none, and a loss that reads it is refused (:class:`NoGradient`).

    Args:
        cost: M, finite. Leading axes are independent problems.
        a: Mass of the rows (n) or (\*b n); uniform, summing to one, by default.
        b: Mass of the columns, with the same sum as ``a``; uniform by default.
        max_iters: Pivots of the simplex, at most. Where they do not suffice the transport says that it has not
            converged, and its plan may lack mass.

    Returns:
        A transport with ``epsilon`` 0 and potentials of :math:`f_i + g_j \le M_{ij}`, with equality where P moves mass.
        The number of pivots is not known, so ``num_iters`` is 0.

    Raises:
        ValueError: For costs or masses with wrong shapes, dtypes, devices or non-finite entries, negative masses, or
            unequal sums; on an accelerator too, since the values are copied anyway.

    >>> transport = exact(torch.tensor([[0.0, 1.0, 4.0], [1.0, 0.0, 1.0]]))
    >>> transport.plan
    tensor([[0.3333, 0.1667, 0.0000],
            [0.0000, 0.1667, 0.3333]])
    >>> round(transport.value.item(), 4)
    0.5

    Source: Bonneel, van de Panne, Paris, Heidrich, "Displacement interpolation using Lagrangian mass transport",
    SIGGRAPH Asia 2011; implementation: Flamary et al., "POT: Python Optimal Transport", JMLR 2021.
    """
    checks.at_least("max_iters", max_iters, 1)
    cost, a, b, status = prepare(cost, a, b)
    hosts = [x.detach().cpu() for x in (cost, a, b)]
    if not checks.can_look(cost):
        prepare(*hosts)
    batch = cost.shape[:-2]
    problems = zip(*(x.double().reshape(-1, *x.shape[len(batch) :]).numpy() for x in hosts), strict=True)
    solved = [linear_program(*problem, max_iters=max_iters) for problem in problems]

    def back(x: Any) -> Tensor:
        return torch.as_tensor(np.stack(x), device=cost.device).reshape((*batch, *np.shape(x[0])))

    if not all(x.optimal for x in solved):
        checks.log_once("the network simplex ended before the plan was optimal: see Transport.converged")
    plan, f, g = (back([getattr(x, name) for x in solved]).to(cost.dtype) for name in ("plan", "f", "g"))
    value = back([x.value for x in solved]).to(cost.dtype)
    return Transport(
        plan=NoGradient.apply("use sinkhorn with gradient='implicit'", plan, cost, a, b),
        value=Envelope.apply(cost, a, b, centred(f), centred(g), plan, value),
        potentials=(f, g),
        marginal_error=marginal_error(plan, a, b),
        converged=back([x.optimal for x in solved]),
        num_iters=torch.zeros_like(status),
        epsilon=torch.zeros(1, 1, dtype=cost.dtype, device=cost.device),
        status=status,
    )


class Solution(NamedTuple):
    """What the simplex found: a plan, its potentials, its cost, and whether it is optimal."""

    plan: Array
    f: Array
    g: Array
    value: np.float64
    optimal: np.bool_


def linear_program(cost: Array, a: Array, b: Array, *, max_iters: int = 1_000_000) -> Solution:
    r"""The vertex of :math:`\{P \ge 0,\; P 1 = a,\; P^\top 1 = b\}` with the smallest :math:`\langle P, M\rangle`.

    Args:
        cost: M (n m).
        a: Mass of the rows, finite, at least 0, with a sum above 0.
        b: Mass of the columns; what float32 lost of the equality of the sums is made up for here.
        max_iters: Pivots, at most.

    >>> linear_program(np.eye(2), np.ones(2), np.ones(2)).plan
    array([[0., 1.],
           [1., 0.]])
    """
    import ot  # pyright: ignore[reportMissingTypeStubs] # it takes a second to import

    emd: Callable[..., tuple[Array, dict[str, Any]]] = ot.emd  # pyright: ignore
    # POT's thresholds are absolute: it takes costs of 1e-12 for equal, and masses whose sums differ for infeasible.
    total, size = a.sum(), max(float(np.abs(cost).max()), 1e-300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        share, log = emd(a / total, b / b.sum(), cost / size, numItermax=max_iters, log=True, **UNCHECKED)
    plan = total * share
    f, g = _at_massless(size * log["u"], size * log["v"], cost, a, b)
    shift = (f.mean() - g.mean()) / 2
    f, g = f - shift, g + shift
    return Solution(plan, f, g, (plan * cost).sum(), np.bool_(log["warning"] is None))


def still_optimal(before: Solution, cost: Array, a: Array, b: Array, tolerance: float) -> Solution | None:
    r"""A solution whose plan solves the problem with another cost too, with the potentials that prove it; else None.

    A plan is optimal if and only if its residual graph has shortest paths, since these are potentials: along every
    pair costs M, against a pair with mass it earns M. A few rounds of Bellman and Ford's algorithm, from the potentials
    before, take a tenth of the simplex's time; where they do not suffice the answer is None.

    Args:
        before: A solution for a cost near this one.
        cost: M (n m).
        a: Mass of the rows.
        b: Mass of the columns.
        tolerance: By how much :math:`f_i + g_j \le M_{ij}` may be missed.

    >>> solution = linear_program(np.eye(2), np.ones(2), np.ones(2))
    >>> after = still_optimal(solution, np.array([[1.0, 0.5], [0.0, 1.0]]), np.ones(2), np.ones(2), 1e-9)
    >>> after.f[:, None] + after.g
    array([[0. , 0.5],
           [0. , 0.5]])
    >>> still_optimal(solution, 1 - np.eye(2), np.ones(2), np.ones(2), 1e-9)
    """
    rows, columns = np.divmod(np.flatnonzero(before.plan != 0), cost.shape[1])
    paid = cost[rows, columns]
    f = before.f.copy()
    for _ in range(ROUNDS):
        g = (cost - f[:, None]).min(0)
        gain = paid - g[columns] - f[rows]
        if gain.max() <= tolerance:
            f, g = _at_massless(f, g, cost, a, b)
            return before._replace(f=f, g=g, value=(before.plan * cost).sum())
        np.maximum.at(f, rows, f[rows] + gain)
    return None


def _at_massless(f: Array, g: Array, cost: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Potentials of nodes without mass, which no plan determines: the largest that the others admit."""
    rows, columns = a == 0, b == 0
    if rows.any():
        f = np.where(rows, (cost - g)[:, ~columns].min(1), f)
    if columns.any():
        g = np.where(columns, (cost - f[:, None]).min(0), g)
    return f, g
