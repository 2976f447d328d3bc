"""When Sinkhorn's algorithm stops, and where it starts."""

from functools import partial

import pytest
import torch
from torch import Tensor

from graphkd.ot import sinkhorn

DOMAINS = ("log", "scaling")
ORDERS = ("rows_first", "columns_first")

close = partial(torch.testing.assert_close, atol=1e-12, rtol=0)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("norm", ["l1", "max"])
@pytest.mark.parametrize("mass", [1.0, 50.0])
def test_tolerance_stops_at_the_first_sweep_whose_second_half_has_little_to_do(problem, textbook, mass, norm, domain):
    cost, a, b = problem(6, 9, batch=(2,))
    cost[1] *= 3
    a, b = mass * a, mass * b
    kernel = (-cost / 0.1).exp()
    wanted = []
    for i in range(2):
        v, sweeps = b[i], 0
        while True:
            u, sweeps = a[i] / (kernel[i] @ v), sweeps + 1
            gap = (v * (kernel[i].T @ u) - b[i]).abs()
            v = b[i] / (kernel[i].T @ u)
            if (gap.max() if norm == "max" else gap.sum() / mass) <= 1e-5:
                break
        wanted.append(sweeps)
    transport = sinkhorn(cost, a, b, epsilon=0.1, num_iters=1000, tol=1e-5, tol_norm=norm, domain=domain)
    assert transport.num_iters.tolist() == wanted
    assert 1 < wanted[0] < wanted[1] < 1000
    close(transport.plan[1], textbook(cost[1], a[1], b[1], 0.1, wanted[1], "rows_first"), atol=1e-10 * mass)


def test_tolerance_that_is_not_met_runs_all_sweeps_and_says_so(problem):
    cost, a, b = problem(6, 9)
    transport = sinkhorn(cost, a, b, epsilon=0.005, num_iters=4, tol=1e-6)
    assert transport.num_iters == 4
    assert not bool(transport.converged)


def test_tolerance_is_met_for_any_number_of_nodes(problem):
    for n in (8, 64, 256):
        cost, a, b = problem(n, n)
        transport = sinkhorn(cost, a, b, epsilon=0.1, num_iters=200, tol=1e-4)
        assert bool(transport.converged)
        assert transport.marginal_error < 2e-4
        assert transport.num_iters > 1


def near_node_without_mass() -> tuple[Tensor, Tensor, Tensor]:
    """A massless column 200 epsilon of 0.005 nearer to all rows than the others are."""
    cost = 1 + 0.2 * torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    cost[:, 0] = 0
    return cost, torch.full((6,), 1 / 6), torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])


def test_tolerance_looks_past_a_node_without_mass_that_is_near_all_others():
    # Its potential moves so far in the first sweep that the ratio of old and new overflows in float32.
    cost, a, b = near_node_without_mass()
    rows_first = sinkhorn(cost, a, b, epsilon=0.005, num_iters=500, tol=1e-4)
    columns_first = sinkhorn(cost.T, b, a, epsilon=0.005, num_iters=500, tol=1e-4, order="columns_first")
    for transport in (rows_first, columns_first):
        assert bool(transport.converged)
        assert transport.num_iters > 1


@pytest.mark.parametrize("sweeps", [1, 3])
def test_a_node_without_mass_takes_no_digits_from_the_others(sweeps):
    cost, a, b = near_node_without_mass()
    whole = sinkhorn(cost, a, b, epsilon=0.005, num_iters=sweeps)
    part = sinkhorn(cost[:, 1:], a, b[1:], epsilon=0.005, num_iters=sweeps)
    # float32 potentials of size 1, magnified by 1 / epsilon.
    close(whole.plan[:, 1:], part.plan, atol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("domain", DOMAINS)
def test_warm_start_from_the_solution_is_done_in_one_sweep(problem, domain, order):
    cost, a, b = problem(6, 5)
    options = dict(epsilon=0.1, order=order, domain=domain)
    solved = sinkhorn(cost, a, b, num_iters=300, **options)
    again = sinkhorn(cost, a, b, num_iters=50, tol=1e-9, warm_start=solved.potentials, **options)
    assert again.num_iters == 1
    close(again.plan, solved.plan, atol=1e-10)
    assert sinkhorn(cost, a, b, num_iters=50, tol=1e-9, **options).num_iters > 10


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("domain", DOMAINS)
def test_warm_start_continues_where_a_solve_ended_and_reads_one_side_only(problem, domain, order):
    cost, a, b = problem(6, 5)
    options = dict(epsilon=0.05, order=order, domain=domain)
    f, g = sinkhorn(cost, a, b, num_iters=3, **options).potentials
    nothing = torch.full_like(f if order == "rows_first" else g, torch.nan)
    start = (nothing, g) if order == "rows_first" else (f, nothing)
    continued = sinkhorn(cost, a, b, num_iters=4, warm_start=start, **options)
    close(continued.plan, sinkhorn(cost, a, b, num_iters=7, **options).plan)


@pytest.mark.parametrize("domain", DOMAINS)
def test_warm_start_survives_a_large_constant_in_the_cost(problem, domain):
    cost, a, b = problem(6, 5)
    cost = cost + 1000
    potentials = sinkhorn(cost, a, b, epsilon=0.1, order="columns_first").potentials
    warm = sinkhorn(cost, a, b, epsilon=0.1, num_iters=20, warm_start=potentials, domain=domain)
    close(warm.plan, sinkhorn(cost, a, b, epsilon=0.1).plan, atol=1e-9)
