"""What a criterion's step costs, as a share of the student's own training step, and how that grows with the batch."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from graphkd import checks, kept
from graphkd.benchmark.accuracy.entries import ENTRIES, METHOD, Given
from graphkd.benchmark.accuracy.report import COLOURS, markdown
from graphkd.benchmark.table import print_table
from graphkd.benchmark.timing import Timing, paired_ratio, time_together
from graphkd.loss import Criterion
from graphkd.models import resnet8x4
from graphkd.training.record import made_by

Table = tuple[list[str], list[list[str]]]
"""Columns, and rows of cells."""

STUDENT = "student"

CLASSES, SAMPLES, SIDE = 100, 50_000, 8
"""Of logits, of memories, and of feature maps."""

NOT_TIMED = {"alone", "kd_heavy", "fitnet_feat", "cosine", "otgd_kd", "fgw_kd"}
"""Methods that are another one's criterion with other weights or features, or none."""

LABELS_APART = 1.1
"""By what factor the lines' names are apart at least, in the plot."""

TIMED = [name for name in ENTRIES if name not in NOT_TIMED]
"""Criteria, by the names of the methods that they are."""


class Case(NamedTuple):
    """All criteria on one batch.

    Attributes:
        batch_size: Samples.
        width: Of both networks' features, and channels of their feature maps.
        timings: Seconds of the student's step and of each criterion's, by name.
    """

    batch_size: int
    width: int
    timings: dict[str, Timing]

    def share(self, name: str) -> Timing:
        """A criterion's step over the student's, round by round."""
        return paired_ratio(self.timings[name], self.timings[STUDENT])


def benchmark_step(
    methods: Sequence[str] = (),
    batch_sizes: Sequence[int] = (64, 128, 256),
    widths: Sequence[int] = (256,),
    rounds: int = 15,
    device: str = "cpu",
    threads: int | None = None,
    out: str | None = None,
) -> list[Case]:
    """Time each criterion, forward and backward, against a training step of ResNet-8x4 on 32 x 32 images.

    All are timed in alternation in this process. A share is the median over rounds of criterion over student. Beside
    the shares stands how a criterion's own time grows: the exponent of the batch size between the two largest.

    Args:
        methods: Names of methods; all by default.
        batch_sizes: Samples in a batch, for the student and for the criteria.
        widths: Of both networks' features; their maps have as many channels and 8 x 8 positions.
        rounds: How often each is timed.
        device: Where everything runs.
        threads: Threads of torch on the CPU; its own choice if omitted.
        out: A folder for step.json, step.md and step.png.

    Raises:
        ValueError: For methods that are not there, and for sizes that are too small.
    """
    for name in methods:
        checks.one_of("methods", name, tuple(TIMED))
    for size in batch_sizes:
        checks.at_least("batch_sizes", size, 4)
    for width in widths:
        checks.at_least("widths", width, 2)
    checks.at_least("rounds", rounds, 1)
    where = torch.device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    chosen = [name for name in TIMED if name in (methods or TIMED)]
    cases = [_timed(chosen, size, width, rounds, where) for width in widths for size in sorted(batch_sizes)]
    place = f"{where}, {torch.get_num_threads()} threads" if where.type == "cpu" else str(where)
    tables = {
        f"share of the student's step, features {width}-d, {rounds} rounds, {place}": _table(
            [case for case in cases if case.width == width], chosen
        )
        for width in widths
    }
    for title, (columns, rows) in tables.items():
        print_table(title, columns, rows)
    if out is not None:
        _keep(cases, chosen, tables, Path(out), device)
    return cases


def _timed(names: Sequence[str], batch_size: int, width: int, rounds: int, device: torch.device) -> Case:
    functions = {STUDENT: _student_step(batch_size, device)}
    functions |= {name: _criterion_step(_criterion(name), batch_size, width, device) for name in names}
    return Case(batch_size, width, time_together(functions, rounds, device))


