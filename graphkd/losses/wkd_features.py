"""Wasserstein knowledge distillation on features (WKD-F): feature maps as Gaussians, and how far these are apart.

Lv, Yang, Li, "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation", NeurIPS 2024,
arXiv:2412.08139. Checked against the authors' code.
"""

from torch import nn
from torch_geometric.data import Data

from graphkd import checks
from graphkd.cells import GaussianGap, Part
from graphkd.encoders import GraphEncoder
from graphkd.features import pick
from graphkd.graphs import clouds, moments
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.ot.gaussian import Covariance
from graphkd.projectors import MapProjector, MapProjectorName, matched
from graphkd.typing import Features, Real

EPS = 1e-5
"""What the released code adds to variances."""


def wkd_features(
    student_channels: int | None = None,
    teacher_channels: int | None = None,
    *,
    grid: int = 1,
    mean_ratio: Real = 2.0,
    projector: MapProjectorName | nn.Module | None = "conv1x1",
    covariance: Covariance = "diagonal",
    eps: Real = EPS,
) -> Criterion:
    r"""Wasserstein knowledge distillation on feature maps.

    .. math::
        L = \rho \underbrace{\frac{1}{n g^2} \sum \|\mu^s - \mu^t\|^2}_{\texttt{mean}}
        + \underbrace{\frac{1}{n g^2} \sum \|\sigma^s - \sigma^t\|^2}_{\texttt{covariance}}

    over n maps and the g x g cells of each, with the channels' means :math:`\mu` and standard deviations
    :math:`\sigma = \sqrt{\mathrm{var} + \epsilon}` over a cell's positions, the variance of p positions divided by
    p - 1. It is the squared 2-Wasserstein distance between Gaussians with diagonal covariances, the means' part
    weighted. With ``covariance="full"`` the second term is the Bures distance of the covariances, as in the paper's
    closed form:

    .. math:: \mathrm{tr}\bigl(\Sigma^s + \Sigma^t - 2 (\Sigma^{s\,1/2} \Sigma^t \Sigma^{s\,1/2})^{1/2}\bigr)

    Nodes are cells, each in a problem of its own; the student's maps pass the projector first. Both terms grow with the
    number of channels, as published. Only statistics are compared: heights and widths may differ.

    Needs: ``map`` (n c h w), as published after the ReLU of the last stage.
    Pairing: used.
    Cost: n c h w; full covariances n min(c, hw)³.
    Terms: ``mean``, ``covariance``.
    Extra parameters: a projector.
    Equal to: authors' code, 1e-15.

    Args:
        student_channels: Of the student's ``map``; read off the first batch if omitted.
        teacher_channels: Of the teacher's ``map``; read off the first batch if omitted.
        grid: g; cells are those of adaptive pooling, and overlap where g does not divide height or width.
        mean_ratio: :math:`\rho`.
        projector: ``conv1x1`` or ``bottleneck`` (1 x 1 to 256 channels, 3 x 3, 1 x 1), each followed by batch
            normalisation and ReLU; a module of your own; or None for maps of equal width. For maps of different sizes
            the released code has strided or transposed convolutions in place of the 1 x 1, which the statistics do not
            need: give them as a module.
        covariance: ``full`` takes an eigen-decomposition per cell.
        eps: Added to variances, in squared units of the features.

    Raises:
        ValueError: For options out of range; at the call for cells of a single position, whose deviation is not
            defined, and for maps whose channels differ after the projector.

    >>> import torch
    >>> criterion = wkd_features(3, 5)
    >>> student, teacher = {"map": torch.randn(4, 3, 8, 8)}, {"map": torch.randn(4, 5, 4, 4)}
    >>> list(criterion(student, teacher).terms)
    ['mean', 'covariance']
    """
    checks.at_least("grid", grid, 1)
    checks.positive("mean_ratio", mean_ratio)
    checks.one_of("covariance", covariance, ("diagonal", "full"))
    checks.share("eps", eps)
    if isinstance(projector, str):
        projector = MapProjector(projector, student_channels, teacher_channels)

    def term(part: Part, weight: Real) -> Term:
        return Term(GraphLoss(cost=GaussianGap(part, covariance, eps)), weight)

    criterion = Criterion(
        student=GraphEncoder(_Cells(grid, covariance, eps, projector), normalize=False),
        teacher=GraphEncoder(_Cells(grid, covariance, eps), normalize=False),
        terms={"mean": term("mean", mean_ratio), "covariance": term("covariance", 1.0)},
    )
    if isinstance(projector, MapProjector):
        matched(criterion, "map")
    return criterion


class _Cells(nn.Module):
    """Build the graph of a map's cells, behind the projector if there is one."""

    def __init__(self, grid: int, covariance: Covariance, eps: Real, projector: nn.Module | None = None) -> None:
        super().__init__()
        self.grid, self.covariance, self.eps, self.projector = grid, covariance, eps, projector

    def forward(self, features: Features) -> Data:
        maps = pick(features, "map")
        if self.projector is not None:
            checks.maps("feature 'map'", maps)
            maps = self.projector(maps)
        return moments(maps, self.grid, self.eps) if self.covariance == "diagonal" else clouds(maps, self.grid)

    def extra_repr(self) -> str:
        return f"grid={self.grid}, covariance={self.covariance}"
