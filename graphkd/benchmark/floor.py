"""What this machine cannot beat: the time to read a matrix once, and to take one exponential per entry."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

SMALLEST = 2**16
"""Entries that are read at least, so that it is the reading that takes the time, not the call."""

LARGE = 2**26
"""Entries of what no cache holds."""


class Floor(NamedTuple):
    """Seconds of one sweep over a float32 matrix.

    Attributes:
        cached: Each entry is read once, from the nearest memory that holds the matrix.
        memory: Each entry is read once from main memory.
        exp: One exponential per entry, at the rate of ``torch.exp``.
    """

    cached: float
    memory: float
    exp: float


def floor(entries: int, repeats: int = 15, large: int = LARGE) -> Floor:
    """The least time of a sweep over a matrix, from the bandwidth and the rate measured with torch's threads.

    Args:
        entries: Of the matrix, or of all matrices of a batch.
        repeats: How often each is measured; the middle one counts.
        large: Entries that are read to measure main memory.

    >>> least = floor(64, repeats=1, large=2**16)
    >>> least.cached > 0 and least.exp > 0
    True
    """
    read = max(entries, SMALLEST)
    share = entries / read
    x = torch.linspace(-20, 0, read)
    result = torch.empty_like(x)
    # A dot product with itself is the fastest thing that reads every entry once.
    cached = _seconds(lambda: torch.dot(x, x), repeats)
    exp = _seconds(lambda: torch.exp(x, out=result), repeats)
    parts = torch.ones(max(large, read)).split(read)
    memory = _seconds(lambda: [torch.dot(part, part) for part in parts], min(repeats, 3)) / len(parts)
    return Floor(share * cached, share * memory, share * exp)


def _seconds(function: Callable[[], object], repeats: int) -> float:
    function()
    measured: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        measured.append(time.perf_counter() - start)
    return sorted(measured)[len(measured) // 2]
