"""A plan, drawn as the mass that flows from student nodes to teacher nodes."""

from collections.abc import Sequence

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from graphkd import checks
from graphkd.typing import UNLABELLED
from graphkd.viz.inputs import (
    Labels,
    Plan,
    axes_or_new,
    both_classes,
    by_class,
    class_name,
    class_spans,
    plan_matrix,
)
from graphkd.viz.palette import RIGHT, WRONG, draw_nodes

MOST_NODES = 100
NAME_HEIGHT = 0.033
Classes = tuple[np.ndarray, np.ndarray]


def plot_transport(
    plan: Plan,
    *,
    labels: Labels | None = None,
    teacher_labels: Labels | None = None,
    class_names: Sequence[str] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    top: int = 3,
) -> Axes:
    """Draw a plan as a bipartite graph: students left, teachers right, edges as wide as the mass they carry.

    Mass on another class is highlighted; without labels, mass on another sample, if there are as many students as
    teachers. Only the strongest edges of each student are drawn, and the figure says which share of the mass they
    carry; the shares in the legend are of the whole plan. Beyond 100 nodes the masses are summed by class, and a node
    is a class. Class names that would overlap are left out.

    Args:
        plan: P (n m), or the comparison that holds it.
        labels: Class of each student node (n), -100 for none; mass from or to such a node is neither right nor wrong.
        teacher_labels: Class of each teacher node (m), by default ``labels``; needed with labels where m is not n.
        class_names: The name of class c at place c; by default c itself.
        ax: Where to draw; by default on a new figure.
        title: Of the axes.
        top: At most that many edges per student.

    Raises:
        ValueError: For a plan that is not one matrix (n m) of finite non-negative masses, for labels that are not one
            class per node, for top < 1, and for more than 100 nodes without labels or more than 100 classes.

    >>> import torch
    >>> ax = plot_transport(torch.tensor([[0.4, 0.1], [0.0, 0.5]]), top=1)
    >>> ax.get_xlabel()
    'drawn: strongest edge of each student, 90 % of the mass'
    """
    checks.at_least("top", top, 1)
    matrix = plan_matrix(plan)
    classes = both_classes(labels, teacher_labels, *matrix.shape)
    unit = "student"
    if max(matrix.shape) > MOST_NODES:
        matrix, classes = _summed(matrix, classes)
        unit = "student class"
    ax = axes_or_new(ax, 5.4, 5.4)
    heights = [_heights(matrix.shape[side], classes and classes[side]) for side in (0, 1)]
    edges, drawn = _strongest(matrix, top)
    verdicts = _verdicts(matrix.shape, classes)
    _draw_edges(ax, matrix, edges, heights, verdicts)
    for side, name in enumerate(("student", "teacher")):
        _draw_side(ax, side, name, heights[side], classes and classes[side], class_names)
    _legend(ax, matrix, verdicts, "sample" if classes is None else "class")
    kept = f"{top} strongest edges" if top > 1 else "strongest edge"
    ax.set_xlabel(f"drawn: {kept} of each {unit}, {drawn:.0%} of the mass".replace("%", " %"), labelpad=18)
    ax.set(xlim=(-0.3, 1.3), ylim=(-0.03, 1.09), xticks=[], yticks=[], title=title or "")
    ax.set_frame_on(False)
    return ax


def _summed(matrix: np.ndarray, classes: Classes | None) -> tuple[np.ndarray, Classes]:
    """Masses between classes, and the classes."""
    if classes is None:
        raise ValueError(
            f"needs labels to sum a plan of more than {MOST_NODES} nodes by class, got none for {matrix.shape}: pass "
            "labels, or the rows and columns of the plan to look at"
        )
    student, teacher = (np.unique(side) for side in classes)
    if max(len(student), len(teacher)) > MOST_NODES:
        raise ValueError(f"needs at most {MOST_NODES} nodes or classes, got {len(student)} and {len(teacher)} classes")
    summed = (classes[0] == student[:, None]).astype(float) @ matrix @ (classes[1][:, None] == teacher).astype(float)
    return summed, (student, teacher)


def _heights(n: int, classes: np.ndarray | None) -> np.ndarray:
    """Height of each node in its column, from one down to zero, classes together and apart from each other."""
    if classes is None:
        return 1 - (np.arange(n) + 0.5) / n
    order = by_class(classes)
    gaps = np.concatenate([[0], np.diff(classes[order]) != 0]).cumsum()
    heights = np.empty(n)
    heights[order] = np.arange(n) + 0.5 + (gaps if n > len(np.unique(classes)) else 0)
    return 1 - heights / (heights.max() + 0.5)


