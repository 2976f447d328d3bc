"""One training run: a student, perhaps a teacher, data, and a folder that keeps what happened."""

import json
import logging
import platform
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningDataModule, seed_everything
from torch import nn

from graphkd import snapshots
from graphkd.balance import suggest_weights
from graphkd.distiller import Distiller
from graphkd.inspection import write_page
from graphkd.loss import Criterion
from graphkd.teachers import ema
from graphkd.training.fit import LAST, evaluate, fit
from graphkd.training.history import History
from graphkd.training.module import DistillationModule, LRSchedulerCallable, OptimizerCallable, sgd
from graphkd.training.watch import FOLDER, SaveSnapshots
from graphkd.typing import Real, Schedule

logger = logging.getLogger(__name__)

TeacherOption = nn.Module | dict[str, nn.Module] | Literal["ema", "self"] | None
"""A teacher as a config names it."""

HISTORY = "history.json"
PAGE = "inspect.html"
WEIGHTS = "weights.json"
"""Names in a run's folder."""


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        accuracy: Of the student on the test images, after the last epoch.
        agreement: Share of test images on which student and teacher choose one class; None without a teacher.
        parameters: Of the student.
        extra_parameters: That the criteria learn, and that are dropped after training.
        seconds_per_epoch: Mean time to train on one epoch.
        epochs: Epochs trained.
    """

    accuracy: float
    agreement: float | None
    parameters: int
    extra_parameters: int
    seconds_per_epoch: float
    epochs: int


def train(
    student: nn.Module,
    data: LightningDataModule,
    teacher: TeacherOption = None,
    teacher_checkpoint: str | dict[str, str] | None = None,
    teacher_data: LightningDataModule | None = None,
    teacher_epochs: int = 20,
    ema_decay: Real = 0.999,
    student_features: dict[str, str] | None = None,
    teacher_features: dict[str, str] | dict[str, dict[str, str]] | None = None,
    criteria: dict[str, Criterion] | None = None,
    weights: dict[str, Real | Schedule] | None = None,
    auto_weights: Real | None = None,
    optimizer: OptimizerCallable = sgd,
    scheduler: LRSchedulerCallable | None = None,
    epochs: int = 30,
    seed: int = 0,
    out: str = "runs/train",
    overwrite: bool = False,
    resume: bool = False,
    plots: int | Literal["epoch"] | None = None,
    trainer: dict[str, Any] | None = None,
) -> Result:
    """Train a student, with a teacher's help if there is one, and keep the run in a folder.

    The folder gets ``last.ckpt`` (replaced whole after every epoch; resuming continues from it to the numbers of an
    uninterrupted run), ``student.pt`` (the student's weights alone), ``history.json`` (all curves) and
    ``results.json``.

    Args:
        student: The model to train.
        data: Batches to train, validate and test on.
        teacher: The model to learn from, or several by name. Or ``ema``, the moving average of the student; or
            ``self``, the student itself, whose deeper parts ``teacher_features`` names.
        teacher_checkpoint: The teacher's weights, a ``state_dict``; of several, by name. If there is no such file, the
            teacher is first trained on ``teacher_data`` and saved there.
        teacher_data: What a teacher without a checkpoint is trained on.
        teacher_epochs: How long a teacher without a checkpoint is trained.
        ema_decay: Decay of the moving average, only for the teacher ``ema``.
        student_features: Which activations the criteria see: names to module paths, such as ``feat: avgpool``.
        teacher_features: The same for the teacher; of several, one for all or by name.
        criteria: Losses between student and teacher, by name, such as graphkd.losses.otgd. Of several teachers, those
            under names such as ``vgg/otgd`` are for that one, others for each.
        weights: Of the criteria by name, of the student's own loss as ``task``, of several teachers by name, and
            factors on single terms under names such as ``otgd/f``; one where omitted. Numbers, or schedules such as
            graphkd.training.schedules.ConstantThenCosine.
        auto_weights: Give the criteria that ``weights`` does not name those with which each one's gradient at the
            student's features is, before training, so many times the task's, as graphkd.suggest_weights does; kept in
            the folder's ``weights.json``. If omitted, they have weight one.
        optimizer: Of the student and of what the criteria learn.
        scheduler: Of the learning rate, stepped once an epoch; a cosine to zero if omitted.
        epochs: Passes over the training data.
        seed: Of initial weights and of all random numbers while training.
        out: The run's folder.
        overwrite: Whether a run that is already in the folder may be replaced.
        resume: Go on from the folder's checkpoint.
        plots: Every so many steps, or after every ``epoch``, look at what the criteria compare: twenty snapshots at
            most, in the folder's ``snapshots``, and in the end ``inspect.html``, a page that shows them. If omitted,
            nothing is looked at.
        trainer: Further arguments of Lightning's Trainer, such as accelerator, devices, precision, logger.

    Raises:
        ValueError: For a folder that holds another run, a teacher without weights or data, and for what the distiller
            refuses.
    """
    folder = Path(out)
    if (folder / LAST).exists() and not (overwrite or resume):
        raise ValueError(
            f"needs a folder without a run, got {folder}: --resume it, --overwrite it, or name another --out"
        )
    options = trainer or {}
    distiller = Distiller(
        student,
        prepared(student, teacher, teacher_checkpoint, teacher_data, teacher_epochs, ema_decay, seed, options),
        student_features=student_features,
        teacher_features=teacher_features,
        criteria=criteria,
        weights=weights,
    )
    if auto_weights is not None and criteria:
        distiller.set_epoch(1, epochs)
        open_ones = [name for name in criteria if name not in (weights or {})]
        distiller.weights.update(_balanced(distiller, data, auto_weights, open_ones, folder / WEIGHTS, resume))
    looks = folder / FOLDER
    result, history = run(
        distiller,
        data,
        optimizer=optimizer,
        scheduler=scheduler,
        epochs=epochs,
        seed=seed,
        folder=folder,
        resume=resume,
        callbacks=() if plots is None else (SaveSnapshots(looks, every=None if plots == "epoch" else plots),),
        **options,
    )
    torch.save(student.state_dict(), folder / "student.pt")
    history.save(folder / HISTORY)
    record = {"seed": seed, "result": asdict(result), "versions": versions()}
    (folder / "results.json").write_text(json.dumps(record, indent=1))
    if plots is not None:
        title = f"Run {folder.resolve().name}"
        write_page(snapshots.load_all(looks), folder / PAGE, title=title, curves=history.curves)
    return result


def run(
    distiller: Distiller,
    data: LightningDataModule,
    *,
    epochs: int,
    seed: int,
    optimizer: OptimizerCallable = sgd,
    scheduler: LRSchedulerCallable | None = None,
    folder: Path | None = None,
    resume: bool = False,
    callbacks: tuple[Callback, ...] = (),
    **trainer_options: Any,
) -> tuple[Result, History]:
    """Train a distiller, then test its student once; see :func:`train` for the arguments."""
    if scheduler is None:
        scheduler = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs)
    module = DistillationModule(distiller, optimizer, scheduler, seed)
    trainer, history = fit(
        module, data, epochs=epochs, folder=folder, resume=resume, callbacks=callbacks, **trainer_options
    )
    seconds = history.curves["seconds"]
    measured = evaluate(trainer, module, data)
    result = Result(
        accuracy=measured["accuracy"],
        agreement=measured.get("agreement"),
        parameters=_count(distiller.student),
        extra_parameters=_count(distiller.criteria),
        seconds_per_epoch=sum(seconds) / len(seconds),
        epochs=epochs,
    )
    return result, history


def train_teacher(
    teacher: nn.Module, data: LightningDataModule, *, epochs: int, seed: int, **trainer_options: Any
) -> Result:
    """Train a model on all labels, in place, for use as a teacher."""
    seed_everything(seed, verbose=False)
    return run(Distiller(teacher), data, epochs=epochs, seed=seed, **trainer_options)[0]


def versions() -> dict[str, str]:
    """What a run's numbers depend on besides its config."""
    packages = {name: version(name) for name in ("graphkd", "torch", "torch-geometric", "lightning", "numpy")}
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    return {"python": platform.python_version(), "machine": machine} | packages


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
    if path is not None and path.exists():
        try:
            teacher.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise ValueError(f"teacher_checkpoint needs weights that fit the teacher, got {path}: {said}") from error
        return
    if data is None:
        raise ValueError(f"needs a teacher_checkpoint that exists, or teacher_data to train one on, got {checkpoint!r}")
    logger.info("no teacher weights at %s: training a teacher for %d epochs", path, epochs)
    result = train_teacher(teacher, data, epochs=epochs, seed=seed, **options)
    logger.info("teacher: test accuracy %.2f %%", 100 * result.accuracy)
    teacher.requires_grad_(False)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(teacher.state_dict(), path)


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


def _balanced(
    distiller: Distiller, data: LightningDataModule, ratio: Real, names: list[str], path: Path, resume: bool
) -> dict[str, float]:
    """The weights that were suggested when the run began, and are kept for when it goes on."""
    if not names:
        logger.info("auto-weights: nothing to set, since weights names all")
        return {}
    if not (resume and path.exists()):
        data.prepare_data()
        data.setup("fit")
        found = suggest_weights(distiller, data.train_dataloader(), target_ratio=ratio)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({name: found[name] for name in names}, indent=1))
    weights = {name: weight for name, weight in read_weights(path).items() if name in names}
    logger.info("auto-weights: %s", ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items()))
    return weights


def read_weights(path: Path) -> dict[str, float]:
    """The weights that a run found for itself; none where it was told all."""
    return json.loads(path.read_text()) if path.exists() else {}


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
