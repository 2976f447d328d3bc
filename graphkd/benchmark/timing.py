"""Time several functions against each other on one, possibly busy, machine."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    """Seconds of one function over all rounds.

    Attributes:
        median: The middle round.
        low: The first quartile.
        high: The third quartile.
        rounds: Each round's seconds, in order.
    """

    median: float
    low: float
    high: float
    rounds: list[float]


def time_together(
    functions: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, Timing]:
    """Time functions in alternation, so that a slow moment of the machine meets all of them.

    Args:
        functions: What to time, by name; each is run three times first.
        rounds: How often each is timed.
        device: Where they run; an accelerator is waited for.

    >>> sorted(time_together({"a": lambda: None, "b": lambda: None}, 3, torch.device("cpu")))
    ['a', 'b']
    """
    for function in functions.values():
        for _ in range(3):
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            _wait(device)
            start = time.perf_counter()
            function()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: _summary(measured) for name, measured in seconds.items()}


def paired_ratio(numerator: Timing, denominator: Timing) -> Timing:
    """Ratio of two functions timed together, round by round.

    >>> paired_ratio(Timing(2, 2, 2, [2.0, 2.0]), Timing(4, 4, 4, [4.0, 4.0])).median
    0.5
    """
    return _summary([above / below for above, below in zip(numerator.rounds, denominator.rounds, strict=True)])


def _summary(values: list[float]) -> Timing:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Timing(median, low, high, values)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
