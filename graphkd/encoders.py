"""Encoders: a network's features become the graphs that a criterion's terms compare.

An encoder is a module: called with features and labels it returns its graphs, ``last_hop`` is the index of the last.
"""

import copy
import inspect
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import checks
from graphkd.features import hard, pick
from graphkd.measures import unit
from graphkd.memory import MemoryBank
from graphkd.precision import raised
from graphkd.typing import Features, Real

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
    r"""An encoder with a memory: behind its hops comes one more graph, of what is remembered of the whole data set.

    That graph starts with the batch's own samples as they were remembered, so that node i is the partner of sample i;
    behind them come the rows that serve as negatives, see :meth:`graphkd.memory.MemoryBank.recall`. In training, what
    is remembered of the batch is then brought up to date with hop 0.

    Needs the feature ``index`` (n): where each sample stands in the data set. The feature ``negatives`` (n k), if
    there, says which samples are negatives of which, instead of a draw.

    Args:
        encoder: Of the batch; hop 0 is remembered.
        bank: The memory.
        num_negatives: How many rows are drawn as negatives in each step.
        blend: If given, one more graph comes behind: the remembered one, its partner rows r replaced by
            :math:`\mathrm{unit}((1 - \beta)\, r + \beta\, g)`, with g the encoder's last hop, without gradient.
    """

    def __init__(self, encoder: GraphEncoder, bank: MemoryBank, num_negatives: int, blend: Real | None = None) -> None:
        super().__init__()
        checks.at_least("num_negatives", num_negatives, 1)
        if blend is not None:
            checks.share("blend", blend)
        self.encoder, self.bank, self.num_negatives, self.blend = encoder, bank, num_negatives, blend

    @property
    def last_hop(self) -> int:
        """The index of the remembered graph, or of the blended one behind it."""
        return self.encoder.last_hop + (1 if self.blend is None else 2)

    def forward(self, features: Features, labels: Tensor | None = None) -> Hops:
        """The encoder's graphs, then the remembered one, then the blended one if there is any."""
        hops = self.encoder(features, labels)
        index = pick(features, "index")
        labels = None if labels is None else hard(labels)
        remembered = self.bank.recall(index, labels, self.num_negatives, features.get("negatives"))
        if self.training:
            x = checks.nodes("a memory's rows", hops[0])
            self.bank.update(index, x, labels)
        if self.blend is None:
            return (*hops, remembered)
        return (*hops, remembered, _blended(remembered, checks.nodes("a memory's rows", hops[-1]), self.blend))

    def extra_repr(self) -> str:
        """The settings."""
        return f"num_negatives={self.num_negatives}, blend={self.blend}"


Encoder = GraphEncoder | Several | Remembering
"""What a criterion takes."""


class Shared(dict[str, Tensor]):
    """One network's features of one batch, with the graphs that were built of them.

    Builders that are equal run once for all that are given it: the same function, or ``functools.partial`` of it with
    equal arguments. Learned builders are equal only to themselves.
    """

    def __init__(self, features: Features) -> None:
        super().__init__({name: raised(x) for name, x in features.items()})
        self._graphs: dict[Hashable, tuple[Tensor | None, Data]] = {}

    def graph(self, build: Build, labels: Tensor | None) -> Data:
        """What the builder makes of the features, and of the labels if there are any."""
        key = _key(build)
        if key not in self._graphs or self._graphs[key][0] is not labels:
            self._graphs[key] = labels, build(self if labels is None else {**self, "labels": labels})
        return self._graphs[key][1]


def shared(features: Features) -> Shared:
    """Features in float32 at least, whose graphs are built once.

    >>> import torch
    >>> from graphkd.graphs import samples
    >>> seen = shared({"feat": torch.zeros(2, 3)})
    >>> seen.graph(samples, None) is seen.graph(samples, None)
    True
    """
    return features if isinstance(features, Shared) else Shared(features)


def _key(build: Build) -> Hashable:
    key = (build.func, build.args, tuple(sorted(build.keywords.items()))) if isinstance(build, partial) else build
    try:
        hash(key)
    except TypeError:
        return id(build)
    return key


def _built(build: Build, features: Features, labels: Tensor | None) -> Data:
    graph = copy.copy(shared(features).graph(build, labels))
    if labels is not None and graph.get("node") is None:
        graph.y = labels
    return graph


def _with_nodes(graph: Data, x: Tensor) -> Data:
    """The same edges and masses around other node attributes."""
    hop = copy.copy(graph)
    hop.x = x
    return hop


def _blended(remembered: Data, x: Tensor, share: Real) -> Data:
    """A remembered graph whose partner rows have moved towards those of the batch."""
    rows = checks.nodes("a memory's rows", remembered)
    if x.shape[-1] != rows.shape[-1]:
        raise ValueError(f"a memory of width {rows.shape[-1]} can only be blended with such rows, got {tuple(x.shape)}")
    n = len(x)
    partners = unit((1 - share) * rows[:n] + share * x.detach())
    return _with_nodes(remembered, torch.cat([partners, rows[n:]]))


def _convolve(conv: nn.Module, graph: Data) -> Tensor:
    if graph.edge_weight is None:
        return conv(graph.x, graph.edge_index)
    if "edge_weight" not in inspect.signature(conv.forward).parameters:
        raise ValueError(
            f"a graph with edge weights needs a convolution that takes edge_weight, got {type(conv).__name__}"
        )
    return conv(graph.x, graph.edge_index, edge_weight=graph.edge_weight)