def _student_step(batch_size: int, device: torch.device) -> Callable[[], object]:
    student = resnet8x4().to(device)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(batch_size, 3, 32, 32, device=device)
    labels = torch.randint(0, CLASSES, (batch_size,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(student(images), labels).backward()
        optimizer.step()

    return step


def _criterion(name: str) -> Criterion:
    """A method's criterion; the costs of classes are random numbers."""
    given = Given(SAMPLES, ("map",), lambda: torch.rand(CLASSES, CLASSES).fill_diagonal_(0.0))
    return ENTRIES[name].example(given)[METHOD]


def _criterion_step(criterion: Criterion, batch_size: int, width: int, device: torch.device) -> Callable[[], object]:
    shapes = {"feat": (width,), "logits": (CLASSES,), "map": (width, SIDE, SIDE)}
    labels = torch.randint(0, CLASSES, (batch_size,), device=device)
    index = torch.randperm(SAMPLES, device=device)[:batch_size]

    def features(requires_grad: bool) -> dict[str, Tensor]:
        drawn = {
            name: torch.randn(batch_size, *shape, device=device, requires_grad=requires_grad)
            for name, shape in shapes.items()
        }
        return {**drawn, "index": index}

    student, teacher, moved = features(True), features(False), criterion.to(device)

    def step() -> None:
        moved(student, teacher, labels).value.backward()

    return step


def growth(cases: Sequence[Case], name: str) -> float:
    """The exponent with which a criterion's time grows between the two largest of several batches.

    >>> case = lambda n, seconds: Case(n, 8, {"kd": Timing(seconds, seconds, seconds, [seconds])})
    >>> growth([case(64, 1.0), case(128, 4.0)], "kd")
    2.0
    """
    small, large = cases[-2:]
    return math.log(large.timings[name].median / small.timings[name].median) / math.log(
        large.batch_size / small.batch_size
    )


def _table(cases: Sequence[Case], names: Sequence[str]) -> Table:
    """Columns and rows of one width: shares by batch size, and how each grows."""
    several = len(cases) > 1
    columns = ["forward and backward", *(f"batch {case.batch_size}" for case in cases), *["grows as n^"] * several]
    cells = {"ResNet-8x4, with SGD": [f"{1e3 * case.timings[STUDENT].median:.1f} ms" for case in cases]}
    cells |= {name: [f"{100 * case.share(name).median:.2f} %" for case in cases] for name in names}
    grown = [f"{growth(cases, name):.1f}" for name in (STUDENT, *names)] if several else []
    return columns, [[title, *cells[title], *grown[i : i + 1]] for i, title in enumerate(cells)]


def _keep(cases: Sequence[Case], names: Sequence[str], tables: Mapping[str, Table], folder: Path, device: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = [
        {
            "batch_size": case.batch_size,
            "width": case.width,
            "seconds": {name: timing._asdict() for name, timing in case.timings.items()},
        }
        for case in cases
    ]
    setting = {"device": device, "torch": torch.__version__, "threads": torch.get_num_threads()}
    kept.write_text(folder / "step.json", json.dumps({"setting": setting, **made_by(), "cases": content}, indent=1))
    text = [f"{title}, torch {torch.__version__}\n\n{markdown(*table)}\n" for title, table in tables.items()]
    kept.write_text(folder / "step.md", "\n".join(text))
    _plot(cases, names, folder / "step.png")


def _plot(cases: Sequence[Case], names: Sequence[str], file: Path) -> None:
    """Draw the shares over the batch size, a panel for each width."""
    widths = list(dict.fromkeys(case.width for case in cases))
    figure = Figure(figsize=(7 * len(widths), 7), layout="constrained")
    for panel, width in zip(figure.subplots(1, len(widths), squeeze=False)[0], widths, strict=True):
        mine = [case for case in cases if case.width == width]
        sizes = [case.batch_size for case in mine]
        shares = {name: [100 * case.share(name).median for case in mine] for name in names}
        height = 0.0
        for name in sorted(names, key=lambda name: shares[name][-1]):
            colour = COLOURS[ENTRIES[name].kind]
            panel.plot(sizes, shares[name], "o-", color=colour, markersize=3, linewidth=1)
            height = max(shares[name][-1], LABELS_APART * height)
            panel.annotate(name, (1.02 * sizes[-1], height), fontsize=6, color=colour)
        panel.set(
            xscale="log", yscale="log", xlabel="batch", ylabel="% of the student's step", title=f"{width}-d features"
        )
        panel.set_xticks(sizes, labels=[f"{size}" for size in sizes])
        panel.set_xticks([], minor=True)
        panel.yaxis.set_major_formatter("{x:g}")
    figure.savefig(file, dpi=120)
