"""A synthetic image set in CIFAR-100's shape: drawn by formulas, for trying things without any download."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from graphkd import checks
from graphkd.datasets import transforms
from graphkd.datasets.image_data import ImageData, Sources
from graphkd.datasets.parts import ArrayImages
from graphkd.typing import Real

SUPERCLASSES, PER_SUPERCLASS = 20, 5
HUES, FEWEST_PETALS = 5, 2
SIDE = 32

SPREAD = 0.4
"""How far samples are from their class's traits, as a deviation; neighbours in a super-class are 1.18 apart."""

DRAWN_AT_ONCE = 1000

STATISTICS: transforms.Statistics = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class SyntheticData(ImageData):
    """Synthetic images, no real ones: 32 x 32 in colour, 100 classes in 20 super-classes of five.

    Each image is a flower on a plain ground. A super-class has its hue (of five) and its kind (of four): the number of
    petals, and a pattern of stripes, checks, rings or a grid. The five classes in it differ in three traits by a
    little, with chance in each sample: the exact hue, how fine the pattern is, and how deep the petals are cut. Place,
    size, turn, light, ground and noise are by chance. So classes of a super-class are harder to tell apart than others,
    and no network tells all: what relates classes has something to find. Class c is in super-class c // 5.

    Augmented as CIFAR-100 is in CRD's protocol. Numbers on it say nothing about real images. See
    :class:`~graphkd.datasets.image_data.ImageData` for order, augmentation and views.

    Args:
        train_per_class: Training images of each class.
        test_per_class: Test images of each class.
        data_seed: Of the images.
        validation: How many of the training images are held out, or which share. With 0, validation is the test split.
        labels_per_class: How many training images of each class keep their label; the others are labelled -100.
        batch_size: Images per batch.
        seed: Of labelled images, order and augmentation. Neither images nor split depend on it.
        workers: Processes that load; 0 loads in the training process.
        augment: Whether training images are cropped and flipped at random.
        views: In how many versions each training image exists; None augments anew in each epoch.
        with_index: Whether training batches are (images, labels, index).
        with_view: Whether they are (images, labels, index, view).

    Raises:
        ValueError: For bad settings.

    >>> data = SyntheticData(train_per_class=2, test_per_class=1, batch_size=8, with_index=True)
    >>> [tuple(x.shape) for x in next(iter(data.train_dataloader()))]
    [(8, 3, 32, 32), (8,), (8,)]
    """

    known_classes = SUPERCLASSES * PER_SUPERCLASS

    def __init__(
        self,
        train_per_class: int = 100,
        test_per_class: int = 20,
        data_seed: int = 0,
        *,
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
        checks.at_least("train_per_class", train_per_class, 1)
        checks.at_least("test_per_class", test_per_class, 1)
        checks.at_least("data_seed", data_seed, 0)
        self.train_per_class, self.test_per_class, self.data_seed = train_per_class, test_per_class, data_seed

    def read(self) -> Sources:
        """Draw the images."""
        # Even seeds for the one and odd ones for the other, so that no two sets share images.
        train = drawn(self.train_per_class, 2 * self.data_seed)
        return Sources(train, None, drawn(self.test_per_class, 2 * self.data_seed + 1))

    def train_transform(self) -> Callable[[Any], Tensor]:
        """A random crop of 32 x 32, padded by 4, and a flip."""
        return transforms.crop_and_flip(STATISTICS, size=SIDE, padding=4)

    def test_transform(self) -> Callable[[Any], Tensor]:
        """Normalised only."""
        return transforms.as_it_is(STATISTICS)


def superclass(label: int) -> int:
    """The super-class of a class.

    >>> superclass(0), superclass(4), superclass(99)
    (0, 0, 19)
    """
    return label // PER_SUPERCLASS


def drawn(per_class: int, seed: int) -> ArrayImages:
    """So many images of each class, in a random order.

    >>> len(drawn(per_class=1, seed=0).targets)
    100
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(SUPERCLASSES * PER_SUPERCLASS).repeat(per_class)
    labels = labels[torch.randperm(len(labels), generator=generator)]
    images = torch.cat([_flowers(some, generator) for some in labels.split(DRAWN_AT_ONCE)])
    names = [f"{superclass(c)}.{c % PER_SUPERCLASS}" for c in range(SUPERCLASSES * PER_SUPERCLASS)]
    return ArrayImages(images, labels.tolist(), names)


def traits() -> Float[Tensor, "c 3"]:
    """What the classes of a super-class differ in: a regular pentagon of radius 1, turned otherwise in each.

    >>> traits().norm(dim=1).std() < 1e-6
    tensor(True)
    """
    generator = torch.Generator().manual_seed(0)
    angles = 2 * math.pi * torch.arange(PER_SUPERCLASS) / PER_SUPERCLASS
    pentagon = torch.stack([angles.cos(), angles.sin(), torch.zeros(PER_SUPERCLASS)], dim=1)
    turns, _ = torch.linalg.qr(torch.randn(SUPERCLASSES, 3, 3, generator=generator))
    return (pentagon @ turns.mT).flatten(0, 1)


def _flowers(labels: Int[Tensor, " n"], generator: torch.Generator) -> UInt8[Tensor, "n 3 h w"]:
    """Images of these classes."""
    n = len(labels)

    def between(low: float, high: float) -> Float[Tensor, "n 1 1"]:
        return low + (high - low) * torch.rand(n, 1, 1, generator=generator)

    trait = traits()[labels] + SPREAD * torch.randn(n, 3, generator=generator)
    exact_hue, width, depth = (each.reshape(n, 1, 1) for each in trait.unbind(1))
    group = labels.reshape(n, 1, 1) // PER_SUPERCLASS
    kind = group // HUES
    hue = 2 * math.pi * (group % HUES) / HUES + 0.3 * exact_hue
    waves = 4 * 2 ** (0.4 * width)  # across the image
    cut = (0.28 + 0.13 * depth).clamp(0, 0.6)

    x, y = _grid()
    x, y = x - between(-0.25, 0.25), y - between(-0.25, 0.25)
    distance, turn = torch.hypot(x, y), between(0.0, 2 * math.pi)
    radius = between(0.55, 0.75) * (1 + cut * ((FEWEST_PETALS + kind) * (torch.atan2(y, x) - turn)).cos())
    flower = ((radius - distance) * SIDE / 2).sigmoid()
    turn, phase = between(0.0, 2 * math.pi), between(0.0, 2 * math.pi)
    along, across = (x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin())
    wave, crossed = ((math.pi * waves * place + phase).cos() for place in (along, across))
    ring = (math.pi * waves * distance + phase).cos()
    patterns = torch.stack([wave, wave * crossed, ring, torch.maximum(wave, crossed)])
    pattern = patterns.gather(0, kind.expand(1, n, SIDE, SIDE).contiguous()).squeeze(0)

    third = 2 * math.pi / 3 * torch.arange(3).reshape(1, 3, 1, 1)
    colour = 0.5 + 0.4 * (hue.unsqueeze(1) - third).cos()
    inside = colour * (0.65 + 0.35 * pattern).unsqueeze(1)
    ground = between(0.2, 0.8).unsqueeze(1)
    image = ground + flower.unsqueeze(1) * (inside - ground)
    image = image * between(0.7, 1.2).unsqueeze(1) + 0.05 * torch.randn(n, 3, SIDE, SIDE, generator=generator)
    return (255 * image).round().clamp(0, 255).to(torch.uint8)


def _grid() -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Where the pixels are, from -1 to 1."""
    places = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    y, x = torch.meshgrid(places, places, indexing="ij")
    return x, y
