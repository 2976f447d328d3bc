"""Sinkhorn's convergence, drawn: the marginal error by sweep."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from torch import Tensor

from graphkd import checks
from graphkd.typing import Real
from graphkd.viz.inputs import axes_or_new
from graphkd.viz.palette import INK, Line, curve_look

NARROW = 36
FEW = 10


def plot_sinkhorn(
    errors: Mapping[str, Shaped[Tensor, " t"] | Sequence[Real]],
    *,
    tol: Real | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw the marginal error that each sweep leaves, one curve per solve, both axes logarithmic.

    With a tolerance, the legend says after how many sweeps each curve first meets it, and a dot marks the place. The
    first error of zero, which has no logarithm, is a triangle at the foot of the axes, where its curve ends. An error
    that is NaN or infinite is a gap.

    Args:
        errors: By name, the error after each sweep (t), the first sweep first: one problem's
            :func:`~graphkd.ot.marginal_errors`.
        tol: The error that is small enough, drawn as a line.
        ax: Where to draw; by default on a new figure. The legend stands below the axes.
        title: Of the axes.

    Raises:
        ValueError: For no curves, for a curve that is not a list of numbers of at least 0, and for a tolerance that is
            not above 0.

    >>> ax = plot_sinkhorn({"epsilon 1": [0.1, 0.002, 1e-5], "epsilon 0.1": [0.3, 0.2, 0.1]}, tol=1e-2)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['epsilon 1: after 2 sweeps', 'epsilon 0.1: not in 3 sweeps']
    """
    if not errors:
        raise ValueError("needs at least one curve, got none")
    if tol is not None:
        checks.positive("tol", tol)
    curves = {name: _curve(name, values) for name, values in errors.items()}
    labels = [name if tol is None else f"{name}: {_verdict(curve, tol)}" for name, curve in curves.items()]
    columns = 2 if max(map(len, labels)) <= NARROW else 1
    rows = -(-len(labels) // columns)
    ax = axes_or_new(ax, 5.4, 3.4 + 0.18 * rows)
    low, high = _reach([*curves.values(), np.array([] if tol is None else [tol])])
    for i, (curve, label) in enumerate(zip(curves.values(), labels, strict=True)):
        _draw_curve(ax, curve, tol, low, *curve_look(i), label)
    if tol is not None:
        ax.axhline(tol, color=INK, lw=0.8, ls=":")
    _draw_axes(ax, max(map(len, curves.values())), low, high)
    zeros = any((curve == 0).any() for curve in curves.values())
    ax.set(xlabel="sweep", ylabel="marginal error" + (" (triangle: zero)" if zeros else ""), title=title or "")
    ax.legend(
        title=None if tol is None else f"within the tolerance of {tol:.3g}",
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=4.5,
        ncols=columns,
        frameon=False,
        fontsize=8,
        title_fontsize=8,
    )
    return ax


def _curve(name: str, values: Tensor | Sequence[Real]) -> np.ndarray:
    """A curve (t) of float64, not finite numbers as NaN."""
    given = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values
    curve = np.asarray(given, dtype=np.float64)
    if curve.ndim != 1 or not curve.size or (curve < 0).any():
        low = f" from {curve.min():.3g}" if curve.size else ""
        raise ValueError(f"curve {name!r} needs one error of at least 0 per sweep, (t,), got shape {curve.shape}{low}")
    return np.where(np.isfinite(curve), curve, np.nan)


def _verdict(curve: np.ndarray, tol: Real) -> str:
    """After how many sweeps a curve first meets the tolerance."""
    met = np.flatnonzero(curve <= tol)
    sweeps = int(met[0]) + 1 if len(met) else len(curve)
    return f"{'after' if len(met) else 'not in'} {sweeps} sweep{'s' if sweeps > 1 else ''}"


def _draw_curve(ax: Axes, curve: np.ndarray, tol: Real | None, low: float, colour: str, line: Line, label: str) -> None:
    """A curve up to its first zero, the place where it meets the tolerance, and the zero."""
    zero = np.flatnonzero(curve == 0)[:1]
    drawn = np.where(curve > 0, curve, np.nan)[: zero[0] if len(zero) else None]
    sweeps = np.arange(1, len(curve) + 1)
    ax.plot(sweeps[: len(drawn)], drawn, linestyle=line, color=colour, lw=1.6, label=label)
    known = np.pad(np.isfinite(drawn), 1)
    alone = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:])
    met = np.flatnonzero(drawn <= tol)[:1] if tol is not None else alone[:0]
    for places, size, name in ((alone, 3, "alone"), (met, 5, "met")):
        if len(places):
            ax.plot(sweeps[places], drawn[places], "o", color=colour, ms=size, zorder=3, gid=name)
    if len(zero):
        ax.plot(sweeps[zero], [low], "v", color=colour, ms=7, clip_on=False, zorder=3, gid="zero")


def _draw_axes(ax: Axes, sweeps: int, low: float, high: float) -> None:
    """Logarithmic axes, with the numbers of few sweeps one by one."""
    ax.set(xscale="log", yscale="log", xlim=(0.9, max(1.05 * sweeps, 1.2)), ylim=(low, high))
    if sweeps <= FEW:
        ax.set_xticks(np.arange(1, sweeps + 1))
        ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.25, lw=0.6)
    ax.spines[["top", "right"]].set_visible(False)


def _reach(numbers: list[np.ndarray]) -> tuple[float, float]:
    """The foot and the head of the axes, around all numbers above zero."""
    seen = np.concatenate(numbers)
    seen = seen[seen > 0]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (1e-3, 1e-3)
    room = max(3.0, (high / low) ** 0.05)
    return low / room, high * room
