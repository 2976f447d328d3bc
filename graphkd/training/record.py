"""What a run was started with: command, versions, commit and machine, without names of users and hosts."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

from graphkd.training.folder import write_json

PACKAGES = ("graphkd", "torch", "torch-geometric", "lightning", "numpy")


class RunRecord(Callback):
    """An entry in a run's ``run.json`` for its start, and one more for each time that it went on.

    Args:
        path: The file.
        seed: Of the run.
        resume: Whether the entries that are there stay.
    """

    def __init__(self, path: Path, seed: int, resume: bool) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = json.loads(path.read_text()) if resume and path.exists() else []
        self.entries.append(
            {
                "started": datetime.now(timezone.utc).isoformat(),
                "command": command(sys.argv),
                "seed": seed,
                **made_by(),
            }
        )
        write_json(path, self.entries)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Add what the trainer chose, and where it begins."""
        self.entries[-1]["trainer"] = {
            "processes": trainer.world_size,
            "device": trainer.strategy.root_device.type,
            "precision": str(trainer.precision),
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
        }
        write_json(self.path, self.entries)


def made_by() -> dict[str, Any]:
    """Versions, the commit of the working folder, and hardware, by these names.

    >>> list(made_by())
    ['versions', 'commit', 'hardware']
    """
    return {"versions": versions(), "commit": commit(Path.cwd()), "hardware": hardware()}


def versions() -> dict[str, str]:
    """What a run's numbers depend on besides its config."""
    packages = {name: version(name) for name in PACKAGES}
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    return {"python": platform.python_version(), "machine": machine} | packages


def hardware() -> dict[str, Any]:
    """Processor, threads and accelerators.

    >>> sorted(hardware())
    ['cpus', 'gpus', 'machine', 'system', 'threads']
    """
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def command(arguments: Sequence[str]) -> list[str]:
    """The command, without the folders of a user.

    >>> command(["/home/somebody/bin/graphkd", "train", "--out=/home/somebody/runs"])
    ['graphkd', 'train', '--out=~/runs']
    """
    program, *rest = arguments or [""]
    return [Path(program).name, *(_without_home(each) for each in rest)]


def commit(folder: Path) -> dict[str, Any] | None:
    """The commit of a folder, and whether files that are tracked were changed since; None without git.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     commit(Path(folder)) is None
    True
    """
    head = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return None if head is None or changes is None else {"commit": head, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _without_home(argument: str) -> str:
    return re.sub(r"/(?:home|Users)/[^/\s]+", "~", argument.replace(str(Path.home()), "~"))
