"""One run of a model that notes what each module is given and gives."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch_geometric.nn import MessagePassing

from graphkd.sources import is_compiled, version_of


@dataclass(eq=False)
class Visit:
    """A module that ran: what it was given first, what it gave, and how often either had been overwritten by then.

    Attributes:
        path: Of the module.
        module: The module.
        given: Its first input, with its version.
        gave: Its output, with its version.
        runs: How often it ran.
        finished: When it did: its place among all.
    """

    path: str
    module: nn.Module
    given: tuple[Any, int]
    gave: tuple[Any, int] = (None, 0)
    runs: int = 1
    finished: int = -1

    @property
    def output(self) -> Tensor | None:
        """What it gave, where that can be a feature."""
        return _sound(self.gave) if self.runs == 1 else None

    @property
    def input(self) -> Tensor | None:
        """What it was given, where that can be a feature."""
        return _sound(self.given) if self.runs == 1 else None

    @property
    def flaw(self) -> str:
        """Why its output cannot be a feature."""
        if self.runs > 1:
            return f"runs {self.runs} times"
        return "overwritten in place" if isinstance(self.gave[0], Tensor) and self.output is None else ""

    @property
    def mixes(self) -> bool:
        """Whether it is a layer with a matrix of weights: linear, a convolution, or message passing."""
        if isinstance(self.module, nn.Embedding | nn.EmbeddingBag):
            return False
        whole = isinstance(self.module, MessagePassing) or not any(True for _ in self.module.children())
        return whole and any(parameter.dim() > 1 for parameter in self.module.parameters())


def visited(model: nn.Module, inputs: Any) -> tuple[Any, list[Visit]]:
    """A model's output, and its modules in the order in which they began; the model is left as it is.

    Raises:
        ValueError: For a compiled model, and one that has not seen its first batch.

    >>> output, visits = visited(nn.Sequential(nn.Tanh(), nn.Linear(3, 2)), torch.zeros(4, 3))
    >>> [(visit.path, visit.mixes) for visit in visits]
    [('0', False), ('1', True)]
    """
    if any(map(is_compiled, model.modules())):
        raise ValueError("an outline needs the model from before torch.compile: a compiled one runs without hooks")
    if any(map(is_lazy, model.parameters())):
        raise ValueError("an outline needs a model that has seen its first batch, got parameters without a shape")
    args, kwargs = arguments(inputs)
    visits: dict[str, Visit] = {}
    done = iter(range(2**62))
    handles = []
    for path, module in model.named_modules():
        if path:
            began, ended = _hooks(path, visits, done)
            handles.append(module.register_forward_pre_hook(began, with_kwargs=True))
            handles.append(module.register_forward_hook(ended))
    try:
        with as_it_is(model):
            output = model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return output, list(visits.values())


@contextmanager
def as_it_is(model: nn.Module) -> Iterator[None]:
    """Eval mode, without gradient; afterwards the modes are what they were, and so are random numbers."""
    modes = [(module, module.training) for module in model.modules()]
    devices = sorted({parameter.device.index or 0 for parameter in model.parameters() if parameter.is_cuda})
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            model.eval()
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments, of what a distiller takes as inputs.

    >>> arguments([1, 2]), arguments({"x": 1})
    (((1, 2), {}), ((), {'x': 1}))
    """
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, Sequence) and not isinstance(inputs, str):
        return tuple(inputs), {}
    return (inputs,), {}


def _hooks(path: str, visits: dict[str, Visit], done: Iterator[int]) -> tuple[Any, Any]:
    def began(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        first = next(iter((*args, *kwargs.values())), None)
        if path in visits:
            visits[path].runs += 1
        else:
            visits[path] = Visit(path, module, (first, version_of(first)))

    def ended(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        visits[path].gave = (output, version_of(output))
        visits[path].finished = next(done)

    return began, ended


def _sound(seen: tuple[Any, int]) -> Tensor | None:
    value, version = seen
    usable = isinstance(value, Tensor) and value.is_floating_point() and version_of(value) == version
    return value if usable else None
