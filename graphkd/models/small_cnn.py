"""A small convolutional network for small grey images, such as 8 x 8 digits."""

from jaxtyping import Float
from torch import Tensor, nn

from graphkd import checks
from graphkd.models.layers import global_pool


class SmallCNN(nn.Module):
    """Three 3 x 3 convolutions with batch normalisation, pooled to a vector of 4 times the width, then a classifier.

    Args:
        width: Channels of the first layer; the next have 2 and 4 times as many.
        num_classes: Classes.
        in_channels: Channels of the images.

    >>> import torch
    >>> SmallCNN(width=2)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(self, width: int = 24, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        for name, value in (("width", width), ("num_classes", num_classes), ("in_channels", in_channels)):
            checks.at_least(name, value, 1)
        self.body = nn.Sequential(
            _block(in_channels, width), nn.MaxPool2d(2), _block(width, 2 * width), _block(2 * width, 4 * width)
        )
        self.pool = global_pool()
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Class logits of a batch of images."""
        return self.fc(self.pool(self.body(images)))


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )
