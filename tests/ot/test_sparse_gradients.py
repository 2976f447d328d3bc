"""Gradients of Sinkhorn on a list of pairs: against central differences, autograd's own check, the dense solver."""

from functools import partial

import pytest
import torch
from torch import Tensor

from graphkd import checks
from graphkd.ot import Relative, sinkhorn
from graphkd.ot.sparse import sparse_sinkhorn

TAUS = [(1, 1), (0.7, 1), (0.8, 0.3), (0, 1)]
PAIRS = torch.tensor([[0, 0, 1, 1, 2, 2, 3, 3, 3], [0, 2, 0, 1, 1, 2, 0, 2, 1]])
"""Four rows over three columns, without (0, 1), (1, 2) and (2, 0)."""

close = partial(torch.testing.assert_close, atol=1e-10, rtol=0)


def every_pair(n: int, m: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(n), torch.arange(m)).T


def slope(function, x: Tensor, direction: Tensor, step: float = 1e-5) -> float:
    """Central difference."""
    return float(function(x + step * direction) - function(x - step * direction)) / (2 * step)


def centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


@pytest.fixture
def leaves(problem) -> list[Tensor]:
    cost, a, b = problem(4, 3)
    return [x.requires_grad_() for x in (cost[PAIRS[0], PAIRS[1]], a, b)]


@pytest.mark.parametrize("tau_a, tau_b", TAUS)
@pytest.mark.parametrize(
    "gradient, sweeps, looking", [("envelope", 80, True), ("envelope", 80, False), ("unroll", 3, True)]
)
def test_slopes_of_the_value_are_central_differences(leaves, monkeypatch, gradient, sweeps, tau_a, tau_b, looking):
    if not looking:
        monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    cost, a, b = (x.detach() for x in leaves)
    options = dict(epsilon=0.2, num_iters=sweeps, tau_a=tau_a, tau_b=tau_b, gradient=gradient)

    def value(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return sparse_sinkhorn(PAIRS, cost, a, b, **options).value

    gradients = torch.autograd.grad(value(*leaves), leaves)
    generator = torch.Generator().manual_seed(1)
    ways = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in leaves]
    if tau_a == tau_b == 1:
        # Masses that are kept move along directions that keep their sum.
        ways = [ways[0], centred(ways[1]), centred(ways[2])]
    with torch.no_grad():
        wanted = [
            slope(lambda x: value(x, a, b), cost, ways[0]),
            slope(lambda x: value(cost, x, b), a, ways[1]),
            slope(lambda x: value(cost, a, x), b, ways[2]),
        ]
    got = [float((gradient * way).sum()) for gradient, way in zip(gradients, ways, strict=True)]
    assert got == pytest.approx(wanted, rel=1e-6, abs=1e-8)
    assert min(map(abs, wanted)) > 1e-3


