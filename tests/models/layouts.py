"""The names and shapes of RepDistiller's state dicts, written down from its models/*.py, which mdistiller keeps.

Commit eedab9d of RepDistiller, b13aecc for models/mobilenetv2.py; e8c5bb3 of mdistiller (mdistiller/models/cifar).
"""

import math

import torch
from torch.nn import functional as F

Layout = dict[str, tuple[int, ...]]

VGG = {
    "vgg8": (1, 1, 1, 1, 1),
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


def norm(name: str, channels: int) -> Layout:
    learnt = {f"{name}.{each}": (channels,) for each in ("weight", "bias", "running_mean", "running_var")}
    return {**learnt, f"{name}.num_batches_tracked": ()}


def conv(name: str, out_channels: int, in_channels: int, size: int) -> Layout:
    return {f"{name}.weight": (out_channels, in_channels, size, size)}


def linear(name: str, classes: int, features: int) -> Layout:
    return {f"{name}.weight": (classes, features), f"{name}.bias": (classes,)}


def resnet(depth: int, widths: tuple[int, ...], classes: int = 100) -> Layout:
    layout = conv("conv1", widths[0], 3, 3) | norm("bn1", widths[0])
    for stage in (1, 2, 3):
        for i in range((depth - 2) // 6):
            block, width = f"layer{stage}.{i}", widths[stage]
            before = widths[stage - 1] if i == 0 else width
            layout |= conv(f"{block}.conv1", width, before, 3) | norm(f"{block}.bn1", width)
            layout |= conv(f"{block}.conv2", width, width, 3) | norm(f"{block}.bn2", width)
            if i == 0 and (stage > 1 or before != width):
                layout |= conv(f"{block}.downsample.0", width, before, 1) | norm(f"{block}.downsample.1", width)
    return layout | linear("fc", classes, widths[3])


def four_stages(blocks: tuple[int, ...], bottleneck: bool, classes: int = 100) -> Layout:
    layout, before = conv("conv1", 64, 3, 3) | norm("bn1", 64), 64
    for stage, width in enumerate((64, 128, 256, 512)):
        after = 4 * width if bottleneck else width
        for i in range(blocks[stage]):
            block = f"layer{stage + 1}.{i}"
            layout |= conv(f"{block}.conv1", width, before, 1 if bottleneck else 3) | norm(f"{block}.bn1", width)
            layout |= conv(f"{block}.conv2", width, width, 3) | norm(f"{block}.bn2", width)
            if bottleneck:
                layout |= conv(f"{block}.conv3", after, width, 1) | norm(f"{block}.bn3", after)
            if i == 0 and (stage > 0 or before != after):
                layout |= conv(f"{block}.shortcut.0", after, before, 1) | norm(f"{block}.shortcut.1", after)
            before = after
    return layout | linear("linear", classes, before)


def wrn(depth: int, widen: int, classes: int = 100) -> Layout:
    layout, before = conv("conv1", 16, 3, 3), 16
    for group, width in ((1, 16 * widen), (2, 32 * widen), (3, 64 * widen)):
        for i in range((depth - 4) // 6):
            block = f"block{group}.layer.{i}"
            layout |= norm(f"{block}.bn1", before) | conv(f"{block}.conv1", width, before, 3)
            layout |= norm(f"{block}.bn2", width) | conv(f"{block}.conv2", width, width, 3)
            if before != width:
                layout |= conv(f"{block}.convShortcut", width, before, 1)
            before = width
    return layout | norm("bn1", before) | linear("fc", classes, before)


def vgg(convolutions: tuple[int, ...], classes: int = 100) -> Layout:
    layout, before = {}, 3
    for stage, width in enumerate((64, 128, 256, 512, 512)):
        for i in range(convolutions[stage]):
            layout |= conv(f"block{stage}.{3 * i}", width, before, 3) | {f"block{stage}.{3 * i}.bias": (width,)}
            layout |= norm(f"block{stage}.{3 * i + 1}", width)
            before = width
    return layout | linear("classifier", classes, 512)


MOBILE = [
    (0, 0, 16, 8, 1),
    (1, 0, 8, 12, 6),
    (1, 1, 12, 12, 6),
    (2, 0, 12, 16, 6),
    (2, 1, 16, 16, 6),
    (2, 2, 16, 16, 6),
    (3, 0, 16, 32, 6),
    (3, 1, 32, 32, 6),
    (3, 2, 32, 32, 6),
    (3, 3, 32, 32, 6),
    (4, 0, 32, 48, 6),
    (4, 1, 48, 48, 6),
    (4, 2, 48, 48, 6),
    (5, 0, 48, 80, 6),
    (5, 1, 80, 80, 6),
    (5, 2, 80, 80, 6),
    (6, 0, 80, 160, 6),
]
"""Group, number, channels in and out, and expansion of each block of the half-width MobileNetV2."""


def mobile_half(classes: int = 100) -> Layout:
    layout = conv("conv1.0", 16, 3, 3) | norm("conv1.1", 16)
    for group, i, before, after, expansion in MOBILE:
        block, inner = f"blocks.{group}.{i}.conv", before * expansion
        layout |= conv(f"{block}.0", inner, before, 1) | norm(f"{block}.1", inner)
        layout |= conv(f"{block}.3", inner, 1, 3) | norm(f"{block}.4", inner)
        layout |= conv(f"{block}.6", after, inner, 1) | norm(f"{block}.7", after)
    return layout | conv("conv2.0", 1280, 160, 1) | norm("conv2.1", 1280) | linear("classifier.0", classes, 1280)


SHUFFLE_V1 = ((24, 240, 4), (240, 480, 8), (480, 960, 4))
"""Channels into a stage and out of it, and its blocks."""

SHUFFLE_V2 = ((24, 116, 4), (116, 232, 8), (232, 464, 4))


def shuffle_v1(classes: int = 100) -> Layout:
    layout = conv("conv1", 24, 3, 1) | norm("bn1", 24)
    for stage, (before, after, blocks) in enumerate(SHUFFLE_V1, 1):
        for i in range(blocks):
            block, new = f"layer{stage}.{i}", after if i else after - before
            read = (after if i else before) // (1 if (stage, i) == (1, 0) else 3)
            layout |= conv(f"{block}.conv1", new // 4, read, 1) | norm(f"{block}.bn1", new // 4)
            layout |= conv(f"{block}.conv2", new // 4, 1, 3) | norm(f"{block}.bn2", new // 4)
            layout |= conv(f"{block}.conv3", new, new // 4 // 3, 1) | norm(f"{block}.bn3", new)
    return layout | linear("linear", classes, 960)


def shuffle_v2(classes: int = 100) -> Layout:
    layout = conv("conv1", 24, 3, 1) | norm("bn1", 24)
    for stage, (before, after, blocks) in enumerate(SHUFFLE_V2, 1):
        half = after // 2
        layout |= conv(f"layer{stage}.0.conv1", before, 1, 3) | norm(f"layer{stage}.0.bn1", before)
        layout |= conv(f"layer{stage}.0.conv2", half, before, 1) | norm(f"layer{stage}.0.bn2", half)
        layout |= conv(f"layer{stage}.0.conv3", half, before, 1) | norm(f"layer{stage}.0.bn3", half)
        layout |= conv(f"layer{stage}.0.conv4", half, 1, 3) | norm(f"layer{stage}.0.bn4", half)
        layout |= conv(f"layer{stage}.0.conv5", half, half, 1) | norm(f"layer{stage}.0.bn5", half)
        for block in (f"layer{stage}.{i}" for i in range(1, blocks)):
            layout |= conv(f"{block}.conv1", half, half, 1) | norm(f"{block}.bn1", half)
            layout |= conv(f"{block}.conv2", half, 1, 3) | norm(f"{block}.bn2", half)
            layout |= conv(f"{block}.conv3", half, half, 1) | norm(f"{block}.bn3", half)
    return layout | conv("conv2", 1024, 464, 1) | norm("bn2", 1024) | linear("linear", classes, 1024)


NARROW, WIDE = (16, 16, 32, 64), (32, 64, 128, 256)

LAYOUTS = {
    **{f"resnet{depth}": resnet(depth, NARROW) for depth in (8, 14, 20, 32, 44, 56, 110)},
    "resnet8x4": resnet(8, WIDE),
    "resnet32x4": resnet(32, WIDE),
    "ResNet18": four_stages((2, 2, 2, 2), bottleneck=False),
    "ResNet34": four_stages((3, 4, 6, 3), bottleneck=False),
    "ResNet50": four_stages((3, 4, 6, 3), bottleneck=True),
    **{f"wrn_{depth}_{widen}": wrn(depth, widen) for depth in (16, 40) for widen in (1, 2)},
    **{name: vgg(convolutions) for name, convolutions in VGG.items()},
    "mobilenetv2": mobile_half(),
    "shufflenet_v1": shuffle_v1(),
    "shufflenet_v2": shuffle_v2(),
}


def random_state(layout: Layout, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights that keep activations near one, and statistics of normalisation that are not those of a new network."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in layout.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        else:
            size = (2 / math.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.3
            state[name] = size * torch.randn(shape, generator=generator)
    return state


class Published:
    """What the authors' forward functions compute in eval mode, layer by layer, from a state dict."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        self.state = state

    def conv(self, name: str, x: torch.Tensor, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2, groups=groups)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        mean, var, weight, bias = (
            self.state[f"{name}.{each}"][:, None, None] for each in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def head(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """The classifier after an average over all positions."""
        return x.mean((2, 3)) @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]


def shuffled(x: torch.Tensor, groups: int) -> torch.Tensor:
    """The channels of one group beside those of the next: 0 1 2 3 4 5 becomes 0 3 1 4 2 5 for two groups."""
    return x[:, torch.arange(x.shape[1]).reshape(groups, -1).T.reshape(-1)]
