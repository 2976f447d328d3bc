"""The forms in which a student is run: as a module, as ONNX, as PyTorch's exported program."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphkd.features import FeatureExtractor, model_logits

Predict = Callable[[Any], Tensor]
"""From a loader's inputs to logits (n c)."""


class Student:
    """A module, on inputs as a loader gives them.

    >>> Student(nn.Linear(3, 2))(torch.zeros(4, 3)).shape
    torch.Size([4, 2])
    """

    def __init__(self, model: nn.Module) -> None:
        self._run = FeatureExtractor(model, {}).run

    @torch.no_grad()
    def __call__(self, inputs: Any) -> Tensor:
        """The logits."""
        return model_logits(self._run(inputs).output)


class Onnx:
    """A file for ONNX Runtime, on the CPU.

    Raises:
        ValueError: Where ONNX Runtime is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(f'{path} needs pip install "graphkd[export]", got none here: {error}') from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = [each.name for each in self._session.get_inputs()]
        outputs = [each.name for each in self._session.get_outputs()]
        self._output = "logits" if "logits" in outputs else outputs[0]

    def __call__(self, inputs: Any) -> Tensor:
        """The logits."""
        if isinstance(inputs, Mapping):
            named = {name: inputs[name] for name in self._names}
        else:
            given = inputs if isinstance(inputs, Sequence) else [inputs]
            named = dict(zip(self._names, given, strict=True))
        (logits,) = self._session.run([self._output], {name: x.numpy() for name, x in named.items()})
        return torch.from_numpy(logits)


def _program(path: Path) -> Predict:
    """PyTorch's exported program."""
    if not zipfile.is_zipfile(path):  # PyTorch would log its own attempts to read it
        raise ValueError(f"{path} needs to be an exported student, got no archive")
    return Student(torch.export.load(path).module())


FORMS: dict[str, Callable[[Path], Predict]] = {".onnx": Onnx, ".pt2": _program}
"""How a file is read, by its suffix."""


def load(path: Path) -> Predict:
    """A student from a file that :func:`graphkd.training.export.export_student` wrote.

    Raises:
        ValueError: For a file that is not there, of another suffix, or that cannot be read.
    """
    if path.suffix not in FORMS:
        raise ValueError(f"needs a student's file that ends in {' or '.join(FORMS)}, got {path}")
    if not path.is_file():
        raise ValueError(f"needs a student's file, got {path}, which is not there")
    try:
        return FORMS[path.suffix](path)
    except ValueError:
        raise
    except Exception as error:  # ONNX Runtime has a dozen exceptions of its own
        raise ValueError(f"{path} needs to be an exported student, got what cannot be read: {error}") from error
