"""Sinkhorn on a list of pairs: against the dense solver, against a plain loop, and what its plan keeps."""

from functools import partial

import pytest
import torch
from torch import Tensor

from graphkd import checks
from graphkd.ot import Relative, segments, sinkhorn
from graphkd.ot.sparse import sparse_sinkhorn

TAUS = [(1, 1), (0.7, 1), (1, 0.4), (0.8, 0.3), (0, 1), (1, 0)]

close = partial(torch.testing.assert_close, atol=1e-12, rtol=0)


def every_pair(n: int, m: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(n), torch.arange(m)).T


def most_pairs(n: int, m: int, seed: int = 0) -> Tensor:
    """Two thirds of all pairs, in a random order; the rest of each row and column still carries any masses in use."""
    pairs = every_pair(n, m)
    pairs = pairs[:, (pairs[0] + 2 * pairs[1]) % 3 > 0]
    return pairs[:, torch.randperm(pairs.shape[1], generator=torch.Generator().manual_seed(seed))]


@pytest.fixture(params=["looking", "not looking"])
def anywhere(request, monkeypatch) -> bool:
    """On the CPU, and as on an accelerator, whose values the host never sees."""
    if request.param == "not looking":
        monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    return request.param == "looking"


@pytest.mark.parametrize("sweeps", [1, 3, 60])
@pytest.mark.parametrize("tau_a, tau_b", TAUS)
def test_on_all_pairs_it_is_the_dense_solver(problem, anywhere, tau_a, tau_b, sweeps):
    cost, a, b = problem(5, 8)
    a, b = 3 * a, 3 * b
    options = dict(epsilon=0.06, num_iters=sweeps, tau_a=tau_a, tau_b=tau_b)
    dense = sinkhorn(cost, a, b, domain="log", **options)
    sparse = sparse_sinkhorn(every_pair(5, 8), cost.flatten(), a, b, **options)
    close(sparse.plan.to_dense(), dense.plan)
    close(sparse.value, dense.value)
    close(sparse.potentials, dense.potentials)
    close(sparse.marginal_error, dense.marginal_error)
    assert sparse.converged == dense.converged
    assert sparse.num_iters == dense.num_iters
    assert sparse.epsilon.shape == dense.epsilon.shape
    assert sparse.carried == 1
    assert sparse.check() is sparse


def test_a_tolerance_stops_it_where_it_stops_the_dense_solver(problem):
    for scale in (0.2, 1, 3):
        cost, a, b = problem(6, 9)
        options = dict(epsilon=0.1, num_iters=500, tol=1e-5)
        dense = sinkhorn(scale * cost, a, b, **options)
        sparse = sparse_sinkhorn(every_pair(6, 9), scale * cost.flatten(), a, b, **options)
        assert 1 < sparse.num_iters == dense.num_iters < 500
        assert bool(sparse.converged)
        assert sparse.marginal_error < 1e-5


def test_a_tolerance_that_is_not_met_is_logged(problem, caplog):
    cost, a, b = problem(6, 9)
    transport = sparse_sinkhorn(every_pair(6, 9), cost.flatten(), a, b, epsilon=0.005, num_iters=4, tol=1e-6)
    assert transport.num_iters == 4
    assert not bool(transport.converged)
    assert "ended before the tolerance was met" in caplog.text


@pytest.mark.parametrize("tau_a, tau_b", TAUS)
def test_pairs_that_are_left_out_cost_infinitely_much(problem, anywhere, tau_a, tau_b):
    cost, a, b = problem(7, 6)
    row, column = pairs = most_pairs(7, 6)
    masked = torch.full_like(cost, 1000.0)
    masked[row, column] = cost[row, column]
    options = dict(epsilon=0.1, num_iters=80, tau_a=tau_a, tau_b=tau_b)
    dense = sinkhorn(masked, a, b, domain="log", **options)
    sparse = sparse_sinkhorn(pairs, cost[row, column], a, b, **options)
    close(sparse.plan.to_dense(), dense.plan)
    close(sparse.value, dense.value, atol=1e-10)
    close(sparse.potentials, dense.potentials)


