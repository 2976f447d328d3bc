import json
from importlib.metadata import version

import pytest
import torch
from lightning import LightningDataModule

from graphkd import losses
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training.folder import LAST, WEIGHTS
from graphkd.training.save_teacher import save_teacher
from graphkd.training.schedules import ConstantThenCosine
from graphkd.training.train import train

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
        "check_teacher": False,
        "criteria": {"kd": losses.kd()},
        "epochs": 1,
        "out": str(folder / "run"),
        "trainer": QUIET,
    }
    return train(**(settings | options))


def test_a_run_keeps_student_curves_and_results(tmp_path):
    result = start(tmp_path)
    folder = tmp_path / "run"
    names = {LAST, "student.pt", "history.json", "metrics.csv", "results.json", "run.json"}
    assert {path.name for path in folder.iterdir()} == names
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


def test_weights_are_found_kept_and_used_where_they_are_not_given(tmp_path):
    criteria = {"kd": losses.kd(), "again": losses.kd()}
    start(tmp_path, criteria=criteria, weights={"again": 0.25}, auto_weights=2.0)
    folder = tmp_path / "run"
    found = json.loads((folder / WEIGHTS).read_text())
    assert set(found) == {"kd"}
    curves = json.loads((folder / "history.json").read_text())
    assert curves["train/weighted/kd"][0] == pytest.approx(found["kd"] * curves["train/kd"][0], rel=1e-4)
    assert curves["train/weighted/again"][0] == pytest.approx(0.25 * curves["train/again"][0], rel=1e-4)
    start(tmp_path, criteria=criteria, weights={"again": 0.25}, auto_weights=4.0, overwrite=True)
    assert json.loads((folder / WEIGHTS).read_text())["kd"] == pytest.approx(2 * found["kd"], rel=1e-4)


def test_found_weights_stay_where_a_run_goes_on(tmp_path):
    start(tmp_path, auto_weights=1.0)
    found = (tmp_path / "run" / WEIGHTS).read_text()
    (tmp_path / "run" / WEIGHTS).write_text('{"kd": 0.125}')
    start(tmp_path, auto_weights=1.0, epochs=2, resume=True)
    assert json.loads((tmp_path / "run" / WEIGHTS).read_text()) == {"kd": 0.125}
    assert json.loads(found)["kd"] != 0.125
    curves = json.loads((tmp_path / "run" / "history.json").read_text())
    assert curves["train/weighted/kd"][1] == pytest.approx(0.125 * curves["train/kd"][1], rel=1e-4)


def test_where_all_weights_are_given_nothing_is_found_and_it_says_so(tmp_path, caplog):
    with caplog.at_level("INFO"):
        start(tmp_path, weights={"kd": 0.5}, auto_weights=1.0)
    assert "auto-weights: nothing to set, since weights names all" in caplog.text
    assert not (tmp_path / "run" / WEIGHTS).exists()


def test_weights_that_are_given_when_a_run_goes_on_win_over_found_ones(tmp_path):
    start(tmp_path, auto_weights=1.0)
    start(tmp_path, auto_weights=1.0, weights={"kd": 0.25}, epochs=2, resume=True)
    curves = json.loads((tmp_path / "run" / "history.json").read_text())
    assert curves["train/weighted/kd"][1] == pytest.approx(0.25 * curves["train/kd"][1], rel=1e-4)


def test_the_tasks_scheduled_weight_is_that_of_the_first_epoch(tmp_path):
    start(tmp_path, auto_weights=1.0)
    plain = json.loads((tmp_path / "run" / WEIGHTS).read_text())
    start(tmp_path, auto_weights=1.0, weights={"task": ConstantThenCosine(2, 1)}, epochs=3, overwrite=True)
    assert json.loads((tmp_path / "run" / WEIGHTS).read_text())["kd"] == pytest.approx(2 * plain["kd"], rel=1e-4)


def test_weights_of_another_network_are_refused_in_one_line(tmp_path):
    torch.save(SmallCNN(3).state_dict(), tmp_path / "teacher.pt")
    with pytest.raises(ValueError, match="teacher.pt needs the weights of this SmallCNN, got") as error:
        start(tmp_path)
    assert "\n" not in str(error.value)


