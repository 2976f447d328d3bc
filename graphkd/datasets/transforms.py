"""How images are augmented and normalised, as the field's protocols have it, by torchvision's transforms."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphkd.typing import Real

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and deviation of red, green and blue, in [0, 1]."""

CIFAR100: Statistics = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
"""As in Tian et al., "Contrastive Representation Distillation", ICLR 2020, arXiv:1910.10699 (CRD): dataset/cifar100.py
of HobbitLong/RepDistiller. CRD's protocol also has the crop, the flip, and batches of 64."""

CIFAR10: Statistics = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
"""The training images' own, rounded; CRD's protocol has no CIFAR-10."""

TINY_IMAGENET: Statistics = ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262))
"""As in mdistiller/dataset/tiny_imagenet.py of megvii-research/mdistiller, with the rotation and the flip."""

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""As torchvision's models expect it, and mdistiller/dataset/imagenet.py, with crop and flip as there."""

ROTATION = 20
"""Degrees to either side, for Tiny-ImageNet."""

RESIZED = 256 / 224
"""The short side of a test image, before its centre is cut out, over the side of what is cut out."""


def crop_and_flip(statistics: Statistics, size: int, padding: int) -> Callable[[Any], Tensor]:
    """Cut a square out of the image padded with black, and mirror it half of the time.

    >>> _ = torch.manual_seed(0)
    >>> crop_and_flip(CIFAR100, 32, 4)(torch.zeros(3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([3, 32, 32])
    """
    from torchvision.transforms import v2

    return v2.Compose([v2.RandomCrop(size, padding), v2.RandomHorizontalFlip(), *_normalised(*statistics)])


def rotate_and_flip(statistics: Statistics, degrees: int) -> Callable[[Any], Tensor]:
    """Turn the image by up to so many degrees, black outside, and mirror it half of the time.

    >>> rotate_and_flip(TINY_IMAGENET, ROTATION)(torch.zeros(3, 64, 64, dtype=torch.uint8)).shape
    torch.Size([3, 64, 64])
    """
    from torchvision.transforms import v2

    return v2.Compose([v2.RandomRotation([-degrees, degrees]), v2.RandomHorizontalFlip(), *_normalised(*statistics)])


def resized_crop_and_flip(mean: Sequence[Real], std: Sequence[Real], size: int) -> Callable[[Any], Tensor]:
    """Cut a random rectangle out, of 8 % of the image or more, scale it to a square, and mirror it half of the time.

    >>> resized_crop_and_flip(*IMAGENET, size=8)(torch.zeros(3, 20, 30, dtype=torch.uint8)).shape
    torch.Size([3, 8, 8])
    """
    from torchvision.transforms import v2

    return v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *_normalised(mean, std)])


def centre(mean: Sequence[Real], std: Sequence[Real], size: int) -> Callable[[Any], Tensor]:
    """Scale the image's short side to 8/7 of the size, and cut the middle out.

    >>> centre(*IMAGENET, size=8)(torch.zeros(3, 20, 30, dtype=torch.uint8)).shape
    torch.Size([3, 8, 8])
    """
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(round(RESIZED * size)), v2.CenterCrop(size), *_normalised(mean, std)])


def as_it_is(statistics: Statistics) -> Callable[[Any], Tensor]:
    """Normalise, nothing else.

    >>> as_it_is(CIFAR100)(torch.zeros(3, 1, 1, dtype=torch.uint8)).flatten()
    tensor([-1.8957, -1.8975, -1.5965])
    """
    from torchvision.transforms import v2

    return v2.Compose(_normalised(*statistics))


def _normalised(mean: Sequence[Real], std: Sequence[Real]) -> list[Any]:
    from torchvision.transforms import v2

    return [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
