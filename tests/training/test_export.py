"""A student leaves its run: exported, read again without graphkd's own classes, and measured."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from graphkd import kept
from graphkd.datasets import DigitsData, SyntheticData
from graphkd.models import SmallCNN
from graphkd.training.evaluation import evaluate_student
from graphkd.training.export import export_student, write
from graphkd.training.forms import load
from graphkd.training.saved import saved_data, saved_student

CONFIG = """
student: {class_path: graphkd.models.SmallCNN, init_args: {width: 2}}
data: {class_path: graphkd.datasets.DigitsData, init_args: {labels_per_class: 10}}
criteria: {kd: {class_path: graphkd.losses.kd}}
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, with a student that was never trained."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    kept.write(tmp_path / "student.pt", SmallCNN(width=2).state_dict())
    return tmp_path


def test_a_saved_student_has_its_weights_and_rests(run: Path):
    student = saved_student(run)
    assert not student.training
    for name, x in torch.load(run / "student.pt", weights_only=True).items():
        assert torch.equal(student.state_dict()[name], x)
    assert (saved_data(run).train[1] >= 0).sum() == 100


@pytest.mark.parametrize("name", [pytest.param("student.onnx", marks=pytest.mark.slow), "student.pt2"])
def test_an_exported_student_has_the_logits_of_the_student(run: Path, name: str):
    exported = export_student(str(run), str(run / name))
    assert exported.path == run / name
    assert exported.difference < 1e-5
    assert exported.parameters == sum(p.numel() for p in SmallCNN(width=2).parameters())
    images = DigitsData().test[0][:5]
    with torch.no_grad():
        torch.testing.assert_close(load(run / name)(images), saved_student(run)(images), rtol=1e-4, atol=1e-5)
    assert evaluate_student(str(run / name))[:2] == evaluate_student(str(run))[:2]


def test_a_student_is_measured_on_what_is_asked(run: Path):
    student, data = saved_student(run), DigitsData()
    for split, (images, labels) in (("test", data.test), ("validation", data.validation)):
        with torch.no_grad():
            accuracy = float((student(images).argmax(-1) == labels).float().mean())
        found = evaluate_student(str(run), split=split)
        assert found.accuracy == pytest.approx(accuracy)
        assert found.samples == len(labels)
        assert found.per_second > 0
    assert evaluate_student(str(run), data=DigitsData(seed=1))[:2] == evaluate_student(str(run))[:2]


class Named(nn.Module):
    """A model with inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.fc = nn.Embedding(7, 4), nn.Linear(4, 3)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.fc((self.table(tokens) * mask.unsqueeze(-1)).mean(1))


@pytest.mark.parametrize("name", ["student.onnx", "student.pt2"])
def test_inputs_by_name_stay_named(tmp_path: Path, name: str):
    model = Named().eval()
    inputs = {"tokens": torch.arange(10).reshape(2, 5) % 7, "mask": torch.ones(2, 5)}
    write(model, inputs, tmp_path / name)
    more = {"mask": torch.rand(4, 5), "tokens": torch.randint(7, (4, 5))}
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / name)(more), model(**more))


def test_what_cannot_be_exported_or_measured_is_refused(run: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"ends in \.onnx or \.pt2, got .*student\.bin"):
        export_student(str(run), str(run / "student.bin"))
    with pytest.raises(ValueError, match=r"the folder of a run, with a config\.yaml, got"):
        evaluate_student(str(run / "nowhere"))
    with pytest.raises(ValueError, match="got .*gone.onnx, which is not there"):
        evaluate_student(str(run / "gone.onnx"))
    (run / "student.pt").unlink()
    with pytest.raises(ValueError, match=r"came to its end and left student\.pt"):
        export_student(str(run))


@pytest.mark.parametrize("name", ["student.onnx", "student.pt2"])
def test_a_file_that_is_no_student_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"no student")
    with pytest.raises(ValueError, match=f"{name} needs to be an exported student"):
        load(tmp_path / name)


def test_data_without_labels_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch):
    data = DigitsData()
    data.test = (data.test[0], torch.full_like(data.test[1], -100))
    with pytest.raises(ValueError, match="accuracy needs labels, got none among 597"):
        evaluate_student(str(run), data=data)


@pytest.mark.parametrize("package", ["onnxscript", "onnxruntime"])
def test_without_onnx_it_says_what_to_install(run: Path, monkeypatch: pytest.MonkeyPatch, package: str):
    (run / "student.onnx").touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r'pip install "graphkd\[export\]"'):
        export_student(str(run)) if package == "onnxscript" else load(run / "student.onnx")


def test_data_that_do_not_fit_are_named(run: Path):
    message = "cannot take the test inputs of SyntheticData: "
    with pytest.raises(ValueError, match=message):
        evaluate_student(str(run), SyntheticData(train_per_class=1, test_per_class=1))
    write(saved_student(run), DigitsData().test[0][:2], run / "student.onnx")
    with pytest.raises(ValueError, match=message):
        evaluate_student(str(run / "student.onnx"), SyntheticData(train_per_class=1, test_per_class=1))


def test_a_run_that_never_began_is_not_to_be_resumed(run: Path):
    (run / "student.pt").unlink()
    with pytest.raises(ValueError, match=r"left student.pt, got .*: it left no checkpoint either, start it again"):
        saved_student(run)
    (run / "last.ckpt").touch()
    with pytest.raises(ValueError, match="--resume it first"):
        saved_student(run)
