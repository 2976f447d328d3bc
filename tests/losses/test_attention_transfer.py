"""Attention transfer against its definition, written again with plain loops."""

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from graphkd.losses import attention_transfer


def maps(n=3, channels=2, h=3, w=4, seed=0):
    return torch.randn(n, channels, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(**options):
    return maps(**options).requires_grad_(), maps(**{"channels": 5, **options}, seed=1)


def attention(sample, p):
    channels, h, w = sample.shape
    found = [sum(abs(sample[k, r, c]) ** p for k in range(channels)) / channels for r in range(h) for c in range(w)]
    length = sum(q**2 for q in found) ** 0.5
    return [q / length for q in found]


def by_loops(student, teacher, p=2, over_positions=False):
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        gaps = [(a - b) ** 2 for a, b in zip(attention(ours, p), attention(theirs, p), strict=True)]
        total = total + sum(gaps) / (len(gaps) if over_positions else 1)
    return total / len(student)


@pytest.mark.parametrize("p", [1, 1.5, 2, 4])
@pytest.mark.parametrize("parity", [False, True])
def test_value_and_gradient_are_those_of_the_definition(p, parity):
    student, teacher = pair()
    value = attention_transfer(p=p, parity=parity)({"map": student}, {"map": teacher}).value
    wanted = by_loops(student, teacher, p, over_positions=parity)
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (value, wanted)), rtol=1e-10, atol=1e-13)


def test_each_named_map_is_a_term():
    (student, teacher), (low, lower) = pair(), pair(channels=3, h=6, w=5)
    output = attention_transfer(("low", "map"))({"map": student, "low": low}, {"map": teacher, "low": lower})
    assert list(output.terms) == ["low", "map"]
    torch.testing.assert_close(output.terms["low"], by_loops(low, lower))
    torch.testing.assert_close(output.terms["map"], by_loops(student, teacher))
    torch.testing.assert_close(output.value, by_loops(low, lower) + by_loops(student, teacher))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_maps_of_different_sizes_are_averaged_to_a_common_one(size):
    student, teacher = maps(h=4, w=6), maps(channels=5, h=3, w=3)
    value = attention_transfer(size=size)({"map": student}, {"map": teacher}).value
    wanted = by_loops(*(adaptive_avg_pool2d(x, size) for x in (student, teacher)))
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-12)


def test_it_is_two_where_the_attentions_do_not_meet():
    student, teacher = torch.zeros(2, 4, 3, 2, 2).double()
    student[:, :, 0], teacher[:, :, 1] = 7.0, 0.1
    assert float(attention_transfer()({"map": student}, {"map": teacher}).value) == pytest.approx(2)


@pytest.mark.parametrize("n", [16, 64, 256])
@pytest.mark.parametrize("width", [64, 1024])
def test_its_size_does_not_change_with_batch_and_width(n, width):
    student, teacher = torch.rand(2, n, 4, 4, 4)
    wide = student.repeat(1, width // 4, 1, 1)
    value = attention_transfer()({"map": wide}, {"map": teacher}).value
    torch.testing.assert_close(value, attention_transfer()({"map": student}, {"map": teacher}).value)
    assert 0.25 < float(value) < 0.4


def test_its_size_does_not_change_with_the_size_of_the_maps_but_that_of_the_released_code_does():
    student, teacher = pair()
    small, large = {}, {}
    for times, found in ((1, small), (5, large)):
        features = [{"map": x.repeat_interleave(times, 2).repeat_interleave(times, 3)} for x in (student, teacher)]
        for parity in (False, True):
            found[parity] = attention_transfer(parity=parity)(*features).value
    torch.testing.assert_close(large[False], small[False])
    torch.testing.assert_close(large[True], small[True] / 25)


@pytest.mark.parametrize("p", [1, 1.5, 2])
def test_dead_maps_have_a_finite_gradient(p):
    student, teacher = torch.zeros(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    student[0] = teacher[0]
    student.requires_grad_()
    value = attention_transfer(p=p)({"map": student}, {"map": teacher}).value
    (gradient,) = torch.autograd.grad(value, student)
    assert float(value.detach()) == pytest.approx(2 / 3, abs=1e-5)
    assert gradient.isfinite().all()


def test_maps_of_different_sizes_are_refused_unless_a_size_is_given():
    features = [{"low": maps(h=2, w=2), "map": maps(h=h, w=8)} for h in (4, 2)]
    with pytest.raises(ValueError, match="maps 'map' of one size, got 4 x 8 and 2 x 8: give a `size`"):
        attention_transfer(("low", "map"))(*features)
    with pytest.raises(ValueError, match="got 4 x 8 and 2 x 8"):
        attention_transfer()(features[0], teacher_features=features[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": ()}, "maps needs a sequence of different names without dots, got \\(\\)"),
        ({"maps": "map"}, "maps needs a sequence of different names without dots, got 'map'"),
        ({"maps": ("map", "map")}, "maps needs a sequence of different names"),
        ({"maps": ("body.0",)}, "maps needs a sequence of different names without dots"),
        ({"p": 0.5}, "p needs a number of at least 1"),
        ({"p": float("nan")}, "p needs a finite number"),
        ({"size": 0}, "size needs an integer of at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        attention_transfer(**options)


def test_a_map_that_is_not_there_is_named():
    with pytest.raises(KeyError, match="needs a feature named 'low', got \\['map'\\]"):
        attention_transfer(("low",))({"map": maps()}, {"map": maps()})
