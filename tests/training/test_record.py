"""What a run says of how it was started."""

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from graphkd import Distiller
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training.folder import RUN
from graphkd.training.record import RunRecord, command, commit
from graphkd.training.run import run


def git(folder, *arguments):
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_each_start_has_an_entry(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/graphkd", "train", "--out", f"{Path.home()}/runs/one"])
    data = DigitsData()
    data.train = tuple(part[:64] for part in data.train)
    for resume in (False, True):
        record = RunRecord(tmp_path / RUN, seed=3, resume=resume)
        options = {"epochs": 2 if resume else 1, "folder": tmp_path, "resume": resume, "callbacks": (record,)}
        run(Distiller(SmallCNN(2)), data, seed=3, enable_progress_bar=False, accelerator="cpu", **options)
    first, second = json.loads((tmp_path / RUN).read_text())
    assert first["command"] == ["graphkd", "train", "--out", "~/runs/one"]
    assert first["seed"] == 3
    assert first["versions"]["torch"] == version("torch")
    assert first["hardware"]["threads"] == torch.get_num_threads()
    assert first["started"] < second["started"] and first["started"].endswith("+00:00")
    expected = {"processes": 1, "device": "cpu", "precision": "32-true", "epoch": 0, "step": 0}
    assert first["trainer"] == expected
    assert second["trainer"] == expected | {"epoch": 1, "step": 1}


def test_a_run_that_begins_anew_forgets_the_entries_of_another(tmp_path):
    for _ in range(2):
        RunRecord(tmp_path / RUN, seed=0, resume=False)
    assert len(json.loads((tmp_path / RUN).read_text())) == 1


def test_nothing_names_a_user_or_a_host(tmp_path):
    RunRecord(tmp_path / RUN, seed=0, resume=False)
    written = (tmp_path / RUN).read_text()
    assert str(Path.home()) not in written
    assert platform.node() not in written


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("/Users/ada/x y/z", "~/x y/z"),
        ("--a=/home/ada/b:/home/bob/c", "--a=~/b:~/c"),
        (f"{Path.home()}/data", "~/data"),
        ("/data/images", "/data/images"),
    ],
)
def test_home_folders_are_left_out(given, said):
    assert command(["graphkd", given]) == ["graphkd", said]


def test_a_commit_is_dirty_once_a_tracked_file_has_changed(tmp_path):
    assert commit(tmp_path) is None
    git(tmp_path, "init")
    assert commit(tmp_path) is None
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "one")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "last.ckpt").touch()
    clean = commit(tmp_path)
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "code.py").write_text("2")
    assert commit(tmp_path) == {**clean, "dirty": True}


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(Path.cwd()) is None
