"""What Sinkhorn's algorithm is given and where it runs: refusals, waits of the host, tracing."""

import inspect
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import Tensor

from graphkd import checks
from graphkd.ot import Relative, ipot, shared_sinkhorn, sinkhorn
from graphkd.ot.problem import marginal_error

# The function as users have it, without the run-time type checks of the tests.
plain = inspect.unwrap(sinkhorn)

COST = torch.arange(12.0).reshape(3, 4)
A, B = torch.full((3,), 1 / 3), torch.full((4,), 1 / 4)


def entry(x: Tensor, value: float) -> Tensor:
    """A copy of x with another first entry."""
    x = x.clone()
    x.view(-1)[0] = value
    return x


@pytest.mark.parametrize(
    "cost, message",
    [
        (entry(COST, float("nan")), r"cost needs finite values, got 1 NaN or infinite of 12 \(shape \(3, 4\)\)"),
        (entry(COST, float("inf")), "cost needs finite values, got 1"),
        (entry(COST, -float("inf")), "cost needs finite values, got 1"),
        (COST.long(), "cost needs floating-point values, got torch.int64"),
        (COST.bool(), "cost needs floating-point values, got torch.bool"),
        (COST.to(torch.complex64), "cost needs floating-point values, got torch.complex64"),
        (COST[0], r"cost needs rows of shape \(n, d\), got shape \(4,\)"),
        (COST[:0], r"cost needs at least one row and one column, got shape \(0, 4\)"),
        (COST[:, :0], r"got shape \(3, 0\)"),
        (COST[None][:0], r"got shape \(0, 3, 4\)"),
    ],
)
def test_bad_costs_are_refused(cost, message):
    with pytest.raises(ValueError, match=message):
        plain(cost, epsilon=1.0)


@pytest.mark.parametrize(
    "a, b, message",
    [
        (entry(A, -0.1), None, "a needs masses of at least 0 .* got a smallest mass of -0.1"),
        (None, entry(B, -0.1), "b needs masses of at least 0 .* got a smallest mass of -0.1"),
        (0 * A, 0 * B, "a needs .* sum above 0, got .* sums from 0 to 0"),
        (None, torch.stack([B, 0 * B]), "b needs .* sum above 0, got .* sums from 0 to 1"),
        (entry(A, float("nan")), None, r"a needs finite values, got 1 NaN or infinite of 3"),
        (None, entry(B, float("inf")), r"b needs finite values, got 1 NaN or infinite of 4"),
        (entry(A, -0.1).requires_grad_(), None, "a needs masses of at least 0"),
        (2 * A.clone().requires_grad_(), None, "a and b need equal sums, got sums that differ by"),
        (None, torch.stack([B, 1.01 * B]), "a and b need equal sums"),
        (B, None, r"a needs 3 masses for a cost of shape \(3, 4\), got \(4,\)"),
        (None, A, r"b needs 4 masses for a cost of shape \(3, 4\), got \(3,\)"),
        (torch.tensor(1.0), None, r"a needs 3 masses .* got \(\)"),
        (torch.ones(3, dtype=torch.int64), None, "a needs floating-point values, got torch.int64"),
        (A.expand(2, 3), B.expand(5, 4), r"needs leading axes that broadcast, .* a \(2, 3\), b \(5, 4\)"),
        (A.to("meta"), None, "needs all tensors on one device, got cost on cpu, a on meta"),
        (None, B.to("meta"), "needs all tensors on one device, got cost on cpu, b on meta"),
    ],
)
def test_bad_masses_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        plain(COST, a, b, epsilon=1.0)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(epsilon=0.0), "epsilon needs a finite number above 0, got 0.0"),
        (dict(epsilon=-1), "epsilon .* got -1"),
        (dict(epsilon=float("nan")), "epsilon .* got nan"),
        (dict(epsilon=float("inf")), "epsilon .* got inf"),
        (dict(epsilon=True), "epsilon .* got True"),
        (dict(num_iters=0), "num_iters needs an integer of at least 1, got 0"),
        (dict(num_iters=True), "num_iters .* got True"),
        (dict(tol=0), "tol needs a finite number above 0, got 0"),
        (dict(tol=-1e-3), "tol .* got -0.001"),
        (dict(tol=float("nan")), "tol .* got nan"),
        (dict(tol_norm="l2"), "tol_norm needs one of l1, max, got 'l2'"),
        (dict(order="rows"), "order needs one of rows_first, columns_first, got 'rows'"),
        (dict(domain="exp"), "domain needs one of auto, scaling, log, got 'exp'"),
        (dict(gradient="exact"), "gradient needs one of envelope, implicit, unroll, got 'exact'"),
        (dict(stabilizer=-1e-8), "stabilizer needs .* got -1e-08"),
        (dict(stabilizer=float("nan")), "stabilizer needs .* got nan"),
        (dict(stabilizer=float("inf")), "stabilizer needs .* got inf"),
        (dict(stabilizer=1e-8, domain="log"), "stabilizer needs .* got 1e-08 in domain 'log'"),
        (dict(warm_start=(A, A)), r"warm_start needs potentials of shape \(4,\) .* got \(3,\)"),
        (dict(warm_start=(B, B), order="columns_first"), r"warm_start needs potentials of shape \(3,\) .* got \(4,\)"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plain(COST, **{"epsilon": 1.0, **options})


@pytest.mark.parametrize("share", [0, -0.1, float("nan"), float("inf"), True])
def test_bad_relative_epsilons_are_refused(share):
    with pytest.raises(ValueError, match=f"share needs a finite number above 0, got {share}"):
        Relative(share)


def test_masses_of_another_precision_are_taken():
    transport = sinkhorn(COST.double(), A, B.half(), epsilon=1.0)
    assert transport.plan.dtype == torch.float64


def test_marginal_error_counts_both_sides():
    plan = torch.tensor([[0.5, 0.0], [0.0, 0.5]])
    assert marginal_error(plan, torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5])) == 0
    assert marginal_error(plan, torch.tensor([0.3, 0.7]), torch.tensor([0.5, 0.5])) == pytest.approx(0.4)
    assert marginal_error(plan, torch.tensor([0.3, 0.7]), torch.tensor([0.6, 0.4])) == pytest.approx(0.6)
    assert marginal_error(10 * plan, torch.tensor([3.0, 7.0]), torch.tensor([6.0, 4.0])) == pytest.approx(0.6)


