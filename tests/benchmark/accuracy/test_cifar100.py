"""CIFAR-100's rows: which there are, what is run for one, and the papers' figures beside it."""

import json
import subprocess
from pathlib import Path

import pytest

from graphkd.benchmark.accuracy import benchmark_accuracy, cifar100
from graphkd.benchmark.accuracy.cifar100 import methods_of, published, rows
from graphkd.cli import main

CONFIGS = Path(__file__).parents[3] / "examples" / "configs" / "cifar100"
PAIR = "resnet32x4_resnet8x4"


def test_figures_are_of_pairs_and_methods_that_have_configs():
    pairs = {path.stem for path in CONFIGS.glob("*/*_*.yaml")}
    folders = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    for pair, figures in published().items():
        assert pair in pairs
        assert figures.keys() - {"alone", "teacher"} <= folders
        assert all(50 < float(figure.accuracy) < 85 and figure.source for figure in figures.values())
    assert str(published()[PAIR]["dist"]) == "76.31 ± 0.19"


@pytest.fixture
def ran(monkeypatch):
    """Commands in place of processes, which leave what a run leaves."""
    commands = []

    def run(command, check):
        commands.append(command[3:])
        options = dict(zip(command[4::2], command[5::2], strict=False))
        folder = Path(options.get("--out", options.get("--resume")))
        folder.mkdir(parents=True, exist_ok=True)
        accuracy = 0.7 + 0.01 * int(options.get("--seed", 5))
        (folder / "results.json").write_text(json.dumps({"accuracy": accuracy}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(cifar100.subprocess, "run", run)
    return commands


def test_a_row_is_one_command_which_runs_what_is_missing(ran, tmp_path, capsys):
    command = [
        "benchmark",
        "accuracy",
        "--suite",
        "cifar100",
        "--pair",
        PAIR,
        "--methods",
        "kd",
        "--out",
        str(tmp_path),
    ]
    command += ["--configs", str(CONFIGS)]
    assert main([*command, "--seeds", "2"]) == 0
    assert [words[words.index("--seed") + 1] for words in ran] == ["0", "1"]
    assert all(f"{CONFIGS}/kd/{PAIR}.yaml" in words for words in ran)
    table = (tmp_path / "cifar100" / f"{PAIR}.md").read_text()
    assert "| kd | 70.50 ± 0.71 | 2 | 73.33 | RepDistiller |" in table
    assert "| crd |  |  | 75.51 | RepDistiller |" in table
    assert "| teacher |  |  | 79.42 | RepDistiller |" in table
    assert "| otgd |  |  |  |  |" in table
    assert main([*command, "--seeds", "3"]) == 0
    assert len(ran) == 3
    assert "kd" in capsys.readouterr().out


def test_a_run_that_stopped_goes_on(ran, tmp_path):
    folder = tmp_path / "cifar100" / PAIR / "kd" / "seed0"
    folder.mkdir(parents=True)
    for name in ("last.ckpt", "config.yaml"):
        (folder / name).touch()
    benchmark_accuracy("cifar100", ["kd"], pair=PAIR, seeds=1, out=str(tmp_path), configs=str(CONFIGS))
    assert ran == [["train", "--resume", str(folder)]]


def test_a_run_that_fails_ends_it_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(cifar100.subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 2))
    with pytest.raises(ValueError, match=f"kd on {PAIR}, seed 0, ended with status 2: -m graphkd train --config"):
        cifar100.train(PAIR, "kd", 0, CONFIGS, tmp_path)


def test_without_a_run_the_cell_stays_empty(tmp_path):
    assert ["dkd", "", "", "76.32", "mdistiller"] in rows(PAIR, methods_of(PAIR, CONFIGS), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pair": None}, "cifar100 needs a pair such as resnet32x4_resnet8x4, got none"),
        ({"pair": "a_b"}, "pair needs one of .*resnet32x4_resnet8x4"),
        ({"methods": ["nothing"]}, "methods needs one of alone|methods needs one of attention_transfer"),
        ({"configs": "nowhere"}, "configs needs the folder of CIFAR-100's configs, got nowhere"),
        ({"ablation": "fgw"}, "ablation is of the suites that run here, got fgw with cifar100"),
    ],
)
def test_what_is_not_there_is_refused(options, message, tmp_path):
    given = {"pair": PAIR, "configs": str(CONFIGS), "out": str(tmp_path), **options}
    with pytest.raises(ValueError, match=message):
        benchmark_accuracy("cifar100", **given)


def test_a_pair_of_another_suite_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pair is of cifar100, got resnet32x4_resnet8x4 with digits"):
        benchmark_accuracy("digits", pair=PAIR, out=str(tmp_path))
