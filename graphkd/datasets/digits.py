"""Handwritten digits that come with scikit-learn: 1797 grey images of 8 x 8, ten classes.

Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

import torch
from lightning import LightningDataModule
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from graphkd import checks
from graphkd.datasets.sampling import EpochShuffle, InOrder
from graphkd.datasets.splitting import few_labels

Images = tuple[Tensor, Tensor]

TRAIN, VALIDATION, TEST = 1000, 200, 597


class DigitsData(LightningDataModule):
    """Digits in a fixed split: 1000 to train on, 200 to choose settings on, 597 to test on once.

    Nothing is augmented, so each image has one view.

    Args:
        labels_per_class: How many training images of each class keep their label; the others are labelled -100. All, if
            None.
        batch_size: Images per batch.
        seed: Of the choice of labelled images and of the order of batches. The split does not depend on it.
        with_index: Whether training batches are (images, labels, index), for criteria with a memory; the index is an
            image's place among the 1000.
        with_view: Whether they are (images, labels, index, view), for what is kept of each image; the view is 0.

    Raises:
        ValueError: For more labels per class than the rarest class has.

    >>> images, labels = next(iter(DigitsData(labels_per_class=10).train_dataloader()))
    >>> tuple(images.shape)
    (64, 1, 8, 8)
    """

    num_classes = 10
    views = 1

    def __init__(
        self,
        labels_per_class: int | None = None,
        batch_size: int = 64,
        seed: int = 0,
        with_index: bool = False,
        with_view: bool = False,
    ) -> None:
        super().__init__()
        checks.at_least("batch_size", batch_size, 1)
        self.batch_size, self.seed, self.with_index, self.with_view = batch_size, seed, with_index, with_view
        self.train, self.validation, self.test = _splits()
        if labels_per_class is not None:
            self.train = (self.train[0], few_labels(self.train[1], labels_per_class, seed))

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches, differently in each epoch."""
        index = torch.arange(len(self.train[1]))
        more = [index, torch.zeros_like(index)] if self.with_view else [index] if self.with_index else []
        # A generator of its own, so that starting an epoch draws nothing from the global one.
        return DataLoader(
            TensorDataset(*self.train, *more),
            self.batch_size,
            sampler=EpochShuffle(len(index), self.seed, self.batch_size),
            generator=torch.Generator().manual_seed(self.seed),
        )

    def train_view_dataloader(self, view: int = 0) -> DataLoader:
        """The training images in order, as (images, labels, index).

        Raises:
            ValueError: For another view than 0, the only one.
        """
        if view != 0:
            raise ValueError(f"needs a view in 0..0, since nothing is augmented, got {view}")
        return _in_order(*self.train, torch.arange(len(self.train[1])))

    def val_dataloader(self) -> DataLoader:
        """The images that settings are chosen on."""
        return _in_order(*self.validation)

    def test_dataloader(self) -> DataLoader:
        """The images that nothing is chosen on."""
        return _in_order(*self.test)


def _splits() -> tuple[Images, Images, Images]:
    pixels, digits = load_digits(return_X_y=True)
    images = torch.as_tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    images = (images - 0.305) / 0.376  # mean and deviation of all pixels
    labels = torch.as_tensor(digits, dtype=torch.int64)
    rest, test = train_test_split(range(len(labels)), test_size=TEST, random_state=0, stratify=labels)
    train, validation = train_test_split(rest, test_size=VALIDATION, random_state=0, stratify=labels[rest])
    return tuple((images[part], labels[part]) for part in (train, validation, test))  # pyright: ignore


def _in_order(*tensors: Tensor) -> DataLoader:
    dataset = TensorDataset(*tensors)
    return DataLoader(dataset, 256, sampler=InOrder(len(dataset)), generator=torch.Generator().manual_seed(0))
