import pytest
import torch

from graphkd.models import CifarResNet, resnet8x4


def test_resnet8x4_has_the_published_number_of_parameters():
    assert sum(parameter.numel() for parameter in resnet8x4().parameters()) == 1_233_540


def test_stages_halve_the_image_and_pool_gives_the_features():
    model = resnet8x4(num_classes=7)
    shapes = {}
    for name in ("layer1", "layer2", "layer3", "pool"):
        getattr(model, name).register_forward_hook(lambda *args, name=name: shapes.update({name: tuple(args[2].shape)}))
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert shapes == {"layer1": (2, 64, 32, 32), "layer2": (2, 128, 16, 16), "layer3": (2, 256, 8, 8), "pool": (2, 256)}


def test_resnet20_follows_from_the_same_class():
    model = CifarResNet(3, (16, 16, 32, 64))
    # 0.27 million for ten classes in He et al., table 6; the published CIFAR-100 count has 100 classes.
    assert sum(parameter.numel() for parameter in model.parameters()) == 278_324


@pytest.mark.parametrize("blocks", [1, 2])
def test_every_parameter_gets_a_gradient(blocks):
    model = CifarResNet(blocks, (4, 4, 8, 16), num_classes=3)
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
