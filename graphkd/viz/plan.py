"""A plan, drawn as a heat map."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from torch import Tensor

from graphkd.typing import UNLABELLED
from graphkd.viz.inputs import (
    Labels,
    Plan,
    axes_or_new,
    both_classes,
    by_class,
    class_name,
    class_spans,
    group_sums,
    read_plan,
)
from graphkd.viz.palette import INK, WRONG

MOST_CELLS = 512
BAR = "#ABABAB"
THIN = 0.05


def plot_plan(
    plan: Plan,
    *,
    labels: Labels | None = None,
    teacher_labels: Labels | None = None,
    class_names: Sequence[str] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw a plan as a heat map: rows are student nodes, columns teacher nodes, both sorted by class if it is known.

    The masses of one class on itself are outlined. Where there are as many students as teachers, two thin lines run
    beside the true pairing, row i with column i of the plan as given; if ``teacher_labels`` sort the teachers otherwise
    than the students, rings mark it. Bars along the right and the top show the mass of each student and each teacher
    node, from zero to the largest of its side: they are flat where all nodes have the same.

    The colours follow the square root of the mass, so that mass spread over many nodes is seen beside that of the
    pairs; the colour bar tells the mass itself. More than 512 nodes are averaged in blocks of neighbours, which the
    axis then says, and classes smaller than a block have no outline. Class names that would overlap are left out.

    Args:
        plan: P (n m), dense or sparse, or the comparison that holds it.
        labels: Class of each student node (n), -100 for none.
        teacher_labels: Class of each teacher node (m), by default ``labels``; needed with labels where m is not n.
        class_names: The name of class c at place c; by default c itself.
        ax: Where to draw; by default on a new figure. Panels side by side need a figure with ``layout="constrained"``,
            the bar stands outside the axes.
        title: Of the axes.

    Raises:
        ValueError: For a plan that is not one matrix (n m) of finite non-negative masses, for labels that are not one
            class per node, and for a class without a name.

    >>> import torch
    >>> ax = plot_plan(torch.eye(4) / 4, labels=[0, 1, 0, 1], class_names=["cat", "dog"])
    >>> [tick.get_text() for tick in ax.get_yticklabels()]
    ['cat', 'dog']
    """
    read = read_plan(plan)
    classes = both_classes(labels, teacher_labels, *read.shape)
    heat = heat_of(read, classes)
    return draw_heat(heat, heat.most, classes, class_names, axes_or_new(ax, 5.8, 4.8), title)


class Most(NamedTuple):
    """The largest masses of a plan, which set the scales: of a cell, of a student node, of a teacher node."""

    cell: float
    student: float
    teacher: float


class Heat(NamedTuple):
    """A plan as it is drawn: sorted, and averaged over blocks of neighbours where there are many.

    Attributes:
        cells: Mean mass per cell, (rows columns).
        student: Mean mass of the student nodes of each row.
        teacher: Mean mass of the teacher nodes of each column.
        rows: Where each row starts among the n sorted students, and n.
        columns: Where each column starts among the m sorted teachers, and m.
        most: The largest values of the first three.
    """

    cells: np.ndarray
    student: np.ndarray
    teacher: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    most: Most


