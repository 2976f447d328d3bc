"""Discriminative and consistent distillation (DCD): a contrast in the batch that is alike from both networks' sides.

Giakoumoglou, Stathaki, "Discriminative and Consistent Representation Distillation", 2024, arXiv:2407.11802.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import checks
from graphkd.couplings import RowSoftmax
from graphkd.encoders import GraphEncoder
from graphkd.graphs import samples
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import cosine_distance
from graphkd.projectors import linear
from graphkd.reductions import PlanNLL
from graphkd.typing import Real, Relations, Transport


def dcd(
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    *,
    embed_dim: int = 128,
    consistency: Real = 0.5,
    scale: Real = math.e,
    largest_scale: Real = 10.0,
) -> Criterion:
    r"""Discriminative and consistent distillation.

    .. math::
        -\frac{1}{n} \sum_i \log p_{ii} + \alpha \frac{1}{n} \sum_i \mathrm{KL}(q_i \,\|\, p_i), \qquad
        p_{ij} = \frac{e^{L_{ij}}}{\sum_k e^{L_{ik}}}, \quad q_{ij} = \frac{e^{L_{ji}}}{\sum_k e^{L_{ki}}}, \quad
        L_{ij} = \min(e^\tau, c) \cos(v^s_i, v^t_j)

    on embeddings :math:`v = W h + b` that are learned for both networks, with a learned scale. ``contrast`` tells a
    sample's teacher from those of the batch; ``consistency`` asks that student i sees the teachers as teacher i sees
    the students. Nodes are samples, the cost is minus L up to a constant, the coupling the softmax of its rows.

    Needs: ``feat`` (n d).
    Pairing: used.
    Cost: n² d.
    Terms: ``contrast``, ``consistency``.
    Extra parameters: two projectors and a scale.
    Equal to: its definition.

    No memory. Labels are not used: samples of one class are pushed apart like any others. The value of a uniform guess
    is log n: intensive but for that.

    Departure from the code: it adds a learned bias to L, of which no softmax knows, so that its gradient is zero; there
    is none here. As there, a scale at its limit gets no gradient: only weight decay brings it back.

    Args:
        student_dim: Width of the student's ``feat``; read off the first batch if omitted.
        teacher_dim: Width of the teacher's ``feat``; read off the first batch if omitted.
        embed_dim: Width of embeddings.
        consistency: :math:`\alpha`.
        scale: What :math:`e^\tau`, the inverse of a temperature, is at the start.
        largest_scale: c.

    Raises:
        ValueError: For options out of range.

    >>> import torch
    >>> criterion = dcd(embed_dim=8)
    >>> output = criterion({"feat": torch.zeros(4, 3)}, {"feat": torch.zeros(4, 5)})
    >>> {name: round(value.item(), 4) for name, value in output.terms.items()}  # All alike: log 4.
    {'contrast': 1.3863, 'consistency': 0.0}
    """
    checks.at_least("embed_dim", embed_dim, 1)
    checks.not_negative("consistency", consistency)
    cost = _Scaled(scale, largest_scale)

    def encoder(width: int | None) -> GraphEncoder:
        return GraphEncoder(samples, linear(width, embed_dim))

    return Criterion(
        encoder(student_dim),
        encoder(teacher_dim),
        {
            "contrast": Term(GraphLoss(cost, coupling=RowSoftmax(1.0), reduction=PlanNLL())),
            "consistency": Term(GraphLoss(cost, coupling=RowSoftmax(1.0), reduction=_Consistency()), consistency),
        },
    )


class _Scaled(nn.Module):
    """The cosine distance times a learned number."""

    def __init__(self, scale: Real, largest: Real) -> None:
        super().__init__()
        checks.positive("scale", scale)
        checks.positive("largest_scale", largest)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.largest = largest

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        cost = cosine_distance(x, y)
        return self.log_scale.exp().clamp_max(self.largest).to(cost.dtype) * cost

    def extra_repr(self) -> str:
        return f"largest={self.largest}"


@dataclass(frozen=True)
class _Consistency:
    """Divergence of the softmax of column i from that of row i, averaged over i."""

    reads_plan = False

    def __call__(
        self, transport: Transport, cost: Tensor | None, relations: Relations | None, graphs: tuple[Data, Data]
    ) -> Float[Tensor, ""]:
        if cost is None or cost.shape[-1] != cost.shape[-2]:
            raise ValueError(f"needs a cost between as many samples, got {None if cost is None else tuple(cost.shape)}")
        rows, columns = (-cost).log_softmax(-1), (-cost.mT).log_softmax(-1)
        return (columns.exp() * (columns - rows)).sum(-1).mean()
