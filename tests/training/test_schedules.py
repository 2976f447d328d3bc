"""Weight schedules against the numbers of published code, and over whole runs."""

import math
from pathlib import Path

import numpy as np
import pytest

from graphkd.training.schedules import ConstantThenCosine, LinearWarmup
from graphkd.typing import Schedule

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "wkd_schedule.npz")
BOTH = [ConstantThenCosine(2.0, 3), LinearWarmup(2.0, 3)]


def curve(schedule, epochs):
    return [schedule(epoch, epochs) for epoch in range(1, epochs + 1)]


@pytest.mark.parametrize(
    ("name", "schedule", "epochs"),
    [
        ("cifar_240_150_w600", ConstantThenCosine(600, 150), 240),
        ("imagenet_100_0_w30", ConstantThenCosine(30.0, 0), 100),
        ("imagenet_100_30_w0005", ConstantThenCosine(0.005, 30), 100),
    ],
)
def test_constant_then_cosine_is_the_authors(name, schedule, epochs):
    np.testing.assert_allclose(curve(schedule, epochs), GOLDEN[name], rtol=1e-12, atol=1e-12)


def test_the_cosine_ends_at_exactly_zero_and_never_goes_below():
    for epochs in (2, 7, 100, 240, 300):
        weights = curve(ConstantThenCosine(1.0, 1), epochs)
        assert weights[0] == 1.0
        assert weights[-1] == 0.0
        assert all(weight > 0 for weight in weights[:-1])


@pytest.mark.parametrize("epochs", [4, 5])
def test_the_weight_stays_where_the_run_ends_before_the_decay(epochs):
    assert curve(ConstantThenCosine(3, 5), epochs) == [3.0] * epochs


def test_the_warmup_rises_in_equal_steps_to_its_epoch_whatever_the_total():
    assert curve(LinearWarmup(6, 4), 6) == [1.5, 3.0, 4.5, 6.0, 6.0, 6.0]
    assert curve(LinearWarmup(6, 4), 2) == [1.5, 3.0]
    assert curve(LinearWarmup(6, 1), 2) == [6.0, 6.0]


@pytest.mark.parametrize("schedule", BOTH, ids=lambda schedule: type(schedule).__name__)
def test_a_schedule_is_an_unchanging_function_of_the_epoch(schedule):
    assert isinstance(schedule, Schedule)
    assert not isinstance(2.0, Schedule)
    assert all(isinstance(weight, float) for weight in curve(schedule, 5))
    with pytest.raises(AttributeError):
        schedule.weight = 1.0
    for epoch, epochs in ((0, 5), (6, 5), (-1, 5), (1, 0)):
        with pytest.raises(ValueError, match=rf"needs an epoch in 1\.\.{epochs}, counted from 1, got {epoch}"):
            schedule(epoch, epochs)


@pytest.mark.parametrize("weight", [-1, -0.5, math.nan, math.inf])
@pytest.mark.parametrize("kind", [ConstantThenCosine, LinearWarmup])
def test_a_weight_that_is_none_is_refused(kind, weight):
    with pytest.raises(ValueError, match="weight needs a finite number of at least 0, got"):
        kind(weight, 3)


def test_epochs_that_are_none_are_refused():
    with pytest.raises(ValueError, match="decay_from needs an integer of at least 0, got -1"):
        ConstantThenCosine(1.0, -1)
    with pytest.raises(ValueError, match="epochs needs an integer of at least 1, got 0"):
        LinearWarmup(1.0, 0)
