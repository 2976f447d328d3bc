"""Values of Sinkhorn's algorithm: against POT, against the textbook's loop, one domain against the other."""

from functools import partial

import hypothesis.extra.numpy as hnp
import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphkd.ot import Relative, sinkhorn

DOMAINS = ("log", "scaling")
ORDERS = ("rows_first", "columns_first")

close = partial(torch.testing.assert_close, atol=1e-12, rtol=0)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("masses", ["uniform", "non-uniform"])
@pytest.mark.parametrize("n, m", [(7, 7), (5, 9)])
def test_plan_and_value_agree_with_pot_at_convergence(problem, n, m, masses, dtype, domain):
    cost, a, b = problem(n, m)
    if masses == "uniform":
        a, b = torch.full((n,), 1 / n, dtype=torch.float64), torch.full((m,), 1 / m, dtype=torch.float64)
    wanted = ot.bregman.sinkhorn_log(a.numpy(), b.numpy(), cost.numpy(), 0.05, numItermax=5000, stopThr=1e-13)
    wanted = torch.from_numpy(wanted)
    value = (wanted * cost).sum() + 0.05 * (wanted * (wanted / (a[:, None] * b)).log()).sum()

    given_masses = (None, None) if masses == "uniform" else (a.to(dtype), b.to(dtype))
    transport = sinkhorn(cost.to(dtype), *given_masses, epsilon=0.05, num_iters=1000, domain=domain)

    assert transport.plan.dtype == dtype
    # float32 potentials of size 1 carry an error of 1e-7, which epsilon magnifies twentyfold.
    atol = 1e-10 if dtype == torch.float64 else 2e-6
    close(transport.plan.double(), wanted, atol=atol)
    close(transport.value.double(), value, atol=atol)
    assert transport.marginal_error < atol * 10
    assert bool(transport.converged)


def test_plan_agrees_with_pot_in_the_scaling_domain(problem):
    cost, a, b = problem(6, 8)
    wanted = ot.sinkhorn(a.numpy(), b.numpy(), cost.numpy(), 0.1, method="sinkhorn", stopThr=1e-14)
    close(sinkhorn(cost, a, b, epsilon=0.1, num_iters=500).plan, torch.from_numpy(wanted), atol=1e-10)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("sweeps", [1, 2, 5])
def test_every_sweep_is_that_of_the_textbook(problem, textbook, order, domain, sweeps):
    cost, a, b = problem(5, 8)
    transport = sinkhorn(cost, a, b, epsilon=0.07, num_iters=sweeps, order=order, domain=domain)
    close(transport.plan, textbook(cost, a, b, 0.07, sweeps, order))
    assert transport.num_iters == sweeps


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("order", ORDERS)
def test_only_the_marginal_updated_last_is_exact(problem, order, domain):
    cost, a, b = problem(6, 4)
    plan = sinkhorn(cost, a, b, epsilon=0.02, num_iters=3, order=order, domain=domain).plan
    rows, columns = (plan.sum(-1) - a).abs().sum(), (plan.sum(-2) - b).abs().sum()
    exact, inexact = (columns, rows) if order == "rows_first" else (rows, columns)
    assert exact < 1e-12
    assert inexact > 1e-3


@pytest.mark.parametrize("order", ORDERS)
def test_potentials_rebuild_the_plan(problem, order):
    cost, a, b = problem(6, 4)
    transport = sinkhorn(cost, a, b, epsilon=0.1, num_iters=4, order=order)
    f, g = transport.potentials
    close(a[:, None] * b * ((f[:, None] + g - cost) / 0.1).exp(), transport.plan)
    close((f * a).sum() + (g * b).sum(), transport.value)


@pytest.mark.parametrize("order", ORDERS)
def test_marginal_error_sums_both_sides_as_a_share_of_the_mass(problem, order):
    cost, a, b = problem(6, 4)
    transport = sinkhorn(cost, 3 * a, 3 * b, epsilon=0.02, num_iters=2, order=order)
    plan = transport.plan
    wanted = ((plan.sum(-1) - 3 * a).abs().sum() + (plan.sum(-2) - 3 * b).abs().sum()) / 3
    close(transport.marginal_error, wanted)
    assert wanted > 1e-3
    assert not bool(transport.converged)


