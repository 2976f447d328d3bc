"""What all backbones have in common: published sizes and names, shapes, and modules to take features from."""

import math
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from layouts import LAYOUTS
from torch import nn

from graphkd import models
from graphkd.features import FeatureExtractor


class Taps(NamedTuple):
    head: str
    activated: dict[str, tuple[int, int]]  # channels and height of the maps after a ReLU, for images of 32 pixels
    linear: dict[str, tuple[int, int]]


def stages(*widths: int) -> dict[str, tuple[int, int]]:
    return {f"layer{i}": (width, 64 >> i) for i, width in enumerate(widths, 1)}


def resnet(*widths: int) -> Taps:
    return Taps("fc", {"relu": (widths[0], 32)} | stages(*widths[1:]), {})


def four_stages(*widths: int) -> Taps:
    return Taps("linear", {"relu": (64, 32)} | stages(*widths), {})


def wrn(k: int) -> Taps:
    first, second, third = (16 * k, 32), (32 * k, 16), (64 * k, 8)
    activated = {"block2.layer.0.relu1": first, "block3.layer.0.relu1": second, "relu": third}
    return Taps("fc", activated, {"block1": first, "block2": second, "block3": third})


VGG_MAPS = [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)]
VGG = Taps("classifier", {f"block{i}": shape for i, shape in enumerate(VGG_MAPS)}, {})
MOBILE = Taps(
    "classifier",
    {"conv1": (16, 16), "conv2": (1280, 2)},
    {"blocks.1": (12, 16), "blocks.2": (16, 8), "blocks.4": (48, 4), "blocks.6": (160, 2)},
)
SHUFFLE_V1 = Taps("linear", {"relu": (24, 32), "layer1": (240, 16), "layer2": (480, 8), "layer3": (960, 4)}, {})
SHUFFLE_V2 = Taps(
    "linear",
    {"relu": (24, 32), "layer1": (116, 16), "layer2": (232, 8), "layer3": (464, 4), "relu2": (1024, 4)},
    {},
)
TAPS = {
    **{f"resnet{depth}": resnet(16, 16, 32, 64) for depth in (8, 14, 20, 32, 44, 56, 110)},
    "resnet8x4": resnet(32, 64, 128, 256),
    "resnet32x4": resnet(32, 64, 128, 256),
    "ResNet18": four_stages(64, 128, 256, 512),
    "ResNet34": four_stages(64, 128, 256, 512),
    "ResNet50": four_stages(256, 512, 1024, 2048),
    "wrn_16_1": wrn(1),
    "wrn_16_2": wrn(2),
    "wrn_40_1": wrn(1),
    "wrn_40_2": wrn(2),
    **{f"vgg{depth}": VGG for depth in (8, 11, 13, 16, 19)},
    "mobilenetv2": MOBILE,
    "shufflenet_v1": SHUFFLE_V1,
    "shufflenet_v2": SHUFFLE_V2,
}
# One of each family is enough where only the family's code matters.
FAMILIES = ["resnet14", "resnet8x4", "ResNet18", "wrn_16_1", "wrn_16_2", "vgg8", "mobilenetv2", "shufflenet_v1"]
FAMILIES += ["shufflenet_v2"]
EACH = [name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow) for name in TAPS]
# For CIFAR-10, in millions: He et al., arXiv:1512.03385, table 6 (without projections); Zagoruyko and
# Komodakis, arXiv:1605.07146, table 4.
MILLIONS = {"resnet20": 0.27, "resnet32": 0.46, "resnet44": 0.66, "resnet56": 0.85, "resnet110": 1.7}
MILLIONS |= {"wrn_40_1": 0.6, "wrn_40_2": 2.2}
# For CIFAR-100, as users of weiaicunzai/pytorch-cifar100 report them; its networks have the same stem.
EXACT = {"ResNet18": 11_220_132, "ResNet50": 23_705_252}


def empty(name: str, num_classes: int = 100) -> nn.Module:
    """A model with names and shapes, but no numbers."""
    with torch.device("meta"):
        return getattr(models, name)(num_classes=num_classes)


