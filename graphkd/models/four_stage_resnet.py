"""Residual networks of four stages, with the widths of ImageNet's and a stem for 32 x 32 images.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385, table 1 for blocks and
widths. The stem is one 3 x 3 convolution without stride or pooling, the stride of a bottleneck is in its 3 x 3
convolution, and parameters have the names of RepDistiller's ``models/resnetv2.py``, which mdistiller keeps (Tian,
Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv:1910.10699).
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from graphkd import checks
from graphkd.models.layers import global_pool, he_convolutions

WIDTHS = (64, 128, 256, 512)


class FourStageResNet(nn.Module):
    """Stem, four stages of basic blocks or bottlenecks, global average pooling, classifier.

    Modules to take features from: ``relu``, the stem's map; ``layer1`` to ``layer4``, the last map of each stage after
    its ReLU, each with half the height of the one before; ``pool``, the vector (n d); ``linear``. Before the ReLU of
    a stage's block 2, its map is ``layer4.2.relu:input``.

    Args:
        blocks: Blocks of each stage.
        bottleneck: Whether blocks have three convolutions, and four times the channels at their end, instead of two.
        num_classes: Classes.

    >>> FourStageResNet((1, 1, 1, 1), num_classes=10).linear
    Linear(in_features=512, out_features=10, bias=True)
    """

    def __init__(self, blocks: tuple[int, int, int, int], bottleneck: bool = False, num_classes: int = 100) -> None:
        super().__init__()
        checks.at_least("blocks", min(blocks), 1)
        checks.at_least("num_classes", num_classes, 1)
        block = Bottleneck if bottleneck else BasicBlock
        self.conv1 = _conv(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        channels = [64, *(block.expansion * width for width in WIDTHS)]
        self.layer1 = _stage(block, blocks[0], channels[0], WIDTHS[0], stride=1)
        self.layer2 = _stage(block, blocks[1], channels[1], WIDTHS[1], stride=2)
        self.layer3 = _stage(block, blocks[2], channels[2], WIDTHS[2], stride=2)
        self.layer4 = _stage(block, blocks[3], channels[3], WIDTHS[3], stride=2)
        self.pool = global_pool()
        self.linear = nn.Linear(channels[4], num_classes)
        he_convolutions(self)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Class logits of a batch of images."""
        x = self.relu(self.bn1(self.conv1(images)))
        return self.linear(self.pool(self.layer4(self.layer3(self.layer2(self.layer1(x))))))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is projected where the shape changes."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(in_channels, width, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The block's activation."""
        y = F.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of 1 x 1, the last of which has four times the channels, beside a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, self.expansion * width, 1)
        self.bn3 = nn.BatchNorm2d(self.expansion * width)
        self.shortcut = _shortcut(in_channels, self.expansion * width, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The block's activation."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


def ResNet18(num_classes: int = 100) -> FourStageResNet:
    """ResNet-18: two basic blocks per stage, 11.2 million parameters.

    >>> import torch
    >>> with torch.device("meta"):  # shapes without numbers
    ...     len(ResNet18().layer4)
    2
    """
    return FourStageResNet((2, 2, 2, 2), num_classes=num_classes)


def ResNet34(num_classes: int = 100) -> FourStageResNet:
    """ResNet-34: 3, 4, 6 and 3 basic blocks, 21.3 million parameters.

    >>> import torch
    >>> with torch.device("meta"):
    ...     len(ResNet34().layer3)
    6
    """
    return FourStageResNet((3, 4, 6, 3), num_classes=num_classes)


def ResNet50(num_classes: int = 100) -> FourStageResNet:
    """ResNet-50: 3, 4, 6 and 3 bottlenecks, 23.7 million parameters.

    >>> import torch
    >>> with torch.device("meta"):
    ...     ResNet50().linear
    Linear(in_features=2048, out_features=100, bias=True)
    """
    return FourStageResNet((3, 4, 6, 3), bottleneck=True, num_classes=num_classes)


def _stage(
    block: type[BasicBlock] | type[Bottleneck], blocks: int, in_channels: int, width: int, stride: int
) -> nn.Sequential:
    rest = (block(block.expansion * width, width) for _ in range(blocks - 1))
    return nn.Sequential(block(in_channels, width, stride), *rest)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(_conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


def _conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)
