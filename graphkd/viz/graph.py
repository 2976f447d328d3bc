"""A batch graph, drawn: nodes by class, edges by weight."""

from collections.abc import Mapping, Sequence

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from torch_geometric.data import Data

from graphkd.viz.inputs import Labels, axes_or_new
from graphkd.viz.palette import GREY, INK, draw_nodes
from graphkd.viz.reduced import ReducedGraph, reduced_graph

LEGEND_ROWS = 20
MOST_EDGES = 5000
MOST_DARK = 3000


def graph_layout(graph: Data, *, labels: Labels | None = None, seed: int = 0) -> dict[int, np.ndarray]:
    """Positions (2) of the nodes that :func:`plot_graph` draws, by springs along the edges; the same for one seed.

    Only edges bring nodes together: classes that the graph keeps apart end apart, and a class without edges inside is
    scattered. Positive weights pull in proportion. All nodes pull at each other a little, so that parts of the graph
    that no edge joins stay in one picture.

    Up to 500 nodes all have a position. Of more nodes those of one class share one, if there are 2 to 100 classes; else
    a neighbourhood of 500 nodes has positions.

    Args:
        graph: Nodes and edges; directions and self-loops are ignored.
        labels: Class of each node (n), by default ``graph.y`` if it has one per node; those given to
            :func:`plot_graph`. Up to 500 nodes they change nothing.
        seed: Of the positions from which the springs start, and of the neighbourhood.

    Raises:
        ValueError: For a graph without nodes, for weights that are not one finite number per edge, and for labels that
            are not one per node.

    >>> import torch
    >>> graph = Data(x=torch.zeros(4, 1), edge_index=torch.tensor([[0, 2], [1, 3]]))
    >>> at = graph_layout(graph)
    >>> bool(np.linalg.norm(at[0] - at[1]) < np.linalg.norm(at[0] - at[2]))
    True
    """
    drawn = reduced_graph(graph, labels, None, seed)
    at = _springs(drawn, seed)
    return {i: at[node] for i, node in enumerate(drawn.members.tolist()) if node >= 0}


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

    Beyond 500 nodes the graph of the 2 to 100 classes is drawn, if there are labels: an edge stands for the share of
    all edges, or of their absolute weight, that join two classes, a ring for the share of a class's edges that stay
    within it. Without labels, or with other numbers of classes, 500 nodes around a random one are drawn, and the edges
    among them. Of more than 5,000 edges the strongest are drawn. The axis says what is left out.

    Args:
        graph: Nodes and edges, ``edge_weight`` (e) if there are weights.
        labels: Class of each node (n), -100 for none; by default ``graph.y``, if it has one per node.
        class_names: The name of class c at place c; by default c itself.
        positions: Of each node (2), by default :func:`graph_layout`. To compare graphs of the same samples, such as
            teacher, student and hops, give all of them those of one, with the same labels: a class stands in the middle
            of its nodes' positions, and where nodes are left out, those that have a position are drawn.
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
    drawn = reduced_graph(graph, labels, positions, seed=0)
    places = _springs(drawn, seed=0) if positions is None else _centres(drawn.members, positions)
    n, classes = len(places), drawn.classes
    ax = axes_or_new(ax, 5.2, 4.2)
    joined = nx.empty_graph(n)
    joined.add_edges_from(drawn.pairs.tolist())
    note = _draw_edges(ax, joined, places, drawn)
    size = float(np.clip(5000 / n, 14, 90))
    sizes = np.full(n, size)
    if drawn.within is not None:
        counts = np.bincount(drawn.members)
        sizes = np.clip(4 * size * counts / counts.max(), 14, None)
        _draw_rings(ax, places, sizes, drawn.within)
    parts = draw_nodes(joined, range(n), places, classes, ax, sizes, class_names)
    if classes is not None and len(parts) <= 2 * LEGEND_ROWS:
        ax.legend(
            handles=parts,
            title="class",
            loc="center left",
            bbox_to_anchor=(1, 0.5),
            ncols=-(-len(parts) // LEGEND_ROWS),
            markerscale=float((50 / sizes.max()) ** 0.5),
            frameon=False,
            fontsize=8,
        )
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xticks=[], yticks=[], title=title or "")
    ax.set_xlabel("\n".join(filter(None, (drawn.note, note))), fontsize=8)
    ax.set_frame_on(False)
    return ax


