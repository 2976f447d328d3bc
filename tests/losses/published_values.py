"""The golden files: what the authors' own code returned."""

from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_files(pattern):
    """The golden files of a method; at least one."""
    found = sorted(GOLDEN.glob(pattern))
    assert found, f"no golden file {pattern}"
    return found


def load(path):
    """The arrays of a golden file: numbers as tensors, words as they are."""
    return {
        name: str(value) if value.dtype.kind in "US" else torch.as_tensor(value)
        for name, value in np.load(path).items()
    }