@pytest.mark.parametrize("tau_a, tau_b", [(1, 1), (0.8, 0.3)])
def test_unroll_is_the_derivative_of_plan_and_potentials(leaves, tau_a, tau_b):
    def solve(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        transport = sparse_sinkhorn(
            PAIRS, cost, a, b, epsilon=0.2, num_iters=2, tau_a=tau_a, tau_b=tau_b, gradient="unroll"
        )
        return transport.plan.values(), *transport.potentials

    # The check moves one mass at a time, by less than sums may differ.
    assert torch.autograd.gradcheck(solve, leaves)


@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
@pytest.mark.parametrize("tau_a, tau_b", TAUS)
def test_on_all_pairs_gradients_are_those_of_the_dense_solver(problem, gradient, tau_a, tau_b):
    options = dict(epsilon=0.1, num_iters=20, tau_a=tau_a, tau_b=tau_b, gradient=gradient)
    results = []
    for sparse in (False, True):
        inputs = [x.requires_grad_() for x in problem(5, 7)]
        cost, a, b = inputs
        if sparse:
            transport = sparse_sinkhorn(every_pair(5, 7), cost.flatten(), a, b, **options)
            plan = transport.plan.values().reshape(5, 7)
        else:
            transport = sinkhorn(cost, a, b, domain="log", **options)
            plan = transport.plan
        loss = 3 * transport.value
        if gradient == "unroll":
            weight = torch.linspace(-1, 2, 35, dtype=cost.dtype).reshape(5, 7)
            f, g = transport.potentials
            loss = loss + (weight * plan).sum() + f.square().sum() - g.square().sum()
        results.append(torch.autograd.grad(loss, inputs))
    close(results[0], results[1])


def test_gradients_reach_features_through_the_plan_as_a_matrix(leaves):
    cost, a, b = leaves
    features = torch.rand(3, 2, dtype=cost.dtype)

    def loss(cost: Tensor) -> Tensor:
        plan = sparse_sinkhorn(PAIRS, cost, a, b, epsilon=0.2, num_iters=3, gradient="unroll").plan
        return torch.sparse.mm(plan, features).square().sum()

    (gradient,) = torch.autograd.grad(loss(cost), cost)
    way = torch.linspace(-1, 1, 9, dtype=cost.dtype)
    with torch.no_grad():
        assert float((gradient * way).sum()) == pytest.approx(slope(loss, cost, way), rel=1e-6)


def test_order_of_pairs_orders_the_gradient(leaves):
    cost, a, b = leaves
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    for gradient in ("envelope", "unroll"):
        options = dict(epsilon=0.1, num_iters=5, gradient=gradient)
        values = (
            sparse_sinkhorn(PAIRS, cost, a, b, **options).value,
            sparse_sinkhorn(PAIRS[:, order], cost[order], a, b, **options).value,
        )
        close(*(torch.autograd.grad(value, cost)[0] for value in values))


def test_envelope_of_a_cost_is_its_plan(leaves):
    cost, a, b = leaves
    transport = sparse_sinkhorn(PAIRS, cost, a, b, epsilon=0.1, num_iters=3)
    (gradient,) = torch.autograd.grad(transport.value, cost)
    close(gradient, transport.plan.detach().to_dense()[PAIRS[0], PAIRS[1]], atol=0)


def test_reading_the_plan_of_an_envelope_solve_in_a_loss_is_refused(leaves):
    cost, a, b = leaves
    transport = sparse_sinkhorn(PAIRS, cost, a, b, epsilon=0.1)
    for loss in (
        transport.plan.to_dense().square().sum(),
        transport.plan.values().square().sum(),
        torch.sparse.mm(transport.plan, torch.rand(3, 2, dtype=cost.dtype)).sum(),
        transport.value + transport.plan.to_dense().square().sum(),
    ):
        with pytest.raises(ValueError, match="this plan has no gradient, .*: use gradient='unroll'"):
            loss.backward(retain_graph=True)


def test_a_detached_plan_of_an_envelope_solve_is_a_constant(leaves):
    cost, a, b = leaves
    plan = sparse_sinkhorn(PAIRS, cost, a, b, epsilon=0.1).plan.detach()
    values = plan.to_dense()[PAIRS[0], PAIRS[1]]
    (gradient,) = torch.autograd.grad((values * cost).sum(), cost)
    close(gradient, values, atol=0)


def test_only_value_and_plan_of_an_envelope_solve_are_on_the_graph(leaves):
    transport = sparse_sinkhorn(PAIRS, *leaves, epsilon=Relative(0.3))
    assert transport.value.requires_grad
    for constant in (*transport.potentials, transport.marginal_error, transport.epsilon, transport.carried):
        assert not constant.requires_grad


@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_relative_epsilon_is_a_constant_in_the_gradient(leaves, gradient):
    cost, a, b = leaves
    left = sparse_sinkhorn(PAIRS, cost, a, b, epsilon=Relative(0.3), gradient=gradient, num_iters=5)
    right = sparse_sinkhorn(PAIRS, cost, a, b, epsilon=left.epsilon.item(), gradient=gradient, num_iters=5)
    close(torch.autograd.grad(left.value, cost), torch.autograd.grad(right.value, cost))


@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
def test_nothing_is_recorded_where_gradients_are_off(leaves, gradient):
    with torch.no_grad():
        transport = sparse_sinkhorn(PAIRS, *leaves, epsilon=0.1, gradient=gradient)
    assert not transport.value.requires_grad
    assert not transport.plan.requires_grad


@pytest.mark.parametrize("gradient", ["envelope", "unroll"])
@pytest.mark.parametrize("tau", [1, 0.7])
def test_nodes_without_mass_have_finite_gradients_and_leave_the_others_theirs(problem, gradient, tau):
    cost, a, b = problem(6, 5)
    a[2], b[4] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    cost[2] -= 3  # nearer than all others
    cost[2, 4] = -100  # neither has mass
    rows, columns = [0, 1, 3, 4, 5], [0, 1, 2, 3]
    options = dict(epsilon=0.05, num_iters=30, gradient=gradient, tau_b=tau)
    # The last row has neither mass nor candidates.
    whole = [x.clone().requires_grad_() for x in (cost, torch.cat([a, a.new_zeros(1)]), b)]
    transport = sparse_sinkhorn(every_pair(6, 5), whole[0].flatten(), *whole[1:], **options)
    gradients = torch.autograd.grad(transport.value, whole, retain_graph=True)
    parts = [x.clone().requires_grad_() for x in (cost[rows][:, columns], a[rows], b[columns])]
    wanted = torch.autograd.grad(
        sparse_sinkhorn(every_pair(5, 4), parts[0].flatten(), *parts[1:], **options).value, parts
    )
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    close(gradients[0][rows][:, columns], wanted[0])
    assert gradients[0][2].abs().sum() == 0
    # With masses kept, envelope takes a constant out of each side.
    same = centred if tau == 1 else (lambda x: x)
    close(same(gradients[1][rows]), same(wanted[1]))
    close(same(gradients[2][columns]), same(wanted[2]))
    if gradient == "unroll":
        loss = transport.plan.to_dense().square().sum() + transport.potentials[0].sum()
        for derivative in torch.autograd.grad(loss, whole):
            assert torch.isfinite(derivative).all()


def test_unroll_stays_finite_in_float32_where_the_plan_underflows(problem):
    cost = (problem(12, 9, dtype=torch.float32)[0].flatten() * 500).requires_grad_()
    a, b = torch.full((12,), 1 / 12), torch.full((9,), 1 / 9)
    transport = sparse_sinkhorn(every_pair(12, 9), cost, a, b, epsilon=1.0, num_iters=20, gradient="unroll")
    assert transport.plan.detach().to_dense().min() < 1e-30
    f, g = transport.potentials
    for output in (transport.value, transport.plan.to_dense().square().sum(), f.sum(), g.square().sum()):
        (gradient,) = torch.autograd.grad(output, cost, retain_graph=True)
        assert torch.isfinite(gradient).all()


def test_unroll_keeps_numbers_per_node_not_per_pair_of_every_sweep(problem):
    cost, a, b = problem(30, 20)
    cost = cost.flatten().requires_grad_()
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        x = x.values() if x.is_sparse else x
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // x.element_size()
        return x

    numbers = []
    for sweeps in (5, 25):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            sparse_sinkhorn(every_pair(30, 20), cost, a, b, epsilon=0.1, num_iters=sweeps, gradient="unroll")
        numbers.append(sum(kept.values()))
    assert numbers[0] > 600
    # 20 more sweeps: some vectors of 30 or 20 nodes each, not one of 600 pairs.
    assert numbers[1] - numbers[0] < 20 * 600 / 2
