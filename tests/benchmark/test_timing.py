import time

import pytest
import torch

from graphkd.benchmark.timing import paired_ratio, time_together


def test_rounds_alternate_after_a_warm_up():
    calls = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    timings = time_together(functions, 4, torch.device("cpu"))
    assert calls == ["a"] * 3 + ["b"] * 3 + ["a", "b"] * 4
    assert [len(timing.rounds) for timing in timings.values()] == [4, 4]


def test_slower_functions_take_longer():
    timings = time_together({"slow": lambda: time.sleep(0.02), "fast": lambda: None}, 3, torch.device("cpu"))
    assert timings["slow"].low <= timings["slow"].median <= timings["slow"].high
    assert timings["slow"].median >= 0.02
    assert paired_ratio(timings["fast"], timings["slow"]).median < 1


def test_ratio_of_unequally_many_rounds_is_refused():
    timings = time_together({"a": lambda: None}, 2, torch.device("cpu"))
    fewer = time_together({"a": lambda: None}, 1, torch.device("cpu"))
    with pytest.raises(ValueError, match="zip"):
        paired_ratio(timings["a"], fewer["a"])
