"""Checkpoints that are whole or absent, whenever the process ends."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from graphkd import checks, kept


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints beside their place, waits for the disk, then replaces the old one.

    Lightning's own writer may use a temporary folder on another file system, from where a file can only be copied; a
    process that ends meanwhile leaves a part of it.

    >>> type(Trainer(plugins=WholeFiles(), logger=False).strategy.checkpoint_io).__name__
    'WholeFiles'
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        kept.write(Path(path), checkpoint)


class KeepCheckpoint(Checkpoint):
    """Keep one checkpoint: before the first step, after every epoch, and perhaps every few steps.

    Args:
        path: Where it is kept.
        every: Steps of the optimiser between two checkpoints inside an epoch; None keeps none there.

    Raises:
        ValueError: For fewer than one step, and when training begins on batches without a number: of these Lightning
            reads one ahead, so that it cannot be said which were seen.
    """

    def __init__(self, path: Path, every: int | None = None) -> None:
        if every is not None:
            checks.at_least("checkpoint_every", every, 1)
        self.path, self.every = path, every
        self._kept_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep one from which a run that ends in its first epoch can go on."""
        if self.every is not None and trainer.num_training_batches == float("inf"):
            raise ValueError("checkpoint_every needs a number of training batches, got a loader without one")
        self._kept_at = trainer.global_step
        if not self.path.exists():
            trainer.save_checkpoint(self.path)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Keep one, where enough steps were taken; the epoch's last step is followed by its own."""
        step = trainer.global_step
        due = self.every is not None and step != self._kept_at and step % self.every == 0
        if due and not trainer.is_last_batch:
            self._kept_at = step
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the epoch."""
        trainer.save_checkpoint(self.path)
