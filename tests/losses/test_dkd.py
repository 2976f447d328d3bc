"""Decoupled knowledge distillation against its definition, written again with plain loops."""

import pytest
import torch

from graphkd.losses import dkd, kd

NAMES = ("target", "nontarget")


def draw(n=5, classes=4, scale=3.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    student, teacher = scale * torch.randn(2, n, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=generator)
    return student.to(dtype).requires_grad_(), teacher.to(dtype), labels


def probabilities(row, temperature):
    weights = [(z / temperature).exp() for z in row]
    return [w / sum(weights) for w in weights]


def divergence(p, q):
    return sum(a * (a / b).log() for a, b in zip(p, q, strict=True))


def by_loops(student, teacher, labels, temperature):
    """Both terms, sample by sample; the first over labelled samples."""
    target, nontarget = [], []
    for ours, theirs, label in zip(student, teacher, labels.tolist(), strict=True):
        rows = [ours, theirs]
        if label >= 0:
            at = [probabilities(row, temperature)[label] for row in rows]
            s, t = ([p, 1 - p] for p in at)
            target.append(divergence(t, s))
            rows = [[z for k, z in enumerate(row) if k != label] for row in rows]
        s, t = (probabilities(row, temperature) for row in rows)
        nontarget.append(divergence(t, s))
    return temperature**2 * sum(target) / max(len(target), 1), temperature**2 * sum(nontarget) / len(nontarget)


def run(criterion, student, teacher, labels=None):
    return criterion({"logits": student}, {"logits": teacher}, labels)


@pytest.mark.parametrize("classes", [2, 4, 11])
@pytest.mark.parametrize("temperature", [1, 4.0])
@pytest.mark.parametrize("missing", [False, True])
def test_terms_and_their_gradients_are_those_of_the_definition(classes, temperature, missing):
    student, teacher, labels = draw(classes=classes)
    if missing:
        labels[[1, 4]] = -100
    output = run(dkd(temperature, 0.5, 3.0), student, teacher, labels)
    expected = by_loops(student, teacher, labels, temperature)
    for name, wanted in zip(NAMES, expected, strict=True):
        torch.testing.assert_close(output.terms[name], wanted, rtol=1e-10, atol=1e-12)
        gradients = [torch.autograd.grad(x, student, retain_graph=True)[0] for x in (output.terms[name], wanted)]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.value, 0.5 * expected[0] + 3 * expected[1], rtol=1e-10, atol=0)


def test_published_defaults():
    student, teacher, labels = draw()
    target, nontarget = by_loops(student, teacher, labels, 4)
    torch.testing.assert_close(run(dkd(), student, teacher, labels).value, target + 8 * nontarget)


def test_kd_is_the_sum_of_both_with_the_teachers_doubt_as_weight():
    student, teacher, labels = draw(n=1, classes=6)
    terms = run(dkd(), student, teacher, labels).terms
    doubt = 1 - (teacher / 4).softmax(-1)[0, labels[0]]
    torch.testing.assert_close(terms["target"] + doubt * terms["nontarget"], run(kd(), student, teacher).value)


def test_without_labels_it_is_kd():
    student, teacher, labels = draw()
    for given in (None, torch.full_like(labels, -100)):
        output = run(dkd(), student, teacher, given)
        assert float(output.terms["target"].detach()) == 0
        torch.testing.assert_close(output.terms["nontarget"], run(kd(), student, teacher).value)


def test_of_soft_labels_the_most_likely_class_counts():
    student, teacher, labels = draw()
    soft = 0.6 * torch.nn.functional.one_hot(labels, 4).double() + 0.1
    torch.testing.assert_close(run(dkd(), student, teacher, soft).value, run(dkd(), student, teacher, labels).value)


@pytest.mark.parametrize("n", [4, 16, 64])
def test_the_value_does_not_grow_with_the_batch(n):
    student, teacher, labels = draw()
    many = [x.repeat(n, *[1] * (x.dim() - 1)) for x in (student, teacher, labels)]
    torch.testing.assert_close(run(dkd(), *many).value, run(dkd(), student, teacher, labels).value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_confident_logits_stay_finite_and_the_labels_class_has_no_part_in_the_others(dtype, scale):
    student, teacher, labels = draw(scale=scale, dtype=dtype)
    output = run(dkd(1.0), student, teacher, labels)
    (gradient,) = torch.autograd.grad(output.terms["nontarget"], student, retain_graph=True)
    assert gradient.isfinite().all()
    assert (gradient.gather(1, labels.unsqueeze(1)) == 0).all()
    (gradient,) = torch.autograd.grad(output.value, student)
    assert gradient.isfinite().all()
    assert output.value.isfinite()
    own = torch.nn.functional.one_hot(labels, 4).bool()
    kept = student.double()[~own].reshape(5, 3), teacher.double()[~own].reshape(5, 3)
    torch.testing.assert_close(output.terms["nontarget"].double(), run(kd(1.0), *kept).value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature needs a finite number above 0"),
        ({"target_weight": -1.0}, "target_weight needs a finite number of at least 0"),
        ({"nontarget_weight": float("nan")}, "nontarget_weight needs a finite number of at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dkd(**options)


def test_logits_of_one_class_and_labels_out_of_range_are_refused():
    student, teacher, labels = draw()
    with pytest.raises(ValueError, match="at least two classes, got shape \\(5, 1\\)"):
        run(dkd(), student[:, :1], teacher[:, :1], labels)
    with pytest.raises(ValueError, match="numbers from 0 to 3, or -100 for none, got 9"):
        run(dkd(), student, teacher, torch.full_like(labels, 9))
    with pytest.raises(ValueError, match="soft labels need the shape of the logits"):
        run(dkd(), student, teacher, torch.rand(5, 3))
