import pytest
import torch

from graphkd.models import SmallCNN


def test_features_are_four_times_the_width():
    model = SmallCNN(width=3, num_classes=5, in_channels=2)
    seen = []
    model.pool.register_forward_hook(lambda *args: seen.append(args[2]))
    assert model(torch.zeros(4, 2, 8, 8)).shape == (4, 5)
    assert seen[0].shape == (4, 12)


@pytest.mark.parametrize("name", ["width", "num_classes", "in_channels"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} needs an integer of at least 1, got 0"):
        SmallCNN(**{name: 0})
