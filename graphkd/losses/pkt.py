"""Probabilistic knowledge transfer (PKT): how likely each sample picks each other as its neighbour.

Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018, arXiv:1803.10837.
"""

from torch import Tensor

from graphkd.couplings import Identity
from graphkd.discrepancies import kl
from graphkd.encoders import GraphEncoder
from graphkd.graphs import samples
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import cosine
from graphkd.reductions import TransportCost
from graphkd.relations import Pairwise


def pkt(*, parity: bool = False) -> Criterion:
    r"""Probabilistic knowledge transfer.

    .. math::
        L = \frac{1}{n} \sum_i \mathrm{KL}(P^t_i \,\|\, P^s_i)
          = \frac{1}{n} \sum_{ik} P^t_{ik} \log \frac{P^t_{ik}}{P^s_{ik}}, \qquad
        P_{ik} = \frac{1 + \cos(x_i, x_k)}{\sum_l (1 + \cos(x_i, x_l))}

    a sample's own entry included.

    Nodes are samples, the probabilities (times n, so that their mean is one) their relation, compared at the identity
    coupling by the divergence :data:`~graphkd.discrepancies.kl`, whose extra terms cancel as rows sum to one. Widths
    are free. Labels are not used.

    Needs: ``feat`` (n d).
    Pairing: used.
    Cost: n² d.
    Terms: ``probability``.
    Extra parameters: none.
    Equal to: its definition.

    Its size hardly changes with the batch, but falls with the width, since independent noise averages out of
    similarities. Measured on 10 classes behind a ReLU, with means and noise of each network's own:

    ==========  ========  ========  =========
    width       batch 16  batch 64  batch 256
    ==========  ========  ========  =========
    64          0.0037    0.0041    0.0043
    1024        0.00023   0.00025   0.00027
    ==========  ========  ========  =========

    Departures from the released code: the 1e-7 that it adds to lengths, and to both sides of the ratio, is left out. A
    row of zeros has cosine zero with all, itself included, as there.

    Args:
        parity: Divide by n once more, as published: the mean over all n² entries, of which the published weight is
            30000. It falls as one over the batch; at a batch of 64 the weight that fits the default is 30000 / 64 =
            469.

    >>> import torch
    >>> student = {"feat": torch.randn(8, 3)}
    >>> float(pkt()(student, {"feat": 2 * student["feat"]}).value) < 1e-6
    True
    """
    loss = GraphLoss(
        relation=Pairwise(cosine, _probabilities if parity else _densities),
        coupling=Identity(),
        reduction=TransportCost(1.0, kl),
    )
    return Criterion(
        student=GraphEncoder(samples, normalize=False),
        teacher=GraphEncoder(samples, normalize=False),
        terms={"probability": Term(loss)},
    )


def _probabilities(similarity: Tensor) -> Tensor:
    chance = 1 + similarity
    return chance / chance.sum(-1, keepdim=True)


def _densities(similarity: Tensor) -> Tensor:
    """How much more likely than by an even draw: a mean over all entries is then one over rows, of sums."""
    return similarity.shape[-1] * _probabilities(similarity)
