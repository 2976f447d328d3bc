"""Projectors against torch's own layers, and the matrix of a spectral one against its singular values."""

import copy

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from torch.nn.functional import conv2d, relu

from graphkd import Criterion, GraphLoss, Term
from graphkd.encoders import GraphEncoder
from graphkd.graphs import samples
from graphkd.measures import sqeuclidean
from graphkd.projectors import LinearProjector, MapProjector, SpectralLinear, linear, matched

REFUSED = (ValueError, TypeCheckError)  # With shape checks on, a word outside a Literal does not get as far as ours.
KINDS = {"conv1x1": [(3, 5, 1)], "bottleneck": [(3, 6, 1), (6, 6, 3), (6, 5, 1)]}
"""Channels before and after, and size, of each convolution from 3 to 5 channels with 6 hidden ones."""


def maps(n: int = 4, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, channels, 6, 7, generator=torch.Generator().manual_seed(seed))


def rows(n: int = 6, d: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def projector(kind: str, student: int | None = 3, teacher: int | None = 5) -> MapProjector:
    return MapProjector(kind, student, teacher, hidden=6)


# Feature maps


@pytest.mark.parametrize("kind", KINDS)
def test_maps_pass_the_convolutions_then_normalisation_and_relu(kind):
    model, x = projector(kind), maps()
    nn.init.normal_(model.norm.weight), nn.init.normal_(model.norm.bias)
    y = x
    for conv, (before, after, size) in zip(model.convs, KINDS[kind], strict=True):
        assert conv.weight.shape == (after, before, size, size)
        y = conv2d(y, conv.weight, conv.bias, padding=size // 2)
    variance, mean = torch.var_mean(y, (0, 2, 3), correction=0, keepdim=True)
    scale, shift = (p.reshape(1, -1, 1, 1) for p in (model.norm.weight, model.norm.bias))
    wanted = relu(scale * (y - mean) / (variance + model.norm.eps).sqrt() + shift)
    torch.testing.assert_close(model(x), wanted, atol=1e-5, rtol=1e-5)
    assert model(x).shape == (4, 5, 6, 7)


def test_a_bottleneck_has_256_hidden_channels_unless_told():
    sizes = [tuple(conv.weight.shape[:2]) for conv in MapProjector("bottleneck", 3, 5).convs]
    assert sizes == [(256, 3), (256, 256), (5, 256)]


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_the_maps_and_every_parameter(kind):
    model, x = projector(kind), maps().requires_grad_()
    (model(x) * torch.rand(4, 5, 6, 7)).sum().backward()
    assert x.grad.abs().max() > 0
    # A bias before the normalisation of its own channel shifts nothing.
    assert all(
        p.grad.abs().max() > 0 for name, p in model.named_parameters() if name != f"convs.{len(KINDS[kind]) - 1}.bias"
    )


WIDTHS = [(None, None), (None, 5), (3, None)]


@pytest.mark.parametrize(("student", "teacher"), WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_omitted_channels_are_read_off_the_first_batch(kind, student, teacher):
    lazy, explicit = projector(kind, student, teacher), projector(kind)
    lazy.match(5)
    assert lazy(maps()).shape == (4, 5, 6, 7)
    assert {name: p.shape for name, p in lazy.named_parameters()} == {
        name: p.shape for name, p in explicit.named_parameters()
    }
    lazy.load_state_dict(explicit.state_dict())
    for model in (lazy, explicit):
        model.eval()
    assert torch.equal(lazy(maps(seed=1)), explicit(maps(seed=1)))


@pytest.mark.parametrize("matched", [False, True])
@pytest.mark.parametrize(("student", "teacher"), WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_loads_into_a_fresh_lazy_projector(kind, student, teacher, matched):
    explicit, lazy = projector(kind), projector(kind, student, teacher)
    explicit(maps(seed=2))
    lazy.load_state_dict(explicit.state_dict())
    if matched:
        lazy.match(5)
    assert torch.equal(lazy(maps()), explicit(maps()))
    for model in (lazy, explicit):
        model.eval()
    assert torch.equal(lazy(maps(seed=1)), explicit(maps(seed=1)))


@pytest.mark.parametrize("kind", KINDS)
def test_channels_that_are_known_are_not_changed_by_a_match(kind):
    for model in (projector(kind), projector(kind, None, 5)):
        model.match(8)
        assert model(maps()).shape[1] == 5
    lazy = projector(kind, None, None)
    for channels in (5, 8):
        lazy.match(channels)
    assert lazy(maps()).shape[1] == 5
    lazy.match(8)
    assert lazy(maps()).shape[1] == 5


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimiser_made_before_the_first_batch_trains_a_lazy_projector(kind):
    model = projector(kind, None, None)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model.match(5)
    model(maps()).square().sum().backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser.step()
    assert all((p != before[name]).any() for name, p in model.named_parameters() if "weight" in name)


@pytest.mark.parametrize("options", [{"student_channels": 0}, {"teacher_channels": -1}, {"hidden": 0}])
def test_channels_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="channels needs an integer of at least 1, got"):
        MapProjector("bottleneck", **options)


def test_an_unknown_kind_is_refused():
    with pytest.raises(REFUSED):
        MapProjector("conv3x3")


# Rows


def acting(model: SpectralLinear, width: int = 5) -> torch.Tensor:
    """The matrix that acts, read off what the module does to the axes (e d)."""
    model.eval()
    with torch.no_grad():
        return (model(torch.eye(width)) - model(torch.zeros(1, width))).T


def trained(model: SpectralLinear, steps: int, lr: float = 0.1) -> SpectralLinear:
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    for step in range(steps):
        optimiser.zero_grad()
        (model(rows(seed=step)) - rows(d=4, seed=step)).square().sum().backward()
        optimiser.step()
    return model


@pytest.mark.parametrize("width", [None, 5])
def test_the_matrix_that_acts_has_spectral_norm_one_after_some_steps(width):
    model = trained(SpectralLinear(width, 4), 30)
    matrix = acting(model)
    assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1, abs=0.02)
    # It is the learned one but for its size.
    torch.testing.assert_close(
        matrix * torch.linalg.matrix_norm(model.linear.weight, 2), model.linear.weight, rtol=0.02, atol=0.02
    )
    assert not torch.allclose(torch.linalg.matrix_norm(model.linear.weight, 2), torch.ones(()), atol=0.05)


def test_more_iterations_find_the_norm_in_one_step():
    matrix = acting(trained(SpectralLinear(5, 4, num_iters=200), 1, lr=0))
    assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1, abs=1e-4)


def test_the_direction_is_iterated_on_as_often_as_asked_and_in_training_only():
    model = SpectralLinear(5, 4, num_iters=3)
    weight, left = model.linear.weight.detach(), model.direction.clone()
    assert float(left.norm()) == pytest.approx(1)
    model.eval()
    model(rows())
    assert torch.equal(model.direction, left)
    model.train()
    model(rows())
    for _ in range(3):
        right = weight.T @ left
        left = weight @ (right / right.norm())
        left = left / left.norm()
    torch.testing.assert_close(model.direction, left)
    right = weight.T @ left
    sigma = left @ weight @ (right / right.norm())
    torch.testing.assert_close(acting(model), weight / sigma)


def test_the_bias_is_added_after_the_division():
    model = SpectralLinear(5, 4)
    before = model(rows())
    with torch.no_grad():
        model.bias.copy_(torch.arange(4.0))
    model.eval()
    torch.testing.assert_close(model(torch.zeros(2, 5)), torch.arange(4.0).expand(2, 4))
    assert model.linear.bias is None
    assert torch.equal(before[0] * 0, torch.zeros(4))


def test_the_gradient_sees_the_division_with_the_directions_as_constants():
    model = SpectralLinear(3, 4).double().eval()
    left = model.direction
    right = model.linear.weight.detach().T @ left
    right = right / right.norm()

    def plain(x, weight, bias):
        return x @ weight.T / (left @ weight @ right) + bias

    x = rows(6, 3).double().requires_grad_()
    leaves = (x, model.linear.weight, model.bias)
    scale = torch.linspace(-1, 2, 24, dtype=torch.float64).reshape(6, 4)
    ours = torch.autograd.grad((scale * model(x)).sum(), leaves)
    torch.testing.assert_close(ours, torch.autograd.grad((scale * plain(*leaves)).sum(), leaves))
    assert not model.direction.requires_grad
    assert torch.autograd.gradcheck(model, x)


def test_at_the_norm_the_gradient_is_that_of_the_division_by_the_largest_singular_value():
    model = SpectralLinear(3, 4, num_iters=300).double()
    x, weight = rows(6, 3).double(), model.linear.weight
    scale = torch.linspace(-1, 2, 24, dtype=torch.float64).reshape(6, 4)
    (ours,) = torch.autograd.grad((scale * model(x)).sum(), weight)
    wanted = x @ weight.T / torch.linalg.matrix_norm(weight, 2)
    torch.testing.assert_close(ours, torch.autograd.grad((scale * wanted).sum(), weight)[0])


def test_a_spectral_map_reads_its_width_off_the_first_batch_and_loads_before_it():
    explicit = trained(SpectralLinear(5, 4), 5)
    lazy = SpectralLinear(None, 4)
    assert lazy(rows()).shape == (6, 4)
    assert lazy.linear.weight.shape == (4, 5)
    fresh = SpectralLinear(None, 4)
    for model in (lazy, fresh):
        model.load_state_dict(explicit.state_dict())
        assert torch.equal(acting(model), acting(explicit))
    assert sorted(explicit.state_dict()) == ["bias", "direction", "linear.weight"]


@pytest.mark.parametrize("num_iters", [0, -1])
def test_a_spectral_map_needs_an_iteration(num_iters):
    with pytest.raises(ValueError, match=f"num_iters needs an integer of at least 1, got {num_iters}"):
        SpectralLinear(5, 4, num_iters)


@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_map_of_unknown_width_is_lazy(bias):
    assert type(linear(5, 4, bias)) is nn.Linear
    lazy, explicit = linear(None, 4, bias), linear(5, 4, bias)
    lazy.load_state_dict(explicit.state_dict())
    assert torch.equal(lazy(rows()), explicit(rows()))
    assert (explicit.bias is not None) == bias


# From the student's width to the teacher's


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("student", "teacher"), [*WIDTHS, (3, 5)])
def test_a_linear_projector_is_a_linear_map_whatever_width_was_omitted(student, teacher, bias):
    model = LinearProjector(student, teacher, bias)
    model.match(5)
    x = rows(6, 3)
    y = model(x)
    assert y.shape == (6, 5)
    assert (model.linear.bias is not None) == bias
    assert torch.equal(y, nn.functional.linear(x, model.linear.weight, model.linear.bias))


