import json

import pytest

from graphkd.benchmark.step import STUDENT, TIMED, Case, benchmark_step, growth
from graphkd.benchmark.timing import Timing
from graphkd.cli import main


def test_table_names_the_setting_and_every_criterion(capsys, tmp_path):
    cases = benchmark_step(["kd", "fgw"], batch_sizes=[8, 4], widths=[8, 16], rounds=2, out=str(tmp_path))
    printed = capsys.readouterr().out
    assert [(case.width, case.batch_size) for case in cases] == [(8, 4), (8, 8), (16, 4), (16, 8)]
    assert all(list(case.timings) == [STUDENT, "kd", "fgw"] for case in cases)
    for word in ("batch 4", "batch 8", "8-d", "16-d", "2 rounds", "ResNet-8x4", "kd", "fgw", "n^"):
        assert word in printed
    written = json.loads((tmp_path / "step.json").read_text())
    assert written["setting"]["device"] == "cpu"
    assert {"versions", "commit", "hardware"} <= written.keys()
    text = (tmp_path / "step.md").read_text()
    assert text.count("| ResNet-8x4, with SGD |") == 2 and "features 16-d" in text
    assert written["cases"][1]["seconds"]["fgw"]["median"] == cases[1].timings["fgw"].median > 0
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")


def test_every_criterion_takes_a_step():
    (case,) = benchmark_step(batch_sizes=[12], widths=[8], rounds=1)
    assert case.timings.keys() == {STUDENT, *TIMED}
    assert {"kd", "wkd_logits", "attention_transfer", "crd", "hkd", "dkd", "otgd", "fgw"} <= case.timings.keys()


def test_growth_is_an_exponent_of_the_two_largest():
    def case(n, seconds):
        return Case(n, 8, {"kd": Timing(seconds, seconds, seconds, [seconds])})

    assert growth([case(2, 7.0), case(10, 1.0), case(1000, 100.0)], "kd") == pytest.approx(1.0)


@pytest.mark.parametrize("options", [{"batch_sizes": [1]}, {"rounds": 0}, {"widths": [0]}, {"methods": ["otdg"]}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match="got"):
        benchmark_step(**options)


def test_lists_are_given_as_words(capsys):
    options = ["--methods", "kd", "sp", "--batch_sizes", "4", "8", "--widths", "8", "--rounds", "1"]
    assert main(["benchmark", "step", *options]) == 0
    printed = capsys.readouterr().out
    assert "sp" in printed and "n^" in printed
    assert main(["benchmark", "step", "--methods", "kd", "--batch_sizes", "4", "--widths", "8", "--rounds", "1"]) == 0
    assert "n^" not in capsys.readouterr().out
