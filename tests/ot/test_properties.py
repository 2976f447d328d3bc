"""What must hold for every solver and any problem, and what is known in closed form."""

import math

import ot
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from graphkd.ot import (
    exact,
    fused_gromov,
    gaussian,
    ipot,
    shared_sinkhorn,
    sinkhorn,
    sinkhorn_divergence,
    sparse_sinkhorn,
)


def alone(cost, a, b):
    """The same problem as the only one that shares its cost."""
    return shared_sinkhorn(cost, a, b, epsilon=0.1, num_iters=2000, tol=1e-10)


def full_list(cost, a, b):
    """The same problem with every pair in the list."""
    n, m = cost.shape
    pairs = torch.cartesian_prod(torch.arange(n), torch.arange(m)).T.reshape(2, -1)
    found = sparse_sinkhorn(pairs, cost.flatten(), a, b, epsilon=0.1, num_iters=2000, tol=1e-10)
    return found._replace(plan=found.plan.to_dense())


SOLVERS = {
    "log": lambda *x: sinkhorn(*x, epsilon=0.1, num_iters=2000, tol=1e-10, domain="log"),
    "scaling": lambda *x: sinkhorn(*x, epsilon=0.1, num_iters=2000, tol=1e-10),
    "columns first": lambda *x: sinkhorn(*x, epsilon=0.1, num_iters=2000, tol=1e-10, order="columns_first"),
    "absorbed": lambda *x: sinkhorn(*x, epsilon=0.003, num_iters=200, tol=1e-10),
    "Newton": lambda *x: sinkhorn(*x, epsilon=0.02, num_iters=20, newton_iters=60, tol=1e-10),
    "relaxed": lambda *x: sinkhorn(*x, epsilon=0.1, num_iters=100, tau_a=0.7),
    "shared": alone,
    "sparse": full_list,
    "ipot": lambda *x: ipot(*x, beta=0.2, num_iters=300),
    "exact": exact,
    "fused, conditional": lambda c, a, b: fused_gromov(c, None, None, a, b, alpha=0, solver="conditional"),
    "fused, mirror": lambda c, a, b: fused_gromov(c, None, None, a, b, alpha=0, solver="mirror", num_iters=60),
}
UNIQUE = {"log", "scaling", "columns first", "absorbed", "Newton", "relaxed", "shared", "sparse"}
"""Those whose problem has one solution."""
BATCHED = set(SOLVERS) - {"shared", "sparse"}


@st.composite
def problems(draw, batch=()):
    """Costs in [0, 1] with ties now and then, masses of one sum with zeros now and then."""
    n, m = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    cost = torch.rand(*batch, n, m, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        cost = (4 * cost).round() / 4
    total = draw(st.sampled_from([1.0, 0.01, 30.0]))
    masses = []
    for size in (n, m):
        x = torch.rand(*batch, size, generator=generator, dtype=torch.float64) + 0.05
        if size > 1 and draw(st.booleans()):
            x[..., draw(st.integers(0, size - 1))] = 0
        masses.append(total * x / x.sum(-1, keepdim=True))
    return cost, *masses


generated = settings(max_examples=25, deadline=None, database=None)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
@generated
@given(problem=problems())
def test_plans_move_mass_that_is_there_to_where_it_is_wanted(name, problem):
    cost, a, b = problem
    transport = SOLVERS[name](cost, a, b)
    assert (transport.plan >= 0).all()
    sums = transport.plan.sum(-1), transport.plan.sum(-2)
    error = float((sums[0] - a).abs().sum() + (sums[1] - b).abs().sum()) / float(a.sum())
    if name != "relaxed":
        assert error == pytest.approx(float(transport.marginal_error), abs=1e-9)
        assert error < 1e-6 or not transport.converged or name == "ipot"
    assert not sums[0][a == 0].any()
    assert not sums[1][b == 0].any()
    f, g = transport.potentials
    assert f.isfinite().all()
    assert g.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
@generated
@given(problem=problems(), seed=st.integers(0, 100), shift=st.floats(-20, 20))
def test_order_of_nodes_and_constants_of_the_cost_change_nothing_else(name, problem, seed, shift):
    cost, a, b = problem
    transport = SOLVERS[name](cost, a, b)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randperm(len(x), generator=generator) for x in (a, b))
    permuted = SOLVERS[name](cost[rows][:, columns].contiguous(), a[rows], b[columns])
    moved = SOLVERS[name](cost + shift, a, b)
    scale = float(a.sum())
    assert float(permuted.value) == pytest.approx(float(transport.value), abs=1e-6 * scale)
    if name == "relaxed":
        return
    # Mirror descent has not quite arrived, and goes by the rounded cost.
    close = 1e-2 if name == "fused, mirror" else 1e-5
    assert float(moved.value) == pytest.approx(float(transport.value) + shift * scale, abs=close * scale)
    if name in UNIQUE:
        torch.testing.assert_close(permuted.plan, transport.plan[rows][:, columns], atol=1e-6 * scale, rtol=0)
        torch.testing.assert_close(moved.plan, transport.plan, atol=1e-5 * scale, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BATCHED))
