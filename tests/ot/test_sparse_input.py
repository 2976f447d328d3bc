"""What Sinkhorn on a list of pairs is given, and where it runs: refusals, supports that carry too little, waits."""

import inspect

import pytest
import torch
from torch import Tensor

from graphkd import checks
from graphkd.ot import Relative
from graphkd.ot.sparse import sparse_sinkhorn

# The function as users have it, without the run-time type checks of the tests.
plain = inspect.unwrap(sparse_sinkhorn)

PAIRS = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 3]])
COST = torch.arange(6.0)
A, B = torch.full((3,), 1 / 3), torch.full((4,), 1 / 4)


def entry(x: Tensor, value: float) -> Tensor:
    """A copy of x with another first entry."""
    x = x.clone()
    x.view(-1)[0] = value
    return x


@pytest.mark.parametrize(
    "pairs, message",
    [
        (PAIRS.int(), r"edge_index needs .* integers torch.int64 of shape \(2, e\), got \(2, 6\) torch.int32"),
        (PAIRS.double(), r"edge_index needs .* got \(2, 6\) torch.float64"),
        (PAIRS.T, r"edge_index needs .* got \(6, 2\)"),
        (PAIRS[0], r"edge_index needs .* got \(6,\)"),
        (PAIRS[:, :0], r"edge_index needs at least one pair, .* got \(2, 0\)"),
        (
            entry(PAIRS, -1),
            r"edge_index needs row nodes in \[0, 3\) and column nodes in \[0, 4\), got a pair \(-1, 0\)",
        ),
        (entry(PAIRS, 3), r"got .* \(3, 0\)"),
        (PAIRS + torch.tensor([[0], [1]]), r"got a pair \(2, 4\)"),
        (torch.cat([PAIRS[:, 2:], PAIRS[:, 3:5]], 1), r"edge_index needs each pair once, got 2 repeated, as \(1, 2\)"),
        (PAIRS.to("meta"), "needs all tensors on one device, got edge_index on meta, cost on cpu"),
    ],
)
def test_bad_pairs_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        plain(pairs, COST, A, B, epsilon=1.0)


@pytest.mark.parametrize(
    "cost, message",
    [
        (entry(COST, float("nan")), r"cost needs finite values, got 1 NaN or infinite of 6"),
        (entry(COST, float("inf")), "cost needs finite values, got 1"),
        (COST.long(), "cost needs floating-point values, got torch.int64"),
        (COST[:5], r"cost needs a number for each of 6 pairs, got \(5,\)"),
        (COST[None], r"cost needs a number for each of 6 pairs, got \(1, 6\)"),
        (COST.to("meta"), "needs all tensors on one device, got edge_index on cpu, cost on meta"),
    ],
)
def test_bad_costs_are_refused(cost, message):
    with pytest.raises(ValueError, match=message):
        plain(PAIRS, cost, A, B, epsilon=1.0)


