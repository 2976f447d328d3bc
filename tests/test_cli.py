import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import graphkd
from graphkd.cli import COMMANDS, main
from graphkd.models import SmallCNN
from graphkd.training import DistillationModule

CONFIGS = Path(__file__).parent.parent / "examples" / "configs" / "digits"
# What a shell runs in the background ignores interrupts, and so would all that it starts.
HEEDING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
SHORT = ["--teacher_epochs", "1", "--trainer.enable_progress_bar", "false"]


def train(folder, *more, config="otgd", epochs=1):
    teacher = ["--teacher_checkpoint", str(folder / "teacher.pt")]
    options = ["--config", str(CONFIGS / f"{config}.yaml"), "--epochs", str(epochs), *teacher, *SHORT]
    return main(["train", *options, *more])


def test_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.strip() == f"graphkd {graphkd.__version__}"


def test_help_names_the_commands_and_not_every_class_of_torch(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in ("demo", "train", "benchmark"))
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = capsys.readouterr().out
    assert "known subclasses" not in printed
    assert "--resume" in printed
    assert "Passes over the training data" in printed


def test_a_group_names_its_commands(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["benchmark", "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"{command.name.split()[1]} " in printed for command in COMMANDS if command.name.startswith("benchmark"))
    assert main(["benchmark"]) == 2
    assert "{accuracy,step,cache,ot}" in capsys.readouterr().err


def test_an_interrupt_of_what_cannot_be_resumed_says_so(capsys, monkeypatch):
    def interrupted(*options):
        raise KeyboardInterrupt

    monkeypatch.setattr("graphkd.benchmark.step._student_step", interrupted)
    assert main(["benchmark", "step", "--rounds", "1"]) == 130
    assert "start it again" in capsys.readouterr().err


@pytest.mark.parametrize(
    "config", ["alone", "kd", "otgd", "wkd_features", "wcord", "crd", "rtot", "plan_matching", "fgw"]
)
def test_each_config_trains_and_keeps_itself(tmp_path, capsys, config):
    assert train(tmp_path, "--out", str(tmp_path / "run"), config=config) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "results.json").read_text())["result"]["epochs"] == 1
    kept = (tmp_path / "run" / "config.yaml").read_text()
    assert "epochs: 1" in kept


def test_a_class_cost_is_made_by_a_command_and_named_by_a_config(tmp_path, capsys):
    cost, named = tmp_path / "class_cost.pt", "--criteria.wkd.init_args.class_cost"
    missing = train(tmp_path, named, str(cost), "--out", str(tmp_path / "run"), config="wkd_logits")
    assert missing == 2
    assert "`graphkd class-cost` makes it" in capsys.readouterr().err
    options = ["--config", str(CONFIGS / "class_cost.yaml"), "--teacher_checkpoint", str(tmp_path / "teacher.pt")]
    command = ["class-cost", *options, *SHORT, "--out", str(cost)]
    assert main(command) == 0
    assert f"apart, kept in {cost}" in capsys.readouterr().out
    made = cost.stat().st_mtime_ns
    assert main(command) == 0
    assert cost.stat().st_mtime_ns == made
    assert main([*command, "--sharpen", "2"]) == 2
    assert "options 'sharpen': 1.0 there, 2.0 here" in capsys.readouterr().err
    assert main([*command, "--sharpen", "2", "--overwrite", "true"]) == 0
    assert train(tmp_path, named, str(cost), "--out", str(tmp_path / "run"), config="wkd_logits") == 0
    assert f"class_cost: {cost}" in (tmp_path / "run" / "config.yaml").read_text()


def test_any_option_can_be_overridden(tmp_path):
    assert train(tmp_path, "--out", str(tmp_path / "run"), "--criteria.otgd.init_args.k", "5", "--seed", "3") == 0
    kept = (tmp_path / "run" / "config.yaml").read_text()
    assert "k: 5" in kept
    assert "seed: 3" in kept


