"""Means, deviations and intervals over seeds."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

from scipy.stats import t

from graphkd.typing import Real


class Estimate(NamedTuple):
    """A mean over seeds.

    Attributes:
        mean: Of the values.
        deviation: Their standard deviation; 0 for a single one.
        half: Half the width of the mean's 95 % interval, by Student's t; infinite for a single one.
        n: How many there are.
    """

    mean: float
    deviation: float
    half: float
    n: int


def estimate(values: Sequence[Real]) -> Estimate:
    """The mean of independent values, and how sure it is.

    >>> found = estimate([1.0, 2.0, 3.0])
    >>> found.mean, found.deviation, round(found.half, 2)
    (2.0, 1.0, 2.48)
    """
    n = len(values)
    if n == 1:
        return Estimate(float(values[0]), 0.0, float("inf"), 1)
    deviation = stdev(values)
    return Estimate(mean(values), deviation, float(t.ppf(0.975, n - 1)) * deviation / n**0.5, n)


def difference(values: Sequence[Real], others: Sequence[Real]) -> Estimate:
    """The mean difference of values that belong together, such as those of one seed.

    >>> difference([2.0, 3.0, 5.0], [1.0, 2.0, 3.0]).mean
    1.3333333333333333
    """
    return estimate([value - other for value, other in zip(values, others, strict=True)])
