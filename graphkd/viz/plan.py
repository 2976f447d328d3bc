"""A plan, drawn as a heat map."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, ScalarFormatter

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
from graphkd.viz.palette import INK, WRONG

MOST_CELLS = 512


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
    than the students, rings mark it. The colours follow the square root of the mass, so that mass spread over many
    nodes is seen beside that of the pairs; the bar tells the mass itself. More than 512 nodes are averaged in blocks of
    neighbours, which the axis then says. Class names that would overlap are left out.

    Args:
        plan: P (n m), or the comparison that holds it.
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
    matrix = plan_matrix(plan)
    n, m = matrix.shape
    classes = both_classes(labels, teacher_labels, n, m)
    ax = axes_or_new(ax, 5.4, 4.6)
    rows, columns = (np.arange(n), np.arange(m)) if classes is None else (by_class(classes[0]), by_class(classes[1]))
    cells, size = _block_means(matrix[np.ix_(rows, columns)])
    image = ax.imshow(
        cells,
        cmap="Blues",
        norm=PowerNorm(0.5, vmin=0),
        extent=(-0.5, m - 0.5, n - 0.5, -0.5),
        interpolation="nearest",
        aspect="equal" if max(n, m) <= 3 * min(n, m) else "auto",
    )
    exponent = ScalarFormatter(useMathText=True)
    exponent.set_powerlimits((-2, 3))
    bar = ax.inset_axes((1.03, 0, 0.04, 1))
    ax.figure.colorbar(image, cax=bar, label="mass", format=exponent, ticks=MaxNLocator(6))
    if n == m:
        _mark_pairing(ax, np.argsort(rows), np.argsort(columns))
    if classes is None:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        _mark_classes(ax, classes[0][rows], classes[1][columns], class_names)
    order = "" if classes is None else ", by class"
    means = "" if size == 1 else f"\n(means of blocks of up to {size} nodes)"
    ax.set_xlabel(f"teacher nodes{order}{means}")
    ax.set_ylabel(f"student nodes{order}{means}")
    ax.set_title(title or "", pad=16 if n == m else None)
    return ax


def _block_means(matrix: np.ndarray) -> tuple[np.ndarray, int]:
    """At most 512 rows and columns, each the mean of neighbours, and how many neighbours at most."""
    size = 1
    for axis in (0, 1):
        n = matrix.shape[axis]
        most = -(-n // MOST_CELLS)
        starts = np.arange(-(-n // most)) * n // -(-n // most)
        counts = np.diff([*starts, n])
        matrix = np.add.reduceat(matrix, starts, axis) / np.expand_dims(counts, 1 - axis)
        size = max(size, most)
    return matrix, size


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
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=7, borderpad=0, borderaxespad=0.3)


def _mark_classes(ax: Axes, student: np.ndarray, teacher: np.ndarray, class_names: Sequence[str] | None) -> None:
    """Name the classes along both axes and outline each class's block."""
    columns = {c: (start, stop) for c, start, stop in class_spans(teacher)}
    width = 0.8 if len(columns) <= 20 else 0.4
    for c, top, bottom in class_spans(student):
        if c in columns and c != UNLABELLED:
            left, right = columns[c]
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
