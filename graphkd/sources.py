"""Sources: where in a model's forward a tensor is found, written as text, and how it is caught there."""

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Source(NamedTuple):
    """One place in a model.

    Attributes:
        text: As it was written.
        path: Of a module, as in ``model.named_modules()``; empty for the model itself.
        end: ``input`` or ``output``.
        keys: Which part of that: keys, attributes or positions, one inside the other.
    """

    text: str
    path: str
    end: str
    keys: tuple[str, ...]


class Derived(ABC):
    """A feature that is made of what one or several sources give, such as those of :mod:`graphkd.adaptors`.

    >>> class Sum(Derived):
    ...     sources = ("0", "1:input")
    ...     def __call__(self, *found: Tensor) -> Tensor:
    ...         return found[0] + found[1]
    >>> from graphkd.features import FeatureExtractor
    >>> import torch
    >>> FeatureExtractor(nn.Sequential(nn.ReLU(), nn.Tanh()), {"feat": Sum()})(torch.ones(1)).features
    {'feat': tensor([2.])}
    """

    @property
    @abstractmethod
    def sources(self) -> tuple[str, ...]:
        """What it is made of, written as any source of a :class:`~graphkd.features.FeatureExtractor`."""

    @abstractmethod
    def __call__(self, *found: Tensor) -> Tensor:
        """The feature, of what the sources gave, in their order."""


