"""A cost between classes, drawn as the graph of the classes."""

from collections.abc import Sequence

import networkx as nx
import numpy as np
import torch
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from graphkd import checks
from graphkd.viz.inputs import axes_or_new, class_name
from graphkd.viz.palette import INK, draw_nodes

MOST_CLASSES = 100
FEW = 30
GOLDEN_ANGLE = 2.399963
FONT = 7
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
NEAR_TO_FAR = LinearSegmentedColormap.from_list("near_to_far", [INK, "#DADADA"])


def plot_class_cost(
    cost: Shaped[Tensor, "c c"],
    *,
    class_names: Sequence[str] | None = None,
    k: int = 3,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    r"""Draw the classes as a graph: near where moving probability is cheap, each joined with its k cheapest others.

    The darker and wider an edge, the cheaper; the bar tells the cost. Places are those of least weighted stress

    .. math:: \sum_{i<j} \left(\frac{\|x_i - x_j\|}{M_{ij}} - 1\right)^2

    from a start by classical multidimensional scaling, so that the same cost gives the same picture; few planes can
    hold all costs, so read an edge's cost from its shade. Of more than 100 classes the 100 are drawn that have the
    cheapest other class, those that are confused most easily, which the label then says. Names that find no free place
    beside their node are left out, and counted in the label.

    Args:
        cost: M (c c), as :func:`~graphkd.class_cost.class_cost` gives it and
            :func:`~graphkd.losses.wkd_logits` takes it. Where both directions differ, their mean is drawn; the
            diagonal is not looked at.
        class_names: The name of class c at place c; by default c itself.
        k: How many others each class is joined with, at most; among the classes that are drawn.
        ax: Where to draw; by default on a new figure. Panels side by side need a figure with ``layout="constrained"``,
            the bar stands outside the axes.
        title: Of the axes.

    Raises:
        ValueError: For a cost that is not one matrix (c c) of finite numbers of at least 0 with c of at least 2, for
            k < 1, and for a class without a name.

    >>> ax = plot_class_cost(1 - torch.eye(4), k=1)
    >>> ax.get_xlabel()
    'each class joined with its cheapest other'
    """
    checks.at_least("k", k, 1)
    matrix, kept = _cheapest(_costs(cost))
    c, n = len(cost), len(kept)
    k = min(k, n - 1)
    names = [class_name(int(i), class_names) for i in kept]
    places = _places(matrix)
    ax = axes_or_new(ax, *((6.2, 5.4) if n <= FEW else (8.6, 7.6)))
    pairs = _joined(matrix, k)
    _draw_edges(ax, places, pairs, matrix[pairs[:, 0], pairs[:, 1]])
    size = float(np.clip(2600 / n, 24, 110))
    draw_nodes(nx.empty_graph(n), range(n), dict(enumerate(places)), kept, ax, size, class_names)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.12)
    ax.set(xticks=[], yticks=[], title=title or "")
    ax.set_frame_on(False)
    said = [f"each class joined with its {f'{k} cheapest others' if k > 1 else 'cheapest other'}"]
    if n < c:
        said.append(f"{n} of {c} classes: those with the cheapest other class")
    ax.set_xlabel("\n".join(said))
    unnamed = _draw_names(ax, places, pairs, names, size)
    if unnamed:
        ax.set_xlabel("\n".join([*said, f"{unnamed} of {n} names left out"]))
    return ax


def _costs(cost: Tensor) -> Tensor:
    """The cost on the CPU in float32, checked."""
    checks.tensor(cost=cost)
    checks.floating("cost", cost)
    given = cost.detach().to("cpu", torch.float32)
    checks.rows("cost", given)
    if given.dim() != 2 or given.shape[0] != given.shape[1] or len(given) < 2:
        raise ValueError(f"needs a cost (c c) of at least two classes, got shape {tuple(given.shape)}")
    if given.min() < 0:
        raise ValueError(f"cost needs numbers of at least 0, got a smallest of {float(given.min()):.3g}")
    return given


