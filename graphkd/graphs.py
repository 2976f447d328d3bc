"""Builders: rows of features become PyTorch Geometric graphs.

A node is a row. Edges run from neighbour to centre: ``edge_index`` (2, e) has sources in row 0, centres in row 1. Who
is joined with whom carries no gradient; ``edge_weight``, where there is one, does. ``mass`` is present where it is not
uniform. ``node`` says what a node is where it is no sample of the batch: ``class``, ``neuron``, ``cell``, ``batch``
or ``remembered``. Builders run where the features live, without SciPy; those whose number of edges is fixed never make
the host wait for the device.

Rows may come as several graphs: ``x`` (b n d) gives a :class:`~torch_geometric.data.Batch` of b graphs.
"""

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphkd import checks
from graphkd.cells import clouds as clouds
from graphkd.cells import moments as moments
from graphkd.cells import positions as positions
from graphkd.features import vectors
from graphkd.measures import cosine, is_similarity
from graphkd.ot.problem import uniform
from graphkd.precision import raised
from graphkd.typing import Features, Measure, Real

Rows = Shaped[Tensor, "*b n d"]
Keys = Shaped[Tensor, "*b n c"]


def knn_graph(
    x: Rows, k: int, on: Keys | None = None, measure: Measure = cosine, loop: bool = False, symmetric: bool = False
) -> Data:
    """Join each row with its k nearest: a directed graph, unweighted, of in-degree k.

    Args:
        x: Node attributes (n d), or (b n d) for b graphs.
        k: Neighbours of a node. A graph too small for that (a short last batch) gets as many as there are, and the log
            says so once.
        on: What "near" is measured on, if not on ``x``; for example logits, while the nodes carry embeddings.
        measure: A pairwise measure; near means large for a similarity such as ``cosine``, small for distances.
        loop: Whether each node is its own first neighbour, counted in k.
        symmetric: Whether each edge also runs backwards, counted once. The number of edges then depends on the data,
            which makes the host wait once on an accelerator.

    Raises:
        ValueError: For k < 1, and for rows that are empty, not finite or not floating-point.

    >>> knn_graph(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), k=1).edge_index
    tensor([[1, 0, 1],
            [0, 1, 2]])
    """
    checks.at_least("k", k, 1)
    nearness = _nearness(x, on, measure)
    n = x.shape[-2]
    most = n if loop else n - 1
    if k > most:
        checks.log_once(f"knn_graph: {n} nodes have only {most} neighbours each, so k={k} became {most}")
    own = torch.eye(n, dtype=torch.bool, device=x.device)
    nearness = nearness.masked_fill(own, torch.inf if loop else -torch.inf)
    source = nearness.topk(min(k, most), dim=-1).indices
    centre = torch.arange(n, device=x.device).unsqueeze(-1).expand_as(source)
    edge_index = torch.stack([source, centre]).flatten(-2)

    def edges(at: tuple[int, ...]) -> Tensor:
        return _both_ways(edge_index[(slice(None), *at)], n) if symmetric else edge_index[(slice(None), *at)]

    return _graphs(x, lambda at: Data(x=x[at], edge_index=edges(at)))


def similarity_graph(x: Rows, on: Keys | None = None, measure: Measure = cosine, loop: bool = False) -> Data:
    """Join all rows with all, weighted: ``edge_weight`` is the measure, with its gradient.

    Args:
        x: Node attributes (n d), or (b n d) for b graphs.
        on: What the weight is measured on, if not on ``x``.
        measure: A pairwise measure.
        loop: Whether each node is joined with itself.

    Raises:
        ValueError: For rows that are empty, not finite or not floating-point.

    >>> similarity_graph(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])).edge_weight
    tensor([1., 0., 1., 0., 0., 0.])
    """
    key = _key(x, on)
    weight = measure(key, key)
    n = x.shape[-2]
    if loop:
        source = torch.arange(n, device=x.device).expand(n, n)
        centre = source.T
    else:
        shifted = torch.arange(n - 1, device=x.device).expand(n, n - 1)
        centre = torch.arange(n, device=x.device).unsqueeze(-1).expand(n, n - 1)
        source = shifted + (shifted >= centre)
    edge_index = torch.stack([source.flatten(), centre.flatten()])
    return _graphs(
        x, lambda at: Data(x=x[at], edge_index=edge_index, edge_weight=weight[at][edge_index[1], edge_index[0]])
    )


