"""Variational information distillation against its definition, written again with plain loops."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from graphkd.losses import vid


def maps(n=2, channels=2, h=2, w=3, seed=0):
    return torch.randn(n, channels, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def learned(criterion, term="map"):
    """The three matrices and the variances' parameter of a term."""
    names = list(criterion.terms)
    build = criterion.student.builds[names.index(term)]
    layers = [layer.weight for layer in build.modules() if isinstance(layer, nn.Linear)]
    return [*layers, criterion.losses[term].cost.rho]


def drawn(criterion):
    """The same with all that it learned drawn at random."""
    with torch.no_grad():
        for parameter in criterion.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return criterion


def by_loops(student, teacher, first, second, third, rho, eps=1e-5):
    def times(matrix, row):
        return [sum(m * x for m, x in zip(line, row, strict=True)) for line in matrix]

    def above_zero(row):
        return [x.clamp_min(0) for x in row]

    found = []
    n, _, h, w = student.shape
    for i in range(n):
        for r in range(h):
            for c in range(w):
                mean = times(third, above_zero(times(second, above_zero(times(first, student[i, :, r, c])))))
                for k in range(len(rho)):
                    variance = (1 + rho[k].exp()).log() + eps
                    found.append(0.5 * ((teacher[i, k, r, c] - mean[k]) ** 2 / variance + variance.log()))
    return sum(found) / len(found)


@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_value_and_gradients_are_those_of_the_definition(eps):
    student, teacher = maps().requires_grad_(), maps(channels=4, seed=1)
    criterion = vid(eps=eps).double()
    criterion({"map": student}, {"map": teacher})
    inputs = [student, *learned(drawn(criterion))]
    assert [tuple(x.shape) for x in inputs[1:]] == [(4, 2), (4, 4), (4, 4), (4,)]
    value = criterion({"map": student}, {"map": teacher}).value
    wanted = by_loops(student, teacher, *inputs[1:], eps=eps)
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=0)
    gradients = [torch.autograd.grad(x, inputs) for x in (value, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("variance", [5.0, 0.01, 1000.0])
def test_variances_start_where_told(variance):
    criterion = vid(initial_variance=variance).double()
    student, teacher = {"map": torch.zeros(2, 3, 2, 3).double()}, {"map": maps(channels=4)}
    value = criterion(student, teacher).value
    entries = teacher["map"].flatten().tolist()
    wanted = sum(0.5 * (x**2 / variance + math.log(variance)) for x in entries) / len(entries)
    assert float(value.detach()) == pytest.approx(wanted, rel=1e-9)


def test_channels_that_predict_badly_get_a_large_variance():
    torch.manual_seed(0)
    noise = torch.randn(64, 2, 4, 4) * torch.tensor([0.3, 3.0]).reshape(1, 2, 1, 1)
    criterion = vid()
    features = {"map": torch.zeros(64, 3, 4, 4)}, {"map": noise}
    criterion(*features)
    optimiser = torch.optim.Adam(criterion.parameters(), lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        criterion(*features).value.backward()
        optimiser.step()
    variance = torch.nn.functional.softplus(learned(criterion)[-1]).detach()
    torch.testing.assert_close(variance, noise.square().mean((0, 2, 3)), rtol=0.05, atol=0)


def test_each_named_map_is_a_term_with_a_regressor_and_variances_of_its_own():
    student = {"low": maps(h=5), "map": maps(channels=3)}
    teacher = {"low": maps(channels=4, h=5, seed=1), "map": maps(channels=6, seed=1)}
    criterion = vid(("low", "map")).double()
    criterion(student_features=student, teacher_features=teacher)
    output = drawn(criterion)(student, teacher)
    assert list(output.terms) == ["low", "map"]
    for name, term in output.terms.items():
        torch.testing.assert_close(term, by_loops(student[name], teacher[name], *learned(criterion, name)))
    torch.testing.assert_close(output.value, output.terms["low"] + output.terms["map"])
    assert sum(p.numel() for p in criterion.parameters()) == (2 * 4 + 2 * 16 + 4) + (3 * 6 + 2 * 36 + 6)


@pytest.mark.parametrize("size", [1, 2])
def test_maps_of_different_sizes_are_averaged_to_a_common_one(size):
    student, teacher = maps(h=4, w=4), maps(channels=3, h=3, w=2)
    criterion = vid(size=size).double()
    value = criterion({"map": student}, {"map": teacher}).value
    small = (adaptive_avg_pool2d(x, size) for x in (student, teacher))
    torch.testing.assert_close(value, by_loops(*small, *learned(criterion)), rtol=1e-10, atol=0)


def test_the_value_does_not_grow_with_batch_or_positions():
    student, teacher = maps(), maps(channels=4, seed=1)
    criterion = vid().double()
    value = criterion({"map": student}, {"map": teacher}).value
    for repeats in ((16, 1, 1, 1), (1, 1, 4, 4)):
        more = [{"map": x.repeat(*repeats)} for x in (student, teacher)]
        torch.testing.assert_close(criterion(*more).value, value)


def test_an_optimiser_made_before_the_first_batch_trains_all_of_it():
    criterion = vid()
    optimiser = torch.optim.SGD(criterion.parameters(), lr=0.1)
    torch.manual_seed(0)
    criterion({"map": torch.randn(8, 3, 4, 4)}, {"map": torch.randn(8, 5, 4, 4)}).value.backward()
    before = copy.deepcopy(criterion.state_dict())
    optimiser.step()
    assert len(before) == 4
    assert all((x != before[name]).any() for name, x in criterion.state_dict().items())


def test_maps_of_different_sizes_are_refused_unless_a_size_is_given():
    with pytest.raises(ValueError, match="maps 'map' of one size, got 4 x 4 and 2 x 8: give a `size`"):
        vid()({"map": maps(h=4, w=4)}, {"map": maps(h=2, w=8)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": ()}, "maps needs a sequence of different names"),
        ({"size": 0}, "size needs an integer of at least 1"),
        ({"initial_variance": 0.0}, "initial_variance needs a finite number above 0"),
        ({"initial_variance": 0.1, "eps": 0.2}, "initial_variance needs a number above eps=0.2, got 0.1"),
        ({"eps": -1.0}, "eps needs a finite number of at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        vid(**options)
