"""Data that are tensors in memory."""

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from graphkd import checks
from graphkd.datasets.sampling import EpochShuffle, InOrder
from graphkd.datasets.splitting import few_labels

Labelled = tuple[Tensor, Tensor]
"""Inputs and their labels."""


class TensorData(LightningDataModule):
    """Inputs and labels that are tensors in memory. They are used as they are, so each has one view.

    Args:
        train: Inputs and labels (n) to train on; of these classes, from 0, are all labels.
        validation: To choose settings on.
        test: To test on once.
        labels_per_class: How many training samples of each class keep their label; the others are labelled -100. All,
            if None.
        batch_size: Samples per batch.
        seed: Of the choice of labelled samples and of the order of batches.
        with_index: Whether training batches are (inputs, labels, index), for criteria with a memory; the index is a
            sample's place in ``train``.
        with_view: Whether they are (inputs, labels, index, view), for what is kept of each sample; the view is 0.

    Raises:
        ValueError: For inputs without as many labels, and more labels per class than the rarest class has.

    >>> part = (torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
    >>> data = TensorData(part, part, part, batch_size=3, with_index=True)
    >>> [tuple(each.shape) for each in next(iter(data.train_dataloader()))]
    [(3, 4), (3,), (3,)]
    """

    views = 1

    def __init__(
        self,
        train: Labelled,
        validation: Labelled,
        test: Labelled,
        labels_per_class: int | None = None,
        batch_size: int = 64,
        seed: int = 0,
        with_index: bool = False,
        with_view: bool = False,
    ) -> None:
        super().__init__()
        checks.at_least("batch_size", batch_size, 1)
        for name, (inputs, labels) in {"train": train, "validation": validation, "test": test}.items():
            if len(inputs) != len(labels) or not len(labels):
                raise ValueError(f"{name} needs a label for each input, got {len(inputs)} and {len(labels)}")
        self.batch_size, self.seed, self.with_index, self.with_view = batch_size, seed, with_index, with_view
        self.num_classes = int(train[1].max()) + 1
        self.train, self.validation, self.test = train, validation, test
        if labels_per_class is not None:
            self.train = (train[0], few_labels(train[1], labels_per_class, seed))

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
        """The training samples in order, as (inputs, labels, index).

        Raises:
            ValueError: For another view than 0, the only one.
        """
        if view != 0:
            raise ValueError(f"needs a view in 0..0, since nothing is augmented, got {view}")
        return _in_order(*self.train, torch.arange(len(self.train[1])))

    def val_dataloader(self) -> DataLoader:
        """The samples that settings are chosen on."""
        return _in_order(*self.validation)

    def test_dataloader(self) -> DataLoader:
        """The samples that nothing is chosen on."""
        return _in_order(*self.test)


def _in_order(*tensors: Tensor) -> DataLoader:
    dataset = TensorDataset(*tensors)
    return DataLoader(dataset, 256, sampler=InOrder(len(dataset)), generator=torch.Generator().manual_seed(0))
