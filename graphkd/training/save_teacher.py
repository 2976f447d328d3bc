"""Train a teacher, and keep its weights where configs name them."""

from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from torch import nn

from graphkd.training.folder import write_tensors
from graphkd.training.loggers import LoggerName
from graphkd.training.module import LRSchedulerCallable, OptimizerCallable, sgd
from graphkd.training.run import Result
from graphkd.training.train import train
from graphkd.typing import Real


def save_teacher(
    teacher: nn.Module,
    data: LightningDataModule,
    optimizer: OptimizerCallable = sgd,
    scheduler: LRSchedulerCallable | None = None,
    epochs: int = 30,
    patience: int | None = None,
    teacher_ema: Real | None = None,
    seed: int = 0,
    out: str = "runs/teacher",
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_every: int | None = None,
    loggers: list[LoggerName] | None = None,
    trainer: dict[str, Any] | None = None,
) -> Result:
    """Train a teacher on labels, as a student without one, and write its weights beside the run's folder.

    Args:
        teacher: The model.
        data: Batches to train, validate and test on.
        optimizer: Of its parameters.
        scheduler: Of the learning rate, stepped once an epoch; a cosine to zero if omitted.
        epochs: Passes over the training data.
        patience: Stop after so many epochs without a better validation accuracy.
        teacher_ema: Average its weights over the steps with this decay, and keep the average.
        seed: Of initial weights and of all random numbers while training.
        out: The run's folder, as of ``graphkd train``; the weights are the file of this name with ``.pt`` behind it,
            which ``teacher_checkpoint`` names.
        overwrite: Whether a run that is already in the folder may be replaced.
        resume: Go on from the folder's checkpoint.
        checkpoint_every: Replace ``last.ckpt`` every so many steps too, for long epochs.
        loggers: Log to ``tensorboard`` or ``wandb`` too.
        trainer: Further arguments of Lightning's Trainer, such as accelerator, devices, precision.

    Raises:
        ValueError: As ``graphkd train``, and for a folder that ends in ``.pt``.
    """
    if out.endswith(".pt"):
        raise ValueError(f"out needs a folder, beside which the weights are kept with .pt behind its name, got {out}")
    result = train(
        student=teacher,
        data=data,
        optimizer=optimizer,
        scheduler=scheduler,
        epochs=epochs,
        patience=patience,
        student_ema=teacher_ema,
        seed=seed,
        out=out,
        overwrite=overwrite,
        resume=resume,
        checkpoint_every=checkpoint_every,
        loggers=loggers,
        trainer=trainer,
    )
    write_tensors(weights_of(out), teacher.state_dict())
    return result


def weights_of(out: str) -> Path:
    """Where the weights of a teacher's run are.

    >>> weights_of("runs/cifar100/resnet56").name
    'resnet56.pt'
    """
    return Path(f"{out.rstrip('/')}.pt")
