"""Random transport problems, and the plainest way to solve them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graphkd import checks

Problem = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def problem() -> Callable[..., Problem]:
    """A function of shape and seed that gives costs in [0, 1] and non-uniform masses that sum to one."""

    def make(
        n: int, m: int, *, batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float64, seed: int = 0
    ) -> Problem:
        generator = torch.Generator().manual_seed(seed)
        cost = torch.rand(*batch, n, m, generator=generator, dtype=dtype)
        a = torch.rand(*batch, n, generator=generator, dtype=dtype) + 0.2
        b = torch.rand(*batch, m, generator=generator, dtype=dtype) + 0.2
        return cost, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)

    return make


@pytest.fixture
def textbook() -> Callable[..., Tensor]:
    """The plan of the textbook's iteration, started from g = 0: there the scaling of a side is its mass."""

    def loop(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, sweeps: int, order: str, s: float = 0.0) -> Tensor:
        kernel = (-cost / epsilon).exp()
        u, v = a, b
        for _ in range(sweeps):
            if order == "rows_first":
                u = a / (kernel @ v + s)
                v = b / (kernel.T @ u + s)
            else:
                v = b / (kernel.T @ u + s)
                u = a / (kernel @ v + s)
        return u[:, None] * kernel * v

    return loop


@pytest.fixture(autouse=True)
def forget_what_was_logged() -> None:
    """Let every test see the first of each warning."""
    checks.log_once.cache_clear()
