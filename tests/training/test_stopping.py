"""Runs that stop when they no longer get better."""

import pytest
import torch
from lightning import Callback

from graphkd import Distiller
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training import DistillationModule
from graphkd.training.run import run
from graphkd.training.stopping import StopEarly

ACCURACIES = [0.1, 0.5, 0.4, 0.5, 0.6, 0.7, 0.7]


class Crash(RuntimeError):
    pass


class StopIn(Callback):
    """Raise as an epoch begins, or where there is none to come."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise Crash

    def on_train_end(self, trainer, pl_module):
        raise Crash


def logged(module, split):
    module.log(f"{split}/accuracy", torch.tensor(ACCURACIES[min(module.current_epoch, 6)]), on_epoch=True)


@pytest.fixture
def train(monkeypatch):
    monkeypatch.setattr(DistillationModule, "_log_shares", logged)

    def start(**options):
        torch.manual_seed(0)
        digits = DigitsData()
        digits.train = tuple(part[:64] for part in digits.train)
        return run(Distiller(SmallCNN(2)), digits, seed=0, epochs=6, enable_progress_bar=False, **options)

    return start


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (3, 6), (None, 6)])
def test_a_run_stops_after_so_many_epochs_without_a_better_accuracy(train, patience, epochs):
    result, history = train(patience=patience)
    assert result.epochs == epochs == len(history.curves["val/accuracy"])
    assert result.stopped_early == (epochs < 6)


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_run_that_goes_on_stops_at_the_same_epoch(tmp_path, train, epoch):
    with pytest.raises(Crash):
        train(patience=2, folder=tmp_path, callbacks=(StopIn(epoch),))
    result, history = train(patience=2, folder=tmp_path, resume=True)
    assert (result.epochs, result.stopped_early) == (4, True)
    assert history.curves["val/accuracy"] == pytest.approx(ACCURACIES[:4])


def test_more_patience_lets_a_run_go_on(tmp_path, train):
    train(patience=1, folder=tmp_path)
    result, _ = train(patience=3, folder=tmp_path, resume=True)
    assert (result.epochs, result.stopped_early) == (6, False)


def test_patience_without_an_epoch_or_without_images_to_validate_on_is_refused(train):
    with pytest.raises(ValueError, match="patience needs an integer of at least 1, got 0"):
        StopEarly(0)
    with pytest.raises(ValueError, match="patience needs data to validate on"):
        train(patience=1, limit_val_batches=0)
