"""The benchmark's numbers as tables in Markdown, on the terminal, and as a plot of accuracy against cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from graphkd.benchmark.accuracy.ablations import EVERY
from graphkd.benchmark.accuracy.statistics import Estimate, difference, estimate
from graphkd.benchmark.accuracy.suites import Setting

COLOURS = {
    "alone": "black",
    "logits": "tab:blue",
    "features": "tab:orange",
    "relations": "tab:green",
    "contrast": "tab:purple",
    "transport": "tab:brown",
    "ours": "tab:red",
}
"""Of the kinds of methods, in the plot."""

OTHERS = {
    "agreement": "agrees with the teacher, %",
    "rank": "rank correlation",
    "calibration": "calibration error, %",
    "time": "time of a step",
    "memory": "memory of a step, MiB",
    "extra_parameters": "extra parameters",
}
"""What stands beside the score, and what it is called."""


class Line(NamedTuple):
    """A method's line.

    Attributes:
        name: Of the method.
        trial: Its setting.
        score: Over seeds.
        gains: What it has over other methods, seed by seed, by their names.
        others: Means of other numbers.
    """

    name: str
    trial: dict[str, Any]
    score: Estimate
    gains: dict[str, Estimate]
    others: dict[str, float]


def lines(
    found: Mapping[str, Mapping[int, Mapping[str, float]]],
    trials: Mapping[str, dict[str, Any]],
    costs: Mapping[str, Mapping[str, float]],
    baselines: Sequence[str],
) -> list[Line]:
    """A line for each method.

    Args:
        found: Numbers of the final runs, by method and seed.
        trials: The chosen settings.
        costs: What a step costs, by method.
        baselines: Which of the methods the others are compared with, where they are among them.
    """
    result = []
    for name, by_seed in found.items():
        scores = {seed: numbers["score"] for seed, numbers in by_seed.items()}
        gains = {}
        for baseline in baselines:
            shared = [seed for seed in scores if seed in found.get(baseline, {})]
            if name != baseline and shared:
                theirs = [found[baseline][seed]["score"] for seed in shared]
                gains[baseline] = difference([scores[seed] for seed in shared], theirs)
        others = {key: estimate([each[key] for each in by_seed.values()]).mean for key in next(iter(by_seed.values()))}
        others |= costs.get(name, {})
        result.append(Line(name, trials[name], estimate(list(scores.values())), gains, others))
    return result


def table(setting: Setting, rows: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Header and cells: mean ± deviation over seeds, and paired differences ± half their 95 % interval."""
    keys = [key for key in OTHERS if any(key in row.others for row in rows)]
    against = [row.name for row in rows if any(row.name in other.gains for other in rows)]
    header = ["method", "chosen", setting.score, *(f"minus {EVERY[name].title.partition(',')[0]}" for name in against)]
    return header + [OTHERS[key] for key in keys], [
        [
            EVERY[row.name].title,
            ", ".join(f"{knob} {value:g}" for knob, value in row.trial.items()),
            f"{row.score.mean:.2f} ± {row.score.deviation:.2f}",
            *(
                f"{row.gains[name].mean:+.2f} ± {row.gains[name].half:.2f}" if name in row.gains else ""
                for name in against
            ),
            *(_number(key, row.others[key]) if key in row.others else "" for key in keys),
        ]
        for row in rows
    ]


def _number(key: str, value: float) -> str:
    if key == "extra_parameters":
        return f"{value:,.0f}"
    return f"{value:.3f}" if key == "rank" else f"{value:.2f}" if key == "time" else f"{value:.1f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(markdown(["a", "b"], [["1", "2"]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    return "\n".join(
        [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in rows)]
    )


def plot(setting: Setting, rows: Sequence[Line], file: Path) -> None:
    """Draw what each method scores over what its step costs, with intervals."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots()
    timed = [row for row in rows if "time" in row.others]
    for row in timed:
        entry = EVERY[row.name]
        half = row.score.half if row.score.n > 1 else 0.0
        place = (row.others["time"], row.score.mean)
        axes.errorbar(*place, yerr=half, fmt="o", color=COLOURS[entry.kind], markersize=4, linewidth=1)
        axes.annotate(entry.title, place, fontsize=7, xytext=(4, 3), textcoords="offset points")
    kinds = [kind for kind in COLOURS if any(EVERY[row.name].kind == kind for row in timed)]
    for kind in kinds:
        axes.plot([], [], "o", color=COLOURS[kind], label=kind)
    axes.set(title=setting.title, ylabel=setting.score, xlabel=f"time of a step, {setting.cheapest} = 1", xscale="log")
    for formatted in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatted("{x:g}")
    figure.legend(fontsize="small", loc="outside right upper")
    figure.savefig(file, dpi=120)