def test_a_width_that_is_known_is_not_changed_by_a_match():
    for model in (LinearProjector(3, 5), LinearProjector(None, 5)):
        model.match(8)
        assert model(rows(6, 3)).shape == (6, 5)
    lazy = LinearProjector()
    for width in (5, 8):
        lazy.match(width)
    assert lazy(rows(6, 3)).shape == (6, 5)
    lazy.match(8)
    assert lazy(rows(6, 3)).shape == (6, 5)


@pytest.mark.parametrize("matches", [False, True])
@pytest.mark.parametrize(("student", "teacher"), WIDTHS)
def test_a_state_loads_into_a_fresh_linear_projector(student, teacher, matches):
    known, lazy = LinearProjector(3, 5), LinearProjector(student, teacher)
    lazy.load_state_dict(known.state_dict())
    if matches:
        lazy.match(5)
    assert torch.equal(lazy(rows(6, 3)), known(rows(6, 3)))


@pytest.mark.parametrize("options", [{"student_dim": 0}, {"teacher_dim": -1}])
def test_widths_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="_dim needs an integer of at least 1"):
        LinearProjector(**options)


def criterion_with(projector, name="feat", build=samples):
    criterion = Criterion(GraphEncoder(build, projector), GraphEncoder(build), {"it": Term(GraphLoss(sqeuclidean))})
    matched(criterion, name)
    return criterion


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("shape", [(4, 7), (4, 7, 1, 1)])
def test_a_criterion_tells_its_projector_how_wide_the_teacher_is(shape, named):
    projector = LinearProjector()
    student, teacher = {"feat": torch.rand(4, 3)}, {"feat": torch.rand(shape)}
    criterion = criterion_with(projector)
    if named:
        criterion(student_features=student, teacher_features=teacher)
    else:
        criterion(student, teacher)
    assert projector.linear.weight.shape == (7, 3)


