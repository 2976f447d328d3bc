"""`graphkd train` in two processes: the numbers of one, and what happens when one of them dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from plain_model import seeded

from graphkd.training.processes import lost_processes_named, with_timeout

CONFIG = """
student: {class_path: plain_model.Plain, init_args: {width: 16}}
teacher: {class_path: plain_model.Plain, init_args: {width: 32}}
check_teacher: false
student_features: {feat: "2"}
teacher_features: {feat: "2"}
criteria:
  otgd: {class_path: graphkd.losses.otgd}
  crd: {class_path: graphkd.losses.crd, init_args: {num_samples: 1000, num_negatives: 64}}
data: {class_path: graphkd.datasets.DigitsData, init_args: {with_index: true}}
trainer: {accelerator: cpu, enable_progress_bar: false}
"""


@pytest.fixture
def command(tmp_path: Path):
    """The command line of a run, and its environment."""
    torch.save(seeded(32).state_dict(), tmp_path / "teacher.pt")
    (tmp_path / "config.yaml").write_text(CONFIG)

    def of(folder: str, processes: int, epochs: int, *more: str) -> list[str]:
        several = ["--trainer.strategy", "ddp", "--trainer.timeout", "120"] if processes > 1 else []
        return [
            *(sys.executable, "-m", "graphkd", "train", "--config", str(tmp_path / "config.yaml")),
            *("--teacher_checkpoint", str(tmp_path / "teacher.pt"), "--out", str(tmp_path / folder)),
            *("--epochs", str(epochs), "--data.init_args.batch_size", str(64 // processes)),
            *("--trainer.devices", str(processes), *several, *more),
        ]

    return of


def started(command: list[str]) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(command: list[str]) -> str:
    process = started(command)
    out, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    return out


def curves(folder: Path) -> dict[str, list[float]]:
    return {name: x for name, x in json.loads((folder / "history.json").read_text()).items() if name != "seconds"}


@pytest.mark.slow
def test_two_processes_come_to_the_numbers_of_one(command, tmp_path: Path):
    finished(command("one", 1, 2))
    said = finished(command("two", 2, 2))
    assert said.count("test accuracy") == 1
    one, two = curves(tmp_path / "one"), curves(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=1e-3, abs=2e-4), name
    students = [torch.load(tmp_path / each / "student.pt", weights_only=True) for each in ("one", "two")]
    for name, x in students[0].items():
        torch.testing.assert_close(students[1][name], x, rtol=1e-3, atol=1e-4)
    results = [json.loads((tmp_path / each / "results.json").read_text())["result"] for each in ("one", "two")]
    assert results[0]["accuracy"] == pytest.approx(results[1]["accuracy"], abs=2 / 597)


@pytest.mark.slow
def test_a_run_whose_process_is_killed_ends_and_goes_on(command, tmp_path: Path):
    epochs = 6
    finished(command("whole", 2, epochs))
    process = started(command("broken", 2, epochs))
    metrics = tmp_path / "broken" / "metrics.csv"
    deadline = time.monotonic() + 200
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 1):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (other,) = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    os.kill(other, signal.SIGKILL)
    killed = time.monotonic()
    _, errors = process.communicate(timeout=120)
    assert time.monotonic() - killed < 60
    assert process.returncode != 0
    assert "another process of the run ended or did not answer in time" in errors
    assert f"go on with: graphkd train --resume {tmp_path / 'broken'}" in errors
    assert not (tmp_path / "broken" / "results.json").exists()
    finished(command("broken", 2, epochs, "--resume"))
    assert curves(tmp_path / "broken") == curves(tmp_path / "whole")


def test_the_time_that_processes_wait_is_the_strategys():
    found = with_timeout({"devices": 2, "strategy": "ddp", "timeout": 20})
    assert found.keys() == {"devices", "strategy"}
    assert found["strategy"]._timeout.total_seconds() == 20
    with pytest.raises(ValueError, match="timeout needs a finite number above 0, got -1"):
        with_timeout({"strategy": "ddp", "timeout": -1})
    with pytest.raises(ValueError, match="the strategy of a timeout"):
        with_timeout({"timeout": 20})


def test_what_the_network_says_of_a_lost_process_is_named():
    with pytest.raises(ConnectionError, match="another process .*Connection closed by peer"), lost_processes_named():
        raise RuntimeError("[pair.cc:534] Connection closed by peer [::1]:4711")
    with pytest.raises(RuntimeError, match="mat1 and mat2"), lost_processes_named():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