def test_every_sweep_is_that_of_the_textbook(problem, textbook):
    cost, a, b = problem(7, 6)
    row, column = pairs = most_pairs(7, 6)
    masked = torch.full_like(cost, torch.inf)
    masked[row, column] = cost[row, column]
    for sweeps in (1, 2, 5):
        plan = sparse_sinkhorn(pairs, cost[row, column], a, b, epsilon=0.1, num_iters=sweeps).plan
        close(plan.to_dense(), textbook(masked, a, b, 0.1, sweeps, "rows_first"))


@pytest.mark.parametrize("tau_a, tau_b", [(0.7, 1), (0.8, 0.3), (0, 1), (0.5, 0)])
def test_value_is_the_objective_of_the_plan(problem, tau_a, tau_b):
    cost, a, b = problem(7, 6)
    a = 2 * a  # relaxed masses need no equal sums
    row, column = pairs = most_pairs(7, 6)
    # A row without candidates is left behind.
    pairs = pairs[:, row != 3]
    row, column = pairs
    epsilon = 0.2
    transport = sparse_sinkhorn(
        pairs, cost[row, column], a, b, epsilon=epsilon, num_iters=300, tau_a=tau_a, tau_b=tau_b
    )
    plan = transport.plan.to_dense()

    def divergence(x: Tensor, y: Tensor) -> Tensor:
        return torch.special.xlogy(x, x / y).sum() - x.sum() + y.sum()

    wanted = (plan * cost).sum() + epsilon * divergence(plan, a[:, None] * b)
    for tau, sums, masses in ((tau_a, plan.sum(1), a), (tau_b, plan.sum(0), b)):
        if tau < 1:
            wanted = wanted + epsilon * tau / (1 - tau) * divergence(sums, masses)
        else:
            close(sums, masses, atol=1e-9)
    close(transport.value, wanted, atol=1e-9)
    assert plan[3].sum() == 0
    close(transport.carried, 1 - a[3] / a.sum())
    assert bool(transport.converged)


def test_plan_is_a_sparse_matrix_on_the_pairs(problem):
    cost, a, b = problem(7, 6)
    row, column = pairs = most_pairs(7, 6)
    plan = sparse_sinkhorn(pairs, cost[row, column], a, b, epsilon=0.1).plan
    assert plan.layout == torch.sparse_coo
    assert plan.is_coalesced()
    assert plan.shape == (7, 6)
    ordered = pairs[:, (row * 6 + column).argsort()]
    close(plan.indices(), ordered, atol=0)
    close(plan.values(), plan.to_dense()[ordered[0], ordered[1]], atol=0)
    rebuilt = torch.sparse_coo_tensor(plan.indices(), plan.values(), plan.shape, check_invariants=True)
    close(rebuilt.coalesce().to_dense(), plan.to_dense(), atol=0)
    features = torch.rand(6, 3, dtype=cost.dtype)
    close(torch.sparse.mm(plan, features), plan.to_dense() @ features)


