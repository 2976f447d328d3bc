"""Several libraries on the same inputs: what each takes, how well it solves them, whether its gradient is right."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from graphkd.benchmark.peers import CannotRun, Look, Peer, Run, Solver
from graphkd.benchmark.timing import Timing, paired_ratio, summary, time_together
from graphkd.typing import Real

TIMINGS = ("forward", "both", "forward_ratio", "both_ratio")
"""The fields of a row that are timings."""

SOLVED = 0.05
"""How far from the best objective, or from the masses, a plan may be that counts as a solution."""


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: How often each function is timed, at most.
        seconds: No round of a case begins later than this, once three were run.
    """

    rounds: int
    seconds: Real


@dataclass
class Row:
    """One library on one case.

    Attributes:
        case: What it solved.
        library: Who wrote it.
        call: The function, and the setting.
        forward: Seconds of the value.
        both: Seconds of the value and its gradients.
        forward_ratio: Its seconds over those of the case's first row, in each round.
        both_ratio: The same with gradients.
        accuracy: Numbers that say how well the problem was solved, by name.
        gradient: ``right``, or what is wrong with it.
        same_problem: Whether it solves what the others solve.
        note: What a reader has to know.
        failed: Why there are no numbers.
    """

    case: str
    library: str
    call: str
    forward: Timing | None = None
    both: Timing | None = None
    forward_ratio: Timing | None = None
    both_ratio: Timing | None = None
    accuracy: dict[str, float] = field(default_factory=dict)
    gradient: str = ""
    same_problem: bool = True
    note: str = ""
    failed: str = ""

    @property
    def name(self) -> str:
        """Library and call."""
        return f"{self.library} {self.call}"

    def record(self) -> dict[str, Any]:
        """The row as plain values, timings with the names of their fields."""
        plain = dict(vars(self))
        for name in TIMINGS:
            timing = getattr(self, name)
            plain[name] = None if timing is None else timing._asdict()
        # JSON knows no NaN.
        plain["accuracy"] = {name: x if math.isfinite(x) else str(x) for name, x in self.accuracy.items()}
        return plain


Judge = Callable[[Look], dict[str, float]]


def compare(
    case: str,
    peers: Sequence[Peer],
    inputs: Sequence[Tensor],
    effort: Effort,
    judge: Judge,
    gradients: Mapping[str, str] | None = None,
) -> list[Row]:
    """Time peers on the same inputs in alternation; one that is not installed, or raises, is a row that says so.

    Args:
        case: The problem's name.
        peers: Whom to compare; ratios are to the first that runs.
        inputs: What each is given.
        effort: How much is measured.
        judge: How well a problem was solved.
        gradients: By the peer's name, whether its gradient is right.

    >>> from graphkd.benchmark.peers import InTorch
    >>> double = Peer("torch", "double", lambda: InTorch(lambda x: (2 * x, lambda: None)))
    >>> (row,) = compare("x", [double], [torch.ones(1)], Effort(1, 1), lambda look: {"value": look.value})
    >>> row.accuracy, row.both_ratio.median
    ({'value': 2.0}, 1.0)
    """
    verdicts = gradients or {}
    rows: list[Row] = []
    runs: dict[str, Run] = {}
    with quiet():
        for peer in peers:
            row = Row(case, peer.library, peer.call, note=peer.note, same_problem=peer.same_problem)
            row.gradient = verdicts.get(peer.name, "")
            rows.append(row)
            row.failed = attempt(peer, lambda solver, row=row: runs.update(_look(solver, row, inputs, judge)))
        functions = {
            f"{name}, {kind}": getattr(run, kind) for name, run in runs.items() for kind in ("forward", "both")
        }
        timings = time_together(functions, effort.rounds, torch.device("cpu"), effort.seconds)
    base = next(iter(runs), None)
    for row in rows:
        if row.name in runs:
            row.forward, row.both = (timings[f"{row.name}, {kind}"] for kind in ("forward", "both"))
            row.forward_ratio = paired_ratio(row.forward, timings[f"{base}, forward"])
            row.both_ratio = paired_ratio(row.both, timings[f"{base}, both"])
    return rows


def attempt(peer: Peer, function: Callable[[Solver], object]) -> str:
    """Do something with a peer's solver; returns why that failed, or nothing.

    >>> attempt(Peer("x", "", load=lambda: __import__("no_such_package"), pip="x"), lambda solver: None)
    'not installed: pip install x'
    """
    try:
        function(peer.load())
    except ModuleNotFoundError:
        return f"not installed: pip install {peer.pip}"
    except CannotRun as reason:
        return str(reason)
    except Exception as error:
        # Whatever another library raises is a result, and must not end the others' measurement.
        return f"{type(error).__name__}: {error}"
    return ""


def judged_gradients(peers: Sequence[Peer], judge: Callable[[Solver], str]) -> dict[str, str]:
    """Of each peer whether its gradient is right; empty for one that cannot be asked.

    >>> judged_gradients([Peer("x", "y", load=lambda: None)], lambda solver: "right")
    {'x y': 'right'}
    """
    verdicts = {peer.name: "" for peer in peers}
    with quiet():
        for peer in peers:
            attempt(peer, lambda solver, name=peer.name: verdicts.update({name: judge(solver)}))
    return verdicts


@contextmanager
def quiet() -> Iterator[None]:
    """Solvers that are held to a number of sweeps warn that they did not converge: that has a column of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fixed_rows(case: str, library: str, seconds: Mapping[str, float], base: Row) -> list[Row]:
    """Rows of times that nobody can beat, set beside the row that ratios are to.

    >>> base = Row("x", "graphkd", "solve", forward=summary([2.0, 2.0]))
    >>> fixed_rows("x", "floor", {"one read": 1.0}, base)[0].forward_ratio.median
    0.5
    """
    rows = [Row(case, library, call, forward=summary([value])) for call, value in seconds.items()]
    if base.forward is not None:
        for row, value in zip(rows, seconds.values(), strict=True):
            row.forward_ratio = summary([value / round_ for round_ in base.forward.rounds])
    return rows


def fastest(rows: Iterable[Row], library: str) -> Row | None:
    """The library's fastest row, value and gradients, of those that solved the problem: if any is, one that is right.

    >>> rows = [Row("x", "a", "1", both=summary([1.0]), gradient="cost × 2.00")]
    >>> rows += [Row("x", "a", "2", both=summary([3.0]), gradient="right")]
    >>> fastest(rows, "a").call
    '2'
    """
    fair = [row for row in rows if row.library == library and row.both and row.same_problem]
    solved = [row for row in fair if all(map(_is_small, row.accuracy.values()))]
    right = [row for row in solved if row.gradient in ("right", "")]
    return min(right or solved, key=lambda row: row.both.median if row.both else 0.0, default=None)


def _is_small(error: float) -> bool:
    return abs(error) <= SOLVED


def _look(solver: Solver, row: Row, inputs: Sequence[Tensor], judge: Judge) -> dict[str, Run]:
    run = solver.on(inputs)
    look = run.look()
    if not all(bool(gradient.isfinite().all()) for gradient in look.gradients if gradient is not None):
        row.gradient = "not finite"
    if row.same_problem:
        row.accuracy = judge(look)
    return {row.name: run}
