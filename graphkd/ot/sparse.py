"""Entropic transport over a list of candidate pairs: time and memory grow with the pairs, not with n m."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.utils import scatter  # pyright: ignore[reportMissingTypeStubs]

from graphkd import checks
from graphkd.ot.candidates import arranged, largest_flow
from graphkd.ot.domains import REACH
from graphkd.ot.dual import earned
from graphkd.ot.gradients import Envelope, NoGradient, centred
from graphkd.ot.problem import EQUAL, Relative, errors, judge, mass, resolve
from graphkd.ot.segments import Log, Scaling, Side, sides
from graphkd.ot.sinkhorn import Options
from graphkd.precision import raised
from graphkd.typing import BAD_PAIRS, Real, Transport

WHOLE = 1 - 1e-6
"""The share of the mass that counts as all of it."""


def sparse_sinkhorn(
    edge_index: Int[Tensor, "2 e"],
    cost: Float[Tensor, " e"],
    a: Float[Tensor, " n"],
    b: Float[Tensor, " m"],
    *,
    epsilon: Real | Relative,
    num_iters: int = 100,
    tol: Real | None = None,
    tau_a: Real = 1,
    tau_b: Real = 1,
    gradient: Literal["envelope", "unroll"] = "envelope",
) -> Transport:
    r"""Entropic optimal transport that may only use the pairs of a list, the support S.

    .. math::
        \min_{P \ge 0,\; P = 0 \text{ outside } S} \langle P, M\rangle + \epsilon \, \mathrm{KL}(P \,\|\, a b^\top)
        + \rho_a \mathrm{KL}(P 1 \,\|\, a) + \rho_b \mathrm{KL}(P^\top 1 \,\|\, b),
        \qquad P_{ij} = a_i b_j \exp((f_i + g_j - M_{ij}) / \epsilon) \text{ on } S

    with :math:`\tau = \rho / (\rho + \epsilon)`: 1 keeps a side's masses, 0 leaves them free. By alternating updates, a
    sweep being one of each,

    .. math::
        f_i = -\tau_a \epsilon \log \sum_{j : (i, j) \in S} b_j \exp((g_j - M_{ij}) / \epsilon), \qquad
        g_j = -\tau_b \epsilon \log \sum_{i : (i, j) \in S} a_i \exp((f_i - M_{ij}) / \epsilon).

    This is :func:`~graphkd.ot.sinkhorn` with an infinite cost outside S. Masses that are kept may not fit through S,
    even where every node has candidates: that is an error, never a NaN. A node that has no candidate with mass gets the
    potential 0. Several problems at once are one disjoint union, like a batch of graphs, whose parts each have equal
    sums; they share epsilon, and value and errors are those of the union.

    Args:
        edge_index: The candidate pairs, each once, in any order: a row node in [0, n) over a column node in [0, m).
            :func:`~graphkd.ot.candidates.nearest_pairs` makes them from two sets of points.
        cost: M of each pair, finite; computed from the features that are to learn, see the example.
        a: Mass of the row nodes.
        b: Mass of the column nodes, with the same sum as ``a`` unless a side is relaxed.
        epsilon: Entropic weight in units of the cost, or :class:`Relative` to the standard deviation over the pairs.
        num_iters: Sweeps, at most.
        tol: Stop when, after the first half of a sweep, the summed error of the other marginal is no more than this
            share of the mass; that sweep is completed. None runs all sweeps, and so does an accelerator, where the host
            never waits.
        tau_a: How firmly the row masses are held, in [0, 1].
        tau_b: How firmly the column masses are held, in [0, 1].
        gradient: ``envelope`` differentiates the value only, exactly at convergence, at no cost; a loss that reads the
            plan raises. ``unroll`` is the derivative of the sweeps that were run, for value, plan and potentials; it
            keeps numbers per node of every sweep, and takes some ten times as long.

    Returns:
        A transport whose ``plan`` is a coalesced sparse tensor (n m): ``plan.values()`` are in the order of
        ``edge_index`` where that is sorted by row, then column, as :func:`~graphkd.ot.candidates.nearest_pairs` sorts
        it. ``value`` is the minimum above, from the dual; with both masses kept it leaves out
        :math:`\epsilon (s^2 - s)`, which the mass s alone decides. ``carried`` is what
        :func:`~graphkd.ot.candidates.carried` finds; on an accelerator or with a relaxed side an upper bound, the share
        of the mass whose nodes have a candidate with mass.

    Raises:
        ValueError: For options out of range; for tensors of wrong shapes, dtypes or devices; and on the CPU, where
            looking is free, for pairs that are out of range or given twice, for non-finite costs, negative masses or
            unequal sums, and for pairs that cannot carry masses that are kept. On an accelerator ``status`` tells of
            bad input, 8 for bad pairs, and ``converged`` of masses that do not fit.

    >>> x = torch.tensor([[0.0], [1.0], [5.0]], requires_grad=True)
    >>> y = torch.tensor([[1.25], [0.25], [5.25]])
    >>> from graphkd.ot.candidates import nearest_pairs
    >>> row, column = edge_index = nearest_pairs(x, y, k=2)
    >>> cost = (x[row] - y[column]).square().sum(-1)
    >>> transport = sparse_sinkhorn(edge_index, cost, torch.ones(3), torch.ones(3), epsilon=0.01)
    >>> transport.plan.detach().to_dense().round()
    tensor([[0., 1., 0.],
            [1., 0., 0.],
            [0., 0., 1.]])
    >>> transport.value.backward()
    >>> x.grad.flatten()
    tensor([-0.5000, -0.5000, -0.5000])

    Source: Cuturi, "Sinkhorn Distances", NeurIPS 2013, arXiv:1306.0895; relaxed masses: Chizat, Peyré, Schmitzer,
    Vialard, "Scaling algorithms for unbalanced optimal transport problems", Math. Comp. 2018, arXiv:1607.05816; sparse
    kernels and absorbed potentials: Schmitzer, "Stabilized sparse scaling algorithms for entropy regularized transport
    problems", SIAM J. Sci. Comput. 2019, arXiv:1610.06519.
    """
    checks.one_of("gradient", gradient, ("envelope", "unroll"))
    options = Options(epsilon, num_iters, tol, tau_a=tau_a, tau_b=tau_b)
    options.check()
    pairs, cost, a, b, status = _prepared(edge_index, cost, a, b, options.balanced)
    looking = checks.can_look(cost)
    unroll = gradient == "unroll" and torch.is_grad_enabled()
    epsilons = resolve(epsilon, cost.unsqueeze(0))
    scale = epsilons.squeeze()
    with torch.set_grad_enabled(unroll):
        rows, columns = sides(pairs, cost, a, b, tau_a, tau_b)
        share = _carried(rows, columns)
        domain = Scaling(rows, columns, scale) if looking and not unroll else Log(rows, columns, scale)
        f, g, residual, count = _swept(domain, rows, columns, scale, num_iters, tol)
        factor = _factor(rows, f, g, scale)
        plan = rows.mass.index_select(0, rows.own) * rows.weight * factor
        value = _value(rows, columns, f, g, plan, scale)
    error = _error(rows, columns, plan.detach(), residual)
    if gradient == "envelope" and torch.is_grad_enabled():
        slopes = _slopes(rows, columns, f, g, factor, scale)
        value = Envelope.apply(cost.unsqueeze(0), a, b, *slopes, plan.unsqueeze(0), value)
        plan = NoGradient.apply("use gradient='unroll'", plan, cost, a, b)
    converged = error <= (1e-3 if tol is None else tol)
    if tol is not None and looking and not bool(converged):
        checks.log_once("Sinkhorn's sweeps ended before the tolerance was met: see Transport.converged")
    sparse = torch.sparse_coo_tensor(  # pyright: ignore[reportUnknownMemberType]
        pairs, plan, (len(a), len(b)), check_invariants=False, is_coalesced=True
    )
    return Transport(
        plan=sparse,
        value=value,
        potentials=(f, g),
        marginal_error=error,
        converged=converged,
        num_iters=count,
        epsilon=epsilons,
        status=status,
        carried=share,
    )


def _prepared(
    edge_index: Tensor, cost: Tensor, a: Tensor, b: Tensor, equal: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Pairs sorted by row, then by column, their costs, masses, and the status: checked, and in one dtype."""
    checks.tensor(edge_index=edge_index, cost=cost, a=a, b=b)
    checks.same_device(edge_index=edge_index, cost=cost, a=a, b=b)
    pairs, order, bad_pairs = arranged(edge_index, a, b)
    checks.floating("cost", cost)
    if cost.shape != edge_index.shape[1:]:
        raise ValueError(f"cost needs a number for each of {edge_index.shape[1]} pairs, got {tuple(cost.shape)}")
    checks.finite("cost", cost)
    cost = raised(cost).index_select(0, order)
    a, b = mass("a", a, len(a), cost), mass("b", b, len(b), cost)
    if checks.can_look(cost):
        difference = float((1 - b.detach().sum() / a.detach().sum()).abs())
        if equal and difference > EQUAL:
            raise ValueError(f"a and b need equal sums, got sums that differ by {difference:.3g} of a's")
        return pairs, cost, a, b, torch.tensor(0)
    status = judge(cost.unsqueeze(0), a, b, equal) + BAD_PAIRS * bad_pairs.long()
    return pairs, cost.masked_fill(bad_pairs, torch.nan), a, b, status


