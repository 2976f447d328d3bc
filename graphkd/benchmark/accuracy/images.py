"""Images with classes: a teacher, students, and what one training comes to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import multiclass_calibration_error

from graphkd import kept
from graphkd.balance import suggest_weights
from graphkd.benchmark.accuracy.entries import METHOD, RATIO, RATIOS, Entry, Given
from graphkd.cache import TeacherCache, build_cache
from graphkd.class_cost import class_cost
from graphkd.distiller import Distiller
from graphkd.models.checkpoints import load_weights
from graphkd.training.fit import fit, infer_widths
from graphkd.training.folder import write_tensors
from graphkd.training.module import DistillationModule
from graphkd.training.rates import CosineToZero
from graphkd.training.run import count_parameters, train_teacher

BINS = 15
"""Of the calibration error."""

TEACHER = "teacher.pt"

QUIET: dict[str, Any] = {"enable_progress_bar": False}


@dataclass(frozen=True)
class Images:
    """A setting of the benchmark: every method trains this student from this teacher, on these data, for so long.

    Attributes:
        title: What it is, in a line.
        teacher: Builds the teacher.
        student: Builds the student.
        data: The student's data from a seed, which is of its labelled images and of their order. Training batches have
            their index.
        teacher_data: The teacher's, with all labels.
        samples: Training images.
        epochs: Of the student.
        rate: Of the student's learning, to begin with.
        ratios: What methods without a knob of their own are tried with.
        teacher_epochs: Of the teacher.
        student_feat: The module that gives the student's features; the teacher's are those of ``pool``.
        maps: Modules that give feature maps, the same in both networks; none where the student has none.
        tuning_seeds: With which settings are chosen, and which are not reported.
    """

    title: str
    teacher: Callable[[], nn.Module]
    student: Callable[[], nn.Module]
    data: Callable[[int], LightningDataModule]
    teacher_data: Callable[[], LightningDataModule]
    samples: int
    epochs: int
    teacher_epochs: int
    student_feat: str = "pool"
    maps: Mapping[str, str] = field(default_factory=dict[str, str])
    rate: float = 0.05
    ratios: tuple[float, ...] = RATIOS
    tuning_seeds: tuple[int, ...] = (1000, 1001)

    score = "test accuracy, %"
    baseline = "kd"
    cheapest = "alone"

    def definition(self) -> dict[str, Any]:
        """What numbers depend on, as plain values."""
        names = ("title", "samples", "epochs", "rate", "teacher_epochs", "tuning_seeds")
        return {name: getattr(self, name) for name in names} | {
            "teacher": repr(self.teacher()),
            "student": repr(self.student()),
        }

    def source(self, folder: Path) -> str:
        """What stands for the teacher's weights."""
        return kept.digest(kept.read(folder / TEACHER))

    def refuses(self, entry: Entry) -> str:
        """Why a method cannot be tried here; empty if it can."""
        if entry.maps == "always" and not self.maps:
            return "needs feature maps of both networks"
        return "needs features of one width" if entry.same_width else ""

    def trials(self, entry: Entry) -> list[dict[str, Any]]:
        """What a method's setting is chosen from; one empty one where it has none."""
        values = self.ratios if entry.values and entry.knob == RATIO else entry.values
        return [{entry.knob: value} for value in values] or [{}]

    def prepare(self, folder: Path) -> dict[str, float]:
        """Train the teacher where it is not there yet, keep what it says of the training images, and measure it."""
        path = folder / TEACHER
        if not path.exists():
            seed_everything(0, verbose=False)
            teacher = self.teacher()
            train_teacher(teacher, self.teacher_data(), epochs=self.teacher_epochs, seed=0, **QUIET)
            write_tensors(path, teacher.state_dict())
        teacher, data = self._taught(folder), self._ready(0)
        for maps in {False, bool(self.maps)}:
            where, features = self._cache(folder, maps), self._features("pool", maps)
            build_cache(
                where, teacher, data.train_view_dataloader, 1, features=features, dtype="float32", progress=False
            )
        logits, labels = _answers(teacher, data.test_dataloader())
        return {"score": _percent(logits.argmax(-1) == labels), "parameters": float(count_parameters(teacher))}

    def train(self, entry: Entry, trial: Mapping[str, Any], seed: int, folder: Path, final: bool) -> dict[str, float]:
        """Train a student once.

        Args:
            entry: By which method.
            trial: Its setting.
            seed: Of everything.
            folder: Where the teacher is.
            final: Whether it is measured on test images; else on validation images, to choose a trial by.

        Returns:
            Numbers by name. What is compared is ``score``, the larger the better.
        """
        distiller = self.distiller(entry, trial, seed, folder)
        data = self._ready(seed)
        optimizer = partial(torch.optim.SGD, lr=self.rate, momentum=0.9, weight_decay=5e-4)
        module = DistillationModule(distiller, optimizer, partial(CosineToZero, T_max=self.epochs), seed)
        fit(module, data, epochs=self.epochs, limit_val_batches=0, **QUIET)
        batches = data.test_dataloader if final else data.val_dataloader
        logits, labels = _answers(distiller.student.eval(), batches())
        if not final:
            return {"score": _percent(logits.argmax(-1) == labels)}
        taught, _ = _answers(self._taught(folder), batches())
        off = multiclass_calibration_error(logits.softmax(-1), labels, logits.shape[-1], n_bins=BINS)
        return {
            "score": _percent(logits.argmax(-1) == labels),
            "agreement": _percent(logits.argmax(-1) == taught.argmax(-1)),
            "calibration": 100 * float(off),
            "parameters": float(count_parameters(distiller.student)),
            "extra_parameters": float(count_parameters(distiller.criteria)),
        } | {f"weight of {name}": float(weight) for name, weight in distiller.weights.items()}

    def distiller(self, entry: Entry, trial: Mapping[str, Any], seed: int, folder: Path) -> Distiller:
        """A student before its training, with the weights that its trial asks for."""
        teacher, data = self._taught(folder), self._ready(seed)
        maps = bool(self.maps) and entry.maps != "never"
        features = self._features("pool", maps)

        def relations() -> Tensor:
            with torch.random.fork_rng():
                return class_cost(teacher, data.train_dataloader(), feature="pool", progress=False)

        given = Given(self.samples, tuple(self.maps), relations)
        seed_everything(seed, verbose=False)
        student = self.student()
        criteria = entry.built(given, trial)
        distiller = Distiller(
            student,
            teacher if criteria else None,
            student_features=self._features(self.student_feat, maps),
            teacher_features=features,
            criteria=criteria,
            weights=entry.weights,
            cache=TeacherCache(self._cache(folder, maps)) if criteria else None,
        )
        if RATIO in trial:
            infer_widths(DistillationModule(distiller, seed=seed), data, self.epochs)
            found = suggest_weights(distiller, data.train_dataloader(), target_ratio={METHOD: trial[RATIO]})
            distiller.weights[METHOD] = found[METHOD]
        return distiller

    def first_step(self, entry: Entry, trial: Mapping[str, Any], folder: Path) -> tuple[Distiller, Sequence[Any]]:
        """A student before its training, and its first batch."""
        return self.distiller(entry, trial, 0, folder).train(), next(iter(self._ready(0).train_dataloader()))

    def _taught(self, folder: Path) -> nn.Module:
        teacher = self.teacher()
        load_weights(teacher, folder / TEACHER)
        return teacher.eval()

    def _ready(self, seed: int) -> Any:
        data = self.data(seed)
        data.prepare_data()
        data.setup("fit")
        return data

    def _cache(self, folder: Path, maps: bool) -> Path:
        return folder / ("maps" if maps else "vectors")

    def _features(self, feat: str, maps: bool) -> dict[str, Any]:
        return {"feat": feat, **(self.maps if maps else {})}


@torch.no_grad()
def _answers(model: nn.Module, batches: DataLoader) -> tuple[Tensor, Tensor]:
    """Logits of images, and their labels."""
    answers = [(model(images), labels) for images, labels in batches]
    return torch.cat([logits for logits, _ in answers]), torch.cat([labels for _, labels in answers])


def _percent(right: Tensor) -> float:
    return 100 * float(right.double().mean())
