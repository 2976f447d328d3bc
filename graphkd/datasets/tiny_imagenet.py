"""Tiny-ImageNet: 200 classes of ImageNet, 100,000 + 10,000 labelled colour images of 64 x 64.

Le, Yang, "Tiny ImageNet Visual Recognition Challenge", course CS 231N, Stanford University, 2015.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from graphkd.datasets import transforms
from graphkd.datasets.archived_data import ArchivedData
from graphkd.datasets.archives import Archive
from graphkd.datasets.image_data import Sources
from graphkd.datasets.parts import FileImages

ARCHIVE = Archive(
    title="Tiny-ImageNet",
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    name="tiny-imagenet-200.zip",
    size=248_100_043,
    md5="90528d7ca1a48142e341f4ef8d21d0de",
    folder="tiny-imagenet-200",
    layout="with wnids.txt, train/<wnid>/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt",
)


class TinyImageNetData(ArchivedData):
    """Tiny-ImageNet, as mdistiller trains on it: rotated by up to 20 degrees, and flipped.

    Class c is the c-th WordNet identifier in alphabetical order, as for networks trained on a folder by torchvision.
    The published validation images are the test split, since those published for testing have no labels.

    Its folder is ``tiny-imagenet-200``, its archive ``tiny-imagenet-200.zip``. For the arguments see
    :class:`~graphkd.datasets.archived_data.ArchivedData`; for order, augmentation and views,
    :class:`~graphkd.datasets.image_data.ImageData`.

    Raises:
        ValueError: For bad settings; when data are read, for missing files, with what is needed, and for corrupt ones.

    >>> TinyImageNetData(workers=4).num_classes
    200
    """

    known_classes = 200
    train_per_class = 500
    test_images = 10_000

    def archive(self) -> Archive:
        """The course's."""
        return ARCHIVE

    def read(self) -> Sources:
        """List the images; they are read when they are needed."""
        folder = self.folder / self.archive().folder
        try:
            classes = sorted((folder / "wnids.txt").read_text().split())
            rows = [line.split("\t") for line in (folder / "val" / "val_annotations.txt").read_text().splitlines()]
        except FileNotFoundError as error:
            raise ValueError(f"{folder} needs to be {self._whole()}, got no {error.filename}") from error
        train = [self._of_class(folder / "train" / name / "images") for name in classes]
        test = [folder / "val" / "images" / row[0] for row in rows]
        there = sum(path.is_file() for path in test)
        if not len(test) == there == self.test_images:
            raise ValueError(
                f"{folder} needs to be {self._whole()}, got {there} of {len(test)} images of val/val_annotations.txt, "
                f"instead of {self.test_images}"
            )
        number = {name: c for c, name in enumerate(classes)}
        unknown = sorted({row[1] for row in rows} - number.keys())
        if unknown:
            raise ValueError(f"{folder / 'val'} needs classes of wnids.txt, got others: {', '.join(unknown[:3])}")
        paths = [(path, c) for c, of_class in enumerate(train) for path in of_class]
        return Sources(
            FileImages([path for path, _ in paths], [c for _, c in paths], classes),
            None,
            FileImages(list(map(str, test)), [number[row[1]] for row in rows], classes),
        )

    def train_transform(self) -> Callable[[Any], Tensor]:
        """A random rotation and a flip."""
        return transforms.rotate_and_flip(transforms.TINY_IMAGENET, transforms.ROTATION)

    def test_transform(self) -> Callable[[Any], Tensor]:
        """Normalised only."""
        return transforms.as_it_is(transforms.TINY_IMAGENET)

    def _of_class(self, folder: Path) -> list[str]:
        paths = sorted(str(path) for path in folder.glob("*.JPEG"))
        if len(paths) != self.train_per_class:
            raise ValueError(
                f"{folder} needs to be {self._whole()}, got {len(paths)} images instead of {self.train_per_class}"
            )
        return paths

    def _whole(self) -> str:
        name = self.archive().name
        return f"unpacked from {name} to the end (delete {self.archive().folder} to have it unpacked again)"
