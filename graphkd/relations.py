"""Relations: how the nodes of one graph relate, a graph of n nodes to a matrix (n n).

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
from graphkd.measures import cosine
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
