"""One training run from its options: a student, perhaps a teacher, data, and a folder that keeps what happened."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from graphkd import kept, snapshots
from graphkd.balance import suggest_weights
from graphkd.distiller import Distiller
from graphkd.inspection import write_page
from graphkd.loss import Criterion
from graphkd.sources import Derived
from graphkd.training.caching import cached, device_for
from graphkd.training.folder import (
    HISTORY,
    LAST,
    PAGE,
    RESULTS,
    RUN,
    STUDENT,
    WEIGHTS,
    read_weights,
    write_json,
    write_tensors,
)
from graphkd.training.loggers import LoggerName, named_loggers
from graphkd.training.module import LRSchedulerCallable, OptimizerCallable, sgd
from graphkd.training.processes import before_processes
from graphkd.training.record import RunRecord, versions
from graphkd.training.run import Result, run
from graphkd.training.teacher import TeacherOption, check_teachers, prepared
from graphkd.training.watch import FOLDER, SaveSnapshots
from graphkd.typing import Real, Schedule

logger = logging.getLogger(__name__)


def train(
    student: nn.Module,
    data: LightningDataModule,
    teacher: TeacherOption = None,
    teacher_checkpoint: str | dict[str, str] | None = None,
    teacher_data: LightningDataModule | None = None,
    teacher_epochs: int = 20,
    check_teacher: bool = True,
    teacher_cache: str | None = None,
    ema_decay: Real = 0.999,
    student_features: dict[str, str | Derived] | None = None,
    teacher_features: dict[str, str | Derived] | dict[str, dict[str, str | Derived]] | None = None,
    criteria: dict[str, Criterion] | None = None,
    weights: dict[str, Real | Schedule] | None = None,
    auto_weights: Real | None = None,
    optimizer: OptimizerCallable = sgd,
    scheduler: LRSchedulerCallable | None = None,
    epochs: int = 30,
    patience: int | None = None,
    student_ema: Real | None = None,
    seed: int = 0,
    out: str = "runs/train",
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: int | None = None,
    plots: int | Literal["epoch"] | None = None,
    loggers: list[LoggerName] | None = None,
    trainer: dict[str, Any] | None = None,
) -> Result:
    """Train a student, with a teacher's help if there is one, and keep the run in a folder.

    The folder gets ``run.json`` (command, versions, commit and machine, for each time that it was started),
    ``last.ckpt`` (replaced whole after every epoch; resuming continues from it to the numbers of an uninterrupted run),
    ``metrics.csv`` (a row after every epoch), and in the end ``student.pt`` (the student's weights alone),
    ``history.json`` (all curves) and ``results.json``. Each file is whole or not there, whenever the process ends.

    A loss that is not finite ends the run, and the folder gets the batch, as ``not_finite_step000123.pt``.

    Args:
        student: The model to train.
        data: Batches to train, validate and test on.
        teacher: The model to learn from, or several by name. Or ``ema``, the moving average of the student; or
            ``self``, the student itself, whose deeper parts ``teacher_features`` names.
        teacher_checkpoint: The teacher's weights, a ``state_dict``; of several, by name. If there is no such file, the
            teacher is first trained on ``teacher_data`` and saved there.
        teacher_data: What a teacher without a checkpoint is trained on.
        teacher_epochs: How long a teacher without a checkpoint is trained.
        check_teacher: Measure teachers on a few validation images before the run begins, and refuse one that is little
            better than guessing.
        teacher_cache: A folder for what the teacher says of the training samples, computed once and read in every
            epoch; built where it is not there, refused where it was made of other weights, features or data. Needs data
            with ``with_view: true`` and a fixed number of views. Of several teachers, each has a folder in it.
        ema_decay: Decay of the moving average, only for the teacher ``ema``.
        student_features: Which activations the criteria see: names to module paths, such as ``feat: avgpool``, or to
            one of graphkd.adaptors, such as graphkd.adaptors.ClsToken; ``graphkd features`` lists what a model has.
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
        scheduler: Of the learning rate, stepped once an epoch; a cosine to zero if omitted, which goes on over all
            epochs where a run is resumed for more of them. One that is named goes on as it began, whatever the epochs.
        epochs: Passes over the training data.
        patience: Stop after so many epochs without a better validation accuracy. What is kept and measured is the
            student of the last epoch in any case.
        student_ema: Average the student's weights over the steps with this decay, such as 0.999; the average is what
            is validated, tested and kept as ``student.pt``. If omitted, these are the weights themselves.
        seed: Of initial weights and of all random numbers while training.
        out: The run's folder.
        overwrite: Whether a run that is already in the folder may be replaced.
        resume: Go on from the folder's checkpoint.
        checkpoint_every: Replace ``last.ckpt`` every so many steps too, for long epochs: a run that goes on from inside
            an epoch reads the batches that it has seen once more, and drops them.
        plots: Every so many steps, or after every ``epoch``, look at what the criteria compare: twenty snapshots at
            most, in the folder's ``snapshots``, and in the end ``inspect.html``, a page that shows them. If omitted,
            nothing is looked at.
        loggers: Log to ``tensorboard`` or ``wandb`` too.
        trainer: Further arguments of Lightning's Trainer, such as accelerator, devices, strategy, precision,
            accumulate_grad_batches, gradient_clip_val; and ``timeout``, the seconds that processes wait for each other.

    Raises:
        ValueError: For a folder that holds another run, a teacher without weights or data, one that only guesses, a
            loss that is not finite, and for what the distiller refuses.
    """
    folder = Path(out)
    if (folder / LAST).exists() and not (overwrite or resume):
        raise ValueError(
            f"needs a folder without a run, got {folder}: --resume it, --overwrite it, or name another --out"
        )
    options = trainer or {}
    record = RunRecord(folder / RUN, seed, resume)
    teachers = prepared(student, teacher, teacher_checkpoint, teacher_data, teacher_epochs, ema_decay, seed, options)
    if check_teacher and not resume and isinstance(teacher, nn.Module | dict):
        check_teachers(_named(teacher), data)
    distiller = Distiller(
        student,
        teachers,
        student_features=student_features,
        teacher_features=teacher_features,
        criteria=criteria,
        weights=weights,
        cache=None
        if teacher_cache is None
        else cached(
            student,
            teachers,
            teacher_features,
            data,
            Path(teacher_cache),
            device_for(str(options.get("accelerator", "auto"))),
        ),
    )
    if auto_weights is not None and criteria:
        distiller.set_epoch(1, epochs)
        open_ones = [name for name in criteria if name not in (weights or {})]
        distiller.weights.update(_balanced(distiller, data, auto_weights, open_ones, folder / WEIGHTS, resume))
    looks = folder / FOLDER
    watching = () if plots is None else (SaveSnapshots(looks, every=None if plots == "epoch" else plots),)
    result, history = run(
        distiller,
        data,
        optimizer=optimizer,
        scheduler=scheduler,
        epochs=epochs,
        patience=patience,
        student_ema=student_ema,
        seed=seed,
        folder=folder,
        resume=resume,
        checkpoint_every=checkpoint_every,
        callbacks=(record, *watching),
        **_with_loggers(options, loggers, folder, record),
    )
    write_tensors(folder / STUDENT, student.state_dict())
    history.save(folder / HISTORY)
    write_json(folder / RESULTS, {"seed": seed, "result": asdict(result), "versions": versions()})
    if plots is not None:
        title = f"Run {folder.resolve().name}"
        rank_zero_only(write_page)(snapshots.load_all(looks), folder / PAGE, title=title, curves=history.curves)
    return result


def _balanced(
    distiller: Distiller, data: LightningDataModule, ratio: Real, names: list[str], path: Path, resume: bool
) -> dict[str, float]:
    """The weights that were suggested when the run began, and are kept for when it goes on."""
    if not names:
        logger.info("auto-weights: nothing to set, since weights names all")
        return {}
    if resume and path.exists():
        found = read_weights(path)
    else:
        before_processes("auto_weights")
        data.prepare_data()
        data.setup("fit")
        found = suggest_weights(distiller, data.train_dataloader(), target_ratio=ratio)
        write_json(path, {name: found[name] for name in names})
    weights = {name: weight for name, weight in found.items() if name in names}
    logger.info("auto-weights: %s", ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items()))
    return weights


def _named(teacher: nn.Module | dict[str, nn.Module]) -> Mapping[str, nn.Module]:
    """Teachers by what they are called in an error."""
    if isinstance(teacher, nn.Module):
        return {"teacher": teacher}
    return {f"teacher {name!r}": each for name, each in teacher.items()}


def _with_loggers(
    options: dict[str, Any], names: list[LoggerName] | None, folder: Path, record: RunRecord
) -> dict[str, Any]:
    """The trainer's options, with the loggers that are named."""
    if not names:
        return options
    if "logger" in options:
        raise ValueError(f"needs loggers or the trainer's own logger, got both: {', '.join(names)} and trainer.logger")
    first = record.entries[0]
    return {**options, "logger": named_loggers(names, folder, kept.digest([first["started"], first["seed"]]))}
