"""What methods are compared on."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from lightning import LightningDataModule
from torch import nn

from graphkd.benchmark.accuracy.images import Images
from graphkd.benchmark.accuracy.sentences import Sentences
from graphkd.datasets import DigitsData, SyntheticData
from graphkd.models import VGG, SmallCNN

Setting = Images | Sentences
"""What methods are compared on."""

MAPS = {"low": "body.0", "middle": "body.2", "map": "body"}
"""Feature maps of a small CNN at three depths."""

HIDDEN = 16
"""Width of the perceptron's features."""


def perceptron() -> nn.Module:
    """A perceptron on digits: nothing in it is a feature map.

    >>> import torch
    >>> perceptron()(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    layers = [("flat", nn.Flatten()), ("hidden", nn.Linear(64, 2 * HIDDEN)), ("relu", nn.ReLU())]
    layers += [("deep", nn.Linear(2 * HIDDEN, HIDDEN)), ("feat", nn.ReLU()), ("fc", nn.Linear(HIDDEN, 10))]
    return nn.Sequential(OrderedDict(layers))


def _labelled(labels_per_class: int | None, seed: int) -> LightningDataModule:
    return DigitsData(labels_per_class, seed=seed, with_index=True)


def _digits(title: str, student: Callable[[], nn.Module], labels: int | None, **more: Any) -> Images:
    teacher = partial(SmallCNN, 24)
    data = partial(_labelled, labels)
    return Images(title, teacher, student, data, DigitsData, samples=1000, epochs=30, teacher_epochs=15, **more)


def _flowers(seed: int) -> LightningDataModule:
    """Synthetic images as they are, of which some are held out to choose settings on."""
    return SyntheticData(40, 20, validation=1000, seed=seed, augment=False, views=1, with_index=True)


def _vgg(width: int) -> nn.Module:
    return VGG((1, 1, 1, 1, 1), 100, (width, 2 * width, 4 * width, 6 * width, 6 * width))


SUITES: dict[str, dict[str, Setting]] = {
    "digits": {
        "full": _digits("all labels; a CNN of two channels", partial(SmallCNN, 2), None, maps=MAPS),
        "labels10": _digits("10 labels per class; a CNN of four channels", partial(SmallCNN, 4), 10, maps=MAPS),
        "labels5": _digits("5 labels per class; a CNN of four channels", partial(SmallCNN, 4), 5, maps=MAPS),
        "perceptron": _digits("10 labels per class; a perceptron", perceptron, 10, student_feat="feat"),
    },
    "synthetic": {
        "flowers": Images(
            "100 classes in 20 super-classes, 32 x 32; a narrow VGG-8 from a wider one",
            teacher=partial(_vgg, 16),
            student=partial(_vgg, 6),
            data=_flowers,
            teacher_data=partial(SyntheticData, 200, 20),
            samples=3000,
            epochs=15,
            teacher_epochs=12,
            maps={"low": "block1", "middle": "block2", "map": "block4"},
            tuning_seeds=(1000,),
        )
    },
    "sentences": {"docstrings": Sentences()},
}
"""Suites by name, and in them settings by name, which have their teacher in common."""
