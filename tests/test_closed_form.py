"""Couplings in closed form: what each plan is, with its gradient, and what is refused."""

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd import couplings
from graphkd.closed_form import Affinity, Identity, Product, RowSoftmax
from graphkd.loss import GraphLoss
from graphkd.measures import correlation_distance, sqeuclidean
from graphkd.reductions import PlanGap, TransportCost


def problem(n: int = 4, m: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(n, m, generator=generator, dtype=torch.float64)
    a = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1
    b = torch.rand(m, generator=generator, dtype=torch.float64) + 0.1
    return cost, a / a.sum(), b / b.sum()


# Identity


def test_identity_moves_each_mass_to_its_own_partner():
    cost, a, _ = problem(4, 4)
    transport = Identity()(cost, None, a, a)
    assert torch.equal(transport.plan, torch.diag(a))
    torch.testing.assert_close(transport.value, (cost.diagonal() * a).sum())
    assert transport.paired
    assert transport.potentials is None
    assert transport.marginal_error == 0
    assert bool(transport.converged)
    assert transport.epsilon == 0


def test_identity_needs_no_cost():
    _, a, _ = problem(4, 4)
    assert Identity()(None, None, a, a).value is None


def test_identity_reports_masses_that_do_not_fit():
    _, a, b = problem(4, 4)
    transport = Identity()(None, None, a, b)
    torch.testing.assert_close(transport.marginal_error, (a - b).abs().sum())
    assert not bool(transport.converged)


@pytest.mark.parametrize(("n", "m"), [(4, 6), (6, 4)])
def test_identity_refuses_sets_of_two_sizes(n, m):
    cost, a, b = problem(n, m)
    with pytest.raises(ValueError, match=f"needs as many student as teacher nodes, got {n} and {m}"):
        Identity()(cost, None, a, b)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_identity_leaves_further_teacher_nodes_without_mass_alone(batch):
    cost, a, _ = problem(4, 6)
    a = a.expand(*batch, 4)
    b = torch.cat([a, torch.zeros(*batch, 2, dtype=a.dtype)], -1)
    transport = Identity()(cost, None, a, b)
    assert transport.plan.shape == (*batch, 4, 6)
    assert torch.equal(transport.plan[..., :4], torch.diag_embed(a))
    assert transport.plan[..., 4:].abs().sum() == 0
    torch.testing.assert_close(transport.value, (cost[:, :4].diagonal() * a).sum(-1))
    # Relations of four and of six nodes cannot be compared entry by entry.
    assert not transport.paired
    assert (transport.marginal_error == 0).all()
    assert transport.converged.all()


def test_identity_reports_where_further_nodes_come_with_other_masses():
    _, a, b = problem(4, 4)
    transport = Identity()(None, None, a, torch.cat([b, b.new_zeros(2)]))
    torch.testing.assert_close(transport.marginal_error, (a - b).abs().sum())


@pytest.mark.parametrize("place", [4, 5])
def test_identity_refuses_further_teacher_nodes_with_mass(place):
    _, a, _ = problem(4, 6)
    b = torch.cat([a, a.new_zeros(2)])
    b[place] = 1e-9
    with pytest.raises(ValueError, match="got 4 and 6; only teacher nodes without mass may come behind"):
        Identity()(None, None, a, b)
    # In one problem of a batch, too.
    batch = torch.stack([torch.cat([a, a.new_zeros(2)]), b])
    with pytest.raises(ValueError, match="got 4 and 6; only teacher nodes without mass may come behind"):
        Identity()(None, None, torch.stack([a, a]), batch)


def test_identity_refuses_batches_of_two_sizes():
    _, a, _ = problem(4, 4)
    with pytest.raises(ValueError, match="the identity coupling needs"):
        Identity()(None, None, a.expand(2, 4), a.expand(3, 4))


def test_identity_of_nodes_without_any_mass_is_empty_and_has_no_error():
    cost, a, _ = problem(4, 4)
    none = torch.zeros_like(a)
    transport = Identity()(cost, None, torch.stack([a, none]), torch.stack([a, none]))
    assert transport.marginal_error.tolist() == [0.0, 0.0]
    assert transport.converged.all()
    assert transport.plan[1].abs().sum() == transport.value[1] == 0


def test_identity_with_mass_on_the_teachers_side_only_has_not_converged():
    _, a, b = problem(4, 4)
    transport = Identity()(None, None, torch.zeros_like(a), b)
    assert transport.marginal_error > 0
    assert not transport.converged


# RowSoftmax


def test_row_softmax_equals_a_loop_in_plan_and_gradient():
    cost, a, b = problem()
    cost.requires_grad_()
    wanted = []
    for i in range(4):
        weight = [b[j] * (-cost[i, j] / 0.3).exp() for j in range(6)]
        wanted.append(torch.stack([a[i] * w / sum(weight) for w in weight]))
    wanted = torch.stack(wanted)
    transport = RowSoftmax(0.3)(cost, None, a, b)
    torch.testing.assert_close(transport.plan, wanted)
    torch.testing.assert_close(transport.plan.sum(-1), a)
    gradients = [torch.autograd.grad(plan.square().sum(), cost)[0] for plan in (transport.plan, wanted)]
    torch.testing.assert_close(*gradients)
    assert not transport.paired
    assert bool(transport.converged)


def test_row_softmax_is_what_its_potentials_say():
    cost, a, b = problem()
    transport = RowSoftmax(0.3)(cost, None, a, b)
    f, g = transport.potentials
    torch.testing.assert_close(a[:, None] * b * ((f[:, None] + g - cost) / 0.3).exp(), transport.plan)
    assert transport.epsilon.item() == pytest.approx(0.3)


def test_row_softmax_minimises_its_value():
    cost, a, b = problem()
    transport = RowSoftmax(0.3)(cost, None, a, b)

    def objective(plan: Tensor) -> Tensor:
        return (plan * cost).sum() + 0.3 * (plan * (plan / (a[:, None] * b)).log()).sum()

    torch.testing.assert_close(objective(transport.plan), transport.value)
    other = a[:, None] * (transport.plan + 0.01).softmax(-1)
    assert objective(other) > transport.value


@pytest.mark.parametrize("cost", [torch.tensor([[0.0, 10.0], [5.0, 10.0]]), torch.tensor([[900.0, 10.0], [5.0, 0.0]])])
def test_row_softmax_survives_a_node_without_mass_and_a_tiny_epsilon(cost):
    cost = cost.requires_grad_()
    transport = RowSoftmax(0.01)(cost, None, torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]))
    assert transport.plan.tolist() == [[0.0, 0.5], [0.0, 0.5]]
    (gradient,) = torch.autograd.grad(transport.plan.square().sum() + transport.value, cost)
    assert torch.isfinite(gradient).all()