@generated
@given(problem=problems(batch=(3,)))
def test_problems_of_a_batch_do_not_know_of_each_other(name, problem):
    together = SOLVERS[name](*problem)
    for k in range(3):
        single = SOLVERS[name](*(x[k] for x in problem))
        torch.testing.assert_close(together.value[k], single.value, atol=1e-9, rtol=1e-9)
        if name in UNIQUE:
            torch.testing.assert_close(together.plan[k], single.plan, atol=1e-9, rtol=0)


@generated
@given(problem=problems())
def test_exact_value_bounds_all_others_and_entropic_ones_tend_to_it(problem):
    cost, a, b = problem
    scale = float(a.sum())
    least = ot.emd2(a.numpy(), b.numpy(), cost.numpy())
    assert float(exact(cost, a, b).value) == pytest.approx(least, abs=1e-9 * scale)
    for epsilon in (0.1, 0.01):
        transport = sinkhorn(cost, a, b, epsilon=epsilon, num_iters=500, newton_iters=60, tol=1e-9)
        sharp = float((transport.plan * cost).sum())
        # The optimum of the entropic problem costs at most epsilon times the largest entropy more.
        most = epsilon * scale * math.log(max(2, min(cost.shape)))
        assert least - 1e-6 * scale <= sharp <= least + most + 1e-6 * scale


@generated
@given(seed=st.integers(0, 1000), n=st.integers(1, 12))
def test_on_a_line_sorting_solves_it(seed, n):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = float((x.sort().values - y.sort().values).square().mean())
    cost = (x.unsqueeze(-1) - y).square()
    assert float(exact(cost).value) == pytest.approx(expected, abs=1e-9)
    plan = exact(cost).plan
    assert torch.equal(plan[x.argsort()][:, y.argsort()] > 0, torch.eye(n, dtype=torch.bool))


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 4.0])
def test_gaussians_on_a_line_have_the_entropic_cost_that_is_known(epsilon):
    # Janati, Muzellec, Peyré, Cuturi, "Entropic optimal transport between unbalanced Gaussian measures has a closed
    # form", NeurIPS 2020, arXiv:2006.02572, for variances s, t and 2 sigma^2 = epsilon.
    grid = torch.linspace(-7, 8, 400, dtype=torch.float64)
    (m, s), (k, t) = (0.3, 0.6), (-0.5, 1.7)
    a, b = ((-(grid - mean).square() / (2 * var)).exp() for mean, var in ((m, s), (k, t)))
    transport = sinkhorn(
        (grid.unsqueeze(-1) - grid).square(), a / a.sum(), b / b.sum(), epsilon=epsilon, num_iters=3000, tol=1e-11
    )
    half = epsilon / 2
    root = math.sqrt(4 * s * t + half**2)
    expected = (m - k) ** 2 + s + t - root + half * (1 - math.log(2 * half)) + half * math.log(root + half)
    assert float(transport.value) == pytest.approx(expected, rel=1e-5)


def test_samples_of_gaussians_are_as_far_apart_as_their_moments(problem):
    x, y = (torch.randn(5000, 2, dtype=torch.float64) * scale for scale in (1.0, 3.0))
    assert float(gaussian(x, y, covariance="full").value) == pytest.approx(2 * (3 - 1) ** 2, rel=0.05)


@generated
@given(seed=st.integers(0, 1000), n=st.integers(2, 8))
def test_points_are_matched_with_themselves_in_another_order(seed, n):
    generator = torch.Generator().manual_seed(seed)
    # Far enough apart that none is near another.
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64) + 10 * torch.eye(n, 3, dtype=torch.float64)
    x = x + 5 * torch.arange(n, dtype=torch.float64).unsqueeze(-1)
    order = torch.randperm(n, generator=generator)
    cost = torch.cdist(x, x[order]).square()
    expected = torch.eye(n, dtype=torch.float64)[:, order] / n
    for solve in (exact, ipot, lambda c: sinkhorn(c, epsilon=0.1), lambda c: sinkhorn(c, epsilon=0.1, domain="log")):
        torch.testing.assert_close(solve(cost).plan, expected, atol=1e-6, rtol=0)
    relation = torch.cdist(x, x)
    fused = fused_gromov(cost, relation, relation[order][:, order], alpha=0.5)
    torch.testing.assert_close(fused.plan, expected, atol=1e-6, rtol=0)
    assert float(fused.value) == pytest.approx(0, abs=1e-6)


@generated
@given(seed=st.integers(0, 1000), n=st.integers(1, 6), m=st.integers(1, 6))
@example(seed=141, n=2, m=2)  # Takes thousands of sweeps, and which side comes first tells until they are run.
def test_divergence_is_symmetric_and_not_negative(seed, n, m):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(size, 2, generator=generator, dtype=torch.float64) for size in (n, m))
    across, rows, columns = (torch.cdist(u, v).square() for u, v in ((x, y), (x, x), (y, y)))
    options = {"epsilon": 2.0, "num_iters": 20000, "tol": 1e-11}
    forth = sinkhorn_divergence(across, rows, columns, **options).value
    back = sinkhorn_divergence(across.mT.contiguous(), columns, rows, **options).value
    assert float(forth) > -1e-9
    assert float(forth) == pytest.approx(float(back), abs=1e-8)
