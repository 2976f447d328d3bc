import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from graphkd.cli import main
from graphkd.datasets import DigitsData
from graphkd.snapshots import load, saved
from graphkd.training import inspect as look
from graphkd.training.inspect import inspect

CONFIGS = Path(__file__).parents[2] / "examples" / "configs" / "digits"


def train(folder, *more, config="otgd"):
    options = ["--config", str(CONFIGS / f"{config}.yaml"), "--epochs", "1", "--out", str(folder / "run")]
    teacher = ["--teacher_checkpoint", str(folder / "teacher.pt"), "--teacher_epochs", "1"]
    assert main(["train", *options, *teacher, "--trainer.enable_progress_bar", "false", *more]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    return train(tmp_path_factory.mktemp("looked"), "--plots")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return train(tmp_path_factory.mktemp("bare"))


def text(page):
    """A page's own data, in which the names of its terms and its steps stand."""
    return page.read_text("utf-8")


@pytest.fixture
def shown(monkeypatch):
    """The snapshots that a page was written of, instead of the page."""
    seen = []

    def write_page(snapshots, path, *, title, curves=None):
        seen.append((list(snapshots), title, curves))
        return path

    monkeypatch.setattr(look, "write_page", write_page)
    return seen


def test_a_run_with_plots_has_snapshots_and_a_page(looked):
    assert [load(path).step for path in saved(looked / "snapshots")] == [0, 16]
    page = text(looked / "inspect.html")
    assert "otgd/gf" in page and "Run run" in page
    assert "plots: epoch" in (looked / "config.yaml").read_text()


def test_a_run_without_plots_has_neither(bare):
    assert not (bare / "snapshots").exists() and not (bare / "inspect.html").exists()


def test_plots_may_come_every_few_steps(tmp_path):
    run = train(tmp_path, "--plots", "6")
    assert [load(path).step for path in saved(run / "snapshots")] == [0, 6, 12, 16]


def test_a_command_writes_the_page_again(looked, tmp_path, capsys):
    assert main(["inspect", str(looked), "--out", str(tmp_path / "new" / "report.html")]) == 0
    assert capsys.readouterr().out == f"open {tmp_path / 'new' / 'report.html'} in a browser\n"
    assert text(tmp_path / "new" / "report.html") == text(looked / "inspect.html")


def test_a_folder_of_snapshots_will_do(looked, shown):
    inspect(str(looked))
    inspect(str(looked / "snapshots"))
    (run, title, curves), (alone, _, no_curves) = shown
    assert [each.step for each in run] == [each.step for each in alone] == [0, 16]
    assert title == "Run run"
    assert curves == json.loads((looked / "history.json").read_text())
    assert no_curves is None


def test_a_run_without_snapshots_is_built_again(looked, bare, shown):
    assert inspect(str(bare)) == bare / "inspect.html"
    (((now,), _, curves),) = shown
    last = load(saved(looked / "snapshots")[-1])
    assert (now.step, now.epoch) == (last.step, last.epoch) == (16, 1)
    assert curves is not None
    assert torch.equal(now.labels, last.labels)
    assert torch.allclose(now.student["logits"], last.student["logits"], atol=1e-5)
    for name, comparison in last.comparisons.items():
        assert torch.allclose(now.comparisons[name].plan, comparison.plan, atol=1e-6)


def test_a_checkpoint_is_looked_at_even_where_there_are_snapshots(looked, shown):
    inspect(str(looked / "last.ckpt"), samples=12, per_class=3)
    (((now,), *_),) = shown
    assert now.step == 16
    assert len(now.labels) == 12 and now.labels.unique().numel() == 4


def test_other_data_may_be_looked_at(looked, shown, capsys):
    class Upside(DigitsData):
        def __init__(self):
            super().__init__()
            self.validation = (self.validation[0].flip(2), self.validation[1])

    inspect(str(looked), data=Upside())
    (((now,), *_),) = shown
    last = load(saved(looked / "snapshots")[-1])
    assert torch.equal(now.pictures, last.pictures.flip(2))
    assert main(["inspect", str(looked), "--data", "graphkd.datasets.DigitsData", "--split", "training"]) == 0
    (_, ((trained,), *_)) = shown
    assert not torch.equal(trained.pictures, last.pictures)


def test_scheduled_weights_are_those_of_the_checkpoints_epoch(bare, tmp_path, shown):
    config = yaml.safe_load((bare / "config.yaml").read_text())
    warmup = {"class_path": "graphkd.training.LinearWarmup", "init_args": {"weight": 1.0, "epochs": 4}}
    config["weights"]["kd"], config["epochs"] = warmup, 4
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    checkpoint = torch.load(bare / "last.ckpt", weights_only=True)
    checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] = 3
    torch.save(checkpoint, tmp_path / "last.ckpt")
    inspect(str(tmp_path))
    (((now,), *_),) = shown
    assert now.epoch == 3
    assert now.logs["weighted/kd"] == pytest.approx(0.75 * now.logs["kd"])


def test_criteria_with_a_memory_see_training_samples(tmp_path, shown):
    run = train(tmp_path, config="crd")
    inspect(str(run))
    (((now,), *_),) = shown
    (seen,) = now.comparisons.values()
    assert seen.plan.shape[:2] == (2, len(now.labels))


def test_what_is_no_run_is_refused(looked, tmp_path, capsys):
    for place, message in (
        (tmp_path / "nowhere", "nowhere, which is not there"),
        (tmp_path, "got no .*config.yaml and no .*last.ckpt"),
    ):
        with pytest.raises(ValueError, match=message):
            inspect(str(place))
    assert main(["inspect", str(tmp_path)]) == 2
    assert "graphkd: error: needs snapshots" in capsys.readouterr().err
    with pytest.raises(ValueError, match="needs to be a checkpoint of graphkd train"):
        inspect(str(looked / "student.pt"))


def test_weights_that_do_not_fit_are_refused(bare, tmp_path):
    config = (bare / "config.yaml").read_text()
    other = re.sub(r"width: 4\b", "width: 5", config)
    assert other != config
    (tmp_path / "config.yaml").write_text(other)
    (tmp_path / "last.ckpt").write_bytes((bare / "last.ckpt").read_bytes())
    with pytest.raises(ValueError, match="needs weights that fit"):
        inspect(str(tmp_path))


def test_a_teacher_whose_weights_are_gone_is_not_trained_anew(bare, tmp_path):
    config = (bare / "config.yaml").read_text().replace("teacher.pt", "gone.pt")
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "last.ckpt").write_bytes((bare / "last.ckpt").read_bytes())
    with pytest.raises(ValueError, match="teacher_checkpoint that exists"):
        inspect(str(tmp_path))


def test_a_student_alone_has_nothing_to_compare(tmp_path):
    run = train(tmp_path, config="alone")
    with pytest.raises(ValueError, match="distiller with criteria, got none"):
        inspect(str(run))
    assert main(["inspect"]) == 2