class Tap:
    """Catches what a source gives while a model runs, and how often it had been overwritten in place by then."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.caught: list[tuple[Any, int]] = []

    def attach(self, model: nn.Module) -> RemovableHandle:
        """Listen to the source's module, until the handle is removed."""
        module = model.get_submodule(self.source.path)
        if self.source.end == "input":
            return module.register_forward_pre_hook(self.given, with_kwargs=True)
        return module.register_forward_hook(self.returned)

    def given(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The inputs of the source's module."""
        first, *rest = self.source.keys or ("",)
        value = _input(self.source.text, module, args, kwargs, first)
        self._catch(part(self.source.text, value, tuple(rest)))

    def returned(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """The output of the source's module."""
        self._catch(part(self.source.text, output, self.source.keys))

    def tensor(self, name: str) -> Tensor:
        """What was caught, as the feature of a name.

        Raises:
            ValueError: Unless the module ran once, gave a tensor, and nothing overwrote it in place.
        """
        text = self.source.text
        if len(self.caught) != 1:
            raise ValueError(
                f"feature {name!r} needs a module that runs once per forward, got {len(self.caught)} runs of {text!r}"
            )
        value, version = self.caught[0]
        if not isinstance(value, Tensor):
            inside = "".join(f".{key}" for key in (*self.source.keys, *keys_of(value)[:1]))
            such = f", or a part such as '{self.source.path}:{self.source.end}{inside}'" if keys_of(value) else ""
            raise ValueError(
                f"feature {name!r} needs a tensor, got {type(value).__name__} from {text!r}: name a module inside it"
                f"{such}, or a function of the model's output"
            )
        if version_of(value) != version:
            raise ValueError(
                f"feature {name!r}: what {text!r} gave was overwritten in place by a later module (an activation with "
                "inplace=True); name that module, or set inplace=False"
            )
        return value

    def _catch(self, value: Any) -> None:
        self.caught.append((value, version_of(value)))


def run(
    model: nn.Module, sources: Iterable[Source], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, dict[str, Tap]]:
    """The model's output, and what each source gave, by its text; hooks are in place only while the model runs.

    >>> model = nn.Sequential(nn.Identity(), nn.Tanh())
    >>> import torch
    >>> _, taps = run(model, [parse(model, "1:input")], (torch.ones(2),), {})
    >>> taps["1:input"].tensor("feat")
    tensor([1., 1.])
    """
    taps = {source.text: Tap(source) for source in sources}
    # The model itself needs no hook, which it may not run where it is compiled.
    own = [tap for tap in taps.values() if not tap.source.path]
    handles: list[RemovableHandle] = []
    try:
        for tap in own:
            if tap.source.end == "input":
                tap.given(model, args, kwargs)
        for tap in taps.values():
            if tap.source.path:
                handles.append(tap.attach(model))
        output = model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    for tap in own:
        if tap.source.end == "output":
            tap.returned(model, args, output)
    return output, taps


def parse(model: nn.Module, text: str) -> Source:
    """A source of a model.

    Raises:
        ValueError: For a path that the model does not have, or of a module that runs no hooks.

    >>> parse(nn.Sequential(nn.Tanh()), "0:output.1.hidden")
    Source(text='0:output.1.hidden', path='0', end='output', keys=('1', 'hidden'))
    """
    path, colon, rest = text.partition(":")
    end, *keys = rest.split(".") if colon else ["output"]
    if end not in ("input", "output") or "" in keys:
        raise ValueError(f"needs ':input' or ':output' after a module path, got {text!r}; behind that parts, as '.key'")
    if path or not colon:
        _check_path(model, path)
    return Source(text, path, end, tuple(keys))


def part(text: str, value: Any, keys: Sequence[str]) -> Any:
    """What is found in a value under keys, one inside the other: of mappings, sequences or objects.

    Raises:
        ValueError: For a key that is not there, with those that are.

    >>> part("text", {"pair": (1, 2)}, ["pair", "-1"])
    2
    """
    for key in keys:
        at = int(key) if key.lstrip("-").isdigit() else None
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif at is not None and isinstance(value, Sequence) and -len(value) <= at < len(value):
            value = value[at]
        elif at is None and not isinstance(value, Tensor) and hasattr(value, key):
            value = getattr(value, key)
        else:
            there = ", ".join(keys_of(value)) or "none"
            raise ValueError(f"needs a part named {key!r} for {text!r}, got {type(value).__name__} with parts {there}")
    return value


def keys_of(value: Any) -> list[str]:
    """The names of a value's parts.

    >>> keys_of({"a": 1}), keys_of((5, 6))
    (['a'], ['0', '1'])
    """
    if isinstance(value, Mapping):
        return [str(key) for key in value]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(getattr(value, "_fields"))  # noqa: B009
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [str(i) for i in range(len(value))]
    return [] if isinstance(value, Tensor) else list(getattr(value, "__dict__", {}))


def version_of(value: Any) -> int:
    """How often a tensor was overwritten in place.

    >>> import torch
    >>> version_of(torch.zeros(1).add_(1)), version_of("no tensor")
    (1, 0)
    """
    return value._version if isinstance(value, Tensor) and not value.is_inference() else 0


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile made it, or was told to run it.

    >>> is_compiled(nn.Tanh())
    False
    """
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def _input(text: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], key: str) -> Any:
    """One of a call's inputs: the first, or by its position or the name that ``forward`` has for it."""
    if key in kwargs:
        return kwargs[key]
    if not key or key.lstrip("-").isdigit():
        return part(text, (*args, *kwargs.values()), [key or "0"])
    # What is given by position has its name in the signature.
    named = inspect.signature(getattr(module, "_orig_mod", module).forward).bind(*args, **kwargs).arguments
    return part(text, named, [key])


def _check_path(model: nn.Module, path: str) -> None:
    known = dict(model.named_modules(remove_duplicate=False))
    parts = path.split(".")
    for ancestor in (".".join(parts[:i]) for i in range(len(parts))):
        if ancestor in known and is_compiled(known[ancestor]):
            raise ValueError(
                f"cannot see {path!r}: {ancestor or 'the model'} was compiled by torch.compile, and a compiled module "
                "runs its parts without hooks. Give the module from before compiling, or let it return its features "
                "and name a function of the output"
            )
    if path not in known or path == "":
        names = [name for name in known if name]
        near = difflib.get_close_matches(path, names, n=5, cutoff=0.3) or names[:10]
        raise ValueError(
            f"needs the path of a module of {type(model).__name__}, got {path!r}; near names: {', '.join(near)}. "
            "`graphkd features` lists all, and suggests some"
        )
