"""Decoupled knowledge distillation (DKD): how likely the label is, and apart from it, how likely the others are.

Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", CVPR 2022, arXiv:2203.08679.
"""

from functools import partial

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd import checks
from graphkd.encoders import Several
from graphkd.features import classes_of, vectors
from graphkd.graphs import point_cloud
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import SoftmaxKL
from graphkd.precision import raised
from graphkd.typing import UNLABELLED, Features, Real

FAR_BELOW = 1000.0
"""How far below the others the logit of a left-out class is put, in units of the temperature: exp(-1000) is zero."""


def dkd(temperature: Real = 4.0, target_weight: Real = 1.0, nontarget_weight: Real = 8.0) -> Criterion:
    r"""Decoupled knowledge distillation.

    .. math::
        L = \alpha \underbrace{\frac{T^2}{n} \sum_i \mathrm{KL}(b^t_i \,\|\, b^s_i)}_{\texttt{target}}
        + \beta \underbrace{\frac{T^2}{n} \sum_i \mathrm{KL}(q^t_i \,\|\, q^s_i)}_{\texttt{nontarget}}, \qquad
        b_i = (p_i(y_i), 1 - p_i(y_i)), \quad q_i = \mathrm{softmax}(z_{i \setminus y_i} / T)

    with :math:`p = \mathrm{softmax}(z / T)`. KD is their sum with 1 in place of :math:`\alpha` and, for each sample,
    :math:`1 - p^t_i(y_i)` in place of :math:`\beta`: the surer its teacher, the less it learns of the other classes.

    Nodes are samples, with the logits of two ways (the label or not) in one graph and of all classes but the label in
    another; the cost is the divergence, the coupling the identity.

    Needs: ``logits`` (n c), labels.
    Pairing: used.
    Cost: n² c, of which n² numbers are held.
    Terms: ``target``, ``nontarget``.
    Extra parameters: none.
    Equal to: its definition.

    A sample without label (-100, or none given) has no target: the first term is the mean over the others, zero without
    any, and in the second it counts with all its classes, which is KD. Of soft labels (n c) the most likely class
    counts. As published, the weight of the whole grows over the first 20 epochs
    (:class:`~graphkd.training.schedules.LinearWarmup`), and :math:`\beta` is 2, 6 or 8 on CIFAR-100, by pair of
    networks.

    The released code takes the logarithm of the student's probabilities, infinite where they underflow; here the
    log-probabilities are summed.

    Args:
        temperature: T.
        target_weight: :math:`\alpha`.
        nontarget_weight: :math:`\beta`.

    Raises:
        ValueError: For options out of range; at the call for fewer than two classes and for labels out of range.

    >>> student, teacher = {"logits": torch.zeros(2, 3)}, {"logits": torch.tensor([[9.0, 8.0, 0.0], [0.0, 9.0, 8.0]])}
    >>> output = dkd()(student, teacher, torch.tensor([0, 1]))
    >>> {name: round(float(value), 2) for name, value in output.terms.items()}
    {'target': 1.31, 'nontarget': 5.25}
    """
    checks.positive("temperature", temperature)
    checks.not_negative("target_weight", target_weight)
    checks.not_negative("nontarget_weight", nontarget_weight)
    builds = partial(_two_ways, temperature=temperature), partial(_others, temperature=temperature)
    loss = GraphLoss(cost=SoftmaxKL(temperature))
    return Criterion(
        student=Several(*builds),
        teacher=Several(*builds),
        terms={
            "target": Term(loss, target_weight),
            "nontarget": Term(loss, nontarget_weight, student=1, teacher=1),
        },
    )


def _two_ways(features: Features, temperature: Real) -> Data:
    """Samples with the logits of their label and of all else together; only labelled ones have mass."""
    logits, labels, own = _logits_and_labels(features)
    log_p = (logits / temperature).log_softmax(-1)
    known = labels != UNLABELLED
    at_label = log_p.gather(1, torch.where(known, labels, 0).unsqueeze(1)).squeeze(1)
    elsewhere = log_p.masked_fill(own, -torch.inf).logsumexp(-1)
    two = temperature * torch.stack([at_label, elsewhere], -1)
    return point_cloud(two, known.to(two.dtype) / known.sum().clamp_min(1))


def _others(features: Features, temperature: Real) -> Data:
    """Samples with their logits, of which that of the label is too low for any probability."""
    logits, _, own = _logits_and_labels(features)
    least = logits.detach().masked_fill(own, torch.inf).amin(-1, keepdim=True)
    return point_cloud(torch.where(own, least - FAR_BELOW * temperature, logits))


def _logits_and_labels(features: Features) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels, and which logit is that of the sample's label."""
    logits = raised(vectors(features, "logits"))
    if logits.shape[-1] < 2:
        raise ValueError(f"needs logits of at least two classes, got shape {tuple(logits.shape)}")
    labels = classes_of(features, logits)
    return logits, labels, labels.unsqueeze(1) == torch.arange(logits.shape[-1], device=logits.device)