def heat_of(plan: Shaped[Tensor, "n m"], classes: tuple[np.ndarray, np.ndarray] | None) -> Heat:
    """What to draw of a plan that was read, with the classes of its students and teachers.

    >>> import torch
    >>> heat_of(torch.eye(4), None).cells.shape
    (4, 4)
    """
    edges, blocks = [], []
    for side, n in enumerate(plan.shape):
        count = -(-n // -(-n // MOST_CELLS))
        edge = np.arange(count + 1) * n // count
        order = np.arange(n) if classes is None else by_class(classes[side])
        block = np.empty(n, dtype=np.int64)
        block[order] = np.repeat(np.arange(count), np.diff(edge))
        edges.append(edge)
        blocks.append(block)
    sums = group_sums(plan, blocks[0], blocks[1], (len(edges[0]) - 1, len(edges[1]) - 1))
    rows, columns = (np.diff(edge) for edge in edges)
    cells, student, teacher = sums / rows[:, None] / columns, sums.sum(1) / rows, sums.sum(0) / columns
    most = Most(float(cells.max()), float(student.max()), float(teacher.max()))
    return Heat(cells, student, teacher, edges[0], edges[1], most)


def draw_heat(
    heat: Heat,
    most: Most,
    classes: tuple[np.ndarray, np.ndarray] | None,
    class_names: Sequence[str] | None,
    ax: Axes,
    title: str | None,
    bar: bool = True,
) -> Axes:
    """Draw it with the masses of the nodes beside it, and the bar of colours if it is wanted.

    Args:
        heat: As :func:`heat_of` gives it.
        most: The mass at the end of each scale; of several plans if their figures are to be compared.
        classes: Of the students and of the teachers.
        class_names: The name of class c at place c.
        ax: Where to draw.
        title: Of the axes.
        bar: Whether to tell what the colours mean.
    """
    n, m = int(heat.rows[-1]), int(heat.columns[-1])
    image = ax.imshow(
        heat.cells,
        cmap="Blues",
        norm=PowerNorm(0.5, vmin=0, vmax=most.cell),
        extent=(-0.5, m - 0.5, n - 0.5, -0.5),
        interpolation="nearest",
        aspect="equal" if max(n, m) <= 3 * min(n, m) else "auto",
    )
    _draw_masses(ax, heat, most)
    size = max(int(np.diff(edge).max()) for edge in (heat.rows, heat.columns))
    if bar:
        exponent = ScalarFormatter(useMathText=True)
        exponent.set_powerlimits((-2, 3))
        beside = ax.inset_axes((1.1, 0, 0.04, 1))
        ax.figure.colorbar(image, cax=beside, label="mass of a cell", format=exponent, ticks=MaxNLocator(6))
        beside.yaxis.set_offset_position("left")
    order = (np.arange(n), np.arange(m)) if classes is None else (by_class(classes[0]), by_class(classes[1]))
    if n == m:
        _mark_pairing(ax, np.argsort(order[0]), np.argsort(order[1]))
    if classes is None:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        _mark_classes(ax, classes[0][order[0]], classes[1][order[1]], class_names, size)
    sorting = "" if classes is None else ", by class"
    means = "" if size == 1 else f"\n(means of blocks of up to {size} nodes)"
    ax.set_xlabel(f"teacher nodes{sorting}{means}")
    ax.set_ylabel(f"student nodes{sorting}{means}")
    ax.set_title(title or "", pad=16 if n == m else None)
    return ax


def _draw_masses(ax: Axes, heat: Heat, most: Most) -> None:
    """The students' masses as bars along the right side, the teachers' along the top, each from zero."""
    right, top = ax.inset_axes((1.015, 0, THIN, 1)), ax.inset_axes((0, 1.015, 1, THIN))
    right.stairs(heat.student, heat.rows - 0.5, orientation="horizontal", fill=True, color=BAR)
    top.stairs(heat.teacher, heat.columns - 0.5, fill=True, color=BAR)
    right.set(ylim=ax.get_ylim(), xlim=(0, most.student))
    top.set(xlim=ax.get_xlim(), ylim=(0, most.teacher))
    for side in (right, top):
        side.set(xticks=[], yticks=[])
        side.set_frame_on(False)
    right.set_xlabel("mass of\na node", fontsize=6, loc="left")
    top.set_ylabel("mass of\na node", fontsize=6, rotation=0, ha="right", va="center")


def _mark_pairing(ax: Axes, rows: np.ndarray, columns: np.ndarray) -> None:
    """Two lines beside the cells of the true pairs, or rings around them where student and teacher differ in order."""
    n = len(rows)
    if (rows == columns).all():
        beside = max(1.0, 0.012 * n)
        for offset in (-beside, beside):
            start, stop = max(-0.5, -0.5 - offset), min(n - 0.5, n - 0.5 - offset)
            lines = ax.plot([start, stop], [start + offset, stop + offset], color=WRONG, lw=0.6, alpha=0.8)
        lines[0].set_label("between the lines: same sample")
    else:
        size = float(np.clip(400 / n, 1.5, 12)) ** 2
        ax.scatter(columns, rows, s=size, facecolors="none", edgecolors=WRONG, linewidths=0.5, label="same sample")
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1.015 + THIN), frameon=False, fontsize=7, borderpad=0, borderaxespad=0.3
    )


def _mark_classes(
    ax: Axes, student: np.ndarray, teacher: np.ndarray, class_names: Sequence[str] | None, size: int
) -> None:
    """Name the classes along both axes and outline each class's block, unless a cell of that size holds it."""
    columns = {c: (start, stop) for c, start, stop in class_spans(teacher)}
    width = 0.8 if len(columns) <= 20 else 0.4
    for c, top, bottom in class_spans(student):
        if c in columns and c != UNLABELLED:
            left, right = columns[c]
            if size > max(right - left, bottom - top):
                continue
            corner = (left - 0.5, top - 0.5)
            ax.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, ec=INK, lw=width))
    for axis, classes in ((ax.yaxis, student), (ax.xaxis, teacher)):
        spans = _spaced(class_spans(classes), len(classes) / 24)
        axis.set_ticks(
            [(start + stop - 1) / 2 for _, start, stop in spans], [class_name(c, class_names) for c, _, _ in spans]
        )
        axis.set_tick_params(length=0, labelsize=8)
    if max(len(tick.get_text()) for tick in ax.get_xticklabels()) > 2:
        ax.tick_params(axis="x", rotation=90)


def _spaced(spans: list[tuple[int, int, int]], apart: float) -> list[tuple[int, int, int]]:
    """Those spans whose middles are so far apart that their names do not overlap."""
    kept = spans[:1]
    for span in spans[1:]:
        if sum(span[1:]) - sum(kept[-1][1:]) >= 2 * apart:
            kept.append(span)
    return kept