def threshold_graph(
    x: Rows, threshold: Real, on: Keys | None = None, measure: Measure = cosine, loop: bool = False
) -> Data:
    """Join the rows that are nearer than a threshold: above it for a similarity, below it for a distance.

    The number of edges depends on the data, which makes the host wait once on an accelerator.

    Args:
        x: Node attributes (n d), or (b n d) for b graphs.
        threshold: In units of the measure.
        on: What "near" is measured on, if not on ``x``.
        measure: A pairwise measure; near means large for a similarity such as ``cosine``, small for distances.
        loop: Whether each node is joined with itself.

    Raises:
        ValueError: For rows that are empty, not finite or not floating-point, and for a threshold that is not finite.

    >>> threshold_graph(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), 0.5).edge_index
    tensor([[1, 0],
            [0, 1]])
    """
    if not -torch.inf < threshold < torch.inf:
        raise ValueError(f"threshold needs a finite number, got {threshold!r}")
    near = _nearness(x, on, measure) > (threshold if is_similarity(measure) else -threshold)
    own = torch.eye(x.shape[-2], dtype=torch.bool, device=x.device)
    near = (near | own) if loop else (near & ~own)
    return _graphs(x, lambda at: Data(x=x[at], edge_index=near[at].nonzero().T.flip(0)))


def point_cloud(x: Rows, mass: Float[Tensor, "*b n"] | None = None) -> Data:
    """Nodes without edges, with masses if they are not uniform.

    Raises:
        ValueError: For rows that are empty, not finite or not floating-point, and for masses of another shape.

    >>> point_cloud(torch.zeros(3, 2))
    Data(x=[3, 2], edge_index=[2, 0])
    """
    checks.rows("x", x)
    if mass is not None and mass.shape != x.shape[:-1]:
        raise ValueError(f"mass needs one number per row, {tuple(x.shape[:-1])}, got {tuple(mass.shape)}")
    none = torch.empty((2, 0), dtype=torch.int64, device=x.device)
    return _graphs(x, lambda at: Data(x=x[at], edge_index=none, **({} if mass is None else {"mass": mass[at]})))


def samples(features: Features, name: str = "feat") -> Data:
    """The samples of a batch with one of their features, without edges: the plainest builder of an encoder.

    >>> samples({"feat": torch.zeros(3, 2)})
    Data(x=[3, 2], edge_index=[2, 0])
    """
    return point_cloud(vectors(features, name))


def classes(logits: Float[Tensor, "n c"], temperature: Real = 1.0, labels: Int[Tensor, " n"] | None = None) -> Data:
    r"""Classes as nodes: each sample spreads its mass over them by its class probabilities.

    .. math:: a_{sc} = \mathrm{softmax}(z_s / T)_c \quad\text{over all classes, or all but the sample's own}

    One graph without edges; ``mass`` (n c) has a line per sample, ``x`` (c 1) is the mean of all, ``y`` (c) the class
    itself.

    Args:
        logits: z.
        temperature: T.
        labels: The class that each sample leaves out; none, if omitted and where it is -100.

    Raises:
        ValueError: For logits that are empty or not finite, fewer than two classes, and labels out of range.

    >>> classes(torch.zeros(2, 3), labels=torch.tensor([0, -100])).mass
    tensor([[0.0000, 0.5000, 0.5000],
            [0.3333, 0.3333, 0.3333]])
    """
    checks.rows("logits", logits)
    checks.positive("temperature", temperature)
    if logits.shape[-1] < 2:
        raise ValueError(f"needs logits of at least two classes, got shape {tuple(logits.shape)}")
    scaled = raised(logits) / temperature
    if labels is not None:
        checks.class_labels(labels, logits)
        own = labels.unsqueeze(1) == torch.arange(logits.shape[-1], device=logits.device)
        scaled = scaled.masked_fill(own, -torch.inf)
    mass = scaled.softmax(-1)
    none = torch.empty((2, 0), dtype=torch.int64, device=logits.device)
    own = torch.arange(mass.shape[-1], device=mass.device)
    return Data(x=mass.mean(0).unsqueeze(-1), edge_index=none, y=own, mass=mass, node="class")


def neurons(x: Float[Tensor, "n d"]) -> Data:
    """Neurons as nodes, each with its responses to the n samples as attributes, without edges.

    >>> neurons(torch.zeros(5, 3)).x.shape
    torch.Size([3, 5])
    """
    graph = point_cloud(x.mT)
    graph.node = "neuron"
    return graph


