"""Masses that are not kept: what is minimised, its gradients, and both ends of tau."""

import ot
import pytest
import torch

from graphkd.ot import sinkhorn

TAUS = [(1, 0.7), (0.7, 1), (0.6, 0.8), (1, 0), (0, 0.5), (0, 0)]
EPSILON = 0.3


def divergence(x, y):
    return float(torch.special.xlogy(x, x / y).sum() - x.sum() + y.sum())


def objective(plan, cost, a, b, epsilon, tau_a, tau_b):
    """What is minimised, written out; infinite weights, of masses that are kept, are left out."""
    value = float((plan * cost).sum()) + epsilon * divergence(plan, a.unsqueeze(-1) * b)
    for tau, sums, masses in ((tau_a, plan.sum(-1), a), (tau_b, plan.sum(-2), b)):
        if tau < 1:
            value += epsilon * tau / (1 - tau) * divergence(sums, masses)
    return value


@pytest.mark.parametrize("domain", ["log", "scaling"])
@pytest.mark.parametrize("order", ["rows_first", "columns_first"])
@pytest.mark.parametrize("taus", TAUS)
def test_value_is_the_objective_and_no_plan_near_by_is_better(problem, taus, order, domain):
    cost, a, b = problem(5, 7)
    a, b = 2 * a, 3 * b
    if 1 in taus:
        b = b * a.sum() / b.sum()
    tau_a, tau_b = taus
    transport = sinkhorn(
        cost, a, b, epsilon=EPSILON, num_iters=400, tau_a=tau_a, tau_b=tau_b, order=order, domain=domain
    )
    at_plan = objective(transport.plan, cost, a, b, EPSILON, *taus)
    assert float(transport.value) == pytest.approx(at_plan, abs=1e-9)
    assert transport.converged
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        way = torch.randn(5, 7, generator=generator, dtype=cost.dtype)
        # Sums of a side that is kept stay as they are.
        if tau_a == 1:
            way = way - way.mean(-1, keepdim=True)
        if tau_b == 1:
            way = way - way.mean(-2, keepdim=True)
        near = transport.plan + 0.1 * transport.plan.min() * way
        assert objective(near, cost, a, b, EPSILON, *taus) > at_plan - 1e-12


