"""Relations: how the nodes of one graph relate, a graph of n nodes to a matrix (n n), or to several of them (v n n).

Relations of classes, each a set of samples, are in :mod:`graphkd.cka`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_dense_adj

from graphkd import checks
from graphkd.cka import class_distance as class_distance
from graphkd.cka import linear_cka as linear_cka
from graphkd.cka import rbf_cka as rbf_cka
from graphkd.graphs import masses
from graphkd.measures import cosine, euclidean_by_differences, full_precision
from graphkd.typing import Coupling, Measure, Relation

Square = Float[Tensor, "n n"]


def by_mean(relation: Square) -> Square:
    """Divided by the mean of its positive entries, as in relational knowledge distillation (RKD); as it is without any.

    >>> by_mean(torch.tensor([[0.0, 2.0], [4.0, 0.0]]))
    tensor([[0.0000, 0.6667],
            [1.3333, 0.0000]])
    """
    positive = relation > 0
    mean = (relation * positive).sum() / positive.sum().clamp_min(1)
    return relation / torch.where(mean > 0, mean, 1.0)


@dataclass(frozen=True)
class Pairwise:
    r"""Measure every node against every other, :math:`C_{ik} = \mathrm{measure}(x_i, x_k)`, then normalise if asked.

    Args:
        measure: A pairwise measure.
        normalize: A function of the matrix.
        on: Which of the graph's attributes is measured: its nodes' ``x``, or another that the builder put there.

    >>> Pairwise(cosine)(Data(x=torch.eye(2)))
    tensor([[1., 0.],
            [0., 1.]])
    """

    measure: Measure = cosine
    normalize: Callable[[Tensor], Tensor] | None = None
    on: str = "x"

    def __call__(self, graph: Data) -> Tensor:
        """The relation matrix of a graph's node attributes."""
        x = graph.get(self.on)
        if x is None:
            raise ValueError(f"a pairwise relation's nodes needs a graph with attributes {self.on}, got {graph}")
        checks.rows("a pairwise relation's nodes", x)
        relation = self.measure(x, x)
        return relation if self.normalize is None else self.normalize(relation)


@dataclass(frozen=True)
class Angle:
    r"""The angles of all triangles: the cosine, at node i, of the angle between nodes j and k.

    .. math:: C_{ijk} = \cos \angle (x_j, x_i, x_k)
        = \frac{\langle x_j - x_i, x_k - x_i\rangle}{\|x_j - x_i\| \, \|x_k - x_i\|}

    A batch (v n n) of relations, one as seen from each vertex i; zero where j or k is i or lies on it. With
    :class:`~graphkd.reductions.TransportCost` at the identity coupling, j and k count by their masses, and the vertices
    evenly.

    From the inner products of centred rows, :math:`G_{jk} - G_{ij} - G_{ik} + G_{ii}`: the n n d differences are never
    formed. These products are in float64, since samples of a class may be so near that float32 has no digit of them.

    Args:
        num_vertices: v, how many nodes are vertices, evenly spaced in the graph, the same ones in both networks; all if
            omitted or where there are fewer. Memory is v n n. Which nodes these are depends on their order, as that of
            a shuffled batch.

    Raises:
        ValueError: For no vertices; at the call for nodes that are not one graph (n d).

    >>> corner = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 6.0]])
    >>> Angle(num_vertices=1)(Data(x=corner))
    tensor([[[0., 0., 0.],
             [0., 1., 0.],
             [0., 0., 1.]]])
    """

    num_vertices: int | None = None

    def __post_init__(self) -> None:
        if self.num_vertices is not None:
            checks.at_least("num_vertices", self.num_vertices, 1)

    def __call__(self, graph: Data) -> Tensor:
        """The cosines, as seen from each vertex."""
        x = checks.nodes("an angle's nodes", graph)
        if x.dim() != 2:
            raise ValueError(f"angles need the nodes of one graph, (n, d), got shape {tuple(x.shape)}")
        return full_precision(self._cosines)(x)

    def _cosines(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        v = n if self.num_vertices is None else min(self.num_vertices, n)
        vertices = torch.arange(v, device=x.device) * n // v
        x = x - x.mean(0).detach()
        products = x.double() @ x.double().T
        seen, own = products[vertices], products.diagonal()[vertices]
        inner = (products - seen.unsqueeze(-1) - seen.unsqueeze(-2) + own[:, None, None]).to(x.dtype)
        distance = euclidean_by_differences(x[vertices], x)
        apart = distance > 0
        inverse = torch.where(apart, 1 / torch.where(apart, distance, 1.0), 0.0)
        return inner * inverse.unsqueeze(-1) * inverse.unsqueeze(-2)


@dataclass(frozen=True)
class Adjacency:
    """The graph's own edges: entry (i, k) is the weight of the edge from k to i, one where edges have no weight.

    >>> Adjacency()(Data(x=torch.zeros(2, 1), edge_index=torch.tensor([[1], [0]])))
    tensor([[0., 1.],
            [0., 0.]])
    """

    def __call__(self, graph: Data) -> Tensor:
        """The dense adjacency matrix."""
        x = checks.nodes("an adjacency's nodes", graph)
        if graph.edge_index is None:
            raise ValueError(f"an adjacency needs edges, got {graph}")
        dense = to_dense_adj(graph.edge_index, edge_attr=graph.edge_weight, max_num_nodes=x.shape[0])[0]
        return dense.T.to(torch.promote_types(dense.dtype, x.dtype))


@dataclass(frozen=True)
class SelfPlan:
    r"""How much more mass goes from node to node than by chance, when the graph is transported onto itself.

    .. math:: C_{ik} = \frac{P_{ik}}{a_i a_k}, \qquad P \text{ the coupling of the graph with itself}

    Its mean under the masses is one. Nodes that are alike exchange mass, each also with itself; what is compared are
    neighbourhoods of one network, so that two networks need no common space.

    Args:
        cost: What it costs to go from node to node, a relation.
        coupling: Of the graph with itself; it must differentiate its plan.

    Raises:
        ValueError: For a coupling whose plan has no gradient.

    >>> from graphkd.couplings import Sinkhorn
    >>> SelfPlan(Pairwise(cosine), Sinkhorn(epsilon=0.1, gradient="unroll"))(Data(x=torch.zeros(2, 1)))
    tensor([[1., 1.],
            [1., 1.]])
    """

    cost: Relation
    coupling: Coupling

    def __post_init__(self) -> None:
        if not self.coupling.differentiates_plan:
            raise ValueError(
                "SelfPlan needs a coupling that differentiates its plan, such as Sinkhorn(gradient='unroll'), got "
                f"{self.coupling}"
            )

    def __call__(self, graph: Data) -> Tensor:
        """The density of the graph's plan with itself."""
        mass = masses(graph)
        expected = mass.unsqueeze(-1) * mass.unsqueeze(-2)
        plan = own_plan(graph, self.cost, self.coupling)
        return torch.where(expected > 0, plan, 0.0) / torch.where(expected > 0, expected, 1.0)


def own_plan(graph: Data, cost: Relation, coupling: Coupling) -> Square:
    """The graph transported onto itself.

    >>> from graphkd.couplings import Sinkhorn
    >>> own_plan(Data(x=torch.zeros(2, 1)), Pairwise(cosine), Sinkhorn(epsilon=0.1))
    tensor([[0.2500, 0.2500],
            [0.2500, 0.2500]])
    """
    within = cost(graph)
    mass = masses(graph).to(within.dtype)
    return coupling(within, None, mass, mass).plan
