"""Many pairs of masses under one cost: the same numbers as one problem each."""

import inspect

import pytest
import torch

from graphkd import checks
from graphkd.ot import shared_sinkhorn, sinkhorn


@pytest.fixture
def pairs(problem):
    """One cost, and seven pairs of masses, of which each lacks another class."""
    cost = problem(5, 6)[0]
    a, b = problem(5, 6, batch=(7,), seed=1)[1:]
    for k in range(7):
        a[k, k % 5], b[k, k % 6] = 0, 0
    return cost, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)


def one_by_one(cost, a, b, **options):
    """The same by a cost per pair."""
    return sinkhorn(cost.expand(len(a), *cost.shape), a, b, **options)


@pytest.mark.parametrize("domain", ["auto", "scaling", "log"])
@pytest.mark.parametrize("order", ["rows_first", "columns_first"])
@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_values_and_gradients_are_those_of_one_problem_each(pairs, gradient, order, domain):
    options = {"epsilon": 0.1, "num_iters": 7, "order": order, "domain": domain}
    weights = torch.arange(1.0, 8.0, dtype=torch.float64)
    found = []
    for solve in (shared_sinkhorn, one_by_one):
        leaves = [x.clone().requires_grad_() for x in pairs]
        transport = solve(*leaves, gradient=gradient, **options)
        found.append((transport, torch.autograd.grad((weights * transport.value).sum(), leaves)))
    (ours, slopes), (theirs, expected) = found
    torch.testing.assert_close(ours.value, theirs.value, atol=1e-12, rtol=0)
    torch.testing.assert_close(ours.plan, theirs.plan.detach().mean(0), atol=1e-14, rtol=0)
    torch.testing.assert_close(ours.marginal_error, theirs.marginal_error, atol=1e-12, rtol=0)
    torch.testing.assert_close(ours.linear, (theirs.plan * pairs[0]).sum((-2, -1)), atol=1e-12, rtol=0)
    for potential, expected_potential in zip(ours.potentials, theirs.potentials, strict=True):
        torch.testing.assert_close(potential, expected_potential, atol=1e-12, rtol=0)
    for slope, wanted in zip(slopes, expected, strict=True):
        torch.testing.assert_close(slope, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("domain", ["scaling", "log"])
@pytest.mark.parametrize("order", ["rows_first", "columns_first"])
@pytest.mark.parametrize("num_iters", [1, 4])
def test_gradients_of_the_transport_cost_are_its_slopes_after_any_number_of_sweeps(
    pairs, assert_slopes, num_iters, order, domain
):
    weights = torch.arange(1.0, 8.0, dtype=torch.float64)

    def loss(cost, a, b):
        options = {"num_iters": num_iters, "order": order, "domain": domain, "gradient": "unroll"}
        transport = shared_sinkhorn(cost, a, b, epsilon=0.1, **options)
        return (weights * (transport.linear.square() + transport.value)).sum()

    assert_slopes(loss, pairs)


def test_gradients_of_a_stabilised_start_from_given_potentials_are_slopes(pairs, assert_slopes):
    def loss(cost, a, b, g):
        options = {"num_iters": 3, "gradient": "unroll", "stabilizer": 1e-8, "domain": "scaling"}
        return shared_sinkhorn(cost, a, b, epsilon=0.1, warm_start=(torch.zeros_like(a), g), **options).linear.sum()

    assert_slopes(loss, (*pairs, 0.1 * torch.rand(7, 6, dtype=torch.float64)))


def test_envelope_is_the_slope_at_convergence(pairs, assert_slopes):
    assert_slopes(lambda *x: shared_sinkhorn(*x, epsilon=0.2, num_iters=500).value.sum(), pairs)


@pytest.mark.parametrize("epsilon", [0.5, 0.05, 0.02, 0.005, 0.002, 0.0005])
def test_float32_is_close_to_float64_at_any_epsilon(problem, epsilon):
    cost = problem(20, 20)[0]
    a, b = problem(20, 20, batch=(9,), seed=1)[1:]
    wide = shared_sinkhorn(cost, a, b, epsilon=epsilon, num_iters=100, gradient="unroll")
    narrow = shared_sinkhorn(cost.float(), a.float(), b.float(), epsilon=epsilon, num_iters=100, gradient="unroll")
    assert narrow.value.dtype == narrow.linear.dtype == narrow.plan.dtype == torch.float32
    torch.testing.assert_close(narrow.value.double(), wide.value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(narrow.linear.double(), wide.linear, rtol=1e-4, atol=1e-6)


def test_tolerance_freezes_each_pair_when_it_is_done(pairs):
    options = {"epsilon": 0.1, "num_iters": 300, "tol": 1e-6}
    ours, theirs = shared_sinkhorn(*pairs, **options), one_by_one(*pairs, **options)
    assert len(set(ours.num_iters.tolist())) > 1
    assert ours.num_iters.tolist() == theirs.num_iters.tolist()
    assert ours.converged.all()
    torch.testing.assert_close(ours.value, theirs.value)


def test_one_mass_serves_all_pairs(pairs):
    cost, a, b = pairs
    transport = shared_sinkhorn(cost, a[0], b, epsilon=0.1)
    torch.testing.assert_close(transport.value, one_by_one(cost, a[:1].expand(7, -1), b, epsilon=0.1).value)


def test_one_pair_and_none_are_a_batch_of_one(pairs):
    cost, a, b = pairs
    torch.testing.assert_close(
        shared_sinkhorn(cost, a[0], b[0], epsilon=0.1).value, one_by_one(cost, a[:1], b[:1], epsilon=0.1).value
    )
    torch.testing.assert_close(shared_sinkhorn(cost, epsilon=0.1).value[0], sinkhorn(cost, epsilon=0.1).value)


def test_no_cost_or_plan_per_pair_is_ever_formed(monkeypatch, count_operations, pairs):
    cost, a, b = pairs
    # What runs on numpy would not be counted.
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    leaves = [x.requires_grad_() for x in (cost, a.repeat(20, 1), b.repeat(20, 1))]
    for gradient in ("envelope", "unroll"):
        with count_operations() as operations:
            transport = shared_sinkhorn(*leaves, epsilon=0.1, num_iters=1, gradient=gradient)
            loss = transport.value if gradient == "envelope" else transport.linear
            torch.autograd.grad(loss.sum(), leaves)
        assert 140 * 6 <= operations.largest < 140 * 5 * 6


def test_no_plan_per_pair_is_kept_beyond_the_reach_of_products(problem, monkeypatch):
    monkeypatch.setattr("graphkd.ot.shared.CHUNK", 20 * 20 * 2)
    cost = problem(20, 20)[0].requires_grad_()
    a, b = problem(20, 20, batch=(9,), seed=1)[1:]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        transport = shared_sinkhorn(cost, a, b, epsilon=0.0005, num_iters=3, gradient="unroll")
    assert max(kept) <= 20 * 20
    expected = one_by_one(cost, a, b, epsilon=0.0005, num_iters=3, gradient="unroll")
    torch.testing.assert_close(transport.value, expected.value)
    loss = (expected.plan * cost).sum()
    (got,), (wanted,) = torch.autograd.grad(transport.linear.sum(), cost), torch.autograd.grad(loss, cost)
    torch.testing.assert_close(got, wanted, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("epsilon", [0.1, 0.005, 0.0005])
@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_host_never_waits_where_looking_is_not_free(monkeypatch, count_operations, pairs, gradient, epsilon):
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    leaves = [x.float().requires_grad_() for x in pairs]
    with count_operations() as operations:
        transport = shared_sinkhorn(*leaves, epsilon=epsilon, num_iters=3, tol=1e-6, gradient=gradient)
        torch.autograd.grad(transport.value.sum(), leaves)
    assert operations.counts["_local_scalar_dense"] == operations.counts["nonzero"] == 0
    assert operations.counts["mm"] > 0


def test_a_plain_sum_of_the_transport_cost_under_an_envelope_is_refused(pairs):
    cost, a, b = pairs
    with pytest.raises(ValueError, match="gradient='unroll'"):
        shared_sinkhorn(cost.requires_grad_(), a, b, epsilon=0.1).linear.sum().backward()


def test_the_mean_plan_is_a_constant(pairs):
    cost, a, b = pairs
    assert not shared_sinkhorn(cost.requires_grad_(), a, b, epsilon=0.1, gradient="unroll").plan.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, a, b: (c.expand(7, 5, 6), a, b), r"needs one cost \(n, m\)"),
        (lambda c, a, b: (c, b, a), "a needs 5 masses"),
        (lambda c, a, b: (c, a, 2 * b), "a and b need equal sums"),
        (lambda c, a, b: (c, a[:3], b), "needs leading axes that broadcast"),
        (lambda c, a, b: (c, a[None], b), r"a needs masses of shape \(N, size\)"),
        (lambda c, a, b: (c * torch.nan, a, b), "cost needs finite values"),
        (lambda c, a, b: (c, -a, b), "a needs masses of at least 0"),
    ],
)
def test_bad_input_is_refused(pairs, change, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(shared_sinkhorn)(*change(*pairs), epsilon=0.1)


def test_implicit_gradients_are_refused(pairs):
    with pytest.raises(ValueError, match="needs gradient envelope or unroll"):
        shared_sinkhorn(*pairs, epsilon=0.1, gradient="implicit")
