"""The Wasserstein distance of two batches as Gaussians against its definition, written again with plain loops."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from graphkd.losses import gaussian_w2

REFUSED = (ValueError, TypeCheckError)  # With shape checks on, a word outside a Literal does not get as far as ours.


def draw(n=6, widths=(3, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (1 + i) * torch.randn(n, d, generator=generator, dtype=torch.float64) + 0.3 * i for i, d in enumerate(widths)
    ]


def means_by_loops(x):
    return [sum(row[c] for row in x) / len(x) for c in range(x.shape[1])]


def covariances_by_loops(x):
    mean = means_by_loops(x)
    channels = range(x.shape[1])
    return [[sum((row[c] - mean[c]) * (row[e] - mean[e]) for row in x) / len(x) for e in channels] for c in channels]


def mean_by_loops(x, y):
    return sum((a - b) ** 2 for a, b in zip(means_by_loops(x), means_by_loops(y), strict=True))


def diagonal_by_loops(x, y):
    ours, theirs = covariances_by_loops(x), covariances_by_loops(y)
    return sum((ours[c][c].sqrt() - theirs[c][c].sqrt()) ** 2 for c in range(x.shape[1]))


def root_of(matrix):
    values, axes = torch.linalg.eigh(matrix)
    return axes @ values.sqrt().diag() @ axes.T


def bures_by_equation(x, y):
    ours, theirs = (torch.stack([torch.stack(row) for row in covariances_by_loops(each)]) for each in (x, y))
    half = root_of(ours)
    return (ours + theirs - 2 * root_of(half @ theirs @ half)).trace()


COVARIANCES = {"diagonal": diagonal_by_loops, "full": bures_by_equation}


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_value_and_gradient_are_the_definitions(covariance, parity):
    x, y = draw(n=9 if covariance == "full" else 6)
    x.requires_grad_()
    output = gaussian_w2(covariance=covariance, projector=None, parity=parity)({"feat": x}, {"feat": y})
    size = 1 if parity else 3
    wanted = {"mean": mean_by_loops(x, y) / size, "covariance": COVARIANCES[covariance](x, y) / size}
    torch.testing.assert_close(output.terms, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.value, wanted["mean"] + wanted["covariance"], rtol=1e-10, atol=1e-12)
    for found, expected in ((output.terms[name], wanted[name]) for name in wanted):
        gradients = [torch.autograd.grad(value, x, retain_graph=True)[0] for value in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_its_defaults_are_the_diagonal_form_and_the_mean_of_features_behind_a_linear_map():
    x, y = draw(widths=(3, 5))
    criterion = gaussian_w2().double()
    output = criterion({"feat": x}, {"feat": y})
    weight, bias = (p.detach() for p in criterion.parameters())
    assert weight.shape == (5, 3)
    projected = x @ weight.T + bias
    wanted = (mean_by_loops(projected, y) + diagonal_by_loops(projected, y)) / 5
    torch.testing.assert_close(output.value, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_pairing_is_ignored_and_equal_batches_are_at_distance_zero(covariance):
    x, y = draw()
    criterion = gaussian_w2(covariance=covariance, projector=None)
    value = criterion({"feat": x}, {"feat": y}).value
    assert value > 0.1
    torch.testing.assert_close(criterion({"feat": x}, {"feat": y.flip(0)}).value, value)
    assert criterion({"feat": x}, {"feat": x.flip(0)}).value.abs() < 1e-12


def test_only_full_covariances_see_how_features_vary_together():
    x = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    y = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    for covariance, wanted in (("diagonal", 0.0), ("full", 2.0)):
        value = gaussian_w2(covariance=covariance, projector=None)({"feat": x}, {"feat": y}).value
        assert float(value) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_batch_of_one_has_a_mean_and_no_deviation(covariance, dtype):
    x, y = (row.to(dtype) for row in draw(n=1))
    x.requires_grad_()
    output = gaussian_w2(covariance=covariance, projector=None)({"feat": x}, {"feat": y})
    torch.testing.assert_close(output.terms["mean"], (x - y).square().mean())
    assert output.terms["covariance"] == 0
    (gradient,) = torch.autograd.grad(output.value, x)
    torch.testing.assert_close(gradient, 2 * (x - y).detach() / 3)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_batches_of_two_and_of_equal_rows_have_finite_gradients(covariance):
    criterion = gaussian_w2(covariance=covariance, projector=None)
    for x, y in (draw(n=2), [row[:1].repeat(4, 1) for row in draw()], [torch.zeros(4, 3), draw(n=4)[1].float()]):
        x.requires_grad_()
        value = criterion({"feat": x}, {"feat": y.to(x.dtype)}).value
        assert value > 0
        assert torch.autograd.grad(value, x)[0].isfinite().all()


def distance(n, width, **options):
    generator = torch.Generator().manual_seed(n + width)
    x, y = torch.randn(2, n, width, generator=generator)
    return float(gaussian_w2(projector=None, **options)({"feat": 1 + x}, {"feat": 3 * y}).value)


def test_the_size_does_not_change_with_the_batch_nor_the_width_and_the_published_one_does():
    values = {(n, width): distance(n, width) for n in (64, 256) for width in (64, 1024)}
    assert max(values.values()) < 1.15 * min(values.values())
    assert distance(16, 64) == pytest.approx(values[64, 64], rel=0.35)
    for (n, width), value in values.items():
        assert distance(n, width, parity=True) == pytest.approx(width * value, rel=1e-5)


def test_a_projector_of_ones_own_is_used():
    x, y = draw(widths=(3, 5))
    own = nn.Linear(3, 5).double()
    value = gaussian_w2(projector=own)({"feat": x}, {"feat": y}).value
    torch.testing.assert_close(value, gaussian_w2(projector=None)({"feat": own(x)}, {"feat": y}).value)


@pytest.mark.parametrize(
    "options", [{"covariance": "shared"}, {"projector": "conv1x1"}, {"student_dim": 0}, {"teacher_dim": -1}]
)
def test_bad_options_are_refused_at_construction(options):
    with pytest.raises(REFUSED):
        gaussian_w2(**options)


def test_widths_that_differ_without_a_projector_are_refused():
    x, y = draw(widths=(3, 5))
    with pytest.raises(ValueError, match="one width, got 3 and 5"):
        gaussian_w2(projector=None)({"feat": x}, {"feat": y})
