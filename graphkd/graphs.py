"""Builders: rows of features become PyTorch Geometric graphs.

A node is a row. Edges run from neighbour to centre: ``edge_index`` (2, e) has sources in row 0, centres in row 1. Who
is joined with whom carries no gradient; ``edge_weight``, where there is one, does. ``mass`` is present where it is not
uniform. Builders run where the features live, without SciPy; those whose number of edges is fixed never make the host
wait for the device.

Rows may come as several graphs: ``x`` (b n d) gives a :class:`~torch_geometric.data.Batch` of b graphs.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphkd import checks
from graphkd.measures import cosine, is_similarity
from graphkd.ot.problem import uniform
from graphkd.precision import raised
from graphkd.typing import Measure, Real

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
        measure: A pairwise measure; near means large for ``cosine`` and ``inner``, small for any other.
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
        measure: A pairwise measure; near means large for ``cosine`` and ``inner``, small for any other.
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
