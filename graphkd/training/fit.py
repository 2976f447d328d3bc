"""Run Lightning's trainer so that a run can be interrupted and continued to the same numbers."""

import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningDataModule, Trainer, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.plugins.io import CheckpointIO
from torch.nn.parameter import is_lazy

from graphkd import checks
from graphkd.training.checkpoints import KeepCheckpoint, WholeFiles
from graphkd.training.finite import FiniteLosses
from graphkd.training.folder import LAST, METRICS, begin
from graphkd.training.history import History
from graphkd.training.module import DistillationModule
from graphkd.training.place import ResumableLoader
from graphkd.training.processes import lost_processes_named, with_timeout


def fit(
    module: DistillationModule,
    data: LightningDataModule,
    *,
    epochs: int,
    folder: Path | None = None,
    resume: bool = False,
    checkpoint_every: int | None = None,
    callbacks: Sequence[Callback] = (),
    **trainer_options: Any,
) -> tuple[Trainer, History]:
    """Train for a number of epochs.

    Args:
        module: What to train.
        data: Batches to train and validate on.
        epochs: Passes over the training data.
        folder: Where ``last.ckpt`` is kept, replaced whole after every epoch, and ``metrics.csv``, a row for each. None
            keeps nothing.
        resume: Go on from the folder's checkpoint.
        checkpoint_every: Replace the checkpoint every so many steps of the optimiser too; a run that goes on from there
            drops the batches that it has seen, see :class:`~graphkd.training.place.ResumableLoader`.
        callbacks: Further Lightning callbacks.
        trainer_options: Further arguments of :class:`lightning.Trainer`.

    Returns:
        The trainer, for testing, and the curves.

    Raises:
        ValueError: If a run is to be resumed whose folder has no checkpoint, or one of more epochs; if
            ``checkpoint_every`` has no folder; for a loss that is not finite; and for what Lightning's Trainer refuses.
        ConnectionError: In a run of several processes, where another one ended or did not answer in time.
    """
    checks.at_least("epochs", epochs, 1)
    _silence_lightning()
    infer_widths(module, data, epochs)
    history = History(None if folder is None else folder / METRICS)
    module.losses = FiniteLosses(folder)
    kept: list[Callback] = []
    checkpoint = None
    if folder is not None:
        path = folder / LAST
        if resume and not path.exists():
            raise ValueError(f"resuming needs a checkpoint, got none at {path}")
        checkpoint = path if resume else None
        begin(folder, resume)
        kept = [KeepCheckpoint(path, checkpoint_every)]
    elif checkpoint_every is not None:
        raise ValueError(
            f"checkpoint_every needs a folder to keep checkpoints in, got {checkpoint_every} and no folder"
        )
    try:
        trainer = _trainer(epochs, [history, *callbacks, *kept], folder is not None, trainer_options)
        with _without_known_warnings(), lost_processes_named():
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    except MisconfigurationException as error:
        raise ValueError(" ".join(str(error).split())) from error
    return trainer, history


def _trainer(epochs: int, callbacks: list[Callback], keeps: bool, options: dict[str, Any]) -> Trainer:
    """Lightning's trainer, whose checkpoints are whole and whose training batches can be taken up inside an epoch."""
    own: dict[str, Any] = {
        "accelerator": "auto",
        "devices": 1,
        "log_every_n_steps": 1,
        "enable_model_summary": False,
        "logger": False,
        "num_sanity_val_steps": 0,
    }
    if not keeps:
        own["enable_checkpointing"] = False
    for name in ("max_steps", "check_val_every_n_epoch"):
        if name in options:
            raise ValueError(f"a run goes by epochs, and is validated after each: trainer.{name} cannot be set, got it")
    options = with_timeout(own | options)
    given = options.pop("plugins", None)
    plugins = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(WholeFiles())
    unknown = options.keys() - inspect.signature(Trainer.__init__).parameters.keys()
    if unknown:
        raise ValueError(f"trainer needs options of Lightning's Trainer, got {', '.join(sorted(unknown))}")
    trainer = Trainer(max_epochs=epochs, callbacks=callbacks, plugins=plugins, **options)
    process = trainer.strategy.process_dataloader

    def resumable(dataloader: object) -> object:
        loader = process(dataloader)
        return ResumableLoader(loader, lambda: trainer.current_epoch) if trainer.training else loader

    # The place that Lightning has for wrapping a loader, behind what it does to samplers of several processes.
    trainer.strategy.process_dataloader = resumable
    return trainer


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
            "have no `val_dataloader`",
        ):
            warnings.filterwarnings("ignore", f".*{message}.*")
        yield


def infer_widths(module: DistillationModule, data: LightningDataModule, epochs: int) -> None:
    """Let criteria that infer widths see one batch, so that the first checkpoint has all parameters."""
    distiller = module.distiller
    if not any(is_lazy(parameter) for parameter in distiller.parameters()):
        return
    data.prepare_data()
    data.setup("fit")
    # Whatever was drawn before, a teacher's training for example, must not change the weights that are made now.
    seed_everything(module.seed, verbose=False)
    batch = next(iter(data.train_dataloader()))
    distiller.eval()
    distiller.set_epoch(1, epochs)
    with torch.no_grad():
        distiller(*batch)
    distiller.train()


def _silence_lightning() -> None:
    """Keep Lightning's notes on devices and products out of a program's own output; its warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
