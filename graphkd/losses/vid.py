"""Variational information distillation (VID): what the student's features say about the teacher's, in nats.

Ahn, Hu, Damianou, Lawrence, Dai, "Variational Information Distillation for Knowledge Transfer", CVPR 2019,
arXiv:1904.05835.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter
from torch_geometric.data import Data

from graphkd import checks
from graphkd.encoders import Several
from graphkd.features import called_with
from graphkd.graphs import positions
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.maps import check_named, same_size, sized
from graphkd.measures import full_precision, mean_sqeuclidean
from graphkd.typing import Features, Real


def vid(
    maps: Sequence[str] = ("map",), *, size: int | None = None, initial_variance: Real = 5.0, eps: Real = 1e-5
) -> Criterion:
    r"""Variational information distillation between feature maps.

    .. math:: \frac{1}{n h w d} \sum_{i x y k} \frac12 \Bigl(
        \frac{(F^t_{ixyk} - \mu_k(F^s_{ixy}))^2}{\sigma_k^2} + \log \sigma_k^2 \Bigr), \qquad
        \sigma_k^2 = \log(1 + e^{\rho_k}) + \epsilon

    one such term for each named map: up to a constant, the mean negative log-likelihood of the teacher's channels as
    Gaussians around what the student's predict, whose negative is a lower bound on the mutual information of both. It
    may be negative. Learned with the student and then dropped are :math:`\mu`, three linear maps of the channels at a
    position (1 x 1 convolutions without bias) with ReLU between, as wide as the teacher, and one :math:`\rho` per
    channel. Channels that predict badly get a large variance, and are asked less.

    Nodes are positions, each in a problem of its own with the same one of the same image; the cost is learned, the
    coupling the identity. Labels are not looked at.

    Needs: ``map`` (n c h w), or each of ``maps``.
    Pairing: used.
    Cost: n h w (c d + 2 d²), of which 3 n h w d numbers are held.
    Terms: ``map``, or as ``maps`` are named.
    Extra parameters: the regressors and variances, c d + 2 d² + d for each map.
    Equal to: its definition.

    Its paper sums over positions and channels; the mean is that of CRD's authors, whose weight is 1 with the three
    stages at once, and who average the larger of two maps to the size of the smaller: here that size is given. All
    widths are read off the first batch.

    Args:
        maps: Names of the features.
        size: Rows and columns to which both networks' maps are averaged by adaptive pooling; as they are, if omitted.
        initial_variance: What all variances start at, in squared units of the teacher's features.
        eps: :math:`\epsilon`, what no variance is below.

    Raises:
        ValueError: For options out of range; at the call, without ``size``, for maps of different sizes.

    >>> student, teacher = {"map": torch.randn(4, 3, 8, 8)}, {"map": torch.zeros(4, 5, 8, 8)}
    >>> 0.5 * math.log(5) < float(vid()(student, teacher).value.detach()) < 0.9
    True
    """
    check_named(maps, size)
    checks.not_negative("eps", eps)
    checks.positive("initial_variance", initial_variance)
    if initial_variance <= eps:
        raise ValueError(f"initial_variance needs a number above eps={eps}, got {initial_variance}")
    losses = [GraphLoss(cost=_Surprise(initial_variance, eps)) for _ in maps]
    criterion = Criterion(
        student=Several(*(_Predicted(name, size) for name in maps)),
        teacher=Several(*(partial(_positions, name=name, size=size) for name in maps)),
        terms={name: Term(loss, student=i, teacher=i) for i, (name, loss) in enumerate(zip(maps, losses, strict=True))},
    )
    if size is None:
        same_size(criterion, *maps)
    criterion.register_forward_pre_hook(_match, with_kwargs=True)
    return criterion


def _positions(features: Features, name: str, size: int | None) -> Data:
    return positions(sized(features, name, size))


class _Predicted(nn.Module):
    """Positions of a student's map with the teacher's channels that it predicts; these are told by :meth:`match`."""

    def __init__(self, name: str, size: int | None) -> None:
        super().__init__()
        self.name, self.size = name, size
        first, *others = (nn.LazyLinear(0, bias=False) for _ in range(3))
        self.regressor = nn.Sequential(first, *(layer for other in others for layer in (nn.ReLU(), other)))

    def match(self, channels: int) -> None:
        """Set the teacher's channels, if they are not known yet."""
        for layer in self.regressor:
            if isinstance(layer, nn.LazyLinear) and not layer.out_features:
                layer.out_features = channels

    def forward(self, features: Features) -> Data:
        graph = positions(sized(features, self.name, self.size))
        graph.x = self.regressor(graph.x)
        return graph

    def extra_repr(self) -> str:
        return f"name={self.name}, size={self.size}"


class _Surprise(LazyModuleMixin, nn.Module):
    """A cost: how unlikely row j of the teacher is as a Gaussian around row i of the student, per channel."""

    rho: nn.Parameter | UninitializedParameter

    def __init__(self, initial_variance: Real, eps: Real) -> None:
        super().__init__()  # pyright: ignore[reportAttributeAccessIssue] # torch types its own mixin too narrowly
        self.initial_variance, self.eps = initial_variance, eps
        self.rho = UninitializedParameter()

    def initialize_parameters(self, x: Tensor, y: Tensor) -> None:
        """Give each of the teacher's channels its first variance."""
        if isinstance(self.rho, UninitializedParameter):
            above = self.initial_variance - self.eps
            with torch.no_grad():
                self.rho.materialize((y.shape[-1],))
                self.rho.fill_(above + math.log(-math.expm1(-above)))

    def forward(self, x: Float[Tensor, "*b n d"], y: Float[Tensor, "*b m d"]) -> Float[Tensor, "*b n m"]:
        return full_precision(_surprise)(x, y, softplus(self.rho) + self.eps)

    def extra_repr(self) -> str:
        return f"initial_variance={self.initial_variance}, eps={self.eps}"


def _surprise(x: Tensor, y: Tensor, variance: Tensor) -> Tensor:
    deviation = variance.sqrt()
    return 0.5 * (mean_sqeuclidean(x / deviation, y / deviation) + variance.log().mean())


def _match(criterion: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Tell each regressor the teacher's channels before it is used for the first time."""
    _, teacher = called_with(arguments, named)
    for module in criterion.modules():
        if isinstance(module, _Predicted) and module.name in teacher and teacher[module.name].dim() == 4:
            module.match(teacher[module.name].shape[1])
