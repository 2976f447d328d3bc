"""A batch graph, drawn: nodes by class, edges by weight."""

from collections.abc import Mapping, Sequence

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from torch_geometric.data import Data

from graphkd.viz.inputs import Labels, axes_or_new, node_classes
from graphkd.viz.palette import INK, draw_nodes

LEGEND_ROWS = 20


def graph_layout(graph: Data, *, seed: int = 0) -> dict[int, np.ndarray]:
    """Positions (2) of a graph's nodes, by springs along its edges; the same seed gives the same positions.

    Only edges bring nodes together: classes that the graph keeps apart end apart, and a class without edges inside is
    scattered. Positive weights pull in proportion. All nodes pull at each other a little, so that parts of the graph
    that no edge joins stay in one picture.

    Args:
        graph: Nodes and edges; directions and self-loops are ignored.
        seed: Of the positions from which the springs start.

    Raises:
        ValueError: For a graph without nodes, and weights that are not one finite number per edge.

    >>> import torch
    >>> graph = Data(x=torch.zeros(4, 1), edge_index=torch.tensor([[0, 2], [1, 3]]))
    >>> at = graph_layout(graph)
    >>> bool(np.linalg.norm(at[0] - at[1]) < np.linalg.norm(at[0] - at[2]))
    True
    """
    n = _num_nodes(graph)
    pairs, weights = _joined(graph)
    springs = nx.complete_graph(n)
    nx.set_edge_attributes(springs, {pair: {"weight": 1 / n} for pair in springs.edges})
    pull = np.ones(len(pairs)) if weights is None else _share(weights.clip(min=0))
    springs.add_weighted_edges_from((i, j, 1 / n + w) for (i, j), w in zip(pairs.tolist(), pull, strict=True))
    return nx.spring_layout(springs, seed=seed, iterations=100)


def plot_graph(
    graph: Data,
    *,
    labels: Labels | None = None,
    class_names: Sequence[str] | None = None,
    positions: Mapping[int, np.ndarray] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw a batch graph: nodes coloured by class, edges the wider and darker the larger their weight is.

    Edges are drawn without direction, once per pair with the mean of its weights; those of negative weight are dashed.
    Self-loops are not drawn.

    Args:
        graph: Nodes and edges, ``edge_weight`` (e) if there are weights.
        labels: Class of each node (n), -100 for none; by default ``graph.y``, if it is there.
        class_names: The name of class c at place c; by default c itself.
        positions: Of each node (2), by default :func:`graph_layout`. Give the teacher's to the student to compare them.
        ax: Where to draw; by default on a new figure.
        title: Of the axes.

    Raises:
        ValueError: For a graph without nodes, for weights or labels that are not one per edge or node, and for
            positions that lack a node.

    >>> import torch
    >>> graph = Data(x=torch.zeros(3, 1), edge_index=torch.tensor([[0, 1], [1, 2]]))
    >>> plot_graph(graph, labels=[0, 0, 1], title="student").get_title()
    'student'
    """
    n = _num_nodes(graph)
    labels = graph.get("y") if labels is None else labels
    classes = None if labels is None else node_classes("labels", labels, n)
    places = graph_layout(graph) if positions is None else dict(positions)
    missing = [i for i in range(n) if i not in places]
    if missing:
        raise ValueError(f"positions needs a place for each of {n} nodes, got none for {len(missing)}: {missing[:5]}")
    pairs, weights = _joined(graph)
    ax = axes_or_new(ax, 5.2, 4.2)
    drawn = nx.empty_graph(n)
    drawn.add_edges_from(pairs.tolist())
    strength = np.full(len(pairs), 0.6) if weights is None else _share(np.abs(weights))
    if len(pairs):
        nx.draw_networkx_edges(
            drawn,
            places,
            edgelist=[tuple(pair) for pair in pairs.tolist()],
            width=(0.2 + 1.4 * strength).tolist(),
            edge_color=[(*to_rgb(INK), alpha) for alpha in 0.04 + 0.66 * strength**2],
            style=["-"] * len(pairs) if weights is None else ["--" if w < 0 else "-" for w in weights],
            ax=ax,
        )
    size = float(np.clip(5000 / n, 14, 90))
    parts = draw_nodes(drawn, range(n), places, classes, ax, size, class_names)
    if classes is not None and len(parts) <= 2 * LEGEND_ROWS:
        ax.legend(
            title="class",
            loc="center left",
            bbox_to_anchor=(1, 0.5),
            ncols=-(-len(parts) // LEGEND_ROWS),
            markerscale=(50 / size) ** 0.5,
            frameon=False,
            fontsize=8,
        )
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_axis_off()
    ax.set_title(title or "")
    return ax


def _num_nodes(graph: Data) -> int:
    n = graph.num_nodes
    if not n:
        raise ValueError(f"needs a graph of at least one node, got {n}")
    return n


def _joined(graph: Data) -> tuple[np.ndarray, np.ndarray | None]:
    """Joined pairs (p 2), each once and without self-loops, and the mean of their weights (p) where there are any."""
    ends = np.zeros((2, 0), dtype=np.int64) if graph.edge_index is None else graph.edge_index.cpu().numpy()
    given = graph.get("edge_weight")
    weights = None if given is None else given.detach().cpu().double().numpy()
    if weights is not None and (weights.shape != ends.shape[1:] or not np.isfinite(weights).all()):
        raise ValueError(f"edge_weight needs one finite number per edge, ({ends.shape[1]},), got {weights.shape}")
    apart = ends[0] != ends[1]
    pairs, which = np.unique(np.sort(ends[:, apart].T, axis=1), axis=0, return_inverse=True)
    if weights is None:
        return pairs, None
    return pairs, np.bincount(which.ravel(), weights[apart], len(pairs)) / np.bincount(
        which.ravel(), minlength=len(pairs)
    )


def _share(weights: np.ndarray) -> np.ndarray:
    """Non-negative weights as shares of the largest; zero where all are."""
    return weights / max(weights.max(initial=0.0), np.finfo(np.float64).tiny)
