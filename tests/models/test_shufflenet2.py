import pytest
import torch
from layouts import SHUFFLE_V2, Published, random_state, shuffle_v2, shuffled
from torch.nn import functional as F

from graphkd.models import ShuffleNetV2, load_weights, shufflenet_v2


def published(state: dict, x: torch.Tensor) -> torch.Tensor:
    net = Published(state)
    x = F.relu(net.norm("bn1", net.conv("conv1", x)))
    for stage, (before, after, blocks) in enumerate(SHUFFLE_V2, 1):
        half, block = after // 2, f"layer{stage}.0"
        left = net.norm(f"{block}.bn1", net.conv(f"{block}.conv1", x, stride=2, groups=before))
        left = F.relu(net.norm(f"{block}.bn2", net.conv(f"{block}.conv2", left)))
        right = F.relu(net.norm(f"{block}.bn3", net.conv(f"{block}.conv3", x)))
        right = net.norm(f"{block}.bn4", net.conv(f"{block}.conv4", right, stride=2, groups=half))
        right = F.relu(net.norm(f"{block}.bn5", net.conv(f"{block}.conv5", right)))
        x = shuffled(torch.cat([left, right], 1), 2)
        for block in (f"layer{stage}.{i}" for i in range(1, blocks)):
            left, right = x[:, :half], x[:, half:]
            right = F.relu(net.norm(f"{block}.bn1", net.conv(f"{block}.conv1", right)))
            right = net.norm(f"{block}.bn2", net.conv(f"{block}.conv2", right, groups=half))
            right = F.relu(net.norm(f"{block}.bn3", net.conv(f"{block}.conv3", right)))
            x = shuffled(torch.cat([left, right], 1), 2)
    return net.head("linear", F.relu(net.norm("bn2", net.conv("conv2", x))))


def test_published_weights_give_what_the_authors_compute(tmp_path):
    state = random_state(shuffle_v2(classes=5))
    torch.save({"model": state}, tmp_path / "ckpt_epoch_240.pth")
    model = shufflenet_v2(num_classes=5).eval()
    load_weights(model, tmp_path / "ckpt_epoch_240.pth")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(images), published(state, images), rtol=1e-4, atol=1e-4)


def test_odd_widths_are_refused():
    with pytest.raises(ValueError, match=r"widths of the stages need even numbers, got \(8, 15, 32, 64\)"):
        ShuffleNetV2((1, 1, 1), (8, 15, 32, 64))


def test_a_stage_without_blocks_is_refused():
    with pytest.raises(ValueError, match="blocks needs an integer of at least 1, got 0"):
        ShuffleNetV2((1, 0, 1), (8, 16, 32, 64))
