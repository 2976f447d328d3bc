"""Sinkhorn's algorithm at the limits: tiny epsilon, low precision, degenerate problems, published stabilizers."""

from functools import partial

import pytest
import torch

from graphkd.ot import Relative, exact, fused_gromov, shared_sinkhorn, sinkhorn

DOMAINS = ("log", "scaling")
ORDERS = ("rows_first", "columns_first")

close = partial(torch.testing.assert_close, atol=1e-12, rtol=0)


@pytest.mark.parametrize("order", ORDERS)
def test_stabilizer_is_that_of_published_loops(problem, textbook, order):
    cost, a, b = problem(5, 8)
    for sweeps in (1, 4):
        plan = sinkhorn(cost, a, b, epsilon=0.05, num_iters=sweeps, order=order, stabilizer=1e-3).plan
        close(plan, textbook(cost, a, b, 0.05, sweeps, order, s=1e-3))


def test_warm_start_gives_published_loops_their_own_start(problem):
    # A common start is u = 1/n, whatever the masses; in our terms f = -epsilon log(n a).
    cost, a, b = problem(5, 8)
    kernel = (-cost / 0.05).exp()
    u = torch.full_like(a, 1 / 5)
    for _ in range(2):
        v = b / (kernel.T @ u + 1e-3)
        u = a / (kernel @ v + 1e-3)
    start = (-0.05 * (5 * a).log(), torch.zeros_like(b))
    options = dict(epsilon=0.05, num_iters=2, order="columns_first", stabilizer=1e-3)
    close(sinkhorn(cost, a, b, warm_start=start, **options).plan, u[:, None] * kernel * v)
    assert not torch.allclose(sinkhorn(cost, a, b, **options).plan, u[:, None] * kernel * v)


def test_stabilizer_loses_mass_and_logs_so_once(problem, caplog):
    cost, a, b = problem(5, 8)
    for _ in range(3):
        transport = sinkhorn(cost + 1, a, b, epsilon=0.05, stabilizer=1e-6)
    assert transport.plan.sum() < 0.9
    assert transport.marginal_error > 0.1
    assert not bool(transport.converged)
    (record,) = caplog.records
    assert "lost or gained more than 1 % of its mass" in record.message


@pytest.mark.parametrize(
    ("solve", "message"),
    [
        (lambda *x: sinkhorn(*x, epsilon=0.01, num_iters=3, tol=1e-9), "Sinkhorn's sweeps ended"),
        (lambda *x: shared_sinkhorn(*x, epsilon=0.01, num_iters=3, tol=1e-9), "Sinkhorn's sweeps ended"),
        (lambda *x: shared_sinkhorn(*x, epsilon=0.1, num_iters=3, stabilizer=0.1), "lost or gained more than 1 %"),
        (lambda *x: exact(*x, max_iters=1), "the network simplex ended"),
        (
            lambda *x: fused_gromov(
                *x[:1], x[0] @ x[0].T, x[0].T @ x[0], *x[1:], solver="mirror", num_iters=2, tol=1e-9
            ),
            "fused Gromov-Wasserstein's steps ended",
        ),
    ],
)
def test_what_did_not_converge_logs_so_once(problem, caplog, solve, message):
    for _ in range(2):
        assert not solve(*problem(7, 9)).converged.all()
    assert [message in record.message for record in caplog.records] == [True]


def test_a_plan_that_keeps_its_mass_logs_nothing(problem, caplog):
    sinkhorn(*problem(5, 8), epsilon=0.001, num_iters=1)
    assert not caplog.records


