"""ShuffleNetV2 for 32 x 32 images.

Ma, Zhang, Zheng, Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018,
arXiv:1807.11164: the widths and blocks of its table 5 for 1x. The stem is one 1 x 1 convolution without stride or
pooling, and parameters have the names of ``ShuffleV2`` in RepDistiller's ``models/ShuffleNetv2.py``, which mdistiller
keeps (Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv:1910.10699).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from graphkd import checks
from graphkd.models.layers import global_pool

STEM = 24


class ShuffleNetV2(nn.Module):
    """Stem, three stages that halve the image, one 1 x 1 convolution, global average pooling, classifier.

    Modules to take features from: ``relu``, the stem's map; ``layer1``, ``layer2``, ``layer3``, the last map of each
    stage after its ReLU; ``relu2``, the last map, after the last convolution's ReLU; ``pool``, the vector (n d);
    ``linear``.

    Args:
        blocks: Blocks of each stage, with the one that halves the image.
        widths: Channels of each stage, all even, and of the last convolution.
        num_classes: Classes.

    Raises:
        ValueError: For a stage of an odd number of channels, which has no halves.

    >>> import torch
    >>> ShuffleNetV2((1, 2, 1), (8, 16, 32, 64), num_classes=10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, blocks: tuple[int, int, int], widths: tuple[int, int, int, int], num_classes: int = 100) -> None:
        super().__init__()
        checks.at_least("blocks", min(blocks), 1)
        checks.at_least("num_classes", num_classes, 1)
        if any(width % 2 for width in widths[:3]):
            raise ValueError(f"widths of the stages need even numbers, got {widths}")
        self.conv1 = nn.Conv2d(3, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu = nn.ReLU()
        self.layer1 = _stage(blocks[0], STEM, widths[0])
        self.layer2 = _stage(blocks[1], widths[0], widths[1])
        self.layer3 = _stage(blocks[2], widths[1], widths[2])
        self.conv2 = nn.Conv2d(widths[2], widths[3], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.relu2 = nn.ReLU()
        self.pool = global_pool()
        self.linear = nn.Linear(widths[3], num_classes)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Class logits of a batch of images."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pool(self.relu2(self.bn2(self.conv2(x)))))


class HalvesUnit(nn.Module):
    """One half of the channels as it is, the other through three convolutions, shuffled together."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The unit's activation."""
        kept, y = x.chunk(2, dim=1)
        y = F.relu(self.bn1(self.conv1(y)))
        y = F.relu(self.bn3(self.conv3(self.bn2(self.conv2(y)))))
        return F.channel_shuffle(torch.cat([kept, y], 1), 2)


class DownUnit(nn.Module):
    """Two branches that halve the image, of two and of three convolutions, shuffled together."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, 2, 1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The unit's activation."""
        short = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        long = F.relu(self.bn3(self.conv3(x)))
        long = F.relu(self.bn5(self.conv5(self.bn4(self.conv4(long)))))
        return F.channel_shuffle(torch.cat([short, long], 1), 2)


def shufflenet_v2(num_classes: int = 100) -> ShuffleNetV2:
    """ShuffleNetV2 of width 1x, which others call ``ShuffleV2``: 1.36 million parameters.

    >>> sum(parameter.numel() for parameter in shufflenet_v2().parameters())
    1355528
    """
    return ShuffleNetV2((4, 8, 4), (116, 232, 464, 1024), num_classes)


def _stage(blocks: int, in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(DownUnit(in_channels, out_channels), *(HalvesUnit(out_channels) for _ in range(blocks - 1)))
