"""A distiller as a LightningModule."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from lightning import LightningModule, seed_everything
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from graphkd import parallel
from graphkd.distiller import Distiller
from graphkd.step import Step
from graphkd.training.finite import FiniteLosses, check_weights
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
    and with the weights that schedules have for it, of the trainer's ``max_epochs``. A checkpoint inside an epoch has
    the epoch's numbers so far.

    A loss that is not finite ends the run, and weights that are not are never kept; see
    :class:`~graphkd.training.finite.FiniteLosses`.

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
        self.losses = FiniteLosses()
        self._started = 0.0
        self._sums: dict[str, Tensor] = {}
        self._seen = 0
        self._so_far: dict[str, Any] = {}
        self._counts: dict[str, Tensor] = {}
        # Where DistributedDataParallel looks for them, which wraps this module.
        self._ddp_params_and_buffers_to_ignore = [
            f"distiller.{name}" for name in distiller._ddp_params_and_buffers_to_ignore
        ]

    def configure_optimizers(self) -> Any:
        """The optimiser over student and criteria, with its schedule."""
        optimizer = self.make_optimizer(self.distiller.learnable_parameters())
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.make_scheduler(optimizer)}}

    def on_train_start(self) -> None:
        """Take up the epoch that the checkpoint was inside of, if it was."""
        so_far, self._so_far = self._so_far, {}
        if self.trainer.fit_loop.restarted_mid_epoch:
            self.on_train_epoch_start()
            self._sums = {name: total.to(self.device) for name, total in so_far["sums"].items()}
            self._seen = so_far["seen"]
            self._started -= so_far["seconds"]

    def on_train_epoch_start(self) -> None:
        """Seed the epoch, bring scheduled weights to it, and forget the last one's numbers."""
        # Each process draws numbers of its own, such as those of dropout.
        seed = self.seed * 1_000_003 + self.current_epoch + 500_009 * parallel.rank()
        seed_everything(seed % 2**32, verbose=False)
        self.distiller.set_epoch(self.current_epoch + 1, self.trainer.max_epochs or 0)
        self._sums, self._seen = {}, 0
        self._started = time.perf_counter()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One batch through the distiller."""
        step = self._step(batch)
        # Summed here, logged once an epoch: Lightning's averages would take longer than the step of a small model.
        size = next((len(x) for x in step.student_features.values()), len(batch[1]))
        self._seen += size
        for name, value in step.logs.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + size * value
        if self.trainer.is_last_batch:
            means = {f"train/{name}": total / self._seen for name, total in self._sums.items()}
            weights = {f"train/weight/{name}": self.distiller.weights[name] for name in self.distiller.schedules}
            seconds = time.perf_counter() - self._started
            self.log_dict(means | weights | {"seconds": seconds}, on_step=True, on_epoch=False)
        return step.loss

    def on_train_epoch_end(self) -> None:
        """Look at the epoch's last loss, whether or not a checkpoint follows."""
        self.losses.check()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the epoch's numbers so far; what is not finite is not kept."""
        self.losses.check()
        check_weights({"student": self.distiller.student, "criteria": self.distiller.criteria}, self.global_step)
        checkpoint["so_far"] = {
            "sums": dict(self._sums),
            "seen": self._seen,
            "seconds": time.perf_counter() - self._started,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the numbers of the epoch that the checkpoint may be inside of.

        Raises:
            ValueError: For a checkpoint of more epochs than there are to be.
        """
        trained = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        if 0 <= (self.trainer.max_epochs or 0) < trained:
            raise ValueError(f"needs at least the {trained} epochs of the checkpoint, got {self.trainer.max_epochs}")
        self._so_far = checkpoint["so_far"]

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Step, then let teachers that are averages of the student follow it."""
        super().optimizer_step(*arguments, **named)
        self.distiller.update_teachers()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure the student on images that settings are chosen on."""
        self._measure(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure the student on images that nothing is chosen on."""
        self._measure(batch)

    def _step(self, batch: Batch) -> Step:
        """What the distiller says; where a number is not finite, that is an error which says what and where."""
        at = {"epoch": self.current_epoch + 1, "step": self.global_step}
        try:
            step = self.distiller(*batch)
        except ValueError as error:
            self.losses.explain(error, self.distiller.student, batch, **at)
            raise
        self.losses.watch(step.loss, step.logs, batch, **at)
        return step

    def on_validation_epoch_end(self) -> None:
        """Log the shares of all validation samples."""
        self._log_shares("val")

    def on_test_epoch_end(self) -> None:
        """Log the shares of all test samples."""
        self._log_shares("test")

    def _measure(self, batch: Batch) -> None:
        inputs, labels = batch[:2]
        chosen = self.distiller.logits(inputs).argmax(-1)
        self._count("accuracy", (chosen == labels)[labels != UNLABELLED])
        teachers = self.distiller.teachers.probabilities(inputs)
        if teachers is not None:
            self._count("agreement", chosen == teachers.argmax(-1))

    def _count(self, name: str, right: Tensor) -> None:
        """Add to how many samples there are, and how many of them are right."""
        now = torch.stack([right.sum(), right.new_tensor(len(right), dtype=torch.int64)])
        self._counts[name] = self._counts.get(name, torch.zeros_like(now)) + now

    def _log_shares(self, split: str) -> None:
        """Over the samples of all processes."""
        counts, self._counts = self._counts, {}
        for name, each in counts.items():
            right, samples = parallel.summed(each).cpu()
            self.log(f"{split}/{name}", right.double() / samples, prog_bar=name == "accuracy", sync_dist=True)
