"""What transport adds to a training step: three solvers, forward and backward, beside a ResNet-20 on 32 x 32 images."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from graphkd.benchmark.compare import Effort, Row
from graphkd.benchmark.problems import class_problem
from graphkd.benchmark.shared import shared
from graphkd.benchmark.timing import paired_ratio, time_together
from graphkd.measures import euclidean, sqeuclidean
from graphkd.models import CifarResNet
from graphkd.ot.gromov import fused_gromov
from graphkd.ot.problem import Relative
from graphkd.ot.sinkhorn import sinkhorn

BATCHES = (64, 128, 256)
CLASSES = 100
WIDTH = 64
STEP = "ResNet-20, a training step"
LINEAR, CLASS_WISE = "Sinkhorn, 20 sweeps", "WKD-L, 10 sweeps"
SOLVED: dict[str, dict[str, Any]] = {
    "auto": {},
    "mirror, 20 x 5": {"solver": "mirror", "num_iters": 20, "num_inner": 5},
}
"""Two ways of fused Gromov-Wasserstein: what is taken by default, and work that does not depend on the data."""


def step_section(effort: Effort, sizes: Sequence[int] = BATCHES) -> Iterator[list[Row]]:
    """The solvers' forward and backward as a share of the student's step, at several batch sizes."""
    for batch in sizes:
        yield _rows(batch, effort)


def _rows(batch: int, effort: Effort) -> list[Row]:
    parts = _solvers(batch)

    def together(*names: str) -> Callable[[], None]:
        return lambda: torch.stack([parts[name]() for name in names]).sum().backward()

    functions: dict[str, Callable[[], object]] = {STEP: _student_step(batch)}
    functions |= {f"all with FGW, {how}": together(LINEAR, f"FGW, {how}", CLASS_WISE) for how in SOLVED}
    functions |= {name: together(name) for name in parts}
    timings = time_together(functions, effort.rounds, torch.device("cpu"), effort.seconds)
    return [
        Row(f"batch {batch}", "graphkd", name, both=timing, both_ratio=paired_ratio(timing, timings[STEP]))
        for name, timing in timings.items()
    ]


def _student_step(batch: int) -> Callable[[], object]:
    student = CifarResNet(3, (16, 16, 32, 64), num_classes=CLASSES)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, CLASSES, (batch,))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(student(images), labels).backward()
        optimizer.step()

    return step


def _solvers(batch: int) -> dict[str, Callable[[], Tensor]]:
    """From a batch of both networks' features and logits to the value of each solver, costs and relations included."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(batch, WIDTH, generator=generator) for _ in range(2))
    x.requires_grad_()
    cost, student, teacher, labels = class_problem(batch, CLASSES)
    student.requires_grad_()

    def value(transport_value: Tensor | None) -> Tensor:
        assert transport_value is not None
        return transport_value

    def linear() -> Tensor:
        return value(sinkhorn(sqeuclidean(x, y), epsilon=Relative(0.5), num_iters=20).value)

    def gromov(how: str) -> Tensor:
        return value(fused_gromov(sqeuclidean(x, y), euclidean(x, x), euclidean(y, y), **SOLVED[how]).value)

    def classes() -> Tensor:
        return shared(cost, student, teacher, labels, gradient="unroll").mean()

    return {LINEAR: linear, **{f"FGW, {how}": partial(gromov, how) for how in SOLVED}, CLASS_WISE: classes}