@pytest.mark.parametrize(
    "a, b, message",
    [
        (entry(A, -0.1), B, "a needs masses of at least 0 .* got a smallest mass of -0.1"),
        (A, entry(B, -0.1), "b needs masses of at least 0 .* got a smallest mass of -0.1"),
        (0 * A, 0 * B, "a needs .* sum above 0, got .* sums from 0 to 0"),
        (entry(A, float("nan")), B, "a needs finite values, got 1 NaN or infinite of 3"),
        (A, entry(B, float("inf")), "b needs finite values, got 1 NaN or infinite of 4"),
        (2 * A, B, "a and b need equal sums, got sums that differ by 0.5 of a's"),
        (A[None], B, r"a needs masses of shape \(n\), one problem at a time, got \(1, 3\)"),
        (A, torch.ones(()), r"b needs masses of shape \(n\), one problem at a time, got \(\)"),
        (A[:0], B, r"a needs masses .* got \(0,\)"),
        (A.long(), B, "a needs floating-point values, got torch.int64"),
        (A.to("meta"), B, "needs all tensors on one device, .* a on meta"),
    ],
)
def test_bad_masses_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        plain(PAIRS, COST, a, b, epsilon=1.0)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(epsilon=0.0), "epsilon needs a finite number above 0, got 0.0"),
        (dict(epsilon=float("nan")), "epsilon .* got nan"),
        (dict(num_iters=0), "num_iters needs an integer of at least 1, got 0"),
        (dict(tol=0), "tol needs a finite number above 0, got 0"),
        (dict(tau_a=1.1), r"tau_a needs a number in \[0, 1\], got 1.1"),
        (dict(tau_b=-0.1), r"tau_b needs a number in \[0, 1\], got -0.1"),
        (dict(gradient="implicit"), "gradient needs one of envelope, unroll, got 'implicit'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plain(PAIRS, COST, A, B, **{"epsilon": 1.0, **options})


def test_bad_input_is_refused_before_any_sweep(count_operations):
    nan, too_few = entry(COST, float("nan")), PAIRS.clamp_max(1)[:, [0, 1, 2]]
    for pairs, cost, a in ((PAIRS.int(), COST, A), (PAIRS, nan, A), (PAIRS, COST, 2 * A), (too_few, COST[:3], A)):
        with count_operations() as operations, pytest.raises(ValueError):
            plain(pairs, cost, a, B, epsilon=1.0)
        assert operations.counts["exp"] == operations.counts["exp_"] == 0


def test_masses_of_another_precision_are_taken():
    transport = sparse_sinkhorn(PAIRS, COST.double(), A, B.half(), epsilon=1.0)
    assert transport.plan.dtype == torch.float64


def test_relaxed_masses_need_no_equal_sums():
    transport = sparse_sinkhorn(PAIRS, COST, 2 * A, B, epsilon=1.0, tau_b=0.5)
    torch.testing.assert_close(transport.plan.to_dense().sum(1), 2 * A)


@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_nodes_with_mass_but_without_candidates_are_named(gradient):
    a, b = torch.full((9,), 1 / 9), torch.full((4,), 1 / 4)
    pairs = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]])
    message = (
        "needs candidate pairs that can carry all of the mass, got pairs that carry at most 0.222222 of it, "
        r"with no candidate for 7 of 9 row nodes \(2, 3, 4, 5, 6, ...\) and 2 of 4 column nodes \(2, 3\): "
        "take more candidates, or relax"
    )
    with pytest.raises(ValueError, match=message):
        sparse_sinkhorn(pairs, torch.rand(4), a, b, epsilon=0.1, gradient=gradient)


def test_a_candidate_without_mass_does_not_count():
    b = torch.tensor([0.5, 0.5, 0.0, 0.0])
    with pytest.raises(ValueError, match=r"carry at most 0.666667 .* 1 of 3 row nodes \(2\) and 0 of 4 column nodes:"):
        sparse_sinkhorn(PAIRS, COST, A, b, epsilon=0.1)


@pytest.mark.parametrize("tol", [None, 1e-2])
@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_candidates_for_all_that_share_too_few_are_refused(gradient, tol):
    # Rows 0 to 2 share columns 0 and 1, of which they need three halves.
    pairs = torch.tensor([[0, 0, 1, 1, 2, 2, 3, 3, 3, 3], [0, 1, 0, 1, 0, 1, 0, 1, 2, 3]])
    masses = torch.full((4,), 1 / 4)
    message = "carry at most 0.75 of it, with no candidate for 0 of 4 row nodes and 0 of 4 column nodes"
    with pytest.raises(ValueError, match=message):
        sparse_sinkhorn(pairs, torch.rand(10), masses, masses, epsilon=0.1, tol=tol, gradient=gradient)
    relaxed = sparse_sinkhorn(pairs, torch.rand(10), masses, masses, epsilon=0.1, tau_b=0.9, gradient=gradient)
    assert bool(relaxed.converged)
    torch.testing.assert_close(relaxed.plan.detach().to_dense().sum(1), masses)


def test_candidates_that_lack_a_little_are_refused_though_the_tolerance_would_be_met():
    n = 3000
    nodes = torch.arange(n)
    # Every node has its own candidate, but for the last two rows, which share one.
    pairs = torch.stack([nodes, nodes.clamp_max(n - 2)])
    pairs = torch.cat([pairs, torch.tensor([[0], [n - 1]])], 1)
    masses = torch.full((n,), 1 / n)
    with pytest.raises(ValueError, match="carry at most 0.999667 of it, with no candidate for 0 of 3000 row nodes"):
        sparse_sinkhorn(pairs, torch.rand(n + 1), masses, masses, epsilon=0.1)


