"""Loggers by name, beside the table that every run keeps."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from graphkd import checks

LoggerName = Literal["tensorboard", "wandb"]


def named_loggers(names: Sequence[LoggerName], folder: Path, run: str) -> list[Logger]:
    """Loggers of Lightning that write into a run's folder.

    Args:
        names: ``tensorboard``, into the folder ``tensorboard``; ``wandb``, Weights & Biases, as a run of the project
            ``graphkd`` under the folder's name, to which a run that is resumed adds. Its own environment variables
            choose another project, or no network (``WANDB_MODE=offline``).
        folder: The run's.
        run: What tells the run from others.

    Raises:
        ValueError: For another name, and for a package that is not there.

    >>> named_loggers([], Path("runs/train"), run="0123")
    []
    """
    return [_logger(name, folder, run) for name in names]


def _logger(name: LoggerName, folder: Path, run: str) -> Logger:
    checks.one_of("loggers", name, ("tensorboard", "wandb"))
    try:
        if name == "tensorboard":
            return TensorBoardLogger(folder, name="", version="tensorboard")
        return WandbLogger(folder.resolve().name, folder, id=run, project=os.environ.get("WANDB_PROJECT", "graphkd"))
    except ModuleNotFoundError as error:
        raise ValueError(f"loggers: {name} needs a package that is not there: pip install {name}") from error
