"""Each config of `graphkd train` trains a step, on a few images of noise."""

from pathlib import Path
from typing import Any

import pytest
import torch
from configs import OF_PAPERS, TEACHERS, TRAINED, command_of, content, method_of, pair_of, parser, some_of_each
from lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from graphkd import kept
from graphkd.distiller import Distiller
from graphkd.teachers import ema

# Size, channels and classes.
IMAGES = {
    "DigitsData": (8, 1, 10),
    "SyntheticData": (32, 3, 100),
    "CIFAR100Data": (32, 3, 100),
    "ImageNetData": (64, 3, 1000),
}
# WKD-F's 4 x 4 cells need more than one position each of the last map, which is a 32nd of the image.
LARGER = 160


CIFAR100 = [name for name in OF_PAPERS if name.startswith("cifar100/")]
QUICK = [name for name in TRAINED if name.startswith("digits/")] + some_of_each(CIFAR100)
QUICK += ["synthetic/fgw", "imagenet/kd/resnet34_resnet18", "imagenet/dkd/resnet50_mobilenetv1"]
SLOW = [name for name in [*TRAINED, *TEACHERS] if name not in QUICK]


class FakeImages(LightningDataModule):
    """Four images of noise."""

    def __init__(self, size: int, channels: int, classes: int, with_index: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(4, channels, size, size, generator=generator)
        labels = torch.randint(classes, (4,), generator=generator)
        self.columns = (images, labels, torch.arange(4)) if with_index else (images, labels)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(*self.columns), batch_size=4)


def faked(name: str, folder: Path) -> Any:
    """What a config asks for, with images of noise, small memories and some class cost."""
    there = content(name)
    size, channels, classes = IMAGES[there["data"]["class_path"].rpartition(".")[2]]
    given = [criterion.setdefault("init_args", {}) for criterion in there.get("criteria", {}).values()]
    if name.startswith("imagenet/") and any("grid" in options for options in given):
        size = LARGER
    kept.save(folder / "class_cost.pt", 1 - torch.eye(classes), {})
    smaller = {"class_cost": str(folder / "class_cost.pt"), "num_samples": 10}
    for options in given:
        options |= {option: value for option, value in smaller.items() if option in options}
    images = {"size": size, "channels": channels, "classes": classes}
    with_index = there["data"].get("init_args", {}).get("with_index", False)
    there["data"] = {"class_path": f"{__name__}.FakeImages", "init_args": images | {"with_index": with_index}}
    torch.manual_seed(0)
    command = parser(command_of(name))
    return command.instantiate(command.parse_object(there))


def distiller_of(chosen: Any) -> Distiller:
    if "student" not in chosen:
        return Distiller(chosen.teacher)
    given = {"ema": lambda: ema(chosen.student, chosen.ema_decay), "self": lambda: chosen.student}
    return Distiller(
        chosen.student,
        given[chosen.teacher]() if isinstance(chosen.teacher, str) else chosen.teacher,
        student_features=chosen.student_features,
        teacher_features=chosen.teacher_features,
        criteria=chosen.criteria,
        weights=chosen.weights,
    )


def train_a_step(chosen: Any) -> None:
    """All numbers are finite, and what criteria say reaches the student's first layer, without the task."""
    distiller = distiller_of(chosen)
    distiller.set_epoch(1, chosen.epochs)
    if distiller.criteria:
        distiller.weights["task"] = 0.0
    step = distiller(*next(iter(chosen.data.train_dataloader())))
    optimizer = chosen.optimizer(distiller.learnable_parameters())
    step.loss.backward()
    optimizer.step()
    first = next(distiller.student.parameters())
    assert all(value.isfinite() for value in step.logs.values())
    assert first.grad is not None and first.grad.isfinite().all() and first.grad.any()
    assert all(parameter.isfinite().all() for parameter in distiller.parameters())


def test_the_quick_ones_are_of_each_method_and_pair():
    assert set(map(method_of, CIFAR100)) <= set(map(method_of, QUICK))
    assert set(map(pair_of, CIFAR100)) <= set(map(pair_of, QUICK))


@pytest.mark.parametrize("name", QUICK)
def test_a_step_is_trained(name: str, tmp_path: Path):
    train_a_step(faked(name, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_step_is_trained_with_every_other_config(name: str, tmp_path: Path):
    train_a_step(faked(name, tmp_path))
