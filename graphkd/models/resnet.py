"""Residual networks for 32 x 32 images, with the names and widths of the distillation literature.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385; the wide variants
(``x4``) as in Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv:1910.10699.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class CifarResNet(nn.Module):
    """Stem, three stages of basic blocks, global average pooling, classifier.

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
        self.stem = nn.Sequential(_conv(3, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.layer1 = _stage(blocks, widths[0], widths[1], stride=1)
        self.layer2 = _stage(blocks, widths[1], widths[2], stride=2)
        self.layer3 = _stage(blocks, widths[2], widths[3], stride=2)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(widths[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Class logits of a batch of images."""
        return self.fc(self.pool(self.layer3(self.layer2(self.layer1(self.stem(images))))))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut, which is projected where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The block's activation."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet8x4(num_classes: int = 100) -> CifarResNet:
    """ResNet-8 of four times the width: the usual CIFAR-100 student, 1.23 million parameters.

    >>> sum(parameter.numel() for parameter in resnet8x4().parameters())
    1233540
    """
    return CifarResNet(1, (32, 64, 128, 256), num_classes)


def _stage(blocks: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels) for _ in range(blocks - 1)))


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