def _strongest(matrix: np.ndarray, top: int) -> tuple[np.ndarray, float]:
    """The strongest edges of each student, (e 2), weakest first, and the share of the mass that they carry."""
    teachers = np.argsort(-matrix, axis=1, kind="stable")[:, :top]
    edges = np.stack([np.repeat(np.arange(len(matrix)), teachers.shape[1]), teachers.ravel()], axis=1)
    masses = matrix[edges[:, 0], edges[:, 1]]
    edges = edges[np.argsort(masses, kind="stable")]
    return edges[matrix[edges[:, 0], edges[:, 1]] > 0], float(masses.sum() / matrix.sum())


def _verdicts(shape: tuple[int, ...], classes: Classes | None) -> np.ndarray:
    """Whether mass from i to j is right (1), wrong (-1) or neither (0), (n m)."""
    if classes is None:
        return 2 * np.eye(shape[0], dtype=int) - 1 if shape[0] == shape[1] else np.zeros(shape, dtype=int)
    student, teacher = classes[0][:, None], classes[1][None]
    return np.where((student == UNLABELLED) | (teacher == UNLABELLED), 0, np.where(student == teacher, 1, -1))


def _draw_edges(
    ax: Axes, matrix: np.ndarray, edges: np.ndarray, heights: list[np.ndarray], verdicts: np.ndarray
) -> None:
    n, m = matrix.shape
    graph = nx.empty_graph(n + m)
    places = {i: np.array([0.0, y]) for i, y in enumerate(heights[0])}
    places |= {n + j: np.array([1.0, y]) for j, y in enumerate(heights[1])}
    widest = float(np.clip(140 / max(n, m), 1.2, 6))
    for verdict, colour in ((0, "#909090"), (1, RIGHT), (-1, WRONG)):
        chosen = edges[verdicts[edges[:, 0], edges[:, 1]] == verdict]
        if len(chosen):
            lines = nx.draw_networkx_edges(
                graph,
                places,
                edgelist=[(i, n + j) for i, j in chosen.tolist()],
                width=(widest * matrix[chosen[:, 0], chosen[:, 1]] / matrix.max()).tolist(),
                edge_color=colour,
                alpha=0.6,
                ax=ax,
            )
            assert isinstance(lines, LineCollection)
            lines.set_label({0: "unknown", 1: "right", -1: "wrong"}[verdict])


def _draw_side(
    ax: Axes,
    side: int,
    name: str,
    heights: np.ndarray,
    classes: np.ndarray | None,
    class_names: Sequence[str] | None,
) -> None:
    """One column of nodes, headed by the network's name, classes named at its outer side."""
    n = len(heights)
    places = {i: np.array([float(side), y]) for i, y in enumerate(heights)}
    draw_nodes(nx.empty_graph(n), range(n), places, classes, ax, size=float(np.clip(1400 / n, 9, 90)))
    ax.text(side, 1.03, name, ha="center", va="bottom", fontweight="bold")
    if classes is None:
        return
    order, last = by_class(classes), 2.0
    outer, align = (-0.05, "right") if side == 0 else (1.05, "left")
    for c, start, stop in class_spans(classes[order]):
        middle = float(heights[order[start:stop]].mean())
        if last - middle >= NAME_HEIGHT:
            ax.text(outer, middle, class_name(c, class_names), ha=align, va="center", fontsize=8)
            last = middle


def _legend(ax: Axes, matrix: np.ndarray, verdicts: np.ndarray, what: str) -> None:
    """What the colours mean, with the share of all mass."""
    shares = {verdict: float(matrix[verdicts == verdict].sum() / matrix.sum()) for verdict in (1, -1, 0)}
    names = {1: (RIGHT, f"same {what}"), -1: (WRONG, f"another {what}"), 0: ("#909090", "unlabelled")}
    if not verdicts.any():
        return
    handles = [
        Line2D([], [], color=colour, lw=3, alpha=0.6, label=f"{name}: {shares[verdict]:.0%}".replace("%", " %"))
        for verdict, (colour, name) in names.items()
        if verdict or shares[verdict]
    ]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, frameon=False, fontsize=8)
