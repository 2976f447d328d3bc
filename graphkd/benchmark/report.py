"""What was measured, as tables, as JSON and as a plot."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from graphkd.benchmark.compare import Row, fastest
from graphkd.benchmark.table import print_table
from graphkd.benchmark.timing import Timing

WIDTH = 160
"""Of a table, in characters, where the output is no terminal that has its own."""

Sections = Mapping[str, Sequence[Row]]


def print_case(section: str, rows: Sequence[Row]) -> None:
    """Print the libraries of one case: milliseconds with quartiles, ratios to the first row, accuracy."""
    named = list(dict.fromkeys(name for row in rows for name in row.accuracy))
    timed = [kind for kind in ("forward", "both") if any(getattr(row, kind) for row in rows)]
    titles = {"forward": "forward, ms", "both": "forward and backward, ms"}
    columns = ["library and call"]
    columns += [column for kind in timed for column in (titles[kind], "ratio")]
    columns += [*named, "gradient, remark"]
    cells = []
    for row in rows:
        line = [row.name]
        for kind in timed:
            line += [milliseconds(getattr(row, kind)), ratio(getattr(row, f"{kind}_ratio"))]
        line += [number(row.accuracy[name]) if name in row.accuracy else "" for name in named]
        cells.append([*line, row.failed or row.gradient])
    print_table(f"{section}: {rows[0].case}", columns, cells, WIDTH)


def print_notes(rows: Sequence[Row]) -> None:
    """Print what a reader has to know about single lines, each once."""
    for note in dict.fromkeys(row.note for row in rows if row.note):
        print(f"  {note}.")


def print_summary(section: str, rows: Sequence[Row]) -> None:
    """Print, case by case, how many times graphkd's time each library's fastest solution takes.

    It is the fastest with a right gradient; where there is none, the fastest, with what is wrong.
    """
    libraries = [name for name in dict.fromkeys(row.library for row in rows) if name not in ("graphkd", "floor")]
    cases = {case: [row for row in rows if row.case == case] for case in dict.fromkeys(row.case for row in rows)}
    best = {case: [fastest(found, library) for library in libraries] for case, found in cases.items()}
    shown = [place for place in range(len(libraries)) if any(row[place] for row in best.values())]
    lines = [
        [case, milliseconds(found[0].both), *(_against(best[case][place]) for place in shown)]
        for case, found in cases.items()
        if found[0].both is not None
    ]
    if shown and lines:
        title = f"{section}, forward and backward: time of each library's fastest solution over that of graphkd"
        print_table(title, ["case", "graphkd, ms", *(libraries[place] for place in shown)], lines, WIDTH)


def _against(row: Row | None) -> str:
    if row is None:
        return "none"
    wrong = "" if row.gradient in ("right", "") else f": {row.gradient}"
    return f"{ratio(row.both_ratio)} ({row.call}{wrong})"


def milliseconds(timing: Timing | None) -> str:
    """The median, and the quartiles where they differ.

    >>> milliseconds(Timing(0.002, 0.001, 1.2345, []))
    '2 (1 .. 1234)'
    """
    if timing is None:
        return ""
    median, low, high = (_three_digits(1e3 * seconds) for seconds in timing[:3])
    return median if low == high else f"{median} ({low} .. {high})"


def ratio(timing: Timing | None) -> str:
    """The median of a ratio.

    >>> ratio(Timing(2.043, 2, 2.1, []))
    '2.04'
    """
    return "" if timing is None else _three_digits(timing.median)


def _three_digits(x: float) -> str:
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def number(x: float) -> str:
    """An error by its order of magnitude, anything above by its digits.

    >>> number(1.23e-7), number(87.6)
    ('1.2e-07', '87.6')
    """
    return _three_digits(x) if x >= 1 else f"{x:.1e}"


def plot(sections: Sections, file: Path) -> None:
    """Draw each section's forward and backward time (of floors: forward) over its cases, a line per library and call.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot({"x": [Row("n = 1", "a", "b", both=Timing(1, 1, 1, [1.0]))]}, Path(folder) / "x.png")
    ...     (Path(folder) / "x.png").exists()
    True
    """
    figure = Figure(figsize=(13, 4.5 * len(sections)), layout="constrained")
    panels = figure.subplots(len(sections), squeeze=False)[:, 0]
    for panel, (section, rows) in zip(panels, sections.items(), strict=True):
        timed = [row for row in rows if row.both or row.forward]
        cases = list(dict.fromkeys(row.case for row in timed))
        styles = itertools.cycle(("--", "-.", ":"))
        for name in dict.fromkeys(row.name for row in timed):
            points = [(cases.index(row.case), row.both or row.forward) for row in timed if row.name == name]
            floor = name.startswith("floor")
            panel.plot(
                [place for place, _ in points],
                [1e3 * timing.median for _, timing in points if timing],
                next(styles) if floor else "-o",
                color="black" if floor else None,
                linewidth=3 if name.startswith("graphkd") else 1,
                markersize=3,
                label=name,
            )
        panel.set(title=section, yscale="log", ylabel="ms, forward and backward")
        panel.set_xticks(range(len(cases)), cases, rotation=20, ha="right")
        panel.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(file, dpi=120)
