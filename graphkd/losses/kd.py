"""Knowledge distillation (KD): the student's class probabilities follow the teacher's, softened by a temperature.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", NIPS workshop 2014, arXiv:1503.02531.
"""

from functools import partial

from graphkd import checks
from graphkd.couplings import Identity
from graphkd.encoders import GraphEncoder
from graphkd.graphs import samples
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import SoftmaxKL
from graphkd.reductions import TransportCost
from graphkd.typing import Real


def kd(temperature: Real = 4.0) -> Criterion:
    r"""Knowledge distillation on logits.

    .. math:: \frac{T^2}{n} \sum_i \mathrm{KL}(\mathrm{softmax}(z^t_i / T) \,\|\, \mathrm{softmax}(z^s_i / T))

    Nodes are samples with their logits as attributes; the cost is the divergence of two nodes, the coupling the
    identity.

    Needs: ``logits`` (n c). Pairing: used. Term: ``kd``. Extra parameters: none.

    Args:
        temperature: T, above zero. The factor T squared keeps the gradient's size.

    >>> import torch
    >>> kd()({"logits": torch.zeros(2, 3)}, {"logits": torch.zeros(2, 3)}).value
    tensor(0.)
    """
    checks.positive("temperature", temperature)
    loss = GraphLoss(cost=SoftmaxKL(temperature), coupling=Identity(), reduction=TransportCost())
    build = partial(samples, name="logits")
    return Criterion(
        student=GraphEncoder(build, normalize=False),
        teacher=GraphEncoder(build, normalize=False),
        terms={"kd": Term(loss)},
    )
