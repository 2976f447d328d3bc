"""The outline of a model: its modules, the shapes that they give, and which of them to name as features."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from graphkd import checks, display
from graphkd.outline.guess import Found, Seen, guessed
from graphkd.outline.inputs import example_inputs, example_rows, example_text
from graphkd.outline.visits import arguments, visited
from graphkd.sources import Derived, keys_of, part

MASK = "attention_mask"
"""The input that says which tokens count."""


class Row(NamedTuple):
    """A module in an outline: its path and class, the shape that it gives, and what else is to be known of it."""

    path: str
    kind: str
    shape: str
    note: str


@dataclass(frozen=True)
class Outline:
    """What :func:`outline_of` found; printed, a table.

    Attributes:
        inputs: The shapes that the model was run on.
        output: What it returned.
        rows: Its modules, those that ran in the order in which they began.
        features: Suggested features, to be given to a distiller: ``feat``, ``map``, ``tokens``, ``logits``, as far as
            there are any.
        shapes: Theirs.
        maps: The last map of each size, the largest first.
    """

    inputs: str
    output: str
    rows: list[Row]
    features: dict[str, str | Derived]
    shapes: dict[str, tuple[int, ...]]
    maps: list[str | Derived] = field(default_factory=list["str | Derived"])

    def table(self, depth: int | None = None) -> str:
        """As text: the modules at most ``depth`` levels down, those that are suggested, and the suggestions."""
        shown = [row for row in self.rows if depth is None or row.path.count(".") < depth or row.note.startswith("<-")]
        deeper = len(self.rows) - len(shown)
        lines = [f"input   {self.inputs}", f"output  {self.output}", ""]
        lines += display.aligned([("module", "class", "output", ""), *shown])
        lines += [f"and {deeper} modules further down"] if deeper else []
        lines += ["", "suggested features:" if self.features else "no features to suggest"]
        if self.features:
            found = self.features.items()
            lines += display.aligned([(f"  {name}", repr(source), str(self.shapes[name])) for name, source in found])
        if len(self.maps) > 1:
            lines += [f"maps of each size: {', '.join(map(repr, self.maps))}"]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


def outline_of(model: nn.Module, inputs: Any) -> Outline:
    """Run a model once, list its modules with the shapes that they give, and suggest features to distil.

    ``feat`` is one vector per sample: what the last layer is given, of which the output is the model's logits; of a
    model without, its pooled output. ``map`` are the feature maps (n c h w) of the last stage, or the tokens of an
    image's patches as such; ``tokens`` the last sequence (n t d). These are guesses from shapes and order, not from
    what a layer means; the table shows what else there is.

    The model is left as it is: it runs in eval mode, without gradient, and modes and random numbers are restored.

    Args:
        model: Any module.
        inputs: What it takes: one tensor, a sequence of positional or a mapping of keyword arguments, such as
            :func:`example_inputs` makes. The rows of the first tensor are the samples.

    Raises:
        ValueError: For a compiled model, one that has not seen its first batch, and inputs without a tensor.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> outline_of(model, torch.zeros(5, 3)).features
    {'feat': '2:input', 'logits': 'logits'}
    """
    args, kwargs = arguments(inputs)
    first = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.dim() > 0), None)
    if first is None:
        raise ValueError(f"an outline needs inputs with a tensor, got {type(inputs).__name__}")
    output, visits = visited(model, inputs)
    image = (first.shape[2], first.shape[3]) if first.dim() == 4 else None
    done = sorted(visits, key=lambda visit: visit.finished)
    mask = f":input.{MASK}" if MASK in kwargs else None
    found, maps = guessed(Seen(done, output, first.shape[0], image, mask))
    notes = _notes(found)
    rows = [
        Row(visit.path, type(visit.module).__name__, _shape(visit.gave[0]), notes.get(visit.path, visit.flaw))
        for visit in visits
    ]
    ran = {visit.path for visit in visits}
    rows += [
        Row(path, type(module).__name__, "", "not called")
        for path, module in model.named_modules()
        if path and path not in ran and not isinstance(module, nn.ModuleList | nn.ModuleDict)
    ]
    given = ", ".join([*map(_shape, args), *(f"{name} {_shape(x)}" for name, x in kwargs.items())])
    return Outline(
        given,
        _shape(output),
        rows,
        {name: each.source for name, each in found.items()},
        {name: each.shape for name, each in found.items()},
        [each.source for each in maps],
    )


def show_features(
    model: nn.Module, input: str | None = None, tokens: int | None = None, depth: int | None = None
) -> None:
    """List a model's modules with the shapes that they give, and suggest which to name as features.

    Args:
        model: The import path of a class or function, such as torchvision.models.resnet18, with its arguments as
            --model.num_classes 10; ``timm:resnet50`` is short for timm.create_model with --model.model_name resnet50,
            whose own arguments are --model.dict_kwargs.num_classes 10.
        input: The shape of a batch that it takes, such as 2,3,32,32. Guessed if omitted, from what the model says or
            from its first layer.
        tokens: The length of two texts that it takes, instead.
        depth: How many levels of modules are listed; all if omitted.

    >>> show_features(nn.Sequential(nn.Linear(3, 2)), input="4,3")
    input   (4, 3)
    output  (4, 2)
    <BLANKLINE>
    module  class   output
    0       Linear  (4, 2)  <- feat is its input
    <BLANKLINE>
    suggested features:
      feat    '0:input'  (4, 3)
      logits  'logits'   (4, 2)
    """
    if input is not None and tokens is not None:
        raise ValueError(f"needs either an input or tokens, got input {input} and tokens {tokens}")
    if depth is not None:
        checks.at_least("depth", depth, 1)
    if tokens is not None:
        checks.at_least("tokens", tokens, 1)
        inputs = example_text(model, tokens)
    else:
        inputs = example_inputs(model) if input is None else example_rows(model, _sizes(input))
    try:
        found = outline_of(model, inputs)
    except (RuntimeError, TypeError, AssertionError, IndexError) as error:
        came = " ".join(str(error).split())
        said = "what was guessed" if input is None else f"inputs of shape {input}"
        said = said if tokens is None else f"texts of {tokens} tokens"
        raise ValueError(f"{type(model).__name__} does not take {said}: {came}") from error
    print(found.table(depth))


def _sizes(shape: str) -> list[int]:
    try:
        sizes = [int(size) for size in shape.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise ValueError(f"input needs sizes above 0 with commas between, such as 2,3,32,32, got {shape!r}")
    return sizes


def _notes(found: dict[str, Found]) -> dict[str, str]:
    """What to say beside a module, by its path."""
    named: dict[str, list[str]] = {}
    for name, (source, _) in found.items():
        for text in source.sources if isinstance(source, Derived) else (source,):
            path, _, end = text.partition(":")
            named.setdefault(path, []).append(f"{name} is its input" if end.startswith("input") else name)
    return {path: f"<- {', '.join(names)}" for path, names in named.items()}


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(tuple(value.shape)) if value.is_floating_point() else f"{tuple(value.shape)} {value.dtype}"
    parts = [(key, part("output", value, [key])) for key in keys_of(value)]
    inside = ", ".join(f"{key} {tuple(x.shape)}" for key, x in parts if isinstance(x, Tensor))
    return f"{type(value).__name__}({inside})"
