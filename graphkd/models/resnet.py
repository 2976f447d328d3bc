"""Residual networks of three stages for 32 x 32 images, with the names and widths of the distillation literature.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385, section 4.2: a network
of depth d has (d - 2) / 6 blocks per stage. Shortcuts that change the shape are projections, as in the models of Tian,
Krishnan, Isola, "Contrastive Representation Distillation" (CRD), ICLR 2020, arXiv:1910.10699, where the paper has
zero-padding; the widths of ``resnet8x4`` and ``resnet32x4``, and the names of all parameters, are those of the CRD
authors' RepDistiller (``models/resnet.py``), which mdistiller keeps.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from graphkd import checks
from graphkd.models.layers import global_pool, he_convolutions

NARROW = (16, 16, 32, 64)
WIDE = (32, 64, 128, 256)


class CifarResNet(nn.Module):
    """Stem, three stages of basic blocks, global average pooling, classifier.

    Modules to take features from: ``relu``, the stem's map; ``layer1``, ``layer2``, ``layer3``, the last map of each
    stage after its ReLU; ``pool``, the vector (n d); ``fc``. Before the last block's ReLU, the map of stage 3 is
    ``layer3.0.relu:input``, with the number of the stage's last block for 0.

    Args:
        blocks: Basic blocks per stage.
        widths: Channels of the stem and of the three stages.
        num_classes: Classes.

    >>> import torch
    >>> CifarResNet(1, (4, 4, 8, 16), num_classes=10)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, blocks: int, widths: tuple[int, int, int, int], num_classes: int = 100) -> None:
        super().__init__()
        for name, value in (("blocks", blocks), ("widths", min(widths)), ("num_classes", num_classes)):
            checks.at_least(name, value, 1)
        self.conv1 = _conv(3, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(blocks, widths[0], widths[1], stride=1)
        self.layer2 = _stage(blocks, widths[1], widths[2], stride=2)
        self.layer3 = _stage(blocks, widths[2], widths[3], stride=2)
        self.pool = global_pool()
        self.fc = nn.Linear(widths[3], num_classes)
        he_convolutions(self)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Class logits of a batch of images."""
        x = self.relu(self.bn1(self.conv1(images)))
        return self.fc(self.pool(self.layer3(self.layer2(self.layer1(x)))))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is projected where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.relu = nn.ReLU()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The block's activation."""
        y = F.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


def resnet8(num_classes: int = 100) -> CifarResNet:
    """ResNet-8: one block per stage.

    >>> resnet8().fc
    Linear(in_features=64, out_features=100, bias=True)
    """
    return CifarResNet(1, NARROW, num_classes)


def resnet14(num_classes: int = 100) -> CifarResNet:
    """ResNet-14: two blocks per stage.

    >>> len(resnet14().layer1)
    2
    """
    return CifarResNet(2, NARROW, num_classes)


def resnet20(num_classes: int = 100) -> CifarResNet:
    """ResNet-20: three blocks per stage, 0.28 million parameters.

    >>> sum(parameter.numel() for parameter in resnet20().parameters())
    278324
    """
    return CifarResNet(3, NARROW, num_classes)


def resnet32(num_classes: int = 100) -> CifarResNet:
    """ResNet-32: five blocks per stage, 0.47 million parameters.

    >>> len(resnet32().layer1)
    5
    """
    return CifarResNet(5, NARROW, num_classes)


def resnet44(num_classes: int = 100) -> CifarResNet:
    """ResNet-44: seven blocks per stage.

    >>> len(resnet44().layer1)
    7
    """
    return CifarResNet(7, NARROW, num_classes)


def resnet56(num_classes: int = 100) -> CifarResNet:
    """ResNet-56: nine blocks per stage, 0.86 million parameters.

    >>> len(resnet56().layer1)
    9
    """
    return CifarResNet(9, NARROW, num_classes)


def resnet110(num_classes: int = 100) -> CifarResNet:
    """ResNet-110: eighteen blocks per stage, 1.74 million parameters.

    >>> len(resnet110().layer1)
    18
    """
    return CifarResNet(18, NARROW, num_classes)


def resnet8x4(num_classes: int = 100) -> CifarResNet:
    """ResNet-8 of four times the width: the usual CIFAR-100 student, 1.23 million parameters.

    >>> sum(parameter.numel() for parameter in resnet8x4().parameters())
    1233540
    """
    return CifarResNet(1, WIDE, num_classes)


def resnet32x4(num_classes: int = 100) -> CifarResNet:
    """ResNet-32 of four times the width: the usual CIFAR-100 teacher, 7.43 million parameters.

    >>> sum(parameter.numel() for parameter in resnet32x4().parameters())
    7433860
    """
    return CifarResNet(5, WIDE, num_classes)


def _stage(blocks: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels) for _ in range(blocks - 1)))


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
