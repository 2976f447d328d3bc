"""Correlation congruence (CC): a kernel between the samples of a batch, the same in both networks.

Peng, Jin, Liu, Li, Wu, Liu, Zhou, Zhang, "Correlation Congruence for Knowledge Distillation", ICCV 2019,
arXiv:1904.01802.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from graphkd import checks
from graphkd.couplings import Identity
from graphkd.encoders import GraphEncoder
from graphkd.graphs import samples
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import cosine
from graphkd.reductions import TransportCost
from graphkd.relations import Pairwise
from graphkd.typing import Real


def cc(*, gamma: Real = 0.4, order: int = 2) -> Criterion:
    r"""Correlation congruence.

    .. math::
        L = \frac{1}{n^2} \| K^s - K^t \|_F^2, \qquad
        K_{ik} = e^{-2 \gamma} \sum_{p=0}^{P} \frac{(2 \gamma)^p}{p!} \cos(x_i, x_k)^p
        \approx e^{-\gamma \| \hat x_i - \hat x_k \|^2}

    the Taylor expansion of the Gaussian kernel of rows :math:`\hat x` of length one.

    Nodes are samples, the kernel their relation, compared at the identity coupling. Widths are free. Labels are not
    used.

    Needs: ``feat`` (n d).
    Pairing: used.
    Cost: n² d.
    Terms: ``correlation``.
    Extra parameters: none.
    Equal to: its definition.

    Its size hardly changes with the batch, but falls with the width, since independent noise averages out of
    similarities. On 10 classes behind a ReLU, with means and noise of each network's own, it was 0.0033 to 0.0037 at
    width 64 and 0.0002 at width 1024, for batches of 16 to 256.

    This is the paper's form. Under the same name the CIFAR-100 benchmarks (RepDistiller) have another, the inner
    product of the differences :math:`|f^s - f^t|` of samples that follow each other in the batch. It depends on the
    batch's order and compares no relations, so it is left out; its weight of 0.02 does not belong here.

    Args:
        gamma: :math:`\gamma`, inverse of twice the kernel's squared bandwidth.
        order: P, the highest power.

    Raises:
        ValueError: For options out of range.

    >>> import torch
    >>> student = {"feat": torch.randn(8, 3)}
    >>> float(cc()(student, {"feat": 2 * student["feat"]}).value) < 1e-6
    True
    """
    checks.positive("gamma", gamma)
    checks.at_least("order", order, 1)
    loss = GraphLoss(relation=Pairwise(_TaylorKernel(gamma, order)), coupling=Identity(), reduction=TransportCost(1.0))
    return Criterion(
        student=GraphEncoder(samples, normalize=False),
        teacher=GraphEncoder(samples, normalize=False),
        terms={"correlation": Term(loss)},
    )


@dataclass(frozen=True)
class _TaylorKernel:
    """The Gaussian kernel of rows of length one, up to a power of their cosine."""

    gamma: Real
    order: int

    similarity: ClassVar[bool] = True

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The kernel of every pair."""
        similarity = cosine(x, y)
        value = similarity.new_zeros(())
        for power in range(self.order, -1, -1):
            share = math.exp(-2 * self.gamma) * (2 * self.gamma) ** power / math.factorial(power)
            value = value * similarity + share
        return value
