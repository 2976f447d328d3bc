"""Where half precision ends: costs, solvers and losses are computed in float32 at least."""

import torch
from torch import Tensor


def raised(x: Tensor) -> Tensor:
    """Half precision in float32, anything else as it is.

    >>> raised(torch.zeros(1, dtype=torch.bfloat16)).dtype, raised(torch.zeros(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
