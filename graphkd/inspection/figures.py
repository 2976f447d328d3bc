"""The figures of a page, drawn once: what the last snapshot shows, and the curves of the run."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

from graphkd.inspection.sides import sides
from graphkd.snapshots import Snapshot, common_feature
from graphkd.typing import UNLABELLED, Comparison, Real
from graphkd.viz import plot_before_after, plot_class_cost, plot_correlation_gap, plot_embedding, plot_history

MOST_CURVES = 12
MOST_PANELS = 6


class Drawn(NamedTuple):
    """A figure with its heading, a caption that says what to see, and an alternative text."""

    heading: str
    caption: str
    alt: str
    figure: Figure


def figures(last: Snapshot, curves: Mapping[str, Sequence[Real]] | None = None) -> list[Drawn]:
    """Every figure for which the snapshot has what it takes, and the curves if there are any.

    >>> figures(Snapshot(0, 0, {}, {}, {}, {}, torch.eye(1), (["a"], ["a"]), torch.arange(4), None, None))
    []
    """
    parts: list[Callable[[], list[Drawn]]] = [
        lambda: plan_figures(last),
        lambda: _embedding(last),
        lambda: _correlations(last),
        lambda: _class_costs(last),
        lambda: _curves(curves or {}),
    ]
    return [drawn for part in parts for drawn in part()]


def plan_figures(last: Snapshot) -> list[Drawn]:
    """The plans of each criterion beside each other."""
    groups: dict[str, dict[str, Comparison]] = {}
    for name, seen in last.comparisons.items():
        plan = seen.plan
        if plan.dim() == 2 and plan.shape[0] == plan.shape[1] == len(last.labels) and _is_of_samples(seen, last):
            if _drawable(plan.to_dense()):
                groups.setdefault(name.split("/")[0], {})[name] = seen
    return [
        Drawn(
            f"Plans of {criterion}",
            f"{_these(group)} on one colour scale at step {last.step}; rows are students, columns teachers, both by "
            "class.",
            f"Heat maps of the plans of {', '.join(group)} at step {last.step}.",
            _figure(plot_before_after(group, labels=_labels(last), class_names=_names(last))[0].figure),
        )
        for criterion, whole in groups.items()
        for group in _at_most(whole, MOST_PANELS)
    ]


def _embedding(last: Snapshot) -> list[Drawn]:
    common = common_feature(last)
    if common is None:
        return []
    student, teacher = last.student[common[0]].float(), last.teacher[common[1]].float()
    if not bool(student.isfinite().all() and teacher.isfinite().all()):
        return []
    name = common[0]
    ax = plot_embedding(student, teacher, labels=_labels(last), class_names=_names(last))
    return [
        Drawn(
            "Both networks' samples in one plane",
            f"t-SNE of the features {name!r} at step {last.step}: a line joins the student's and the teacher's row of "
            "one sample. Short lines are good; distances between clouds mean nothing.",
            f"Scatter plot of the samples by both networks' features {name!r}, coloured by class.",
            _figure(ax.figure),
        )
    ]


def _correlations(last: Snapshot) -> list[Drawn]:
    student, teacher = last.student.get("logits"), last.teacher.get("logits")
    if student is None or teacher is None or student.shape != teacher.shape or student.shape[1] < 2:
        return []
    if not bool(student.isfinite().all() and teacher.isfinite().all()):
        return []
    names = last.class_names if last.class_names is not None and len(last.class_names) >= student.shape[1] else None
    return [
        Drawn(
            "Correlations between classes",
            f"How far the correlations between the student's logits are from the teacher's at step {last.step}: "
            "pale is good.",
            f"Heat map of the differences between the correlations of logits, {student.shape[1]} classes.",
            _figure(plot_correlation_gap(student.float(), teacher.float(), class_names=names).figure),
        )
    ]


def _class_costs(last: Snapshot) -> list[Drawn]:
    """The cost between classes of each term that has one, each different one once."""
    found: list[tuple[str, torch.Tensor]] = []
    for name, seen in last.comparisons.items():
        cost = seen.cost
        if cost is None or any(graph.get("node") != "class" for graph in seen.graphs):
            continue
        square = cost.dim() == 2 and cost.shape[0] == cost.shape[1] > 1
        good = square and bool(cost.isfinite().all() and (cost >= 0).all())
        if good and not any(torch.equal(cost, other) for _, other in found):
            found.append((name, cost))
    return [
        Drawn(
            f"Classes by the cost of {name}",
            "Near and dark: probability moves cheaply between these classes.",
            f"Graph of {len(cost)} classes, each joined with those that are cheapest for it.",
            _figure(plot_class_cost(cost, class_names=_whole(last.class_names, len(cost))).figure),
        )
        for name, cost in found
    ]


def _curves(curves: Mapping[str, Sequence[Real]]) -> list[Drawn]:
    """A small panel for each number that a run logged."""
    named = [name for name, values in curves.items() if len(values)]
    shown = named[:MOST_CURVES]
    if not shown:
        return []
    columns = min(3, len(shown))
    rows = ceil(len(shown) / columns)
    figure = Figure(figsize=(4 * columns, 2.5 * rows), layout="constrained")
    for i, name in enumerate(shown):
        ax = plot_history({name: [curves[name]]}, ax=figure.add_subplot(rows, columns, i + 1), title=_literal(name))
        legend = ax.get_legend()
        if legend is not None:
            legend.remove()
    left_out = f" The first {len(shown)} of {len(named)} numbers." if len(named) > len(shown) else ""
    return [
        Drawn(
            "The run over its epochs",
            f"What was logged at the end of every epoch.{left_out}",
            f"Curves over the epochs of {', '.join(shown)}.",
            figure,
        )
    ]


def _is_of_samples(seen: Comparison, last: Snapshot) -> bool:
    n, m = seen.plan.shape[-2:]
    return all(
        side.kind == "sample" and side.own == len(side.classes) for side in sides(seen.graphs, last.labels, n, m)
    )


def _drawable(plan: torch.Tensor) -> bool:
    return bool(plan.isfinite().all() and (plan >= 0).all() and (plan > 0).any())


def _at_most(group: Mapping[str, Comparison], most: int) -> list[dict[str, Comparison]]:
    items = list(group.items())
    return [dict(items[start : start + most]) for start in range(0, len(items), most)]


def _these(group: Mapping[str, Comparison]) -> str:
    return "The plan" if len(group) == 1 else f"{len(group)} plans"


def _labels(last: Snapshot) -> torch.Tensor | None:
    """The classes, if any sample has one."""
    return last.labels if bool((last.labels != UNLABELLED).any()) else None


def _names(last: Snapshot) -> list[str] | None:
    return _whole(last.class_names, int(last.labels.max()) + 1)


def _whole(names: list[str] | None, count: int) -> list[str] | None:
    """Names to write into a figure, if there are enough of them."""
    return None if names is None or len(names) < count else [_literal(name) for name in names]


def _literal(name: str) -> str:
    """A name that matplotlib writes as it is: dollars would start a formula."""
    return name.replace("$", r"\$")


def _figure(figure: object) -> Figure:
    """The figure that axes stand in."""
    while not isinstance(figure, Figure):
        figure = figure.figure  # pyright: ignore[reportAttributeAccessIssue]
    return figure
