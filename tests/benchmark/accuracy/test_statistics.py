import pytest
from scipy import stats

from graphkd.benchmark.accuracy.statistics import difference, estimate

VALUES = [91.2, 90.4, 93.7, 92.2, 90.9]
OTHERS = [90.8, 90.6, 92.1, 91.0, 90.2]


def test_the_interval_is_that_of_students_t():
    found = estimate(VALUES)
    low, high = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert found.deviation == pytest.approx(stats.tstd(VALUES))
    assert found.n == 5


def test_differences_are_paired():
    found = difference(VALUES, OTHERS)
    low, high = stats.ttest_rel(VALUES, OTHERS).confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    unpaired = stats.ttest_ind(VALUES, OTHERS).confidence_interval(0.95)
    assert found.half < (unpaired.high - unpaired.low) / 2


def test_of_one_seed_nothing_is_sure():
    assert estimate([90.0]) == (90.0, 0.0, float("inf"), 1)


def test_what_belongs_together_has_partners():
    with pytest.raises(ValueError):
        difference([1.0, 2.0], [1.0])
