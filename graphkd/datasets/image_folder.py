"""Images of one's own, in a folder for each class."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from graphkd import checks
from graphkd.datasets import transforms
from graphkd.datasets.image_data import ImageData, Sources
from graphkd.datasets.parts import read_image
from graphkd.typing import Real

LAYOUT = "train/<class>/<image> and test/<class>/<image>, or val/<class>/<image>, or both"


class ImageFolderData(ImageData):
    """Images in folders ``train/<class>``, and ``test/<class>`` or ``val/<class>`` or both, of the same classes.

    Where there are both, ``val`` is to choose settings on; where there is one, it is the test split, and ``validation``
    says what settings are chosen on. Class c is the c-th in alphabetical order. Training images are cut out, scaled and
    flipped as is usual for ImageNet. See :class:`~graphkd.datasets.image_data.ImageData` for order, augmentation and
    views.

    Args:
        folder: Where ``train`` is.
        size: Height and width of what networks see.
        mean: Of red, green and blue, in [0, 1]; ImageNet's, if omitted.
        std: Their deviations.
        validation: How many of the training images are held out, or which share. With 0, validation is ``val`` where
            there are ``val`` and ``test``, and else the test split.
        labels_per_class: How many training images of each class keep their label; the others are labelled -100.
        batch_size: Images per batch.
        seed: Of labelled images, order and augmentation. The split does not depend on it.
        workers: Processes that load; 0 loads in the training process.
        augment: Whether training images are cropped and flipped at random.
        views: In how many versions each training image exists; None augments anew in each epoch.
        with_index: Whether training batches are (images, labels, index).
        with_view: Whether they are (images, labels, index, view).

    Raises:
        ValueError: For bad settings; when data are read, for missing folders, for parts with different classes, and for
            files that are no whole images.

    >>> ImageFolderData("data/flowers", size=64, batch_size=32).batch_size
    32
    """

    evaluated: tuple[str, ...] = ("val", "test")

    def __init__(
        self,
        folder: str,
        *,
        size: int = 224,
        mean: Sequence[Real] = transforms.IMAGENET[0],
        std: Sequence[Real] = transforms.IMAGENET[1],
        validation: Real = 0,
        labels_per_class: int | None = None,
        batch_size: int = 64,
        seed: int = 0,
        workers: int = 0,
        augment: bool = True,
        views: int | None = None,
        with_index: bool = False,
        with_view: bool = False,
    ) -> None:
        super().__init__(
            validation=validation,
            labels_per_class=labels_per_class,
            batch_size=batch_size,
            seed=seed,
            workers=workers,
            augment=augment,
            views=views,
            with_index=with_index,
            with_view=with_view,
        )
        checks.at_least("size", size, 1)
        for name, three in (("mean", mean), ("std", std)):
            if len(three) != 3:
                raise ValueError(f"{name} needs three numbers, of red, green and blue, got {len(three)}")
        for each in std:
            checks.positive("std", each)
        self.folder, self.size, self.mean, self.std = Path(folder), size, tuple(mean), tuple(std)

    def prepare_data(self) -> None:
        """See that the folders are there."""
        there = [name for name in ("train", *self.evaluated) if (self.folder / name).is_dir()]
        if "train" not in there or len(there) < 2:
            raise ValueError(self._missing(there))

    def read(self) -> Sources:
        """List the images; they are read when they are needed."""
        train = self._part("train")
        others = [self._part(name) for name in self.evaluated if (self.folder / name).is_dir()]
        for other in others:
            if other.classes != train.classes:
                differ = sorted(set(train.classes) ^ set(other.classes))
                raise ValueError(f"{other.root} needs the classes of train, got others: {', '.join(differ[:5])}")
        return Sources(train, others[0] if len(others) == 2 else None, others[-1])

    def train_transform(self) -> Callable[[Any], Tensor]:
        """A random part of the image, scaled, and a flip."""
        return transforms.resized_crop_and_flip(self.mean, self.std, self.size)

    def test_transform(self) -> Callable[[Any], Tensor]:
        """The middle of the image, scaled."""
        return transforms.centre(self.mean, self.std, self.size)

    def _missing(self, there: list[str]) -> str:
        return (
            f"images are missing: needs {LAYOUT} in {self.folder.resolve()}, got "
            f"{'only ' + ' and '.join(there) if there else 'none of these folders'}"
        )

    def _part(self, name: str) -> Any:
        from torchvision.datasets import ImageFolder

        try:
            return ImageFolder(self.folder / name, loader=read_image)
        except FileNotFoundError as error:
            raise ValueError(f"{self.folder / name} needs a folder of images for each class, got: {error}") from error
