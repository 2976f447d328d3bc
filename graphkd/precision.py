"""Numbers that stay right: costs, solvers and losses in float32 at least, and a root with a gradient at zero."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def raised(x: Tensor) -> Tensor:
    """Half precision in float32, anything else as it is.

    >>> raised(torch.zeros(1, dtype=torch.bfloat16)).dtype, raised(torch.zeros(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def root(x: Tensor) -> Tensor:
    """The square root of what is not negative, with gradient zero at zero.

    >>> root(torch.tensor([4.0, 0.0]))
    tensor([2., 0.])
    """
    zero = x == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, x).sqrt())


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast, which costs nothing where there is none to begin with.

    >>> with torch.autocast("cpu", torch.bfloat16), no_autocast(torch.device("cpu")):
    ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
    torch.float32
    """
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
