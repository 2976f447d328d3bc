"""A student without graphkd, and without PyTorch if one likes: as ONNX, or as PyTorch's own exported program."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphkd.training.forms import FORMS, Student, load
from graphkd.training.saved import saved_data, saved_student


class Exported(NamedTuple):
    """A file that :func:`export_student` wrote.

    Attributes:
        path: Where it is.
        parameters: Of the student.
        difference: The largest difference between the file's logits and the student's, over a batch of another size
            than the one that it was exported with.
    """

    path: Path
    parameters: int
    difference: float


def export_student(run: str, out: str | None = None) -> Exported:
    """Write the student of a run in a form that needs nothing of ours, for batches of any size, and check it.

    Args:
        run: The run's folder.
        out: The file: ``.onnx`` for ONNX Runtime and others (``pip install "graphkd[export]"``), ``.pt2`` for
            ``torch.export.load``. ``student.onnx`` in the folder if omitted.

    Raises:
        ValueError: For a folder without a finished run, another suffix, and packages that are missing.
    """
    folder = Path(run)
    path = folder / "student.onnx" if out is None else Path(out)
    if path.suffix not in FORMS:
        raise ValueError(f"needs a file that ends in {' or '.join(FORMS)}, got {path}")
    student = saved_student(folder)
    data = saved_data(folder)
    data.prepare_data()
    data.setup("test")
    inputs = next(iter(data.test_dataloader()))[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part.{path.name}")
    write(student, _rows(inputs, 2), part)
    there, here = load(part)(_rows(inputs, 3)), _logits(student, _rows(inputs, 3))
    os.replace(part, path)
    return Exported(path, sum(p.numel() for p in student.parameters()), float((there - here).abs().max()))


def write(student: nn.Module, inputs: Any, path: Path) -> None:
    """Export a model in eval mode, its batch axis free.

    Args:
        student: The model.
        inputs: What it takes, two samples: one tensor, a sequence of positional or a mapping of keyword arguments.
        path: The file, ``.onnx`` or ``.pt2``.
    """
    batch = torch.export.Dim("batch")
    named = dict(inputs) if isinstance(inputs, Mapping) else {}
    given = () if named else tuple(inputs) if isinstance(inputs, Sequence) else (inputs,)
    shapes: Any = {name: {0: batch} for name in named} if named else tuple({0: batch} for _ in given)
    with _quietly(), torch.no_grad():
        if path.suffix == ".pt2":
            torch.export.save(torch.export.export(student, given, named, dynamic_shapes=shapes), path)
        else:
            _to_onnx(student, given, named, shapes, path)


def _to_onnx(student: nn.Module, given: tuple[Any, ...], named: dict[str, Any], shapes: Any, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f'ONNX needs pip install "graphkd[export]", got none here: {error}') from error
    torch.onnx.export(
        student, given, str(path), kwargs=named, dynamic_shapes=shapes, dynamo=True, external_data=False, verbose=False
    )


def _logits(student: nn.Module, inputs: Any) -> Tensor:
    with torch.no_grad():
        return Student(student)(inputs)


def _rows(inputs: Any, n: int) -> Any:
    """The first samples of a batch."""
    if isinstance(inputs, Mapping):
        return {name: x[:n] for name, x in inputs.items()}
    if isinstance(inputs, Sequence):
        return [x[:n] for x in inputs]
    return inputs[:n]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporters' notes on themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)