@pytest.mark.parametrize("domain", ["auto", "scaling", "log"])
@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
@pytest.mark.parametrize("tol", [None, 1e-3])
def test_host_never_waits_where_looking_is_not_free(monkeypatch, count_operations, tol, gradient, domain):
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    cost = torch.rand(2, 5, 4, requires_grad=True)
    a, b = torch.full((5,), 1 / 5), torch.full((2, 4), 1 / 4)
    with count_operations() as operations:
        transport = sinkhorn(cost, a, b, epsilon=Relative(0.1), tol=tol, gradient=gradient, domain=domain)
        transport.value.sum().backward()
    assert operations.counts["_local_scalar_dense"] == operations.counts["nonzero"] == 0
    assert operations.counts["sum"] > 0


def test_looking_does_read_values(count_operations):
    with count_operations() as operations:
        sinkhorn(COST, epsilon=1.0, tol=1e-3)
    assert operations.counts["_local_scalar_dense"] > 0


@pytest.mark.parametrize("order", ["rows_first", "columns_first"])
def test_frozen_problems_are_those_that_stop_where_looking_is_free(monkeypatch, order):
    cost = torch.rand(3, 6, 5, dtype=torch.float64) * torch.tensor([0.1, 1.0, 3.0])[:, None, None]
    options = dict(epsilon=0.1, num_iters=40, tol=1e-4, order=order, domain="log")
    stopped = sinkhorn(cost, **options)
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    frozen = sinkhorn(cost, **options)
    torch.testing.assert_close(frozen.plan, stopped.plan, atol=0, rtol=0)
    assert frozen.num_iters.tolist() == stopped.num_iters.tolist()
    assert stopped.num_iters[0] < stopped.num_iters[2]


def test_a_nan_stays_a_nan_where_looking_is_not_free(monkeypatch):
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    transport = sinkhorn(entry(COST, float("nan")), epsilon=1.0, tol=1e-3)
    assert transport.value.isnan()
    assert not bool(transport.converged)


@pytest.mark.parametrize("solve", [sinkhorn, ipot, shared_sinkhorn], ids=lambda solve: solve.__name__)
def test_where_looking_is_not_free_the_status_tells_what_was_bad(monkeypatch, solve):
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    options = {} if solve is ipot else {"epsilon": 1.0}
    a, b = A.repeat(4, 1), B.repeat(4, 1)
    b[1] *= 2
    a[2, 0] = -1
    a[3, 0], b[3, 0] = float("nan"), 7
    assert solve(COST, a[:1], b[:1], **options).check().status.tolist() == [0]
    transport = solve(COST, a, b, **options)
    assert transport.status.tolist()[:2] == [0, 4]
    assert [status & 2 for status in transport.status.tolist()] == [0, 0, 2, 2]
    with pytest.raises(ValueError, match=r"masses need finite values of at least 0.*in problems \[2, 3\] of 4"):
        transport.check()
    nan = solve(entry(COST, float("nan")), a[:1], b[:1], **options)
    assert nan.status.tolist() == [1]
    with pytest.raises(ValueError, match="costs need finite values"):
        nan.check()


def test_check_raises_for_a_result_that_is_not_finite(problem):
    transport = sinkhorn(*problem(3, 4), epsilon=0.1)
    assert transport.check() is transport
    with pytest.raises(ValueError, match="needs a finite plan"):
        transport._replace(marginal_error=torch.tensor(float("nan"))).check()


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["envelope", "implicit", "unroll"])
def test_compiling_changes_no_number(gradient):
    # In a process of its own: the compiler cannot trace the run-time type checks that the tests switch on.
    program = f"""
        import torch
        from graphkd.ot import Relative, ipot, shared_sinkhorn, sinkhorn

        def solve(cost):
            transport = sinkhorn(cost, epsilon=Relative(0.5), num_iters=30, gradient={gradient!r})
            return transport.value, transport.plan, transport.marginal_error

        cost = torch.rand(5, 7, dtype=torch.float64, requires_grad=True)
        eager, compiled = solve(cost), torch.compile(solve, backend="aot_eager", fullgraph=True)(cost)
        torch.testing.assert_close(compiled, eager, atol=1e-9, rtol=1e-9)
        slopes = [torch.autograd.grad(outputs[0], cost)[0] for outputs in (compiled, eager)]
        torch.testing.assert_close(*slopes, atol=1e-9, rtol=1e-9)
        assert slopes[0].abs().sum() > 0
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
