"""Random transport problems, the plainest way to solve them, and the plainest way to differentiate."""

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


@pytest.fixture
def assert_slopes() -> Callable[..., None]:
    """A function that holds the gradients of a scalar function against central differences along random ways.

    Of the inputs named in ``masses`` by their place the sums are kept, and what is zero stays zero.
    """

    def check(
        function: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        masses: tuple[int, ...] = (1, 2),
        step: float = 1e-5,
        rel: float = 1e-5,
        abs: float = 1e-8,
    ) -> None:
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        gradients = torch.autograd.grad(function(*leaves), leaves)
        generator = torch.Generator().manual_seed(1)
        for place, gradient in enumerate(gradients):
            way = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype)
            if place in masses:
                alive = inputs[place] > 0
                way = torch.where(alive, way - (way * alive).sum(-1, keepdim=True) / alive.sum(-1, keepdim=True), 0.0)
            ends = [
                float(function(*(x + sign * step * way if k == place else x for k, x in enumerate(inputs))).detach())
                for sign in (1, -1)
            ]
            wanted = (ends[0] - ends[1]) / (2 * step)
            assert wanted != 0
            assert float((gradient * way).sum()) == pytest.approx(wanted, rel=rel, abs=abs)

    return check


@pytest.fixture(autouse=True)
def forget_what_was_logged() -> None:
    """Let every test see the first of each warning."""
    checks.log_once.cache_clear()


@pytest.fixture
def graphs() -> Callable[..., list[Tensor]]:
    """A function that gives a cost, two relations of at least 0.1 and two masses that are not uniform."""

    def make(
        n: int, m: int, *, batch=(), seed: int = 0, symmetric: bool = True, dtype: torch.dtype = torch.float64
    ) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def rand(*shape: int) -> Tensor:
            return torch.rand(*batch, *shape, generator=generator, dtype=dtype) + 0.1

        cost, student, teacher, a, b = rand(n, m), rand(n, n), rand(m, m), rand(n), rand(m)
        if symmetric:
            student, teacher = student + student.mT, teacher + teacher.mT
        return [cost, student, teacher, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)]

    return make
