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
        gain: What it has over the baseline, seed by seed; None for the baseline itself.
        others: Means of other numbers.
    """

    name: str
    trial: dict[str, Any]
    score: Estimate
    gain: Estimate | None
    others: dict[str, float]


def lines(
    found: Mapping[str, Mapping[int, Mapping[str, float]]],
    trials: Mapping[str, dict[str, Any]],
    costs: Mapping[str, Mapping[str, float]],
    baseline: str,
) -> list[Line]:
    """A line for each method.

    Args:
        found: Numbers of the final runs, by method and seed.
        trials: The chosen settings.
        costs: What a step costs, by method.
        baseline: Which of the methods the others are compared with.
    """
    result = []
    for name, by_seed in found.items():
        scores = {seed: numbers["score"] for seed, numbers in by_seed.items()}
        shared = [seed for seed in scores if seed in found.get(baseline, {})]
        gain = None
        if name != baseline and shared:
            gain = difference([scores[seed] for seed in shared], [found[baseline][seed]["score"] for seed in shared])
        others = {key: estimate([each[key] for each in by_seed.values()]).mean for key in next(iter(by_seed.values()))}
        others |= costs.get(name, {})
        result.append(Line(name, trials[name], estimate(list(scores.values())), gain, others))
    return result


def columns(setting: Setting, rows: Sequence[Line], baseline: str) -> list[str]:
    """What heads the table."""
    own = [title for key, title in OTHERS.items() if any(key in row.others for row in rows)]
    return ["method", "chosen", setting.score, f"minus {EVERY[baseline].title.partition(',')[0]}", *own]


def cells(rows: Sequence[Line]) -> list[list[str]]:
    """The table's cells: mean ± deviation over seeds, and the paired difference ± half its 95 % interval."""
    keys = [key for key in OTHERS if any(key in row.others for row in rows)]
    return [
        [
            EVERY[row.name].title,
            ", ".join(f"{knob} {value:g}" for knob, value in row.trial.items()),
            f"{row.score.mean:.2f} ± {row.score.deviation:.2f}",
            "" if row.gain is None else f"{row.gain.mean:+.2f} ± {row.gain.half:.2f}",
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
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=120)
