"""VGG networks with batch normalisation for 32 x 32 images, with one linear layer as classifier.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, arXiv:1409.1556:
the convolutions of its table 1, configurations A, B, D and E, and with one per stage for ``vgg8``. The classifier, the
pooling and the names of parameters are those of the ``_bn`` models in RepDistiller's ``models/vgg.py``, which
mdistiller keeps (Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv:1910.10699).
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from graphkd import checks
from graphkd.models.layers import global_pool, he_convolutions

WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Five stages of 3 x 3 convolutions with a maximum over 2 x 2 after each of the first three, and a classifier.

    Modules to take features from: ``block0`` to ``block4``, the last map of each stage after its ReLU and before the
    maximum; ``pool``, the vector (n 512), of the last stage's width; ``classifier``. Before the ReLU, the map of a
    stage of two convolutions is ``block4.4``: each convolution has three modules. Images of 64 pixels are halved a
    fourth time, after ``block3``, as in the authors' code.

    Args:
        convolutions: Convolutions of each stage.
        num_classes: Classes.
        widths: Channels of each stage; the published ones unless given.

    >>> VGG((1, 1, 1, 1, 2), num_classes=10).classifier
    Linear(in_features=512, out_features=10, bias=True)
    """

    def __init__(
        self,
        convolutions: tuple[int, int, int, int, int],
        num_classes: int = 100,
        widths: tuple[int, int, int, int, int] = WIDTHS,
    ) -> None:
        super().__init__()
        checks.at_least("convolutions", min(convolutions), 1)
        checks.at_least("num_classes", num_classes, 1)
        checks.at_least("widths", min(widths), 1)
        self.block0 = _stage(convolutions[0], 3, widths[0])
        self.block1 = _stage(convolutions[1], widths[0], widths[1])
        self.block2 = _stage(convolutions[2], widths[1], widths[2])
        self.block3 = _stage(convolutions[3], widths[2], widths[3])
        self.block4 = _stage(convolutions[4], widths[3], widths[4])
        self.pool = global_pool()
        self.classifier = nn.Linear(widths[4], num_classes)
        he_convolutions(self)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Class logits of a batch of images."""
        x = F.max_pool2d(self.block0(images), 2)
        x = F.max_pool2d(self.block1(x), 2)
        x = self.block3(F.max_pool2d(self.block2(x), 2))
        if images.shape[2] == 64:
            x = F.max_pool2d(x, 2)
        return self.classifier(self.pool(self.block4(x)))


def vgg8(num_classes: int = 100) -> VGG:
    """VGG-8: one convolution per stage, 3.97 million parameters.

    >>> sum(parameter.numel() for parameter in vgg8().parameters())
    3965028
    """
    return VGG((1, 1, 1, 1, 1), num_classes)


def vgg11(num_classes: int = 100) -> VGG:
    """VGG-11: 1, 1, 2, 2 and 2 convolutions.

    >>> len(vgg11().block0) // 3, len(vgg11().block4) // 3
    (1, 2)
    """
    return VGG((1, 1, 2, 2, 2), num_classes)


def vgg13(num_classes: int = 100) -> VGG:
    """VGG-13: two convolutions per stage, 9.46 million parameters.

    >>> sum(parameter.numel() for parameter in vgg13().parameters())
    9462180
    """
    return VGG((2, 2, 2, 2, 2), num_classes)


def vgg16(num_classes: int = 100) -> VGG:
    """VGG-16: 2, 2, 3, 3 and 3 convolutions.

    >>> len(vgg16().block4) // 3
    3
    """
    return VGG((2, 2, 3, 3, 3), num_classes)


def vgg19(num_classes: int = 100) -> VGG:
    """VGG-19: 2, 2, 4, 4 and 4 convolutions.

    >>> len(vgg19().block4) // 3
    4
    """
    return VGG((2, 2, 4, 4, 4), num_classes)


def _stage(convolutions: int, in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(convolutions):
        layers.append(nn.Conv2d(out_channels if i else in_channels, out_channels, 3, padding=1))
        layers += [nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers)