def test_plan_is_that_of_pot(problem):
    cost, a, b = problem(5, 7)
    expected = ot.unbalanced.sinkhorn_unbalanced(
        a, b, cost, reg=EPSILON, reg_m=(0.5, 2.0), reg_type="kl", c=a[:, None] * b, numItermax=5000, stopThr=1e-14
    )
    taus = {f"tau_{side}": rho / (rho + EPSILON) for side, rho in (("a", 0.5), ("b", 2.0))}
    transport = sinkhorn(cost, a, b, epsilon=EPSILON, num_iters=1000, **taus)
    torch.testing.assert_close(transport.plan, expected, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("domain", ["log", "scaling"])
@pytest.mark.parametrize("gradient", ["envelope", "implicit", "unroll"])
@pytest.mark.parametrize("taus", TAUS)
def test_gradients_are_the_values_slopes(problem, assert_slopes, taus, gradient, domain):
    options = {"tau_a": taus[0], "tau_b": taus[1], "domain": domain, "gradient": gradient}

    def value(cost, a, b):
        return sinkhorn(cost, a, b, epsilon=EPSILON, num_iters=200, **options).value

    assert_slopes(value, problem(5, 7), masses=(1, 2) if 1 in taus else ())


@pytest.mark.parametrize("gradient", ["implicit", "unroll"])
@pytest.mark.parametrize("taus", TAUS)
def test_gradients_of_a_loss_that_reads_the_plan_are_its_slopes(problem, assert_slopes, taus, gradient):
    target = problem(5, 7, seed=3)[0]

    def loss(cost, a, b):
        transport = sinkhorn(
            cost, a, b, epsilon=EPSILON, num_iters=200, tau_a=taus[0], tau_b=taus[1], gradient=gradient
        )
        return (transport.plan - target).square().sum()

    assert_slopes(loss, problem(5, 7), masses=(1, 2) if 1 in taus else ())


def test_free_columns_are_a_softmax_of_each_row(problem):
    cost, a, b = problem(5, 7)
    transport = sinkhorn(cost, a, b, epsilon=EPSILON, tau_b=0)
    expected = a.unsqueeze(-1) * (b.log() - cost / EPSILON).softmax(-1)
    torch.testing.assert_close(transport.plan, expected)
    torch.testing.assert_close(transport.value, -EPSILON * (a * (b * (-cost / EPSILON).exp()).sum(-1).log()).sum())


def test_almost_kept_masses_are_almost_those_of_kept_ones(problem):
    cost, a, b = problem(5, 7)
    kept = sinkhorn(cost, a, b, epsilon=EPSILON, num_iters=500)
    nearly = sinkhorn(cost, a, b, epsilon=EPSILON, num_iters=500, tau_a=1 - 1e-6, tau_b=1 - 1e-6)
    torch.testing.assert_close(nearly.plan, kept.plan, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("taus", [(0.9, 0.9), (1, 0.5)])
def test_small_epsilon_in_float32_is_close_to_float64(problem, taus):
    cost, a, b = problem(20, 30)
    options = {"epsilon": 0.002, "num_iters": 300, "tau_a": taus[0], "tau_b": taus[1]}
    wide = sinkhorn(cost, a, b, **options)
    narrow = sinkhorn(cost.float(), a.float(), b.float(), **options)
    assert float(narrow.value) == pytest.approx(float(wide.value), rel=1e-4)


@pytest.mark.parametrize("gradient", ["envelope", "implicit", "unroll"])
@pytest.mark.parametrize("domain", ["log", "scaling"])
def test_nodes_without_mass_change_nothing(problem, gradient, domain):
    cost, a, b = problem(5, 7)
    a[2], b[[0, 4]] = 0, 0
    rows, columns = a > 0, b > 0
    options = {"epsilon": EPSILON, "tau_a": 0.8, "tau_b": 0.6, "gradient": gradient, "domain": domain}
    leaves = [x.clone().requires_grad_() for x in (cost, a, b)]
    padded = sinkhorn(*leaves, **options)
    fewer = [x.clone().requires_grad_() for x in (cost[rows][:, columns], a[rows], b[columns])]
    alone = sinkhorn(*fewer, **options)
    torch.testing.assert_close(padded.value, alone.value)
    torch.testing.assert_close(padded.plan[rows][:, columns], alone.plan)
    got, wanted = torch.autograd.grad(padded.value, leaves), torch.autograd.grad(alone.value, fewer)
    torch.testing.assert_close(got[0][rows][:, columns], wanted[0])
    torch.testing.assert_close(got[1][rows], wanted[1])
    assert all(x.isfinite().all() for x in got)


def test_error_counts_only_masses_that_are_kept_and_how_far_the_sweeps_still_move(problem):
    cost, a, b = problem(5, 7)
    few = sinkhorn(cost, a, b, epsilon=0.05, num_iters=2, tau_a=0.9, tau_b=0.9)
    many = sinkhorn(cost, a, b, epsilon=0.05, num_iters=500, tau_a=0.9, tau_b=0.9)
    assert not few.converged
    assert few.marginal_error > 1e-3
    assert many.converged
    assert many.marginal_error < 1e-8
    assert abs(float(many.plan.sum(-1).sub(a).abs().sum())) > 1e-3


def test_tolerance_stops(problem):
    cost, a, b = problem(5, 7)
    transport = sinkhorn(cost, a, b, epsilon=EPSILON, num_iters=500, tau_a=0.9, tau_b=0.8, tol=1e-6)
    assert transport.num_iters < 100
    assert transport.converged


@pytest.mark.parametrize("tau", [-0.1, 1.1, float("nan"), True])
def test_tau_outside_its_range_is_refused(problem, tau):
    with pytest.raises(ValueError, match=r"tau_a needs a number in \[0, 1\]"):
        sinkhorn(*problem(3, 3), epsilon=0.1, tau_a=tau)