@pytest.mark.parametrize("order", ORDERS)
def test_domains_agree_after_the_same_number_of_sweeps(problem, order):
    cost, a, b = problem(5, 8, batch=(3,))
    results = []
    for domain in DOMAINS:
        leaves = [x.clone().requires_grad_() for x in (cost, a, b)]
        transport = sinkhorn(*leaves, epsilon=0.05, num_iters=3, order=order, domain=domain, gradient="unroll")
        weight = torch.linspace(-1, 2, 40, dtype=cost.dtype).reshape(5, 8)
        f, g = transport.potentials
        loss = transport.value.sum() + (weight * transport.plan).sum() + (f.square().sum() - g.square().sum())
        results.append((transport.plan, transport.value, f, g, *torch.autograd.grad(loss, leaves)))
    for log, scaling in zip(*results, strict=True):
        close(log, scaling, atol=1e-10)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("tol, tol_norm", [(None, "l1"), (1e-4, "l1"), (1e-4, "max")])
@pytest.mark.parametrize("epsilon", [0.03, Relative(0.1)])
def test_batch_equals_loop(problem, epsilon, tol, tol_norm, domain, order):
    cost, a, b = problem(6, 4, batch=(2, 2))
    # Some problems are easy, some hard, so that a tolerance freezes them at different sweeps.
    cost = cost * torch.tensor([[0.1, 0.5], [1.0, 1.5]], dtype=cost.dtype)[..., None, None]
    cost[..., 0] += torch.tensor([[0.0, 0.2], [0.5, 0.9]], dtype=cost.dtype)[..., None]
    cost.requires_grad_()
    options = dict(epsilon=epsilon, num_iters=60, tol=tol, tol_norm=tol_norm, domain=domain, order=order)
    options["gradient"] = "unroll"
    batched = sinkhorn(cost, a, b, **options)
    (gradient,) = torch.autograd.grad(batched.plan.square().sum() + batched.value.sum(), cost)
    for i in range(2):
        for j in range(2):
            leaf = cost[i, j].detach().requires_grad_()
            single = sinkhorn(leaf, a[i, j], b[i, j], **options)
            close(batched.plan[i, j], single.plan)
            close(batched.value[i, j], single.value)
            close(batched.potentials[0][i, j], single.potentials[0])
            close(batched.potentials[1][i, j], single.potentials[1])
            close(batched.marginal_error[i, j], single.marginal_error)
            assert batched.num_iters[i, j] == single.num_iters
            assert batched.converged[i, j] == single.converged
            (wanted,) = torch.autograd.grad(single.plan.square().sum() + single.value, leaf)
            close(gradient[i, j], wanted, atol=1e-10)
    if tol is not None:
        assert len(batched.num_iters.unique()) > 1


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("order", ORDERS)
def test_nodes_without_mass_change_nothing_for_the_others(problem, order, domain):
    cost, a, b = problem(6, 5)
    a[2], b[4] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    rows, columns = [0, 1, 3, 4, 5], [0, 1, 2, 3]
    options = dict(epsilon=0.05, num_iters=300, tol=1e-5, order=order, domain=domain)
    whole = sinkhorn(cost, a, b, **options)
    part = sinkhorn(cost[rows][:, columns], a[rows], b[columns], **options)
    close(whole.plan[rows][:, columns], part.plan)
    close(whole.value, part.value)
    assert whole.plan[2].abs().sum() == 0
    assert whole.plan[:, 4].abs().sum() == 0
    assert whole.num_iters == part.num_iters
    assert torch.isfinite(torch.cat(whole.potentials)).all()


def test_relative_epsilon_is_a_share_of_each_problems_own_spread(problem):
    cost, a, b = problem(6, 5, batch=(3,))
    cost = cost * torch.tensor([1.0, 10.0, 0.2], dtype=cost.dtype)[:, None, None] + 4
    transport = sinkhorn(cost, a, b, epsilon=Relative(0.2), num_iters=7)
    assert transport.epsilon.shape == (3, 1, 1)
    for i in range(3):
        resolved = 0.2 * float(cost[i].std(correction=0))
        assert float(transport.epsilon[i]) == pytest.approx(resolved, rel=1e-12)
        close(transport.plan[i], sinkhorn(cost[i], a[i], b[i], epsilon=resolved, num_iters=7).plan)


