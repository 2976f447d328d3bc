"""What a criterion's step costs, as a share of the student's own training step."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from graphkd import checks, losses
from graphkd.benchmark.timing import Timing, paired_ratio, time_together
from graphkd.loss import Criterion
from graphkd.models import resnet8x4

STUDENT = "student"


def benchmark_step(
    batch_size: int = 64,
    feature_dim: int = 256,
    rounds: int = 30,
    device: str = "cpu",
    threads: int | None = None,
    out: str | None = None,
) -> dict[str, Timing]:
    """Time each criterion, forward and backward, against a training step of ResNet-8x4 on 32 x 32 images.

    All are timed in alternation in this process. A ratio is the median over rounds of criterion over student, with its
    quartiles.

    Args:
        batch_size: Samples in a batch, for the student and for the criteria.
        feature_dim: Width of both networks' features; OTGD projects them to 128.
        rounds: How often each is timed.
        device: Where everything runs.
        threads: Threads of torch on the CPU; its own choice if omitted.
        out: A JSON file to write as well.
    """
    checks.at_least("batch_size", batch_size, 2)
    checks.at_least("rounds", rounds, 1)
    where = torch.device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    functions: dict[str, Callable[[], object]] = {STUDENT: _student_step(batch_size, where)}
    for name, criterion in {"otgd": losses.otgd(), "kd": losses.kd()}.items():
        functions[name] = _criterion_step(criterion.to(where), batch_size, feature_dim, where)
    timings = time_together(functions, rounds, where)
    _print(timings, batch_size, feature_dim, rounds, where)
    if out is not None:
        rows = {name: timing._asdict() for name, timing in timings.items()}
        setting = {"batch_size": batch_size, "feature_dim": feature_dim, "device": device, "torch": torch.__version__}
        Path(out).write_text(json.dumps({"setting": setting, "seconds": rows}, indent=1))
    return timings


def _student_step(batch_size: int, device: torch.device) -> Callable[[], object]:
    student = resnet8x4().to(device)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(batch_size, 3, 32, 32, device=device)
    labels = torch.randint(0, 100, (batch_size,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(student(images), labels).backward()
        optimizer.step()

    return step


def _criterion_step(criterion: Criterion, batch_size: int, width: int, device: torch.device) -> Callable[[], object]:
    def features(requires_grad: bool) -> dict[str, Tensor]:
        shapes = {"feat": (batch_size, width), "logits": (batch_size, 100)}
        return {name: torch.randn(shape, device=device, requires_grad=requires_grad) for name, shape in shapes.items()}

    student, teacher = features(True), features(False)

    def step() -> None:
        criterion(student, teacher).value.backward()

    return step


def _print(timings: dict[str, Timing], batch_size: int, width: int, rounds: int, device: torch.device) -> None:
    where = f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
    table = Table(title=f"one training step, batch {batch_size}, features {width}-d, {rounds} rounds, {where}")
    for column in ("what", "ms, median", "quartiles", "share of the student's step", "quartiles"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, timing in timings.items():
        share = paired_ratio(timing, timings[STUDENT])
        what = "ResNet-8x4: forward, backward, SGD" if name == STUDENT else f"{name}: forward, backward"
        table.add_row(
            what,
            f"{1e3 * timing.median:.2f}",
            f"{1e3 * timing.low:.2f} .. {1e3 * timing.high:.2f}",
            f"{100 * share.median:.2f} %",
            f"{100 * share.low:.2f} .. {100 * share.high:.2f} %",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
