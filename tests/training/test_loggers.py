"""Loggers by name."""

from unittest.mock import MagicMock

import pytest
from lightning.pytorch.loggers import WandbLogger

from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training.loggers import named_loggers
from graphkd.training.train import train


def start(folder, **options):
    data = DigitsData()
    data.train = tuple(part[:64] for part in data.train)
    trainer = {"enable_progress_bar": False} | options.pop("trainer", {})
    return train(SmallCNN(2), data, out=str(folder), epochs=options.pop("epochs", 1), trainer=trainer, **options)


def test_tensorboard_writes_into_the_runs_folder(tmp_path):
    start(tmp_path, loggers=["tensorboard"])
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents*"))


def test_weights_and_biases_adds_to_the_same_run_when_it_is_resumed(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_PROJECT", "digits")
    made = []

    class Offline(WandbLogger):
        """Writes nothing, and remembers how it was made."""

        def __init__(self, *given, **options):
            super().__init__(*given, **options, experiment=MagicMock())
            made.append(self._wandb_init)

    monkeypatch.setattr("graphkd.training.loggers.WandbLogger", Offline)
    start(tmp_path / "run", loggers=["wandb"])
    start(tmp_path / "run", loggers=["wandb"], epochs=2, resume=True)
    start(tmp_path / "run", loggers=["wandb"], overwrite=True)
    first, second, third = made
    assert first == second
    assert first["name"] == "run" and first["project"] == "digits" and first["dir"] == str(tmp_path / "run")
    assert first["resume"] == "allow" and first["id"] != third["id"]


def test_a_package_that_is_not_there_is_named_with_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    monkeypatch.setattr("lightning.fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr("lightning.fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
    for name in ("wandb", "tensorboard"):
        with pytest.raises(ValueError, match=f"loggers: {name} needs a package that is not there: pip install {name}"):
            named_loggers([name], tmp_path, run="0")


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(Exception, match="tensorboard"):
        named_loggers(["mlflow"], tmp_path, run="0")


def test_two_ways_to_name_a_logger_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs loggers or the trainer's own logger, got both"):
        start(tmp_path, loggers=["tensorboard"], trainer={"logger": False})
