import json
from importlib.metadata import version

import pytest
import torch

from graphkd import losses
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training.fit import LAST
from graphkd.training.run import train
from graphkd.training.schedules import ConstantThenCosine

QUIET = {"enable_progress_bar": False}


def small_data(labels=None):
    data = DigitsData(labels, batch_size=64)
    data.train = tuple(part[:128] for part in data.train)
    return data


def start(folder, **options):
    torch.manual_seed(0)
    settings = {
        "student": SmallCNN(2),
        "data": small_data(3),
        "teacher": SmallCNN(4),
        "teacher_checkpoint": str(folder / "teacher.pt"),
        "teacher_data": small_data(),
        "teacher_epochs": 1,
        "criteria": {"kd": losses.kd()},
        "epochs": 1,
        "out": str(folder / "run"),
        "trainer": QUIET,
    }
    return train(**(settings | options))


def test_a_run_keeps_student_curves_and_results(tmp_path):
    result = start(tmp_path)
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {LAST, "student.pt", "history.json", "results.json"}
    record = json.loads((folder / "results.json").read_text())
    assert record["result"]["accuracy"] == result.accuracy
    assert record["versions"]["torch"] == version("torch")
    assert len(json.loads((folder / "history.json").read_text())["train/kd"]) == 1
    student = SmallCNN(2)
    student.load_state_dict(torch.load(folder / "student.pt", weights_only=True))
    images, labels = small_data().test
    with torch.no_grad():
        accuracy = (student.eval()(images).argmax(-1) == labels).float().mean()
    assert float(accuracy) == pytest.approx(result.accuracy, abs=1e-5)
    assert result.parameters == sum(parameter.numel() for parameter in student.parameters())


def test_the_curve_of_a_scheduled_weight_is_kept(tmp_path):
    weights = {"kd": 0.5, "kd/kd": ConstantThenCosine(8, 1)}
    start(tmp_path, weights=weights, epochs=3)
    curves = json.loads((tmp_path / "run" / "history.json").read_text())
    assert curves["train/weight/kd/kd"] == pytest.approx([8, 4, 0], abs=1e-6)
    assert "train/weight/kd" not in curves
    for value, term, factor in zip(curves["train/weighted/kd"], curves["train/kd/kd"], [8, 4, 0], strict=True):
        assert value == pytest.approx(0.5 * factor * term, rel=1e-5)


def test_a_missing_teacher_is_trained_once_and_then_loaded(tmp_path):
    start(tmp_path)
    saved = torch.load(tmp_path / "teacher.pt", weights_only=True)
    teacher = SmallCNN(4)
    start(tmp_path, teacher=teacher, teacher_data=None, out=str(tmp_path / "second"))
    assert all(torch.equal(value, saved[name]) for name, value in teacher.state_dict().items())


def test_the_same_seed_gives_the_same_numbers_whether_the_teacher_is_trained_or_loaded(tmp_path):
    features = {"student_features": {"feat": "pool"}, "teacher_features": {"feat": "pool"}}
    for name in ("trained", "loaded"):
        start(tmp_path, out=str(tmp_path / name), criteria={"otgd": losses.otgd(embed_dim=8)}, **features)
    first, second = (
        torch.load(tmp_path / name / LAST, weights_only=True)["state_dict"] for name in ("trained", "loaded")
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_folder_with_a_run_is_not_overwritten_unasked(tmp_path):
    start(tmp_path)
    with pytest.raises(ValueError, match="needs a folder without a run"):
        start(tmp_path)
    start(tmp_path, overwrite=True)


def test_a_teacher_without_weights_or_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a teacher_checkpoint that exists, or teacher_data"):
        start(tmp_path, teacher_data=None)


def test_a_student_alone_needs_no_teacher(tmp_path):
    result = start(tmp_path, teacher=None, criteria=None)
    assert result.agreement is None
    assert result.extra_parameters == 0
