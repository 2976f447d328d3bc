"""Wasserstein knowledge distillation on logits (WKD-L): transport between class probabilities over a graph of classes.

Lv, Yang, Li, "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation", NeurIPS 2024,
arXiv:2412.08139. Checked against the authors' code.
"""

from functools import partial
from os import PathLike
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Data

from graphkd import checks, kept
from graphkd.couplings import Identity, SharedSinkhorn
from graphkd.encoders import Several
from graphkd.features import classes_of, vectors
from graphkd.graphs import classes, point_cloud
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import Fixed
from graphkd.precision import raised
from graphkd.reductions import TransportCost
from graphkd.typing import UNLABELLED, Features, Real

PUBLISHED_STABILIZER = 1e-8
"""What the released code adds to the cost, and to both denominators of its Sinkhorn iteration."""

MORE_SWEEPS = 10
"""How many times the published number of sweeps may be run for the tolerance."""


def wkd_logits(
    class_cost: Float[Tensor, "c c"] | str | PathLike[str],
    *,
    temperature: Real = 4.0,
    epsilon: Real = 0.05,
    num_iters: int = 10,
    tol: Real | None = None,
    transport_weight: Real = 1.0,
    separate_target: bool = True,
    parity: bool = False,
) -> Criterion:
    r"""Wasserstein knowledge distillation on logits.

    .. math::
        L = \underbrace{-\frac{1}{n} \sum_i q^t_i(y_i) \log q^s_i(y_i)}_{\texttt{target}}
        + \lambda \underbrace{\frac{1}{n} \sum_i \langle P_i, D\rangle}_{\texttt{transport}}, \qquad
        q = \mathrm{softmax}(z)

    where :math:`P_i` is the entropic transport plan, under the one class cost D, from the student's to the teacher's
    probabilities of all classes but the label's, :math:`\mathrm{softmax}(z_{\setminus y_i} / T)`. The teacher's masses
    are updated first, the student's last, and the gradient goes through all sweeps. There is no factor
    :math:`T^2`. As published, the student's own cross-entropy stands beside it with weight 1, and only the transport's
    weight decays (:class:`~graphkd.training.schedules.ConstantThenCosine` as weight of ``transport``).

    Nodes are classes with the probabilities as masses; a second graph has the samples with their log-probability of the
    label. Costs and plans of single samples are never formed: memory is n c + c c instead of n c c.

    Needs: ``logits`` (n c), labels.
    Pairing: used.
    Cost: n c² a sweep.
    Terms: ``target``, ``transport``.
    Extra parameters: none.
    Equal to: authors' code, 3e-15.

    A sample without label (-100, or none given) has no target term, and its transport is over all classes. Of soft
    labels (n c) the most likely class counts, as in the released code: labels that mix two images lose one.

    Args:
        class_cost: D, how far classes are apart, with a diagonal of zeros; see :func:`graphkd.class_cost.class_cost`.
            Or the file in which that, or the command ``graphkd class-cost``, kept one: for configs. Whether it is of
            the teacher at hand is not checked.
        temperature: T, of the transported probabilities; the target term has none.
        epsilon: Entropic weight, in units of D.
        num_iters: Sweeps. With a tolerance they go on, up to ten times as many, where it is not met.
        tol: Marginal error, summed over classes, at which sweeps stop, such as 0.01. None runs ``num_iters`` sweeps:
            after the published 10, at an epsilon of 0.05, the teacher's masses are off by 4 to 17 % where D is between
            0.4 and 0.6, and the value by up to 8 %; where D reaches 1.5, masses by 13 to 19 %, and the value by 18 to
            98 %, the more the higher the temperature. The smaller epsilon, the more sweeps it takes. What is reached is
            in the ``marginal_error`` of the logs, and above 10 % the log warns once. On an accelerator, where nobody
            waits to look, a tolerance runs all ten times as many.
        transport_weight: :math:`\lambda`; published values are 10 to 800.
        separate_target: Off, the transport is over all classes, and there is no target term.
        parity: As the released code does it, to the last digits: scalings that start at one and are not guarded against
            underflow, 1e-8 added to the cost (negative entries set to zero) and to denominators, and exactly
            ``num_iters`` sweeps. Its plans lose mass where epsilon is small against the cost.

    Raises:
        ValueError: For a cost that is not a finite square matrix of two classes or more, or a file without one; at the
            call for logits of another number of classes, and for labels out of range.

    >>> import torch
    >>> criterion = wkd_logits(1 - torch.eye(3), tol=0.01)
    >>> student, teacher = {"logits": torch.zeros(2, 3)}, {"logits": torch.tensor([[9.0, 8.0, 0.0], [0.0, 9.0, 8.0]])}
    >>> output = criterion(student, teacher, torch.tensor([0, 1]))
    >>> {name: round(float(value), 2) for name, value in output.terms.items()}
    {'target': 0.8, 'transport': 0.38}
    """
    checks.positive("temperature", temperature)
    checks.at_least("num_iters", num_iters, 1)
    if not isinstance(class_cost, Tensor):
        class_cost = _kept(Path(class_cost))
    checks.rows("class_cost", class_cost)
    if class_cost.dim() != 2 or class_cost.shape[0] != class_cost.shape[1] or len(class_cost) < 2:
        raise ValueError(f"class_cost needs a square matrix of at least 2 classes, got shape {tuple(class_cost.shape)}")
    if parity:
        cost = Fixed(class_cost.clamp_min(0) + PUBLISHED_STABILIZER)
        coupling = SharedSinkhorn(
            epsilon, num_iters, order="columns_first", stabilizer=PUBLISHED_STABILIZER, start="scalings"
        )
    else:
        cost = Fixed(class_cost)
        most = num_iters if tol is None else MORE_SWEEPS * num_iters
        coupling = SharedSinkhorn(epsilon, most, tol, order="columns_first")
    transport = GraphLoss(cost, coupling=coupling, reduction=TransportCost())
    if not separate_target:
        build = partial(_all_classes, temperature=temperature)
        return Criterion(Several(build), Several(build), {"transport": Term(transport, transport_weight)})
    target = GraphLoss(_expected_surprise, coupling=Identity(), reduction=TransportCost())
    builds = _at_label, partial(_other_classes, temperature=temperature)
    return Criterion(
        student=Several(*builds),
        teacher=Several(*builds),
        terms={"target": Term(target), "transport": Term(transport, transport_weight, student=1, teacher=1)},
    )


def _kept(file: Path) -> Tensor:
    if not file.exists():
        raise ValueError(f"class_cost needs a matrix or the file of one, got no {file}: `graphkd class-cost` makes it")
    return kept.load(file, {})


def _all_classes(features: Features, temperature: Real) -> Data:
    return classes(vectors(features, "logits"), temperature)


def _other_classes(features: Features, temperature: Real) -> Data:
    logits = vectors(features, "logits")
    return classes(logits, temperature, classes_of(features, logits))


def _at_label(features: Features) -> Data:
    """Samples with their log-probability of the label; only labelled ones have mass."""
    logits = vectors(features, "logits")
    labels = classes_of(features, logits)
    known = labels != UNLABELLED
    at_label = raised(logits).log_softmax(-1).gather(1, torch.where(known, labels, 0).unsqueeze(1))
    return point_cloud(at_label, known.to(at_label.dtype) / known.sum().clamp_min(1))


def _expected_surprise(x: Tensor, y: Tensor) -> Tensor:
    """The teacher's probability times the student's negative log-probability (n m)."""
    return -x @ y.exp().mT