def test_several_teachers_are_loaded_by_name(tmp_path):
    teachers = {"one": SmallCNN(4), "two": SmallCNN(3)}
    paths = {name: str(tmp_path / f"{name}.pt") for name in teachers}
    options = {"teacher_checkpoint": paths, "criteria": {"kd": losses.kd(), "one/otgd": losses.otgd(embed_dim=4, k=3)}}
    features = {"student_features": {"feat": "pool"}, "teacher_features": {"feat": "pool"}}
    start(tmp_path, teacher=teachers, **options, **features)
    curves = json.loads((tmp_path / "run" / "history.json").read_text())
    assert {"train/one/kd", "train/two/kd", "train/one/otgd", "val/agreement"} <= set(curves)
    assert "train/two/otgd" not in curves
    for name, teacher in teachers.items():
        saved = torch.load(paths[name], weights_only=True)
        assert all(torch.equal(saved[key], value) for key, value in teacher.state_dict().items())


@pytest.mark.parametrize(
    ("teacher", "checkpoint", "match"),
    [
        ({"one": SmallCNN(4)}, "teacher.pt", "needs a teacher_checkpoint for each of one, got 'teacher.pt'"),
        ({"one": SmallCNN(4)}, {"two": "teacher.pt"}, "needs a teacher_checkpoint for each of one"),
        (SmallCNN(4), {"one": "teacher.pt"}, "one teacher needs one teacher_checkpoint, got those of one"),
    ],
)
def test_checkpoints_that_are_not_those_of_the_teachers_are_refused(tmp_path, teacher, checkpoint, match):
    with pytest.raises(ValueError, match=match):
        start(tmp_path, teacher=teacher, teacher_checkpoint=checkpoint)


def test_an_average_of_the_student_teaches(tmp_path):
    start(tmp_path, teacher="ema", teacher_checkpoint=None, teacher_data=None, ema_decay=0.5, epochs=2)
    kept = torch.load(tmp_path / "run" / LAST, weights_only=False)["state_dict"]
    average = kept["distiller.teachers.models.teacher.module.fc.weight"]
    assert not torch.equal(average, kept["distiller.student.fc.weight"])
    curves = json.loads((tmp_path / "run" / "history.json").read_text())
    assert 0 < curves["train/kd"][1] < 1


def test_a_students_deeper_part_teaches(tmp_path):
    start(
        tmp_path,
        teacher="self",
        teacher_checkpoint=None,
        teacher_data=None,
        student_features={"map": "body.2"},
        teacher_features={"map": "body"},
        criteria={"at": losses.attention_transfer()},
    )
    curves = json.loads((tmp_path / "run" / "history.json").read_text())
    assert curves["train/at"][0] > 0
    assert "val/agreement" not in curves


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epochs": 0}, "epochs needs .*at least 1, got 0"),
        ({"trainer": QUIET | {"precison": "bf16"}}, "options of Lightning's Trainer, got precison"),
        ({"trainer": QUIET | {"max_steps": 3}}, "trainer.max_steps cannot be set"),
        ({"trainer": QUIET | {"check_val_every_n_epoch": 2}}, "trainer.check_val_every_n_epoch cannot be set"),
    ],
)
def test_options_that_no_run_can_have_are_refused(tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        start(tmp_path, **options)


def test_a_folder_is_no_checkpoint(tmp_path):
    (tmp_path / "teacher.pt").mkdir()
    with pytest.raises(ValueError, match="teacher_checkpoint needs a file of weights, got the folder"):
        start(tmp_path)


def test_a_teachers_folder_does_not_end_like_its_weights(tmp_path):
    with pytest.raises(ValueError, match=r"out needs a folder, .*got .*/teacher\.pt"):
        save_teacher(SmallCNN(2), small_data(), out=str(tmp_path / "teacher.pt"))


def test_a_run_that_is_replaced_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "run"
    start(tmp_path, plots="epoch")
    assert list((folder / "snapshots").glob("*.pt"))
    (folder / "not_finite_step000001.pt").touch()
    start(tmp_path, overwrite=True)
    assert not list((folder / "snapshots").glob("*.pt"))
    assert not list(folder.glob("not_finite*"))
    assert not (folder / "inspect.html").exists()


def test_data_that_nothing_can_be_measured_on_are_refused_before_a_run(tmp_path):
    class Untested(DigitsData):
        test_dataloader = LightningDataModule.test_dataloader

    with pytest.raises(ValueError, match="got Untested without test_dataloader"):
        start(tmp_path, teacher=None, teacher_data=None, criteria=None, data=Untested())
    assert not (tmp_path / "run" / LAST).exists()
