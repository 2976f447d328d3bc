"""Gaussian Wasserstein distance (Gaussian W2): the features of a batch as one Gaussian, and how far it is to move.

Montesuma, "KD2M: A unifying framework for feature knowledge distillation", GSI 2025, arXiv:2504.01757.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import checks
from graphkd.cells import Part
from graphkd.encoders import GraphEncoder
from graphkd.features import vectors
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.ot.gaussian import Covariance, gaussian
from graphkd.projectors import LinearProjector, ProjectorName, matched
from graphkd.typing import Features


def gaussian_w2(
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    *,
    covariance: Covariance = "diagonal",
    projector: ProjectorName | nn.Module | None = "linear",
    parity: bool = False,
) -> Criterion:
    r"""Squared 2-Wasserstein distance between the Gaussians of two batches of features.

    .. math::
        L = \underbrace{\frac{1}{d} \|\mu^s - \mu^t\|^2}_{\texttt{mean}}
        + \underbrace{\frac{1}{d} \|\sigma^s - \sigma^t\|^2}_{\texttt{covariance}}

    with means and standard deviations over the n samples of the batch (variances divided by n), of the teacher's d
    features and the student's behind the projector. With ``covariance="full"`` the second term is the Bures distance of
    the covariances, as in the closed form for Gaussians:

    .. math:: \frac{1}{d}\, \mathrm{tr}\bigl(\Sigma^s + \Sigma^t
        - 2 (\Sigma^{s\,1/2} \Sigma^t \Sigma^{s\,1/2})^{1/2}\bigr)

    The one node is the batch. What :func:`~graphkd.losses.wkd_features` compares for each map over its positions is
    compared here once, over samples.

    Needs: ``feat`` (n d).
    Pairing: ignored.
    Cost: n d; n² d + n³ or d³, the less, with full covariances.
    Terms: ``mean``, ``covariance``.
    Extra parameters: a linear projector.
    Equal to: its definition.

    Labels are not used. In squared units of the teacher's features. A batch of one sample has deviation zero.

    The published number is the sum over features, d times this, and so is the published weight of 1e-4. The full form
    is the paper's equation, the diagonal one its code; full covariances of fewer samples than features are those of a
    subspace that changes with every batch.

    Args:
        student_dim: Width of the student's ``feat``; read off the first batch if omitted.
        teacher_dim: Width of the teacher's ``feat``; read off the first batch if omitted.
        covariance: ``full`` takes an eigen-decomposition of the size of the batch, or two of the width.
        projector: ``linear``, a module of your own, or None for features of equal width.
        parity: Whether features are summed, as published, where the default is their mean.

    Raises:
        ValueError: For options that are not known; at the call for widths that differ without a projector.

    >>> student, teacher = torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    >>> output = gaussian_w2(projector=None, parity=True)({"feat": student}, {"feat": teacher})
    >>> output.terms
    {'mean': tensor(2.), 'covariance': tensor(5.)}
    """
    checks.one_of("covariance", covariance, ("diagonal", "full"))
    if isinstance(projector, str):
        checks.one_of("projector", projector, ("linear",))
        projector = LinearProjector(student_dim, teacher_dim)

    def term(part: Part) -> Term:
        return Term(GraphLoss(cost=_Gap(part, covariance, mean_of_features=not parity)))

    criterion = Criterion(
        student=GraphEncoder(_Batch(projector), normalize=False),
        teacher=GraphEncoder(_Batch(), normalize=False),
        terms={"mean": term("mean"), "covariance": term("covariance")},
    )
    matched(criterion, "feat")
    return criterion


class _Batch(nn.Module):
    """Build one graph of one node, the batch: ``x`` (1 n d), behind the projector if there is one."""

    def __init__(self, projector: nn.Module | None = None) -> None:
        super().__init__()
        self.projector = projector

    def forward(self, features: Features) -> Data:
        x = vectors(features, "feat")
        x = (x if self.projector is None else self.projector(x)).unsqueeze(0)
        none = torch.empty((2, 0), dtype=torch.int64, device=x.device)
        return Data(x=x, edge_index=none, mass=x.new_ones(1, 1), node="batch")


@dataclass(frozen=True)
class _Gap:
    """A cost between batches, each a node: one part of the distance of the two as Gaussians."""

    part: Part
    covariance: Covariance
    mean_of_features: bool

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The cost of single batches (b n d) against single batches, (b 1 1)."""
        if self.part == "mean":
            gap = (x.mean(-2) - y.mean(-2)).square().sum(-1)
        else:
            gap = gaussian(x, y, covariance=self.covariance).covariance
        return gap[..., None, None] / (x.shape[-1] if self.mean_of_features else 1)