def test_a_run_that_never_began_leaves_no_stale_config(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("epochs: 99")
    assert train(tmp_path, "--out", str(folder)) == 0
    assert "epochs: 1\n" in (folder / "config.yaml").read_text()


@pytest.mark.parametrize("form", [["--resume", "{}"], ["--resume={}"], ["--out", "{}", "--resume"]])
def test_a_finished_run_resumes_to_itself(tmp_path, form):
    folder = tmp_path / "run"
    assert train(tmp_path, "--out", str(folder), config="kd") == 0
    before = torch.load(folder / "student.pt", weights_only=True)
    named = [part.format(folder) for part in form]
    if form[-1] == "--resume":
        assert train(tmp_path, *named, config="kd") == 0
    else:
        assert main(["train", *named]) == 0
    after = torch.load(folder / "student.pt", weights_only=True)
    assert all(torch.equal(after[name], value) for name, value in before.items())


SCHEDULED = """weights:
  task: 1
  kd:
    class_path: graphkd.training.schedules.ConstantThenCosine
    init_args: {weight: 30, decay_from: 1}
  kd/kd:
    class_path: graphkd.training.LinearWarmup
    init_args: {weight: 0.5, epochs: 2}
"""


def test_schedules_are_chosen_in_a_config_and_go_on_where_a_run_is_resumed(tmp_path, monkeypatch):
    config = tmp_path / "scheduled.yaml"
    lines = (CONFIGS / "kd.yaml").read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("weights")) + SCHEDULED)
    teacher = ["--teacher_checkpoint", str(tmp_path / "teacher.pt")]
    command = ["train", "--config", str(config), "--epochs", "3", *teacher, *SHORT]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*command, "--out", str(whole)]) == 0
    step = DistillationModule.training_step

    def interrupted(module, batch, batch_idx):
        if module.current_epoch == 2:
            raise KeyboardInterrupt
        return step(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationModule, "training_step", interrupted)
        assert main([*command, "--out", str(cut)]) == 130
    assert "graphkd.training.schedules.ConstantThenCosine" in (cut / "config.yaml").read_text()
    assert main(["train", "--resume", str(cut)]) == 0
    first, second = (json.loads((folder / "history.json").read_text()) for folder in (whole, cut))
    assert first["train/weight/kd"] == pytest.approx([30, 15, 0], abs=1e-6)
    assert first["train/weight/kd/kd"] == [0.25, 0.5, 0.5]
    assert {**first, "seconds": []} == {**second, "seconds": []}
    expected, came = (torch.load(folder / "student.pt", weights_only=True) for folder in (whole, cut))
    assert all(torch.equal(came[name], value) for name, value in expected.items())
    shorter = ["--weights.kd.init_args.weight", "2", "--weights.task", "0.5", "--epochs", "1"]
    assert main([*command, *shorter, "--out", str(tmp_path / "other")]) == 0
    curves = json.loads((tmp_path / "other" / "history.json").read_text())
    assert curves["train/weight/kd"] == [2.0]
    assert curves["train/weighted/task"] == pytest.approx([0.5 * value for value in curves["train/task"]], rel=1e-5)


