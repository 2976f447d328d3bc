"""Results kept in files, with what they were made of: options, and fingerprints of a model and of data.

A *fingerprint* of a model covers its type, and names, types, shapes and values of all tensors of its ``state_dict``.

A fingerprint of data covers the number of samples and :data:`LOOKED_AT` of them, spread evenly from the first to the
last, as the loader collates them, labels and all, and the types of the loader's samplers. Of a plain sequence of
batches it covers as many batches in the same way. It does not cover the other samples, nor their order. Where samples
are augmented at random it is taken with a fixed seed of PyTorch's numbers on the CPU, and does not match again where
other random numbers are used.
"""

import hashlib
import os
import pickle
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

LOOKED_AT = 16
"""Samples of the data that a fingerprint covers."""

RESULT = "result"

PART = ".part"
"""How the name of a file ends that is being written."""

Entries = Mapping[str, Mapping[str, Any]]
"""Groups of plain values by name."""


def model_fingerprint(model: nn.Module) -> dict[str, str]:
    """Type and weights of a model.

    >>> from copy import deepcopy
    >>> model = nn.Linear(2, 3)
    >>> model_fingerprint(model) == model_fingerprint(deepcopy(model)) != model_fingerprint(nn.Linear(2, 3))
    True
    """
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return {"model": type(model).__qualname__, "weights": digest(tensors)}


def data_fingerprint(loader: Iterable[Any]) -> dict[str, str | int]:
    """Size and a few samples of the data behind a loader, in a dozen of reads.

    Raises:
        ValueError: For data that may be looked at only once, or in order only: other than a DataLoader of a dataset
            with a length and an index, or a sequence of batches.

    >>> data_fingerprint([(torch.zeros(4, 2), torch.tensor([0, 1, 2, -100]))])["batches"]
    1
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
            dataset: Any = loader.dataset
            samples = [dataset[i] for i in _spread(len(dataset))]
            batched = loader.batch_sampler is not None
            seen = loader.collate_fn(samples) if batched else [loader.collate_fn(sample) for sample in samples]
            samplers = f"{type(loader.sampler).__name__}, {type(loader.batch_sampler).__name__}"
            return {"samples": len(dataset), "samplers": samplers, "data": digest(seen)}
    if isinstance(loader, Sequence):
        return {"batches": len(loader), "data": digest([loader[i] for i in _spread(len(loader))])}
    raise ValueError(
        "a fingerprint needs data with a length and an index behind a DataLoader, or a sequence of batches, got "
        f"{type(loader).__name__}"
    )


def digest(value: Any) -> str:
    """Sixteen digits that stand for nested tensors, arrays and plain values.

    Raises:
        ValueError: For other things.

    >>> digest([torch.zeros(2), "a"]) == digest([torch.zeros(2), "a"]) != digest([torch.zeros(2), "b"])
    True
    """
    found = hashlib.sha256()
    for part in _parts(value):
        found.update(part)
    return found.hexdigest()[:16]


def write(path: Path, content: Any) -> None:
    """Write tensors and plain values; a reader sees the old file or the new one, never a part.

    The folder is made if it is missing. When it returns, the file is on the disk and not only on its way there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "kept.pt"), {"numbers": [1, 2]})
    ...     read(Path(folder, "kept.pt"))
    {'numbers': [1, 2]}
    """
    with _replacing(path) as part:
        torch.save(content, part)


def write_text(path: Path, text: str) -> None:
    """Write text as :func:`write` writes tensors.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_text(Path(folder, "kept.json"), "[1, 2]")
    ...     Path(folder, "kept.json").read_text()
    '[1, 2]'
    """
    with _replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def remove_parts(folder: Path) -> None:
    """Remove what writers that were killed left in a folder; nobody else may be writing there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, f".kept.pt.0123{PART}").touch()
    ...     remove_parts(Path(folder))
    ...     list(Path(folder).iterdir())
    []
    """
    for part in folder.glob(f".*{PART}"):
        part.unlink(missing_ok=True)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A place beside the file, for what then replaces it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART}")
    try:
        yield part
        _sync(part)
        os.replace(part, path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders.
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def read(path: Path) -> Any:
    """What :func:`write` wrote, on the CPU; None for a file that is no archive.

    Raises:
        ValueError: For an archive of other things than tensors and plain values.
        OSError: For a file that is not there.
    """
    # torch.load reads what is no archive as a pickle, which fails in many ways.
    try:
        if zipfile.is_zipfile(path) or not path.is_file():
            return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} needs plain tensors and values, got what torch.load refuses") from error
    return None


def save(path: Path, result: Tensor, made_of: Entries) -> None:
    """Write a result and what it was made of.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Path(folder, "kept.pt"), torch.ones(2), {"options": {"k": 1}})
    ...     load(Path(folder, "kept.pt"), {"options": {"k": 1}})
    tensor([1., 1.])
    """
    write(path, {RESULT: result.detach().cpu(), **{group: dict(entries) for group, entries in made_of.items()}})


def load(path: Path, made_of: Entries) -> Tensor:
    """The result in a file, on the CPU, if it was made of the same.

    Raises:
        ValueError: For a file that is none of :func:`save`, and for one made of other things, with what differs.
        OSError: For a file that is not there.
    """
    content = read(path)
    if not (
        isinstance(content, dict)
        and isinstance(content.get(RESULT), Tensor)
        and all(isinstance(content.get(group), dict) for group in made_of)
    ):
        raise ValueError(f"{path} needs a {RESULT} and its {', '.join(made_of)}, got something else")
    differs = [
        f"{group} {name!r}: {content[group].get(name)!r} there, {entries.get(name)!r} here"
        for group, entries in made_of.items()
        for name in sorted(entries.keys() | content[group].keys())
        if content[group].get(name) != entries.get(name)
    ]
    if differs:
        raise ValueError(f"{path} needs to be made of the same; {'; '.join(differs)}")
    return content[RESULT]


def _spread(n: int) -> list[int]:
    """At most LOOKED_AT indices of n, from the first to the last."""
    return sorted({i * (n - 1) // (LOOKED_AT - 1) for i in range(LOOKED_AT)}) if n else []


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)};".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield f"{key!r}:".encode()
            yield from _parts(entry)
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        yield f"{len(value)}[".encode()
        for entry in value:
            yield from _parts(entry)
    elif value is None or isinstance(value, (bool, int, float, str, bytes)):
        yield f"{value!r};".encode()
    else:
        raise ValueError(f"a fingerprint needs tensors, numbers and words, got {type(value).__name__}")
