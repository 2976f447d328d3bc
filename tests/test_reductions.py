"""Reductions against loops over indices and against the losses that they are known as."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Data

from graphkd.couplings import Identity, RowSoftmax, SharedSinkhorn, Sinkhorn
from graphkd.discrepancies import mse, smooth_l1
from graphkd.graphs import point_cloud
from graphkd.measures import cosine_distance, sqeuclidean
from graphkd.reductions import PlanGap, PlanNLL, RelationGap, TeacherPlan, TransportCost
from graphkd.typing import Relations, Transport


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def graph(n: int, masses: bool = False, seed: int = 0) -> Data:
    mass = random(n, seed=seed) + 0.2
    return point_cloud(random(n, 3, seed=seed), mass / mass.sum() if masses else None)


def uniform(n: int) -> Tensor:
    return torch.full((n,), 1 / n, dtype=torch.float64)


def fixed(plan: Tensor, paired: bool = False) -> Transport:
    """A transport of which only the plan is known."""
    zero = torch.zeros(plan.shape[:-2], dtype=plan.dtype)
    return Transport(plan, None, None, zero, zero == 0, zero.long(), zero, paired)


def four_index_sum(plan: Tensor, student: Tensor, teacher: Tensor, discrepancy) -> Tensor:
    total = torch.zeros((), dtype=plan.dtype)
    n, m = plan.shape
    for i in range(n):
        for j in range(m):
            for k in range(n):
                for l in range(m):  # noqa: E741
                    total = total + discrepancy(student[i, k], teacher[j, l]) * plan[i, j] * plan[k, l]
    return total


def squared(s: Tensor, t: Tensor) -> Tensor:
    return (s - t) ** 2


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_unpaired_transport_cost_equals_a_loop_over_four_indices(alpha):
    plan = random(3, 4).requires_grad_()
    cost = random(3, 4, seed=1).requires_grad_()
    # Not symmetric: relations may be directed.
    relations = Relations(random(3, 3, seed=2).requires_grad_(), random(4, 4, seed=3).requires_grad_())
    got = TransportCost(alpha)(fixed(plan), cost, relations, (graph(3), graph(4)))
    structure = four_index_sum(plan, *relations, squared)
    wanted = (1 - alpha) * (plan * cost).sum() + alpha * structure
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    leaves = [plan] + [cost] * (alpha < 1) + list(relations) * (alpha > 0)
    for left, right in zip(torch.autograd.grad(got, leaves), torch.autograd.grad(wanted, leaves), strict=True):
        torch.testing.assert_close(left, right, atol=1e-12, rtol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("discrepancy, pair", [(mse, squared), (smooth_l1, smooth_l1)])
def test_paired_transport_cost_equals_a_loop_over_four_indices(discrepancy, pair, alpha):
    a = graph(4, masses=True).mass
    cost = random(4, 4, seed=1).requires_grad_()
    relations = Relations(3 * random(4, 4, seed=2).requires_grad_(), random(4, 4, seed=3))
    transport = Identity()(cost, relations, a, a)
    got = TransportCost(alpha, discrepancy)(transport, cost, relations, (graph(4), graph(4)))
    wanted = (1 - alpha) * (cost.diagonal() * a).sum()
    wanted = wanted + alpha * four_index_sum(torch.diag(a), *relations, pair)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    leaves = [cost] * (alpha < 1) + [relations.student] * (alpha > 0)
    for left, right in zip(torch.autograd.grad(got, leaves), torch.autograd.grad(wanted, leaves), strict=True):
        torch.testing.assert_close(left, right, atol=1e-12, rtol=0)


def test_paired_and_unpaired_routes_agree_at_the_identity():
    a = uniform(5)
    relations = Relations(random(5, 5, seed=2), random(5, 5, seed=3))
    both = [
        TransportCost(1.0)(fixed(torch.diag(a), paired), None, relations, (graph(5), graph(5)))
        for paired in (False, True)
    ]
    torch.testing.assert_close(*both)
    torch.testing.assert_close(both[0], (relations.student - relations.teacher).square().mean())


def test_transport_cost_is_the_mean_over_a_batch():
    plans, cost = random(2, 3, 4), random(2, 3, 4, seed=1)
    relations = Relations(random(2, 3, 3, seed=2), random(2, 4, 4, seed=3))
    got = TransportCost(0.3)(fixed(plans), cost, relations, (graph(3), graph(4)))
    singles = [
        TransportCost(0.3)(
            fixed(plans[i]), cost[i], Relations(relations.student[i], relations.teacher[i]), (graph(3), graph(4))
        )
        for i in range(2)
    ]
    torch.testing.assert_close(got, sum(singles) / 2)


def test_gradient_of_an_envelope_transport_cost_is_the_plan():
    cost = random(3, 4).requires_grad_()
    transport = Sinkhorn(0.1)(cost, None, uniform(3), uniform(4))
    value = TransportCost()(transport, cost, None, (graph(3), graph(4)))
    torch.testing.assert_close(torch.autograd.grad(value, cost)[0], transport.plan)


def test_an_unpaired_plan_refuses_a_discrepancy_without_factors():
    relations = Relations(random(3, 3), random(4, 4))
    with pytest.raises(ValueError, match="an unpaired plan needs a Factored discrepancy such as mse.*got .*smooth_l1"):
        TransportCost(0.5, smooth_l1)(fixed(random(3, 4)), random(3, 4), relations, (graph(3), graph(4)))


def test_transport_cost_refuses_what_it_has_no_input_for():
    graphs = (graph(3), graph(3))
    with pytest.raises(ValueError, match=r"TransportCost\(alpha=0.5\) needs a cost, got a loss without one"):
        TransportCost(0.5)(fixed(random(3, 3)), None, Relations(random(3, 3), random(3, 3)), graphs)
    with pytest.raises(ValueError, match=r"TransportCost\(alpha=0.5\) needs a relation, got a loss without one"):
        TransportCost(0.5)(fixed(random(3, 3)), random(3, 3), None, graphs)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_transport_cost_refuses_shares_outside_of_zero_and_one(alpha):
    with pytest.raises(ValueError, match=rf"alpha needs a number in \[0, 1\], got {alpha}"):
        TransportCost(alpha)


@pytest.mark.parametrize("epsilon", [0.07, 1.0])
def test_row_softmax_with_plan_nll_is_the_contrastive_cross_entropy(epsilon):
    cost = random(6, 6).requires_grad_()
    transport = RowSoftmax(epsilon)(cost, None, uniform(6), uniform(6))
    got = PlanNLL()(transport, cost, None, (graph(6), graph(6)))
    wanted = F.cross_entropy(-cost / epsilon, torch.arange(6))
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(torch.autograd.grad(got, cost), torch.autograd.grad(wanted, cost))


@pytest.mark.parametrize("coupling", [RowSoftmax(0.2), Sinkhorn(0.2, num_iters=5, gradient="unroll")])
def test_plan_nll_equals_a_loop_with_any_masses(coupling):
    student, teacher = graph(4, masses=True), graph(4, masses=True, seed=1)
    cost = random(4, 4, seed=2).requires_grad_()
    transport = coupling(cost, None, student.mass, teacher.mass)
    target = random(4, 4, seed=3)
    target[1, 2] = 0
    got = PlanNLL(target)(transport, cost, None, (student, teacher))
    wanted = -sum(target[i, j] * (transport.plan[i, j] / student.mass[i]).log() for i in range(4) for j in range(4))
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(torch.autograd.grad(got, cost, retain_graph=True), torch.autograd.grad(wanted, cost))


def test_plan_nll_reads_the_plan_where_there_are_no_potentials():
    plan = random(4, 4).softmax(-1) / 4
    wanted = -(4 * plan.diagonal()).log().mean()
    torch.testing.assert_close(PlanNLL()(fixed(plan), None, None, (graph(4), graph(4))), wanted)


def test_plan_nll_with_lost_mass_is_that_of_the_plan():
    cost = random(4, 4)
    transport = Sinkhorn(0.1, stabilizer=0.5, gradient="unroll")(cost, None, uniform(4), uniform(4))
    assert transport.plan.sum() < 0.95
    got = PlanNLL()(transport, cost, None, (graph(4), graph(4)))
    torch.testing.assert_close(got, -(4 * transport.plan.diagonal()).log().mean())


@pytest.mark.parametrize("coupling", [RowSoftmax(1.0), Sinkhorn(1.0, num_iters=5, gradient="unroll")])
def test_plan_nll_is_finite_with_its_gradient_where_the_plan_underflows(coupling):
    cost = (500 * (1 - torch.eye(5)) + torch.rand(5, 5)).roll(1, 0).requires_grad_()
    mass = torch.full((5,), 0.2)
    transport = coupling(cost, None, mass, mass)
    assert (transport.plan.diagonal() < 1e-30).all()
    value = PlanNLL()(transport, cost, None, (point_cloud(torch.zeros(5, 1)),) * 2)
    (gradient,) = torch.autograd.grad(value, cost)
    assert value.item() == pytest.approx(500, rel=0.01)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0.1


@pytest.mark.parametrize("reduction", [PlanNLL, PlanGap])
def test_a_plan_loss_is_smallest_where_the_plan_is_its_target(reduction):
    target = random(4, 5).softmax(-1) / 4
    graphs = (graph(4), graph(5))
    least = reduction(target)(fixed(target), None, None, graphs)
    for seed in range(5):
        other = (target.log() + 0.3 * random(4, 5, seed=seed)).softmax(-1) / 4
        assert reduction(target)(fixed(other), None, None, graphs) > least
    if reduction is PlanGap:
        assert least == 0


@pytest.mark.parametrize("n", [2, 5, 9])
def test_plan_gap_of_a_uniform_plan_is_known(n):
    plan, graphs = torch.full((n, n), 1 / n**2, dtype=torch.float64), (graph(n), graph(n))
    torch.testing.assert_close(PlanGap()(fixed(plan), None, None, graphs).item(), (n - 1) ** 0.5)
    torch.testing.assert_close(PlanGap(intensive=True)(fixed(plan), None, None, graphs).item(), 1.0)


def test_plan_gap_is_the_distance_of_n_times_the_plan_from_the_identity():
    plan = random(5, 5).requires_grad_()
    got = PlanGap()(fixed(plan), None, None, (graph(5), graph(5)))
    wanted = sum((5 * plan[i, j] - float(i == j)) ** 2 for i in range(5) for j in range(5)) ** 0.5
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(torch.autograd.grad(got, plan), torch.autograd.grad(wanted, plan))


def test_plan_gap_weighs_each_row_by_its_mass_and_skips_rows_without():
    student = graph(4, masses=True)
    student.mass = torch.tensor([0.5, 0.0, 0.2, 0.3], dtype=torch.float64)
    plan, target = random(4, 6).requires_grad_(), random(4, 6, seed=1)
    got = PlanGap(target)(fixed(plan), None, None, (student, graph(6)))
    wanted = sum((((plan[i] - target[i]) / student.mass[i]) ** 2).sum() for i in (0, 2, 3)) ** 0.5
    torch.testing.assert_close(got, wanted)
    (gradient,) = torch.autograd.grad(got, plan)
    assert torch.isfinite(gradient).all()
    assert gradient[1].abs().sum() == 0


def test_plan_gap_of_the_target_itself_has_gradient_zero():
    plan = torch.diag(uniform(3)).requires_grad_()
    value = PlanGap(intensive=True)(fixed(plan), None, None, (graph(3), graph(3)))
    assert value == 0
    assert torch.autograd.grad(value, plan)[0].abs().sum() == 0


@pytest.mark.parametrize("reduction", [PlanGap(), PlanNLL()])
def test_plan_losses_are_the_mean_over_a_batch(reduction):
    plans, graphs = random(3, 4, 4), (graph(4), graph(4))
    singles = [reduction(fixed(plan), None, None, graphs) for plan in plans]
    torch.testing.assert_close(reduction(fixed(plans), None, None, graphs), sum(singles) / 3)


def test_only_plan_losses_read_the_plan_alone():
    assert PlanGap().reads_plan
    assert PlanNLL().reads_plan
    assert not TransportCost().reads_plan


@pytest.mark.parametrize("reduction", [PlanGap, PlanNLL])
def test_the_teachers_own_plan_is_a_target_without_gradient(reduction):
    coupling = Sinkhorn(0.1, gradient="unroll")
    student, teacher = graph(5), graph(5, masses=True, seed=1)
    student.x.requires_grad_(), teacher.x.requires_grad_()
    target = TeacherPlan(cosine_distance, coupling)(teacher)
    itself = cosine_distance(teacher.x, teacher.x)
    torch.testing.assert_close(target, coupling(itself, None, teacher.mass, teacher.mass).plan)
    assert not target.requires_grad

    cost = sqeuclidean(student.x, teacher.x.detach())
    transport = coupling(cost, None, uniform(5), teacher.mass)
    got = reduction(TeacherPlan(cosine_distance, coupling))(transport, cost, None, (student, teacher))
    torch.testing.assert_close(got, reduction(target)(transport, cost, None, (student, teacher)))
    assert not torch.allclose(got, reduction()(transport, cost, None, (student, teacher)))
    got.backward()
    assert student.x.grad.abs().sum() > 0
    assert teacher.x.grad is None


def test_the_teachers_own_plan_of_a_large_epsilon_is_the_product_of_its_masses():
    teacher = graph(5, masses=True)
    target = TeacherPlan(cosine_distance, Sinkhorn(1e6))(teacher)
    torch.testing.assert_close(target, teacher.mass[:, None] * teacher.mass, atol=1e-6, rtol=0)


@pytest.mark.parametrize("reduction", [PlanGap, PlanNLL])
def test_a_target_of_another_shape_is_refused(reduction):
    graphs = (graph(4), graph(5))
    plan = fixed(random(4, 5))
    wrong = {"identity": None, "tensor": random(5, 4), "function": lambda teacher: random(5, 5), "flat": random(5)}
    shapes = {"identity": "(4, 4)", "tensor": "(5, 4)", "function": "(5, 5)", "flat": "(5,)"}
    for name, target in wrong.items():
        with pytest.raises(ValueError) as caught:
            reduction(target)(plan, None, None, graphs)
        assert f"the target plan needs the shape of the plan, (4, 5), got {shapes[name]}" in str(caught.value)


def test_a_target_on_another_device_is_refused():
    with pytest.raises(ValueError, match="needs all tensors on one device, got plan on cpu, target on meta"):
        PlanGap(torch.ones(4, 4, device="meta"))(fixed(random(4, 4)), None, None, (graph(4), graph(4)))


# A transport without a plan of each problem


def shared() -> tuple[Tensor, Transport, tuple[Data, Data]]:
    """Seven pairs of masses under one cost, of which only the mean plan is formed."""
    cost = random(4, 5).requires_grad_()
    a, b = random(7, 4, seed=1).softmax(-1), random(7, 5, seed=2).softmax(-1)
    nodes = [Data(x=random(mass.shape[1], 1), mass=mass) for mass in (a, b)]
    return cost, SharedSinkhorn(0.1)(cost, None, a, b), (nodes[0], nodes[1])


def test_transport_cost_of_a_shared_transport_is_the_mean_of_what_each_pair_pays():
    cost, transport, graphs = shared()
    got = TransportCost()(transport, cost, None, graphs)
    torch.testing.assert_close(got, transport.linear.mean())
    (gradient,) = torch.autograd.grad(got, cost, retain_graph=True)
    # The mean plan alone would be a constant.
    torch.testing.assert_close(gradient, torch.autograd.grad(transport.linear.mean(), cost, retain_graph=True)[0])
    assert not torch.allclose(gradient, transport.plan)
    other = transport._replace(linear=torch.arange(7.0, dtype=torch.float64))
    assert TransportCost()(other, cost, None, graphs) == 3


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_a_structure_term_needs_a_plan_of_each_problem(alpha):
    cost, transport, graphs = shared()
    relations = Relations(random(4, 4), random(5, 5))
    with pytest.raises(ValueError, match=rf"TransportCost\(alpha={alpha}\) needs a plan per problem, got the mean"):
        TransportCost(alpha)(transport, cost, relations, graphs)


def relation_gap_by_loops(student: Tensor, teacher: Tensor, a: Tensor) -> Tensor:
    total = torch.zeros((), dtype=student.dtype)
    for i in range(len(a)):
        for k in range(len(a)):
            total = total + a[i] * a[k] * (student[i, k] - teacher[i, k]) ** 2
    return total.sqrt()


@pytest.mark.parametrize("masses", [False, True])
def test_relation_gap_is_the_root_of_a_double_loop_under_the_masses(masses):
    a = graph(4, masses=True).mass if masses else uniform(4)
    student, teacher = random(4, 4, seed=2).requires_grad_(), random(4, 4, seed=3)
    transport = Identity()(None, None, a, a)
    wanted = relation_gap_by_loops(student, teacher, a)
    for intensive, factor in ((False, 4), (True, 1)):
        got = RelationGap(intensive)(transport, None, Relations(student, teacher), (graph(4), graph(4)))
        torch.testing.assert_close(got, factor * wanted, atol=1e-12, rtol=0)
        (left,), (right,) = (torch.autograd.grad(value, student, retain_graph=True) for value in (got, factor * wanted))
        torch.testing.assert_close(left, right, atol=1e-12, rtol=0)


def test_relation_gap_with_uniform_masses_is_the_frobenius_norm():
    relations = Relations(random(5, 5, seed=2), random(5, 5, seed=3))
    transport = Identity()(None, None, uniform(5), uniform(5))
    got = RelationGap()(transport, None, relations, (graph(5), graph(5)))
    torch.testing.assert_close(got, torch.linalg.matrix_norm(relations.student - relations.teacher))


def test_relation_gap_of_several_relations_is_their_mean():
    relations = Relations(random(3, 4, 4, seed=2), random(3, 4, 4, seed=3))
    transport = Identity()(None, None, uniform(4), uniform(4))
    each = [
        RelationGap()(transport, None, Relations(s, t), (graph(4), graph(4))) for s, t in zip(*relations, strict=True)
    ]
    got = RelationGap()(transport, None, relations, (graph(4), graph(4)))
    torch.testing.assert_close(got, torch.stack(each).mean())


def test_relation_gap_of_equal_relations_is_zero_with_gradient_zero():
    relation = random(4, 4).requires_grad_()
    transport = Identity()(None, None, uniform(4), uniform(4))
    got = RelationGap()(transport, None, Relations(relation, relation.detach()), (graph(4), graph(4)))
    assert got == 0
    assert (torch.autograd.grad(got, relation)[0] == 0).all()


def test_relation_gap_needs_relations_of_paired_nodes():
    relations = Relations(random(4, 4), random(4, 4))
    with pytest.raises(ValueError, match="not the identity"):
        RelationGap()(fixed(random(4, 4)), None, relations, (graph(4), graph(4)))
    transport = Identity()(None, None, uniform(4), uniform(4))
    with pytest.raises(ValueError, match="without a relation"):
        RelationGap()(transport, None, None, (graph(4), graph(4)))