def features(name: str, taps: list[str], images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits and features of a network with random weights, in train mode."""
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=5)
    return FeatureExtractor(model, {tap: tap for tap in taps})(images)


@pytest.mark.parametrize("name", TAPS)
def test_names_shapes_and_size_are_those_of_published_state_dicts(name):
    model = empty(name)
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == LAYOUTS[name]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    learnt = sum(math.prod(shape) for key, shape in LAYOUTS[name].items() if not key.endswith(statistics))
    assert sum(parameter.numel() for parameter in model.parameters()) == learnt == EXACT.get(name, learnt)


@pytest.mark.parametrize("name", MILLIONS)
def test_size_is_the_published_one_for_ten_classes(name):
    sizes = {key: parameter.numel() for key, parameter in empty(name, 10).named_parameters()}
    size = sum(number for key, number in sizes.items() if "downsample" not in key)
    digits = len(str(MILLIONS[name]).split(".")[1])
    assert round(size / 1e6, digits) == MILLIONS[name]


@pytest.mark.parametrize("name", EACH)
def test_taps_have_the_shapes_of_their_stages(name):
    head, activated, linear = TAPS[name]
    maps = activated | linear
    with torch.no_grad():
        logits, found = features(name, [*maps, "pool", head], torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 5)
    for tap, (channels, height) in maps.items():
        assert found[tap].shape == (2, channels, height, height), tap
        assert (tap in activated) == bool(found[tap].min() >= 0), tap
        assert found[tap].max() > 0, tap
    assert found["pool"].dim() == 2
    torch.testing.assert_close(found[head], logits, rtol=0, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_reads_the_pooled_last_map(name):
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=5)
    head, activated, _ = TAPS[name]
    last = list(activated)[-1]
    extract = FeatureExtractor(model, {"map": last, "pool": "pool"})
    with torch.no_grad():
        logits, found = extract(torch.randn(3, 3, 16, 16))
        torch.testing.assert_close(model.get_submodule(head)(found["pool"]), logits, rtol=0, atol=0)
    torch.testing.assert_close(found["map"].mean((2, 3)), found["pool"])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_and_every_tap_gets_a_gradient(name):
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=5)
    taps = [*TAPS[name].activated, *TAPS[name].linear, "pool"]
    output, found = FeatureExtractor(model, {tap: tap for tap in taps})(torch.randn(4, 3, 16, 16))
    for x in found.values():
        x.retain_grad()
    output.square().sum().backward()
    for tap, x in found.items():
        assert x.grad is not None and x.grad.abs().sum() > 0, tap
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        # What batch normalisation subtracts again has no gradient.
        if not (name == "vgg8" and key.endswith(".0.bias")):
            assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", FAMILIES)
def test_no_activation_works_in_place(name):
    assert not any(getattr(module, "inplace", False) for module in empty(name).modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_images_may_be_of_other_sizes(name):
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=3).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 40, 32)).shape == (1, 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_at_least_one_class_is_needed(name):
    with pytest.raises(ValueError, match="num_classes needs an integer of at least 1, got 0"):
        getattr(models, name)(num_classes=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_activations_keep_their_size_in_a_new_network(name):
    torch.manual_seed(0)
    convolutions = [module for module in getattr(models, name)().modules() if isinstance(module, nn.Conv2d)]
    for module in convolutions:
        fan_out = module.out_channels * module.kernel_size[0] ** 2
        expected = (2 / fan_out) ** 0.5
        if name.startswith("shufflenet"):
            # PyTorch's own: uniform within 1 / sqrt(fan in).
            expected = (1 / (3 * module.weight[0].numel())) ** 0.5
        tolerance = 5 / module.weight.numel() ** 0.5
        assert module.weight.std().item() == pytest.approx(expected, rel=tolerance)


def test_all_are_tested():
    functions = {name for name, value in vars(models).items() if callable(value) and not isinstance(value, type)}
    assert functions == {*TAPS, "load_weights"} == {*LAYOUTS, "load_weights"}


@pytest.mark.slow
def test_importing_models_leaves_torchvision_alone():
    code = "import sys, graphkd.models; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
