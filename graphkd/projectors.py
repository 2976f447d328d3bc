"""Projectors: learned maps that bring a student's features to a teacher's width while training."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from graphkd import checks
from graphkd.features import called_with, pick
from graphkd.measures import unit

MapProjectorName = Literal["conv1x1", "bottleneck"]
ProjectorName = Literal["linear"]


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
        self.norm = _LazyNorm() if teacher_channels is None else nn.BatchNorm2d(teacher_channels)

    def match(self, channels: int) -> None:
        """Set the teacher's channels, if they are not known yet."""
        last = self.convs[-1]
        if isinstance(last, nn.LazyConv2d) and not last.out_channels:
            last.out_channels = channels

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """Project feature maps."""
        return self.norm(self.convs(x)).relu()


class _LazyNorm(nn.LazyBatchNorm2d):
    """Torch's, which cannot be copied while it waits for its width; then it becomes an ordinary one."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_LazyNorm":
        copied = _LazyNorm(device=self.weight.device, dtype=self.weight.dtype)
        return copied.train(self.training)


def _conv(before: int | None, after: int | None, size: int) -> nn.Conv2d:
    if before is None or after is None:
        return nn.LazyConv2d(after or 0, size, padding=size // 2)
    return nn.Conv2d(before, after, size, padding=size // 2)


class LinearProjector(nn.Module):
    """A linear map from a student's width to a teacher's.

    Widths that are not given are read off the first batch: the student's by the call, the teacher's by :meth:`match`
    before it.

    Raises:
        ValueError: For widths below 1; at the call where the teacher's is not known yet.

    >>> projector = LinearProjector(student_dim=3)
    >>> projector.match(5)
    >>> projector(torch.zeros(2, 3)).shape
    torch.Size([2, 5])
    """

    def __init__(self, student_dim: int | None = None, teacher_dim: int | None = None, bias: bool = True) -> None:
        super().__init__()
        for name, width in (("student_dim", student_dim), ("teacher_dim", teacher_dim)):
            if width is not None:
                checks.at_least(name, width, 1)
        self.linear = nn.LazyLinear(0, bias) if teacher_dim is None else linear(student_dim, teacher_dim, bias)

    def match(self, width: int) -> None:
        """Set the teacher's width, if it is not known yet."""
        if isinstance(self.linear, nn.LazyLinear) and not self.linear.out_features:
            self.linear.out_features = width

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Project rows."""
        # Torch would make a map to no features, and keep it.
        if is_lazy(self.linear.weight) and not self.linear.out_features:
            raise ValueError("a linear projector needs the teacher's width: give it, or vectors (n d) to match it")
        return self.linear(x)


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


def matched(criterion: nn.Module, name: str) -> None:
    """Let a criterion's projectors know how wide the teacher's feature of that name is, before they are first used.

    A hook of the criterion, once per feature: :class:`MapProjector` takes the channels of feature maps (n c h w),
    :class:`LinearProjector` the width of vectors (n d). For criteria whose projectors all go to one feature. A teacher
    without that feature is a KeyError.

    >>> from graphkd import Criterion, GraphLoss, Term, graphs, measures
    >>> from graphkd.encoders import GraphEncoder
    >>> student, teacher = GraphEncoder(graphs.samples, LinearProjector()), GraphEncoder(graphs.samples)
    >>> criterion = Criterion(student, teacher, {"it": Term(GraphLoss(measures.cosine_distance))})
    >>> matched(criterion, "feat")
    >>> criterion({"feat": torch.ones(2, 3)}, {"feat": torch.ones(2, 5)}).comparisons["it"].graphs[0].x.shape
    torch.Size([2, 5])
    """
    criterion.register_forward_pre_hook(partial(_match, name), with_kwargs=True)


def _match(name: str, criterion: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    feature = pick(called_with(arguments, named)[1], name)
    if feature.dim() < 2:
        return
    for module in criterion.modules():
        if (isinstance(module, MapProjector) and feature.dim() == 4) or (
            isinstance(module, LinearProjector) and feature.shape[2:].numel() == 1
        ):
            module.match(feature.shape[1])
