"""What a teacher cache is made of, so that one of another teacher, of other features or of other data is told apart."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, IterableDataset

from graphkd import checks, kept, parallel
from graphkd.cache.functions import described
from graphkd.features import Spec

DTYPES = ("float16", "float32")

LoaderOfView = Callable[[int], Iterable[Any]]
"""From a view, counted from 0, to batches (inputs, labels, index) of every training sample once."""

MadeOf = dict[str, dict[str, Any]]
"""Groups of numbers and words by name."""


def made_of(
    teacher: nn.Module,
    loader_of_view: LoaderOfView,
    views: int | None,
    *,
    features: Spec | None = None,
    dtype: str = "float16",
) -> MadeOf:
    """The fingerprint of a cache: its teacher, its features, its data in every view, and how they are stored.

    Of the teacher it covers all weights; of the data the number of samples, and as the teacher sees them in each view,
    with their index, :data:`graphkd.kept.LOOKED_AT` samples from the first to the last. Labels may change: a teacher
    does not see them. Of functions among the features it covers what
    :func:`~graphkd.cache.functions.described` does.

    Args:
        teacher: The model, frozen.
        loader_of_view: See :data:`LoaderOfView`. Each gives a DataLoader of a data set with a length and an index, or a
            sequence of batches.
        views: How many there are. None stands for data that are augmented anew in every epoch, and is refused.
        features: Which activations, as in :class:`~graphkd.features.FeatureExtractor`.
        dtype: As they are stored, ``float16`` or ``float32``.

    Raises:
        ValueError: For data without a number of views, without samples or without an index, data of which each process
            has a share, averages of a student, and functions that cannot be told apart.

    >>> batches = [(torch.zeros(3, 2), torch.zeros(3), torch.arange(3))]
    >>> made_of(nn.Linear(2, 4), lambda view: batches, 1)["data"]["samples"]
    3
    """
    checks.one_of("dtype", dtype, DTYPES)
    if views is None:
        raise ValueError(
            "a teacher cache needs data in a fixed number of views, got None: they are augmented anew in every epoch. "
            "Declare a number of seeded views, or leave the augmentation out"
        )
    checks.at_least("views", views, 1)
    if parallel.world() > 1:
        raise ValueError(
            f"a teacher cache needs all samples in one process, got a share of them in each of {parallel.world()}: "
            "build it before these processes find each other"
        )
    loaders = [loader_of_view(view) for view in range(views)]
    sizes = {number_of_samples(loader) for loader in loaders}
    if len(sizes) > 1 or 0 in sizes:
        raise ValueError(f"needs the same number of samples in each view, at least one, got {sorted(sizes)}")
    looks = [look(loader) for loader in loaders]
    return {
        **teacher_made_of(teacher, features),
        "data": {"samples": sizes.pop(), "views": views, "first samples": _digest(looks)},
        "storage": {"dtype": dtype},
    }


def teacher_made_of(teacher: nn.Module, features: Spec | None) -> MadeOf:
    """The part of the fingerprint that needs no data.

    >>> sorted(teacher_made_of(nn.Linear(2, 4), {"feat": "logits"}))
    ['features', 'teacher']
    """
    if isinstance(teacher, AveragedModel):
        raise ValueError("a teacher cache needs a frozen teacher, got an average that moves with its student")
    spec = features or {}
    named = {"": spec} if callable(spec) else spec
    return {
        "teacher": dict(kept.model_fingerprint(teacher)),
        "features": {name: source if isinstance(source, str) else described(source) for name, source in named.items()},
    }


def differences(there: Mapping[str, Mapping[str, Any]], here: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What differs between two fingerprints, in the groups of the second.

    >>> differences({"storage": {"dtype": "float16"}}, {"storage": {"dtype": "float32"}})
    ["storage 'dtype': 'float16' there, 'float32' here"]
    """
    return [
        f"{group} {name!r}: {there.get(group, {}).get(name)!r} there, {entries.get(name)!r} here"
        for group, entries in here.items()
        for name in sorted(entries.keys() | there.get(group, {}).keys())
        if there.get(group, {}).get(name) != entries.get(name)
    ]


def number_of_samples(loader: Iterable[Any]) -> int:
    """How many samples a loader has: those of its data set, or of all batches in a sequence.

    >>> number_of_samples([(torch.zeros(3, 2), torch.zeros(3), torch.arange(3))])
    3
    """
    if isinstance(loader, DataLoader):
        return len(_indexed(loader).dataset)  # pyright: ignore[reportArgumentType]
    if isinstance(loader, Sequence):
        return sum(len(inputs_and_index(batch)[1]) for batch in loader)
    raise ValueError(f"a teacher cache needs a DataLoader or a sequence of batches, got {type(loader).__name__}")


def look(loader: Iterable[Any], seed: int = 0) -> str:
    """A digest of a few samples, with their index, from the first to the last; of a sequence, of a few batches.

    PyTorch's random numbers on the CPU start from a seed, and are afterwards as they were.

    >>> batches = [(torch.rand(3, 2), torch.zeros(3), torch.arange(3))]
    >>> look(batches) == look(batches, seed=1)
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if isinstance(loader, Sequence):
            return _digest([inputs_and_index(loader[i]) for i in _spread(len(loader))])
        assert isinstance(loader, DataLoader)
        # The loader's own keys, which may say more than where a sample stands; sorted, since it may shuffle them.
        keys = sorted(key for batch in _indexed(loader).batch_sampler or () for key in batch)
        samples = [loader.dataset[keys[i]] for i in _spread(len(keys))]
        return _digest(inputs_and_index(loader.collate_fn(samples))) if samples else ""


def inputs_and_index(batch: Any) -> tuple[Any, Tensor]:
    """What the teacher sees of a batch (inputs, labels, index, ...), and where its samples stand.

    >>> inputs_and_index((torch.zeros(3, 2), torch.zeros(3), torch.arange(3)))[1]
    tensor([0, 1, 2])
    """
    if not (isinstance(batch, Sequence) and len(batch) >= 3 and isinstance(batch[2], Tensor)):
        came = f"{len(batch)} parts" if isinstance(batch, Sequence) else type(batch).__name__
        raise ValueError(f"a teacher cache needs batches (inputs, labels, index) with a tensor of indices, got {came}")
    if batch[2].dim() != 1:
        raise ValueError(f"a teacher cache needs one index per sample, shape (n), got {tuple(batch[2].shape)}")
    return batch[0], batch[2]


def _indexed(loader: DataLoader) -> DataLoader:
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        raise ValueError("a teacher cache needs a DataLoader that makes batches of a data set with length and index")
    return loader


def _spread(n: int) -> list[int]:
    """A few indices of n, from the first to the last."""
    return np.unique(np.linspace(0, n - 1, kept.LOOKED_AT).astype(int)).tolist() if n else []


def _digest(value: Any) -> str:
    return str(kept.data_fingerprint([value])["data"])
