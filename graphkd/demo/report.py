"""The demo's table, figures and page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import torch
from matplotlib.figure import Figure
from torch import Tensor

from graphkd.datasets import DigitsData
from graphkd.distiller import Distiller
from graphkd.step import Step
from graphkd.training.history import History
from graphkd.training.run import Result
from graphkd.viz import Report, graph_layout, plot_before_after, plot_graph, plot_history, plot_transport

IMAGES_PER_CLASS = 6
"""How many images of each digit the figures show."""

COLUMNS = (
    "network",
    "test accuracy, %",
    "agreement with the teacher, %",
    "parameters",
    "extra parameters, while training",
    "seconds per epoch",
)


@dataclass(frozen=True)
class Run:
    """One student's training and what came of it."""

    method: str
    title: str
    seed: int
    result: Result
    history: History
    distiller: Distiller


def rows(teacher: Result, runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """The table: the teacher, then each method over its seeds."""
    table = [
        ("teacher", _percent([teacher.accuracy]), "", f"{teacher.parameters:,}", "", f"{teacher.seconds_per_epoch:.2f}")
    ]
    for title, members in _by_title(runs).items():
        results = [run.result for run in members]
        table.append(
            (
                title,
                _percent([result.accuracy for result in results]),
                _percent([result.agreement for result in results if result.agreement is not None]),
                f"{results[0].parameters:,}",
                f"{results[0].extra_parameters:,}",
                f"{mean(result.seconds_per_epoch for result in results):.2f}",
            )
        )
    return table


def write_report(
    folder: Path,
    config: Mapping[str, object],
    table: Sequence[tuple[str, ...]],
    runs: Sequence[Run],
    pages: Mapping[str, str],
) -> None:
    """Write the figures as PNG files, and everything together as one page with links to others."""
    report = Report("graphkd demo: a digits student and its teacher")
    report.text(
        "What was done",
        "A teacher CNN learned 1000 handwritten digits with all their labels. A student of "
        f"{config['student_width']} channels saw the same images, but only {config['labels_per_class']} labels per "
        f"digit, for {config['epochs']} epochs and {config['seeds']} seeds: "
        f"{', '.join(dict.fromkeys(run.title for run in runs))}.",
    )
    report.table("Test images, last epoch, mean ± standard deviation over seeds", COLUMNS, table)
    for name, heading, caption, figure in _figures(runs):
        figure.savefig(folder / f"{name}.png", dpi=110)
        report.figure(heading, figure, caption=caption, alt=f"{heading}. {caption}")
    report.links(
        "Look further",
        "Plans, batch graphs and numbers of the first seed on 100 images, from the first step to the last.",
        pages,
    )
    report.write(folder / "report.html")


def _figures(runs: Sequence[Run]) -> list[tuple[str, str, str, Figure]]:
    curves = (
        "curves",
        "Learning curves",
        "Accuracy on the 200 validation images: mean over seeds, and one standard deviation around it.",
        _curves(runs),
    )
    shown = next((run for run in runs if run.method == "otgd"), None)
    if shown is None:
        return [curves]
    step, labels = _look(shown.distiller)
    return [
        curves,
        (
            "graphs",
            "Batch graphs",
            "The same validation images as the teacher's graph and as the student's (OTGD, first seed): each image is "
            "joined with the nearest in class probabilities. Colours are digits; both are "
            "placed as the teacher's graph lies.",
            _graphs(step),
        ),
        (
            "plans",
            "Transport plans before and after message passing",
            "From the student's images (rows) to the teacher's (columns), both sorted by digit. The terms f and g of "
            "OTGD pull these plans to the identity.",
            _plans(step, labels),
        ),
        (
            "transport",
            "The plan after message passing as a graph",
            "Student's images left, teacher's right; the wider an edge, the more mass it carries.",
            _transport(step, labels),
        ),
    ]


def _look(distiller: Distiller) -> tuple[Step, Tensor]:
    """Student and teacher on a few validation images of each digit, sorted, and the digits."""
    data = DigitsData()
    images, labels = data.validation
    chosen = torch.cat([(labels == digit).nonzero().squeeze(1)[:IMAGES_PER_CLASS] for digit in labels.unique()])
    distiller.eval()
    with torch.no_grad():
        return distiller(images[chosen], labels[chosen]), labels[chosen]


def _curves(runs: Sequence[Run]) -> Figure:
    curves = {
        title: [[100 * value for value in run.history.curves["val/accuracy"]] for run in members]
        for title, members in _by_title(runs).items()
    }
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    plot_history(curves, ax=figure.subplots(), ylabel="validation accuracy, %")
    return figure


def _graphs(step: Step) -> Figure:
    student, teacher = step.comparisons["otgd/f"].graphs
    positions = graph_layout(teacher)
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_graph(teacher, positions=positions, ax=left, title="teacher")
    plot_graph(student, positions=positions, ax=right, title="student")
    return figure


def _plans(step: Step, labels: Tensor) -> Figure:
    panels = {
        "before message passing (f)": step.comparisons["otgd/f"],
        "after message passing (g)": step.comparisons["otgd/g"],
    }
    figure = Figure(figsize=(11, 5.8), layout="constrained")
    plot_before_after(panels, labels=labels, ax=figure.subplots(1, 2))
    return figure


def _transport(step: Step, labels: Tensor) -> Figure:
    after = step.comparisons["otgd/g"]
    figure = Figure(figsize=(7, 9), layout="constrained")
    plot_transport(after.plan, labels=labels, ax=figure.subplots())
    return figure


def _by_title(runs: Sequence[Run]) -> dict[str, list[Run]]:
    titles = dict.fromkeys(run.title for run in runs)
    return {title: [run for run in runs if run.title == title] for title in titles}


def _percent(shares: Sequence[float]) -> str:
    values = [100 * share for share in shares]
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"
