"""What a run left behind, built again: the student with its weights, and the data it learned from."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from lightning import LightningDataModule
from torch import nn

from graphkd.models.checkpoints import load_weights
from graphkd.training.folder import CONFIG, LAST, STUDENT


def saved_student(folder: Path) -> nn.Module:
    """The student of a finished run, in eval mode.

    Raises:
        ValueError: For a folder without a config or without the student's weights, and for weights that do not fit.
    """
    weights = folder / STUDENT
    student = _built(folder, "student", nn.Module)
    if not weights.exists():
        begun = "--resume it first" if (folder / LAST).exists() else "it left no checkpoint either, start it again"
        raise ValueError(f"needs a run that came to its end and left {STUDENT}, got {folder}: {begun}")
    load_weights(student, weights)
    return student.eval()


def saved_data(folder: Path) -> LightningDataModule:
    """The data of a run, as its config names them.

    Raises:
        ValueError: For a folder without a config.
    """
    return _built(folder, "data", LightningDataModule)


def _built(folder: Path, name: str, kind: type) -> Any:
    """One part of what a run's config names."""
    path = folder / CONFIG
    if not path.exists():
        raise ValueError(f"needs the folder of a run, with a {CONFIG}, got {folder}")
    parser = ArgumentParser()
    parser.add_argument(f"--{name}", type=kind)
    content = yaml.safe_load(path.read_text())
    # What was trained as a teacher is the student of its run.
    part = content["teacher"] if name == "student" and name not in content else content[name]
    chosen = parser.parse_object({name: part})
    return parser.instantiate(chosen)[name]
