"""Instance relationship graph (IRG): samples, the distances between them, and how both change from layer to layer.

Liu, Cao, Li, Yuan, Hu, Li, Duan, "Knowledge Distillation via Instance Relationship Graph", CVPR 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd import checks
from graphkd.couplings import Identity
from graphkd.encoders import Build, Several
from graphkd.features import pick, vectors
from graphkd.graphs import point_cloud
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import mean_sqeuclidean, sqeuclidean
from graphkd.precision import raised
from graphkd.reductions import TransportCost
from graphkd.relations import Pairwise
from graphkd.typing import Features, Real, Relation


def irg(
    *,
    layers: Sequence[tuple[str, str]] = (),
    vertices: str = "logits",
    vertex_weight: Real = 1.0,
    edge_weight: Real = 1.0,
    vertex_transformation_weight: Real = 1.0,
    edge_transformation_weight: Real = 0.0,
) -> Criterion:
    r"""Instance relationship graphs.

    .. math::
        \texttt{vertex} = \frac{1}{n d} \sum_i \| v^s_i - v^t_i \|^2, \qquad
        \texttt{edge} = \frac{1}{n^2} \| E^s - E^t \|_F^2, \quad
        E_{ik} = \frac{\| x_i - x_k \|^2}{\max_{jl} \| x_j - x_l \|^2}

    and from a layer to a later one of the same network, :math:`x'` to :math:`x''`, how far each sample moves, and how
    each edge changes:

    .. math::
        \texttt{vertex\_transformation} = \frac{1}{n} \| \Lambda^s - \Lambda^t \|^2, \quad
        \Lambda_i = \frac{\| x''_i - x'_i \|^2}{\max_j \| x''_j - x'_j \|^2}; \qquad
        \texttt{edge\_transformation} = \frac{1}{n^2} \| \Theta^s - \Theta^t \|_F^2, \quad
        \Theta_{ik} = (E''_{ik} - E'_{ik})^2

    Nodes are samples, one graph per term, all at the identity coupling: vertices are a cost, edges a relation. The
    widths of the two networks are free but for the vertices. Feature maps (n c h w) are averaged over their positions
    first, as in the released networks. Labels are not used.

    Needs: ``feat`` (n d) and ``logits`` (n c), and the features that ``layers`` names.
    Pairing: used.
    Cost: n² d for each term.
    Terms: ``vertex``, ``edge``; of each pair of layers ``vertex_transformation_1``, ``edge_transformation_1``, ...
    Extra parameters: none.
    Equal to: its definition.

    The released networks have a weight of 0.005 on Caffe's Euclidean loss, which for edges is half the squared distance
    over n, for transformations of vertices half the squared distance. Both are n / 2 times the terms here, which do not
    change with the batch: 0.005 at the published batch of 64 is a weight of 0.16 here. They have edges of the last
    pooled layer, or transformations of vertices in the three stages, and no vertices. In the paper's sum of all,
    vertices are logits, whose widths agree, and transformations of edges are defined but left out.

    Departures from the released code: the maximum has its gradient; there it is taken as a constant, and the gradient
    of an edge reaches only one of its two samples, which halves it.

    Args:
        layers: Pairs of features (earlier, later) of which the transformations are compared, such as
            ``[("stage1_first", "stage1_last")]``. The student's are compared with those of the same names of the
            teacher.
        vertices: The feature whose vertices are compared: of one width in both networks.
        vertex_weight: Of the term ``vertex``. As every weight, zero leaves the term out.
        edge_weight: Of the term ``edge``, on ``feat``.
        vertex_transformation_weight: Of each pair's; its two layers need one width in each network.
        edge_transformation_weight: Of each pair's.

    Raises:
        ValueError: For weights that are negative or leave no term; at the call for vertices of two widths, and for
            layers of two widths where vertices are transformed.

    >>> import torch
    >>> student, teacher = ({"feat": torch.randn(6, d), "logits": torch.randn(6, 5)} for d in (3, 4))
    >>> list(irg()(student, teacher).terms)
    ['vertex', 'edge']
    """
    named: dict[str, tuple[Real, Build, GraphLoss]] = {
        "vertex": (vertex_weight, partial(_samples, name=vertices), GraphLoss(mean_sqeuclidean)),
        "edge": (edge_weight, partial(_samples, name="feat"), _relational(_edges())),
    }
    for i, pair in enumerate(layers, 1):
        if isinstance(pair, str) or len(pair) != 2:
            raise ValueError(f"layers needs pairs of features, (earlier, later), got {pair!r}")
        moves, both = partial(_moves, *pair), partial(_both, *pair)
        named[f"vertex_transformation_{i}"] = vertex_transformation_weight, moves, GraphLoss(sqeuclidean)
        named[f"edge_transformation_{i}"] = edge_transformation_weight, both, _relational(_EdgeChange())
    for name, (weight, _, _) in named.items():
        checks.not_negative(f"the weight of {name}", weight)
    kept = {name: part for name, part in named.items() if part[0] > 0}
    if not kept:
        raise ValueError(f"irg needs a term with a weight above 0, got none among {', '.join(named)}")
    builds = [build for _, build, _ in kept.values()]
    terms = {name: Term(loss, weight, hop, hop) for hop, (name, (weight, _, loss)) in enumerate(kept.items())}
    return Criterion(student=Several(*builds), teacher=Several(*builds), terms=terms)


def _relational(relation: Relation) -> GraphLoss:
    return GraphLoss(relation=relation, coupling=Identity(), reduction=TransportCost(1.0))


def _pooled(features: Features, name: str) -> Tensor:
    x = pick(features, name)
    if x.dim() != 4:
        return vectors(features, name)
    checks.maps(f"feature {name!r}", x)
    return raised(x).mean((2, 3))


def _samples(features: Features, name: str) -> Data:
    return point_cloud(_pooled(features, name))


def _moves(earlier: str, later: str, features: Features) -> Data:
    """Samples with how far they move between two layers, as a share of the farthest."""
    before, after = _pooled(features, earlier), _pooled(features, later)
    if before.shape != after.shape:
        raise ValueError(
            f"moves of vertices need layers of one width, got {earlier!r} of {before.shape[-1]} and {later!r} of "
            f"{after.shape[-1]}: set vertex_transformation_weight to 0"
        )
    return point_cloud(_by_max((raised(after) - raised(before)).square().sum(-1, keepdim=True)))


def _both(earlier: str, later: str, features: Features) -> Data:
    graph = point_cloud(_pooled(features, later))
    graph.before = _pooled(features, earlier)
    return graph


def _by_max(distance: Tensor) -> Tensor:
    """As a share of the largest; as it is where all are zero."""
    largest = distance.amax((-2, -1), keepdim=True)
    return distance / torch.where(largest > 0, largest, 1.0)


def _edges(on: str = "x") -> Pairwise:
    return Pairwise(sqeuclidean, _by_max, on)


@dataclass(frozen=True)
class _EdgeChange:
    """How much each edge changes between the layer in a graph's ``before`` and its own."""

    def __call__(self, graph: Data) -> Tensor:
        """The squared change of every edge."""
        return (_edges()(graph) - _edges("before")(graph)).square()
