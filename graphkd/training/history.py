"""The curves of a run."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from graphkd.training.folder import write_json, write_text


class History(Callback):
    """Every logged number at the end of every epoch, by name; it survives a resume with the checkpoint.

    Args:
        table: Where all epochs are written after each, one row for one epoch, as comma-separated values. None writes
            nothing.

    Attributes:
        curves: Name to values, one per epoch. ``seconds`` is the time an epoch took to train on, without validation.
        rows: The same by epoch.

    >>> History().curves
    {}
    """

    def __init__(self, table: Path | None = None) -> None:
        self.table = table
        self.rows: list[dict[str, float]] = []
        self.curves: dict[str, list[float]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Append the epoch's numbers."""
        self._append({name: float(value) for name, value in trainer.callback_metrics.items()})
        if self.table is not None:
            write_text(self.table, self._as_table())

    def state_dict(self) -> dict[str, Any]:
        """The numbers so far, for the checkpoint."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's numbers."""
        self.rows, self.curves = [], {}
        for row in state_dict["rows"]:
            self._append(dict(row))

    def save(self, path: Path) -> None:
        """Write the curves as JSON."""
        write_json(path, self.curves)

    @classmethod
    def read(cls, path: Path) -> "History":
        """The curves that :meth:`save` wrote."""
        history = cls()
        history.curves = json.loads(path.read_text())
        return history

    def _append(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        for name, value in row.items():
            self.curves.setdefault(name, []).append(value)

    def _as_table(self) -> str:
        text = io.StringIO()
        table = csv.DictWriter(text, ["epoch", *sorted(self.curves)], lineterminator="\n")
        table.writeheader()
        table.writerows({"epoch": epoch} | row for epoch, row in enumerate(self.rows, 1))
        return text.getvalue()
