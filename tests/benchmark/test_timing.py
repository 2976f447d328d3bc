import time

import pytest
import torch

from graphkd.benchmark import timing
from graphkd.benchmark.timing import paired_ratio, time_together

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A clock that only stands still or is moved: what a function takes is what it adds."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def taking(clock, seconds, calls, name):
    def function():
        clock.now += seconds
        calls.append(name)

    return function


def test_rounds_alternate_in_blocks_after_a_call_that_is_not_timed(clock):
    calls = []
    functions = {"fast": taking(clock, 0.008, calls, "fast"), "slow": taking(clock, 0.5, calls, "slow")}
    timings = time_together(functions, 3, CPU)
    first = ["fast"] * 2 + ["slow"] * 2
    assert calls == first + (["fast"] * (1 + 2) + ["slow"] * (1 + 1)) * 3
    assert timings["fast"].rounds == pytest.approx([0.008] * 3)
    assert timings["slow"].rounds == pytest.approx([0.5] * 3)


def test_a_block_is_of_fifty_calls_at_most(clock):
    calls = []
    time_together({"tiny": taking(clock, 1e-6, calls, "tiny")}, 1, CPU)
    assert len(calls) == 2 + 1 + 50
    calls.clear()
    time_together({"no time": taking(clock, 0.0, calls, "no time")}, 1, CPU)
    assert len(calls) == 2 + 1 + 50


def test_a_call_of_more_than_a_second_needs_no_call_before_it(clock):
    calls = []
    timings = time_together({"long": taking(clock, 1.5, calls, "long")}, 2, CPU)
    assert len(calls) == 2 + 2
    assert timings["long"].rounds == [1.5, 1.5]


def test_the_untimed_call_is_not_in_the_time(clock):
    calls = []

    def cold_first():
        # What comes after another function is slower.
        clock.now += 0.1 if not calls or calls[-1] == "other" else 0.01
        calls.append("own")

    functions = {"cold_first": cold_first, "other": taking(clock, 0.5, calls, "other")}
    assert time_together(functions, 4, CPU)["cold_first"].rounds == pytest.approx([0.01] * 4)


def test_no_round_begins_after_the_time_is_over_once_three_were_run(clock):
    slow = {"slow": taking(clock, 1.0, [], "slow")}
    assert len(time_together(slow, 10, CPU, seconds=1)["slow"].rounds) == 3
    assert len(time_together(slow, 10, CPU, seconds=9)["slow"].rounds) == 5
    assert len(time_together(slow, 2, CPU, seconds=1)["slow"].rounds) == 2


def test_slower_functions_take_longer():
    timings = time_together({"slow": lambda: time.sleep(0.02), "fast": lambda: None}, 3, CPU)
    assert timings["slow"].low <= timings["slow"].median <= timings["slow"].high
    assert timings["slow"].median >= 0.02
    assert paired_ratio(timings["fast"], timings["slow"]).median < 1


def test_ratio_of_unequally_many_rounds_is_refused():
    timings = time_together({"a": lambda: None}, 2, CPU)
    fewer = time_together({"a": lambda: None}, 1, CPU)
    with pytest.raises(ValueError, match="zip"):
        paired_ratio(timings["a"], fewer["a"])
