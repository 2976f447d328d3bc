"""How much each loss counts: numbers or schedules, of the task, of criteria and of their terms."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from graphkd import checks
from graphkd.loss import Criterion
from graphkd.typing import Real, Schedule

TASK = "task"
"""The name of the student's own loss among the weights and in the logs."""

TOTAL = "loss"
"""The name of the weighted sum in the logs."""


def constants_and_schedules(
    weights: Mapping[str, Real | Schedule], criteria: Mapping[str, Criterion], teachers: Sequence[str] = ()
) -> tuple[dict[str, float], dict[str, Schedule]]:
    """The weights that are numbers, one for the task and each criterion that is not named, and those that change.

    Args:
        weights: As given.
        criteria: By name.
        teachers: The names of several teachers, each of which may have a weight.

    Raises:
        ValueError: For names that are taken, unknown or ambiguous, for negative weights, and for nothing to minimise.

    >>> constants_and_schedules({"task": 2}, {})
    ({'task': 2.0}, {})
    """
    _check_names(criteria, teachers)
    constants: dict[str, float] = {}
    schedules: dict[str, Schedule] = {}
    for name, weight in (dict.fromkeys([TASK, *criteria], 1.0) | dict(weights)).items():
        known = _known(name, criteria, teachers)
        if name not in known:
            raise ValueError(f"weights needs names among {', '.join(known)}, got {name!r}")
        if isinstance(weight, Schedule):
            schedules[name] = weight
        else:
            checks.not_negative(f"the weight of {name!r}", weight)
            constants[name] = float(weight)
    if not criteria and constants.get(TASK) == 0:
        raise ValueError("needs something to minimise, got no criterion and weight 0 for the task")
    return constants, schedules


def scheduled(name: str, schedule: Schedule, epoch: int, epochs: int) -> float:
    """A schedule's weight in an epoch.

    Raises:
        ValueError: For an epoch that is not in 1..epochs, and a weight that is negative or not finite.

    >>> scheduled("kd", lambda epoch, epochs: epoch / epochs, 1, 4)
    0.25
    """
    checks.epoch(epoch, epochs)
    weight = schedule(epoch, epochs)
    checks.not_negative(f"the weight of {name!r} in epoch {epoch} of {epochs}", weight)
    return float(weight)


def times(weight: Real, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Weight times value; a zero that the value cannot spoil, NaN or infinite as it or its gradient may be, at zero.

    >>> times(0.0, torch.tensor(torch.nan)), times(2.0, torch.tensor(3.0))
    (tensor(0.), tensor(6.))
    """
    return torch.zeros_like(value) if weight == 0 else weight * value


def reaching(loss: Float[Tensor, ""], parameters: list[torch.nn.Parameter]) -> Float[Tensor, ""]:
    """The loss as it is; parameters that it does not depend on get gradient zero, and not none.

    So a loss of which every part has weight zero has a gradient, and distributed training, which waits for the
    gradient of each parameter, does not wait for ever.

    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> reaching(torch.tensor(1.0), [p]).backward()
    >>> p.grad
    tensor([0., 0.])
    """
    result = _Reaching.apply(loss, *parameters)
    assert isinstance(result, Tensor)
    return result


class _Reaching(torch.autograd.Function):
    @staticmethod
    def forward(loss: Tensor, *parameters: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return *gradients, *(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)


def _check_names(criteria: Mapping[str, Criterion], teachers: Sequence[str]) -> None:
    for name, taken in ((TASK, "the student's own loss"), (TOTAL, "the sum of all")):
        if name in criteria or name in teachers:
            raise ValueError(f"no criterion or teacher can be named {name!r}: that is {taken}")
    for name in teachers:
        if name in criteria:
            raise ValueError(f"no criterion can be named {name!r}: that is a teacher")
    for name, criterion in criteria.items():
        for term in criterion.terms:
            if f"{name}/{term}" in criteria:
                raise ValueError(f"no criterion can be named {f'{name}/{term}'!r}: that is a term of {name!r}")


def _known(name: str, criteria: Mapping[str, Criterion], teachers: Sequence[str]) -> list[str]:
    """The names that a weight may have: those of terms, where one of them was meant."""
    terms = [
        f"{owner}/{term}"
        for owner, criterion in criteria.items()
        if name.startswith(f"{owner}/")
        for term in criterion.terms
    ]
    return terms if terms and name not in criteria else [TASK, *criteria, *teachers]