def stacked(*graphs: Data) -> Data:
    """Graphs of one size as a batch of problems, without their edges: ``x`` (b n d), ``mass`` (b n), ``negatives``.

    >>> stacked(point_cloud(torch.zeros(3, 2)), point_cloud(torch.ones(3, 2))).mass.shape
    torch.Size([2, 3])
    """
    nodes = [checks.nodes("stacked nodes", graph) for graph in graphs]
    if len({x.shape for x in nodes}) > 1:
        came = " and ".join(str(tuple(x.shape)) for x in nodes)
        raise ValueError(f"needs graphs of as many nodes of one width to stack, got shapes {came}")
    x = torch.stack(nodes)
    none = torch.empty((2, 0), dtype=torch.int64, device=x.device)
    first = graphs[0]
    batch = Data(x, none, y=first.y, mass=torch.stack([masses(graph) for graph in graphs]))
    if first.get("node") is not None:
        batch.node = first.node
    if first.get("negatives") is not None:
        batch.negatives = torch.stack([graph.negatives for graph in graphs])
    return batch


def continued(graph: Data, other: Data, n: int) -> Data:
    """The first n nodes of a graph, then those behind the first n of another: ``x``, ``mass``, ``negatives``.

    For graphs of which the first n nodes are the partners of n samples and the others are their negatives: positives of
    one network, negatives of the other.

    >>> partners, negatives = point_cloud(torch.zeros(2, 1)), point_cloud(torch.ones(5, 1))
    >>> continued(partners, negatives, 2).x.flatten()
    tensor([0., 0., 1., 1., 1.])
    """
    first, behind = checks.nodes("the first nodes", graph), checks.nodes("the nodes behind", other)
    if min(first.shape[-2], behind.shape[-2]) < n or first.shape[-1] != behind.shape[-1]:
        raise ValueError(
            f"needs two graphs of at least {n} nodes of one width to continue one with the other, got shapes "
            f"{tuple(first.shape)} and {tuple(behind.shape)}"
        )
    joined = copy.copy(graph)
    joined.x = torch.cat([first[..., :n, :], behind[..., n:, :]], -2)
    joined.mass = torch.cat([masses(graph)[..., :n], masses(other)[..., n:]], -1)
    if graph.get("negatives") is not None and other.get("negatives") is not None:
        joined.negatives = torch.cat([graph.negatives[..., :n], other.negatives[..., n:]], -1)
    return joined


def masses(graph: Data) -> Float[Tensor, "*b n"]:
    """A graph's node masses; uniform, summing to one, in float32 at least, where it carries none.

    >>> masses(point_cloud(torch.zeros(2, 3)))
    tensor([0.5000, 0.5000])
    """
    if graph.get("mass") is not None:
        return graph.mass
    if graph.x is None:
        raise ValueError(f"masses need node attributes x, got {graph}")
    return uniform(graph.x.shape[-2], like=raised(graph.x))


def _key(x: Rows, on: Keys | None) -> Tensor:
    """What nearness is measured on, checked."""
    checks.rows("x", x)
    if on is None:
        return x
    checks.rows("on", on)
    checks.same_device(x=x, on=on)
    if on.shape[:-1] != x.shape[:-1]:
        raise ValueError(f"on needs one row per node, {tuple(x.shape[:-1])}, got {tuple(on.shape[:-1])}")
    return on


def _nearness(x: Rows, on: Keys | None, measure: Measure) -> Float[Tensor, "*b n n"]:
    key = _key(x, on).detach()
    value = measure(key, key)
    return value if is_similarity(measure) else -value


def _both_ways(edge_index: Int[Tensor, "2 e"], n: int) -> Int[Tensor, "2 f"]:
    joined = torch.zeros(n, n, dtype=torch.bool, device=edge_index.device)
    joined[edge_index[1], edge_index[0]] = True
    return (joined | joined.T).nonzero().T.flip(0)


def _graphs(x: Rows, graph: Callable[[tuple[int, ...]], Data]) -> Data:
    """One graph, or a batch of them along the leading axis."""
    if x.dim() == 2:
        return graph(())
    if x.dim() != 3:
        raise ValueError(f"x needs rows (n, d), or (b, n, d) for b graphs, got shape {tuple(x.shape)}")
    batch = Batch.from_data_list([graph((i,)) for i in range(x.shape[0])])
    assert isinstance(batch, Data)  # PyTorch Geometric makes Batch a subclass of Data at run time
    return batch
