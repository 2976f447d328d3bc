"""The Sinkhorn divergence: a distance between measures, whose gradients are those of its value."""

import inspect

import pytest
import torch

from graphkd.ot import Relative, sinkhorn, sinkhorn_divergence


def costs(x, y):
    return [torch.cdist(u, v).square() for u, v in ((x, y), (x, x), (y, y))]


@pytest.fixture
def points():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (6, 8)]


def test_is_the_cost_without_half_of_both_selves(problem, points):
    _, a, b = problem(6, 8)
    across, rows, columns = costs(*points)
    options = {"epsilon": 0.5, "num_iters": 500, "tol": 1e-12}
    expected = (
        sinkhorn(across, a, b, **options).value
        - sinkhorn(rows, a, a, **options).value / 2
        - sinkhorn(columns, b, b, **options).value / 2
    )
    got = sinkhorn_divergence(across, rows, columns, a, b, **options)
    torch.testing.assert_close(got.value, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(got.plan, sinkhorn(across, a, b, **options).plan)


@pytest.mark.parametrize("tau", [1, 0.8])
def test_is_zero_for_equal_measures_with_gradient_zero(problem, points, tau):
    x, _ = points
    _, a, _ = problem(6, 6)
    y = x.clone().requires_grad_()
    value = sinkhorn_divergence(*costs(y, x), a, a, epsilon=1.0, num_iters=2000, tol=1e-12, tau=tau).value
    assert abs(float(value.detach())) < 1e-9
    (gradient,) = torch.autograd.grad(value, y)
    assert float(gradient.abs().max()) < 1e-8


@pytest.mark.parametrize("tau", [1, 0.8])
@pytest.mark.parametrize("seed", range(5))
def test_is_positive_for_different_measures(problem, points, seed, tau):
    _, a, b = problem(6, 8, seed=seed)
    assert float(sinkhorn_divergence(*costs(*points), a, b, epsilon=0.3, num_iters=1000, tau=tau).value) > 1e-3


def test_large_epsilon_is_the_distance_of_the_means(points):
    x, y = points
    value = sinkhorn_divergence(*costs(x, y), epsilon=1e5).value
    assert float(value) == pytest.approx(float((x.mean(0) - y.mean(0)).square().sum()), rel=1e-3)


@pytest.mark.parametrize("tau", [1, 0.8])
def test_gradients_are_its_slopes(problem, points, assert_slopes, tau):
    _, a, b = problem(6, 8)

    def value(x, y, a, b):
        return sinkhorn_divergence(*costs(x, y), a, b, epsilon=4.0, num_iters=1000, tol=1e-13, tau=tau).value

    # Squared distances of a point to itself have slopes without noise only where they are written out.
    def costs(x, y):
        return [(u.unsqueeze(-2) - v).square().sum(-1) for u, v in ((x, y), (x, x), (y, y))]

    assert_slopes(value, (*points, a, b), masses=(2, 3))


def test_relaxed_masses_may_differ(problem, points):
    _, a, b = problem(6, 8)
    value = sinkhorn_divergence(*costs(*points), a, 3 * b, epsilon=0.5, num_iters=2000, tol=1e-12, tau=0.7).value
    assert value > 0
    with pytest.raises(ValueError, match="a and b need equal sums"):
        sinkhorn_divergence(*costs(*points), a, 3 * b, epsilon=0.5)


def test_batch_equals_loop(problem, points):
    _, a, b = problem(6, 8, batch=(3,))
    across, rows, columns = costs(*points)
    scales = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[:, None, None]
    together = sinkhorn_divergence(scales * across, scales * rows, scales * columns, a, b, epsilon=Relative(0.2))
    for k, scale in enumerate((1, 2, 3)):
        alone = sinkhorn_divergence(scale * across, scale * rows, scale * columns, a[k], b[k], epsilon=Relative(0.2))
        torch.testing.assert_close(together.value[k], alone.value)


def test_result_is_as_good_as_the_worst_of_three(points):
    transport = sinkhorn_divergence(*costs(*points), epsilon=0.01, num_iters=3)
    assert not transport.converged
    assert transport.marginal_error > 1e-6


def test_costs_of_wrong_shapes_are_refused(points):
    across, rows, columns = costs(*points)
    with pytest.raises(ValueError, match="needs 8 masses|needs 6 masses"):
        inspect.unwrap(sinkhorn_divergence)(across, columns, rows, epsilon=0.5)


@pytest.mark.parametrize("options", [{"epsilon": 0}, {"epsilon": 1.0, "tau": 1.5}, {"epsilon": 1.0, "num_iters": 0}])
def test_bad_options_are_refused(points, options):
    with pytest.raises(ValueError, match="needs"):
        sinkhorn_divergence(*costs(*points), **options)
