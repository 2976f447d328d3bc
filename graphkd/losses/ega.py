"""Embedding graph alignment (EGA): correlations between the samples of both networks, and within each.

Ma, Chen, Akata, "Distilling Knowledge from Self-Supervised Teacher by Embedding Graph Alignment", BMVC 2022,
arXiv:2211.13264.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import checks
from graphkd.couplings import Affinity, Identity
from graphkd.encoders import GraphEncoder
from graphkd.graphs import samples
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import correlation, correlation_distance
from graphkd.projectors import LinearProjector, ProjectorName, matched
from graphkd.reductions import PlanGap, RelationGap
from graphkd.relations import Pairwise
from graphkd.typing import Real, Relations, Transport


def ega(
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    *,
    node_weight: Real = 1.0,
    edge_weight: Real = 0.3,
    projector: ProjectorName | nn.Module | None = "linear",
    parity: bool = False,
) -> Criterion:
    r"""Embedding graph alignment.

    .. math::
        L = \frac{w_n}{n} \| R^{st} - I \|_F + \frac{w_e}{n} \| R^{ss} - R^{tt} \|_F, \qquad
        R^{st}_{ij} = \mathrm{corr}(x^s_i, x^t_j)

    with the Pearson correlation of two samples' embeddings over their entries: each sample is to correlate with itself
    in the other network, with no other sample, and with other samples of its own network as they do in the teacher.

    Nodes are samples, the student's behind a linear projector to the teacher's width. The term ``node`` is that of
    optimal transport graph distillation without the transport: the correlations are read as a plan
    (:class:`~graphkd.couplings.Affinity`), and compared with the identity. The term ``edge`` compares a relation at the
    identity coupling. Labels are not used.

    Needs: ``feat`` (n d).
    Pairing: used.
    Cost: n² d.
    Terms: ``node``, ``edge``.
    Extra parameters: a linear projector.
    Equal to: its definition.

    Both terms are roots of mean squares over pairs. On 10 classes behind a ReLU, the student the teacher with noise of
    half its spread, ``node`` was 0.16, 0.17, 0.17 at batches of 16, 64, 256, since samples of one class correlate
    whatever the student does, and ``edge`` 0.09, 0.10, 0.10. Before the student has learned, when
    nothing correlates, ``node`` falls as one over the root of the batch.

    In the released code embeddings of both networks have 256 entries. The student's are a linear layer on which its
    classifier stands, and stay; the teacher's are a linear layer on frozen features, which is trained for its own
    classifier alone, and not by this loss. Here the teacher's embedding is its ``feat``, as it was trained: put such a
    layer into the teacher where there is none. A student whose classifier stands on features of the teacher's width
    needs no projector.

    Departures from the released code: embeddings without any spread have correlation zero instead of NaN.

    Args:
        student_dim: Width of the student's ``feat``; read off the first batch if omitted.
        teacher_dim: Width of the teacher's ``feat``; read off the first batch if omitted.
        node_weight: Of the term ``node``; zero leaves it out.
        edge_weight: Of the term ``edge``; zero leaves it out. The released scripts also use 0.8 and 0.24 or 0.3.
        projector: ``linear``, a module of your own, or None for features of one width.
        parity: Leave out 1 / n, as published: Frobenius norms, which grow with the batch. At a batch of 64 the
            weight of the criterion that fits the default is 64 times the published one, 1.

    Raises:
        ValueError: For weights that are negative or both zero; at the call for widths that differ behind the projector.

    >>> import torch
    >>> criterion = ega()
    >>> list(criterion({"feat": torch.randn(8, 3)}, {"feat": torch.randn(8, 5)}).terms)
    ['node', 'edge']
    """
    checks.not_negative("node_weight", node_weight)
    checks.not_negative("edge_weight", edge_weight)
    if node_weight == edge_weight == 0:
        raise ValueError("ega needs a weight above 0, got 0 for nodes and for edges")
    embed = LinearProjector(student_dim, teacher_dim) if isinstance(projector, str) else projector
    gap = PlanGap() if parity else _PerNode(PlanGap())
    node = GraphLoss(correlation_distance, coupling=Affinity(), reduction=gap)
    edge = GraphLoss(relation=Pairwise(correlation), coupling=Identity(), reduction=RelationGap(intensive=not parity))
    terms = {"node": Term(node, node_weight), "edge": Term(edge, edge_weight)}
    criterion = Criterion(
        student=GraphEncoder(samples, embed, normalize=False),
        teacher=GraphEncoder(samples, normalize=False),
        terms={name: term for name, term in terms.items() if term.weight > 0},
    )
    if isinstance(embed, LinearProjector):
        matched(criterion, "feat")
    return criterion


@dataclass(frozen=True)
class _PerNode:
    """A gap over the number of student nodes: what is read as a plan here has no masses that would limit its size."""

    gap: PlanGap

    reads_plan = True

    def __call__(
        self, transport: Transport, cost: Tensor | None, relations: Relations | None, graphs: tuple[Data, Data]
    ) -> Float[Tensor, ""]:
        """The root of the mean square."""
        return self.gap(transport, cost, relations, graphs) / transport.plan.shape[-2]