def _cheapest(cost: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of the at most 100 classes with the cheapest other class: costs (n n), the mean of both ways, and indices (n)."""
    matrix = (cost + cost.mT).div_(2).fill_diagonal_(torch.inf)
    order = np.argsort(matrix.amin(1).numpy(), kind="stable")[:MOST_CLASSES]
    kept = np.sort(order)
    chosen = matrix[torch.from_numpy(kept)][:, torch.from_numpy(kept)]
    return chosen.fill_diagonal_(0).double().numpy(), kept


def _places(matrix: np.ndarray) -> np.ndarray:
    """Places (n 2) of least weighted stress; all costs zero are drawn as if they were one."""
    n, most = len(matrix), float(matrix.max())
    # A cost of zero would have infinite weight, and its nodes would hide each other.
    wanted = np.clip(matrix / most, 0.03, None) if most > 0 else np.ones((n, n))
    np.fill_diagonal(wanted, 0)
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centring @ wanted**2 @ centring)
    first = vectors[:, ::-1][:, :2] * np.sqrt(np.maximum(values[::-1][:2], 0))
    # An eigenvector's sign is arbitrary.
    first *= np.where(first[np.abs(first).argmax(0), [0, 1]] < 0, -1, 1)
    # Classes that start at one place would pull at each other in no direction: a small spiral keeps them apart.
    turns = np.arange(n) * GOLDEN_ANGLE
    first += 0.01 * np.sqrt((np.arange(n) + 1) / n)[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    distances = {i: dict(enumerate(row)) for i, row in enumerate(wanted.tolist())}
    found = nx.kamada_kawai_layout(nx.empty_graph(n), dist=distances, pos=dict(enumerate(first)))
    return np.stack([found[i] for i in range(n)])


def _joined(matrix: np.ndarray, k: int) -> np.ndarray:
    """Pairs (p 2) of which one is among the other's k cheapest, each once, dearest first."""
    apart = matrix + np.diag(np.full(len(matrix), np.inf))
    others = np.argsort(apart, axis=1, kind="stable")[:, :k]
    ends = np.stack([np.repeat(np.arange(len(matrix)), k), others.ravel()], axis=1)
    pairs = np.unique(np.sort(ends, axis=1), axis=0)
    return pairs[np.argsort(-matrix[pairs[:, 0], pairs[:, 1]], kind="stable")]


def _draw_edges(ax: Axes, places: np.ndarray, pairs: np.ndarray, costs: np.ndarray) -> None:
    """Edges by nearness, and the bar that tells their costs."""
    low, high = float(costs.min()), float(costs.max())
    nearness = (high - costs) / (high - low) if high > low else np.full(len(costs), 0.5)
    scale = Normalize(low, high) if high > low else Normalize(low - 0.5, high + 0.5)
    lines = LineCollection(
        list(places[pairs]),
        array=costs,
        cmap=NEAR_TO_FAR,
        norm=scale,
        linewidths=0.6 + 2.4 * nearness,
        label="edges",
        zorder=0,
    )
    ax.add_collection(lines)
    bar = ax.inset_axes((1.03, 0.2, 0.03, 0.6))
    ax.figure.colorbar(lines, cax=bar, label="cost of an edge", ticks=MaxNLocator(5) if high > low else [low])


def _draw_names(ax: Axes, places: np.ndarray, pairs: np.ndarray, names: list[str], size: float) -> int:
    """Name the nodes where there is room, those on the cheapest edges first; how many stay without a name.

    Boxes are in points, from the axes as they are laid out now. Sides away from a node's edges are tried first.
    """
    ax.figure.figure.draw_without_rendering()
    to_points = 72 / ax.figure.dpi
    points = ax.transData.transform(places) * to_points
    inside = np.asarray(ax.bbox.extents) * to_points
    radius = 0.5 * size**0.5 + 1
    taken = [np.array([*(point - radius), *(point + radius)]) for point in points]
    away = np.zeros_like(points)
    for i, j in pairs:
        away[[i, j]] += points[i] - points[j], points[j] - points[i]
    unnamed = 0
    for i in dict.fromkeys(pairs[::-1].ravel().tolist()):
        half = np.array([max(TextPath((0, 0), names[i], size=FONT).get_extents().width, 0) / 2 + 1, 0.6 * FONT])
        for side in sorted(SIDES, key=lambda side: -float(np.dot(side, away[i]) / np.hypot(*side))):
            shift = np.array(side) * (half + radius * (1 if 0 in side else 0.7))
            box = np.array([*(points[i] + shift - half), *(points[i] + shift + half)])
            within = (box[:2] >= inside[:2]).all() and (box[2:] <= inside[2:]).all()
            if within and not any((box[:2] < other[2:]).all() and (other[:2] < box[2:]).all() for other in taken):
                taken.append(box)
                at = float(places[i, 0]), float(places[i, 1])
                text = ax.annotate(names[i], at, tuple(shift.tolist()), textcoords="offset points", fontsize=FONT)
                text.set(ha="center", va="center", path_effects=[withStroke(linewidth=1.5, foreground="white")])
                break
        else:
            unnamed += 1
    return unnamed
