"""Run Lightning's trainer so that a run can be interrupted and continued to the same numbers."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.parameter import is_lazy

from graphkd.training.history import History
from graphkd.training.module import DistillationModule

LAST = "last.ckpt"
CONFIG = "config.yaml"
"""The checkpoint's and the config's name in a run's folder."""


class _FirstCheckpoint(Callback):
    """A checkpoint before the first step, so that a run interrupted in its first epoch can be resumed as well."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if not self.path.exists():
            trainer.save_checkpoint(self.path)


def fit(
    module: DistillationModule,
    data: LightningDataModule,
    *,
    epochs: int,
    folder: Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    **trainer_options: Any,
) -> tuple[Trainer, History]:
    """Train for a number of epochs.

    Args:
        module: What to train.
        data: Batches to train and validate on.
        epochs: Passes over the training data.
        folder: Where ``last.ckpt`` is kept, replaced whole after every epoch. None keeps nothing.
        resume: Go on from the folder's checkpoint.
        callbacks: Further Lightning callbacks.
        trainer_options: Further arguments of :class:`lightning.Trainer`.

    Returns:
        The trainer, for testing, and the curves.

    Raises:
        ValueError: If a run is to be resumed whose folder has no checkpoint.
    """
    _silence_lightning()
    infer_widths(module, data, epochs)
    history = History()
    kept: list[Callback] = []
    checkpoint = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LAST
        if resume and not path.exists():
            raise ValueError(f"resuming needs a checkpoint, got none at {path}")
        checkpoint = path if resume else None
        if not resume:
            path.unlink(missing_ok=True)
        kept = [_FirstCheckpoint(path), _every_epoch(folder)]
    quiet: dict[str, Any] = {"enable_model_summary": False, "logger": False, "num_sanity_val_steps": 0}
    if folder is None:
        quiet["enable_checkpointing"] = False
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[history, *kept, *callbacks],
        **({"accelerator": "auto", "devices": 1, "log_every_n_steps": 1} | quiet | trainer_options),
    )
    with _without_known_warnings():
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    return trainer, history


def evaluate(trainer: Trainer, module: DistillationModule, data: LightningDataModule) -> dict[str, float]:
    """Measure a trained student on the test images: ``accuracy`` and, where there is a teacher, ``agreement``."""
    with _without_known_warnings():
        numbers = trainer.test(module, datamodule=data, verbose=False)[0]
    return {name.removeprefix("test/"): float(value) for name, value in numbers.items()}


@contextmanager
def _without_known_warnings() -> Iterator[None]:
    """Warnings of Lightning that do not fit small in-memory data and a frozen teacher, or that are about itself."""
    with warnings.catch_warnings():
        for message in (
            "does not have many workers",
            "module.s. in eval mode",
            "LeafSpec.. is deprecated",
            "Checkpoint directory",
        ):
            warnings.filterwarnings("ignore", f".*{message}.*")
        yield


def infer_widths(module: DistillationModule, data: LightningDataModule, epochs: int) -> None:
    """Let criteria that infer widths see one batch, so that the first checkpoint has all parameters."""
    distiller = module.distiller
    if not any(is_lazy(parameter) for parameter in distiller.parameters()):
        return
    # Whatever was drawn before, a teacher's training for example, must not change the weights that are made now.
    seed_everything(module.seed, verbose=False)
    batch = next(iter(data.train_dataloader()))
    distiller.eval()
    distiller.set_epoch(1, epochs)
    with torch.no_grad():
        distiller(*batch)
    distiller.train()


def _every_epoch(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(
        dirpath=folder,
        filename=LAST.removesuffix(".ckpt"),
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def _silence_lightning() -> None:
    """Keep Lightning's notes on devices and products out of a program's own output; its warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
