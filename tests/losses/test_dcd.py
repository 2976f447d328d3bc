"""DCD against its definition, written again with plain loops."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from graphkd.losses import dcd

REFUSED = (ValueError, TypeCheckError)


def draw(n=6, widths=(4, 7)):
    return [{"feat": torch.randn(n, width, dtype=torch.float64, requires_grad=True)} for width in widths]


def published(criterion, student, teacher, largest, bias=0.0):
    """The two terms, from the sums that the paper's softmax stands for; with the bias of the released code."""
    v, w = (
        [row @ network.embed.weight.T + network.embed.bias for row in side["feat"]]
        for network, side in ((criterion.student, student), (criterion.teacher, teacher))
    )
    n = len(v)
    scale = criterion.losses["contrast"].cost.log_scale.exp()
    scale = scale if scale < largest else torch.tensor(float(largest), dtype=torch.float64)
    score = [[(scale * (x @ y) / ((x @ x).sqrt() * (y @ y).sqrt()) + bias).exp() for y in w] for x in v]
    p = [[score[i][j] / sum(score[i]) for j in range(n)] for i in range(n)]
    q = [[score[j][i] / sum(row[i] for row in score) for j in range(n)] for i in range(n)]
    contrast = -sum(p[i][i].log() for i in range(n)) / n
    consistency = sum(q[i][j] * (q[i][j] / p[i][j]).log() for i in range(n) for j in range(n)) / n
    return contrast, consistency


@pytest.mark.parametrize("weight", [0.5, 2])
def test_it_is_its_definition_in_value_and_every_gradient(weight):
    student, teacher = draw()
    criterion = dcd(4, 7, embed_dim=5, consistency=weight, scale=3.0).double()
    contrast, consistency = published(criterion, student, teacher, 10)
    output = criterion(student, teacher)
    torch.testing.assert_close(output.terms, {"contrast": contrast, "consistency": consistency}, rtol=1e-10, atol=0)
    expected = contrast + weight * consistency
    torch.testing.assert_close(output.value, expected, rtol=1e-10, atol=0)
    leaves = [student["feat"], teacher["feat"], *criterion.parameters()]
    assert len(leaves) == 7
    for ours, theirs in zip(*(torch.autograd.grad(x, leaves) for x in (output.value, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * float(theirs.abs().max()))


def test_the_scale_starts_as_published_and_never_exceeds_its_limit():
    student, teacher = draw()
    criterion = dcd(4, 7).double()
    cost = criterion.losses["contrast"].cost
    assert criterion.losses["consistency"].cost is cost
    assert float(cost.log_scale.detach().exp()) == pytest.approx(math.e)
    with torch.no_grad():
        cost.log_scale.fill_(5.0)
    output = criterion(student, teacher)
    torch.testing.assert_close(output.terms["contrast"], published(criterion, student, teacher, 10)[0])
    (slope,) = torch.autograd.grad(output.value, cost.log_scale)
    assert slope == 0


def test_a_bias_of_the_scores_as_in_the_released_code_would_change_nothing():
    student, teacher = draw()
    criterion = dcd(4, 7).double()
    bias = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    with_bias = published(criterion, student, teacher, 10, bias)
    torch.testing.assert_close(with_bias, published(criterion, student, teacher, 10))
    (slope,) = torch.autograd.grad(sum(with_bias), bias)
    assert abs(float(slope)) < 1e-12


def test_networks_that_see_each_other_alike_are_consistent():
    student, _ = draw()
    criterion = dcd(4, 4).double()
    criterion.teacher.load_state_dict(criterion.student.state_dict())
    terms = criterion(student, student).terms
    assert float(terms["consistency"].detach()) == pytest.approx(0, abs=1e-12)
    assert terms["contrast"] > 0


def test_labels_and_only_they_do_not_count():
    student, teacher = draw()
    criterion = dcd(4, 7).double()
    value = criterion(student, teacher).value
    assert criterion(student, teacher, torch.zeros(6, dtype=torch.int64)).value == value
    assert not torch.isclose(criterion(student, {"feat": teacher["feat"].roll(1, 0)}).value, value)


@pytest.mark.parametrize(
    "arguments", [{"embed_dim": 0}, {"consistency": -1.0}, {"scale": 0.0}, {"largest_scale": -1.0}]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(REFUSED):
        dcd(**arguments)
