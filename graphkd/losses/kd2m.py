"""Knowledge distillation by distribution matching (KD2M): features of a batch, with their labels, moved at least cost.

Montesuma, "KD2M: A unifying framework for feature knowledge distillation", GSI 2025, arXiv:2504.01757.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import checks
from graphkd.couplings import Exact, Sinkhorn
from graphkd.encoders import GraphEncoder
from graphkd.features import hard, vectors
from graphkd.graphs import point_cloud
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import sqeuclidean, unit
from graphkd.projectors import LinearProjector, ProjectorName, matched
from graphkd.reductions import TransportCost
from graphkd.typing import UNLABELLED, Coupling, Features, Real

MARGIN = 50.0
"""How many epsilons more it costs an entropic plan to leave a class: a share of exp(-50) does."""

Kind = Literal["marginal", "conditional", "joint"]


def kd2m(
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    *,
    kind: Kind = "joint",
    label_weight: Real = 1.0,
    coupling: Literal["exact", "sinkhorn"] = "exact",
    epsilon: Real = 0.05,
    num_iters: int = 100,
    normalize: bool = True,
    projector: ProjectorName | nn.Module | None = "linear",
) -> Criterion:
    r"""Knowledge distillation by distribution matching, with empirical distributions.

    .. math::
        L = \min_{P \ge 0,\; P 1 = P^\top 1 = 1 / n} \sum_{ij} P_{ij}
            \bigl( \|x_i - y_j\|^2 + \lambda\, \|p^s_i - p^t_j\|^2 \bigr), \qquad p = \mathrm{softmax}(z)

    between the student's features x, behind the projector, and the teacher's y, with each network's own class
    probabilities p as the labels: the squared 2-Wasserstein distance of ``joint`` distributions. ``marginal`` leaves
    the labels out. In ``conditional`` mass only moves within a class of the given labels, so that L is the sum of the
    classes' own squared distances, weighted with their shares of the batch.

    Nodes are samples with features and labels as attributes; the plan is the exact one and a constant for the gradient,
    which is no approximation (Danskin's theorem).

    Needs: ``feat`` (n d); ``logits`` (n c) if joint; labels if conditional.
    Pairing: ignored.
    Cost: n² d, n³ log n with the exact plan, of which n² numbers are held.
    Terms: ``transport``.
    Extra parameters: a linear projector.
    Equal to: its definition.

    Only ``conditional`` uses labels: samples without one (-100) are a class of their own, without any labels it is
    ``marginal``, and of soft labels the most likely class counts. Intensive: features of length one are at most a
    squared 4 apart, probabilities 2, and the value is a mean over samples.

    Departures from the released code. Its joint cost takes the distances of the student's features among themselves,
    divided by the largest and without a gradient; its conditional distances fail when called, and would be summed over
    classes, however many there are. Neither is reproduced. Its labels are raw logits, which grow with confidence; here
    they are probabilities. Its features are raw and of one width: ``marginal`` with ``normalize=False`` and
    ``projector=None`` is the published number, to which the published weight of 1e-4 belongs.

    Args:
        student_dim: Width of the student's ``feat``; read off the first batch if omitted.
        teacher_dim: Width of the teacher's ``feat``; read off the first batch if omitted.
        kind: ``marginal``, ``conditional`` or ``joint``.
        label_weight: :math:`\lambda` of ``joint``.
        coupling: ``exact`` by a network simplex on the CPU, or ``sinkhorn``, for accelerators that shall not wait.
        epsilon: Of ``sinkhorn``, in units of the cost.
        num_iters: Sweeps of ``sinkhorn``.
        normalize: Whether features are scaled to length one.
        projector: ``linear``, a module of your own, or None for features of equal width.

    Raises:
        ValueError: For options out of range; at the call for widths that differ without a projector.
        KeyError: At the call without a feature that is needed.

    >>> student = {"feat": torch.eye(3), "logits": torch.zeros(3, 2)}
    >>> teacher = {"feat": torch.eye(3).flip(0), "logits": torch.zeros(3, 2)}
    >>> labels = torch.tensor([0, 1, 1])
    >>> for kind in ("marginal", "conditional"):
    ...     round(float(kd2m(kind=kind, projector=None)(student, teacher, labels).value), 3)
    0.0
    1.333
    """
    checks.one_of("kind", kind, ("marginal", "conditional", "joint"))
    checks.one_of("coupling", coupling, ("exact", "sinkhorn"))
    checks.not_negative("label_weight", label_weight)
    if isinstance(projector, str):
        checks.one_of("projector", projector, ("linear",))
        projector = LinearProjector(student_dim, teacher_dim)
    couplings: dict[str, Coupling] = {"exact": Exact(), "sinkhorn": Sinkhorn(epsilon, num_iters)}
    margin = MARGIN * epsilon if coupling == "sinkhorn" else 0.0
    cost = _WithinClasses(margin) if kind == "conditional" else sqeuclidean
    loss = GraphLoss(cost, coupling=couplings[coupling], reduction=TransportCost())
    criterion = Criterion(
        student=GraphEncoder(_Labelled(kind, label_weight, normalize, projector), normalize=False),
        teacher=GraphEncoder(_Labelled(kind, label_weight, normalize), normalize=False),
        terms={"transport": Term(loss)},
    )
    matched(criterion, "feat")
    return criterion


class _Labelled(nn.Module):
    """Build samples whose attributes are a feature, behind the projector if there is one, and behind it a label."""

    def __init__(self, kind: Kind, label_weight: Real, normalize: bool, projector: nn.Module | None = None) -> None:
        super().__init__()
        self.kind, self.label_weight, self.normalize, self.projector = kind, label_weight, normalize, projector

    def forward(self, features: Features) -> Data:
        x = vectors(features, "feat")
        x = x if self.projector is None else self.projector(x)
        x = unit(x) if self.normalize else x
        if self.kind == "marginal":
            return point_cloud(x)
        return point_cloud(torch.cat([x, self._label(features, x)], -1))

    def _label(self, features: Features, x: Tensor) -> Tensor:
        """Class probabilities, so long that their squared distance has its weight; or the number of the class."""
        if self.kind == "joint":
            return self.label_weight**0.5 * vectors(features, "logits").softmax(-1)
        labels = features.get("labels")
        if labels is None:
            return x.new_full((len(x), 1), UNLABELLED)
        return hard(labels).to(x.dtype).unsqueeze(-1)

    def extra_repr(self) -> str:
        return f"kind={self.kind}, label_weight={self.label_weight}, normalize={self.normalize}"


@dataclass(frozen=True)
class _WithinClasses:
    """A cost that keeps mass within a class, whose number is the last attribute."""

    margin: Real

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        cost = sqeuclidean(x[..., :-1], y[..., :-1])
        # Both sides have as many samples of each class, so that mass which leaves could as well have stayed, at no more
        # than the largest cost: leaving needs to cost more than that.
        leaving = 10 * cost.detach().amax((-2, -1), keepdim=True) + self.margin
        return torch.where(x[..., -1:] == y[..., -1:].mT, cost, leaving)
