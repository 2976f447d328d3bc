"""Gradients of Sinkhorn's algorithm: against central differences, autograd's own check, and each other."""

import pytest
import torch
from torch import Tensor

from graphkd.ot import Relative, sinkhorn

DOMAINS = ("log", "scaling")
ORDERS = ("rows_first", "columns_first")


def slope(function, x: Tensor, direction: Tensor, step: float = 1e-5) -> float:
    """Central difference."""
    return float(function(x + step * direction) - function(x - step * direction)) / (2 * step)


def centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("order", ORDERS)
def test_envelope_is_the_derivative_of_the_value_at_convergence(problem, order, domain):
    cost, a, b = problem(5, 7)
    a, b = 4 * a, 4 * b

    def value(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return sinkhorn(cost, a, b, epsilon=0.2, num_iters=60, order=order, domain=domain).value

    leaves = [x.clone().requires_grad_() for x in (cost, a, b)]
    gradients = torch.autograd.grad(value(*leaves), leaves)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        way = torch.randn(cost.shape, generator=generator, dtype=cost.dtype)
        # Masses move along directions that keep their sum.
        way_a = centred(torch.randn(a.shape, generator=generator, dtype=a.dtype))
        way_b = centred(torch.randn(b.shape, generator=generator, dtype=b.dtype))
        wanted = [
            slope(lambda x: value(x, a, b), cost, way),
            slope(lambda x: value(cost, x, b), a, way_a),
            slope(lambda x: value(cost, a, x), b, way_b),
        ]
        got = [float((g * w).sum()) for g, w in zip(gradients, (way, way_a, way_b), strict=True)]
        assert got == pytest.approx(wanted, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("order", ORDERS)
def test_envelope_equals_unroll_at_convergence(problem, order):
    results = []
    for gradient in ("envelope", "unroll"):
        leaves = [x.requires_grad_() for x in problem(5, 7, batch=(2,))]
        transport = sinkhorn(*leaves, epsilon=0.2, num_iters=60, order=order, gradient=gradient)
        scale = torch.tensor([1.0, -3.0], dtype=torch.float64)
        results.append(torch.autograd.grad((scale * transport.value).sum(), leaves))
    envelope, unroll = results
    torch.testing.assert_close(envelope[0], unroll[0], atol=1e-10, rtol=0)
    for left, right in zip(envelope[1:], unroll[1:], strict=True):
        torch.testing.assert_close(left, centred(right), atol=1e-10, rtol=0)


def test_envelope_of_a_cost_is_its_plan(problem):
    cost, a, b = problem(5, 7)
    cost.requires_grad_()
    transport = sinkhorn(cost, a, b, epsilon=0.1, num_iters=3)
    (gradient,) = torch.autograd.grad(transport.value, cost)
    torch.testing.assert_close(gradient, transport.plan.detach(), atol=0, rtol=0)


def test_shared_cost_and_masses_collect_the_gradients_of_all_problems(problem):
    cost, a, b = problem(4, 5, batch=(3,))
    leaves = [x.requires_grad_() for x in (cost[0].clone(), a, b[0].clone())]
    gradients = torch.autograd.grad(sinkhorn(*leaves, epsilon=0.2, num_iters=60).value.sum(), leaves)
    singles = []
    for i in range(3):
        parts = [x.detach().requires_grad_() for x in (cost[0], a[i], b[0])]
        singles.append(torch.autograd.grad(sinkhorn(*parts, epsilon=0.2, num_iters=60).value, parts))
    torch.testing.assert_close(gradients[0], sum(single[0] for single in singles))
    torch.testing.assert_close(gradients[1], torch.stack([single[1] for single in singles]))
    torch.testing.assert_close(gradients[2], sum(single[2] for single in singles))


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sweeps", [1, 3])
def test_unroll_is_the_derivative_of_the_sweeps_that_were_run(problem, sweeps, order, domain):
    def solve(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        transport = sinkhorn(cost, a, b, epsilon=0.2, num_iters=sweeps, order=order, domain=domain, gradient="unroll")
        return transport.value, transport.plan, *transport.potentials

    leaves = [x.requires_grad_() for x in problem(3, 4)]
    assert torch.autograd.gradcheck(solve, leaves)


def test_unroll_differentiates_a_stabilizer(problem):
    def solve(cost: Tensor) -> Tensor:
        return sinkhorn(cost, epsilon=0.2, num_iters=3, gradient="unroll", stabilizer=0.1).plan

    assert torch.autograd.gradcheck(solve, problem(3, 4)[0].requires_grad_())


def test_unroll_differentiates_batches_that_stop_at_different_sweeps(problem):
    cost = problem(3, 4, batch=(2,))[0] * torch.tensor([0.2, 3.0], dtype=torch.float64)[:, None, None]

    def solve(cost: Tensor) -> Tensor:
        return sinkhorn(cost, epsilon=0.2, tol=1e-3, gradient="unroll").plan

    sweeps = sinkhorn(cost, epsilon=0.2, tol=1e-3).num_iters
    assert sweeps[0] < sweeps[1] < 50
    assert torch.autograd.gradcheck(solve, cost.requires_grad_())


@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_relative_epsilon_is_a_constant_in_the_gradient(problem, gradient):
    cost, a, b = problem(4, 5)
    relative, absolute = cost.clone().requires_grad_(), cost.clone().requires_grad_()
    left = sinkhorn(relative, a, b, epsilon=Relative(0.3), gradient=gradient, num_iters=3)
    right = sinkhorn(absolute, a, b, epsilon=left.epsilon.item(), gradient=gradient, num_iters=3)
    assert not left.epsilon.requires_grad
    left.value.backward()
    right.value.backward()
    torch.testing.assert_close(relative.grad, absolute.grad, atol=1e-12, rtol=0)


@pytest.mark.parametrize("order", ORDERS)
def test_reading_the_plan_of_an_envelope_solve_in_a_loss_is_refused(problem, order):
    cost, a, b = problem(4, 5)
    cost.requires_grad_()
    transport = sinkhorn(cost, a, b, epsilon=0.1, order=order)
    with pytest.raises(ValueError, match="this plan has no gradient"):
        (transport.plan * cost).sum().backward()
    with pytest.raises(ValueError, match="gradient='implicit' or 'unroll'"):
        (transport.value + transport.plan.square().sum()).backward()


def test_a_detached_plan_of_an_envelope_solve_is_a_constant(problem):
    cost, a, b = problem(4, 5)
    cost.requires_grad_()
    transport = sinkhorn(cost, a, b, epsilon=0.1)
    (gradient,) = torch.autograd.grad((transport.plan.detach() * cost).sum(), cost)
    torch.testing.assert_close(gradient, transport.plan.detach())


def test_only_value_and_plan_of_an_envelope_solve_are_on_the_graph(problem):
    cost, a, b = problem(4, 5)
    transport = sinkhorn(cost.requires_grad_(), a, b, epsilon=0.1)
    assert transport.value.requires_grad
    for constant in (*transport.potentials, transport.marginal_error, transport.epsilon):
        assert not constant.requires_grad


@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_nothing_is_recorded_where_gradients_are_off(problem, gradient):
    cost, a, b = problem(4, 5)
    with torch.no_grad():
        transport = sinkhorn(cost.requires_grad_(), a, b, epsilon=0.1, gradient=gradient)
    assert not transport.value.requires_grad
    assert not transport.plan.requires_grad


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_nodes_without_mass_have_finite_gradients_and_leave_the_others_theirs(problem, gradient, order, domain):
    cost, a, b = problem(6, 5)
    a[2], b[4] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    keep_rows, keep_columns = [0, 1, 3, 4, 5], [0, 1, 2, 3]
    options = dict(epsilon=0.05, num_iters=30, order=order, domain=domain, gradient=gradient)
    leaves = [x.clone().requires_grad_() for x in (cost, a, b)]
    transport = sinkhorn(*leaves, **options)
    gradients = torch.autograd.grad(transport.value, leaves, retain_graph=True)
    parts = [x.clone().requires_grad_() for x in (cost[keep_rows][:, keep_columns], a[keep_rows], b[keep_columns])]
    wanted = torch.autograd.grad(sinkhorn(*parts, **options).value, parts)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    torch.testing.assert_close(gradients[0][keep_rows][:, keep_columns], wanted[0], atol=1e-10, rtol=0)
    assert gradients[0][2].abs().sum() == 0
    # Masses compare up to the constant that envelope takes out.
    torch.testing.assert_close(centred(gradients[1][keep_rows]), centred(wanted[1]), atol=1e-10, rtol=0)
    torch.testing.assert_close(centred(gradients[2][keep_columns]), centred(wanted[2]), atol=1e-10, rtol=0)
    if gradient == "unroll":
        for derivative in torch.autograd.grad(transport.plan.square().sum(), leaves):
            assert torch.isfinite(derivative).all()


def test_unroll_stays_finite_in_float32_where_the_plan_underflows(problem):
    cost = (problem(12, 9, dtype=torch.float32)[0] * 500).requires_grad_()
    transport = sinkhorn(cost, epsilon=1.0, num_iters=20, gradient="unroll")
    assert transport.plan.min() < 1e-30
    f, g = transport.potentials
    for output in (transport.value, transport.plan.square().sum(), f.sum(), g.square().sum()):
        (gradient,) = torch.autograd.grad(output, cost, retain_graph=True)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("domain", DOMAINS)
def test_unroll_differentiates_the_start(problem, assert_slopes, domain):
    def value(cost, a, b, g):
        start = torch.zeros_like(a), g
        options = {"num_iters": 2, "domain": domain, "gradient": "unroll", "warm_start": start}
        return sinkhorn(cost, a, b, epsilon=0.3, **options).value

    start = torch.rand(7, dtype=torch.float64)
    assert_slopes(value, (*problem(5, 7), start), masses=(1, 2, 3))


@pytest.mark.parametrize(("epsilon", "domain"), [(0.05, "auto"), (0.002, "auto"), (0.05, "log")])
@pytest.mark.parametrize(
    ("gradient", "matrices"), [("envelope", 1), ("implicit", 2), ("unroll", 2)], ids=lambda x: str(x)
)
def test_backward_keeps_few_matrices_and_for_unroll_two_vectors_a_sweep(problem, gradient, matrices, epsilon, domain):
    n, sweeps = 60, 40
    cost, a, b = (x.requires_grad_() for x in problem(n, n))
    kept: dict[int, int] = {}

    def keep(x):
        if x.untyped_storage().data_ptr() not in given:
            kept[x.untyped_storage().data_ptr()] = x.numel()
        return x

    given = {x.untyped_storage().data_ptr() for x in (cost, a, b)}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        transport = sinkhorn(cost, a, b, epsilon=epsilon, num_iters=sweeps, gradient=gradient, domain=domain)
        loss = transport.value if gradient == "envelope" else transport.plan.sin().sum()
    held = sum(kept.values()) + held_by_unroll(loss)
    vectors = 2 * (sweeps + 1) if gradient == "unroll" else 0
    # The reading of the plan keeps one matrix of its own.
    assert held <= matrices * n * n + (gradient != "envelope") * n * n + (vectors + 8) * n
    loss.backward()


def held_by_unroll(loss: Tensor) -> int:
    """Entries of the states and the kernel that the node of unrolled sweeps keeps outside of autograd's sight."""
    nodes, seen, total = [loss.grad_fn], set(), 0
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "run"):
            states = {
                id(x): x.size if hasattr(x, "dtype") and not isinstance(x, Tensor) else x.numel()
                for left, right, _ in node.run.history
                for x in (left, right)
            }
            kernel = getattr(node.domain, "kernel", None)
            total += sum(states.values()) + (0 if kernel is None else kernel.size)
        nodes += [parent for parent, _ in node.next_functions]
    return total
