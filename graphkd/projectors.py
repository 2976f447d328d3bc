"""Projectors: learned maps that bring a student's features to a teacher's width while training."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from graphkd import checks
from graphkd.measures import unit

MapProjectorName = Literal["conv1x1", "bottleneck"]


class MapProjector(nn.Module):
    """Convolutions from a student's channels to a teacher's, then batch normalisation and ReLU.

    The convolutions are one of 1 x 1, or as ``bottleneck`` 1 x 1 to the hidden channels, 3 x 3 among these, and 1 x 1
    to the teacher's, with nothing between. Channels that are not given are read off the first batch: the student's by
    the call, the teacher's by :meth:`match` before it.

    >>> MapProjector("conv1x1", 3, 5)(torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 5, 4, 4])
    """

    def __init__(
        self,
        kind: MapProjectorName = "conv1x1",
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        checks.one_of("projector", kind, ("conv1x1", "bottleneck"))
        widths = [student_channels, teacher_channels]
        if kind == "bottleneck":
            widths = [student_channels, hidden, hidden, teacher_channels]
        for width in widths:
            if width is not None:
                checks.at_least("channels", width, 1)
        sizes = (1,) if kind == "conv1x1" else (1, 3, 1)
        steps = zip(widths[:-1], widths[1:], sizes, strict=True)
        self.convs = nn.Sequential(*(_conv(before, after, size) for before, after, size in steps))
        self.norm = nn.LazyBatchNorm2d() if teacher_channels is None else nn.BatchNorm2d(teacher_channels)

    def match(self, channels: int) -> None:
        """Set the teacher's channels, if they are not known yet."""
        last = self.convs[-1]
        if isinstance(last, nn.LazyConv2d) and not last.out_channels:
            last.out_channels = channels

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """Project feature maps."""
        return self.norm(self.convs(x)).relu()


def _conv(before: int | None, after: int | None, size: int) -> nn.Conv2d:
    if before is None or after is None:
        return nn.LazyConv2d(after or 0, size, padding=size // 2)
    return nn.Conv2d(before, after, size, padding=size // 2)


class SpectralLinear(nn.Module):
    r"""A linear map whose matrix is divided by its largest singular value, which makes it 1-Lipschitz.

    .. math:: y = W x / \sigma(W) + b

    A few power iterations in each training step keep track of that value. The width of x is read off the first batch if
    it is not given, which torch's own parametrisation does not allow.

    Source: Miyato, Kataoka, Koyama, Yoshida, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018,
    arXiv:1802.05957.

    >>> SpectralLinear(None, 4)(torch.zeros(2, 3)).shape
    torch.Size([2, 4])
    """

    direction: Tensor

    def __init__(self, width: int | None, embed_dim: int, num_iters: int = 5) -> None:
        super().__init__()
        checks.at_least("num_iters", num_iters, 1)
        self.linear = linear(width, embed_dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(embed_dim))
        self.num_iters = num_iters
        self.register_buffer("direction", unit(torch.randn(1, embed_dim))[0])

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Project rows."""
        y = self.linear(x)
        weight = self.linear.weight
        with torch.no_grad():
            left = self.direction
            for _ in range(self.num_iters if self.training else 0):
                left = unit((weight @ (weight.T @ left)).unsqueeze(0))[0]
            right = unit((weight.T @ left).unsqueeze(0))[0]
            self.direction = left
        return y / (left @ weight @ right) + self.bias


def linear(width: int | None, embed_dim: int, bias: bool = True) -> nn.Linear:
    """A linear map whose input width is read off the first batch if it is not given.

    >>> linear(None, 4)(torch.zeros(2, 3)).shape
    torch.Size([2, 4])
    """
    return nn.LazyLinear(embed_dim, bias) if width is None else nn.Linear(width, embed_dim, bias)
