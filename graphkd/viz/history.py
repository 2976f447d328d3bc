"""Curves of a training run, over several seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from graphkd.typing import Real
from graphkd.viz.inputs import axes_or_new
from graphkd.viz.palette import curve_look

MOST_INSIDE = 4


def plot_history(
    curves: Mapping[str, Sequence[Sequence[Real]]],
    *,
    ax: Axes | None = None,
    ylabel: str = "",
    xlabel: str = "epoch",
    title: str | None = None,
) -> Axes:
    """Draw the mean of several runs per epoch, and a band of one standard deviation around it.

    The deviation is the unbiased one over the runs; a single run has no band. The first epoch is 1. An epoch in which
    a run is NaN or infinite is a gap: its mean is not known. The legend of more than four curves stands beside them.

    Args:
        curves: By name, a list of runs (seeds), each a list with one number per epoch.
        ax: Where to draw; by default on a new figure.
        ylabel: What the numbers are.
        xlabel: What an entry is.
        title: Of the axes.

    Raises:
        ValueError: For no curves, a curve without runs or epochs, and runs of one curve that differ in length.

    >>> ax = plot_history({"otgd": [[0.5, 0.7], [0.6, 0.7]], "kd": [[0.5, 0.6]]}, ylabel="accuracy")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['otgd (2 runs)', 'kd (1 run)']
    """
    if not curves:
        raise ValueError("needs at least one curve, got none")
    runs = {name: _runs(name, values) for name, values in curves.items()}
    ax = axes_or_new(ax, 5.4, 3.6)
    for i, (name, values) in enumerate(runs.items()):
        colour, line = curve_look(i)
        epochs, mean = np.arange(1, values.shape[1] + 1), values.mean(0)
        count = f"{len(values)} run" if len(values) == 1 else f"{len(values)} runs"
        marker = "o" if len(epochs) == 1 else ""
        ax.plot(epochs, mean, linestyle=line, color=colour, lw=1.6, marker=marker, label=f"{name} ({count})")
        if len(values) > 1:
            deviation = values.std(0, ddof=1)
            ax.fill_between(epochs, mean - deviation, mean + deviation, color=colour, alpha=0.18, lw=0)
    banded = any(len(values) > 1 for values in runs.values())
    beside = len(runs) > MOST_INSIDE
    ax.legend(
        title="mean ± one standard deviation" if banded else None,
        loc="center left" if beside else "best",
        bbox_to_anchor=(1, 0.5) if beside else None,
        frameon=False,
        fontsize=8,
        title_fontsize=8,
    )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.25, lw=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title or "")
    return ax


def _runs(name: str, values: Sequence[Sequence[Real]]) -> np.ndarray:
    """Runs of one curve as (runs epochs), not finite numbers as NaN."""
    lengths = [len(run) for run in values]
    if not lengths or len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(f"curve {name!r} needs runs of one length of at least one epoch, got lengths {lengths}")
    numbers = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)
