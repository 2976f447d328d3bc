"""Host-side checks of what a caller passes: each raises a ValueError that says what was needed and what came.

Checks that must look at values run on the CPU only: on an accelerator they would wait for the device at every step,
so there a NaN stays a NaN and reaches the loss.
"""

import logging
import math
from functools import lru_cache

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd.typing import UNLABELLED, Real

logger = logging.getLogger("graphkd")


@lru_cache(maxsize=1024)
def log_once(message: str) -> None:
    """Log a warning the first time this very message is given."""
    logger.warning(message)


def can_look(tensor: Tensor) -> bool:
    """Whether reading the tensor's values costs nothing: on the CPU and not while a graph is traced."""
    return tensor.is_cpu and not torch.compiler.is_compiling()


def positive(name: str, value: Real) -> None:
    """Raise unless the value is a finite number above zero."""
    if not (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")):
        raise ValueError(f"{name} needs a finite number above 0, got {value!r}")


def not_negative(name: str, value: Real) -> None:
    """Raise unless the value is a finite number of at least zero."""
    if not (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")):
        raise ValueError(f"{name} needs a finite number of at least 0, got {value!r}")


def share(name: str, value: Real) -> None:
    """Raise unless the value is a number in [0, 1]."""
    if not (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1):
        raise ValueError(f"{name} needs a number in [0, 1], got {value!r}")


def at_least(name: str, value: int, low: int) -> None:
    """Raise unless the value is an integer not below ``low``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} needs an integer of at least {low}, got {value!r}")


def epoch(epoch: int, epochs: int) -> None:
    """Raise unless the epoch is one of a total, counted from 1."""
    if not 1 <= epoch <= epochs:
        raise ValueError(f"needs an epoch in 1..{epochs}, counted from 1, got {epoch}")


def one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    """Raise unless the value is among the known words."""
    if value not in known:
        raise ValueError(f"{name} needs one of {', '.join(known)}, got {value!r}")


def tensor(**given: object) -> None:
    """Raise unless each is a tensor."""
    for name, x in given.items():
        if not isinstance(x, Tensor):
            raise ValueError(f"{name} needs a tensor, got {type(x).__name__}")


def rows(name: str, x: Tensor) -> None:
    """Raise unless x is a non-empty, finite, floating-point matrix of rows (..., n, d)."""
    tensor(**{name: x})
    floating(name, x)
    if x.dim() < 2:
        raise ValueError(f"{name} needs rows of shape (n, d), got shape {tuple(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"{name} needs at least one row and one column, got shape {tuple(x.shape)}")
    finite(name, x)


def maps(name: str, x: Tensor) -> None:
    """Raise unless x holds non-empty, finite, floating-point feature maps (n, c, h, w)."""
    tensor(**{name: x})
    floating(name, x)
    if x.dim() != 4 or x.numel() == 0:
        raise ValueError(f"{name} needs feature maps (n, c, h, w), got shape {tuple(x.shape)}")
    finite(name, x)


def nodes(name: str, graph: Data) -> Tensor:
    """A graph's node attributes, checked as :func:`rows`."""
    if graph.x is None:
        raise ValueError(f"{name} needs a graph with attributes x, got {graph}")
    rows(name, graph.x)
    return graph.x


def floating(name: str, x: Tensor) -> None:
    """Raise unless x holds floating-point numbers."""
    if not x.is_floating_point():
        raise ValueError(f"{name} needs floating-point values, got {x.dtype}")


def finite(name: str, x: Tensor) -> None:
    """Raise if x, on the CPU, has a NaN or an infinite entry."""
    # A sum is the cheapest look at all entries; finite entries may overflow it, so it only raises the suspicion.
    if not can_look(x) or math.isfinite(x.detach().sum().item()):
        return
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise ValueError(
            f"{name} needs finite values, got {bad} NaN or infinite of {x.numel()} (shape {tuple(x.shape)})"
        )


def in_range(value: Tensor, **inputs: Tensor) -> None:
    """Raise if a result, on the CPU, left the range of its dtype, with the largest of each input."""
    # As in finite, a sum raises the suspicion.
    if not can_look(value) or math.isfinite(value.detach().sum().item()):
        return
    if not bool(torch.isfinite(value).all()):
        came = ", ".join(f"{name} up to {float(x.detach().abs().max()):.3g}" for name, x in inputs.items())
        raise ValueError(f"needs inputs of which the value stays in the range of {value.dtype}, got {came}")


def class_labels(labels: Tensor, logits: Tensor) -> None:
    """Raise unless labels are one class of the logits (n c) per sample, or -100."""
    tensor(labels=labels)
    if labels.dtype not in (torch.int64, torch.int32) or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"labels need one integer per sample, {tuple(logits.shape[:1])}, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )
    if can_look(labels):
        wrong = labels[(labels != UNLABELLED) & ((labels < 0) | (labels >= logits.shape[-1]))]
        if len(wrong):
            raise ValueError(
                f"labels need numbers from 0 to {logits.shape[-1] - 1}, or {UNLABELLED} for none, got {int(wrong[0])}"
            )


def same_device(**tensors: Tensor | None) -> None:
    """Raise unless all that is given, but for None, are tensors on one device."""
    given = {name: x for name, x in tensors.items() if x is not None}
    tensor(**given)
    devices = {name: x.device for name, x in given.items()}
    if len(set(devices.values())) > 1:
        came = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"needs all tensors on one device, got {came}")
