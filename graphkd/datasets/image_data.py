"""What the data modules of images share: parts, batches and views."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from graphkd import checks
from graphkd.datasets.parts import Labelled, Part, Sample
from graphkd.datasets.sampling import EpochShuffle, EpochViews, InOrder
from graphkd.datasets.splitting import check_validation, few_labels, held_out
from graphkd.typing import Real


class Sources(NamedTuple):
    """The image sets behind the parts; ``validation`` is None where there is no set of its own."""

    train: Labelled
    validation: Labelled | None
    test: Labelled


class Parts(NamedTuple):
    """What is trained on, what settings are chosen on, and what is tested on once."""

    train: Part
    validation: Part
    test: Part


class ImageData(LightningDataModule, ABC):
    """Batches of an image set. A subclass reads the images and says how they are transformed.

    Training batches are (images, labels), or more if asked, in an order that depends on seed and epoch, with an
    augmentation that depends on seed, view and index. In epoch e that is view e, or view e mod ``views``. So a run that
    goes on sees what it would have seen, with any number of workers.

    Nothing is read at construction, but when a loader, ``parts`` or ``setup`` first needs it.

    Attributes:
        views: In how many versions each training image exists: 1 without augmentation; None where each epoch has
            a new one.

    Args:
        validation: How many of the training images are held out, or which share of them, the same for all seeds and
            evenly over classes. With 0, all are trained on and **validation is the test split**, as in the field's
            protocols: then what is chosen by validation accuracy is chosen on the test images, and the reported number
            has to be the last epoch's.
        labels_per_class: How many training images of each class keep their label; the others are labelled -100. All, if
            None.
        batch_size: Images per batch.
        seed: Of the choice of labelled images, of the order of batches, and of the augmentation. The split does not
            depend on it.
        workers: Processes that load; 0 loads in the training process.
        augment: Whether training images are transformed at random.
        views: In how many versions each training image exists, for a cache of a teacher's features; None augments anew
            in each epoch.
        with_index: Whether training batches are (images, labels, index), for criteria with a memory; the index is an
            image's place in the training part.
        with_view: Whether they are (images, labels, index, view); the view is the version, and without ``views`` the
            epoch.

    Raises:
        ValueError: For numbers out of range, views without augmentation, without torchvision, and, when data are read,
            for more labels per class or more validation images than there are.
    """

    known_classes: int | None = None
    """How many classes the set has, where that is certain before it is read."""

    def __init__(
        self,
        *,
        validation: Real,
        labels_per_class: int | None,
        batch_size: int,
        seed: int,
        workers: int,
        augment: bool,
        views: int | None,
        with_index: bool,
        with_view: bool,
    ) -> None:
        super().__init__()
        need_torchvision()
        check_validation(validation)
        checks.at_least("batch_size", batch_size, 1)
        checks.at_least("seed", seed, 0)
        checks.at_least("workers", workers, 0)
        if labels_per_class is not None:
            checks.at_least("labels_per_class", labels_per_class, 1)
        if views is not None:
            checks.at_least("views", views, 1)
            if not augment and views > 1:
                raise ValueError(f"without augmentation there is one view, got views={views}")
        self.held_out, self.labels_per_class = validation, labels_per_class
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self.augment, self.views = augment, views if augment else 1
        self.with_index, self.with_view = with_index, with_view

    @abstractmethod
    def read(self) -> Sources:
        """Read the image sets."""

    @abstractmethod
    def train_transform(self) -> Callable[[Any], Tensor]:
        """From an image to an augmented tensor; it may draw from PyTorch's generator for the CPU and no other."""

    @abstractmethod
    def test_transform(self) -> Callable[[Any], Tensor]:
        """From an image to a tensor, without chance."""

    def setup(self, stage: str | None = None) -> None:
        """Read the images, if that has not been done."""
        _ = self.parts

    @property
    def num_classes(self) -> int:
        """How many classes there are; where only the data say it, they are read."""
        return len(self.parts.train.classes) if self.known_classes is None else self.known_classes

    @cached_property
    def parts(self) -> Parts:
        """The three parts, read when they are first needed.

        Raises:
            ValueError: For data that are missing or not whole, with what is needed, and see the class.
        """
        self.prepare_data()
        sources = self.read()
        for source in (each for each in sources if each is not None):
            if self.known_classes not in (None, len(source.classes)):
                raise ValueError(f"{type(self).__name__} needs {self.known_classes} classes, got {len(source.classes)}")
        targets = torch.as_tensor(sources.train.targets)
        if sources.validation is not None and self.held_out:
            raise ValueError(f"needs validation=0 for data with validation images of their own, got {self.held_out}")
        train, held = held_out(targets, self.held_out)
        labels = targets[train]
        if self.labels_per_class is not None:
            labels = few_labels(labels, self.labels_per_class, self.seed)
        still = self.test_transform()
        transform = self.train_transform() if self.augment else still
        test = _whole(sources.test, still)
        validation = test if sources.validation is None else _whole(sources.validation, still)
        if len(held):
            validation = Part(sources.train, held, targets[held], still)
        return Parts(Part(sources.train, train, labels, transform, self.seed), validation, test)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches, in each epoch in another order, and in the epoch's view."""
        part = self.parts.train
        order = EpochShuffle(len(part), self.seed, self.batch_size)
        return self._loader(
            part, EpochViews(order, self.views), columns=4 if self.with_view else 3 if self.with_index else 2
        )

    def train_view_dataloader(self, view: int = 0) -> DataLoader:
        """The training images in order, as an epoch of that view sees them: (images, labels, index).

        Args:
            view: From 0 to below ``views``; the epoch, where ``views`` is None.

        Raises:
            ValueError: For a view that does not exist.
        """
        checks.at_least("view", view, 0)
        if self.views is not None and view >= self.views:
            raise ValueError(f"needs a view in 0..{self.views - 1}, got {view}")
        part = dataclasses.replace(self.parts.train, view=view)
        return self._loader(part, InOrder(len(part)), columns=3)

    def val_dataloader(self) -> DataLoader:
        """The images that settings are chosen on, in order: (images, labels). See ``validation``."""
        return self._loader(self.parts.validation, InOrder(len(self.parts.validation)))

    def test_dataloader(self) -> DataLoader:
        """The images that nothing is chosen on, in order: (images, labels)."""
        return self._loader(self.parts.test, InOrder(len(self.parts.test)))

    def _loader(self, part: Part, sampler: EpochViews | InOrder, columns: int = 2) -> DataLoader:
        return DataLoader(
            part,
            self.batch_size,
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=partial(_collated, columns=columns),
            # Of its own, so that starting an epoch draws nothing from the global one.
            generator=torch.Generator().manual_seed(self.seed),
        )


def need_torchvision() -> None:
    """Raise unless torchvision is installed.

    >>> need_torchvision()
    """
    try:
        import torchvision  # noqa: F401
    except ImportError as error:
        raise ValueError("image data need torchvision, which is not installed: pip install graphkd[vision]") from error


def _whole(source: Labelled, transform: Callable[[Any], Tensor]) -> Part:
    labels = torch.as_tensor(source.targets)
    return Part(source, torch.arange(len(labels)), labels, transform)


def _collated(samples: Sequence[Sample], columns: int) -> list[Tensor]:
    return default_collate([tuple(sample[:columns]) for sample in samples])
