"""Handwritten digits that come with scikit-learn: 1797 grey images of 8 x 8, ten classes.

Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from graphkd.datasets.tensor_data import Labelled, TensorData

TRAIN, VALIDATION, TEST = 1000, 200, 597


class DigitsData(TensorData):
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

    def __init__(
        self,
        labels_per_class: int | None = None,
        batch_size: int = 64,
        seed: int = 0,
        with_index: bool = False,
        with_view: bool = False,
    ) -> None:
        super().__init__(*_splits(), labels_per_class, batch_size, seed, with_index, with_view)


def _splits() -> tuple[Labelled, Labelled, Labelled]:
    pixels, digits = load_digits(return_X_y=True)
    images = torch.as_tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    images = (images - 0.305) / 0.376  # mean and deviation of all pixels
    labels = torch.as_tensor(digits, dtype=torch.int64)
    rest, test = train_test_split(range(len(labels)), test_size=TEST, random_state=0, stratify=labels)
    train, validation = train_test_split(rest, test_size=VALIDATION, random_state=0, stratify=labels[rest])
    return tuple((images[part], labels[part]) for part in (train, validation, test))  # pyright: ignore
