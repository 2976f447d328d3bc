"""Each option that a config sets does something: with another value, other numbers, batches or files come out."""

import importlib
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from configs import NAMES, command_of, content
from jsonargparse import ArgumentParser
from other_values import CHANGED
from torch import nn

from graphkd import kept
from graphkd.cli import main
from graphkd.datasets import CIFAR100Data, ImageNetData
from graphkd.datasets.image_data import Sources
from graphkd.datasets.parts import ArrayImages
from graphkd.loss import Criterion


def built_of(part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a config names by its class path, at any depth, with its options."""
    if isinstance(part, dict):
        if "class_path" in part:
            yield part["class_path"], part.get("init_args", {}) | part.get("dict_kwargs", {})
        for each in part.values():
            yield from built_of(each)


def options_there() -> dict[tuple[str, str], dict[str, Any]]:
    """Each option that a config sets, of what, with all options that are set beside it."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name in NAMES:
        there = content(name)
        for owner, options in [(command_of(name), there), *built_of(there)]:
            for option in options:
                found.setdefault((owner, option), options)
    return found


THERE = options_there()


def test_each_option_that_is_set_is_changed_here():
    assert set(THERE) == {(owner, option) for owner, options in CHANGED.items() for option in options}


def imported(path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def parsers() -> ArgumentParser:
    parser = ArgumentParser()
    parser.add_argument("--criteria", type=dict[str, Criterion] | None)
    parser.add_argument("--model", type=nn.Module | None)
    return parser


PARSER = parsers()
N = 24
COMMANDS = ("train", "train-teacher", "class-cost")


def losses_over_steps(path: str, options: dict[str, Any], folder: Path) -> list[float]:
    """Of three steps on features that are parameters themselves, with what the criterion learns."""
    options = {name: str(folder / value) if name == "class_cost" else value for name, value in options.items()}
    torch.manual_seed(0)
    named = {"criteria": {"it": {"class_path": path, "init_args": options}}}
    criterion = PARSER.instantiate(PARSER.parse_object(named)).criteria["it"]
    maps = dict.fromkeys(["map", "low", "middle", *(f"stage{i}" for i in range(1, 5))], (N, 4, 8, 8))
    shapes = {"feat": (N, 6), "logits": (N, 10), **maps}
    student = {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    # The teacher knows the four classes, so that plans have reasons to leave the pairs.
    labels = torch.arange(N) % 4
    teacher: dict[str, Any] = {}
    for name, shape in shapes.items():
        teacher[name] = 3 * torch.randn(4, *shape[1:])[labels] + torch.randn(shape)
    given = {"index": torch.arange(N)}
    values, optimizer = [], None
    for _ in range(3):
        value = criterion({**student, **given}, {**teacher, **given}, labels).value
        optimizer = optimizer or torch.optim.SGD([*student.values(), *criterion.parameters()], lr=0.1)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    return values


def steps_of_sgd(options: dict[str, Any]) -> list[float]:
    weight = nn.Parameter(torch.tensor(1.0))
    optimizer = torch.optim.SGD([weight], **options)
    values = []
    for _ in range(3):
        optimizer.zero_grad()
        weight.square().backward()
        optimizer.step()
        values.append(float(weight.detach()))
    return values


def rates(options: dict[str, Any]) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, **options)
    values = []
    for _ in range(240):
        optimizer.step()
        scheduler.step()
        values += scheduler.get_last_lr()
    return values


def output(path: str, options: dict[str, Any]) -> list[Any]:
    torch.manual_seed(0)
    given = "dict_kwargs" if path.startswith("timm.") else "init_args"
    model = PARSER.instantiate(PARSER.parse_object({"model": {"class_path": path, given: options}})).model.eval()
    value = model(torch.ones(2, 1 if path.endswith("SmallCNN") else 3, 32, 32))
    return [value.shape, float(value.detach().sum())]


LOOK_FOR_IMAGES = ImageNetData.prepare_data


def few_images(data: Any) -> Sources:
    classes = [str(i) for i in range(data.known_classes)]
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    some = ArrayImages(images, list(range(8)), classes)
    return Sources(some, None, some)


def epoch_of(path: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a data module gives: where it looks for images, how many processes load, how many batches, and two."""
    data_class = imported(path)
    missing = ""
    if data_class is ImageNetData:
        with pytest.raises(ValueError, match="ImageNet is missing") as error:
            LOOK_FOR_IMAGES(data_class(**options))
        missing = str(error.value)
    if data_class in (CIFAR100Data, ImageNetData):
        monkeypatch.setattr(data_class, "prepare_data", lambda data: None)
        monkeypatch.setattr(data_class, "read", few_images)
    workers = 0
    if "workers" in options:
        workers = data_class(**options).train_dataloader().num_workers
        options = {**options, "workers": 0}
    loader = data_class(**options).train_dataloader()
    batches = [[column.tolist() for column in batch] for batch in islice(loader, 2)]
    return [missing, workers, len(loader), batches]


def run_of(command: str, options: dict[str, Any], folder: Path) -> list[Any]:
    """The files that a command leaves, and the numbers in them."""
    folder.mkdir()
    trainer = {name: 1 for name in ("limit_train_batches", "limit_val_batches", "limit_test_batches")}
    options = options | {"trainer": trainer | {"enable_progress_bar": False, "accelerator": "cpu"}}
    options |= {name: str(folder / options[name]) for name in ("out", "teacher_checkpoint") if name in options}
    (folder / "options.yaml").write_text(yaml.safe_dump(options))
    assert main([command, "--config", str(folder / "options.yaml")]) == 0
    files = sorted(folder.glob("**/*.pt"))
    return [[str(path.relative_to(folder)), numbers(torch.load(path, weights_only=True))] for path in files]


def numbers(saved: Any) -> Any:
    """Of weights, or of a class cost without what it was made of."""
    if isinstance(saved, dict):
        return numbers(saved["result"]) if "result" in saved else [numbers(value) for value in saved.values()]
    return saved.tolist()


OUTCOMES: dict[str, list[Any]] = {}


def outcome(owner: str, options: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What comes of options, once for all tests."""
    key = owner + json.dumps(options)
    if key not in OUTCOMES:
        OUTCOMES[key] = come_to(owner, options, folder, monkeypatch)
    return OUTCOMES[key]


def come_to(owner: str, options: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    if owner.startswith("graphkd.losses."):
        return losses_over_steps(owner, options, folder.parent)
    if owner.startswith("graphkd.training."):
        schedule = imported(owner)(**options)
        return [schedule(epoch, 240) for epoch in range(1, 241)]
    if owner.startswith("graphkd.datasets."):
        return epoch_of(owner, options, monkeypatch)
    if owner == "torch.optim.SGD":
        return steps_of_sgd(options)
    if owner == "torch.optim.lr_scheduler.MultiStepLR":
        return rates(options)
    if owner in COMMANDS:
        return run_of(owner, options, folder)
    return output(owner, options)


def beside(owner: str, option: str) -> dict[str, Any]:
    """The options that a config sets together with one, in a short run on digits where it is a command's own."""
    scheduler = {"class_path": "torch.optim.lr_scheduler.MultiStepLR", "init_args": {"milestones": [9]}}
    if owner == "train-teacher":
        there = {name: value for name, value in content("digits/rkd").items() if name in CHANGED[owner]}
        return there | {"scheduler": scheduler, "epochs": 2, "out": "run"}
    if owner == "train":
        there = content("digits/self_ema" if option == "ema_decay" else "digits/rkd")
        there |= {"scheduler": scheduler, "epochs": 2, "check_teacher": False, "teacher_epochs": 1}
        return there | {"out": "run", "teacher_checkpoint": "teacher.pt"}
    if owner == "class-cost":
        there = content("digits/class_cost") | {"sharpen": 1.0, "teacher_epochs": 1}
        return there | {"out": "cost.pt", "teacher_checkpoint": "teacher.pt"}
    there = dict(THERE[owner, option])
    return there | {
        name: value for name, value in {"class_cost": "cost.pt", "num_samples": 40}.items() if name in there
    }


def slow_if_trained(*values: str) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow if values[0] in COMMANDS else ())


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("owner", "option"), [slow_if_trained(*each) for each in THERE])
def test_the_option_does_something(owner: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, power in (("cost.pt", 1), ("other_cost.pt", 2)):
        kept.save(tmp_path / name, (torch.arange(10.0)[:, None] - torch.arange(10.0)).abs().pow(power) / 9**power, {})
    options = beside(owner, option)
    changed = options | {option: CHANGED[owner][option]}
    assert options != changed
    found = [outcome(owner, each, tmp_path / str(i), monkeypatch) for i, each in enumerate((options, changed))]
    assert found[0] != found[1]


ALIKE = [*COMMANDS, "graphkd.losses.hkd", "graphkd.datasets.SyntheticData"]


@pytest.mark.parametrize("owner", [slow_if_trained(owner) for owner in ALIKE])
def test_the_same_options_come_to_the_same(owner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = beside(owner, next(iter(CHANGED[owner])))
    first, second = (come_to(owner, options, tmp_path / name, monkeypatch) for name in ("first", "second"))
    assert first == second