def test_row_softmax_couples_batches_one_by_one():
    cost, a, b = problem()
    batched = RowSoftmax(0.3)(torch.stack([cost, cost + cost.square()]), None, a, b)
    torch.testing.assert_close(batched.plan[0], RowSoftmax(0.3)(cost, None, a, b).plan)
    assert batched.value.shape == batched.converged.shape == (2,)


# Product


def test_product_gives_every_pair_its_masses_multiplied():
    _, a, b = problem()
    transport = Product()(None, None, a, b)
    for i in range(4):
        for j in range(6):
            torch.testing.assert_close(transport.plan[i, j], a[i] * b[j])
    torch.testing.assert_close(transport.plan.sum(-1), a)
    torch.testing.assert_close(transport.plan.sum(-2), b)
    assert transport.value is None
    assert transport.potentials is None
    assert transport.marginal_error < 1e-12
    assert bool(transport.converged)
    assert transport.epsilon == 0
    assert not transport.paired


def test_the_value_of_the_product_is_the_mean_cost_and_its_gradient_the_plan():
    cost, a, b = problem()
    cost.requires_grad_()
    transport = Product()(cost, None, a, b)
    wanted = sum(a[i] * b[j] * cost[i, j] for i in range(4) for j in range(6))
    torch.testing.assert_close(transport.value, wanted)
    torch.testing.assert_close(torch.autograd.grad(transport.value, cost)[0], transport.plan)


