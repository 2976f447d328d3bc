"""The whole command, on a small teacher for two epochs."""

import dataclasses
import json
from collections import Counter
from functools import partial

import pytest

from graphkd.benchmark.accuracy import benchmark_accuracy
from graphkd.benchmark.accuracy.suites import SUITES
from graphkd.cli import main
from graphkd.models import SmallCNN

FEW = dataclasses.replace(
    SUITES["digits"]["labels10"], teacher=partial(SmallCNN, 6), epochs=2, teacher_epochs=3, tuning_seeds=(1000,)
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder after three methods with two seeds, and what the command returned."""
    folder = tmp_path_factory.mktemp("benchmark")
    readme = folder / "README.md"
    readme.write_text("before\n<!-- accuracy digits -->\n<!-- end of accuracy digits -->\nafter\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SUITES, "digits", {"labels10": FEW})
        tables = benchmark_accuracy(
            "digits",
            methods=("alone", "otgd_kd"),
            seeds=2,
            jobs=1,
            rounds=3,
            out=str(folder / "out"),
            readme=str(readme),
            progress=False,
        )
    return folder, tables


def test_what_methods_are_compared_with_is_there_and_all_have_their_numbers(done):
    _, tables = done
    alone, kd, otgd = tables["labels10"]
    assert [alone.name, kd.name, otgd.name] == ["alone", "kd", "otgd_kd"]
    assert kd.gains == {}
    assert otgd.gains["kd"].mean == pytest.approx(otgd.score.mean - kd.score.mean)
    assert all(line.score.n == 2 for line in (alone, kd, otgd))
    assert alone.others["time"] == 1.0
    assert otgd.others["time"] > 1.0 and otgd.others["memory"] > kd.others["memory"] > 0
    assert alone.others["extra_parameters"] == kd.others["extra_parameters"] == 0 < otgd.others["extra_parameters"]
    assert alone.trial == {} and set(kd.trial) == {"temperature"} and set(otgd.trial) == {"ratio"}


def test_numbers_are_kept_with_what_they_were_made_with(done):
    folder, tables = done
    kept = json.loads((folder / "out/digits/results.json").read_text())
    assert kept["command"].startswith("graphkd benchmark accuracy --suite digits")
    assert kept["versions"]["torch"] and kept["hardware"]["cpus"] and "commit" in kept
    assert kept["teachers"]["labels10"]["score"] > 50
    scores = {row["name"]: row["score"][0] for row in kept["tables"]["labels10"]}
    assert scores == {line.name: line.score.mean for line in tables["labels10"]}
    assert (folder / "out/digits/labels10.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_is_written_and_stands_in_the_readme(done):
    folder, tables = done
    table = (folder / "out/digits/table.md").read_text()
    otgd = tables["labels10"][2]
    gain = otgd.gains["kd"]
    line = next(line for line in table.splitlines() if line.startswith("| OTGD and KD |"))
    assert f"| {otgd.score.mean:.2f} ± {otgd.score.deviation:.2f} | {gain.mean:+.2f} ± {gain.half:.2f} |" in line
    assert table.startswith("`graphkd benchmark accuracy --suite digits --methods alone otgd_kd --seeds 2`, graphkd ")
    assert table.count("| minus KD |") == 1
    readme = (folder / "README.md").read_text()
    assert readme == f"before\n<!-- accuracy digits -->\n{table.strip()}\n<!-- end of accuracy digits -->\nafter\n"


def test_settings_were_chosen_on_validation_images_by_as_many_runs(done):
    folder, _ = done
    _, *runs = [json.loads(line) for line in (folder / "out/digits/labels10.jsonl").read_text().splitlines()]
    counts = Counter((run["method"], run["run"]["split"]) for run in runs)
    for method in ("kd", "otgd_kd"):
        assert counts[method, "validation"] == 4 and counts[method, "test"] == 2


def test_a_second_call_runs_nothing_again_and_more_seeds_only_what_is_new(done, monkeypatch):
    folder, tables = done
    monkeypatch.setitem(SUITES, "digits", {"labels10": FEW})
    trained = []
    train = type(FEW).train

    def counted(self, entry, trial, seed, *rest, **named):
        trained.append(seed)
        return train(self, entry, trial, seed, *rest, **named)

    monkeypatch.setattr(type(FEW), "train", counted)
    options = dict(methods=("alone",), jobs=1, rounds=3, out=str(folder / "out"), progress=False)
    again = benchmark_accuracy("digits", seeds=2, **options)
    assert trained == []
    assert [line.score for line in again["labels10"]] == [line.score for line in tables["labels10"][:2]]
    benchmark_accuracy("digits", seeds=3, **options)
    assert trained == [2, 2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--suite", "cifar"], "suite needs one of"),
        (["--methods", "otdg"], "methods needs one of"),
        (["--settings", "flowers"], "settings needs one of"),
        (["--ablation", "rkd"], "ablation needs one of otgd, fgw, got 'rkd'"),
        (["--ablation", "otgd", "--methods", "kd"], "methods needs one of otgd, otgd:f"),
        (["--seeds", "0"], "seeds needs an integer of at least 1, got 0"),
        (["--jobs", "0"], "jobs needs an integer of at least 1, got 0"),
    ],
)
def test_a_mistake_is_one_line(capsys, options, said):
    assert main(["benchmark", "accuracy", *options]) == 2
    assert said in capsys.readouterr().err


def test_variants_are_compared_with_their_method(tmp_path, monkeypatch):
    monkeypatch.setitem(SUITES, "digits", {"labels10": dataclasses.replace(FEW, epochs=1, teacher_epochs=1)})
    options = dict(ablation="fgw", seeds=2, jobs=1, rounds=3, out=str(tmp_path), progress=False)
    tables = benchmark_accuracy("digits", methods=("fgw:alpha=1",), **options)
    fgw, structure = tables["labels10"]
    assert (fgw.name, fgw.gains, structure.name) == ("fgw", {}, "fgw:alpha=1")
    assert structure.gains["fgw"].mean == pytest.approx(structure.score.mean - fgw.score.mean)
    assert "| minus FGW |" in (tmp_path / "digits_fgw/table.md").read_text()


@pytest.mark.slow
def test_two_processes_come_to_the_numbers_of_one(tmp_path):
    command = ["benchmark", "accuracy", "--methods", "kd", "--settings", "labels10", "--seeds", "1", "--rounds", "3"]
    for jobs in ("1", "2"):
        assert main([*command, "--jobs", jobs, "--out", str(tmp_path / jobs), "--progress", "false"]) == 0
    one, two = (json.loads((tmp_path / jobs / "digits/results.json").read_text())["tables"] for jobs in ("1", "2"))
    for row in (one["labels10"][0], two["labels10"][0]):
        row["others"].pop("time")
    assert one == two
