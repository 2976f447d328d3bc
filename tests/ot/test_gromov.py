"""Fused Gromov-Wasserstein transport: its objective, its plans, its starts and its factored relations."""

from itertools import product

import ot
import pytest
import torch
from torch import Tensor

from graphkd.benchmark.problems import gromov_problem
from graphkd.ot import sinkhorn
from graphkd.ot.exact import exact
from graphkd.ot.fused.lowrank import LowRank
from graphkd.ot.fused.objective import rounded
from graphkd.ot.gromov import fused_gromov
from graphkd.ot.problem import Relative

LOSSES = ("square", "kl")
SOLVERS = ("mirror", "conditional")


def points(n: int, *, batch=(), seed: int = 0) -> Tensor:
    return torch.randn(*batch, n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distances(x: Tensor) -> Tensor:
    return torch.cdist(x, x)


def objective(plan: Tensor, cost: Tensor, student: Tensor, teacher: Tensor, alpha: float, loss: str) -> float:
    """The definition, one term for each four nodes."""
    n, m = cost.shape
    total = (1 - alpha) * float((plan * cost).sum())
    for i, j, k, o in product(range(n), range(m), range(n), range(m)):
        s, t = student[i, k], teacher[j, o]
        difference = (s - t) ** 2 if loss == "square" else s * (s / t).log() - s + t
        total += alpha * float(difference * plan[i, j] * plan[k, o])
    return total


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("semi_relaxed", [True, False])
def test_value_is_the_definition_at_the_plan(graphs, semi_relaxed, loss, symmetric, solver):
    cost, student, teacher, a, b = graphs(4, 3, symmetric=symmetric)
    options = dict(alpha=0.7, loss=loss, solver=solver, semi_relaxed=semi_relaxed, num_iters=3)
    transport = fused_gromov(cost, student, teacher, a, b, **options)
    wanted = objective(transport.plan.detach(), cost, student, teacher, 0.7, loss)
    assert float(transport.value) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_no_plan_nearby_is_better(graphs, loss, symmetric, solver):
    cost, student, teacher, a, b = graphs(4, 3, symmetric=symmetric, seed=1)
    transport = fused_gromov(cost, student, teacher, a, b, loss=loss, solver=solver, num_iters=1000)
    plan = transport.plan.detach()
    for seed in range(10):
        other = torch.rand(4, 3, generator=torch.Generator().manual_seed(seed), dtype=plan.dtype).exp().pow(4)
        near = 0.99 * plan + 0.01 * rounded(sinkhorn(-other.log(), a, b, epsilon=1.0).plan.detach(), a, b)
        assert objective(near, cost, student, teacher, 0.5, loss) > float(transport.value) - 1e-5


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("solver", SOLVERS)
def test_value_is_near_that_of_pots_conditional_gradient(graphs, solver, alpha, loss):
    wanted, got = [], []
    for seed in range(5):
        _, _, _, a, b = graphs(20, 20, seed=seed)
        x, y = points(20, seed=seed), points(20, seed=seed) + 0.3 * points(20, seed=seed + 10)
        inputs = torch.cdist(x, y), 0.1 + distances(x), 0.1 + distances(y), a, b
        arrays = (x.numpy() for x in inputs)
        name = {"square": "square_loss", "kl": "kl_loss"}[loss]
        wanted.append(float(ot.gromov.fused_gromov_wasserstein2(*arrays, loss_fun=name, alpha=alpha)))
        got.append(float(fused_gromov(*inputs, alpha=alpha, loss=loss, solver=solver).value))
    assert sum(got) < 1.1 * sum(wanted)
    if solver == "conditional":
        assert got == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("family", ["noisy", "independent", "adjacency"])
@pytest.mark.parametrize("n", [32, 128])
def test_mirror_is_as_good_as_conditional_for_any_number_of_nodes(family, n):
    problem = gromov_problem(family, n)
    mirror = fused_gromov(*problem, solver="mirror").value
    assert float(mirror) < 1.02 * float(fused_gromov(*problem, solver="conditional").value)


@pytest.mark.parametrize("solver", SOLVERS)
def test_semi_relaxed_value_is_near_that_of_pot(graphs, solver):
    for seed in range(3):
        cost, student, teacher, a, _ = graphs(10, 8, seed=seed)
        arrays = (x.numpy() for x in (cost, student, teacher, a))
        wanted = float(ot.gromov.semirelaxed_fused_gromov_wasserstein2(*arrays, alpha=0.5))
        options = dict(solver=solver, semi_relaxed=True, num_iters=60)
        transport = fused_gromov(cost, student, teacher, a, **options)
        assert float(transport.value) < 1.1 * wanted
        assert transport.marginal_error < 1e-12
        torch.testing.assert_close(transport.plan.detach().sum(-1), a, atol=1e-12, rtol=0)
        assert float(transport.value) < float(fused_gromov(cost, student, teacher, a, solver="conditional").value)


def test_without_structure_it_is_exact_transport(graphs):
    cost, student, teacher, a, b = graphs(7, 5)
    wanted = exact(cost, a, b)
    for relations in ((student, teacher), (None, None)):
        transport = fused_gromov(cost, *relations, a, b, alpha=0)
        torch.testing.assert_close(transport.plan.detach(), wanted.plan)
        torch.testing.assert_close(transport.value, wanted.value)
        assert bool(transport.converged)
    mirror = fused_gromov(cost, None, None, a, b, alpha=0, solver="mirror", num_iters=200)
    assert float(mirror.value) == pytest.approx(float(wanted.value), rel=1e-3)


def test_without_a_cost_it_is_gromov_wasserstein(graphs):
    cost, student, teacher, a, b = graphs(7, 5)
    with_cost = fused_gromov(cost, student, teacher, a, b, alpha=1)
    without = fused_gromov(None, student, teacher, a, b, alpha=1.0)
    torch.testing.assert_close(without.plan.detach(), with_cost.plan.detach())
    assert float(without.value) == pytest.approx(
        objective(without.plan.detach(), cost, student, teacher, 1, "square"), rel=1e-9
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_graph_and_its_permutation_are_matched_at_no_cost(solver):
    x, order = points(24), torch.randperm(24)
    cost = torch.cdist(x, x[order])
    transport = fused_gromov(cost, distances(x), distances(x[order]), solver=solver, num_iters=50)
    assert 0 <= float(transport.value) < 1e-8
    assert torch.equal(transport.plan.detach().argmax(-1), order.argsort())


@pytest.mark.parametrize("solver", SOLVERS)
def test_permuted_nodes_permute_the_plan(graphs, solver):
    cost, student, teacher, a, b = graphs(9, 7, symmetric=False)
    rows, columns = torch.randperm(9), torch.randperm(7)
    plain = fused_gromov(cost, student, teacher, a, b, solver=solver)
    permuted = fused_gromov(
        cost[rows][:, columns],
        student[rows][:, rows],
        teacher[columns][:, columns],
        a[rows],
        b[columns],
        solver=solver,
    )
    torch.testing.assert_close(permuted.plan.detach(), plain.plan.detach()[rows][:, columns], atol=1e-9, rtol=0)
    torch.testing.assert_close(permuted.value, plain.value)


@pytest.mark.parametrize("semi_relaxed", [True, False])
@pytest.mark.parametrize("solver", SOLVERS)
def test_batch_equals_loop(graphs, solver, semi_relaxed):
    batch = graphs(6, 5, batch=(2, 2), symmetric=False)
    teacher = batch[2] = batch[2][0, 0]  # shared by all
    options = dict(solver=solver, semi_relaxed=semi_relaxed, num_iters=10, start="product")
    together = fused_gromov(*batch, **options)
    assert together.value.shape == together.converged.shape == together.num_iters.shape == (2, 2)
    for i, j in product(range(2), range(2)):
        cost, student, _, a, b = (x[i, j] if x is not teacher else x for x in batch)
        alone = fused_gromov(cost, student, teacher, a, b, **options)
        torch.testing.assert_close(together.plan[i, j].detach(), alone.plan.detach(), atol=1e-9, rtol=0)
        torch.testing.assert_close(together.value[i, j], alone.value)
        torch.testing.assert_close(together.potentials[0][i, j], alone.potentials[0], atol=1e-7, rtol=0)
        assert together.num_iters[i, j] == alone.num_iters


def test_sparse_relations_in_a_batch_equal_dense_ones(monkeypatch):
    problem = gromov_problem("adjacency", 128, (2,), torch.float64)
    sparse = fused_gromov(*problem, num_iters=5)
    monkeypatch.setattr("graphkd.ot.fused.products.SMALL", 1000)
    dense = fused_gromov(*problem, num_iters=5, solver="mirror")
    torch.testing.assert_close(sparse.plan.detach(), dense.plan.detach(), atol=1e-12, rtol=0)
    assert sparse.num_iters.tolist() == [5, 5]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("make", [LowRank.sqeuclidean, LowRank.gram])
def test_low_rank_relations_equal_dense_ones(graphs, make, solver):
    cost, _, _, a, b = graphs(14, 13)
    student, teacher = make(points(14)), make(points(13, seed=1))
    skew = LowRank(student.left, student.right.flip(0))
    for factors in ((student, teacher), (skew, teacher)):
        low = fused_gromov(cost, *factors, a, b, solver=solver, num_iters=10)
        dense = fused_gromov(cost, *(x.dense() for x in factors), a, b, solver=solver, num_iters=10)
        mixed = fused_gromov(cost, factors[0], factors[1].dense(), a, b, solver=solver, num_iters=10)
        for other in (dense, mixed):
            torch.testing.assert_close(low.plan.detach(), other.plan.detach(), atol=1e-7, rtol=0)
            torch.testing.assert_close(low.value, other.value)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("semi_relaxed", [True, False])
def test_the_plan_has_the_masses_asked_for_in_float32(graphs, solver, semi_relaxed):
    cost, student, teacher, a, b = graphs(40, 30, dtype=torch.float32)
    transport = fused_gromov(cost, student, teacher, a, b, solver=solver, num_iters=2, semi_relaxed=semi_relaxed)
    assert transport.plan.dtype == torch.float32
    assert transport.plan.min() >= 0
    assert transport.marginal_error < 1e-6
    torch.testing.assert_close(transport.plan.detach().sum(-1), a, atol=1e-8, rtol=1e-5)
    if not semi_relaxed:
        torch.testing.assert_close(transport.plan.detach().sum(-2), b, atol=1e-8, rtol=1e-5)


def test_rounding_keeps_a_plan_that_has_the_masses_and_mends_one_that_has_not(graphs):
    _, _, _, a, b = graphs(6, 5, batch=(3,))
    a[0, 2] = 0
    a = a / a.sum(-1, keepdim=True)
    good = a.unsqueeze(-1) * b.unsqueeze(-2)
    torch.testing.assert_close(rounded(good, a, b), good, atol=1e-15, rtol=0)
    bad = torch.rand(3, 6, 5, dtype=torch.float64)
    mended = rounded(bad / bad.sum((-2, -1), keepdim=True), a, b)
    assert mended.min() >= 0
    torch.testing.assert_close(mended.sum(-1), a, atol=1e-15, rtol=0)
    torch.testing.assert_close(mended.sum(-2), b, atol=1e-15, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_is_close_to_float64(solver):
    problem = gromov_problem("noisy", 40, dtype=torch.float64)
    wide = fused_gromov(*problem, solver=solver)
    narrow = fused_gromov(*(x.float() for x in problem), solver=solver)
    half = fused_gromov(*(x.half() for x in problem[:3]), solver=solver)
    assert float(narrow.value) == pytest.approx(float(wide.value), rel=1e-4)
    torch.testing.assert_close(narrow.plan.detach().double(), wide.plan.detach(), atol=1e-5, rtol=0)
    assert half.value.dtype == half.plan.dtype == torch.float32
    assert float(half.value) == pytest.approx(float(wide.value), rel=1e-2)


def test_autocast_changes_nothing():
    problem = gromov_problem("noisy", 20)
    plain = fused_gromov(*problem, solver="mirror")
    with torch.autocast("cpu", torch.bfloat16):
        cast = fused_gromov(*problem, solver="mirror")
    torch.testing.assert_close(cast.plan.detach(), plain.plan.detach(), atol=0, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_starting_from_the_solution_ends_there(solver):
    problem = gromov_problem("noisy", 24, dtype=torch.float64)
    solved = fused_gromov(*problem, solver=solver, num_iters=50)
    again = fused_gromov(*problem, solver=solver, start=solved.plan.detach())
    torch.testing.assert_close(again.plan.detach(), solved.plan.detach(), atol=1e-4, rtol=0)
    assert bool(again.converged)
    if solver == "conditional":
        assert again.num_iters == 0


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_identity_is_a_start_that_pairs_nodes(solver):
    # Both graphs are the same cycle, so that the product of the masses is as far from any rotation as from another.
    cycle = torch.eye(8, dtype=torch.float64).roll(1, 0)
    cycle = cycle + cycle.T
    paired = fused_gromov(None, cycle, cycle, alpha=1, start="identity", solver=solver)
    torch.testing.assert_close(paired.plan.detach(), torch.eye(8, dtype=torch.float64) / 8, atol=1e-2, rtol=0)
    assert float(paired.value) < 1e-2
    unpaired = fused_gromov(None, cycle, cycle, alpha=1, solver="mirror")
    assert float(unpaired.value) > 0.1


def test_more_steps_and_a_tolerance_stop_where_the_plan_has_settled():
    problem = gromov_problem("adjacency", 32, (3,), torch.float64)
    few = fused_gromov(*problem, solver="mirror", num_iters=2)
    assert not few.converged.any()
    assert few.num_iters.tolist() == [2, 2, 2]
    stopped = fused_gromov(*problem, solver="mirror", num_iters=500, tol=1e-4)
    assert stopped.converged.all()
    assert len(set(stopped.num_iters.tolist())) > 1
    assert stopped.num_iters.max() < 500
    for i in range(3):
        alone = fused_gromov(*(x[i] for x in problem), solver="mirror", num_iters=500, tol=1e-4)
        assert alone.num_iters == stopped.num_iters[i]
        torch.testing.assert_close(alone.plan.detach(), stopped.plan[i].detach(), atol=1e-9, rtol=0)


def test_conditional_says_when_its_steps_ran_out():
    problem = gromov_problem("adjacency", 64)
    short = fused_gromov(*problem, solver="conditional", num_iters=1)
    assert not bool(short.converged)
    assert short.num_iters == 1
    assert bool(fused_gromov(*problem, solver="conditional").converged)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_goes_further_at_a_smaller_epsilon_given_in_units_of_the_cost(graphs, solver):
    if solver == "conditional":
        assert float(fused_gromov(*graphs(6, 5), solver=solver).epsilon) == 0
        return
    problem = graphs(6, 5)
    product_plan = problem[3].unsqueeze(-1) * problem[4]
    moved = []
    for epsilon in (1.0, 0.1):
        transport = fused_gromov(*problem, solver="mirror", num_iters=1, epsilon=epsilon)
        assert float(transport.epsilon) == pytest.approx(epsilon)
        moved.append(float((transport.plan.detach() - product_plan).abs().sum()))
    assert moved[0] < 0.5 * moved[1]
    relative = fused_gromov(*problem, solver="mirror", num_iters=5, epsilon=Relative(0.3))
    scaled = fused_gromov(100 * problem[0], *(10 * x for x in problem[1:3]), *problem[3:], solver="mirror", num_iters=5)
    torch.testing.assert_close(scaled.plan.detach(), relative.plan.detach(), atol=1e-9, rtol=0)


def test_auto_is_conditional_but_between_sparse_relations_of_many_nodes_or_problems():
    for family, n, batch, is_mirror in (
        ("noisy", 128, (), False),
        ("noisy", 64, (2,), False),
        ("adjacency", 64, (), False),
        ("adjacency", 64, (2,), True),
        ("adjacency", 128, (), True),
    ):
        transport = fused_gromov(*gromov_problem(family, n, batch))
        # Conditional has no epsilon.
        assert bool((transport.epsilon > 0).all()) == is_mirror, (family, n, batch)
