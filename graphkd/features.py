"""Features: run a model, and keep the named activations that a criterion needs, without editing the model."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphkd import checks
from graphkd.sources import Derived, Source, parse, run
from graphkd.typing import UNLABELLED, Features

Adaptor = Callable[[Any], Tensor]
"""A function of the model's output that returns one feature."""

Spec = Mapping[str, str | Adaptor | Derived] | Callable[[Any], Features]
"""Which features: names to where each is found, or one function of the model's output that returns them all."""

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
            - ``"fc:input"``: the first input of a module; ``"fc:output"`` is the same as ``"fc"``;
            - ``"lstm:output.0"``, ``"attention:input.mask"``: a part of what a module returns or is given, by its key,
              attribute, position or, of inputs, the name that ``forward`` has for it; parts of parts behind more dots;
            - ``":output.last_hidden_state"``, ``":input.attention_mask"``: the same of the model itself;
            - ``"logits"``: the model's own output (or its ``.logits``);
            - one of :mod:`graphkd.adaptors`, which pool tokens and turn maps: ``MeanTokens("encoder")``;
            - a function of the model's output, for models that return their features.

            Or one function of the model's output that returns a mapping of all features.

    Raises:
        ValueError: At construction for a path that the model does not have, with near names; for a path inside a
            module compiled by ``torch.compile``, whose parts run no hooks. At the call for a module that did not run,
            ran several times, or whose output was overwritten in place, for parts that are not there, and for what is
            no tensor.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> extract = FeatureExtractor(model, {"feat": "2:input", "logits": "logits"})
    >>> output, features = extract(torch.randn(5, 3))
    >>> {name: tuple(x.shape) for name, x in features.items()}
    {'feat': (5, 4), 'logits': (5, 2)}
    """

    def __init__(self, model: nn.Module, spec: Spec) -> None:
        self.model = model
        self.spec = spec if callable(spec) else dict(spec)
        self._sources: dict[str, Source] = {}
        for name, wanted in () if callable(spec) else spec.items():
            if not isinstance(wanted, str) and not callable(wanted):
                raise ValueError(f"feature {name!r} needs a source or a function, got {type(wanted).__name__}")
            for text in _sources(wanted):
                self._sources[text] = parse(model, text)

    def __call__(self, *args: Any, **kwargs: Any) -> Extraction:
        """Run the model on the given inputs."""
        output, taps = run(self.model, self._sources.values(), args, kwargs)
        if callable(self.spec):
            return Extraction(output, _all_tensors(self.spec(output)))

        def found(name: str, text: str) -> Tensor:
            return taps[text].tensor(name) if text in taps else model_logits(output)

        features = {}
        for name, wanted in self.spec.items():
            if isinstance(wanted, str):
                features[name] = found(name, wanted)
            elif isinstance(wanted, Derived):
                features[name] = _derived(name, wanted, [found(name, text) for text in wanted.sources])
            else:
                features[name] = _tensor(name, wanted(output), "its function of the model's output")
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
    """The logits in a model's output: the output itself, its ``.logits`` (Hugging Face) or its ``["logits"]``.

    Raises:
        ValueError: If there are none.

    >>> model_logits(torch.zeros(2, 3)).shape
    torch.Size([2, 3])
    """
    logits = logits_in(output)
    if logits is None:
        raise ValueError(
            f"needs a model that returns logits, or an object with .logits, got {type(output).__name__}: "
            "name a function of the output as the feature 'logits', or a part of it such as ':output.0'"
        )
    return logits


def logits_in(output: Any) -> Tensor | None:
    """The logits in a model's output, None if there are none.

    >>> logits_in((torch.zeros(2, 3), "more")) is None
    True
    """
    found = output.get(MODEL_OUTPUT) if isinstance(output, Mapping) else getattr(output, MODEL_OUTPUT, output)
    return found if isinstance(found, Tensor) else None


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
        "name the module after pooling, or pool it in an adaptor, such as graphkd.adaptors.MeanMap or MeanTokens"
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


def _sources(wanted: Any) -> list[str]:
    """What is to be caught for a feature."""
    texts = [wanted] if isinstance(wanted, str) else wanted.sources if isinstance(wanted, Derived) else []
    return [text for text in texts if text != MODEL_OUTPUT]


def _derived(name: str, wanted: Derived, found: list[Tensor]) -> Tensor:
    try:
        return _tensor(name, wanted(*found), f"{wanted}")
    except ValueError as error:
        raise ValueError(f"feature {name!r}: {error}") from error


def _tensor(name: str, value: Any, source: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"feature {name!r} needs a tensor, got {type(value).__name__} from {source}")
    return value


def _all_tensors(found: Any) -> dict[str, Tensor]:
    if not isinstance(found, Mapping):
        raise ValueError(f"needs a function of the output that returns features by name, got {type(found).__name__}")
    return {name: _tensor(name, value, "the function of the model's output") for name, value in found.items()}
