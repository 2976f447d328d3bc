"""ShuffleNet with three groups, for 32 x 32 images.

Zhang, Zhou, Lin, Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices", CVPR 2018,
arXiv:1707.01083: the widths of its table 1 for g = 3. The stem is one 1 x 1 convolution without stride or pooling, the
depthwise convolution is followed by a ReLU, and parameters have the names of ``ShuffleV1`` in RepDistiller's
``models/ShuffleNetv1.py``, which mdistiller keeps (Tian, Krishnan, Isola, "Contrastive Representation Distillation",
ICLR 2020, arXiv:1910.10699).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from graphkd import checks
from graphkd.models.layers import global_pool

STEM = 24
GROUPS = 3


class ShuffleNet(nn.Module):
    """Stem, three stages that halve the image and shuffle channels, global average pooling, classifier.

    Modules to take features from: ``relu``, the stem's map; ``layer1``, ``layer2``, ``layer3``, the last map of each
    stage after its ReLU; ``pool``, the vector (n d); ``linear``.

    Args:
        blocks: Blocks of each stage.
        widths: Channels of each stage.
        num_classes: Classes.

    >>> import torch
    >>> ShuffleNet((1, 2, 1), (48, 96, 192), num_classes=10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, blocks: tuple[int, int, int], widths: tuple[int, int, int], num_classes: int = 100) -> None:
        super().__init__()
        checks.at_least("blocks", min(blocks), 1)
        checks.at_least("num_classes", num_classes, 1)
        self.conv1 = nn.Conv2d(3, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu = nn.ReLU()
        self.layer1 = _stage(blocks[0], STEM, widths[0], first_groups=1)
        self.layer2 = _stage(blocks[1], widths[0], widths[1], first_groups=GROUPS)
        self.layer3 = _stage(blocks[2], widths[1], widths[2], first_groups=GROUPS)
        self.pool = global_pool()
        self.linear = nn.Linear(widths[2], num_classes)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Class logits of a batch of images."""
        x = self.relu(self.bn1(self.conv1(images)))
        return self.linear(self.pool(self.layer3(self.layer2(self.layer1(x)))))


class ShuffleUnit(nn.Module):
    """Convolutions 1 x 1 in groups, shuffled, 3 x 3 of each channel by itself, and 1 x 1 in groups, beside a shortcut.

    With stride 1 the shortcut is added; with stride 2 the averaged input is appended to the new channels. The unit that
    reads the stem has a first convolution of one group, after which a shuffle changes nothing.
    """

    def __init__(self, in_channels: int, new_channels: int, stride: int, groups: int) -> None:
        super().__init__()
        inner = new_channels // 4
        self.groups = groups
        self.conv1 = nn.Conv2d(in_channels, inner, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, new_channels, 1, groups=GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(new_channels)
        self.shortcut = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else nn.Identity()
        self.appends = stride == 2
        self.relu = nn.ReLU()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The unit's activation."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(F.channel_shuffle(y, self.groups))))
        y = self.bn3(self.conv3(y))
        beside = self.shortcut(x)
        return self.relu(torch.cat([y, beside], 1) if self.appends else y + beside)


def shufflenet_v1(num_classes: int = 100) -> ShuffleNet:
    """ShuffleNet of full width with three groups, which others call ``ShuffleV1``: 0.95 million parameters.

    >>> sum(parameter.numel() for parameter in shufflenet_v1().parameters())
    949258
    """
    return ShuffleNet((4, 8, 4), (240, 480, 960), num_classes)


def _stage(blocks: int, in_channels: int, out_channels: int, first_groups: int) -> nn.Sequential:
    first = ShuffleUnit(in_channels, out_channels - in_channels, stride=2, groups=first_groups)
    rest = (ShuffleUnit(out_channels, out_channels, stride=1, groups=GROUPS) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)
