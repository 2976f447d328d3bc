"""Plan matching against its definition, written again with plain loops."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from graphkd import GraphLoss, graphs
from graphkd.couplings import Sinkhorn
from graphkd.losses import plan_matching
from graphkd.measures import relative_cosine
from graphkd.reductions import PlanNLL, TeacherPlan

REFUSED = (ValueError, TypeCheckError)


def draw(n=7, widths=(3, 5)):
    return [{"feat": torch.randn(n, width, dtype=torch.float64)} for width in widths]


def plan_by_loops(x, epsilon, sweeps):
    n = len(x)
    cosine = [[float(a @ b / a.norm() / b.norm()) for b in x] for a in x]
    entries = [value for row in cosine for value in row]
    mean = sum(entries) / n**2
    kernel = [[math.exp(-(1 - value) / (1 - mean) / epsilon) for value in row] for row in cosine]
    u, v = [1.0] * n, [1.0] * n
    for _ in range(sweeps):
        u = [1 / n / sum(kernel[i][j] * v[j] for j in range(n)) for i in range(n)]
        v = [1 / n / sum(kernel[i][j] * u[i] for i in range(n)) for j in range(n)]
    return [[u[i] * kernel[i][j] * v[j] for j in range(n)] for i in range(n)]


@pytest.mark.parametrize(("epsilon", "sweeps"), [(1.0, 10), (0.5, 3), (2.0, 40)])
def test_it_is_the_divergence_of_the_two_networks_own_plans(epsilon, sweeps):
    student, teacher = draw()
    ours = plan_by_loops(student["feat"], epsilon, sweeps)
    theirs = plan_by_loops(teacher["feat"], epsilon, sweeps)
    expected = sum(theirs[i][j] * math.log(theirs[i][j] / ours[i][j]) for i in range(7) for j in range(7))
    output = plan_matching(epsilon=epsilon, num_iters=sweeps, weight=2.0)(student, teacher)
    assert float(output.terms["self"]) == pytest.approx(expected, rel=1e-9)
    assert float(output.value) == pytest.approx(2 * expected, rel=1e-9)


def test_its_gradient_is_that_of_the_students_plan_against_the_teachers_as_target():
    student, teacher = draw(widths=(4, 4))
    x = student["feat"].requires_grad_()
    sinkhorn = Sinkhorn(0.3, 10, gradient="unroll")
    # The student's graph with itself, and the teacher's plan in hand: there the target is a tensor.
    target = TeacherPlan(relative_cosine, sinkhorn)(graphs.point_cloud(teacher["feat"]))
    nll = GraphLoss(relative_cosine, coupling=sinkhorn, reduction=PlanNLL(target))
    nodes = graphs.point_cloud(x)
    (expected,) = torch.autograd.grad(nll(nodes, nodes), x)
    (actual,) = torch.autograd.grad(plan_matching(weight=1.0)({"feat": x}, teacher).value, x)
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-12)


def test_rotating_and_scaling_a_network_changes_nothing():
    student, teacher = draw()
    turned = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    value = plan_matching()(student, teacher).value
    moved = plan_matching()(student, {"feat": 3 * teacher["feat"] @ turned}).value
    torch.testing.assert_close(moved, value)


def test_the_pairing_counts():
    student, teacher = draw(n=12)
    shuffled = {"feat": teacher["feat"][torch.randperm(12)]}
    same = {"feat": torch.cat([student["feat"], student["feat"]], 1)}
    assert float(plan_matching()(student, same).value) == pytest.approx(0, abs=1e-12)
    assert plan_matching()(student, {"feat": same["feat"][torch.randperm(12)]}).value > 0.01
    assert not torch.isclose(plan_matching()(student, teacher).value, plan_matching()(student, shuffled).value)


@pytest.mark.parametrize("arguments", [{"epsilon": 0.0}, {"num_iters": 0}, {"weight": float("nan")}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(REFUSED):
        plan_matching(**arguments)