@pytest.mark.parametrize("feature", [torch.rand(4), torch.rand(4, 7, 2, 2), torch.rand(4, 7, 5)])
def test_a_feature_that_is_no_vector_leaves_a_linear_projector_as_it_is(feature):
    projector = LinearProjector()
    criterion = criterion_with(projector)
    with pytest.raises(ValueError, match="needs the teacher's width: give it, or vectors"):
        criterion({"feat": torch.rand(4, 3)}, {"feat": feature})
    criterion({"feat": torch.rand(4, 3)}, {"feat": torch.rand(4, 5)})
    assert projector.linear.weight.shape == (5, 3)


def test_a_feature_that_is_no_map_leaves_a_projector_of_maps_as_it_is():
    projector = MapProjector("conv1x1")
    criterion = criterion_with(projector)
    with pytest.raises((ValueError, RuntimeError, TypeCheckError)):
        criterion({"feat": torch.rand(4, 3)}, {"feat": torch.rand(4, 7)})
    assert not projector.convs[-1].out_channels


def test_a_teacher_without_the_feature_is_told_which_there_are():
    projector = LinearProjector()
    criterion = criterion_with(projector)
    with pytest.raises(KeyError, match="needs a feature named 'feat', got .'map'."):
        criterion({"feat": torch.rand(4, 3)}, {"map": torch.rand(4, 7, 2, 2)})
    criterion({"feat": torch.rand(4, 3)}, {"feat": torch.rand(4, 5)})
    assert projector.linear.weight.shape == (5, 3)


def test_a_projector_that_waits_for_its_widths_can_be_copied():
    waiting = MapProjector("conv1x1").double().eval()
    copied = copy.deepcopy(waiting)
    for projector, channels in ((waiting, 5), (copied, 7)):
        projector.match(channels)
        assert projector(torch.zeros(2, 3, 4, 4, dtype=torch.float64)).shape == (2, channels, 4, 4)
        assert type(projector.norm) is nn.BatchNorm2d
        assert not projector.norm.training
    again = copy.deepcopy(copied)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), copied.parameters(), strict=True))
