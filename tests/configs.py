"""The configs in examples/configs, as tests read them."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from graphkd.cli import COMMANDS

CONFIGS = Path(__file__).parent.parent / "examples" / "configs"
NAMES = sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.glob("**/*.yaml"))
COSTS = [name for name in NAMES if "class_cost" in name]
TEACHERS = [name for name in NAMES if name.split("/")[1] == "teacher"]
SHORT = ["cifar100/short", "imagenet/short"]
TRAINED = [name for name in NAMES if name not in {*COSTS, *SHORT, *TEACHERS}]
OF_PAPERS = [name for name in TRAINED if name.startswith(("cifar100/", "imagenet/"))]


@cache
def parser(command: str) -> ArgumentParser:
    return next(each for each in COMMANDS if each.name == command).parser()


@cache
def _loaded(name: str) -> dict[str, Any]:
    return yaml.load((CONFIGS / f"{name}.yaml").read_text(), yaml.CSafeLoader)


def content(name: str) -> dict[str, Any]:
    return deepcopy(_loaded(name))


def parsed(command: str, *names: str, more: tuple[str, ...] = ()) -> Any:
    """What a command reads from configs, one after the other."""
    files = [part for name in names for part in ("--config", str(CONFIGS / f"{name}.yaml"))]
    return parser(command).parse_args([*files, *more])


def command_of(name: str) -> str:
    return "class-cost" if name in COSTS else "train-teacher" if name in TEACHERS else "train"


def method_of(name: str) -> str:
    return name.rpartition("/")[0]


def pair_of(name: str) -> str:
    return name.rpartition("/")[2]


def some_of_each(names: list[str]) -> list[str]:
    """A config of each method and of each pair."""
    chosen: list[str] = []
    for method in sorted(set(map(method_of, names))):
        of_it = [name for name in names if method_of(name) == method]
        new = [name for name in of_it if pair_of(name) not in map(pair_of, chosen)]
        chosen.append((new or of_it)[0])
    for name in names:
        if pair_of(name) not in map(pair_of, chosen):
            chosen.append(name)
    return chosen
