"""A distiller as a LightningModule."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from lightning import LightningModule, seed_everything
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from graphkd.distiller import Distiller
from graphkd.features import model_logits
from graphkd.typing import UNLABELLED

Batch = Sequence[Any]
"""Inputs and labels, then perhaps where the samples stand in the data set."""

OptimizerCallable = Callable[[Iterable], Optimizer]
LRSchedulerCallable = Callable[[Optimizer], LRScheduler]


def sgd(parameters: Iterable) -> Optimizer:
    """The field's usual optimiser: stochastic gradient descent, rate 0.05, momentum 0.9, weight decay 5e-4."""
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)


class DistillationModule(LightningModule):
    """Train a distiller, and see how its student does on labelled images.

    Each epoch starts from a seed of its own, so that a run resumed at an epoch draws what an uninterrupted one draws,
    and with the weights that schedules have for it, of the trainer's ``max_epochs``.

    Logged per epoch: the mean over samples of every number of :class:`~graphkd.distiller.Step` under ``train/``; each
    scheduled weight under ``train/weight/``;
    ``val/accuracy`` and, where there is a teacher, ``val/agreement``, the share of images on which student and teacher
    choose one class (of several teachers, the likeliest by their mean probabilities); the same under ``test/``.

    Args:
        distiller: What to train.
        optimizer: A function of the parameters.
        scheduler: A function of the optimiser, stepped once an epoch.
        seed: Of the random numbers drawn while training.

    >>> from graphkd.models import SmallCNN
    >>> module = DistillationModule(Distiller(SmallCNN(2)))
    >>> type(module.configure_optimizers()).__name__
    'SGD'
    """

    def __init__(
        self,
        distiller: Distiller,
        optimizer: OptimizerCallable = sgd,
        scheduler: LRSchedulerCallable | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.distiller = distiller
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.seed = seed
        self._started = 0.0
        self._sums: dict[str, Tensor] = {}
        self._seen = 0

    def configure_optimizers(self) -> Any:
        """The optimiser over student and criteria, with its schedule."""
        optimizer = self.make_optimizer(self.distiller.learnable_parameters())
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.make_scheduler(optimizer)}}

    def on_train_epoch_start(self) -> None:
        """Seed the epoch, bring scheduled weights to it, and forget the last one's numbers."""
        seed_everything(self.seed * 1_000_003 + self.current_epoch, verbose=False)
        self.distiller.set_epoch(self.current_epoch + 1, self.trainer.max_epochs or 0)
        self._sums, self._seen = {}, 0
        self._started = time.perf_counter()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One batch through the distiller."""
        labels = batch[1]
        step = self.distiller(*batch)
        # Summed here, logged once an epoch: Lightning's averages would take longer than the step of a small model.
        self._seen += len(labels)
        for name, value in step.logs.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + len(labels) * value
        if self.trainer.is_last_batch:
            means = {f"train/{name}": total / self._seen for name, total in self._sums.items()}
            weights = {f"train/weight/{name}": self.distiller.weights[name] for name in self.distiller.schedules}
            seconds = time.perf_counter() - self._started
            self.log_dict(means | weights | {"seconds": seconds}, on_step=True, on_epoch=False)
        return step.loss

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Step, then let teachers that are averages of the student follow it."""
        super().optimizer_step(*arguments, **named)
        self.distiller.update_teachers()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure the student on images that settings are chosen on."""
        self._measure("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure the student on images that nothing is chosen on."""
        self._measure("test", batch)

    def _measure(self, split: str, batch: Batch) -> None:
        inputs, labels = batch
        chosen = model_logits(self.distiller.student(inputs)).argmax(-1)
        known = labels != UNLABELLED
        log = partial(self.log, on_step=False, on_epoch=True, batch_size=len(labels))
        log(f"{split}/accuracy", (chosen == labels)[known].float().mean(), prog_bar=True)
        teachers = self.distiller.teachers.probabilities(inputs)
        if teachers is not None:
            log(f"{split}/agreement", (chosen == teachers.argmax(-1)).float().mean())
