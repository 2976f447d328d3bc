"""InfoNCE between two networks against its definition, written again with plain loops."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.nn import functional as F

from graphkd.losses import info_nce

REFUSED = (ValueError, TypeCheckError)
LABELS = [3, 1, 3, -100, -100, 3, 0]


def draw(n=7, widths=(4, 6)):
    return [{"feat": torch.randn(n, width, dtype=torch.float64, requires_grad=True)} for width in widths]


def embedded(encoder, x):
    return [row @ encoder.embed.weight.T + encoder.embed.bias for row in x]


def cosine(x, y):
    return (x * y).sum() / ((x * x).sum().sqrt() * (y * y).sum().sqrt())


def one_way(anchors, partners, temperature, apart):
    total = 0
    for i, anchor in enumerate(anchors):
        scores = [(cosine(anchor, partner) / temperature).exp() for partner in partners]
        kept = sum(score for j, score in enumerate(scores) if j == i or apart(i, j))
        total = total - (scores[i] / kept).log() / len(anchors)
    return total


def anyone(i, j):
    return True


def of_another_class(i, j):
    return LABELS[i] != LABELS[j] or LABELS[i] == -100


def assert_equal(criterion, expected, output, student, teacher):
    leaves = [student["feat"], teacher["feat"], *criterion.parameters()]
    torch.testing.assert_close(output.value, expected, rtol=1e-10, atol=0)
    for ours, theirs in zip(*(torch.autograd.grad(x, leaves) for x in (output.value, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * float(theirs.abs().max()))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    ("same_class", "labels", "apart"),
    [(True, None, anyone), (True, LABELS, anyone), (False, None, anyone), (False, LABELS, of_another_class)],
)
def test_it_is_its_definition_in_value_and_every_gradient(same_class, labels, apart, symmetric):
    student, teacher = draw()
    options = {"embed_dim": 5, "temperature": 0.3, "symmetric": symmetric, "same_class": same_class}
    criterion = info_nce(4, 6, **options).double()
    v, w = embedded(criterion.student, student["feat"]), embedded(criterion.teacher, teacher["feat"])
    expected = one_way(v, w, 0.3, apart)
    if symmetric:
        expected = expected + one_way(w, v, 0.3, apart)
    output = criterion(student, teacher, None if labels is None else torch.tensor(labels))
    assert_equal(criterion, expected, output, student, teacher)


def test_by_default_it_is_the_textbooks_cross_entropy():
    student, teacher = draw()
    criterion = info_nce().double()
    value = criterion(student, teacher, torch.tensor(LABELS)).value
    v, w = (
        F.normalize(network.embed(side["feat"]))
        for network, side in ((criterion.student, student), (criterion.teacher, teacher))
    )
    torch.testing.assert_close(value, F.cross_entropy(v @ w.T / 0.07, torch.arange(7)))


def test_a_batch_of_one_class_has_nothing_to_tell_apart():
    student, teacher = draw()
    labels = torch.full((7,), 4)
    assert info_nce(same_class=False).double()(student, teacher, labels).value == 0
    assert info_nce().double()(student, teacher, labels).value > 0


def test_the_pairing_counts():
    student, teacher = draw()
    criterion = info_nce().double()
    value = criterion(student, teacher).value
    shuffled = {"feat": teacher["feat"].roll(1, 0)}
    assert not torch.isclose(value, criterion(student, shuffled).value)


@pytest.mark.parametrize("arguments", [{"embed_dim": 0}, {"temperature": 0.0}, {"temperature": float("nan")}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(REFUSED):
        info_nce(**arguments)
