"""Relations: how the nodes of one graph relate, a graph of n nodes to a matrix (n n)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_dense_adj

from graphkd import checks
from graphkd.measures import cosine
from graphkd.typing import Measure

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

    >>> Pairwise(cosine)(Data(x=torch.eye(2)))
    tensor([[1., 0.],
            [0., 1.]])
    """

    measure: Measure = cosine
    normalize: Callable[[Tensor], Tensor] | None = None

    def __call__(self, graph: Data) -> Tensor:
        """The relation matrix of a graph's node attributes."""
        x = checks.nodes("a pairwise relation's nodes", graph)
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
