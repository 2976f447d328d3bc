import pytest
import torch
from layouts import NARROW, WIDE, Published, random_state, resnet
from torch.nn import functional as F

from graphkd.models import CifarResNet, load_weights


def published(state: dict, x: torch.Tensor) -> torch.Tensor:
    net = Published(state)
    x = F.relu(net.norm("bn1", net.conv("conv1", x)))
    for block in dict.fromkeys(".".join(name.split(".")[:2]) for name in state if name.startswith("layer")):
        stride = 2 if block in ("layer2.0", "layer3.0") else 1
        y = F.relu(net.norm(f"{block}.bn1", net.conv(f"{block}.conv1", x, stride)))
        y = net.norm(f"{block}.bn2", net.conv(f"{block}.conv2", y))
        if f"{block}.downsample.0.weight" in state:
            x = net.norm(f"{block}.downsample.1", net.conv(f"{block}.downsample.0", x, stride))
        x = F.relu(y + x)
    return net.head("fc", x)


@pytest.mark.parametrize(("depth", "widths"), [(14, NARROW), (8, WIDE)])
def test_published_weights_give_what_the_authors_compute(tmp_path, depth, widths):
    state = random_state(resnet(depth, widths, classes=5))
    torch.save({"epoch": 240, "model": state, "accuracy": torch.tensor(79.4)}, tmp_path / "ckpt_epoch_240.pth")
    model = CifarResNet((depth - 2) // 6, widths, num_classes=5).eval()
    load_weights(model, tmp_path / "ckpt_epoch_240.pth")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(images), published(state, images), rtol=1e-4, atol=1e-4)


def test_stages_halve_the_image_and_pool_gives_the_features():
    model = CifarResNet(1, WIDE, num_classes=7)
    shapes = {}
    for name in ("layer1", "layer2", "layer3", "pool"):
        getattr(model, name).register_forward_hook(lambda *args, name=name: shapes.update({name: tuple(args[2].shape)}))
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert shapes == {"layer1": (2, 64, 32, 32), "layer2": (2, 128, 16, 16), "layer3": (2, 256, 8, 8), "pool": (2, 256)}


def test_the_map_before_the_last_activation_can_be_seen():
    model = CifarResNet(2, (4, 4, 8, 16))
    seen = {}
    model.get_submodule("layer3.1.relu").register_forward_hook(
        lambda *args: seen.update(before=args[1][0], after=args[2])
    )
    model.layer3.register_forward_hook(lambda *args: seen.update(stage=args[2]))
    model(torch.randn(2, 3, 16, 16))
    assert seen["before"].min() < 0
    torch.testing.assert_close(seen["before"].clamp(min=0), seen["stage"], rtol=0, atol=0)


@pytest.mark.parametrize("blocks", [1, 2])
def test_every_parameter_gets_a_gradient(blocks):
    model = CifarResNet(blocks, (4, 4, 8, 16), num_classes=3)
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"blocks": 0}, "blocks"), ({"widths": (4, 4, 0, 8)}, "widths"), ({"num_classes": 0}, "num_classes")],
)
def test_sizes_below_one_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"{name} needs an integer of at least 1, got 0"):
        CifarResNet(**{"blocks": 1, "widths": (4, 4, 8, 16)} | arguments)
