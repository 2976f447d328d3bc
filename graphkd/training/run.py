"""One run: a distiller is trained, then its student is measured once."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Callback, LightningDataModule, seed_everything
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn

from graphkd.distiller import Distiller
from graphkd.training.average import StudentAverage
from graphkd.training.fit import evaluate, fit
from graphkd.training.history import History
from graphkd.training.module import DistillationModule, LRSchedulerCallable, OptimizerCallable, sgd
from graphkd.training.rates import CosineToZero
from graphkd.training.record import versions as versions
from graphkd.training.stopping import StopEarly
from graphkd.typing import Real


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
        stopped_early: Whether that was for want of a better validation accuracy.
        student_ema: The decay of the moving average of weights that was measured and kept; None for the weights
            themselves.
    """

    accuracy: float
    agreement: float | None
    parameters: int
    extra_parameters: int
    seconds_per_epoch: float
    epochs: int
    stopped_early: bool = False
    student_ema: float | None = None


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
    checkpoint_every: int | None = None,
    student_ema: Real | None = None,
    patience: int | None = None,
    callbacks: tuple[Callback, ...] = (),
    **trainer_options: Any,
) -> tuple[Result, History]:
    """Train a distiller, then test its student once; see :func:`~graphkd.training.train.train` for the arguments.

    With ``student_ema`` the student has the average of its weights afterwards.

    Raises:
        ValueError: For data without ``test_dataloader``, and what :func:`~graphkd.training.fit.fit` refuses.
    """
    if not is_overridden("test_dataloader", data):
        raise ValueError(f"needs data to measure the student on, got {type(data).__name__} without test_dataloader")
    module = DistillationModule(distiller, optimizer, scheduler or partial(CosineToZero, T_max=epochs), seed)
    average = None if student_ema is None else StudentAverage(student_ema)
    stopping = None if patience is None else StopEarly(patience)
    trainer, history = fit(
        module,
        data,
        epochs=epochs,
        folder=folder,
        resume=resume,
        checkpoint_every=checkpoint_every,
        callbacks=[*(each for each in (average, stopping) if each is not None), *callbacks],
        **trainer_options,
    )
    if average is not None:
        average.give_to(distiller.student)
    seconds = history.curves["seconds"]
    measured = evaluate(trainer, module, data)
    result = Result(
        accuracy=measured["accuracy"],
        agreement=measured.get("agreement"),
        parameters=count_parameters(distiller.student),
        extra_parameters=count_parameters(distiller.criteria),
        seconds_per_epoch=sum(seconds) / len(seconds),
        epochs=len(seconds),
        stopped_early=stopping is not None and stopping.stopped,
        student_ema=student_ema,
    )
    return result, history


def train_teacher(
    teacher: nn.Module, data: LightningDataModule, *, epochs: int, seed: int, **trainer_options: Any
) -> Result:
    """Train a model on all labels, in place, for use as a teacher."""
    seed_everything(seed, verbose=False)
    return run(Distiller(teacher), data, epochs=epochs, seed=seed, **trainer_options)[0]


def count_parameters(module: nn.Module) -> int:
    """How many numbers a module learns.

    >>> count_parameters(nn.Linear(2, 3))
    9
    """
    return sum(parameter.numel() for parameter in module.parameters())
