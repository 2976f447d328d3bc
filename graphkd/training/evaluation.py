"""A student by itself: how often it is right, and how fast."""

import time
from pathlib import Path
from typing import Literal, NamedTuple

from lightning import LightningDataModule

from graphkd import checks
from graphkd.training.folder import CONFIG
from graphkd.training.forms import FORMS, Student, load
from graphkd.training.saved import saved_data, saved_student
from graphkd.typing import UNLABELLED


class Evaluation(NamedTuple):
    """What :func:`evaluate_student` found.

    Attributes:
        accuracy: Share of the labelled samples whose class the student names.
        samples: How many those are.
        per_second: Samples that the student takes in a second, all of them, without the time that loading takes.
    """

    accuracy: float
    samples: int
    per_second: float


def evaluate_student(
    student: str, data: LightningDataModule | None = None, split: Literal["test", "validation"] = "test"
) -> Evaluation:
    """Measure a student alone, without teacher and criteria, on the CPU.

    Args:
        student: A run's folder, or a file that ``graphkd export`` wrote: ``.onnx`` or ``.pt2``.
        data: What it is measured on; the run's own data if omitted, of a file those of the run in whose folder it is.
        split: The part of them.

    Raises:
        ValueError: For a student that is not there, a file without data, data that do not fit the student, and data
            without labels.
    """
    checks.one_of("split", split, ("test", "validation"))
    path = Path(student)
    folder = path.parent if path.suffix in FORMS else path
    predict = load(path) if path.suffix in FORMS else Student(saved_student(folder))
    if data is None and not (folder / CONFIG).exists():
        raise ValueError(f"needs data to measure {student} on, since no run's config is beside it")
    data = saved_data(folder) if data is None else data
    data.prepare_data()
    data.setup("test" if split == "test" else "validate")
    right = labelled = samples = 0
    seconds = 0.0
    for batch in data.test_dataloader() if split == "test" else data.val_dataloader():
        inputs, labels = batch[0], batch[1]
        start = time.perf_counter()
        try:
            chosen = predict(inputs).argmax(-1)
        except Exception as error:  # each form of a student has errors of its own
            raise ValueError(f"{student} cannot take the {split} inputs of {type(data).__name__}: {error}") from error
        seconds += time.perf_counter() - start
        known = labels != UNLABELLED
        right += int((chosen == labels)[known].sum())
        labelled += int(known.sum())
        samples += len(labels)
    if not labelled:
        raise ValueError(f"accuracy needs labels, got none among {samples} samples")
    return Evaluation(right / labelled, labelled, samples / max(seconds, 1e-9))