def test_potentials_rebuild_the_plan_and_the_value(problem):
    cost, a, b = problem(7, 6)
    row, column = pairs = most_pairs(7, 6)
    transport = sparse_sinkhorn(pairs, cost[row, column], a, b, epsilon=0.1, num_iters=4)
    f, g = transport.potentials
    wanted = a[row] * b[column] * ((f[row] + g[column] - cost[row, column]) / 0.1).exp()
    close(transport.plan.to_dense()[row, column], wanted)
    close((f * a).sum() + (g * b).sum(), transport.value)
    plan = transport.plan.to_dense()
    close(transport.marginal_error, (plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum())
    assert transport.marginal_error > 1e-4


def test_order_of_pairs_and_nodes_changes_nothing(problem, anywhere):
    cost, a, b = problem(7, 6)
    row, column = pairs = most_pairs(7, 6)
    options = dict(epsilon=0.05, num_iters=7, tau_b=0.8)
    transport = sparse_sinkhorn(pairs, cost[row, column], a, b, **options)

    generator = torch.Generator().manual_seed(3)
    edges = torch.randperm(pairs.shape[1], generator=generator)
    other = sparse_sinkhorn(pairs[:, edges], cost[row, column][edges], a, b, **options)
    close(other.plan.to_dense(), transport.plan.to_dense(), atol=0)
    close(other.value, transport.value, atol=0)

    rows, columns = torch.randperm(7, generator=generator), torch.randperm(6, generator=generator)
    renamed = torch.stack([rows.argsort()[row], columns.argsort()[column]])
    moved = sparse_sinkhorn(renamed, cost[row, column], a[rows], b[columns], **options)
    close(moved.plan.to_dense(), transport.plan.to_dense()[rows][:, columns])
    close(moved.potentials, (transport.potentials[0][rows], transport.potentials[1][columns]))
    close(moved.value, transport.value)


def test_exchanging_the_sides_at_convergence_transposes_the_plan(problem):
    cost, a, b = problem(7, 6)
    row, column = pairs = most_pairs(7, 6)
    options = dict(epsilon=0.1, num_iters=3000, tol=1e-13)
    there = sparse_sinkhorn(pairs, cost[row, column], a, b, **options)
    back = sparse_sinkhorn(pairs.flip(0), cost[row, column], b, a, **options)
    close(back.plan.to_dense().T, there.plan.to_dense(), atol=1e-10)
    close(back.value, there.value, atol=1e-10)


def test_several_problems_are_one_disjoint_union(problem):
    (cost, a, b), (other_cost, other_a, other_b) = problem(7, 6), problem(4, 5, seed=1)
    first, second = most_pairs(7, 6), every_pair(4, 5)
    options = dict(epsilon=0.1, num_iters=20)
    parts = (
        sparse_sinkhorn(first, cost[first[0], first[1]], a, b, **options),
        sparse_sinkhorn(second, other_cost.flatten(), other_a, other_b, **options),
    )
    pairs = torch.cat([first, second + torch.tensor([[7], [6]])], 1)
    costs = torch.cat([cost[first[0], first[1]], other_cost.flatten()])
    whole = sparse_sinkhorn(pairs, costs, torch.cat([a, other_a]), torch.cat([b, other_b]), **options)
    close(whole.plan.to_dense(), torch.block_diag(*(part.plan.to_dense() for part in parts)))
    close(whole.value, parts[0].value + parts[1].value)


def test_nodes_without_mass_change_nothing_for_the_others(problem, anywhere):
    cost, a, b = problem(6, 5)
    a[2], b[4] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    cost[2] -= 3  # nearer than all others
    cost[2, 4] = -100  # neither has mass
    rows, columns = torch.tensor([0, 1, 3, 4, 5]), torch.arange(4)
    options = dict(epsilon=0.05, num_iters=300)
    # Row 5 keeps two candidates that have mass, row 0 loses its candidate without mass.
    row, column = every_pair(6, 5)
    keep = ~((row == 5) & (column > 1) & (column < 4)) & ~((row == 0) & (column == 4))
    row, column = pairs = torch.stack([row, column])[:, keep]
    whole = sparse_sinkhorn(pairs, cost[row, column], a, b, **options)
    kept = (row != 2) & (column != 4)
    part_pairs = torch.stack([torch.searchsorted(rows, row[kept]), column[kept]])
    part = sparse_sinkhorn(part_pairs, cost[row, column][kept], a[rows], b[columns], **options)
    close(whole.plan.to_dense()[rows][:, columns], part.plan.to_dense())
    close(whole.value, part.value)
    assert whole.plan.to_dense()[2].abs().sum() == whole.plan.to_dense()[:, 4].abs().sum() == 0
    assert torch.isfinite(torch.cat(whole.potentials)).all()


@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_a_node_without_mass_that_is_near_all_others_takes_no_digits_from_them(anywhere, gradient):
    # 200 epsilon nearer: in float32 what it would weigh overflows.
    cost = 1 + 0.2 * torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    cost[:, 0] = 0
    a, b = torch.full((6,), 1 / 6), torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])
    options = dict(epsilon=0.005, gradient=gradient)
    whole = sparse_sinkhorn(every_pair(6, 5), cost.flatten(), a, b, num_iters=3, **options)
    part = sparse_sinkhorn(every_pair(6, 4), cost[:, 1:].flatten(), a, b[1:], num_iters=3, **options)
    # float32 potentials of size 1, magnified by 1 / epsilon.
    close(whole.plan.to_dense()[:, 1:], part.plan.to_dense(), atol=1e-5)
    relaxed = sparse_sinkhorn(every_pair(6, 5), cost.flatten(), a, b, num_iters=1, tau_b=0.9, **options)
    assert torch.isfinite(relaxed.marginal_error)
    stopped = sparse_sinkhorn(every_pair(6, 5), cost.flatten(), a, b, num_iters=300, tol=1e-4, **options)
    assert bool(stopped.converged)
    assert stopped.num_iters < 300 or not anywhere


