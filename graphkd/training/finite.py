"""Stop a run whose loss is no number, and keep what is needed to see why."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from graphkd import kept, parallel
from graphkd.features import FeatureExtractor, model_logits
from graphkd.weights import TOTAL

WEIGHTED = "weighted/"


class _Seen(NamedTuple):
    """A step: whether its loss is finite, when that has reached the host, and what it was of."""

    finite: Tensor
    arrived: "torch.cuda.Event | None"
    batch: Any
    logs: dict[str, Tensor]
    epoch: int
    step: int


class FiniteLosses:
    """Looks at every step's loss without making an accelerator wait: at one step's while the next one runs.

    There the step after the one that failed may have been taken, but no checkpoint has been written since. On the CPU
    a step is looked at before its gradient is taken.

    Args:
        folder: Where the batch of the step is kept, as ``not_finite_step000123.pt``, for ``torch.load``: ``inputs``,
            ``labels`` and ``index``, ``logs``, ``epoch`` and ``step``, and which numbers are ``not_finite``. None keeps
            nothing.

    >>> losses = FiniteLosses()
    >>> losses.watch(torch.tensor(0.5), {}, [], epoch=1, step=0)
    >>> losses.watch(torch.tensor(torch.nan), {"kd": torch.tensor(torch.nan)}, [], epoch=1, step=1)
    Traceback (most recent call last):
    ValueError: needs a finite loss, got nan at step 1 in epoch 1: kd is nan
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._waiting: _Seen | None = None

    def watch(self, loss: Tensor, logs: dict[str, Tensor], batch: Any, *, epoch: int, step: int) -> None:
        """Look at the step before, and remember this one.

        Args:
            loss: What is minimised.
            logs: The step's numbers, as :class:`~graphkd.distiller.Step` has them.
            batch: Inputs, labels, and perhaps the index.
            epoch: Counted from 1.
            step: Of the optimiser, counted from 0.

        Raises:
            ValueError: If a loss is not finite, with what of it is not.
        """
        finite = torch.isfinite(loss.detach())
        arrived = None
        if finite.is_cuda:
            finite = torch.empty(finite.shape, dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        before, self._waiting = self._waiting, _Seen(finite, arrived, batch, logs, epoch, step)
        if before is not None:
            self._look(before)
        if loss.is_cpu:
            self.check()

    def check(self) -> None:
        """Look at the last step, whatever it takes; call it before the weights are kept.

        Raises:
            ValueError: If its loss is not finite.
        """
        if self._waiting is not None:
            self._look(self._waiting)
            self._waiting = None

    def explain(self, error: ValueError, student: nn.Module, batch: Any, *, epoch: int, step: int) -> None:
        """Say where it is that numbers are not finite, if that is why a step was refused.

        Criteria refuse what is not finite on the CPU, before there is a loss. Most often it is the weights, after a
        step with a gradient that was not.

        Raises:
            ValueError: If weights, inputs or the student's logits are not finite.
        """
        found = _not_finite(student, batch)
        if found:
            path = self._keep(batch, {}, found, epoch, step)
            raise ValueError(
                f"needs a finite loss, got none at step {step} in epoch {epoch}: {found} not finite ({error}){path}"
            ) from error

    def _look(self, seen: _Seen) -> None:
        if seen.arrived is not None:
            seen.arrived.synchronize()
        if bool(seen.finite):
            return
        values = {name: float(value) for name, value in seen.logs.items()}
        bad = [name for name, value in values.items() if not torch.isfinite(torch.tensor(value))]
        # A term says more than what it adds to the loss, which in turn says more than the loss.
        named = [name for name in bad if name != TOTAL and not name.startswith(WEIGHTED)]
        named = named or [name for name in bad if name != TOTAL] or [TOTAL]
        path = self._keep(seen.batch, values, ", ".join(named), seen.epoch, seen.step)
        said = ", ".join(f"{name} is {values[name]}" if name in values else name for name in named)
        total = values.get(TOTAL, float("nan"))
        raise ValueError(f"needs a finite loss, got {total} at step {seen.step} in epoch {seen.epoch}: {said}{path}")

    def _keep(self, batch: Any, logs: Mapping[str, float], named: str, epoch: int, step: int) -> str:
        """Write what the step was of, and say where."""
        if self.folder is None:
            return ""
        process = f"_process{parallel.rank()}" if parallel.world() > 1 else ""
        path = self.folder / f"not_finite_step{step:06d}{process}.pt"
        parts = dict(zip(("inputs", "labels", "index"), _plain(batch), strict=False))
        kept.write(path, {**parts, "logs": dict(logs), "not_finite": named, "epoch": epoch, "step": step})
        return f"; its batch is kept in {path}, and the last checkpoint is from before"


def check_weights(modules: Mapping[str, nn.Module], step: int) -> None:
    """Look at all that is learned, before it is kept.

    Raises:
        ValueError: If something is not finite, with its names.

    >>> check_weights({"student": nn.Linear(2, 2)}, step=3)
    """
    named = {f"{name}.{key}": each for name, module in modules.items() for key, each in module.named_parameters()}
    if named and not bool(torch.stack([torch.isfinite(each).all() for each in named.values()]).all()):
        bad = [name for name, each in named.items() if not bool(torch.isfinite(each).all())]
        raise ValueError(
            f"needs finite weights to keep, got {len(bad)} parameters that are not after {step} steps, such as "
            f"{bad[0]}: a gradient was not finite; the last checkpoint is from before"
        )


def _not_finite(student: nn.Module, batch: Any) -> str:
    """What of a step is not finite before there is a loss; empty if that is not to be seen."""
    for name, parameter in student.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"the student's weights ({name}) are"
    inputs = batch[0]
    if not all(bool(torch.isfinite(each).all()) for each in tree_leaves(inputs) if isinstance(each, Tensor)):
        return "the inputs are"
    with torch.no_grad():
        logits = model_logits(FeatureExtractor(student, {}).run(inputs).output)
    return "" if bool(torch.isfinite(logits).all()) else "the student's logits are"


def _plain(value: Any) -> Any:
    """Tensors on the CPU and plain values, which can be read without running what a file says."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str | bytes) else repr(value)
