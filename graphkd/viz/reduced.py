"""A graph as it can be drawn: itself, its classes, or a neighbourhood of it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order
from torch import Tensor
from torch_geometric.data import Data

from graphkd.viz.inputs import Labels, node_classes

MOST_NODES = 500
MOST_CLASSES = 100


class ReducedGraph(NamedTuple):
    """At most 500 nodes that are drawn for a graph of n.

    Attributes:
        members: Which of the k drawn nodes stands for each node (n), -1 for none.
        pairs: Joined drawn nodes (p 2), each pair once.
        weights: Of the pairs (p), where there are any.
        classes: Of the drawn nodes (k), where labels are known.
        within: Where the drawn nodes are classes, the share of each one's edges that stay within it (k).
        note: What is drawn, in words; empty for the graph itself.
    """

    members: np.ndarray
    pairs: np.ndarray
    weights: np.ndarray | None
    classes: np.ndarray | None
    within: np.ndarray | None
    note: str


def reduced_graph(
    graph: Data, labels: Labels | None, placed: Mapping[int, np.ndarray] | None, seed: int
) -> ReducedGraph:
    """What is drawn of a graph.

    Args:
        graph: Nodes and edges.
        labels: Class of each node (n), by default ``graph.y`` if it has an entry per node.
        placed: Nodes that have a place already; they are the ones to draw where not all nodes or classes are.
        seed: Of the neighbourhood.

    Raises:
        ValueError: For a graph without nodes, and for weights or labels that are not one per edge or node.

    >>> import torch
    >>> path = torch.stack([torch.arange(599), torch.arange(1, 600)])
    >>> found = reduced_graph(Data(x=torch.zeros(600, 1), edge_index=path), torch.arange(600) // 200, None, 0)
    >>> found.pairs.tolist(), found.note.splitlines()[0]
    ([[0, 1], [1, 2]], '600 nodes as 3 classes, sized by their nodes')
    """
    n = graph.num_nodes
    if not n:
        raise ValueError(f"needs a graph of at least one node, got {n}")
    own = graph.get("y")
    if labels is None and isinstance(own, Tensor) and own.shape == (n,):
        labels = own
    classes = None if labels is None else node_classes("labels", labels, n)
    pairs, weights = _joined(graph, n)
    if n <= MOST_NODES:
        return ReducedGraph(np.arange(n), pairs, weights, classes, None, "")
    if classes is not None and 1 < len(np.unique(classes)) <= MOST_CLASSES:
        return _by_class(pairs, weights, classes)
    if placed is not None and 0 < len(placed) <= MOST_NODES:
        chosen, how = np.array(sorted(placed)), "those with a position"
        if chosen[-1] >= n or chosen[0] < 0:
            raise ValueError(f"positions needs nodes of the graph, 0 to {n - 1}, got {chosen[0]} to {chosen[-1]}")
    else:
        chosen, how = _neighbourhood(pairs, n, seed), "around a random one"
    members = np.full(n, -1)
    members[chosen] = np.arange(len(chosen))
    kept = (members[pairs] >= 0).all(1)
    return ReducedGraph(
        members,
        members[pairs[kept]],
        None if weights is None else weights[kept],
        None if classes is None else classes[chosen],
        None,
        f"{len(chosen)} of {n:,} nodes, {how}",
    )


def _joined(graph: Data, n: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Joined pairs (p 2), each once and without self-loops, and the mean of their weights (p) where there are any."""
    ends = np.zeros((2, 0), dtype=np.int64) if graph.edge_index is None else graph.edge_index.cpu().numpy()
    given = graph.get("edge_weight")
    weights = None if given is None else given.detach().cpu().double().numpy()
    if weights is not None and (weights.shape != ends.shape[1:] or not np.isfinite(weights).all()):
        raise ValueError(f"edge_weight needs one finite number per edge, ({ends.shape[1]},), got {weights.shape}")
    apart = ends[0] != ends[1]
    keys, which = np.unique(ends[:, apart].min(0) * n + ends[:, apart].max(0), return_inverse=True)
    pairs = np.stack([keys // n, keys % n], axis=1)
    if weights is None:
        return pairs, None
    return pairs, np.bincount(which, weights[apart], len(pairs)) / np.bincount(which, minlength=len(pairs))


def _by_class(pairs: np.ndarray, weights: np.ndarray | None, classes: np.ndarray) -> ReducedGraph:
    """A node per class; two are joined by the share of all edges, or of their absolute weight, that joins them."""
    known, members = np.unique(classes, return_inverse=True)
    k = len(known)
    signed = np.ones(len(pairs)) if weights is None else weights
    ends = np.sort(members[pairs], axis=1)
    keys = ends[:, 0] * k + ends[:, 1]
    strength = np.bincount(keys, np.abs(signed), k * k).reshape(k, k)
    sign = np.sign(np.bincount(keys, signed, k * k)).reshape(k, k)
    inside = strength.diagonal()
    # Between classes only the upper triangle is filled, so rows and columns together are what touches a class.
    touching = strength.sum(0) + strength.sum(1) - inside
    between = np.argwhere(np.triu(strength, 1) > 0)
    share = strength[between[:, 0], between[:, 1]] / max(strength.sum(), np.finfo(np.float64).tiny)
    note = f"{len(members):,} nodes as {k} classes, sized by their nodes"
    if len(pairs):
        note += f"\nring: share of a class's {'edges' if weights is None else 'edge weight'}\nthat stays within it"
    within = np.divide(inside, touching, out=np.zeros(k), where=touching > 0)
    return ReducedGraph(members, between, share * sign[between[:, 0], between[:, 1]], known, within, note)


def _neighbourhood(pairs: np.ndarray, n: int, seed: int) -> np.ndarray:
    """At most 500 nodes (sorted), breadth first from a random one, then from another where its part ends."""
    adjacency = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    found = np.zeros(n, dtype=bool)
    for start in np.random.default_rng(seed).permutation(n):
        if not found[start]:
            near = breadth_first_order(adjacency, start, directed=False, return_predecessors=False)
            found[near[: MOST_NODES - found.sum()]] = True
        if found.sum() == MOST_NODES:
            break
    return np.flatnonzero(found)
