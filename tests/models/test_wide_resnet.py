import pytest
import torch
from layouts import Published, random_state, wrn
from torch.nn import functional as F

from graphkd.features import FeatureExtractor
from graphkd.models import WideResNet, load_weights


def published(state: dict, x: torch.Tensor) -> torch.Tensor:
    net = Published(state)
    x = net.conv("conv1", x)
    for block in dict.fromkeys(".".join(name.split(".")[:3]) for name in state if name.startswith("block")):
        stride = 2 if block in ("block2.layer.0", "block3.layer.0") else 1
        activated = F.relu(net.norm(f"{block}.bn1", x))
        y = F.relu(net.norm(f"{block}.bn2", net.conv(f"{block}.conv1", activated, stride)))
        y = net.conv(f"{block}.conv2", y)
        changes = f"{block}.convShortcut.weight" in state
        x = y + (net.conv(f"{block}.convShortcut", activated, stride) if changes else x)
    return net.head("fc", F.relu(net.norm("bn1", x)))


@pytest.mark.parametrize("widen", [1, 2])
def test_published_weights_give_what_the_authors_compute(tmp_path, widen):
    state = random_state(wrn(16, widen, classes=5))
    torch.save({"model": state}, tmp_path / "ckpt_epoch_240.pth")
    model = WideResNet(2, widen, num_classes=5).eval()
    load_weights(model, tmp_path / "ckpt_epoch_240.pth")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(images), published(state, images), rtol=1e-4, atol=1e-4)


def test_activated_taps_are_the_groups_maps_after_normalisation():
    torch.manual_seed(0)
    model = WideResNet(1, 2).eval()
    spec = {
        name: name for name in ("block1", "block2", "block3", "block2.layer.0.relu1", "block3.layer.0.relu1", "relu")
    }
    _, found = FeatureExtractor(model, spec)(torch.randn(2, 3, 16, 16))
    for before, norm, after in (
        ("block1", "block2.layer.0.bn1", "block2.layer.0.relu1"),
        ("block2", "block3.layer.0.bn1", "block3.layer.0.relu1"),
        ("block3", "bn1", "relu"),
    ):
        torch.testing.assert_close(F.relu(model.get_submodule(norm)(found[before])), found[after])


@pytest.mark.parametrize("name", ["blocks", "widen"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} needs an integer of at least 1, got 0"):
        WideResNet(**{"blocks": 1, "widen": 1} | {name: 0})
