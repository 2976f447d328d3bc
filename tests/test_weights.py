"""Weights: what a zero does, and what reaches parameters that a loss leaves out."""

import pytest
import torch
from torch import nn

from graphkd.weights import constants_and_schedules, reaching, times


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 2.0])
def test_nothing_of_a_value_is_left_at_weight_zero(value):
    x = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    product = times(0.0, x)
    assert product == 0
    assert product.dtype == torch.float64
    assert not product.requires_grad


def test_a_value_is_multiplied_elsewhere():
    x = torch.tensor(2.0, requires_grad=True)
    times(-1.5, x).backward()
    assert x.grad == -1.5


def test_a_loss_reaches_what_it_leaves_out_and_changes_nothing_else():
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((2, 2), torch.nan, dtype=torch.float64))
    loss = reaching(used.square().sum(), [used, unused])
    (2 * loss).backward()
    assert loss == 3
    assert torch.equal(used.grad, torch.full((3,), 4.0))
    assert torch.equal(unused.grad, torch.zeros(2, 2, dtype=torch.float64))
    with torch.no_grad():
        assert not reaching(used.sum(), [used]).requires_grad


def test_numbers_and_schedules_are_told_apart():
    def schedule(epoch, epochs):
        return 1.0

    assert constants_and_schedules({"task": schedule}, {}) == ({}, {"task": schedule})
    assert constants_and_schedules({}, {}) == ({"task": 1.0}, {})
