"""Read a teacher's features from the files of a cache."""

import json
import math
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor, nn

from graphkd.cache.fingerprint import differences, teacher_made_of
from graphkd.features import Spec

DESCRIPTION = "cache.json"
KIND = "graphkd teacher cache 1"
"""What a description begins with; the number is of the layout."""


class TeacherCache:
    """A teacher's features of every sample in every view, read from files as they are asked for.

    The files are mapped into memory, so that any number of processes share one copy, and what was read stays there as
    long as there is room. A cache can be pickled, and opens its files anew where it arrives.

    Args:
        folder: What :func:`~graphkd.cache.build_cache` wrote.
        made_of: What it has to be made of, from :func:`~graphkd.cache.made_of`; nothing is compared if None.

    Raises:
        ValueError: For a folder that is no whole cache, and for one made of other things, with what differs.

    Attributes:
        folder: Where it is.
        names: Of the features.
        samples: How many there are.
        views: How many versions of each sample there are.
        dtype: In which features are stored.
        made_of: The fingerprint of what it was made of.

    >>> import tempfile
    >>> from graphkd.cache import build_cache
    >>> teacher, images = nn.Linear(2, 4), torch.rand(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     batches = [(images, torch.zeros(3), torch.arange(3))]
    ...     _ = build_cache(f"{folder}/cache", teacher, lambda view: batches, 1, dtype="float32", progress=False)
    ...     features = TeacherCache(f"{folder}/cache").read(torch.tensor([2, 0]), view=0)
    >>> torch.equal(features["logits"], teacher(images)[[2, 0]])
    True
    """

    def __init__(self, folder: str | PathLike[str], made_of: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.folder = Path(folder).resolve()
        described = description(self.folder)
        self.made_of: dict[str, dict[str, Any]] = described["made_of"]
        if made_of is not None:
            self._compare(made_of)
        data = self.made_of["data"]
        self.samples, self.views, self.dtype = data["samples"], data["views"], self.made_of["storage"]["dtype"]
        self._arrays = {
            name: _mapped(self.folder / file_name(name), (self.views, self.samples, *shape), self.dtype)
            for name, shape in described["features"].items()
        }
        self.names = list(self._arrays)

    def read(
        self,
        index: Tensor,
        view: Tensor | int,
        names: Collection[str] | None = None,
        device: torch.device | str | None = None,
    ) -> dict[str, Tensor]:
        """Features (n ...) of samples by name, as float32.

        Args:
            index: Where the samples stand in the data set (n), in any order, repeated or not. On an accelerator,
                reading it waits for the device.
            view: The view of all of them, or of each (n).
            names: Which features; all if None.
            device: Where they are to be; the index's if None.

        Raises:
            KeyError: For a name that is not there, with those that are.
            ValueError: For an index or a view that is out of range, or no integer.
        """
        for name in names or ():
            if name not in self._arrays:
                raise KeyError(f"needs a feature named {name!r}, got {sorted(self._arrays)}")
        rows = _in_range("index", index, self.samples)
        views = _in_range("view", torch.as_tensor(view), self.views)
        if rows.ndim != 1 or views.shape not in ((), rows.shape):
            raise ValueError(
                f"needs indices of shape (n), and one view or as many, got {rows.shape} indices and {views.shape} views"
            )
        where = index.device if device is None else torch.device(device)
        chosen = self.names if names is None else names
        return {name: torch.from_numpy(self._arrays[name][views, rows]).to(where).float() for name in chosen}

    def check_teacher(self, teacher: nn.Module, features: Spec | None = None) -> None:
        """Raise unless the cache was made with this teacher and these features; needs no data.

        Args:
            teacher: The model.
            features: Which activations, as they were given to :func:`~graphkd.cache.build_cache`.

        Raises:
            ValueError: For others, with what differs.
        """
        self._compare(teacher_made_of(teacher, features))

    def _compare(self, made_of: Mapping[str, Mapping[str, Any]]) -> None:
        differs = differences(self.made_of, made_of)
        if differs:
            raise ValueError(f"the teacher cache {self.folder} needs to be made of the same; {'; '.join(differs)}")

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "made_of": self.made_of}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(array.shape[2:])}" for name, array in self._arrays.items())
        return f"TeacherCache({self.samples} samples in {self.views} views as {self.dtype}: {shapes})"


def description(folder: Path) -> dict[str, Any]:
    """What a cache's folder says of itself.

    Raises:
        ValueError: For a folder that is none.
    """
    try:
        described = json.loads((folder / DESCRIPTION).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"needs the folder of a teacher cache, with a {DESCRIPTION}, got {folder}") from error
    if not isinstance(described, dict) or described.get("kind") != KIND:
        raise ValueError(f"{folder / DESCRIPTION} needs to begin with {KIND!r}, got something else")
    return described


def file_name(feature: str) -> str:
    """The file of a feature, whatever its name.

    >>> file_name("layer3/0")
    'layer3%2F0.npy'
    """
    return f"{quote(feature, safe='')}.npy"


def _mapped(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    # A file that is shorter than it says is refused here, and not by a signal in the middle of training.
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} needs {math.prod(shape)} numbers, which cannot be read: {error}") from error
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{path} needs {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}")
    return array


def _in_range(name: str, x: Tensor, size: int) -> np.ndarray:
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"{name} needs integers, got {x.dtype}")
    x = x.cpu()
    wrong = x[(x < 0) | (x >= size)]
    if len(wrong):
        raise ValueError(f"{name} needs numbers from 0 to {size - 1}, got {int(wrong[0])}")
    return x.numpy()
