"""What methods are compared on."""

from collections import OrderedDict
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor, nn
from torch.nn import functional as F

from graphkd.benchmark.accuracy.images import Images
from graphkd.benchmark.accuracy.sentences import Sentences
from graphkd.datasets import DigitsData, SyntheticData, TensorData
from graphkd.datasets.tensor_data import Labelled
from graphkd.models import VGG, SmallCNN

Setting = Images | Sentences
"""What methods are compared on."""

MAPS = {"low": "body.0", "middle": "body.2", "map": "body"}
"""Feature maps of a small CNN at three depths."""

HIDDEN = 16
"""Width of the perceptron's features."""


def perceptron() -> nn.Module:
    """A perceptron on digits: nothing in it is a feature map.

    Its layers are normalized over the batch: else many a method's first steps put out its units for good.

    >>> import torch
    >>> perceptron()(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def layer(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())

    parts = {"flat": nn.Flatten(), "hidden": layer(64, 2 * HIDDEN), "feat": layer(2 * HIDDEN, HIDDEN)}
    return nn.Sequential(OrderedDict(parts | {"fc": nn.Linear(HIDDEN, 10)}))


def _labelled(labels_per_class: int | None, seed: int) -> LightningDataModule:
    return DigitsData(labels_per_class, seed=seed, with_index=True)


def _digits(title: str, student: Callable[[], nn.Module], labels: int | None, **more: Any) -> Images:
    teacher = partial(SmallCNN, 24)
    data = partial(_labelled, labels)
    return Images(title, teacher, student, data, DigitsData, samples=1000, epochs=30, teacher_epochs=15, **more)


@cache
def _flowers() -> tuple[Labelled, Labelled, Labelled]:
    """Synthetic images as they are: to train on, to choose settings on, and to test on."""
    parts = SyntheticData(40, 20, validation=1000, augment=False).parts
    train, validation, test = ((torch.stack([part[i].image for i in range(len(part))]), part.labels) for part in parts)
    return train, validation, test


class _HalvedVGG(VGG):
    """A VGG of 100 classes that sees images at half their size."""

    def __init__(self, width: int) -> None:
        super().__init__((2, 2, 1, 1, 1), 100, (width, 2 * width, 4 * width, 4 * width, 4 * width))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(F.avg_pool2d(images, 2))


SUITES: dict[str, dict[str, Setting]] = {
    "digits": {
        "full": _digits("all labels; a CNN of two channels", partial(SmallCNN, 2), None, maps=MAPS),
        "labels10": _digits("10 labels per class; a CNN of four channels", partial(SmallCNN, 4), 10, maps=MAPS),
        "labels5": _digits("5 labels per class; a CNN of four channels", partial(SmallCNN, 4), 5, maps=MAPS),
        "perceptron": _digits("10 labels per class; a perceptron", perceptron, 10, student_feat="feat"),
    },
    "synthetic": {
        "flowers": Images(
            "100 classes in 20 super-classes, 32 x 32; a narrow VGG from a wider one",
            teacher=partial(_HalvedVGG, 24),
            student=partial(_HalvedVGG, 8),
            data=lambda seed: TensorData(*_flowers(), seed=seed, with_index=True),
            teacher_data=partial(SyntheticData, 200, 20, data_seed=1),
            samples=3000,
            epochs=30,
            rate=0.02,
            ratios=(0.3, 2.0, 15.0, 100.0),
            teacher_epochs=12,
            maps={"low": "block1", "middle": "block2", "map": "block4"},
        )
    },
    "sentences": {"docstrings": Sentences()},
}
"""Suites by name, and in them settings by name, which have their teacher in common."""
