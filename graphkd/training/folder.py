"""The files of a run: their names, and how they are written, whole and by the first process only."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from graphkd import kept

LAST = "last.ckpt"
CONFIG = "config.yaml"
RUN = "run.json"
HISTORY = "history.json"
METRICS = "metrics.csv"
WEIGHTS = "weights.json"
RESULTS = "results.json"
STUDENT = "student.pt"
PAGE = "inspect.html"
"""Names in a run's folder."""


@rank_zero_only
def write_json(path: Path, content: Any) -> None:
    """Write plain values."""
    kept.write_text(path, json.dumps(content, indent=1))


@rank_zero_only
def write_text(path: Path, text: str) -> None:
    """Write text."""
    kept.write_text(path, text)


@rank_zero_only
def write_tensors(path: Path, content: Any) -> None:
    """Write tensors and plain values."""
    kept.write(path, content)


@rank_zero_only
def begin(folder: Path, resume: bool) -> None:
    """Make the folder, and remove what writers that were killed left there, and what a run to be replaced came to."""
    folder.mkdir(parents=True, exist_ok=True)
    kept.remove_parts(folder)
    if not resume:
        for name in (LAST, METRICS, HISTORY, STUDENT, RESULTS, PAGE):
            (folder / name).unlink(missing_ok=True)
        for path in (*folder.glob("not_finite_*.pt"), *folder.glob("snapshots/*.pt")):
            path.unlink()


def read_weights(path: Path) -> dict[str, float]:
    """The weights that a run found for itself; none where it was told all."""
    return json.loads(path.read_text()) if path.exists() else {}
