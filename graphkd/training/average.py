"""A moving average of the student's weights, for evaluation and as what is kept of the run."""

from typing import Any

import torch
from lightning import Callback, Trainer
from torch import nn
from torch.optim.swa_utils import AveragedModel

from graphkd import checks
from graphkd.teachers import ema
from graphkd.typing import Real


class StudentAverage(Callback):
    r"""Average the student's weights over the steps of the optimiser, and validate with the average.

    .. math:: \bar\theta \leftarrow \beta \bar\theta + (1 - \beta) \theta

    Training goes on with the student's own weights, to the same numbers as without. Batch statistics are averaged as
    weights are; what is counted in integers is as in the student. Lightning's ``EMAWeightAveraging`` would average the
    whole module: teachers, and the memories of criteria.

    Args:
        decay: :math:`\beta`, in [0, 1].

    Raises:
        ValueError: For a decay that is no number in [0, 1].
    """

    def __init__(self, decay: Real) -> None:
        self.decay = decay
        checks.share("student_ema", decay)
        self._average: AveragedModel | None = None
        self._kept: dict[str, Any] | None = None
        self._step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Begin with the student as it is, or with what the checkpoint has."""
        student = pl_module.distiller.student
        self._average = ema(student, self.decay).requires_grad_(False)
        if self._kept is not None:
            self._average.module.load_state_dict(self._kept)
            self._kept = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *rest: Any) -> None:
        """Follow the student, where the optimiser took a step."""
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self._model().update_parameters(pl_module.distiller.student)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Let the average be measured."""
        self._swap(pl_module.distiller.student)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Let the student go on with its own weights."""
        self._swap(pl_module.distiller.student)

    def give_to(self, student: nn.Module) -> None:
        """Give the student the average, when training has ended."""
        student.load_state_dict(self._model().module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The average, for the checkpoint."""
        return {"average": self._model().module.state_dict(), "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's."""
        self._kept, self._step = state_dict["average"], state_dict["step"]

    def _model(self) -> AveragedModel:
        assert self._average is not None, "fit begins the average"
        return self._average

    @torch.no_grad()
    def _swap(self, student: nn.Module) -> None:
        theirs = student.state_dict()
        # Weights that two modules share have two names, and are to be swapped once.
        shared = {value.data_ptr(): name for name, value in theirs.items()}
        own = self._model().module.state_dict()
        for name in shared.values():
            before = own[name].clone()
            own[name].copy_(theirs[name])
            theirs[name].copy_(before)
