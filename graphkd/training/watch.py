"""Look at a student while it trains: snapshots in a folder, and pictures for TensorBoard."""

from pathlib import Path
from typing import Any, Literal

from lightning import Callback, LightningDataModule, Trainer
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.loggers import TensorBoardLogger

from graphkd import checks, kept, snapshots
from graphkd.distiller import Distiller
from graphkd.inspection.figures import plan_figures
from graphkd.memory import MemoryBank
from graphkd.probe import Probe, choose

FOLDER = "snapshots"
"""The snapshots' folder in a run's folder."""

Split = Literal["auto", "validation", "training"]


class SaveSnapshots(Callback):
    """Save what the criteria compare on a few samples: before training, every few steps, and at the end.

    Training goes on to the same numbers as without, since taking a snapshot draws no random number of its own. There
    are never more than ``most`` snapshots and the last: whenever there would be, every second one is deleted, and from
    then on only every second is taken. One takes about 4 n m bytes for each plan, cost and relation and 4 n d for the
    nodes of each hop: 0.7 megabytes for OTGD on 100 samples.

    Where the trainer has a logger for TensorBoard, each snapshot's plans are logged as images.

    Args:
        folder: Where they are saved, as ``step000000160.pt``; what an earlier run left there is deleted.
        every: Steps between two snapshots; None takes one after every epoch.
        most: How many are kept.
        probe: The samples; by default :func:`~graphkd.probe.choose` takes them from the data module.
        split: The data that they are from: ``auto`` takes training samples where criteria have a memory of them, and
            else validation samples.

    Raises:
        ValueError: For numbers below one, fewer than two to keep, and at the start of training for a trainer without a
            data module where there is no probe.
    """

    def __init__(
        self,
        folder: str | Path,
        every: int | None = None,
        most: int = 20,
        probe: Probe | None = None,
        split: Split = "auto",
    ) -> None:
        if every is not None:
            checks.at_least("every", every, 1)
        checks.at_least("most", most, 2)
        checks.one_of("split", split, ("auto", "validation", "training"))
        self.folder, self.every, self.most, self.probe = Path(folder), every, most, probe
        self.split: Split = split
        self._stride = 1
        self._taken: dict[int, str] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Choose the samples, and look at them for the first time."""
        if self.probe is None:
            data = getattr(trainer, "datamodule", None)
            if data is None:
                raise ValueError("snapshots need a probe, or a trainer with a data module to choose one from, got none")
            self.probe = probe_of(data, pl_module.distiller, self.split)
        if trainer.global_step == 0:
            self._stride, self._taken = 1, {}
        if trainer.is_global_zero:
            kept.remove_parts(self.folder)
            for path in snapshots.saved(self.folder):
                if path.name not in self._taken.values():
                    path.unlink()
        if not self._taken:
            self._take(trainer, pl_module, 0)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *rest: Any) -> None:
        """Look, where enough steps have been taken."""
        if self.every is not None and trainer.global_step % self.every == 0:
            self._take(trainer, pl_module, trainer.global_step // self.every)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Look, where epochs count."""
        if self.every is None:
            self._take(trainer, pl_module, trainer.current_epoch + 1)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Look at the end, whatever the step."""
        self._save(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Which are kept, for the checkpoint."""
        return {"stride": self._stride, "taken": dict(self._taken)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's."""
        self._stride, self._taken = state_dict["stride"], dict(state_dict["taken"])

    def _take(self, trainer: Trainer, pl_module: Any, moment: int) -> None:
        """Save the moment's snapshot if it is one of those that count, and delete some where there are too many."""
        if moment % self._stride:
            return
        self._taken[moment] = self._save(trainer, pl_module)
        while len(self._taken) > self.most:
            self._stride *= 2
            for each in [each for each in self._taken if each % self._stride]:
                (self.folder / self._taken.pop(each)).unlink(missing_ok=True)

    def _save(self, trainer: Trainer, pl_module: Any) -> str:
        """Save a snapshot, unless this step has one, and return its file's name."""
        path = snapshots.path_of(self.folder, trainer.global_step)
        if trainer.is_global_zero and not path.exists():
            probe = move_data_to_device(self.probe, pl_module.device)
            with trainer.precision_plugin.val_step_context():
                snapshot = snapshots.take(
                    pl_module.distiller,
                    probe._replace(inputs=trainer.precision_plugin.convert_input(probe.inputs)),
                    step=trainer.global_step,
                    epoch=trainer.fit_loop.epoch_progress.current.processed,  # pyright: ignore[reportAttributeAccessIssue]
                )
            snapshots.save(self.folder, snapshot)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    for drawn in plan_figures(snapshot):
                        logger.experiment.add_figure(drawn.heading, drawn.figure, snapshot.step)
        return path.name


def probe_of(
    data: LightningDataModule, distiller: Distiller, split: Split = "auto", samples: int = 100, per_class: int = 10
) -> Probe:
    """Choose a probe from a data module that is set up; see :class:`SaveSnapshots` and :func:`~graphkd.probe.choose`.

    >>> from graphkd.datasets import DigitsData
    >>> from graphkd.models import SmallCNN
    >>> probe_of(DigitsData(), Distiller(SmallCNN()), samples=20).labels.bincount().tolist()
    [0, 0, 10, 0, 0, 0, 0, 0, 10]
    """
    remembers = any(isinstance(module, MemoryBank) for module in distiller.criteria.modules())
    training = split == "training" or (split == "auto" and remembers)
    return choose(data.train_dataloader() if training else data.val_dataloader(), samples, per_class)
