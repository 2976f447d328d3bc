import pytest
import torch


@pytest.fixture
def assert_golden():
    """Equal up to a share of the largest entry."""

    def check(actual, expected, share=1e-10):
        expected = expected.to(actual.dtype)
        largest = float(expected.abs().max())
        torch.testing.assert_close(actual.detach(), expected, rtol=0, atol=share * max(largest, 1e-300))

    return check
