"""Knowledge distillation (KD): the student's class probabilities follow the teacher's, softened by a temperature.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", NIPS workshop 2014, arXiv:1503.02531. With logits
standardised: Sun, Ren, Li, Wang, Cao, "Logit Standardization in Knowledge Distillation", CVPR 2024, arXiv:2403.01427.
"""

from functools import partial

from torch_geometric.data import Data

from graphkd import checks
from graphkd.couplings import Identity
from graphkd.encoders import GraphEncoder
from graphkd.features import vectors
from graphkd.graphs import point_cloud, samples
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import SoftmaxKL, centred, unit
from graphkd.precision import raised
from graphkd.reductions import TransportCost
from graphkd.typing import Features, Real


def kd(temperature: Real = 4.0, standardize: bool = False) -> Criterion:
    r"""Knowledge distillation on logits.

    .. math:: \frac{T^2}{n} \sum_i \mathrm{KL}(\mathrm{softmax}(z^t_i / T) \,\|\, \mathrm{softmax}(z^s_i / T))

    Nodes are samples with their logits as attributes; the cost is the divergence of two nodes, the coupling the
    identity. Labels are not looked at.

    Standardised, each sample's logits first lose their mean over the c classes and are divided by their deviation,

    .. math:: z \leftarrow \frac{z - \bar z}{\sigma(z)}, \qquad \sigma^2(z) = \frac{1}{c - 1} \sum_k (z_k - \bar z)^2

    so that the student need not reach the teacher's scale of logits, only their order and proportions. Published beside
    that: T = 2 and a weight of 9, with 0.1 for the task.

    Needs: ``logits`` (n c).
    Pairing: used.
    Cost: n² c, of which n² numbers are held.
    Terms: ``kd``.
    Extra parameters: none.
    Equal to: its definition.

    The released code of standardisation adds 1e-7 to deviations. Here constant logits, which have none, are all zero
    and their gradient finite.

    Args:
        temperature: T, above zero. The factor T squared keeps the gradient's size.
        standardize: Whether logits are standardised.

    Raises:
        ValueError: For a temperature that is not above zero.

    >>> import torch
    >>> kd()({"logits": torch.zeros(2, 3)}, {"logits": torch.zeros(2, 3)}).value
    tensor(0.)
    """
    checks.positive("temperature", temperature)
    loss = GraphLoss(cost=SoftmaxKL(temperature), coupling=Identity(), reduction=TransportCost())
    build = _standardized if standardize else partial(samples, name="logits")
    return Criterion(
        student=GraphEncoder(build, normalize=False),
        teacher=GraphEncoder(build, normalize=False),
        terms={"kd": Term(loss)},
    )


def _standardized(features: Features) -> Data:
    """Samples with their logits of mean zero and deviation one."""
    logits = raised(vectors(features, "logits"))
    checks.rows("feature 'logits'", logits)
    return point_cloud(unit(centred(logits)) * (logits.shape[-1] - 1) ** 0.5)
