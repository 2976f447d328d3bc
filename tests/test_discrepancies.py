"""Discrepancies and the factors that make their sums cheap."""

import pytest
import torch
from torch.nn import functional as F

from graphkd.discrepancies import Factored, mse, smooth_l1


def test_squared_difference_is_the_sum_of_its_factors():
    student, teacher = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    factored = mse.f1(student) + mse.f2(teacher) - mse.h1(student) * mse.h2(teacher)
    torch.testing.assert_close(factored, (student - teacher) ** 2)
    torch.testing.assert_close(mse(student, teacher), (student - teacher) ** 2)


def test_squared_difference_passes_gradcheck_by_either_route():
    pair = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(mse, pair)
    assert torch.autograd.gradcheck(lambda s, t: mse.f1(s) + mse.f2(t) - mse.h1(s) * mse.h2(t), pair)


@pytest.mark.parametrize("gap, wanted", [(0.0, 0.0), (0.5, 0.125), (-0.5, 0.125), (1.0, 0.5), (3.0, 2.5), (-3.0, 2.5)])
def test_smooth_l1_is_quadratic_near_zero_and_linear_beyond_one(gap, wanted):
    assert smooth_l1(torch.tensor([2.0 + gap]), torch.tensor([2.0])).item() == pytest.approx(wanted)


def test_smooth_l1_is_elementwise_and_not_factored():
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    assert smooth_l1(student, teacher).shape == (4, 5)
    torch.testing.assert_close(smooth_l1(student, teacher).mean(), F.smooth_l1_loss(student, teacher))
    assert not isinstance(smooth_l1, Factored)
