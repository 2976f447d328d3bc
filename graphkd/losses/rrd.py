"""Relational representation distillation (RRD): how similar a sample is to the teacher's past samples.

Giakoumoglou, Stathaki, "Relational Representation Distillation", 2024, arXiv:2407.12073.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import checks
from graphkd.couplings import RowSoftmax
from graphkd.encoders import GraphEncoder
from graphkd.features import vectors
from graphkd.graphs import masses, samples
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.losses.crd import minus_inner
from graphkd.measures import unit
from graphkd.memory import Queue
from graphkd.ot.problem import uniform
from graphkd.projectors import linear
from graphkd.reductions import PlanNLL
from graphkd.typing import Features, Real


def rrd(
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    *,
    embed_dim: int = 128,
    queue_size: int = 16384,
    student_temperature: Real = 0.1,
    teacher_temperature: Real = 0.02,
) -> Criterion:
    r"""Relational representation distillation.

    .. math::
        -\frac{1}{n} \sum_{ij} \mathrm{softmax}(v^t_i \cdot q / T_t)_j \log \mathrm{softmax}(v^s_i \cdot q / T_s)_j,
        \qquad v = \mathrm{normalize}(W h + b)

    over the K latest embeddings q of the teacher, those of the batch among them. The student's nodes are samples, the
    teacher's are the queue; the coupling is the softmax of rows at the student's temperature, its target the teacher's
    own at the teacher's.

    Needs: ``feat`` (n d).
    Pairing: used.
    Cost: n K d, K d held.
    Terms: ``relation``.
    Extra parameters: one projector, a fixed one, and a queue (K d).
    Equal to: its definition.

    Labels are not used. The queue moves in training only; elsewhere the value is the same, as if the batch were let in.
    The value does not depend on the size of the batch, but grows like log K at the most.

    The teacher's projector is random and fixed. So it is in the released code too, where nothing that it yields has a
    gradient. Departures from that code: the queue starts empty, where it starts with K random rows about ten times
    shorter than embeddings; and batches of any size fit. The paper's abstract speaks of a sharper student; the code's
    defaults, which are those here, are of a sharper teacher. Kept is the variant with a queue, the code's default,
    not that with a memory of the data set.

    Args:
        student_dim: Width of the student's ``feat``; read off the first batch if omitted.
        teacher_dim: Width of the teacher's ``feat``; read off the first batch if omitted.
        embed_dim: Width d of embeddings.
        queue_size: K.
        student_temperature: :math:`T_s`.
        teacher_temperature: :math:`T_t`.

    Raises:
        ValueError: For options out of range.

    >>> import torch
    >>> criterion = rrd(queue_size=10)
    >>> criterion({"feat": torch.randn(6, 16)}, {"feat": torch.randn(6, 32)}).comparisons["relation"].plan.shape
    torch.Size([6, 16])
    """
    checks.at_least("embed_dim", embed_dim, 1)
    checks.positive("student_temperature", student_temperature)
    loss = GraphLoss(
        minus_inner, coupling=RowSoftmax(student_temperature), reduction=PlanNLL(_Spread(teacher_temperature))
    )
    queued = _Queued(linear(teacher_dim, embed_dim), Queue(queue_size, embed_dim))
    return Criterion(
        GraphEncoder(samples, linear(student_dim, embed_dim)),
        GraphEncoder(queued, normalize=False),
        {"relation": Term(loss)},
    )


class _Queued(nn.Module):
    """Builder of a batch's embeddings and, behind them, the queue that they then join."""

    def __init__(self, embed: nn.Module, queue: Queue) -> None:
        super().__init__()
        for parameter in embed.parameters():
            parameter.requires_grad = False  # as an attribute: a lazy parameter has no requires_grad_() yet
        self.embed = embed
        self.queue = queue

    def forward(self, features: Features) -> Data:
        with torch.no_grad():
            x = unit(self.embed(vectors(features, "feat")))
            graph = self.queue.recall(x)
            if self.training:
                self.queue.push(x)
        graph.num_samples = len(x)
        return graph


@dataclass(frozen=True)
class _Spread:
    """How the teacher's samples, the first nodes, spread their mass over all nodes."""

    temperature: Real

    def __post_init__(self) -> None:
        checks.positive("teacher_temperature", self.temperature)

    def __call__(self, teacher: Data) -> Tensor:
        nodes = checks.nodes("the teacher's queue", teacher)
        cost = minus_inner(nodes[: teacher.num_samples], nodes)
        own = uniform(teacher.num_samples, like=cost)
        return RowSoftmax(self.temperature)(cost, None, own, masses(teacher)).plan
