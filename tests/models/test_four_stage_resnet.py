import pytest
import torch
from layouts import Published, four_stages, random_state
from torch.nn import functional as F

from graphkd.models import FourStageResNet, load_weights


def published(state: dict, x: torch.Tensor) -> torch.Tensor:
    net = Published(state)
    x = F.relu(net.norm("bn1", net.conv("conv1", x)))
    for block in dict.fromkeys(".".join(name.split(".")[:2]) for name in state if name.startswith("layer")):
        stride = 2 if block in ("layer2.0", "layer3.0", "layer4.0") else 1
        if f"{block}.conv3.weight" in state:
            y = F.relu(net.norm(f"{block}.bn1", net.conv(f"{block}.conv1", x)))
            y = F.relu(net.norm(f"{block}.bn2", net.conv(f"{block}.conv2", y, stride)))
            y = net.norm(f"{block}.bn3", net.conv(f"{block}.conv3", y))
        else:
            y = F.relu(net.norm(f"{block}.bn1", net.conv(f"{block}.conv1", x, stride)))
            y = net.norm(f"{block}.bn2", net.conv(f"{block}.conv2", y))
        if f"{block}.shortcut.0.weight" in state:
            x = net.norm(f"{block}.shortcut.1", net.conv(f"{block}.shortcut.0", x, stride))
        x = F.relu(y + x)
    return net.head("linear", x)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_published_weights_give_what_the_authors_compute(tmp_path, bottleneck):
    state = random_state(four_stages((1, 2, 1, 1), bottleneck, classes=5))
    torch.save({"model": state}, tmp_path / "ckpt_epoch_240.pth")
    model = FourStageResNet((1, 2, 1, 1), bottleneck, num_classes=5).eval()
    load_weights(model, tmp_path / "ckpt_epoch_240.pth")
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(images), published(state, images), rtol=1e-4, atol=1e-4)


def test_a_stage_without_blocks_is_refused():
    with pytest.raises(ValueError, match="blocks needs an integer of at least 1, got 0"):
        FourStageResNet((1, 0, 1, 1))