def _springs(drawn: ReducedGraph, seed: int) -> dict[int, np.ndarray]:
    """Where each drawn node stands (2) if springs pull along the edges."""
    n = int(drawn.members.max()) + 1
    springs = nx.complete_graph(n)
    nx.set_edge_attributes(springs, {pair: {"weight": 1 / n} for pair in springs.edges})
    pull = np.ones(len(drawn.pairs)) if drawn.weights is None else _share(drawn.weights.clip(min=0))
    springs.add_weighted_edges_from((i, j, 1 / n + w) for (i, j), w in zip(drawn.pairs.tolist(), pull, strict=True))
    return nx.spring_layout(springs, seed=seed, iterations=100)


def _centres(members: np.ndarray, positions: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Where each drawn node stands: in the middle of the places of the nodes that it stands for."""
    placed = [i for i, node in enumerate(members) if node >= 0 and i in positions]
    count = int(members.max()) + 1
    missing = sorted(set(range(count)) - set(members[placed].tolist()))
    if missing:
        raise ValueError(
            f"positions needs a place for each of {count} nodes, got none for {len(missing)}: {missing[:5]}"
        )
    places = np.stack([np.asarray(positions[i], dtype=np.float64) for i in placed])
    numbers = np.bincount(members[placed])
    at = np.stack([np.bincount(members[placed], places[:, axis]) / numbers for axis in (0, 1)], axis=1)
    return dict(enumerate(at))


def _draw_edges(ax: Axes, joined: nx.Graph, places: Mapping[int, np.ndarray], drawn: ReducedGraph) -> str:
    """Draw the edges, the strongest if there are too many, and say in words if some are left out."""
    pairs, weights = drawn.pairs, drawn.weights
    if not len(pairs):
        return ""
    strength = np.full(len(pairs), 0.6) if weights is None else _share(np.abs(weights))
    count = min(len(pairs), MOST_EDGES)
    if weights is None:
        shown = np.arange(count) * len(pairs) // count
    else:
        shown = np.sort(np.argsort(-strength, kind="stable")[:count])
    # As many as a similarity graph has would otherwise cover the paper.
    faint = min(1.0, (MOST_DARK / count) ** 0.5)
    nx.draw_networkx_edges(
        joined,
        dict(places),
        edgelist=[tuple(pair) for pair in pairs[shown].tolist()],
        width=(0.2 + (1.4 if drawn.within is None else 4) * strength[shown]).tolist(),
        edge_color=[(*to_rgb(INK), alpha) for alpha in faint * (0.04 + 0.66 * strength[shown] ** 2)],
        style=["-"] * count if weights is None else ["--" if w < 0 else "-" for w in weights[shown]],
        ax=ax,
    )
    kind = "edges, at even steps" if weights is None else "edges, the strongest"
    return "" if count == len(pairs) else f"{count:,} of {len(pairs):,} {kind}"


def _draw_rings(ax: Axes, places: Mapping[int, np.ndarray], sizes: np.ndarray, within: np.ndarray) -> None:
    """An arc around each class, clockwise from the top, as long as the share of its edges that stay within it."""
    for node, share in enumerate(within):
        for end, colour in ((1.0, GREY), (share, INK)):
            if share > 0:
                ax.scatter(
                    *places[node],
                    s=(sizes[node] ** 0.5 + 7) ** 2,
                    marker=MarkerStyle(Path.arc(90 - 360 * end, 90)),
                    facecolors="none",
                    edgecolors=colour,
                    linewidths=1.6,
                )


def _share(weights: np.ndarray) -> np.ndarray:
    """Non-negative weights as shares of the largest; zero where all are."""
    return weights / max(weights.max(initial=0.0), np.finfo(np.float64).tiny)
