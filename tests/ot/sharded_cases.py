"""What the tests of sharded_sinkhorn run in every process."""

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from graphkd import checks, parallel
from graphkd.ot import Relative, sharded_sinkhorn, sinkhorn

N = 4096
"""Rows and columns of the large problem."""


class Case(NamedTuple):
    cost: Tensor
    a: Tensor | None
    b: Tensor | None
    options: dict[str, Any]


class Solved(NamedTuple):
    """A transport in one process, and what its rows learn where the loss is the value, times 1, 2, ... by process."""

    plan: Tensor
    value: Tensor
    potentials: tuple[Tensor, Tensor]
    marginal_error: Tensor
    converged: Tensor
    num_iters: Tensor
    epsilon: Tensor
    gradients: tuple[Tensor | None, ...]


def shares(n: int) -> list[int]:
    """How many of n rows each process has: one the first, different numbers the others."""
    world = parallel.world()
    if world == 1:
        return [n]
    sizes = [1, *(n // world + k for k in range(world - 2))]
    return [*sizes, n - sum(sizes)]


def own(x: Tensor) -> Tensor:
    return x.split(shares(len(x)))[parallel.rank()]


def solved(cases: dict[str, Case]) -> dict[str, Solved]:
    return {name: _solved(case) for name, case in cases.items()}


def solved_unseen(cases: dict[str, Case]) -> dict[str, Solved]:
    """The same as on an accelerator, where the host does not look at numbers."""
    with patch.object(checks, "can_look", lambda tensor: False):
        return solved(cases)


def _solved(case: Case) -> Solved:
    rows = own(case.cost), None if case.a is None else own(case.a), case.b
    leaves = [None if x is None else x.clone().requires_grad_() for x in rows]
    with torch.autocast("cpu", torch.bfloat16):
        transport = sharded_sinkhorn(*leaves, **case.options)
    (transport.value * (parallel.rank() + 1)).backward()
    return Solved(
        transport.plan.detach(),
        transport.value.detach(),
        transport.potentials,
        transport.marginal_error,
        transport.converged,
        transport.num_iters,
        transport.epsilon,
        tuple(None if x is None else x.grad for x in leaves),
    )


def complaints(calls: dict[str, tuple[Case, int, Case]]) -> dict[str, str]:
    """What is said where one process is given another case than the others; nothing may be left behind."""
    found = {}
    for name, (case, which, other) in calls.items():
        cost, a, b, options = other if parallel.rank() == which else case
        try:
            sharded_sinkhorn(cost, a, b, **options)
            found[name] = "nothing"
        except ValueError as error:
            found[name] = str(error)
    return found


class Pair(nn.Module):
    """Two networks, whose masses are learned as well, and a cost with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.student, self.teacher, self.mass = nn.Linear(3, 2), nn.Linear(4, 2), nn.Linear(2, 1)
        self.scale = nn.Parameter(torch.tensor(1.3))
        self.double()

    def forward(self, x: Tensor, y: Tensor, solve: Callable[..., Any]) -> Tensor:
        student, teacher = self.student(x), self.teacher(y)
        everyone = parallel.gathered({"x": student})[0]["x"]
        columns = parallel.gathered({"x": teacher})[0]["x"]
        cost = self.scale * (student.unsqueeze(1) - columns).square().sum(-1)
        a, b = (self.mass(each).squeeze(-1).softmax(0) for each in (everyone, columns))
        return solve(cost, own(a), b, epsilon=0.5, num_iters=300).value


def learned(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The parameters' gradients, averaged over processes."""
    pair = Pair()
    many = parallel.world() > 1
    model = DistributedDataParallel(pair) if many else pair
    model(own(x), own(y), sharded_sinkhorn if many else sinkhorn).backward()
    return {name: p.grad for name, p in pair.named_parameters()}


def dies() -> None:
    """Sweeps without end, of which the second process does not see many."""
    if parallel.rank() == 1:
        threading.Timer(0.5, os._exit, (1,)).start()
    sharded_sinkhorn(torch.rand(8, 8), epsilon=0.1, num_iters=10**9, domain="log")


M_MMAP_THRESHOLD = -3


def large(folder: str) -> tuple[float, float]:
    """Solve the large problem, and save this process's rows; how many MiB that took with the cost, and the value."""
    # What is freed goes back to the system at once: else glibc keeps a matrix or not, as it happens.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)
    sharded_sinkhorn(torch.rand(64, 64, requires_grad=True), epsilon=0.001).value.backward()
    world, rank = parallel.world(), parallel.rank()
    before = _memory("VmRSS")
    # The same numbers for any number of processes.
    blocks = range(rank * 4 // world, (rank + 1) * 4 // world)
    cost = torch.empty(N // world, N)
    for k, rows in zip(blocks, cost.split(N // 4), strict=True):
        rows.uniform_(generator=torch.Generator().manual_seed(k))
    # From here on the highest is counted anew.
    Path("/proc/self/clear_refs").write_text("5")
    solve = sinkhorn if world == 1 else sharded_sinkhorn
    transport = solve(cost.requires_grad_(), epsilon=Relative(0.05), num_iters=20)
    taken = _memory("VmHWM") - before
    torch.save(transport.plan.detach(), Path(folder) / f"plan{rank}of{world}.pt")
    return taken, float(transport.value.detach())


def _memory(kind: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(kind)) / 1024
