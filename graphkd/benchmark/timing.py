"""Time several functions against each other on one, possibly busy, machine."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from graphkd.typing import Real

FEWEST = 3
"""Rounds that are run however long they take, unless fewer were asked for."""
BLOCK = 0.02
"""Seconds that a function is called for, again and again, in each round."""
MOST_CALLS = 50
"""In a round, of one function."""
LONG = 1.0
"""Seconds of a call that what is in the caches before it no longer matters to."""


class Timing(NamedTuple):
    """Seconds of one function over all rounds, or the ratio of two functions' seconds.

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
    functions: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, seconds: Real = float("inf")
) -> dict[str, Timing]:
    """Time functions in alternation, so that a slow moment of the machine meets all of them.

    In each round each function is called once without being timed, and then for about 20 ms: as often as that takes, at
    least once, at most 50 times. What a round says is the time of one call. Single calls in alternation would charge a
    fast function for the caches that a slow one before it had filled: up to three times what it takes in a loop that
    calls nothing else. The rule is the same for all; calls of more than a second are timed at once.

    Args:
        functions: What to time, by name. Each is called twice first, so that what is compiled or loaded once is not
            timed.
        rounds: How often each is timed, at most.
        device: Where they run; an accelerator is waited for after each call.
        seconds: No round begins later than this, once three were run.

    >>> sorted(time_together({"a": lambda: None, "b": lambda: None}, 3, torch.device("cpu")))
    ['a', 'b']
    """
    once = {name: _block(function, 1, device) for name, function in functions.items()}
    measured: dict[str, list[float]] = {name: [] for name in functions}
    begin = time.perf_counter()
    for done in range(rounds):
        if done >= FEWEST and time.perf_counter() - begin > seconds:
            break
        for name, function in functions.items():
            calls = min(max(int(BLOCK / max(once[name], 1e-9)), 1), MOST_CALLS)
            measured[name].append(_block(function, calls, device, warm_up=once[name] <= LONG))
    return {name: summary(each) for name, each in measured.items()}


def _block(function: Callable[[], object], calls: int, device: torch.device, warm_up: bool = True) -> float:
    """Seconds of a call, in a block of several after one that is not timed."""
    if warm_up:
        function()
        _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        function()
        _wait(device)
    return (time.perf_counter() - start) / calls


def paired_ratio(numerator: Timing, denominator: Timing) -> Timing:
    """Ratio of two functions timed together, round by round.

    >>> paired_ratio(Timing(2, 2, 2, [2.0, 2.0]), Timing(4, 4, 4, [4.0, 4.0])).median
    0.5
    """
    return summary([above / below for above, below in zip(numerator.rounds, denominator.rounds, strict=True)])


def summary(values: list[float]) -> Timing:
    """Median and quartiles of the rounds.

    >>> summary([1.0, 2.0, 3.0]).low
    1.5
    """
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Timing(median, low, high, values)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
