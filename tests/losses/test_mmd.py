"""Maximum mean discrepancy against its definition, written again with plain loops."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from torch_geometric.data import Data

from graphkd.kernels import Gaussian
from graphkd.losses import mmd
from graphkd.losses.mmd import between_means

REFUSED = (ValueError, TypeCheckError)  # With shape checks on, a word outside a Literal does not get as far as ours.
KERNELS = ["gaussian", "linear", "polynomial"]


def draw(n=7, widths=(3, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=generator, dtype=torch.float64) + 0.3 * i for i, d in enumerate(widths)]


def kernel_by_loops(kernel, x, y, bandwidth):
    inner = sum(a * b for a, b in zip(x, y, strict=True))
    if kernel == "linear":
        return inner
    if kernel == "polynomial":
        return inner**2
    return (-sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / (2 * bandwidth**2)).exp()


def mmd_by_loops(x, y, kernel="gaussian", bandwidth=0.5, normalize=True):
    if normalize:
        x, y = ([row / sum(a**2 for a in row).sqrt() for row in rows] for rows in (x, y))

    def mean(left, right):
        total = sum(kernel_by_loops(kernel, a, b, bandwidth) for a in left for b in right)
        return total / (len(left) * len(right))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("kernel", "bandwidth"), [("gaussian", 0.5), ("gaussian", 2), *((k, 1) for k in KERNELS[1:])])
def test_value_and_gradient_are_the_definitions(kernel, bandwidth, normalize):
    x, y = draw()
    x.requires_grad_()
    criterion = mmd(kernel=kernel, bandwidth=bandwidth, normalize=normalize, projector=None)
    output = criterion({"feat": x}, {"feat": y})
    wanted = mmd_by_loops(x, y, kernel, bandwidth, normalize)
    torch.testing.assert_close(output.value, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(2 * output.terms["mmd"], wanted, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(value, x)[0] for value in (output.value, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_its_defaults_are_a_gaussian_kernel_of_width_a_half_on_rows_of_length_one_behind_a_linear_map():
    x, y = draw(widths=(3, 5))
    criterion = mmd().double()
    output = criterion({"feat": x}, {"feat": y})
    (weight, bias) = (p.detach() for p in criterion.parameters())
    assert weight.shape == (5, 3)
    torch.testing.assert_close(output.value, mmd_by_loops(x @ weight.T + bias, y), rtol=1e-10, atol=1e-12)


def test_sets_of_two_sizes_are_compared_by_their_means():
    x, y = draw()[0], draw(n=4, seed=1)[1]
    term = between_means(Gaussian(0.8))
    found = term.weight * term.loss(Data(x=x), Data(x=y))
    torch.testing.assert_close(found, mmd_by_loops(x, y, bandwidth=0.8, normalize=False), rtol=1e-10, atol=1e-12)


def test_the_linear_kernel_gives_the_squared_distance_of_the_means():
    x, y = draw()
    found = mmd(kernel="linear", normalize=False, projector=None)({"feat": x}, {"feat": y}).value
    torch.testing.assert_close(found, (x.mean(0) - y.mean(0)).square().sum())


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_pairing_is_ignored_and_equal_sets_are_at_distance_zero(kernel):
    x, y = draw()
    criterion = mmd(kernel=kernel, projector=None)
    value = criterion({"feat": x}, {"feat": y}).value
    assert value > 1e-3
    torch.testing.assert_close(criterion({"feat": x}, {"feat": y.flip(0)}).value, value)
    assert criterion({"feat": x}, {"feat": x.flip(0)}).value.abs() < 1e-12


@pytest.mark.parametrize("width", [64, 1024])
def test_the_size_does_not_change_with_the_batch_nor_much_with_the_width(width):
    values = []
    for n in (16, 64, 256):
        generator = torch.Generator().manual_seed(n)
        centres = torch.randn(2, 1, width, generator=torch.Generator().manual_seed(0))
        x, y = (centre + 0.5 * torch.randn(n, width, generator=generator) for centre in centres)
        values.append(float(mmd(projector=None)({"feat": x}, {"feat": y}).value))
    assert max(values) < 1.3 * min(values)
    assert 0.5 < values[-1] < 2


@pytest.mark.parametrize("n", [16, 64])
def test_two_draws_of_one_distribution_are_on_average_as_far_apart_as_the_docstring_says(n):
    criterion, found, kernels = mmd(projector=None, bandwidth=1.0), [], []
    for x, y in torch.randn(40, 2, n, 8, generator=torch.Generator().manual_seed(n)):
        found.append(float(criterion({"feat": x}, {"feat": y}).value))
        unit = torch.nn.functional.normalize(torch.cat([x, y]))
        kernels.append(float(torch.pdist(unit).square().div(-2).exp().mean()))
    assert sum(found) == pytest.approx(2 * (40 - sum(kernels)) / n, rel=0.1)


def test_a_projector_of_ones_own_is_used():
    x, y = draw(widths=(3, 5))
    own = nn.Linear(3, 5).double()
    value = mmd(projector=own)({"feat": x}, {"feat": y}).value
    torch.testing.assert_close(value, mmd(projector=None)({"feat": own(x)}, {"feat": y}).value)


@pytest.mark.parametrize(
    "options",
    [{"kernel": "cosine"}, {"bandwidth": 0.0}, {"projector": "conv1x1"}, {"student_dim": 0}, {"teacher_dim": -1}],
)
def test_bad_options_are_refused_at_construction(options):
    with pytest.raises(REFUSED):
        mmd(**options)


def test_widths_that_differ_without_a_projector_are_refused():
    x, y = draw(widths=(3, 5))
    with pytest.raises(ValueError, match="one width, got 3 and 5"):
        mmd(projector=None)({"feat": x}, {"feat": y})
