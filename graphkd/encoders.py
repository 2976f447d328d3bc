"""Encoders: a network's features become the graphs that a criterion's terms compare.

An encoder is a module: called with features and labels it returns its graphs, ``last_hop`` is the index of the last.
"""

import copy
import inspect
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import checks
from graphkd.features import hard, pick
from graphkd.measures import unit
from graphkd.memory import MemoryBank
from graphkd.typing import Features

Hops = tuple[Data, ...]
"""The graph before message passing (hop 0) and after each convolution (hop i)."""

Build = Callable[[Features], Data]
"""A builder as an encoder calls it: of the features, among them ``labels`` where the criterion was given any."""


class GraphEncoder(nn.Module):
    r"""Build a graph, project its nodes, pass messages; keep the graph at every hop.

    .. math:: x^{(0)} = \mathrm{normalize}(\mathrm{embed}(x)), \qquad x^{(i)} =
    \mathrm{normalize}(\mathrm{conv}_i(x^{(i-1)}, E))

    Args:
        build: Features to a graph, for example a function that calls :func:`graphkd.graphs.knn_graph`; where the
            criterion is given labels, they are the feature ``labels``. A module if it learns.
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
        build: Build,
        embed: nn.Module | None = None,
        convs: Sequence[nn.Module] = (),
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.build = build
        self.embed = embed
        self.convs = nn.ModuleList(convs)
        self.normalize = normalize

    @property
    def last_hop(self) -> int:
        """How many convolutions there are."""
        return len(self.convs)

    def forward(self, features: Features, labels: Tensor | None = None) -> Hops:
        """The graph at each hop; labels, if given, become its ``y`` where its nodes are samples."""
        graph = _built(self.build, features, labels)
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


class Several(nn.Module):
    """Several graphs of one batch, one from each builder, without message passing: hop i is the i-th.

    >>> import torch
    >>> from graphkd.graphs import point_cloud
    >>> encoder = Several(lambda features: point_cloud(features["feat"]), lambda features: point_cloud(features["map"]))
    >>> [tuple(graph.x.shape) for graph in encoder({"feat": torch.zeros(6, 5), "map": torch.zeros(6, 3)})]
    [(6, 5), (6, 3)]
    """

    def __init__(self, *builds: Build) -> None:
        super().__init__()
        if not builds:
            raise ValueError("needs at least one builder, got none")
        self.builds = builds
        self.learned = nn.ModuleList(build for build in builds if isinstance(build, nn.Module))

    @property
    def last_hop(self) -> int:
        """The index of the last graph."""
        return len(self.builds) - 1

    def forward(self, features: Features, labels: Tensor | None = None) -> Hops:
        """The graphs; labels, if given, become their ``y`` where their nodes are samples."""
        return tuple(_built(build, features, labels) for build in self.builds)


class Remembering(nn.Module):
    """An encoder with a memory: behind its hops comes one more graph, of what is remembered of the whole data set.

    That graph starts with the batch's own samples as they were remembered, so that node i is the partner of sample i;
    behind them come the rows that serve as negatives, see :meth:`graphkd.memory.MemoryBank.recall`. In training, what
    is remembered of the batch is then brought up to date with hop 0.

    Needs the feature ``index`` (n): where each sample stands in the data set. The feature ``negatives`` (n k), if
    there, says which samples are negatives of which, instead of a draw.

    Args:
        encoder: Of the batch; hop 0 is remembered.
        bank: The memory.
        num_negatives: How many rows are drawn as negatives in each step.
    """

    def __init__(self, encoder: GraphEncoder, bank: MemoryBank, num_negatives: int) -> None:
        super().__init__()
        checks.at_least("num_negatives", num_negatives, 1)
        self.encoder, self.bank, self.num_negatives = encoder, bank, num_negatives

    @property
    def last_hop(self) -> int:
        """The index of the remembered graph."""
        return self.encoder.last_hop + 1

    def forward(self, features: Features, labels: Tensor | None = None) -> Hops:
        """The encoder's graphs, then the remembered one."""
        hops = self.encoder(features, labels)
        index = pick(features, "index")
        labels = None if labels is None else hard(labels)
        remembered = self.bank.recall(index, labels, self.num_negatives, features.get("negatives"))
        if self.training:
            x = checks.nodes("a memory's rows", hops[0])
            self.bank.update(index, x, labels)
        return (*hops, remembered)


Encoder = GraphEncoder | Several | Remembering
"""What a criterion takes."""


def _built(build: Build, features: Features, labels: Tensor | None) -> Data:
    if labels is None:
        return copy.copy(build(features))
    graph = copy.copy(build({**features, "labels": labels}))
    if graph.get("node") is None:
        graph.y = labels
    return graph


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
