import pytest
import torch
from layouts import Published, random_state, vgg
from torch.nn import functional as F

from graphkd.models import VGG, load_weights


def published(state: dict, x: torch.Tensor) -> torch.Tensor:
    net, height = Published(state), x.shape[2]
    for stage in range(5):
        halved = stage in (1, 2, 3) or (stage == 4 and height == 64)
        x = F.max_pool2d(x, 2) if halved else x
        for i in range(0, 12, 3):
            if f"block{stage}.{i}.weight" in state:
                x = F.relu(net.norm(f"block{stage}.{i + 1}", net.conv(f"block{stage}.{i}", x)))
    return net.head("classifier", x)


@pytest.mark.parametrize("height", [16, 64])
def test_published_weights_give_what_the_authors_compute(tmp_path, height):
    convolutions = (1, 2, 1, 1, 2)
    state = random_state(vgg(convolutions, classes=5))
    torch.save({"model": state}, tmp_path / "ckpt_epoch_240.pth")
    model = VGG(convolutions, num_classes=5).eval()
    load_weights(model, tmp_path / "ckpt_epoch_240.pth")
    images = torch.randn(1, 3, height, height, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(images), published(state, images), rtol=1e-4, atol=1e-4)


def test_the_classifier_begins_small():
    torch.manual_seed(0)
    classifier = VGG((1, 1, 1, 1, 1)).classifier
    assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert classifier.bias.abs().max() == 0


def test_a_stage_without_convolutions_or_channels_is_refused():
    with pytest.raises(ValueError, match="convolutions needs an integer of at least 1, got 0"):
        VGG((1, 1, 0, 1, 1))
    with pytest.raises(ValueError, match="widths needs an integer of at least 1, got 0"):
        VGG((1, 1, 1, 1, 1), widths=(1, 2, 3, 0, 5))


def test_widths_are_those_of_the_stages():
    model = VGG((1, 1, 2, 1, 1), num_classes=5, widths=(1, 2, 3, 4, 6))
    shapes = [tuple(getattr(model, f"block{i}")[-3].weight.shape[:2]) for i in range(5)]
    assert shapes == [(1, 3), (2, 1), (3, 3), (4, 3), (6, 4)]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5) and model.classifier.in_features == 6
