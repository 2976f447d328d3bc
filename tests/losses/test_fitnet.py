"""FitNet against its definition, written again with plain loops."""

import copy

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from graphkd.losses import fitnet

REFUSED = (ValueError, TypeCheckError)  # With shape checks on, a word outside a Literal does not get as far as ours.


def maps(n=3, channels=2, h=3, w=4, seed=0):
    return torch.randn(n, channels, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean_of_squares(ours, theirs):
    """Over all entries, one by one."""
    entries = list(zip(ours.flatten(), theirs.flatten(), strict=True))
    return sum((a - b) ** 2 for a, b in entries) / len(entries)


def regressed(x, conv, norm):
    """A 1 x 1 convolution, batch normalisation and ReLU, number by number."""
    n, channels, h, w = x.shape
    found = []
    for k in range(len(conv.weight)):
        values = {
            (i, r, c): conv.bias[k] + sum(conv.weight[k, j, 0, 0] * x[i, j, r, c] for j in range(channels))
            for i in range(n)
            for r in range(h)
            for c in range(w)
        }
        mean = sum(values.values()) / len(values)
        variance = sum((v - mean) ** 2 for v in values.values()) / len(values)
        scaled = [norm.weight[k] * (v - mean) / (variance + norm.eps) ** 0.5 + norm.bias[k] for v in values.values()]
        found.append(torch.stack([v.clamp_min(0) for v in scaled]).reshape(n, h, w))
    return torch.stack(found, 1)


def test_on_maps_value_and_gradients_are_those_of_the_definition():
    criterion = fitnet(2, 5).double()
    student, teacher = maps().requires_grad_(), maps(channels=5, seed=1)
    (projector,) = criterion.student.build.children()
    (conv,) = projector.convs
    nn.init.normal_(projector.norm.weight), nn.init.normal_(projector.norm.bias)
    value = criterion({"map": student}, {"map": teacher}).value
    wanted = mean_of_squares(regressed(student, conv, projector.norm), teacher)
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=0)
    inputs = [student, conv.weight, projector.norm.weight, projector.norm.bias]
    gradients = [torch.autograd.grad(x, inputs) for x in (value, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-13)


def test_on_vectors_value_and_gradients_are_those_of_the_definition():
    criterion = fitnet(4, 3, feature="feat").double()
    student, teacher = torch.randn(5, 4, dtype=torch.float64).requires_grad_(), torch.randn(5, 3, dtype=torch.float64)
    (layer,) = (module for module in criterion.modules() if isinstance(module, nn.Linear))
    value = criterion({"feat": student}, {"feat": teacher}).value
    rows = [[layer.bias[k] + sum(layer.weight[k, j] * x[j] for j in range(4)) for k in range(3)] for x in student]
    wanted = mean_of_squares(torch.stack([torch.stack(row) for row in rows]), teacher)
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=0)
    inputs = [student, layer.weight, layer.bias]
    torch.testing.assert_close(*(torch.autograd.grad(x, inputs) for x in (value, wanted)), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("feature", ["map", "feat"])
def test_omitted_widths_are_read_off_the_first_batch(feature):
    student, teacher = ({"map": maps(channels=c), "feat": torch.randn(3, c, dtype=torch.float64)} for c in (2, 5))
    lazy, explicit = fitnet(feature=feature).double(), fitnet(2, 5, feature=feature).double()
    lazy(student_features=student, teacher_features=teacher)
    lazy.load_state_dict(explicit.state_dict())
    torch.testing.assert_close(lazy(student, teacher).value, explicit(student, teacher).value)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_maps_of_different_sizes_are_averaged_to_a_common_one(size):
    student, teacher = maps(h=4, w=4), maps(h=6, w=3, seed=1)
    value = fitnet(size=size, regressor=nn.Identity())({"map": student}, {"map": teacher}).value
    wanted = mean_of_squares(*(adaptive_avg_pool2d(x, size) for x in (student, teacher)))
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=0)
    assert fitnet(size=size).double()({"map": student}, {"map": teacher}).value.isfinite()


def test_a_regressor_of_ones_own_may_change_the_size():
    student, teacher = maps(h=6, w=8), maps(channels=5)
    strided = nn.Conv2d(2, 5, 3, stride=2, padding=1).double()
    value = fitnet(regressor=strided)({"map": student}, {"map": teacher}).value
    torch.testing.assert_close(value, mean_of_squares(strided(student), teacher), rtol=1e-10, atol=0)


@pytest.mark.parametrize("repeats", [(16, 1, 1, 1), (1, 8, 1, 1), (1, 1, 4, 4)])
def test_the_value_does_not_grow_with_batch_channels_or_positions(repeats):
    criterion = fitnet(regressor=nn.Identity())
    student, teacher = maps(), maps(seed=1)
    more = [{"map": x.repeat(*repeats)} for x in (student, teacher)]
    torch.testing.assert_close(criterion(*more).value, criterion({"map": student}, {"map": teacher}).value)


def test_positions_and_samples_are_paired():
    student = maps()
    criterion = fitnet(regressor=nn.Identity())
    assert float(criterion({"map": student}, {"map": student}).value) == 0
    for turned in (student.flip(0), student.flip(2), student.flip(3), student.flip(1)):
        wanted = mean_of_squares(student, turned)
        torch.testing.assert_close(criterion({"map": student}, {"map": turned}).value, wanted)


def test_maps_of_different_sizes_are_refused_unless_a_size_is_given():
    with pytest.raises(ValueError, match="the teacher's size, 2 x 8, behind the regressor, got 4 x 4: give"):
        fitnet().double()({"map": maps(h=4, w=4)}, {"map": maps(h=2, w=8)})
    copied = copy.deepcopy(fitnet(2, 2).double())
    with pytest.raises(ValueError, match="size, 2 x 8, behind the regressor, got 4 x 4"):
        copied(student_features={"map": maps(h=4, w=4)}, teacher_features={"map": maps(h=2, w=8)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature": "tokens"}, "feature needs one of map, feat|Type-check error"),
        ({"size": 0}, "size needs an integer of at least 1"),
        ({"feature": "feat", "size": 2}, "size needs feature maps, got feature='feat' with size=2"),
        ({"student_dim": 0, "teacher_dim": 3}, "channels needs an integer of at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(REFUSED, match=message):
        fitnet(**options)


def test_widths_that_differ_behind_the_regressor_are_refused():
    with pytest.raises(ValueError, match="one width, got 2 and 5"):
        fitnet(regressor=nn.Identity())({"map": maps()}, {"map": maps(channels=5)})


def test_a_regressor_of_ones_own_is_held_to_the_teachers_height_and_width():
    student, teacher = {"map": torch.randn(4, 3, 4, 8)}, {"map": torch.randn(4, 5, 8, 4)}
    with pytest.raises(ValueError, match="needs maps of the teacher's size, 8 x 4, behind the regressor, got 4 x 8"):
        fitnet(regressor=nn.Conv2d(3, 5, 1))(student, teacher)
    with pytest.raises(ValueError, match="needs maps of the teacher's size, 2 x 2, behind the regressor, got 1 x 1"):
        fitnet(regressor=nn.Conv2d(3, 5, 2), size=2)(student, teacher)
