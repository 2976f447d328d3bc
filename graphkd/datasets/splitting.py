"""Which samples are held out for validation, and which keep their label."""

import torch
from jaxtyping import Int
from sklearn.model_selection import train_test_split
from torch import Tensor

from graphkd import checks
from graphkd.typing import UNLABELLED, Real


def check_validation(validation: Real) -> None:
    """Raise unless that is a number of samples, or a share of all that leaves some.

    >>> check_validation(0.1)
    """
    if isinstance(validation, float):
        if not 0 <= validation < 1:
            raise ValueError(f"validation needs a share in [0, 1) or a number of samples, got {validation}")
    else:
        checks.at_least("validation", validation, 0)


def held_out(labels: Int[Tensor, " n"], validation: Real) -> tuple[Int[Tensor, " k"], Int[Tensor, " v"]]:
    """The places, in order, of the samples that are trained on, and of those that settings are chosen on.

    Every class has its share of both. The split depends on the labels only, never on a seed, so that runs of different
    seeds are measured on the same samples.

    Args:
        labels: The class of each sample.
        validation: How many are held out, or which share of all.

    Raises:
        ValueError: Where a class would be left without a sample on either side.

    >>> held_out(torch.tensor([0, 0, 1, 1]), 2)[1].shape
    torch.Size([2])
    """
    check_validation(validation)
    places = torch.arange(len(labels))
    count = round(validation * len(labels)) if isinstance(validation, float) else validation
    if validation == 0:
        return places, places[:0]
    per_class = labels.bincount()[labels.unique()]
    classes, rarest = len(per_class), int(per_class.min())
    if rarest < 2 or not classes <= count <= len(labels) - classes:
        raise ValueError(
            f"validation needs to leave each of {classes} classes images on both sides, got {count} of {len(labels)}, "
            f"and {rarest} of the rarest class"
        )
    kept, held = train_test_split(places.numpy(), test_size=count, random_state=0, stratify=labels.numpy())
    return torch.as_tensor(kept).sort().values, torch.as_tensor(held).sort().values


def few_labels(labels: Int[Tensor, " n"], per_class: int, seed: int) -> Int[Tensor, " n"]:
    """Keep the label of that many random samples of each class; the others are -100.

    Args:
        labels: The class of each sample.
        per_class: How many keep it.
        seed: Of the choice.

    Raises:
        ValueError: For more than the rarest class has.

    >>> few_labels(torch.tensor([0, 1, 0, 1]), per_class=1, seed=0).sort().values
    tensor([-100, -100,    0,    1])
    """
    checks.at_least("labels_per_class", per_class, 1)
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
