"""Distillation from a stronger teacher (DIST): class probabilities correlate, instead of being equal.

Huang, You, Wang, Qian, Xu, "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv:2205.10536.
"""

from functools import partial

from torch import Tensor
from torch_geometric.data import Data

from graphkd import checks
from graphkd.encoders import Several
from graphkd.features import vectors
from graphkd.graphs import neurons, point_cloud
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import correlation_distance
from graphkd.precision import raised
from graphkd.typing import Features, Real


def dist(temperature: Real = 1.0, inter_weight: Real = 1.0, intra_weight: Real = 1.0) -> Criterion:
    r"""Distillation from a stronger teacher.

    .. math::
        L = T^2 \Bigl( \beta \underbrace{\frac{1}{n} \sum_i \bigl(1 - \rho(p^s_{i\cdot}, p^t_{i\cdot})\bigr)
        }_{\texttt{inter}} + \gamma \underbrace{\frac{1}{c} \sum_k \bigl(1 - \rho(p^s_{\cdot k}, p^t_{\cdot k})\bigr)
        }_{\texttt{intra}} \Bigr), \qquad p_{i\cdot} = \mathrm{softmax}(z_i / T)

    with Pearson's correlation :math:`\rho`, of a sample's classes in the first term, of a class's samples in the
    second. What a correlation does not see, the student need not match: the offset and the scale of each row.

    Nodes are samples with their class probabilities, and in a second graph classes with the probabilities that the
    samples of the batch give them; the cost is one minus the correlation, the coupling the identity. Labels are not
    looked at. Both terms are in [0, 2]; T squared is in their weights.

    Needs: ``logits`` (n c).
    Pairing: used.
    Cost: n² c + n c², of which n² + c² numbers are held.
    Terms: ``inter``, ``intra``.
    Extra parameters: none.
    Equal to: its definition.

    Of a batch of two samples, correlations of classes are one or minus one, with no gradient. The released code adds
    1e-8 to the product of the two lengths, so that classes of which the whole batch thinks nothing (of 1000, many) do
    not count; here they correlate as all others do, and only a row without spread correlates with nothing, its term
    being one.

    Args:
        temperature: T; published are 1, and 4 on CIFAR-100.
        inter_weight: :math:`\beta`.
        intra_weight: :math:`\gamma`.

    Raises:
        ValueError: For options out of range.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 2.0]])
    >>> output = dist()({"logits": logits}, {"logits": logits.flip(0)})
    >>> {name: round(float(value), 2) for name, value in output.terms.items()}
    {'inter': 1.0, 'intra': 0.78}
    """
    checks.positive("temperature", temperature)
    checks.not_negative("inter_weight", inter_weight)
    checks.not_negative("intra_weight", intra_weight)
    builds = partial(_rows, temperature=temperature), partial(_columns, temperature=temperature)
    loss = GraphLoss(cost=correlation_distance)
    return Criterion(
        student=Several(*builds),
        teacher=Several(*builds),
        terms={
            "inter": Term(loss, temperature**2 * inter_weight),
            "intra": Term(loss, temperature**2 * intra_weight, student=1, teacher=1),
        },
    )


def _rows(features: Features, temperature: Real) -> Data:
    """Samples with their class probabilities."""
    return point_cloud(_probabilities(features, temperature))


def _columns(features: Features, temperature: Real) -> Data:
    """Classes with the probability that each sample gives them."""
    return neurons(_probabilities(features, temperature))


def _probabilities(features: Features, temperature: Real) -> Tensor:
    return (raised(vectors(features, "logits")) / temperature).softmax(-1)
