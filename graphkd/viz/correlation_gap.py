"""How far the correlations between a student's logits are from its teacher's, drawn as a heat map."""

from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from graphkd.display import block_means
from graphkd.metrics import correlation_gap
from graphkd.viz.inputs import axes_or_new, class_name

MOST_CELLS = 512
MOST_NAMES = 24
LONG_NAME = 12


def plot_correlation_gap(
    student_logits: Shaped[Tensor, "n c"],
    teacher_logits: Shaped[Tensor, "n c"],
    *,
    class_names: Sequence[str] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw how far the correlations between classes are from the teacher's: the pale the better.

    A cell is the gap of :func:`graphkd.metrics.correlation_gap` between two classes; the label says its mean over all
    pairs of different classes and its maximum. The bar ends at the darkest cell of this figure: compare figures by
    their numbers. More than 512 classes are averaged in blocks of neighbours, which the axis then says; mean and
    maximum stay those of the classes. Where names would overlap, some are left out.

    Args:
        student_logits: (n c), of three samples at least; of a whole data set rather than one batch.
        teacher_logits: (n c), of the same samples.
        class_names: The name of class c at place c; by default c itself.
        ax: Where to draw; by default on a new figure. Panels side by side need a figure with ``layout="constrained"``,
            the bar stands outside the axes.
        title: Of the axes.

    Raises:
        ValueError: As :func:`graphkd.metrics.correlation_gap`; for fewer than two classes, and for a class without a
            name.

    Source: the figure of Tian, Krishnan, Isola, "Contrastive Representation Distillation" (ICLR 2020),
    arXiv:1910.10699.

    >>> student = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    >>> ax = plot_correlation_gap(student, torch.eye(3)[:, :2], class_names=["cat", "dog"])
    >>> print(ax.get_xlabel())
    class
    mean gap 1.500, maximum 1.500
    between cat and dog
    """
    gap = correlation_gap(student_logits, teacher_logits).cpu()
    c = len(gap)
    if c < 2:
        raise ValueError(f"needs logits of at least two classes, got shape {tuple(student_logits.shape)}")
    names = [class_name(i, class_names) for i in range(c)]
    worst = " and ".join(names[i] for i in divmod(int(gap.argmax()), c))
    cells, size = block_means(gap, MOST_CELLS).numpy(), -(-c // MOST_CELLS)
    ax = axes_or_new(ax, 5.4, 4.8)
    image = ax.imshow(
        cells,
        cmap="Blues",
        vmin=0,
        vmax=cells.max() or 1,
        extent=(-0.5, c - 0.5, c - 0.5, -0.5),
        interpolation="nearest",
    )
    bar = ax.inset_axes((1.03, 0, 0.04, 1))
    ax.figure.colorbar(image, cax=bar, label="|corr(student) - corr(teacher)|", ticks=MaxNLocator(6))
    places = range(0, c, -(-c // MOST_NAMES))
    named = [names[place] for place in places]
    for axis in (ax.xaxis, ax.yaxis):
        if class_names is None:
            axis.set_major_locator(MaxNLocator(9 if c < 1000 else 5, integer=True))
        else:
            axis.set_ticks(places, named)
            axis.set_tick_params(length=0, labelsize=8 if max(map(len, named)) <= LONG_NAME else 6)
    if class_names is not None and max(map(len, named)) > 2:
        ax.tick_params(axis="x", rotation=90)
    means = "" if size == 1 else f" (means of blocks of up to {size} classes)"
    between = f"mean gap {float(gap.sum(dtype=torch.float64)) / (c * (c - 1)):.3f}, maximum {float(gap.max()):.3f}"
    ax.set_xlabel(f"class{means}\n{between}" + (f"\nbetween {worst}" if gap.max() > 0 else ""))
    ax.set_ylabel(f"class{means}")
    ax.set_title(title or "")
    return ax
