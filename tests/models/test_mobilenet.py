import pytest
import torch
from layouts import MOBILE, Published, mobile_half, random_state
from torch.nn import functional as F

from graphkd.models import MobileNetV2, load_weights, mobilenetv2


def published(state: dict, x: torch.Tensor) -> torch.Tensor:
    net = Published(state)
    x = F.relu(net.norm("conv1.1", net.conv("conv1.0", x, stride=2)))
    for group, i, before, after, expansion in MOBILE:
        block = f"blocks.{group}.{i}.conv"
        stride = 2 if (group, i) in ((2, 0), (3, 0), (5, 0)) else 1
        y = F.relu(net.norm(f"{block}.1", net.conv(f"{block}.0", x)))
        y = F.relu(net.norm(f"{block}.4", net.conv(f"{block}.3", y, stride, groups=before * expansion)))
        y = net.norm(f"{block}.7", net.conv(f"{block}.6", y))
        x = x + y if stride == 1 and before == after else y
    return net.head("classifier.0", F.relu(net.norm("conv2.1", net.conv("conv2.0", x))))


def test_published_weights_give_what_the_authors_compute(tmp_path):
    state = random_state(mobile_half(classes=5))
    torch.save({"model": state}, tmp_path / "ckpt_epoch_240.pth")
    model = mobilenetv2(num_classes=5).eval()
    load_weights(model, tmp_path / "ckpt_epoch_240.pth")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(images), published(state, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("width", "last"), [(0.5, 1280), (1, 1280), (1.5, 1920)])
def test_the_last_convolution_does_not_get_narrower(width, last):
    with torch.device("meta"):
        assert MobileNetV2(width).conv2[0].out_channels == last


@pytest.mark.parametrize(
    ("width", "match"),
    [
        (0, "width needs a finite number above 0, got 0"),
        (0.05, "channels at this width needs an integer of at least 1"),
    ],
)
def test_widths_without_channels_are_refused(width, match):
    with pytest.raises(ValueError, match=match):
        MobileNetV2(width)
