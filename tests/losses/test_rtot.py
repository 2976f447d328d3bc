"""RTOT against values of other solvers (tests/golden), assignments, and loops."""

import itertools

import pytest
import torch
from jaxtyping import TypeCheckError
from published_values import golden_files, load

from graphkd.losses import rtot

FILES = golden_files("rtot_ref_*.npz")
REFUSED = (ValueError, TypeCheckError)
COSTS = {"l2": "euclidean", "sq": "sqeuclidean", "l1": "l1"}


@pytest.mark.parametrize("short", COSTS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_plan_value_and_gradient_are_those_of_exact_transport(path, short, assert_golden):
    golden = load(path)
    if f"cost_{short}" not in golden:
        pytest.skip("the file has other costs")
    student = golden["act_student"].double().requires_grad_()
    output = rtot(cost=COSTS[short])({"feat": student}, {"feat": golden["act_teacher"].double()})
    seen = output.comparisons["neurons"]
    assert_golden(seen.cost, golden[f"cost_{short}"])
    assert_golden(seen.plan, golden[f"plan_{short}"])
    torch.testing.assert_close(output.value.detach(), golden[f"loss_{short}_f64"], rtol=1e-10, atol=1e-12)
    if f"grad_student_{short}_f64" in golden:
        (gradient,) = torch.autograd.grad(output.value, student)
        assert_golden(gradient, golden[f"grad_student_{short}_f64"])


@pytest.mark.parametrize("short", COSTS)
@pytest.mark.parametrize("path", FILES[:2], ids=lambda path: path.stem)
def test_sinkhorns_plan_is_that_of_another_library(path, short):
    golden = load(path)
    epsilon = 0.1 * float(golden[f"cost_{short}"].max())
    criterion = rtot(cost=COSTS[short], coupling="sinkhorn", epsilon=epsilon, num_iters=2000)
    output = criterion({"feat": golden["act_student"].double()}, {"feat": golden["act_teacher"].double()})
    plan = output.comparisons["neurons"].plan
    torch.testing.assert_close(plan, golden[f"sinkhorn01_normcost_plan_{short}"], rtol=1e-8, atol=1e-10)


def test_the_order_of_neurons_does_not_count():
    student, teacher = torch.randn(2, 7, 5, dtype=torch.float64)
    order = torch.randperm(5)
    for coupling in ("exact", "sinkhorn"):
        criterion = rtot(coupling=coupling)
        value = criterion({"feat": student}, {"feat": teacher}).value
        torch.testing.assert_close(criterion({"feat": student[:, order]}, {"feat": teacher}).value, value)


def test_equal_widths_are_an_assignment():
    student, teacher = torch.randn(2, 6, 4, dtype=torch.float64)
    cost = [[float((student[:, i] - teacher[:, j]).square().sum()) for j in range(4)] for i in range(4)]
    best = min(sum(cost[i][j] for i, j in enumerate(order)) / 4 for order in itertools.permutations(range(4)))
    value = rtot(cost="sqeuclidean")({"feat": student}, {"feat": teacher}).value
    assert float(value) == pytest.approx(best, rel=1e-10)


def test_the_identity_is_plain_feature_matching():
    student, teacher = torch.randn(2, 6, 4, dtype=torch.float64)
    value = rtot(cost="sqeuclidean", coupling="identity")({"feat": student}, {"feat": teacher}).value
    torch.testing.assert_close(value, (student - teacher).square().sum() / 4)
    with pytest.raises(ValueError, match="identity coupling"):
        rtot(coupling="identity")({"feat": student}, {"feat": teacher[:, :3]})


def test_channels_take_every_position_of_every_image_as_a_sample():
    student, teacher = torch.randn(3, 4, 2, 5, dtype=torch.float64), torch.randn(3, 6, 2, 5, dtype=torch.float64)
    value = rtot(node="channels")({"map": student}, {"map": teacher}).value
    rows = [
        torch.stack([m[i, :, r, c] for i in range(3) for r in range(2) for c in range(5)]) for m in (student, teacher)
    ]
    torch.testing.assert_close(value, rtot()({"feat": rows[0]}, {"feat": rows[1]}).value)
    with pytest.raises(ValueError, match="one width"):
        rtot(node="channels")({"map": student}, {"map": teacher[..., :4]})


def test_pooled_channels_are_averaged_over_positions():
    student, teacher = torch.randn(3, 4, 2, 5, dtype=torch.float64), torch.randn(3, 6, 7, 7, dtype=torch.float64)
    value = rtot(node="pooled")({"map": student}, {"map": teacher}).value
    pooled = [{"feat": maps.flatten(2).mean(2)} for maps in (student, teacher)]
    torch.testing.assert_close(value, rtot()(*pooled).value)


@pytest.mark.parametrize("arguments", [{"cost": "l3"}, {"coupling": "greedy"}, {"node": "layers"}, {"epsilon": 0.0}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(REFUSED):
        rtot(**arguments)