def test_a_node_without_mass_needs_no_candidate(problem, anywhere):
    cost, a, b = problem(4, 3)
    a, b = torch.cat([a, a.new_zeros(1)]), torch.cat([b, b.new_zeros(2)])
    transport = sparse_sinkhorn(every_pair(4, 3), cost.flatten(), a, b, epsilon=0.1)
    close(transport.plan.to_dense()[:4, :3], sinkhorn(cost, a[:4], b[:3], epsilon=0.1, num_iters=100).plan)
    assert transport.potentials[0][4] == 0
    assert transport.potentials[1][3:].abs().sum() == 0
    assert transport.carried == 1


@pytest.mark.parametrize("epsilon", [0.3, Relative(0.3)])
@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_one_pair_takes_all(anywhere, gradient, epsilon):
    cost = torch.tensor([3.0], requires_grad=True)
    one = torch.ones(1)
    transport = sparse_sinkhorn(
        torch.tensor([[0], [0]]), cost, one, one, epsilon=epsilon, gradient=gradient, num_iters=3
    )
    assert transport.plan.detach().to_dense().item() == pytest.approx(1)
    assert transport.value.item() == pytest.approx(3)
    (slope,) = torch.autograd.grad(transport.value, cost)
    assert slope.item() == pytest.approx(1)


@pytest.mark.parametrize("epsilon", [0.1, Relative(0.1)])
def test_identical_points_give_the_product_of_the_masses(problem, anywhere, epsilon):
    _, a, b = problem(4, 5)
    cost = torch.full((20,), 2.0, dtype=a.dtype, requires_grad=True)
    transport = sparse_sinkhorn(every_pair(4, 5), cost, a, b, epsilon=epsilon)
    close(transport.plan.detach().to_dense(), a[:, None] * b)
    assert transport.value.item() == pytest.approx(2)
    (slope,) = torch.autograd.grad(transport.value, cost)
    close(slope, (a[:, None] * b).flatten())


def test_relative_epsilon_is_a_share_of_the_spread_over_the_pairs(problem):
    cost, a, b = problem(7, 6)
    row, column = pairs = most_pairs(7, 6)
    transport = sparse_sinkhorn(pairs, cost[row, column], a, b, epsilon=Relative(0.2))
    assert transport.epsilon.item() == pytest.approx(0.2 * float(cost[row, column].std(correction=0)), rel=1e-12)


@pytest.mark.parametrize("share", [0.02, 0.002])
def test_float32_is_near_float64_at_small_epsilon(problem, anywhere, share):
    cost, a, b = problem(40, 30, dtype=torch.float32)
    row, column = pairs = most_pairs(40, 30)
    cost = 20 + 50 * cost[row, column]
    options = dict(epsilon=50 * share, num_iters=150)
    narrow = sparse_sinkhorn(pairs, cost, a, b, **options)
    wide = sparse_sinkhorn(pairs, cost.double(), a.double(), b.double(), **options)
    assert narrow.plan.dtype == narrow.value.dtype == narrow.marginal_error.dtype == torch.float32
    assert narrow.value.item() == pytest.approx(wide.value.item(), rel=1e-5)
    # Potentials of size 40 have an error of 2e-6 in float32, which 1 / epsilon magnifies tenfold at the smallest.
    largest = wide.plan.values().max()
    close(narrow.plan.values().double() / largest, wide.plan.values() / largest, atol=1e-4)


