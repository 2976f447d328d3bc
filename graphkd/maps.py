"""Feature maps of two networks, for losses that compare positions: of one size, or refused."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from graphkd import checks
from graphkd.features import called_with, pick
from graphkd.precision import raised
from graphkd.typing import Features


def check_named(maps: Sequence[str], size: int | None) -> None:
    """Raise unless maps are different names, fit to name terms, and size is none or that of a map."""
    if isinstance(maps, str) or not maps or len(set(maps)) < len(maps) or any("." in name for name in maps):
        raise ValueError(f"maps needs a sequence of different names without dots, got {maps!r}")
    if size is not None:
        checks.at_least("size", size, 1)


def sized(features: Features, name: str = "map", size: int | None = None) -> Shaped[Tensor, "n c h w"]:
    """A feature that is maps, in float32 at least, averaged to so many rows and columns by adaptive pooling if asked.

    Raises:
        KeyError: If it is not there.
        ValueError: For what is no feature map.

    >>> import torch
    >>> sized({"map": torch.zeros(2, 3, 8, 8)}, size=4).shape
    torch.Size([2, 3, 4, 4])
    """
    maps = pick(features, name)
    checks.maps(f"feature {name!r}", maps)
    maps = raised(maps)
    return maps if size is None else adaptive_avg_pool2d(maps, size)


def same_size(criterion: nn.Module, *names: str) -> None:
    """Let a criterion refuse features of these names whose height or width is not that of the teacher's.

    A hook of the criterion, since what builds a network's graphs does not see the other network.

    >>> import torch
    >>> from graphkd.losses import attention_transfer
    >>> attention_transfer()({"map": torch.zeros(2, 3, 8, 8)}, {"map": torch.zeros(2, 3, 4, 4)})
    Traceback (most recent call last):
    ValueError: needs maps 'map' of one size, got 8 x 8 and 4 x 4: give a `size` to average both to
    """
    criterion.register_forward_pre_hook(partial(_check_sizes, names), with_kwargs=True)


def _check_sizes(
    names: tuple[str, ...], criterion: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> None:
    student, teacher = called_with(arguments, named)
    for name in (name for name in names if name in student and name in teacher):
        ours, theirs = (side[name].shape[2:] for side in (student, teacher))
        if ours != theirs:
            sizes = " and ".join(" x ".join(map(str, size)) for size in (ours, theirs))
            raise ValueError(f"needs maps {name!r} of one size, got {sizes}: give a `size` to average both to")
