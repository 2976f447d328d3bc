"""Probes: a few samples of a data set, some of each class, that a student is looked at with again and again."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from graphkd import checks
from graphkd.typing import UNLABELLED

FEWEST = 4
"""Samples that a comparison of layers needs."""

SEEN_PER_SAMPLE = 50
"""Samples that are looked through for each that is chosen, at most."""


class Probe(NamedTuple):
    """A batch, sorted by class.

    Attributes:
        inputs: What the models take, as from a loader.
        labels: The class of each sample (n), -100 where it has none.
        index: Where the samples stand in the data set, where the loader says it.
        class_names: The name of class c at place c, where the data set has ``classes``.
    """

    inputs: Any
    labels: Shaped[Tensor, " n"]
    index: Shaped[Tensor, " n"] | None = None
    class_names: list[str] | None = None


def choose(loader: Iterable[Sequence[Any]], samples: int = 100, per_class: int = 10) -> Probe:
    """Choose samples from the start of a loader: a number of each class, of as many classes as that leaves room for.

    Samples without a label fill up what is left. At most fifty times as many samples are looked through, so there may
    be fewer. The random numbers that a loader draws on the CPU are put back.

    Args:
        loader: Batches of inputs, labels, and perhaps where the samples stand in the data set. Inputs are a tensor, or
            a sequence or mapping of tensors.
        samples: How many, at least four.
        per_class: How many of a class.

    Raises:
        ValueError: For fewer than four samples, and for batches of something else.

    >>> batch = (torch.zeros(6, 2), torch.tensor([1, 0, 1, 0, 2, 0]))
    >>> choose([batch], samples=4, per_class=2).labels
    tensor([0, 0, 1, 1])
    """
    checks.at_least("samples", samples, FEWEST)
    checks.at_least("per_class", per_class, 1)
    taken: Counter[int] = Counter()
    chosen: list[Any] = []
    unlabelled: list[Any] = []
    seen = 0
    with torch.random.fork_rng(devices=[]):
        for batch in loader:
            if len(batch) < 2 or not isinstance(batch[1], Tensor):
                raise ValueError(f"a probe needs batches of inputs and labels, got {len(batch)} parts")
            labelled = []
            for i, label in enumerate(batch[1].tolist()):
                room = label in taken or (len(taken) + 1) * per_class <= max(samples, per_class)
                if label != UNLABELLED and room and taken[label] < per_class and sum(taken.values()) < samples:
                    taken[label] += 1
                    labelled.append(i)
            chosen.append(_part(batch, labelled))
            without = (batch[1] == UNLABELLED).nonzero().flatten().tolist()
            unlabelled.append(_part(batch, without[: samples - sum(len(part[1]) for part in unlabelled)]))
            seen += len(batch[1])
            if sum(taken.values()) == samples or seen >= SEEN_PER_SAMPLE * samples:
                break
    inputs, labels, *index = _joined([*chosen, *unlabelled])
    order = torch.where(labels == UNLABELLED, labels.max() + 1, labels).argsort(stable=True)[:samples]
    if len(order) < FEWEST:
        raise ValueError(
            f"a probe needs at least {FEWEST} samples, got {len(order)} in {seen} that were looked through"
        )
    names = getattr(getattr(loader, "dataset", None), "classes", None)
    return Probe(
        _part(inputs, order),
        labels[order],
        index[0][order] if index else None,
        [str(name) for name in names] if isinstance(names, Sequence) else None,
    )


def _part(value: Any, rows: Any) -> Any:
    """Some rows of nested tensors."""
    if isinstance(value, Tensor):
        return value[torch.as_tensor(rows, dtype=torch.int64)]
    if isinstance(value, Mapping):
        return {name: _part(each, rows) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_part(each, rows) for each in value]
    raise ValueError(f"a probe needs tensors, sequences or mappings of them, got {type(value).__name__}")


def _joined(parts: Sequence[Any]) -> Any:
    """Nested tensors, put behind each other."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, Mapping):
        return {name: _joined([part[name] for part in parts]) for name in first}
    return [_joined(each) for each in zip(*parts, strict=True)]
