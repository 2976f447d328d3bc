"""Stop a run that no longer gets better."""

from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from graphkd import checks


class StopEarly(EarlyStopping):
    """Stop after so many epochs without a better ``val/accuracy``; a run that is resumed stops at the same epoch.

    Args:
        patience: How many.

    Raises:
        ValueError: For fewer than one, and when training begins without validation images.

    >>> StopEarly(5).patience
    5
    """

    def __init__(self, patience: int) -> None:
        checks.at_least("patience", patience, 1)
        super().__init__("val/accuracy", mode="max", patience=patience, check_on_train_epoch_end=True)

    @property
    def stopped(self) -> bool:
        """Whether patience is at its end."""
        return self.wait_count >= self.patience

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from a checkpoint, to the patience that is asked for now."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Stop at once, where the checkpoint is the one that the run had stopped at."""
        if not trainer.enable_validation:
            raise ValueError("patience needs data to validate on, got a data module without val_dataloader")
        trainer.should_stop = trainer.should_stop or self.stopped
