"""A plan, drawn as the mass that flows from student nodes to teacher nodes."""

from collections.abc import Sequence
from typing import NamedTuple

import networkx as nx
import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from torch import Tensor

from graphkd import checks
from graphkd.typing import UNLABELLED
from graphkd.viz.inputs import (
    Groups,
    Labels,
    Plan,
    axes_or_new,
    both_classes,
    by_class,
    class_name,
    class_spans,
    group_sums,
    groups_of,
    mass_shares,
    matched_mass,
    percent,
    read_plan,
    verdicts,
)
from graphkd.viz.palette import draw_mass, draw_nodes, mass_handles

MOST_NODES = 100
NAME_HEIGHT = 0.033


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

    Mass on another class is highlighted by colour and dashes; without labels, mass on another sample, if there are as
    many students as teachers. Only the strongest edges of each student are drawn, and the figure says which share of
    the mass they carry. The shares in the legend are of the whole plan, however little of it is drawn.

    Beyond 100 nodes the masses are summed by class, and a node is a class. Of more than 100 classes those with
    most misplaced mass are drawn: mass that their students send to another class or their teachers receive from one.
    Without labels 100 students are drawn at even steps, and as many teachers, which are the same samples if there are
    as many students as teachers. The axis says what is drawn. Class names that would overlap are left out.

    Args:
        plan: P (n m), dense or sparse, or the comparison that holds it.
        labels: Class of each student node (n), -100 for none; mass from or to such a node is neither right nor wrong.
        teacher_labels: Class of each teacher node (m), by default ``labels``; needed with labels where m is not n.
        class_names: The name of class c at place c; by default c itself.
        ax: Where to draw; by default on a new figure.
        title: Of the axes.
        top: At most that many edges per student.

    Raises:
        ValueError: For a plan that is not one matrix (n m) of finite non-negative masses, for labels that are not one
            class per node, and for top < 1.

    >>> import torch
    >>> ax = plot_transport(torch.tensor([[0.4, 0.1], [0.0, 0.5]]), top=1)
    >>> ax.get_xlabel()
    'drawn: strongest edge of each student, 90 % of the mass'
    """
    checks.at_least("top", top, 1)
    read = read_plan(plan)
    classes = both_classes(labels, teacher_labels, *read.shape)
    drawn = _drawn(read, groups_of(classes, *read.shape), labelled=classes is not None)
    total, shares = mass_shares(read, classes)
    ax = axes_or_new(ax, 5.4, 5.4)
    sides = (None, None) if classes is None else drawn.groups
    heights = [_heights(n, own) for n, own in zip(drawn.matrix.shape, sides, strict=True)]
    edges = _strongest(drawn.matrix, top)
    _draw_edges(ax, drawn, edges, heights)
    for side, name in enumerate(("student", "teacher")):
        _draw_side(ax, side, name, heights[side], sides[side], class_names)
    handles = mass_handles(shares, "sample" if classes is None else "class")
    if handles:
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, frameon=False, fontsize=8)
    kept = f"{top} strongest edges" if top > 1 else "strongest edge"
    mass = percent(drawn.matrix[edges[:, 0], edges[:, 1]].sum() / total)
    ax.set_xlabel(f"drawn: {kept} of each {drawn.unit}, {mass} of the mass{drawn.rest}", labelpad=18)
    ax.set(xlim=(-0.3, 1.3), ylim=(-0.03, 1.09), xticks=[], yticks=[], title=title or "")
    ax.set_frame_on(False)
    return ax


class Drawn(NamedTuple):
    """What is drawn of a plan: masses between the nodes of a figure, their groups, and words for what they are."""

    matrix: np.ndarray
    groups: Groups
    unit: str
    rest: str


def _drawn(plan: Shaped[Tensor, "n m"], groups: Groups, labelled: bool) -> Drawn:
    """All nodes, or the masses between classes, or a sample."""
    n, m = plan.shape
    if max(n, m) <= MOST_NODES:
        return Drawn(group_sums(plan, np.arange(n), np.arange(m), (n, m)), groups, "student", "")
    return _summed(plan, groups) if labelled else _sample(plan, groups)


def _sample(plan: Shaped[Tensor, "n m"], groups: Groups) -> Drawn:
    """Masses between at most 100 students and 100 teachers, at even steps."""
    counts = [min(nodes, MOST_NODES) for nodes in plan.shape]
    chosen = [np.arange(count) * nodes // count for count, nodes in zip(counts, plan.shape, strict=True)]
    places, words = [], []
    for nodes, kept, name in zip(plan.shape, chosen, ("students", "teachers"), strict=True):
        place = np.full(nodes, -1)
        place[kept] = np.arange(len(kept))
        places.append(place)
        words.append(f"{len(kept)} of {nodes:,} {name}" if len(kept) < nodes else f"all {nodes} {name}")
    matrix = group_sums(plan, *places, shape=(counts[0], counts[1]))
    rest = f"\namong {' and '.join(words)}, at even steps"
    return Drawn(matrix, (groups[0][chosen[0]], groups[1][chosen[1]]), "student", rest)


def _summed(plan: Shaped[Tensor, "n m"], classes: Groups) -> Drawn:
    """Masses between classes, at most 100 of them."""
    student, teacher = (np.unique(side) for side in classes)
    rest = ""
    if max((side != UNLABELLED).sum() for side in (student, teacher)) > MOST_NODES:
        ranked = _most_misplaced(plan, classes)
        rest = f"\namong the {MOST_NODES} of {len(ranked):,} classes with most misplaced mass"
        student, teacher = (np.sort(ranked[np.isin(ranked, side)][:MOST_NODES]) for side in (student, teacher))
    groups = _places(classes[0], student), _places(classes[1], teacher)
    matrix = group_sums(plan, *groups, shape=(len(student), len(teacher)))
    return Drawn(matrix, (student, teacher), "student class", rest)


def _most_misplaced(plan: Shaped[Tensor, "n m"], classes: Groups) -> np.ndarray:
    """All classes, first those with most mass from their students to another class and to their teachers from one."""
    known = np.setdiff1d(np.union1d(*classes), UNLABELLED)
    student, teacher = (_places(side, known) for side in classes)
    labelled = student >= 0
    sent = group_sums(plan, student, np.minimum(teacher, 0), (len(known), 1))[:, 0]
    received = group_sums(plan, np.minimum(student, 0), teacher, (1, len(known)))[0]
    kept = np.bincount(student[labelled], matched_mass(plan, *classes)[labelled], len(known))
    return known[np.argsort(2 * kept - sent - received, kind="stable")]


def _places(classes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where each node's class stands among those known, which are sorted; -1 where it does not."""
    places = np.searchsorted(known, classes).clip(max=len(known) - 1)
    return np.where(known[places] == classes, places, -1)


