"""The plans of several comparisons side by side, such as those before and after message passing."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from graphkd.typing import Comparison
from graphkd.viz.inputs import Labels, both_classes, mass_shares, percent, read_plan
from graphkd.viz.plan import Most, draw_heat, heat_of

PER_ROW = 3


def plot_before_after(
    comparisons: Mapping[str, Comparison],
    *,
    labels: Labels | None = None,
    teacher_labels: Labels | None = None,
    class_names: Sequence[str] | None = None,
    ax: Iterable[Axes] | None = None,
) -> list[Axes]:
    """Draw the plan of each comparison as :func:`~graphkd.viz.plot_plan` does, with one colour scale and one order.

    Above each plan stand its name and, where they are known, the share of its mass on the true pairs and the share that
    stays within its class, see :func:`~graphkd.metrics.diagonal_mass` and :func:`~graphkd.metrics.class_purity`. The
    bar beside the last panel holds for all of them, and so do the lengths of the bars along the sides.

    Args:
        comparisons: By name, in the order of the panels, such as OTGD's terms f and g; their plans have one shape
            (n m).
        labels: Class of each student node (n), -100 for none.
        teacher_labels: Class of each teacher node (m), by default ``labels``; needed with labels where m is not n.
        class_names: The name of class c at place c; by default c itself.
        ax: Where to draw, one each; by default on a new figure.

    Raises:
        ValueError: For no comparisons, for plans of more than one shape or with leading axes, for another number of
            axes, and for labels that do not fit.

    >>> import torch
    >>> from graphkd import measures
    >>> from graphkd.graphs import point_cloud
    >>> from graphkd.loss import GraphLoss
    >>> loss = GraphLoss(cost=measures.sqeuclidean)
    >>> seen = loss.compare(point_cloud(torch.zeros(4, 2)), point_cloud(torch.ones(4, 2)))
    >>> panels = plot_before_after({"before": seen, "after": seen}, labels=[0, 0, 1, 1])
    >>> panels[1].get_title().splitlines()
    ['after', 'true pair 100 %, same class 100 %']
    """
    plans = {name: read_plan(comparison) for name, comparison in comparisons.items()}
    shapes = {tuple(plan.shape) for plan in plans.values()}
    if len(shapes) != 1:
        came = ", ".join(f"{name} {tuple(plan.shape)}" for name, plan in plans.items()) or "no comparisons"
        raise ValueError(f"needs plans of one shape to compare, got {came}")
    ((n, m),) = shapes
    classes = both_classes(labels, teacher_labels, n, m)
    heats = [heat_of(plan, classes) for plan in plans.values()]
    most = Most(*map(max, zip(*(heat.most for heat in heats), strict=True)))
    axes = _new_axes(len(plans)) if ax is None else list(ax)
    if len(axes) != len(plans):
        raise ValueError(f"ax needs one axes per comparison, {len(plans)}, got {len(axes)}")
    for place, (name, plan), heat in zip(axes, plans.items(), heats, strict=True):
        title = "\n".join(filter(None, (name, _shares(plan, classes))))
        draw_heat(heat, most, classes, class_names, place, title, bar=place is axes[-1])
    return axes


def _new_axes(count: int) -> list[Axes]:
    """So many axes in rows on a new figure."""
    columns = 2 if count == 4 else min(count, PER_ROW)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.6 * columns + 0.6, 4.8 * rows), layout="constrained")
    return [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def _shares(plan: Tensor, classes: tuple[np.ndarray, np.ndarray] | None) -> str:
    """Which share of the mass lies on the true pairs and within the classes, in words; empty where neither is known."""
    words = []
    _, of_pairs = mass_shares(plan, None)
    if of_pairs:
        words.append(f"true pair {percent(of_pairs[1])}")
    of_classes = {} if classes is None else mass_shares(plan, classes)[1]
    if of_classes:
        words.append(f"same class {percent(of_classes[1] / (of_classes[1] + of_classes[-1]))}")
    return ", ".join(words)
