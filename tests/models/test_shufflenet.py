import pytest
import torch
from layouts import SHUFFLE_V1, Published, random_state, shuffle_v1, shuffled
from torch.nn import functional as F

from graphkd.models import ShuffleNet, load_weights, shufflenet_v1


def published(state: dict, x: torch.Tensor) -> torch.Tensor:
    net = Published(state)
    x = F.relu(net.norm("bn1", net.conv("conv1", x)))
    for stage, (before, after, blocks) in enumerate(SHUFFLE_V1, 1):
        for i in range(blocks):
            block, groups = f"layer{stage}.{i}", 1 if (stage, i) == (1, 0) else 3
            inner = (after if i else after - before) // 4
            y = F.relu(net.norm(f"{block}.bn1", net.conv(f"{block}.conv1", x, groups=groups)))
            y = net.conv(f"{block}.conv2", shuffled(y, groups), stride=1 if i else 2, groups=inner)
            y = net.norm(f"{block}.bn3", net.conv(f"{block}.conv3", F.relu(net.norm(f"{block}.bn2", y)), groups=3))
            x = F.relu(y + x if i else torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1))
    return net.head("linear", x)


def test_published_weights_give_what_the_authors_compute(tmp_path):
    state = random_state(shuffle_v1(classes=5))
    torch.save({"model": state}, tmp_path / "ckpt_epoch_240.pth")
    model = shufflenet_v1(num_classes=5).eval()
    load_weights(model, tmp_path / "ckpt_epoch_240.pth")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(images), published(state, images), rtol=1e-4, atol=1e-4)


def test_a_stage_without_blocks_is_refused():
    with pytest.raises(ValueError, match="blocks needs an integer of at least 1, got 0"):
        ShuffleNet((1, 0, 1), (48, 96, 192))