def test_the_product_keeps_masses_that_do_not_sum_to_one():
    _, a, b = problem()
    transport = Product()(None, None, 3 * a, 3 * b)
    torch.testing.assert_close(transport.plan.sum(-1), 3 * a)
    torch.testing.assert_close(transport.plan.sum(-2), 3 * b)
    assert bool(transport.converged)


def test_the_product_of_unequal_sums_keeps_the_students_masses_and_says_so():
    _, a, b = problem()
    transport = Product()(None, None, a, 2 * b)
    torch.testing.assert_close(transport.plan.sum(-1), a)
    assert transport.marginal_error > 0.1
    assert not bool(transport.converged)


def test_the_product_couples_batches_one_by_one():
    cost, a, b = problem()
    other = a.flip(0)
    transport = Product()(torch.stack([cost, 2 * cost]), None, torch.stack([a, other]), torch.stack([b, b]))
    torch.testing.assert_close(transport.plan[1], Product()(None, None, other, b).plan)
    torch.testing.assert_close(transport.value[1], Product()(2 * cost, None, other, b).value)
    assert transport.value.shape == transport.converged.shape == (2,)


def test_the_product_ignores_the_pairing():
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    loss = GraphLoss(sqeuclidean, coupling=Product(), reduction=TransportCost())
    value = loss(Data(x=x), Data(x=y))
    torch.testing.assert_close(loss(Data(x=x), Data(x=y.flip(0))), value)
    torch.testing.assert_close(value, (x[:, None] - y).square().sum(-1).mean())


# Affinity


def test_affinity_is_one_minus_the_cost_times_the_students_masses_with_its_gradient():
    cost, a, b = problem()
    cost = (2 * cost).requires_grad_()
    transport = Affinity()(cost, None, a, b)
    wanted = torch.stack([torch.stack([a[i] * (1 - cost[i, j]) for j in range(6)]) for i in range(4)])
    torch.testing.assert_close(transport.plan, wanted)
    assert transport.plan.min() < 0
    gradients = [
        torch.autograd.grad(plan.square().sum(), cost, retain_graph=True)[0] for plan in (transport.plan, wanted)
    ]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(transport.value, (wanted * cost).sum())
    assert not transport.paired


def test_affinity_says_how_far_it_is_from_keeping_masses():
    cost, a, b = problem()
    transport = Affinity()(cost, None, a, b)
    plan = transport.plan
    wanted = (plan.sum(-1) - a).abs().sum() + (plan.sum(-2) - b).abs().sum()
    torch.testing.assert_close(transport.marginal_error, wanted)
    assert not bool(transport.converged)
    assert not transport.marginal_error.requires_grad
    assert bool(Affinity()(1 - torch.eye(3), None, torch.ones(3) / 3, torch.ones(3) / 3).converged)


def test_the_gap_of_an_affinity_from_the_identity_is_that_of_the_correlations():
    x, y = (torch.randn(4, 6, dtype=torch.float64) for _ in range(2))
    loss = GraphLoss(correlation_distance, coupling=Affinity(), reduction=PlanGap())
    wanted = (torch.corrcoef(torch.cat([x, y]))[:4, 4:] - torch.eye(4)).square().sum().sqrt()
    torch.testing.assert_close(loss(Data(x=x), Data(x=y)), wanted)


# All of them


def test_they_are_found_among_the_couplings():
    for coupling in (Affinity, Identity, Product, RowSoftmax):
        assert getattr(couplings, coupling.__name__) is coupling


def test_what_reads_the_plan_takes_those_that_differentiate_it():
    assert RowSoftmax(0.1).differentiates_plan
    assert Affinity().differentiates_plan
    assert not Identity().differentiates_plan
    assert not Product().differentiates_plan
    with pytest.raises(ValueError, match="needs a coupling that differentiates its plan"):
        GraphLoss(sqeuclidean, coupling=Product(), reduction=PlanGap())


@pytest.mark.parametrize("coupling", [RowSoftmax(0.1), Affinity()])
def test_those_that_need_a_cost_refuse_a_loss_without_one(coupling):
    _, a, b = problem()
    with pytest.raises(ValueError, match="coupling needs a cost between the two graphs, got a loss without one"):
        coupling(None, None, a, b)
