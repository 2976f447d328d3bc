"""Features: run a model, and keep the named activations that a criterion needs, without editing the model."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphkd import checks
from graphkd.typing import UNLABELLED, Features

Adaptor = Callable[[Any], Tensor]
"""A function of the model's output that returns one feature."""

Spec = Mapping[str, str | Adaptor] | Callable[[Any], Features]
"""Which features: names to module paths or adaptors, or one function of the model's output that returns them all."""

MODEL_OUTPUT = "logits"
"""The path that stands for the model's own output."""


class Extraction(NamedTuple):
    """What a :class:`FeatureExtractor` returns."""

    output: Any
    features: dict[str, Tensor]


class FeatureExtractor:
    """Run a model and return its output with named activations.

    Hooks are in place only while the model runs, so nothing of us stays on it: it can be copied, pickled, exported and
    used elsewhere, and no activation outlives the call that made it.

    Args:
        model: Any module, left as it is.
        spec: Names to where each feature is found:

            - ``"layer3.0"``: the output of the module at that dotted path (see ``model.named_modules()``);
            - ``"fc:input"``: the first positional input of a module; ``"fc:output"`` is the same as ``"fc"``;
            - ``"logits"``: the model's own output (or its ``.logits``);
            - a function of the model's output, for models that return their features.

            Or one function of the model's output that returns a mapping of all features.

    Raises:
        ValueError: At construction for a path that the model does not have, with near names; for a path inside a
            module compiled by ``torch.compile``, whose parts run no hooks. At the call for a module that did not run,
            ran several times, or whose output was overwritten in place, and for what is no tensor.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> extract = FeatureExtractor(model, {"feat": "2:input", "logits": "logits"})
    >>> output, features = extract(torch.randn(5, 3))
    >>> {name: tuple(x.shape) for name, x in features.items()}
    {'feat': (5, 4), 'logits': (5, 2)}
    """

    def __init__(self, model: nn.Module, spec: Spec) -> None:
        self.model = model
        self.spec = spec if callable(spec) else dict(spec)
        self._taps: dict[str, tuple[str, str]] = {}
        if callable(spec):
            return
        for name, source in spec.items():
            if isinstance(source, str) and source != MODEL_OUTPUT:
                self._taps[name] = _parse(model, source)
            elif not isinstance(source, str) and not callable(source):
                raise ValueError(f"feature {name!r} needs a module path or a function, got {type(source).__name__}")

    def __call__(self, *args: Any, **kwargs: Any) -> Extraction:
        """Run the model on the given inputs."""
        caught: dict[str, list[tuple[Any, int]]] = {name: [] for name in self._taps}
        handles = []
        try:
            for name, (path, end) in self._taps.items():
                handles.append(_hook(self.model.get_submodule(path), end, caught[name]))
            output = self.model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
        if callable(self.spec):
            return Extraction(output, _all_tensors(self.spec(output)))
        features = {}
        for name, source in self.spec.items():
            if name in self._taps:
                features[name] = _only(name, str(source), caught[name])
            elif isinstance(source, str):
                features[name] = model_logits(output)
            else:
                features[name] = _tensor(name, source(output), "its function of the model's output")
        return Extraction(output, features)

    def run(self, inputs: Any) -> Extraction:
        """Run the model on a loader's inputs: one, a sequence of positional or a mapping of keyword arguments."""
        if isinstance(inputs, Mapping):
            return self(**inputs)
        if isinstance(inputs, Sequence) and not isinstance(inputs, str):
            return self(*inputs)
        return self(inputs)

    def __repr__(self) -> str:
        """The features and where they come from."""
        return f"FeatureExtractor({type(self.model).__name__}, {self.spec!r})"


def model_logits(output: Any) -> Tensor:
    """The logits in a model's output: the output itself, or its ``.logits`` (Hugging Face).

    Raises:
        ValueError: If there is neither.

    >>> model_logits(torch.zeros(2, 3)).shape
    torch.Size([2, 3])
    """
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    raise ValueError(
        f"needs a model that returns logits, or an object with .logits, got {type(output).__name__}: "
        "name a function of the output as the feature 'logits'"
    )


def pick(features: Features, name: str) -> Tensor:
    """A feature by name.

    Raises:
        KeyError: If it is not there, with the names that are.

    >>> pick({"feat": torch.zeros(2)}, "feat")
    tensor([0., 0.])
    """
    if name not in features:
        raise KeyError(f"needs a feature named {name!r}, got {sorted(features)}")
    return features[name]


def hard(labels: Tensor) -> Tensor:
    """One class per sample: labels (n) as they are, of soft labels (n c) the most likely class.

    >>> hard(torch.tensor([[0.3, 0.7]])), hard(torch.tensor([1]))
    (tensor([1]), tensor([1]))
    """
    return labels.argmax(-1) if labels.is_floating_point() and labels.dim() == 2 else labels


