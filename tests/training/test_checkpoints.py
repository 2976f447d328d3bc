"""Files of a run are whole or absent, whenever its process ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from graphkd import Distiller, kept, losses
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training import DistillationModule, SaveSnapshots, fit
from graphkd.training.checkpoints import WholeFiles
from graphkd.training.folder import CONFIG, HISTORY, LAST, METRICS, RESULTS, RUN, STUDENT, WEIGHTS, begin

CONFIGS = Path(__file__).parents[2] / "examples" / "configs" / "digits"

KILLED_WRITERS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from graphkd import kept

torch.set_num_threads(1)
path, generator, found, parts = Path(sys.argv[1], "kept.pt"), random.Random(0), -1, 0
for _ in range(25):
    before = path.stat().st_mtime_ns if path.exists() else 0
    child = os.fork()
    if child == 0:
        n = found
        while True:
            n += 1
            kept.write(path, {"n": n, "x": torch.full((300_000,), float(n))})
    while not path.exists() or path.stat().st_mtime_ns == before:
        time.sleep(0.0005)
    time.sleep(generator.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    parts += len(list(path.parent.glob(".*")))
    kept.remove_parts(path.parent)
    assert [each.name for each in path.parent.iterdir()] in ([], ["kept.pt"])
    if path.exists():
        content = kept.read(path)
        assert content["n"] >= found and bool((content["x"] == content["n"]).all())
        found = content["n"]
print(found, parts)
"""


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WRITERS, str(tmp_path)], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    written, parts = map(int, done.stdout.split())
    assert written >= 24
    assert parts > 3  # else the test says nothing: writers need to be killed while they write


def test_a_checkpoint_is_written_beside_its_place_and_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done = []
    replace, sync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda part, path: done.append((Path(part), Path(path))) or replace(part, path))
    monkeypatch.setattr(os, "fsync", lambda file: done.append("sync") or sync(file))
    trainer = Trainer(plugins=WholeFiles(), logger=False, accelerator="cpu", enable_progress_bar=False)
    path = tmp_path / "new" / LAST
    trainer.strategy.checkpoint_io.save_checkpoint({"x": torch.ones(2)}, path)
    assert torch.equal(trainer.strategy.checkpoint_io.load_checkpoint(path)["x"], torch.ones(2))
    before, moved, after = done
    assert before == after == "sync"
    assert moved[0].parent == path.parent and moved[1] == path


def test_a_run_removes_what_killed_writers_left(tmp_path):
    for resume in (False, True):
        for name in (f".{LAST}.0123{kept.PART}", f".{STUDENT}.4567{kept.PART}"):
            (tmp_path / name).write_bytes(b"half")
        (tmp_path / ".mine").touch()
        begin(tmp_path, resume)
        assert [path.name for path in tmp_path.iterdir()] == [".mine"]


def test_snapshots_do_too(tmp_path):
    part = tmp_path / f".step000000000.pt.0123{kept.PART}"
    part.touch()
    trained(callbacks=[SaveSnapshots(tmp_path)])
    assert not part.exists() and list(tmp_path.glob("step*.pt"))


def test_a_run_that_replaces_another_leaves_nothing_of_what_that_came_to(tmp_path):
    for name in (LAST, HISTORY, STUDENT, METRICS, RESULTS, CONFIG, WEIGHTS):
        (tmp_path / name).touch()
    begin(tmp_path, resume=True)
    assert len(list(tmp_path.iterdir())) == 7
    begin(tmp_path, resume=False)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, WEIGHTS}


def trained(**options):
    data = DigitsData()
    data.train = tuple(each[:64] for each in data.train)
    module = DistillationModule(Distiller(SmallCNN(2), SmallCNN(2), criteria={"kd": losses.kd()}))
    return fit(module, data, epochs=1, enable_progress_bar=False, **options)[0]


def test_runs_write_so_unless_they_are_told_how_to_write(tmp_path):
    assert type(trained(folder=tmp_path).strategy.checkpoint_io) is WholeFiles
    other = TorchCheckpointIO()
    assert trained(folder=tmp_path, plugins=other).strategy.checkpoint_io is other


KILLED_RUNS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from graphkd.cli import main

torch.set_num_threads(1)
place, config = Path(sys.argv[1]), sys.argv[2]
options = ["--config", config, "--epochs", "3", "--data.init_args.batch_size", "32", "--student.init_args.width", "2"]
options += ["--criteria.crd.init_args.num_negatives", "50", "--teacher_checkpoint", str(place / "teacher.pt")]
options += ["--teacher_epochs", "2", "--checkpoint_every", "1", "--trainer.enable_progress_bar", "false"]

def start(*more):
    # A process of its own, but for the seconds that it takes to import torch.
    child = os.fork()
    if child == 0:
        os._exit(main(["train", *more]))
    return child

def ended(child):
    return os.waitpid(child, os.WNOHANG) != (0, 0)

def ends(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def changed(path):
    return path.stat().st_mtime_ns if path.exists() else 0

cut = place / "cut"
last = cut / "last.ckpt"
ends(start(*options, "--out", str(place / "whole")))
generator, step, steps, kills, parts = random.Random(0), -1, set(), 0, 0
running = start(*options, "--out", str(cut))
while kills < 20:
    # After one to three checkpoints, however fast the machine is, or earlier, while it starts.
    seen, left = changed(last), generator.randint(1, 3)
    until = time.monotonic() + (generator.uniform(0, 2) if kills % 5 == 4 else 60)
    while left and time.monotonic() < until and not ended(running):
        time.sleep(0.001)
        left -= changed(last) != seen
        seen = changed(last)
    time.sleep(generator.uniform(0, 0.02))
    try:
        os.kill(running, signal.SIGKILL)
        os.waitpid(running, 0)
    except (ProcessLookupError, ChildProcessError):
        break  # It came to its end before.
    kills += 1
    parts += len(list(cut.glob(".*.part")))
    more = ["--resume", str(cut)]
    if last.exists():
        content = torch.load(last, weights_only=True)
        assert content["global_step"] >= step
        step = content["global_step"]
        steps.add(step)
    else:
        more = [*options, "--out", str(cut)]
    running = start(*more)
else:
    ends(running)
print(kills, len(steps), parts)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_again_and_again_ends_at_the_numbers_of_one_that_was_not(tmp_path):
    command = [sys.executable, "-c", KILLED_RUNS, str(tmp_path), str(CONFIGS / "crd.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr
    kills, steps, parts = map(int, done.stdout.splitlines()[-1].split())
    print(f"{kills} kills, of which {parts} while a file was written, at {steps} steps")
    assert kills >= 10 and steps >= 5
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected, came = (json.loads((folder / HISTORY).read_text()) for folder in (whole, cut))
    assert {**expected, "seconds": []} == {**came, "seconds": []}
    one, other = (torch.load(folder / STUDENT, weights_only=True) for folder in (whole, cut))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert {path.name for path in cut.iterdir()} == {path.name for path in whole.iterdir()}
    assert len((cut / METRICS).read_text().splitlines()) == 4
    assert 2 <= len(json.loads((cut / RUN).read_text())) <= kills + 1