def test_an_interrupt_before_the_first_checkpoint_says_so(tmp_path, capsys, monkeypatch):
    def interrupted(*models, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("graphkd.training.run.train_teacher", interrupted)
    folder = tmp_path / "run"
    options = ["--config", str(CONFIGS / "kd.yaml"), "--teacher_checkpoint", str(tmp_path / "t.pt"), *SHORT]
    assert main(["train", *options, "--out", str(folder)]) == 130
    assert "nothing to resume yet" in capsys.readouterr().err


def test_a_mistake_is_one_line_and_status_two(tmp_path, capsys):
    assert train(tmp_path, "--out", str(tmp_path / "run")) == 0
    assert train(tmp_path, "--out", str(tmp_path / "run")) == 2
    assert "graphkd: error: needs a folder without a run" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "nowhere")]) == 2
    assert "--resume needs the folder of a run" in capsys.readouterr().err
    assert train(tmp_path, "--out", str(tmp_path / "bad"), "--criteria.otgd.init_args.k", "0") == 2
    assert "k needs an integer of at least 1, got 0" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_that_resumes_to_the_same_numbers(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(tmp_path, "--out", str(whole), epochs=6) == 0
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", HEEDING, sys.executable, "-m", "graphkd", "train"]
    command += ["--config", str(CONFIGS / "otgd.yaml"), "--epochs", "6"]
    command += ["--teacher_checkpoint", str(tmp_path / "teacher.pt"), *SHORT, "--out", str(cut)]
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    _wait_until(lambda: _epoch(cut) >= 1, running)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert f"graphkd train --resume {cut}" in errors
    assert not (cut / "student.pt").exists()
    assert main(["train", "--resume", str(cut)]) == 0
    expected, came = (torch.load(folder / "student.pt", weights_only=True) for folder in (whole, cut))
    assert all(torch.equal(came[name], value) for name, value in expected.items())


def _epoch(folder):
    try:
        return torch.load(folder / "last.ckpt", weights_only=True)["epoch"]
    except (OSError, RuntimeError, EOFError):
        return -1


def _wait_until(condition, process, seconds=120):
    start = time.monotonic()
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() - start < seconds
        time.sleep(0.02)


def test_output_that_nobody_reads_to_its_end_is_no_error():
    command = f"{sys.executable} -m graphkd methods | head -n 1"
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert run.stdout.startswith("attention_transfer")
    assert run.stderr == ""


def test_a_teacher_is_trained_then_measured_and_exported(tmp_path, capsys):
    out = tmp_path / "teacher"
    model = ["--teacher", "graphkd.models.SmallCNN", "--teacher.width", "4", "--data", "graphkd.datasets.DigitsData"]
    options = ["--epochs", "1", "--out", str(out), "--trainer.enable_progress_bar", "false"]
    assert main(["train-teacher", *model, *options]) == 0
    said = re.search(r"test accuracy ([\d.]+) %, weights in (.*)", capsys.readouterr().out)
    assert Path(said[2]) == tmp_path / "teacher.pt"
    assert set(torch.load(said[2], weights_only=True)) == set(SmallCNN(4).state_dict())
    assert main(["evaluate", str(out)]) == 0
    assert f"test accuracy {said[1]} % on 597 samples" in capsys.readouterr().out
    assert main(["export", str(out), "--out", str(out / "model.pt2")]) == 0
    assert "parameters in" in capsys.readouterr().out
    assert main(["evaluate", str(out / "model.pt2"), "--split", "test"]) == 0
    assert f"test accuracy {said[1]} % on 597 samples" in capsys.readouterr().out
    assert main(["train-teacher", "--resume", str(out), "--epochs", "2"]) == 0
    assert json.loads((out / "results.json").read_text())["result"]["epochs"] == 2


def test_a_run_reads_its_teacher_from_a_cache(tmp_path):
    cache = ["--teacher_cache", str(tmp_path / "cache"), "--data.init_args.with_view", "true"]
    assert train(tmp_path, "--out", str(tmp_path / "without"), config="kd") == 0
    assert train(tmp_path, "--out", str(tmp_path / "with"), *cache, config="kd") == 0
    assert (tmp_path / "cache" / "logits.npy").exists()
    curves = [json.loads((tmp_path / each / "history.json").read_text()) for each in ("without", "with")]
    # Half precision keeps three digits of the teacher's logits.
    assert curves[1]["train/kd"] == pytest.approx(curves[0]["train/kd"], rel=1e-2)
    assert curves[1]["train/kd"] != curves[0]["train/kd"]


def test_a_lost_process_is_one_line_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def lost(*options, **named):
        (tmp_path / "run" / "last.ckpt").touch()
        raise ConnectionError("another process of the run ended")

    monkeypatch.setattr("graphkd.cli.runs.train", lost)
    assert train(tmp_path, "--out", str(tmp_path / "run")) == 1
    said = capsys.readouterr().err.strip()
    assert (
        said == f"graphkd: error: another process of the run ended; go on with: graphkd train --resume {tmp_path}/run"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["train", "--epoch", "1"], "unrecognized arguments: --epoch 1"),
        (["train", "--resume"], "--resume needs the folder of a run, or a --config whose 'out' is one, got neither"),
        (
            ["train", "--config", str(CONFIGS / "otgd.yaml"), "--criteria.otgd.init_args.kk", "3"],
            "option \"criteria\": Problem with given class_path 'graphkd.losses.otgd': Option 'kk' is not accepted",
        ),
        (["train", "--config", "nowhere.yaml"], 'option "config": File does not exist'),
        (["trian"], "argument COMMAND: invalid choice: 'trian'"),
    ],
)
def test_a_mistyped_command_is_one_line(capsys, options, said):
    assert main(options) == 2
    assert capsys.readouterr().err.startswith(f"graphkd: error: {said}")


def test_what_cannot_be_built_is_one_line_that_says_where(capsys):
    assert main(["features", "--model", f"{__name__}.unbuildable"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("graphkd: error: cannot build what is named: RuntimeError: no such weights (")
    assert error.partition(" (")[2].startswith(f"{__file__}, line ")
    assert "\n" not in error


def unbuildable() -> torch.nn.Module:
    raise RuntimeError("no such weights")