def classes_of(features: Features, logits: Tensor) -> Tensor:
    """One class per sample, from the feature ``labels``: -100 where there is none, the most likely one of soft labels.

    Raises:
        ValueError: For labels that are no class of these logits.

    >>> classes_of({"labels": torch.tensor([2, -100])}, torch.zeros(2, 3)), classes_of({}, torch.zeros(2, 3))
    (tensor([   2, -100]), tensor([-100, -100]))
    """
    labels = features.get("labels")
    if labels is None:
        return torch.full(logits.shape[:1], UNLABELLED, device=logits.device)
    if labels.is_floating_point() and labels.shape != logits.shape:
        raise ValueError(f"soft labels need the shape of the logits, {tuple(logits.shape)}, got {tuple(labels.shape)}")
    labels = hard(labels)
    checks.class_labels(labels, logits)
    return labels


def vectors(features: Features, name: str) -> Tensor:
    """A feature as one row per sample: (n d) as it is, (n d 1 1) without its empty axes.

    Raises:
        KeyError: If it is not there.
        ValueError: For feature maps and sequences, which somebody has to pool first, and for integers.

    >>> vectors({"feat": torch.zeros(2, 5, 1, 1)}, "feat").shape
    torch.Size([2, 5])
    """
    x = pick(features, name)
    checks.floating(f"feature {name!r}", x)
    checks.finite(f"feature {name!r}", x)
    if x.dim() >= 2 and x.shape[2:].numel() == 1:
        return x.flatten(1)
    raise ValueError(
        f"feature {name!r} needs one vector per sample, shape (n, d), got {tuple(x.shape)}: "
        "name the module after pooling, or pool it in an adaptor"
    )


def called_with(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Features, Features]:
    """The student's and the teacher's features in a criterion's call, as a hook before it sees them.

    >>> called_with(({"feat": torch.zeros(1)},), {"teacher_features": {"feat": torch.ones(1)}})
    ({'feat': tensor([0.])}, {'feat': tensor([1.])})
    """
    student = arguments[0] if arguments else named["student_features"]
    return student, arguments[1] if len(arguments) > 1 else named["teacher_features"]


def moved(inputs: Any, device: torch.device) -> Any:
    """What a loader gives, with its tensors on a device: one, a sequence, a mapping, or these within each other.

    >>> moved((torch.zeros(1), {"mask": torch.ones(1)}), torch.device("cpu"))
    [tensor([0.]), {'mask': tensor([1.])}]
    """
    if isinstance(inputs, Mapping):
        return {name: moved(value, device) for name, value in inputs.items()}
    if isinstance(inputs, Sequence) and not isinstance(inputs, str):
        return [moved(value, device) for value in inputs]
    return inputs.to(device) if isinstance(inputs, Tensor) else inputs


def device_of(model: nn.Module) -> torch.device:
    """Where a model lives: with its first parameter or buffer.

    >>> device_of(nn.Linear(1, 1))
    device(type='cpu')
    """
    return next((x.device for x in chain(model.parameters(), model.buffers())), torch.device("cpu"))


def _parse(model: nn.Module, source: str) -> tuple[str, str]:
    path, _, end = source.partition(":")
    end = end or "output"
    known = dict(model.named_modules(remove_duplicate=False))
    parts = path.split(".")
    for ancestor in (".".join(parts[:i]) for i in range(len(parts))):
        if ancestor in known and _is_compiled(known[ancestor]):
            raise ValueError(
                f"cannot see {path!r}: {ancestor or 'the model'} was compiled by torch.compile, and a compiled module "
                "runs its parts without hooks. Give the module from before compiling, or let it return its features "
                "and name a function of the output"
            )
    if path not in known or path == "":
        names = [name for name in known if name]
        near = difflib.get_close_matches(path, names, n=5, cutoff=0.3) or names[:10]
        raise ValueError(
            f"needs the path of a module of {type(model).__name__}, got {path!r}; near names: {', '.join(near)}"
        )
    if end not in ("input", "output"):
        raise ValueError(f"needs ':input' or ':output' after a module path, got {source!r}")
    return path, end


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def _hook(module: nn.Module, end: str, caught: list[tuple[Any, int]]) -> torch.utils.hooks.RemovableHandle:
    if end == "input":
        return module.register_forward_pre_hook(lambda _, args: caught.append(_versioned(args[0] if args else None)))
    return module.register_forward_hook(lambda _, args, output: caught.append(_versioned(output)))


def _versioned(value: Any) -> tuple[Any, int]:
    """A value with how often it had been overwritten in place when it was caught."""
    return value, _version(value)


def _version(value: Any) -> int:
    return value._version if isinstance(value, Tensor) and not value.is_inference() else 0


def _only(name: str, source: str, caught: list[tuple[Any, int]]) -> Tensor:
    if len(caught) != 1:
        raise ValueError(
            f"feature {name!r} needs a module that runs once per forward, got {len(caught)} runs of {source!r}"
        )
    value, version = caught[0]
    value = _tensor(name, value, f"{source!r}: name a module inside it, or a function of the model's output")
    if _version(value) != version:
        raise ValueError(
            f"feature {name!r}: what {source!r} gave was overwritten in place by a later module (an activation with "
            "inplace=True); name that module, or set inplace=False"
        )
    return value


def _tensor(name: str, value: Any, source: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"feature {name!r} needs a tensor, got {type(value).__name__} from {source}")
    return value


def _all_tensors(found: Any) -> dict[str, Tensor]:
    if not isinstance(found, Mapping):
        raise ValueError(f"needs a function of the output that returns features by name, got {type(found).__name__}")
    return {name: _tensor(name, value, "the function of the model's output") for name, value in found.items()}
