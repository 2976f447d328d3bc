"""MobileNetV2 of half the width for 32 x 32 images.

Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
arXiv:1801.04381: the blocks of its table 2. Strides, ReLU for ReLU6, the expanding convolution that also the first
block has, and the names of parameters are those of ``mobile_half`` in RepDistiller's ``models/mobilenetv2.py``, which
mdistiller keeps (Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv:1910.10699).
"""

from jaxtyping import Float
from torch import Tensor, nn

from graphkd import checks
from graphkd.models.layers import global_pool, he_convolutions
from graphkd.typing import Real

BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels at full width, number and first stride of the blocks of each group."""

LAST = 1280


class MobileNetV2(nn.Module):
    """Stem, seven groups of inverted residuals, one 1 x 1 convolution, global average pooling, classifier.

    Modules to take features from: ``conv1``, the stem's map; ``blocks.1``, ``blocks.2``, ``blocks.4``, ``blocks.6``,
    the last maps at each resolution, which are linear in this network: no ReLU follows; ``conv2``, the last map after
    its ReLU; ``pool``, the vector (n 1280); ``classifier``.

    Args:
        width: The share of the paper's channels that stem and blocks have; the last convolution has at least 1280.
        num_classes: Classes.

    >>> import torch
    >>> MobileNetV2(0.25, num_classes=10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, width: Real = 0.5, num_classes: int = 100) -> None:
        super().__init__()
        checks.positive("width", width)
        checks.at_least("channels at this width", int(BLOCKS[0][1] * width), 1)
        checks.at_least("num_classes", num_classes, 1)
        channels = int(32 * width)
        self.conv1 = nn.Sequential(*_normalised(nn.Conv2d(3, channels, 3, 2, 1, bias=False)), nn.ReLU())
        self.blocks = nn.Sequential()
        for expansion, full, number, stride in BLOCKS:
            group = nn.Sequential()
            for i in range(number):
                group.append(InvertedResidual(channels, int(full * width), expansion, 1 if i else stride))
                channels = int(full * width)
            self.blocks.append(group)
        last = int(LAST * max(width, 1))
        self.conv2 = nn.Sequential(*_normalised(nn.Conv2d(channels, last, 1, bias=False)), nn.ReLU())
        self.pool = global_pool()
        linear = nn.Linear(last, num_classes)
        self.classifier = nn.Sequential(linear)
        he_convolutions(self)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Class logits of a batch of images."""
        return self.classifier(self.pool(self.conv2(self.blocks(self.conv1(images)))))


class InvertedResidual(nn.Module):
    """A 3 x 3 convolution of each channel by itself between two of 1 x 1, added to the input where shapes allow."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = expansion * in_channels
        self.conv = nn.Sequential(
            *_normalised(nn.Conv2d(in_channels, inner, 1, bias=False)),
            nn.ReLU(),
            *_normalised(nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)),
            nn.ReLU(),
            *_normalised(nn.Conv2d(inner, out_channels, 1, bias=False)),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The block's map, not activated."""
        return x + self.conv(x) if self.residual else self.conv(x)


def mobilenetv2(num_classes: int = 100) -> MobileNetV2:
    """MobileNetV2 of half the width, which others call ``mobile_half``: 0.81 million parameters.

    >>> sum(parameter.numel() for parameter in mobilenetv2().parameters())
    812836
    """
    return MobileNetV2(0.5, num_classes)


def _normalised(convolution: nn.Conv2d) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return convolution, nn.BatchNorm2d(convolution.out_channels)