def _swept(
    domain: Log | Scaling, rows: Side, columns: Side, epsilon: Tensor, num_iters: int, tol: Real | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The potentials after the sweeps, the columns' error before the last half-sweep, and how many sweeps were run."""
    f, g, count = torch.zeros_like(rows.mass), torch.zeros_like(columns.mass), 0
    before = g
    while count < num_iters:
        before, count = g, count + 1
        f = domain.rows(g)
        g = domain.columns(f)
        if tol is not None and checks.can_look(g) and float(columns.excess(before, g, epsilon)) <= tol:
            break
    residual = columns.excess(before, g, epsilon).to(epsilon.dtype)
    return f.to(epsilon.dtype), g.to(epsilon.dtype), residual, torch.full((), count, device=epsilon.device)


def _factor(rows: Side, f: Tensor, g: Tensor, epsilon: Tensor) -> Tensor:
    """The plan as a multiple of the masses, exp((f + g - M) / epsilon), per pair."""
    x = (f.index_select(0, rows.own) + g.index_select(0, rows.other) - rows.cost) / epsilon
    return x.clamp(-REACH[x.dtype], REACH[x.dtype]).exp()


def _earned(side: Side, potential: Tensor, epsilon: Tensor) -> Tensor:
    """What a unit of mass adds to the dual: its potential where masses are kept, nothing where they are free."""
    gain = earned(potential, epsilon, side.tau)
    if side.tau in (0, 1):
        return gain
    # Nodes without a candidate are left behind whole, at the price of rho.
    return torch.where(side.alone, epsilon * (side.tau / (1 - side.tau)), gain)


def _value(rows: Side, columns: Side, f: Tensor, g: Tensor, plan: Tensor, epsilon: Tensor) -> Tensor:
    """The dual objective."""
    value = (_earned(rows, f, epsilon) * rows.mass).sum() + (_earned(columns, g, epsilon) * columns.mass).sum()
    if rows.tau == columns.tau == 1:
        return value
    return value - epsilon * (plan.sum() - rows.mass.sum() * columns.mass.sum())


def _slopes(rows: Side, columns: Side, f: Tensor, g: Tensor, factor: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of the dual objective by the masses."""
    if rows.tau == columns.tau == 1:
        return centred(f), centred(g)
    a, b = rows.mass.detach(), columns.mass.detach()
    over_a, _ = _sums(factor * rows.weight.detach(), rows, columns)
    _, over_b = _sums(factor * a.index_select(0, rows.own), rows, columns)
    return (
        _earned(rows, f, epsilon) - epsilon * (over_a - b.sum()),
        _earned(columns, g, epsilon) - epsilon * (over_b - a.sum()),
    )


@torch.no_grad()
def _error(rows: Side, columns: Side, plan: Tensor, residual: Tensor) -> Tensor:
    """The summed error of the masses that are kept; with relaxed ones, also by how much the last sweep moved."""
    a, b = rows.mass, columns.mass
    row_sums, column_sums = _sums(plan, rows, columns)
    error = errors(row_sums if rows.tau == 1 else a, column_sums if columns.tau == 1 else b, a, b)
    return error if rows.tau == columns.tau == 1 else error + residual


def _sums(x: Tensor, rows: Side, columns: Side) -> tuple[Tensor, Tensor]:
    """Numbers per pair, summed for each row and for each column."""
    return (
        scatter(x, rows.own, dim_size=len(rows.mass), reduce="sum"),
        scatter(x, rows.other, dim_size=len(columns.mass), reduce="sum"),
    )


def _carried(rows: Side, columns: Side) -> Tensor:
    """The share of the mass that the pairs can carry, or an upper bound; masses that are kept have to fit."""
    share = rows.reached().minimum(columns.reached())
    if checks.can_look(share):
        kept = [side.reached() for side in (rows, columns) if side.tau == 1]
        if len(kept) == 2:
            share = largest_flow(rows.own, rows.other, rows.mass, columns.mass)
            kept = [share]
        if kept and float(kept[0]) < WHOLE:
            raise _too_few(rows, columns, kept[0])
    return share


def _too_few(rows: Side, columns: Side, share: Tensor) -> ValueError:
    """What is wrong with candidates that carry no more than a share of the mass."""
    without: list[str] = []
    for name, side in (("row", rows), ("column", columns)):
        nodes: list[int] = (side.alone & (side.mass > 0)).nonzero().flatten().tolist()  # pyright: ignore
        which = f" ({', '.join(map(str, nodes[:5]))}{', ...' if len(nodes) > 5 else ''})" if nodes else ""
        without.append(f"{len(nodes)} of {len(side.mass)} {name} nodes{which}")
    return ValueError(
        f"needs candidate pairs that can carry all of the mass, got pairs that carry at most {float(share):.6g} of it, "
        f"with no candidate for {' and '.join(without)}: take more candidates, or relax a side with tau below 1"
    )
