"""The teachers of a run: loaded, or trained first, and measured before anything is learned from them."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from graphkd.features import FeatureExtractor, model_logits
from graphkd.models.checkpoints import load_weights
from graphkd.teachers import ema, has_logits
from graphkd.training import run
from graphkd.training.folder import write_tensors
from graphkd.typing import UNLABELLED, Real

logger = logging.getLogger(__name__)

TeacherOption = nn.Module | dict[str, nn.Module] | Literal["ema", "self"] | None
"""A teacher as a config names it."""

IMAGES = 256
"""Of the validation images, how many a teacher is measured on before a run."""


def prepare_teacher(
    teacher: nn.Module,
    checkpoint: str | None,
    data: LightningDataModule | None,
    epochs: int,
    seed: int,
    options: dict[str, Any],
) -> None:
    """Load a teacher's weights; if there is no such file, train it and save them there; see :func:`train`."""
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.is_dir():
        raise ValueError(f"teacher_checkpoint needs a file of weights, got the folder {path}")
    if path is not None and path.exists():
        load_weights(teacher, path)
        return
    if data is None:
        raise ValueError(f"needs a teacher_checkpoint that exists, or teacher_data to train one on, got {checkpoint!r}")
    logger.info("no teacher weights at %s: training a teacher for %d epochs", path, epochs)
    result = run.train_teacher(teacher, data, epochs=epochs, seed=seed, **options)
    logger.info("teacher: test accuracy %.2f %%", 100 * result.accuracy)
    teacher.requires_grad_(False)
    if path is not None:
        write_tensors(path, teacher.state_dict())


def prepared(
    student: nn.Module,
    teacher: TeacherOption,
    checkpoint: str | dict[str, str] | None,
    data: LightningDataModule | None,
    epochs: int,
    ema_decay: Real,
    seed: int,
    options: dict[str, Any],
) -> nn.Module | dict[str, nn.Module] | None:
    """The teachers as a distiller takes them, each with its weights; see :func:`train`."""
    if teacher == "ema":
        return ema(student, ema_decay)
    if teacher == "self":
        return student
    if isinstance(teacher, nn.Module):
        if isinstance(checkpoint, dict):
            raise ValueError(f"one teacher needs one teacher_checkpoint, got those of {', '.join(checkpoint)}")
        prepare_teacher(teacher, checkpoint, data, epochs, seed, options)
        return teacher
    if isinstance(teacher, dict):
        paths = checkpoint if isinstance(checkpoint, dict) else {}
        if paths.keys() != teacher.keys():
            raise ValueError(f"needs a teacher_checkpoint for each of {', '.join(teacher)}, got {checkpoint!r}")
        for name, each in teacher.items():
            prepare_teacher(each, paths[name], data, epochs, seed, options)
        return teacher
    return None


def check_teachers(teachers: Mapping[str, nn.Module], data: LightningDataModule) -> None:
    """Measure teachers on a few validation images, and refuse one that is little better than guessing.

    At most :data:`IMAGES` are looked at, spread over all where they can be read in any order. Models without logits of
    classes, and data without labels of classes or without ``val_dataloader``, are not measured.

    Args:
        teachers: By what they are called if they are refused.
        data: What the student learns from.

    Raises:
        ValueError: For an accuracy that is not above chance by more than a tenth of what there is above it, or by more
            than three standard deviations.
    """
    if not is_overridden("val_dataloader", data):
        return
    data.prepare_data()
    data.setup("fit")
    with isolate_rng():
        batches = list(_some(data.val_dataloader()))
        measured = {name: _measured(teacher, batches) for name, teacher in teachers.items()}
    for name, (right, seen, classes) in measured.items():
        if not seen:
            continue
        chance = 1 / classes
        least = chance + max(0.1 * (1 - chance), 3 * (chance * (1 - chance) / seen) ** 0.5)
        logger.info("%s: accuracy %.1f %% on %d validation images", name, 100 * right / seen, seen)
        if right / seen < min(least, 1.0):
            raise ValueError(
                f"{name} needs to be better than chance, got accuracy {100 * right / seen:.1f} % on {seen} validation "
                f"images of {classes} classes, where chance is {100 * chance:.1f} %: its weights may be of another "
                "checkpoint or not loaded, its images normalised otherwise, or its classes in another order; "
                "check_teacher: false takes it as it is"
            )


@torch.no_grad()
def _measured(teacher: nn.Module, batches: list[Any]) -> tuple[int, int, int]:
    """How many images a teacher is right on, of how many, and of how many classes; zeros where it cannot be said."""
    training, right, seen, classes = teacher.training, 0, 0, 0
    teacher.eval()
    for batch in batches:
        inputs, labels = batch[:2]
        output = FeatureExtractor(teacher, {}).run(inputs).output
        if not has_logits(output) or model_logits(output).dim() != 2:
            break
        logits = model_logits(output)
        known = labels != UNLABELLED
        right += int((logits.argmax(-1) == labels)[known].sum())
        seen, classes = seen + int(known.sum()), logits.shape[1]
    teacher.train(training)
    return right, seen, classes


def _some(loader: Any) -> Iterator[Any]:
    """A few hundred samples with labels of classes, in batches."""
    seen = 0
    for batch in _spread(loader):
        labels = batch[1] if isinstance(batch, list | tuple) and len(batch) > 1 else None
        if not isinstance(labels, Tensor) or labels.dim() != 1 or labels.is_floating_point() or seen >= IMAGES:
            return
        seen += len(labels)
        yield batch


def _spread(loader: Any) -> Iterator[Any]:
    """Batches of samples spread over all of the data, which may be sorted by class; else the first ones."""
    if not (isinstance(loader, DataLoader) and loader.batch_size) or isinstance(loader.dataset, IterableDataset):
        yield from loader
        return
    dataset: Any = loader.dataset
    n = min(IMAGES, len(dataset))
    chosen = [i * len(dataset) // n for i in range(n)]
    for start in range(0, n, loader.batch_size):
        yield loader.collate_fn([dataset[i] for i in chosen[start : start + loader.batch_size]])
