"""Write a folder of feature files that is whole or not there, whatever happens."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from torch import Tensor

from graphkd import checks
from graphkd.cache.store import DESCRIPTION, KIND, file_name


class Files:
    """The files of a cache while they are written, one per feature; made when the first batch shows the shapes.

    Args:
        folder: Where they are written.
        views: How many views there will be.
        samples: How many samples in each.
        dtype: As they are stored.
    """

    def __init__(self, folder: Path, views: int, samples: int, dtype: str) -> None:
        self.folder, self.views, self.samples, self.dtype = folder, views, samples, np.dtype(dtype)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def write(self, view: int, index: Tensor, features: Mapping[str, Tensor]) -> None:
        """Write the features (n ...) of n samples of a view, on the CPU.

        Raises:
            ValueError: For features that are no finite floating-point numbers, that exceed the dtype's range, that are
                not one row per sample, or not those of the first batch in name and shape; and for too small a disk.
            OSError: What the system says when a file cannot be written.
        """
        for name, x in features.items():
            checks.floating(f"feature {name!r}", x)
            checks.finite(f"feature {name!r}", x)
            if x.dim() < 1 or len(x) != len(index) or x.shape[1:].numel() == 0:
                raise ValueError(f"feature {name!r} needs a row for each of {len(index)} samples, got {tuple(x.shape)}")
        shapes = {name: tuple(x.shape[1:]) for name, x in features.items()}
        if not self.shapes:
            self._begin(shapes)
        if shapes != self.shapes:
            raise ValueError(f"needs features of one shape in all batches, {self.shapes}, got {shapes}")
        for name, x in features.items():
            self._write(name, view, index.numpy(), self._stored(name, x))

    def finish(self, made_of: Mapping[str, Any]) -> None:
        """Say what the cache is made of, and bring all files to the disk."""
        described = {"kind": KIND, "made_of": made_of, "features": self.shapes}
        (self.folder / DESCRIPTION).write_text(json.dumps(described, indent=1))
        for path in (*self.folder.iterdir(), self.folder):
            synced(path)

    def _begin(self, shapes: dict[str, tuple[int, ...]]) -> None:
        if not shapes:
            raise ValueError("a teacher cache needs at least one feature, got none: name some, or a model with logits")
        self.shapes = shapes
        numbers = sum(int(np.prod(shape, dtype=int)) for shape in shapes.values())
        needed = self.views * self.samples * numbers * self.dtype.itemsize
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise ValueError(
                f"a teacher cache needs {needed / 1e9:.3g} GB in {self.folder.parent}, got {free / 1e9:.3g}"
            )
        for name, shape in shapes.items():
            whole = (self.views, self.samples, *shape)
            np.lib.format.open_memmap(self.folder / file_name(name), "w+", self.dtype, whole)

    def _stored(self, name: str, x: Tensor) -> np.ndarray:
        # NumPy has no bfloat16; what overflows is looked for below.
        with np.errstate(over="ignore"):
            stored = (x if x.element_size() > 2 else x.float()).numpy().astype(self.dtype)
        if np.isinf(stored).any():
            raise ValueError(
                f"feature {name!r} needs values up to {np.finfo(self.dtype).max:.6g} to be stored as {self.dtype}, got "
                f"{float(x.abs().max()):.6g}; store it as float32"
            )
        return stored

    def _write(self, name: str, view: int, index: np.ndarray, rows: np.ndarray) -> None:
        # Not through a memory map: there a full disk is no error, but a signal that ends the process.
        row = int(np.prod(rows.shape[1:], dtype=int)) * self.dtype.itemsize
        begins = np.flatnonzero(np.diff(index, prepend=-2) != 1).tolist()
        with open(self.folder / file_name(name), "r+b") as file:
            start = file.seek(0, os.SEEK_END) - self.views * self.samples * row
            for first, end in pairwise([*begins, len(index)]):
                file.seek(start + (view * self.samples + int(index[first])) * row)
                file.write(rows[first:end].tobytes())


@contextlib.contextmanager
def published(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``folder`` by one renaming, if nothing fails before.

    What was there before is removed. Between its removal and the renaming there is a moment without any. Only for the
    holder of :func:`locked`.

    Raises:
        OSError: What the system says.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with published(Path(parent, "new")) as folder:
    ...         (folder / "file").touch()
    ...     [path.name for path in Path(parent, "new").iterdir()]
    ['file']
    """
    part, old = (folder.with_name(f".{folder.name}.{what}") for what in ("part", "old"))
    # Whoever holds the lock is the only one alive who writes here: these are of builders that were killed.
    _remove(part, old)
    part.mkdir()
    try:
        yield part
        if folder.exists():
            os.rename(folder, old)
        os.rename(part, folder)
        synced(folder.parent)
    finally:
        _remove(part, old)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process builds this folder; the lock of a process that dies is free.

    The lock is an empty file beside the folder, which stays.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent, locked(Path(parent, "new")):
    ...     pass
    """
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        checks.log_once(f"waiting for the process that builds {folder}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def synced(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    >>> synced(Path("."))
    """
    if path.is_dir() and os.name == "nt":
        return  # Windows keeps no handle on a folder, and orders these writes itself
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(*folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