def _heights(n: int, classes: np.ndarray | None) -> np.ndarray:
    """Height of each node in its column, from one down to zero, classes together and apart from each other."""
    if classes is None:
        return 1 - (np.arange(n) + 0.5) / n
    order = by_class(classes)
    gaps = np.concatenate([[0], np.diff(classes[order]) != 0]).cumsum()
    heights = np.empty(n)
    heights[order] = np.arange(n) + 0.5 + (gaps if n > len(np.unique(classes)) else 0)
    return 1 - heights / (heights.max() + 0.5)


def _strongest(matrix: np.ndarray, top: int) -> np.ndarray:
    """The strongest edges of each student that carry mass, (e 2), weakest first."""
    teachers = np.argsort(-matrix, axis=1, kind="stable")[:, :top]
    edges = np.stack([np.repeat(np.arange(len(matrix)), teachers.shape[1]), teachers.ravel()], axis=1)
    masses = matrix[edges[:, 0], edges[:, 1]]
    order = np.argsort(masses, kind="stable")
    return edges[order[masses[order] > 0]]


def _draw_edges(ax: Axes, drawn: Drawn, edges: np.ndarray, heights: list[np.ndarray]) -> None:
    (i, j), matrix = edges.T, drawn.matrix
    ends = np.zeros((len(edges), 2, 2))
    ends[:, 1, 0] = 1
    ends[:, 0, 1], ends[:, 1, 1] = heights[0][i], heights[1][j]
    widest = float(np.clip(140 / max(matrix.shape), 1.2, 6))
    draw_mass(ax, ends, verdicts(drawn.groups[0][i], drawn.groups[1][j]), widest * matrix[i, j] / matrix.max())


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
