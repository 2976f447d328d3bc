"""The curves of a run."""

import json
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class History(Callback):
    """Every logged number at the end of every epoch, by name; it survives a resume with the checkpoint.

    Attributes:
        curves: Name to values, one per epoch. ``seconds`` is the time an epoch took to train on, without validation.

    >>> History().curves
    {}
    """

    def __init__(self) -> None:
        self.curves: dict[str, list[float]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Append the epoch's numbers."""
        for name, value in trainer.callback_metrics.items():
            self.curves.setdefault(name, []).append(float(value))

    def state_dict(self) -> dict[str, Any]:
        """The curves so far, for the checkpoint."""
        return {"curves": {name: list(values) for name, values in self.curves.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's curves."""
        self.curves = {name: list(values) for name, values in state_dict["curves"].items()}

    def save(self, path: Path) -> None:
        """Write the curves as JSON."""
        path.write_text(json.dumps(self.curves, indent=1))

    @classmethod
    def read(cls, path: Path) -> "History":
        """The curves that :meth:`save` wrote."""
        history = cls()
        history.curves = json.loads(path.read_text())
        return history