@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
@pytest.mark.parametrize("domain", ["auto", "log"])
def test_tiny_epsilon_is_safe_in_float32(problem, domain, gradient):
    cost, a, b = problem(40, 30, dtype=torch.float32)
    cost = (cost * 50 + 20).requires_grad_()
    transport = sinkhorn(cost, a, b, epsilon=0.1, num_iters=100, domain=domain, gradient=gradient)
    (derivative,) = torch.autograd.grad(transport.value, cost)
    assert torch.isfinite(derivative).all()
    assert transport.plan.sum().item() == pytest.approx(1, abs=1e-3)
    wanted = sinkhorn(cost.detach().double(), a.double(), b.double(), epsilon=0.1, num_iters=100, domain="log")
    # A float32 potential of size 70 has an error of 4e-6, and epsilon magnifies it tenfold.
    close(transport.plan.double(), wanted.plan, atol=1e-4)
    assert transport.value.item() == pytest.approx(wanted.value.item(), rel=1e-5)


def test_automatic_domain_is_as_exact_as_the_logarithmic_one_on_either_side_of_its_limit(problem):
    cost, a, b = problem(12, 9, dtype=torch.float32)
    for spread in (1, 35, 39.9, 41, 90, 300):
        automatic = sinkhorn(cost, a, b, epsilon=1 / spread, num_iters=20)
        log = sinkhorn(cost, a, b, epsilon=1 / spread, num_iters=20, domain="log")
        close(automatic.plan, log.plan, atol=1e-5)


@pytest.mark.parametrize("domain", DOMAINS)
def test_one_node_takes_all(domain):
    transport = sinkhorn(torch.tensor([[3.0]]), epsilon=0.1, domain=domain)
    assert transport.plan.item() == pytest.approx(1)
    assert transport.value.item() == pytest.approx(3)
    row = sinkhorn(torch.tensor([[3.0, 1.0]]), epsilon=Relative(0.1), domain=domain)
    close(row.plan, torch.tensor([[0.5, 0.5]]), atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.1, Relative(0.1)])
@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_identical_points_give_the_product_of_the_masses(problem, gradient, epsilon):
    _, a, b = problem(4, 5)
    cost = torch.full((4, 5), 2.0, dtype=a.dtype, requires_grad=True)
    transport = sinkhorn(cost, a, b, epsilon=epsilon, gradient=gradient)
    close(transport.plan, a[:, None] * b)
    assert transport.value.item() == pytest.approx(2)
    (derivative,) = torch.autograd.grad(transport.value, cost)
    close(derivative, a[:, None] * b)


def test_sums_are_compared_problem_by_problem():
    # What float32 loses of a sum of 1e6 is more than a sum of 1e-2, and no reason to refuse either.
    a = torch.tensor([[5e-3, 5e-3], [4e5, 6e5 + 1]])
    b = torch.tensor([[5e-3, 5e-3], [5e5, 5e5]])
    assert bool(sinkhorn(torch.rand(2, 2, 2), a, b, epsilon=1.0).converged.all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_to_float32(problem, dtype):
    cost, a, b = problem(4, 5, dtype=torch.float32)
    cost = cost.to(dtype).requires_grad_()
    transport = sinkhorn(cost, a, b, epsilon=0.1)
    wanted = sinkhorn(cost.detach().float(), a, b, epsilon=0.1)
    assert transport.plan.dtype == transport.value.dtype == transport.potentials[0].dtype == torch.float32
    close(transport.plan, wanted.plan, atol=0)
    transport.value.backward()
    assert cost.grad.dtype == dtype
    close(cost.grad, wanted.plan.to(dtype), atol=0)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_autocast_changes_nothing(problem, gradient, domain):
    cost, a, b = problem(4, 5, dtype=torch.float32)
    cost.requires_grad_()
    options = dict(epsilon=0.1, num_iters=5, domain=domain, gradient=gradient)
    wanted = sinkhorn(cost, a, b, **options)
    (slope,) = torch.autograd.grad(wanted.value, cost)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        transport = sinkhorn(cost, a, b, **options)
    (derivative,) = torch.autograd.grad(transport.value, cost)
    assert transport.plan.dtype == torch.float32
    close(transport.plan, wanted.plan, atol=0)
    close(transport.marginal_error, wanted.marginal_error, atol=0)
    close(derivative, slope, atol=0)
