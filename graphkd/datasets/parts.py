"""Parts of a labelled image set, each sample in views that seed, view and index alone decide."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

Key = int | tuple[int, int]
"""Which sample, or which sample in which view."""


@runtime_checkable
class Labelled(Protocol):
    """A labelled image set as torchvision has them."""

    @property
    def classes(self) -> Sequence[Any]:
        """The name of class c at place c."""
        ...

    @property
    def targets(self) -> Sequence[int]:
        """The class of each image."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        """An image, as a tensor of bytes (c h w) or of PIL, and its class."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory.

    Args:
        images: Of bytes.
        targets: The class of each.
        classes: The names of the classes.

    >>> ArrayImages(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), [0], ["cat"])[0][1]
    0
    """

    images: UInt8[Tensor, "n c h w"]
    targets: Sequence[int]
    classes: Sequence[str]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.targets[index]


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files.

    Args:
        paths: Where they are.
        targets: The class of each.
        classes: The names of the classes.

    >>> len(FileImages(["cat.png", "dog.png"], [0, 1], ["cat", "dog"]).paths)
    2
    """

    paths: Sequence[str]
    targets: Sequence[int]
    classes: Sequence[str]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return read_image(self.paths[index]), self.targets[index]


class Sample(NamedTuple):
    """What a loader collates: an image, its class or -100, its place in the part, and which view of it this is."""

    image: Float[Tensor, "c h w"]
    label: int
    index: int
    view: int


@dataclass(frozen=True, eq=False)
class Part(Dataset):
    """Some samples of an image set, as a transform shows them.

    Random transforms draw from PyTorch's generator for the CPU, which starts for each sample from a hash of seed, view
    and index. So what a sample looks like depends on nothing else: not on the process that loads it, nor on what was
    drawn before, and the generator is left as it was. Transforms must draw from no other generator.

    A key is (index, view), or an index alone for the part's own view.

    Args:
        source: The image set.
        rows: Which of its samples the part has.
        labels: Their classes, -100 for those whose class is not told.
        transform: From an image of the source to a tensor.
        seed: Of random transforms.
        view: Of keys that do not say it.

    >>> grey = ArrayImages(torch.full((2, 3, 4, 4), 128, dtype=torch.uint8), [0, 1], ["cat", "dog"])
    >>> noisy = Part(grey, torch.arange(2), torch.tensor([0, 1]), lambda image: image + torch.rand(3, 4, 4))
    >>> torch.equal(noisy[1, 5].image, noisy[1, 5].image), torch.equal(noisy[1, 5].image, noisy[1, 6].image)
    (True, False)
    """

    source: Labelled
    rows: Int[Tensor, " n"]
    labels: Int[Tensor, " n"]
    transform: Callable[[Any], Tensor]
    seed: int = 0
    view: int = 0

    @property
    def classes(self) -> Sequence[Any]:
        """The name of class c at place c."""
        return self.source.classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Key) -> Sample:
        index, view = key if isinstance(key, tuple) else (key, self.view)
        image, _ = self.source[int(self.rows[index])]
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed accelerators as well.
            torch.default_generator.manual_seed(_hash(self.seed, view, index))
            image = self.transform(image)
        return Sample(image, int(self.labels[index]), index, view)


def read_image(path: str) -> Any:
    """A file's image, in colour.

    Raises:
        ValueError: For a file that is missing, cut off or no image, with its path.
    """
    from torchvision.datasets.folder import pil_loader

    try:
        return pil_loader(path)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} needs to be a whole image, got one that cannot be read: {error}") from error


def _hash(seed: int, view: int, index: int) -> int:
    """32 bits, as many as PyTorch's generator for the CPU starts from, that differ for neighbours as for any others."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {view} {index}".encode(), digest_size=4).digest(), "little")
