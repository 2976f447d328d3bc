"""Neuron selectivity transfer against its definition, written again with plain loops."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.nn.functional import adaptive_avg_pool2d

from graphkd.losses import nst

REFUSED = (ValueError, TypeCheckError)  # With shape checks on, a word outside a Literal does not get as far as ours.


def draw(n=2, channels=(3, 4), size=(2, 3), seed=0):
    """Maps after a ReLU, of which one channel of one image answers to nothing."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(n, c, *size, generator=generator, dtype=torch.float64).relu() for c in channels)
    student[0, 1] = 0
    return student, teacher


def kernel_by_loops(kernel, x, y, bandwidth):
    inner = sum(a * b for a, b in zip(x, y, strict=True))
    if kernel == "gaussian":
        return (-sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / (2 * bandwidth**2)).exp()
    return inner**2 if kernel == "polynomial" else inner


def unit_by_loops(channel):
    flat = [position for row in channel for position in row]
    length = sum(a**2 for a in flat)
    return [a / length.sqrt() for a in flat] if length > 0 else flat


def nst_by_loops(student, teacher, kernel="polynomial", bandwidth=1.0):
    values = []
    for ours, theirs in zip(student, teacher, strict=True):
        x, y = ([unit_by_loops(channel) for channel in image] for image in (ours, theirs))

        def mean(left, right):
            return sum(kernel_by_loops(kernel, a, b, bandwidth) for a in left for b in right) / len(left) / len(right)

        values.append(mean(x, x) + mean(y, y) - 2 * mean(x, y))
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("kernel", "bandwidth"), [("polynomial", 1), ("linear", 1), ("gaussian", 1), ("gaussian", 0.6)]
)
def test_value_and_gradient_are_the_definitions(kernel, bandwidth):
    student, teacher = draw()
    student.requires_grad_()
    output = nst(kernel=kernel, bandwidth=bandwidth)({"map": student}, {"map": teacher})
    wanted = nst_by_loops(student, teacher, kernel, bandwidth)
    torch.testing.assert_close(output.value, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(2 * output.terms["map"], wanted, rtol=1e-10, atol=1e-12)
    # Of a channel without length the direction is not defined: there ours is that of an unscaled one.
    gradients = [torch.autograd.grad(value, student)[0] for value in (output.value, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_by_default_it_is_the_polynomial_kernel_on_the_map():
    student, teacher = draw()
    output = nst()({"map": student}, {"map": teacher})
    torch.testing.assert_close(output.value, nst_by_loops(student, teacher), rtol=1e-10, atol=1e-12)


def test_several_maps_have_a_term_each():
    first, second = draw(), draw(channels=(5, 2), size=(3, 3), seed=1)
    student, teacher = ({"early": early, "late": late} for early, late in zip(first, second, strict=True))
    output = nst(maps=("early", "late"))(student, teacher)
    torch.testing.assert_close(2 * output.terms["early"], nst_by_loops(*first), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(2 * output.terms["late"], nst_by_loops(*second), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.value, nst_by_loops(*first) + nst_by_loops(*second), rtol=1e-10, atol=1e-12)


def test_maps_of_two_sizes_are_averaged_to_one_that_is_given_and_refused_else():
    student, teacher = draw(size=(2, 2))[0], draw(size=(4, 4))[1]
    found = nst(size=2)({"map": student}, {"map": teacher}).value
    wanted = nst_by_loops(student, adaptive_avg_pool2d(teacher, 2))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="needs maps 'map' of one size, got 2 x 2 and 4 x 4"):
        nst()({"map": student}, {"map": teacher})
    with pytest.raises(ValueError, match="of one size, got 2 x 3 and 3 x 2"):
        nst()({"map": draw(size=(2, 3))[0]}, {"map": draw(size=(3, 2))[1]})


def test_images_are_paired_and_channels_are_not():
    student, teacher = draw(n=3)
    value = nst()({"map": student}, {"map": teacher}).value
    torch.testing.assert_close(nst()({"map": student.flip(1)}, {"map": teacher}).value, value)
    torch.testing.assert_close(nst()({"map": student}, {"map": 3 * teacher.flip(1)}).value, value)
    assert (nst()({"map": student}, {"map": teacher.flip(0)}).value - value).abs() > 1e-3
    assert nst()({"map": student}, {"map": student.flip(1)}).value.abs() < 1e-12


def test_the_size_does_not_change_with_batch_channels_or_positions():
    def value(n, channels, size):
        generator = torch.Generator().manual_seed(n + channels + size)

        def network(shift):
            seen = torch.rand(n, 1, size, size, generator=generator) > 0.5 + shift
            return seen + 0.1 * torch.rand(n, channels, size, size, generator=generator)

        return float(nst()({"map": network(0.0)}, {"map": network(0.3)}).value)

    base = value(16, 8, 16)
    for n, channels, size in ((64, 8, 16), (256, 8, 16), (16, 64, 16), (16, 8, 32)):
        assert value(n, channels, size) == pytest.approx(base, rel=0.15)


@pytest.mark.parametrize(
    "options",
    [{"maps": ()}, {"maps": "map"}, {"maps": ("map", "map")}, {"kernel": "cosine"}, {"bandwidth": 0}, {"size": 0}],
)
def test_bad_options_are_refused_at_construction(options):
    with pytest.raises(REFUSED):
        nst(**options)


def test_features_that_are_no_maps_are_refused():
    with pytest.raises(ValueError, match="feature 'map' needs feature maps"):
        nst()({"map": torch.rand(2, 3)}, {"map": torch.rand(2, 3)})
    with pytest.raises(KeyError, match="map"):
        nst()({"feat": torch.rand(2, 3)}, {"feat": torch.rand(2, 3)})
