"""One class cost, many pairs of class probabilities: Wasserstein distillation of logits (WKD-L).

Lv, Yang, Li, "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation", NeurIPS 2024,
arXiv:2412.08139. The label's class is left out of each sample's two distributions and of its cost. Published code makes
a smaller cost per sample; zero mass at the label's class is the same problem with one cost for all.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from graphkd.benchmark.compare import Effort, Row, attempt, compare
from graphkd.benchmark.peers import CannotRun, InTorch, Look, Peer, Run
from graphkd.benchmark.problems import class_problem
from graphkd.ot.shared import shared_sinkhorn
from graphkd.ot.sinkhorn import Gradient

CASES = ((64, 100), (256, 100), (512, 100), (16, 1000), (64, 1000))
"""Samples and classes."""
MEMORY_CASE = (256, 1000)
EPSILON = 0.05
SWEEPS = 10

STATUS = Path("/proc/self/status")

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""From a class cost, both networks' logits and labels to a loss per sample."""


class JudgedInDouble(InTorch):
    """A solver that is timed on its inputs, and looked at on the same in float64."""

    def on(self, inputs: Sequence[Tensor]) -> Run:
        """The solver on these inputs."""
        return super().on(inputs)._replace(look=lambda: InTorch.on(self, [x.double() for x in inputs]).look())


def shared_section(effort: Effort, sizes: Sequence[int] | None = None) -> Iterator[list[Row]]:
    """The loss <P, M> and its gradient to the student's logits, at several numbers of samples and classes.

    What is timed is float32; the errors of value and gradient are those of the same call in float64, against sample by
    sample in float64. Then the peak memory of one step, unless sizes are given: numbers of samples, of 100 classes.
    """
    for samples, classes in CASES if sizes is None else [(samples, 100) for samples in sizes]:
        yield _rows(samples, classes, effort)
    if sizes is None:
        yield memory_rows(*MEMORY_CASE)


def _rows(samples: int, classes: int, effort: Effort) -> list[Row]:
    cost, student, teacher, labels = class_problem(samples, classes)
    expected, slope = _reference(cost, student, teacher, labels)

    def judge(look: Look) -> dict[str, float]:
        (gradient,) = look.gradients
        assert gradient is not None
        return {
            "value error": abs(look.value / expected - 1),
            "gradient error": float((gradient - slope).norm() / slope.norm()),
        }

    def load(loss: Loss) -> InTorch:
        return JudgedInDouble(lambda logits: (loss(cost.to(logits), logits, teacher.to(logits), labels), lambda: None))

    return compare(f"{samples} x {classes}", _peers(load), [student], effort, judge)


def _peers(load: Callable[[Loss], InTorch]) -> list[Peer]:
    """Those who compute the loss; the first is graphkd."""
    other = "graphkd's envelope is of another value: what entropic transport minimises"
    unrolled, envelope, published, batch = (partial(load, loss) for loss in LOSSES.values())
    return [
        Peer("graphkd", "shared_sinkhorn, unroll", unrolled),
        Peer("graphkd", "shared_sinkhorn, envelope", envelope, note=other, same_problem=False),
        Peer("plain torch", "a cost per sample", published),
        Peer("POT", "solve_batch, a cost per sample", batch, "POT"),
    ]


def _reference(cost: Tensor, student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Value and gradient in float64, sample by sample."""
    value, gradients = 0.0, []
    for logits, target, label in zip(student.double(), teacher.double(), labels, strict=True):
        logits = logits.unsqueeze(0).requires_grad_()
        loss = per_sample(cost.double(), logits, target.unsqueeze(0), label.unsqueeze(0))
        gradients.append(torch.autograd.grad(loss.sum(), logits)[0])
        value += float(loss.detach())
    return value, torch.cat(gradients)


def per_sample(cost: Tensor, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """As published code has it: a cost of one class less for each sample, and autograd through all sweeps."""
    small, a, b = _without_label(cost, student, teacher, labels)
    kernel = (-small / EPSILON).exp()
    u, v = torch.ones_like(a).unsqueeze(-1), torch.ones_like(b).unsqueeze(-1)
    for _ in range(SWEEPS):
        u = a.unsqueeze(-1) / (kernel @ v)
        v = b.unsqueeze(-1) / (kernel.mT @ u)
    plan = u * kernel * v.mT
    return (plan * small).sum((-2, -1))


def pot_per_sample(cost: Tensor, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """The same with POT's batch solver, in the domain that is its fastest."""
    import ot

    call: Any = ot.solve_batch
    small, a, b = _without_label(cost, student, teacher, labels)
    found = call(small, EPSILON, a, b, max_iter=SWEEPS, tol=0.0, method="sinkhorn", grad="autodiff")
    return found.value_linear


def shared(cost: Tensor, student: Tensor, teacher: Tensor, labels: Tensor, gradient: Gradient) -> Tensor:
    """With graphkd: one cost for all samples, and no mass at the label's class."""
    left_out = F.one_hot(labels, student.shape[1]) == 1
    a, b = (logits.masked_fill(left_out, -torch.inf).softmax(-1) for logits in (student, teacher))
    # Published code starts from scalings of one, and ten sweeps remember their start.
    start = torch.where(left_out, 0, -EPSILON * b.masked_fill(left_out, 1).log())
    found = shared_sinkhorn(
        cost, a, b, epsilon=EPSILON, num_iters=SWEEPS, gradient=gradient, warm_start=(torch.zeros_like(a), start)
    )
    loss = found.linear if gradient == "unroll" else found.value
    assert loss is not None
    return loss


def _without_label(cost: Tensor, student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    samples, classes = student.shape
    kept = F.one_hot(labels, classes) == 0
    pairs = kept.unsqueeze(-1) & kept.unsqueeze(-2)
    small = cost.expand(samples, classes, classes)[pairs].view(samples, classes - 1, classes - 1)
    a, b = (logits[kept].view(samples, classes - 1).softmax(-1) for logits in (student, teacher))
    return small, a, b


LOSSES: dict[str, Loss] = {
    "unroll": partial(shared, gradient="unroll"),
    "envelope": partial(shared, gradient="envelope"),
    "published": per_sample,
    "POT": pot_per_sample,
}


def memory_rows(samples: int, classes: int) -> list[Row]:
    """Peak memory of each loss; a row whose timings are left out."""
    rows: list[Row] = []
    for key, peer in zip(LOSSES, _peers(lambda loss: InTorch(lambda: (torch.zeros(()), lambda: None))), strict=True):
        row = Row(f"{samples} x {classes}, memory", peer.library, peer.call, same_problem=peer.same_problem)
        row.failed = attempt(
            peer, lambda solver, row=row, key=key: row.accuracy.update({"peak MB": peak_memory(key, samples, classes)})
        )
        rows.append(row)
    return rows


def peak_memory(loss: str, samples: int, classes: int) -> float:
    """By how many MB a step of one of the losses, forward and backward, raises the peak memory of a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_raised_peak, loss, samples, classes).result()


def _raised_peak(loss: str, samples: int, classes: int) -> float:
    if not STATUS.exists():
        raise CannotRun(f"peak memory is read from {STATUS}, which this system lacks")
    torch.set_num_threads(1)

    def step(samples: int, classes: int) -> None:
        cost, student, teacher, labels = class_problem(samples, classes)
        LOSSES[loss](cost, student.requires_grad_(), teacher, labels).sum().backward()

    step(2, 10)  # what the first call loads is not the step's
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _kilobytes("VmRSS")
    step(samples, classes)
    return (_kilobytes("VmHWM") - before) / 1024


def _kilobytes(key: str) -> int:
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:")]
    return int(line.split()[1])
