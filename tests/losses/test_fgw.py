"""Fused Gromov-Wasserstein distillation: its objective by loops, its anchor, and the size of its defaults."""

import itertools
import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.nn import functional as F

from graphkd.losses import fgw, plan_matching

REFUSED = (ValueError, TypeCheckError)


def draw(n=6, widths=(3, 5), classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    return [{"feat": normal(n, width), "logits": 2 * normal(n, classes)} for width in widths]


def objective(seen, alpha, penalty):
    """The fused objective of a comparison's plan, on plain loops over four indices."""
    plan = seen.plan.detach()
    n = len(plan)
    nodes = 0.0
    if alpha < 1:
        x, y = (graph.x.detach() for graph in seen.graphs)
        for i, j in itertools.product(range(n), repeat=2):
            nodes += float(plan[i, j]) * (float((x[i] - y[j]).square().sum()) + penalty * (i != j))
    s, t = (relation.detach() for relation in seen.relations)
    structure = 0.0
    for i, j, k, m in itertools.product(range(n), repeat=4):
        ours, theirs = float(s[i, k]), float(t[j, m])
        structure += float(plan[i, j] * plan[k, m]) * (theirs * math.log(theirs / ours) - theirs + ours)
    return (1 - alpha) * nodes + alpha * structure


@pytest.mark.parametrize("anchor", [None, 0.0, 0.3, 2.0])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_value_is_the_fused_objective_of_the_plan(alpha, anchor):
    output = fgw(alpha=alpha, anchor=anchor, weight=1.0)(*draw())
    expected = objective(output.comparisons["hop0"], alpha, 0.0 if anchor is None else anchor)
    assert float(output.value) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0])
def test_the_anchored_plan_is_no_worse_than_the_known_pairs_that_it_starts_from(alpha):
    student, teacher = draw(n=9)
    shuffled = {name: x[torch.randperm(9)] for name, x in teacher.items()}
    values = [fgw(alpha=alpha, anchor=anchor)(student, shuffled).value for anchor in (0.1, 0.5, None)]
    assert values[0] <= values[1] + 1e-9
    assert values[1] <= values[2] + 1e-9
    assert alpha == 1 or values[0] < 0.99 * values[2]


def test_without_an_anchor_somebody_elses_teacher_is_as_good_and_with_it_is_not():
    student, _ = draw(n=10)
    teacher = {"feat": torch.cat([student["feat"]] * 2, 1), "logits": student["logits"]}
    shuffled = {name: x[torch.randperm(10, generator=torch.Generator().manual_seed(1))] for name, x in teacher.items()}
    loose, anchored, paired = fgw(anchor=0.0), fgw(), fgw(anchor=None)
    for criterion in (loose, anchored, paired):
        assert float(criterion(student, teacher).value) == pytest.approx(0, abs=1e-9)
    # A plan that nothing holds finds each sample's copy wherever it went.
    assert float(loose(student, shuffled).value) == pytest.approx(0, abs=1e-6)
    assert anchored(student, shuffled).value > 1
    assert paired(student, shuffled).value > 1


def test_a_large_anchor_is_the_identity():
    student, teacher = draw(n=8)
    held = fgw(anchor=100.0)(student, teacher)
    torch.testing.assert_close(held.comparisons["hop0"].plan, torch.eye(8, dtype=torch.float64) / 8)
    torch.testing.assert_close(held.value, fgw(anchor=None)(student, teacher).value)


def test_the_structure_alone_at_the_identity_is_plan_matching():
    student, teacher = draw()
    ours = fgw(alpha=1.0, anchor=None)({"feat": student["feat"]}, {"feat": teacher["feat"]})
    torch.testing.assert_close(ours.terms["hop0"], plan_matching()(student, teacher).terms["self"])


def test_nodes_are_class_probabilities_at_their_hellinger_distance():
    student, teacher = draw()
    seen = fgw(anchor=None)(student, teacher).comparisons["hop0"]
    p, q = (side["logits"].softmax(1) for side in (student, teacher))
    expected = (p.sqrt().unsqueeze(1) - q.sqrt().unsqueeze(0)).square().sum(2)
    torch.testing.assert_close(seen.cost, expected)


def test_each_layer_averages_over_neighbours_and_adds_a_hop():
    student, teacher = draw(n=7)
    output = fgw(num_layers=2, k=3, anchor=None)(student, teacher)
    assert list(output.terms) == ["hop0", "hop1", "hop2"]
    x = student["logits"].softmax(1).sqrt()
    similarity = F.normalize(student["feat"], dim=1) @ F.normalize(student["feat"], dim=1).T
    for hop in (1, 2):
        means = []
        for i in range(7):
            nearest = sorted((j for j in range(7) if j != i), key=lambda j, i=i: -float(similarity[i, j]))[:2]
            means.append(x[[i, *nearest]].mean(0))
        x = F.normalize(torch.stack(means), dim=1)
        torch.testing.assert_close(output.comparisons[f"hop{hop}"].graphs[0].x, x)


def test_with_the_structure_alone_no_logits_are_needed():
    student, teacher = draw()
    output = fgw(alpha=1.0)({"feat": student["feat"]}, {"feat": teacher["feat"]})
    assert output.comparisons["hop0"].cost is None
    with pytest.raises(KeyError, match="logits"):
        fgw(alpha=0.9)({"feat": student["feat"]}, {"feat": teacher["feat"]})


def labelled(n, width, seed):
    """Features and logits of ten classes that lie in eight dimensions, whatever the width, as a network sees them."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(n) % 10
    hidden = 2 * torch.randn(10, 8, generator=generator)[classes]
    generator.manual_seed(seed)
    hidden = hidden + torch.randn(n, 8, generator=generator)
    feat = (hidden @ torch.randn(8, width, generator=generator)).relu()
    return {"feat": feat, "logits": 4.0 * F.one_hot(classes, 10) + torch.randn(n, 10, generator=generator)}


@pytest.mark.parametrize("method", [fgw, plan_matching])
@pytest.mark.parametrize("n", [16, 64, 256, pytest.param(1024, marks=pytest.mark.slow)])
@pytest.mark.parametrize("width", [16, 2048])
def test_defaults_hold_from_small_batches_and_widths_to_large_ones(method, n, width):
    student, teacher = labelled(n, width, 1), labelled(n, 2 * width, 2)
    x = student["feat"].requires_grad_()
    value = method(weight=1.0)(student, teacher).value
    (gradient,) = torch.autograd.grad(value, x)
    assert 0.1 < float(value.detach()) < 1.5
    # What a step along the features would gain, relative to their size.
    assert 0.7 < float(gradient.norm() * x.detach().norm()) < 8


def test_classes_that_differ_in_number_are_refused():
    student, teacher = draw()
    teacher["logits"] = teacher["logits"][:, :3]
    with pytest.raises(ValueError, match="one width"):
        fgw()(student, teacher)


@pytest.mark.parametrize(
    "arguments",
    [{"alpha": 1.5}, {"anchor": -1.0}, {"epsilon": 0.0}, {"num_iters": 0}, {"num_layers": -1}, {"k": 0}],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(REFUSED):
        fgw(**arguments)
