"""Wide residual networks (WRN) for 32 x 32 images, of depth d and widening factor k.

Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016, arXiv:1605.07146: (d - 4) / 6 blocks in each of three groups
of 16 k, 32 k and 64 k channels, normalisation and activation before each convolution, here without dropout. Parameters
have the names of RepDistiller's ``models/wrn.py``, which mdistiller keeps (Tian, Krishnan, Isola, "Contrastive
Representation Distillation", ICLR 2020, arXiv:1910.10699).
"""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from graphkd import checks
from graphkd.models.layers import global_pool, he_convolutions


class WideResNet(nn.Module):
    """Stem, three groups of pre-activated blocks, normalisation, global average pooling, classifier.

    Modules to take features from: after normalisation and ReLU, the last maps of the three groups are
    ``block2.layer.0.relu1``, ``block3.layer.0.relu1`` and ``relu``, since the next layer activates what it reads.
    ``block1``, ``block2``, ``block3`` are the same maps before both, which RepDistiller and mdistiller call the
    features of the groups. ``pool`` is the vector (n d), then ``fc``.

    Args:
        blocks: Blocks per group.
        widen: The widening factor k.
        num_classes: Classes.

    >>> import torch
    >>> WideResNet(1, 1, num_classes=10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, blocks: int, widen: int, num_classes: int = 100) -> None:
        super().__init__()
        for name, value in (("blocks", blocks), ("widen", widen), ("num_classes", num_classes)):
            checks.at_least(name, value, 1)
        self.conv1 = _conv(3, 16)
        self.block1 = _group(blocks, 16, 16 * widen, stride=1)
        self.block2 = _group(blocks, 16 * widen, 32 * widen, stride=2)
        self.block3 = _group(blocks, 32 * widen, 64 * widen, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.relu = nn.ReLU()
        self.pool = global_pool()
        self.fc = nn.Linear(64 * widen, num_classes)
        he_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Class logits of a batch of images."""
        x = self.block3(self.block2(self.block1(self.conv1(images))))
        return self.fc(self.pool(self.relu(self.bn1(x))))


class PreActivationBlock(nn.Module):
    """Two 3 x 3 convolutions, each of activated maps, beside a shortcut.

    Where the channels change, the shortcut is a projection of the activated input; else it is the input itself.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = _conv(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.conv2 = _conv(out_channels, out_channels)
        changes = in_channels != out_channels
        self.convShortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if changes else None

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The block's map, not activated."""
        activated = self.relu1(self.bn1(x))
        y = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return y + (x if self.convShortcut is None else self.convShortcut(activated))


def wrn_16_1(num_classes: int = 100) -> WideResNet:
    """WRN-16-1: two blocks per group.

    >>> wrn_16_1().fc
    Linear(in_features=64, out_features=100, bias=True)
    """
    return WideResNet(2, 1, num_classes)


def wrn_16_2(num_classes: int = 100) -> WideResNet:
    """WRN-16-2: two blocks per group, 0.70 million parameters.

    >>> sum(parameter.numel() for parameter in wrn_16_2().parameters())
    703284
    """
    return WideResNet(2, 2, num_classes)


def wrn_40_1(num_classes: int = 100) -> WideResNet:
    """WRN-40-1: six blocks per group, 0.57 million parameters.

    >>> sum(parameter.numel() for parameter in wrn_40_1().parameters())
    569780
    """
    return WideResNet(6, 1, num_classes)


def wrn_40_2(num_classes: int = 100) -> WideResNet:
    """WRN-40-2: six blocks per group, 2.26 million parameters.

    >>> sum(parameter.numel() for parameter in wrn_40_2().parameters())
    2255156
    """
    return WideResNet(6, 2, num_classes)


def _group(blocks: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    first = PreActivationBlock(in_channels, out_channels, stride)
    rest = (PreActivationBlock(out_channels, out_channels) for _ in range(blocks - 1))
    return nn.Sequential(OrderedDict(layer=nn.Sequential(first, *rest)))


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