def test_a_side_that_is_kept_needs_candidates_and_a_relaxed_one_does_not():
    pairs, cost = PAIRS[:, :4], COST[:4]  # without row 2 and column 3
    for taus, message in (
        (dict(tau_a=0.5), r"carry at most 0.75 .* 1 of 3 row nodes \(2\) and 1 of 4 column nodes \(3\)"),
        (dict(tau_b=0.5), "carry at most 0.666667"),
    ):
        with pytest.raises(ValueError, match=message):
            sparse_sinkhorn(pairs, cost, A, B, epsilon=0.1, **taus)
    transport = sparse_sinkhorn(pairs, cost, A, B, epsilon=0.1, tau_a=0.5, tau_b=0.5)
    assert transport.carried.item() == pytest.approx(2 / 3)
    assert torch.isfinite(transport.value)
    assert transport.check() is transport


def test_masses_that_fit_exactly_are_carried_however_slow_the_sweeps():
    # A chain leaves no choice: far from converged at a tiny epsilon, and yet not refused.
    n = 50
    chain = torch.arange(n)
    pairs = torch.cat([torch.stack([chain, chain]), torch.stack([chain[1:], chain[:-1]])], 1)
    cost = torch.rand(2 * n - 1, generator=torch.Generator().manual_seed(0))
    masses = torch.full((n,), 1 / n)
    transport = sparse_sinkhorn(pairs, cost, masses, masses, epsilon=0.001, num_iters=2)
    assert not bool(transport.converged)
    assert transport.carried == 1


@pytest.mark.parametrize("tau", [1, 0.5])
@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
@pytest.mark.parametrize("tol", [None, 1e-3])
def test_host_never_waits_where_looking_is_not_free(monkeypatch, count_operations, tol, gradient, tau):
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    cost, a, b = (x.clone().requires_grad_() for x in (COST, A, B))
    with count_operations() as operations:
        transport = sparse_sinkhorn(
            PAIRS, cost, a, b, epsilon=Relative(0.1), tol=tol, gradient=gradient, tau_a=tau, num_iters=5
        )
        transport.value.backward()
    for waits in ("_local_scalar_dense", "nonzero", "unique", "_unique2", "lift_fresh"):
        assert operations.counts[waits] == 0, waits
    assert operations.counts["index_select"] > 0


def test_looking_does_read_values(count_operations):
    with count_operations() as operations:
        sparse_sinkhorn(PAIRS, COST, A, B, epsilon=1.0, tol=1e-3)
    assert operations.counts["_local_scalar_dense"] > 0


@pytest.mark.parametrize(
    "pairs, cost, a, status",
    [
        (PAIRS, COST, A, 0),
        (PAIRS, entry(COST, float("nan")), A, 1),
        (PAIRS, COST, entry(A, -1 / 3), 2 + 4),
        (PAIRS, COST, entry(A, float("nan")), 2),
        (PAIRS, COST, 2 * A, 4),
        (entry(PAIRS, -1), COST, A, 8),
        (entry(PAIRS, 3), COST, A, 8),
        (entry(PAIRS, 10**12), COST, A, 8),
        (PAIRS[:, [0, 0, 2, 3, 4, 5]], COST, A, 8),
        (entry(PAIRS, 3), COST, 2 * A, 4 + 8),
    ],
)
def test_where_looking_is_not_free_the_status_tells(monkeypatch, pairs, cost, a, status):
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    transport = sparse_sinkhorn(pairs, cost, a, B, epsilon=1.0)
    assert transport.status == status
    if status == 4:
        assert sparse_sinkhorn(pairs, cost, a, B, epsilon=1.0, tau_b=0.5).status == 0
    if status & 9:
        assert transport.value.isnan()
        assert not bool(transport.converged)
    if status:
        with pytest.raises(ValueError):
            transport.check()
    else:
        assert transport.check() is transport


def test_where_looking_is_not_free_an_upper_bound_is_carried(monkeypatch):
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    transport = sparse_sinkhorn(PAIRS[:, :4], COST[:4], A, B, epsilon=1.0)
    assert transport.carried.item() == pytest.approx(2 / 3)
    assert not bool(transport.converged)
    assert torch.isfinite(transport.plan.to_dense()).all()
    assert torch.isfinite(torch.cat(transport.potentials)).all()
