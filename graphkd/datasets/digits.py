"""Handwritten digits that come with scikit-learn: 1797 grey images of 8 x 8, ten classes.

Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from collections.abc import Iterator

import torch
from lightning import LightningDataModule
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from graphkd import checks
from graphkd.typing import UNLABELLED

Images = tuple[Tensor, Tensor]

TRAIN, VALIDATION, TEST = 1000, 200, 597


class EpochShuffle(Sampler[int]):
    """A shuffle that depends on seed and epoch only, so that a resumed run sees the batches of an uninterrupted one.

    >>> sampler = EpochShuffle(4, seed=0)
    >>> sorted(sampler) == [0, 1, 2, 3] and list(sampler) == list(sampler)
    True
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is next; the trainer calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(self.size, generator=generator).tolist())

    def __len__(self) -> int:
        return self.size


class DigitsData(LightningDataModule):
    """Digits in a fixed split: 1000 to train on, 200 to choose settings on, 597 to test on once.

    Args:
        labels_per_class: How many training images of each class keep their label; the others are labelled -100. All, if
            None.
        batch_size: Images per batch.
        seed: Of the choice of labelled images and of the order of batches. The split does not depend on it.
        with_index: Whether training batches are (images, labels, index), for criteria with a memory; the index is an
            image's place among the 1000.

    Raises:
        ValueError: For more labels per class than the rarest class has.

    >>> images, labels = next(iter(DigitsData(labels_per_class=10).train_dataloader()))
    >>> tuple(images.shape)
    (64, 1, 8, 8)
    """

    def __init__(
        self, labels_per_class: int | None = None, batch_size: int = 64, seed: int = 0, with_index: bool = False
    ) -> None:
        super().__init__()
        checks.at_least("batch_size", batch_size, 1)
        self.batch_size, self.seed, self.with_index = batch_size, seed, with_index
        self.train, self.validation, self.test = _splits()
        if labels_per_class is not None:
            checks.at_least("labels_per_class", labels_per_class, 1)
            self.train = (self.train[0], _few(self.train[1], labels_per_class, seed))

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches, differently in each epoch."""
        index = [torch.arange(len(self.train[1]))] if self.with_index else []
        dataset = TensorDataset(*self.train, *index)
        # A generator of its own, so that starting an epoch draws nothing from the global one.
        return DataLoader(
            dataset,
            self.batch_size,
            sampler=EpochShuffle(len(dataset), self.seed),
            generator=torch.Generator().manual_seed(self.seed),
        )

    def val_dataloader(self) -> DataLoader:
        """The images that settings are chosen on."""
        return _in_order(self.validation)

    def test_dataloader(self) -> DataLoader:
        """The images that nothing is chosen on."""
        return _in_order(self.test)


def _splits() -> tuple[Images, Images, Images]:
    pixels, digits = load_digits(return_X_y=True)
    images = torch.as_tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    images = (images - 0.305) / 0.376  # mean and deviation of all pixels
    labels = torch.as_tensor(digits, dtype=torch.int64)
    rest, test = train_test_split(range(len(labels)), test_size=TEST, random_state=0, stratify=labels)
    train, validation = train_test_split(rest, test_size=VALIDATION, random_state=0, stratify=labels[rest])
    return tuple((images[part], labels[part]) for part in (train, validation, test))  # pyright: ignore


def _few(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Keep the label of that many random samples of each class."""
    smallest = int(labels.bincount().min())
    if per_class > smallest:
        raise ValueError(f"labels_per_class needs at most {smallest}, the rarest class's images, got {per_class}")
    generator = torch.Generator().manual_seed(seed)
    kept = torch.full_like(labels, UNLABELLED)
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        chosen = members[torch.randperm(len(members), generator=generator)[:per_class]]
        kept[chosen] = label
    return kept


def _in_order(images: Images) -> DataLoader:
    return DataLoader(TensorDataset(*images), 256, generator=torch.Generator().manual_seed(0))
