"""A library's solver, ready to be timed and looked at: the same few calls for torch and for JAX."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

TorchSolve = Callable[..., tuple[Tensor, Callable[[], Tensor | None]]]
"""Inputs to the value to be differentiated and, on demand, the plan."""


class CannotRun(Exception):
    """Why a library is left out of a case: the sentence stands in its row."""


class Look(NamedTuple):
    """What a solver returns, in float64.

    Attributes:
        value: Summed over the batch.
        plan: The plan, or None where there is none.
        gradients: Of the value to each input; None where the solver gives none.
    """

    value: float
    plan: Tensor | None
    gradients: tuple[Tensor | None, ...]


class Run(NamedTuple):
    """A solver on its inputs.

    Attributes:
        forward: Computes the value, summed over the batch.
        both: Computes the value and its gradients.
        look: Says what they are.
    """

    forward: Callable[[], Any]
    both: Callable[[], object]
    look: Callable[[], Look]


@runtime_checkable
class Solver(Protocol):
    """Something that solves a problem on given inputs."""

    def on(self, inputs: Sequence[Tensor]) -> Run:
        """The solver on these inputs."""
        ...


@dataclass(frozen=True)
class Peer:
    """One line of a table.

    Attributes:
        library: Who wrote it.
        call: The function, and the setting.
        load: Imports the library and returns its solver.
        pip: What to install where that import fails.
        note: What a reader has to know about the line.
        same_problem: Whether it solves the problem that the others solve, so that its objective can be compared.

    >>> Peer("POT", "solve", load=lambda: None).name
    'POT solve'
    """

    library: str
    call: str
    load: Callable[[], Solver]
    pip: str = "graphkd"
    note: str = ""
    same_problem: bool = True

    @property
    def name(self) -> str:
        """Library and call."""
        return f"{self.library} {self.call}"


class InTorch:
    """A solver on tensors that records its gradient.

    Args:
        solve: Maps inputs to the value and, on demand, the plan.
        differentiated: The gradient is taken of the first so many inputs; of all if omitted.
    """

    def __init__(self, solve: TorchSolve, differentiated: int | None = None) -> None:
        self.solve, self.differentiated = solve, differentiated

    def on(self, inputs: Sequence[Tensor]) -> Run:
        """The solver on these inputs."""
        leaves = [x.detach().clone() for x in inputs]
        wanted = [x.requires_grad_() for x in leaves[: self.differentiated]]

        def forward() -> Tensor:
            with torch.no_grad():
                return self.solve(*inputs)[0].sum()

        def both() -> tuple[Tensor | None, ...]:
            value = self.solve(*leaves)[0].sum()
            if not value.requires_grad:
                return (None,) * len(wanted)
            return torch.autograd.grad(value, wanted, allow_unused=True)

        def look() -> Look:
            value, plan = self.solve(*leaves)
            found = plan()
            return Look(
                float(value.detach().double().sum()),
                None if found is None else found.detach().double(),
                tuple(None if x is None else x.double() for x in both()),
            )

        return Run(forward, both, look)


class InJax:
    """A solver on JAX arrays, compiled; its value is a scalar, or a vector that is summed.

    Args:
        solve: Maps inputs to the value and the plan.
        differentiated: The gradient is taken of the first so many inputs.
    """

    def __init__(self, solve: Callable[..., tuple[Any, Any]], differentiated: int) -> None:
        import jax

        def value(*inputs: Any) -> Any:
            return solve(*inputs)[0].sum()

        self.solve = jax.jit(solve)
        self.value = jax.jit(value)
        self.both = jax.jit(jax.value_and_grad(value, argnums=tuple(range(differentiated))))

    def on(self, inputs: Sequence[Tensor]) -> Run:
        """The solver on these inputs."""
        import jax

        double = inputs[0].dtype == torch.float64
        with _precision(double):
            arrays = [jax.numpy.asarray(x.detach().numpy()) for x in inputs]

        def forward() -> Any:
            with _precision(double):
                return self.value(*arrays).block_until_ready()

        def both() -> Any:
            with _precision(double):
                return jax.block_until_ready(self.both(*arrays))

        def tensor(array: Any) -> Tensor:
            return torch.from_numpy(np.array(array)).double()

        def look() -> Look:
            with _precision(double):
                plan = self.solve(*arrays)[1]
            value, gradients = both()
            return Look(float(value), tensor(plan), tuple(map(tensor, gradients)))

        return Run(forward, both, look)


def _precision(double: bool) -> AbstractContextManager[Any]:
    import jax

    if not double:
        return nullcontext()
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    # Where Python is 3.10, JAX is older, and has it elsewhere.
    return jax.experimental.enable_x64(True)  # pyright: ignore


def central_difference(
    solver: Solver, inputs: Sequence[Tensor], place: int, direction: Tensor, step: float = 1e-5
) -> float:
    """Slope of a solver's own value along a direction of one input.

    >>> solver = InTorch(lambda x: (x.square().sum(), lambda: None))
    >>> round(central_difference(solver, [torch.tensor([3.0], dtype=torch.float64)], 0, torch.ones(1)), 6)
    6.0
    """
    ends: list[float] = []
    for sign in (1, -1):
        moved = [x.detach().clone() for x in inputs]
        moved[place] = moved[place] + sign * step * direction
        ends.append(float(solver.on(moved).forward()))
    return (ends[0] - ends[1]) / (2 * step)


def judge_gradient(
    solver: Solver, inputs: Sequence[Tensor], directions: dict[str, Tensor], tolerance: float = 0.02
) -> str:
    """Compare a solver's gradients with the slopes of its own value.

    Args:
        solver: Whose gradients.
        inputs: In float64.
        directions: By the name of each differentiated input, in their order, a direction it may move along.
        tolerance: By what share of the slope a gradient may be off.

    Returns:
        ``right``, or what is wrong: the factor by which each gradient is off, or that there is none.

    >>> solver = InTorch(lambda x, y: ((x**2 + (y**2).detach()).sum(), lambda: None))
    >>> inputs = [torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)]
    >>> judge_gradient(solver, inputs, {"x": torch.ones(2), "y": torch.ones(2)})
    'none to y'
    """
    gradients = solver.on(inputs).look().gradients
    wrong: list[str] = []
    missing: list[str] = []
    for place, (name, direction) in enumerate(directions.items()):
        gradient = gradients[place]
        if gradient is None:
            missing.append(name)
            continue
        ratio = float((gradient * direction).sum()) / central_difference(solver, inputs, place, direction)
        if not abs(ratio - 1) <= tolerance:
            wrong.append(f"{name} × {ratio:.2f}")
    return "; ".join([*wrong, *([f"none to {', '.join(missing)}"] if missing else [])]) or "right"
