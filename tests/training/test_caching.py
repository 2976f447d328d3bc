"""Runs whose teacher speaks from a cache."""

from pathlib import Path

import pytest
import torch
from torch import nn

from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.teachers import ema
from graphkd.training.caching import cached, device_for

CPU = torch.device("cpu")


def made(folder: Path, teachers, data=None, student: nn.Module | None = None, features=None):
    data = DigitsData(with_view=True) if data is None else data
    return cached(SmallCNN(2) if student is None else student, teachers, features, data, folder, CPU)


def test_a_cache_is_built_once_and_then_read(tmp_path: Path):
    teacher, ran = SmallCNN(2), []
    teacher.register_forward_hook(lambda *_: ran.append(1))
    (first,) = made(tmp_path / "cache", teacher, features={"feat": "pool"}).values()
    assert sorted(first.names) == ["feat", "logits"]
    assert first.samples == 1000
    before = len(ran)
    made(tmp_path / "cache", teacher, features={"feat": "pool"})
    assert before > 0
    assert len(ran) == before


def test_each_of_several_teachers_has_a_folder_of_its_name(tmp_path: Path):
    found = made(tmp_path / "cache", {"wide": SmallCNN(3), "narrow": SmallCNN(2)})
    assert sorted(found) == ["narrow", "wide"]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()) == ["narrow", "wide"]


def test_a_cache_of_another_teacher_is_refused(tmp_path: Path):
    made(tmp_path / "cache", SmallCNN(2))
    with pytest.raises(ValueError, match="made of the same"):
        made(tmp_path / "cache", SmallCNN(2))


def test_what_cannot_be_cached_is_refused(tmp_path: Path):
    student = SmallCNN(2)
    with pytest.raises(ValueError, match="teachers that stay as they are"):
        made(tmp_path, ema(student), student=student)
    with pytest.raises(ValueError, match="teachers that stay as they are"):
        made(tmp_path, student, student=student, features={"feat": "pool"})
    with pytest.raises(ValueError, match="DigitsData with with_view: true"):
        made(tmp_path, SmallCNN(2), DigitsData())

    class Own(DigitsData):
        views = 0

    with pytest.raises(ValueError, match="in how many views each sample exists.*got Own"):
        made(tmp_path, SmallCNN(2), Own(with_view=True))


def test_one_view_needs_an_index_only(tmp_path: Path):
    assert made(tmp_path / "cache", SmallCNN(2), DigitsData(with_index=True))["teacher"].views == 1


def test_teachers_run_where_the_trainer_will(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert [device_for(each).type for each in ("auto", "gpu", "cpu")] == ["cuda", "cuda", "cpu"]