@pytest.mark.parametrize("tau_a, tau_b", [(1, 1), (0.9, 1), (0.99, 0.9)])
@pytest.mark.parametrize("epsilon", [1e-2, 1e-3, 1e-4])
def test_absorbed_kernels_are_as_exact_as_potentials(problem, monkeypatch, epsilon, tau_a, tau_b):
    cost, a, b = problem(20, 15)
    row, column = pairs = most_pairs(20, 15)
    kernels = []
    absorb = segments.Scaling._absorb
    monkeypatch.setattr(segments.Scaling, "_absorb", lambda self, *args: (kernels.append(0), absorb(self, *args))[1])
    # A node without mass and candidate is no reason to start anew.
    a = torch.cat([a, a.new_zeros(1)])
    options = dict(epsilon=epsilon, num_iters=50, tau_a=tau_a, tau_b=tau_b)
    scaling = sparse_sinkhorn(pairs, cost[row, column], a, b, **options)
    if tau_a == tau_b == 1:
        assert len(kernels) == 1 if epsilon == 1e-2 else 1 < len(kernels) < 5
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    log = sparse_sinkhorn(pairs, cost[row, column], a, b, **options)
    close(scaling.potentials, log.potentials)
    close(scaling.plan.to_dense(), log.plan.to_dense(), atol=1e-11)
    close(scaling.marginal_error, log.marginal_error, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_to_float32(problem, dtype):
    cost, a, b = problem(4, 5, dtype=torch.float32)
    cost = cost.flatten().to(dtype).requires_grad_()
    transport = sparse_sinkhorn(every_pair(4, 5), cost, a, b, epsilon=0.1)
    wanted = sparse_sinkhorn(every_pair(4, 5), cost.detach().float(), a, b, epsilon=0.1)
    assert transport.plan.dtype == transport.value.dtype == transport.potentials[0].dtype == torch.float32
    close(transport.plan.detach().to_dense(), wanted.plan.to_dense(), atol=0)
    transport.value.backward()
    assert cost.grad.dtype == dtype


@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_autocast_changes_nothing(problem, gradient):
    cost, a, b = problem(4, 5, dtype=torch.float32)
    cost = cost.flatten().requires_grad_()
    options = dict(epsilon=0.1, num_iters=5, gradient=gradient)
    wanted = sparse_sinkhorn(every_pair(4, 5), cost, a, b, **options)
    (slope,) = torch.autograd.grad(wanted.value, cost)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        transport = sparse_sinkhorn(every_pair(4, 5), cost, a, b, **options)
    (derivative,) = torch.autograd.grad(transport.value, cost)
    close(transport.plan.detach().to_dense(), wanted.plan.detach().to_dense(), atol=0)
    close(derivative, slope, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_twenty_thousand_nodes_are_solved(gradient):
    # Two dense matrices of this size would take 3 GB.
    n, k = 20_000, 16
    generator = torch.Generator().manual_seed(0)
    row = torch.arange(n).repeat_interleave(k)
    pairs = torch.stack([row, torch.randint(n, (n * k,), generator=generator)])
    pairs = torch.cat([pairs, torch.arange(n).expand(2, n)], 1).unique(dim=1)
    cost = torch.rand(pairs.shape[1], generator=generator, requires_grad=True)
    masses = torch.full((n,), 1 / n)
    transport = sparse_sinkhorn(pairs, cost, masses, masses, epsilon=0.2, num_iters=50, tol=1e-3, gradient=gradient)
    transport.value.backward()
    assert bool(transport.converged)
    assert transport.carried == 1
    assert cost.grad.sum().item() == pytest.approx(1, abs=1e-3)
