"""Encoders: a network's features become a graph, and the graph after each round of message passing."""

import copy
import inspect
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import checks
from graphkd.measures import unit
from graphkd.typing import Features

Hops = tuple[Data, ...]
"""The graph before message passing (hop 0) and after each convolution (hop i)."""


class GraphEncoder(nn.Module):
    r"""Build a graph, project its nodes, pass messages; keep the graph at every hop.

    .. math:: x^{(0)} = \mathrm{normalize}(\mathrm{embed}(x)), \qquad x^{(i)} =
    \mathrm{normalize}(\mathrm{conv}_i(x^{(i-1)}, E))

    Args:
        build: Features to a graph, for example a function that calls :func:`graphkd.graphs.knn_graph`.
        embed: Projector of node attributes (n d) to (n d'); none if omitted. May be lazy.
        convs: PyTorch Geometric convolutions, called as ``conv(x, edge_index)``, with ``edge_weight`` where the graph
            has one.
        normalize: Whether node attributes are scaled to length one at every hop.

    >>> import torch
    >>> from torch_geometric.nn import TAGConv
    >>> from graphkd.graphs import knn_graph
    >>> encoder = GraphEncoder(lambda features: knn_graph(features["feat"], k=2), nn.Linear(5, 4), [TAGConv(4, 4, K=1)])
    >>> [tuple(hop.x.shape) for hop in encoder({"feat": torch.randn(6, 5)})]
    [(6, 4), (6, 4)]
    """

    def __init__(
        self,
        build: Callable[[Features], Data],
        embed: nn.Module | None = None,
        convs: Sequence[nn.Module] = (),
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.build = build
        self.embed = embed
        self.convs = nn.ModuleList(convs)
        self.normalize = normalize

    def forward(self, features: Features, labels: Tensor | None = None) -> Hops:
        """The graph at each hop; labels, if given, become its ``y``."""
        graph = copy.copy(self.build(features))
        if labels is not None:
            graph.y = labels
        x = checks.nodes("an encoder's nodes", graph)
        x = x if self.embed is None else self.embed(x)
        hops = [_with_nodes(graph, unit(x) if self.normalize else x)]
        for conv in self.convs:
            x = _convolve(conv, hops[-1])
            hops.append(_with_nodes(graph, unit(x) if self.normalize else x))
        return tuple(hops)

    def extra_repr(self) -> str:
        """The parts that are not modules."""
        return f"build={self.build}, normalize={self.normalize}"


def _with_nodes(graph: Data, x: Tensor) -> Data:
    """The same edges and masses around other node attributes."""
    hop = copy.copy(graph)
    hop.x = x
    return hop


def _convolve(conv: nn.Module, graph: Data) -> Tensor:
    if graph.edge_weight is None:
        return conv(graph.x, graph.edge_index)
    if "edge_weight" not in inspect.signature(conv.forward).parameters:
        raise ValueError(
            f"a graph with edge weights needs a convolution that takes edge_weight, got {type(conv).__name__}"
        )
    return conv(graph.x, graph.edge_index, edge_weight=graph.edge_weight)
