"""Exact transport: plans, values and gradients of the network simplex, and proofs that a vertex is optimal."""

import inspect
from itertools import permutations

import numpy as np
import pytest
import torch

from graphkd.ot.exact import exact, linear_program, still_optimal


def test_value_is_that_of_the_best_permutation():
    for seed in range(5):
        cost = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        best = min(sum(float(cost[i, j]) for i, j in enumerate(order)) for order in permutations(range(5)))
        assert 5 * float(exact(cost).value) == pytest.approx(best)


def test_potentials_prove_the_plan(problem):
    cost, a, b = problem(7, 5, batch=(3,))
    transport = exact(cost, a, b)
    f, g = transport.potentials
    slack = cost - f.unsqueeze(-1) - g.unsqueeze(-2)
    assert slack.min() > -1e-12
    assert (slack * transport.plan).abs().max() < 1e-12
    torch.testing.assert_close(transport.value, (f * a).sum(-1) + (g * b).sum(-1))
    torch.testing.assert_close(transport.value, (transport.plan.detach() * cost).sum((-2, -1)))
    assert transport.converged.all()
    assert transport.marginal_error.max() < 1e-12


def test_gradients_are_central_differences(problem):
    inputs = problem(6, 5, batch=(2,))
    leaves = [x.clone().requires_grad_() for x in inputs]
    gradients = torch.autograd.grad(exact(*leaves).value.sum(), leaves)
    for place, gradient in enumerate(gradients):
        way = torch.randn(inputs[place].shape, generator=torch.Generator().manual_seed(place), dtype=torch.float64)
        way = way if place == 0 else way - way.mean(-1, keepdim=True)
        ends = [[x + sign * 1e-6 * way if k == place else x for k, x in enumerate(inputs)] for sign in (1, -1)]
        wanted = (exact(*ends[0]).value - exact(*ends[1]).value).sum() / 2e-6
        assert float((gradient * way).sum()) == pytest.approx(float(wanted), abs=1e-7)


def test_batch_equals_loop(problem):
    cost, a, b = problem(6, 5, batch=(2, 2))
    together = exact(cost, a, b[0, 0])
    for i in range(2):
        for j in range(2):
            alone = exact(cost[i, j], a[i, j], b[0, 0])
            torch.testing.assert_close(together.plan[i, j].detach(), alone.plan, atol=0, rtol=0)
            assert together.value[i, j] == alone.value


@pytest.mark.parametrize("scale", [1e-14, 1e12])
def test_any_scale_of_costs_and_masses_is_solved(problem, scale):
    cost, a, b = problem(8, 6)
    plain, scaled = exact(cost, a, b), exact(scale * cost, 7 * a, 7 * b)
    torch.testing.assert_close(scaled.plan, 7 * plain.plan)
    torch.testing.assert_close(scaled.value, 7 * scale * plain.value)


def test_nodes_without_mass_have_the_slope_of_giving_them_some(problem):
    cost, a, b = problem(6, 5)
    a[1], b[3] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    leaves = [x.requires_grad_() for x in (cost, a, b)]
    transport = exact(*leaves)
    of_cost, of_a, of_b = torch.autograd.grad(transport.value, leaves)
    assert of_cost[1].abs().sum() == of_cost[:, 3].abs().sum() == 0
    step = 1e-6
    # Mass goes from the first node to the one that had none.
    for place, node, slope in ((1, 1, of_a), (2, 3, of_b)):
        moved = [x.detach().clone() for x in leaves]
        moved[place][node] += step
        moved[place][0] -= step
        gain = (exact(*moved).value - transport.value.detach()) / step
        assert float(slope[node] - slope[0]) == pytest.approx(float(gain), abs=1e-6)


def test_too_few_pivots_are_told(problem):
    cost, a, b = problem(30, 30)
    assert not bool(exact(cost, a, b, max_iters=2).converged)
    assert bool(exact(cost, a, b).converged)


def test_half_precision_is_raised_and_float32_is_kept(problem):
    cost, a, b = problem(6, 5)
    wanted = exact(cost, a, b).value
    assert exact(cost.half(), a, b).value.dtype == torch.float32
    assert float(exact(cost.float(), a.float(), b.float()).value) == pytest.approx(float(wanted), rel=1e-5)


def test_bad_input_is_refused(problem):
    plain = inspect.unwrap(exact)
    cost, a, b = problem(4, 3)
    for bad, message in (
        ((torch.full_like(cost, torch.nan), a, b), "cost needs finite values"),
        ((cost, -a, b), "a needs masses of at least 0"),
        ((cost, a, 2 * b), "equal sums"),
        ((cost, b, a), "a needs 4 masses"),
    ):
        with pytest.raises(ValueError, match=message):
            plain(*bad)
    with pytest.raises(ValueError, match="max_iters needs an integer of at least 1, got 0"):
        plain(cost, a, b, max_iters=0)


def test_reading_the_plan_in_a_loss_is_refused(problem):
    cost, a, b = problem(4, 3)
    with pytest.raises(ValueError, match="this plan has no gradient"):
        exact(cost.requires_grad_(), a, b).plan.sum().backward()


def test_a_vertex_is_proved_where_it_is_optimal_and_only_there():
    generator = np.random.default_rng(0)
    proved = refused = 0
    for trial in range(300):
        n, m = generator.integers(1, 9, 2)
        cost, other = generator.normal(size=(2, n, m)).round(1 + trial % 2)
        a, b = generator.random(n) * (generator.random(n) > 0.2), generator.random(m) * (generator.random(m) > 0.2)
        a[0], b[0] = a[0] + 0.1, b[0] + 0.1
        a, b = a / a.sum(), b / b.sum()
        before, after = linear_program(cost, a, b), cost + generator.choice([0.01, 0.1]) * other
        best, proof = linear_program(after, a, b), still_optimal(before, after, a, b, 1e-9)
        if proof is None:
            refused += (before.plan * after).sum() > best.value + 1e-9
            continue
        proved += 1
        assert proof.value == pytest.approx(best.value, abs=1e-8)
        assert (after - proof.f[:, None] - proof.g).min() > -1e-8
        assert proof.f @ a + proof.g @ b == pytest.approx(best.value, abs=1e-8)
    assert proved > 100
    assert refused > 20