def test_plain_epsilon_is_in_the_result(problem):
    transport = sinkhorn(*problem(3, 4), epsilon=0.25)
    assert transport.epsilon.item() == 0.25


def test_masses_may_have_any_sum(problem):
    cost, a, b = problem(4, 5)
    one, many = sinkhorn(cost, a, b, epsilon=0.1), sinkhorn(cost, 100 * a, 100 * b, epsilon=0.1)
    close(many.plan, 100 * one.plan, atol=1e-10)
    # The reference measure a b^T has the mass 100^2, the plan 100: their divergence tells.
    close(many.value, 100 * (one.value - 0.1 * torch.tensor(100.0, dtype=cost.dtype).log()), atol=1e-10)
    close(many.marginal_error, one.marginal_error)


def test_leading_axes_broadcast(problem):
    cost, a, b = problem(4, 5, batch=(3,))
    shared = sinkhorn(cost[0], a, b, epsilon=0.1)
    single = sinkhorn(cost[0], a[2], b[2], epsilon=0.1)
    assert shared.plan.shape == (3, 4, 5)
    assert shared.value.shape == shared.converged.shape == shared.num_iters.shape == (3,)
    close(shared.plan[2], single.plan)
    one_mass = sinkhorn(cost, a[0], epsilon=0.1)
    close(one_mass.plan[1], sinkhorn(cost[1], a[0], epsilon=0.1).plan)


def positive(shape: int | tuple[int, int], low: float, high: float) -> st.SearchStrategy:
    return hnp.arrays(np.float64, shape, elements=st.floats(low, high, allow_subnormal=False))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    n, m = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    cost = torch.from_numpy(draw(positive((n, m), 0, 3)))
    a, b = torch.from_numpy(draw(positive(n, 0, 1))), torch.from_numpy(draw(positive(m, 0, 1)))
    # Zero masses are fine, but one node has to carry something.
    a[draw(st.integers(0, n - 1))] += 0.5
    b[draw(st.integers(0, m - 1))] += 0.5
    return cost, a / a.sum(), b / b.sum()


@settings(deadline=None, max_examples=80, database=None)
@given(
    problem=problems(),
    epsilon=st.floats(0.02, 5),
    order=st.sampled_from(ORDERS),
    domain=st.sampled_from(("auto", *DOMAINS)),
    shift=st.floats(-10, 10),
    seed=st.integers(0, 1000),
)
def test_plan_has_the_symmetries_of_the_problem(problem, epsilon, order, domain, shift, seed):
    cost, a, b = problem
    options = dict(epsilon=epsilon, num_iters=8, order=order, domain=domain)
    transport = sinkhorn(cost, a, b, **options)
    plan = transport.plan

    assert (plan >= 0).all()
    exact, mass = (plan.sum(-2), b) if order == "rows_first" else (plan.sum(-1), a)
    close(exact, mass, atol=1e-10)
    assert plan.sum().item() == pytest.approx(1, abs=1e-10)
    assert torch.isfinite(torch.cat(transport.potentials)).all()

    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randperm(size, generator=generator) for size in cost.shape)
    shuffled = sinkhorn(cost[rows][:, columns], a[rows], b[columns], **options)
    close(shuffled.plan, plan[rows][:, columns], atol=1e-9)
    close(shuffled.value, transport.value, atol=1e-9)

    other = "columns_first" if order == "rows_first" else "rows_first"
    close(sinkhorn(cost.T, b, a, **{**options, "order": other}).plan.T, plan, atol=1e-9)

    shifted = sinkhorn(cost + shift, a, b, **options)
    close(shifted.plan, plan, atol=1e-9)
    close(shifted.value, transport.value + shift, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_a_constant_cost_a_relative_epsilon_is_one_whatever_its_rounding(dtype):
    cost = torch.full((9, 7), 0.1, dtype=dtype)
    epsilon = Relative(0.5)
    assert float(epsilon.of(cost)) == 1.0
    cost[0, 0] += 1e-5
    assert float(epsilon.of(cost)) == pytest.approx(0.5 * float(cost.std(correction=0)))
