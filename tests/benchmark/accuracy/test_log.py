"""What was run is found again where it was made of the same, and nothing is lost."""

import json

import pytest

from graphkd.benchmark.accuracy.log import Log
from graphkd.training import record

RUN = {"trial": {"ratio": 3.0}, "seed": 0, "split": "test"}
METHOD = ("fgw", {"criteria": "alpha .5"})


@pytest.fixture
def file(tmp_path):
    """A log of one run."""
    log = Log(tmp_path / "made" / "log.jsonl", {"epochs": (3, 4)})
    log.add(*METHOD, RUN, {"score": 1 / 3})
    return log.file


@pytest.mark.parametrize(
    "asked",
    [
        (*METHOD, RUN | {"seed": 1}),
        (*METHOD, RUN | {"split": "validation"}),
        (*METHOD, RUN | {"trial": {"ratio": 30.0}}),
        ("fgw", {"criteria": "alpha 1"}, RUN),
        ("otgd", METHOD[1], RUN),
    ],
)
def test_a_run_of_something_else_is_not_found(file, asked):
    log = Log(file, {"epochs": (3, 4)})
    assert log.find(*asked) is None
    assert log.find(*METHOD, RUN) == {"score": 1 / 3}


def test_runs_of_another_setting_are_kept_and_not_found(file):
    other = Log(file, {"epochs": (3, 5)})
    assert other.find(*METHOD, RUN) is None
    other.add(*METHOD, RUN, "no luck")
    assert Log(file, {"epochs": (3, 5)}).find(*METHOD, RUN) == "no luck"
    assert Log(file, {"epochs": (3, 4)}).find(*METHOD, RUN) == {"score": 1 / 3}


def test_what_runs_were_made_with_stands_before_them_wherever_it_changes(file, monkeypatch):
    Log(file, {"epochs": (3, 4)}).add(*METHOD, RUN | {"seed": 1}, {"score": 2.0})
    monkeypatch.setattr(record, "commit", lambda folder: {"commit": "abc", "dirty": False})
    log = Log(file, {"epochs": (3, 4)})
    for seed in (2, 3):
        log.add(*METHOD, RUN | {"seed": seed}, {"score": 3.0})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert ["made_with" in line for line in lines] == [True, False, False, True, False, False]
    assert all(lines[i]["versions"]["torch"] and lines[i]["hardware"] for i in (0, 3))
    assert lines[3]["commit"]["commit"] == "abc"


def test_a_line_that_was_cut_off_is_dropped_and_the_next_starts_anew(file):
    log = Log(file, {"epochs": (3, 4)})
    log.add(*METHOD, RUN | {"seed": 1}, {"score": 2.0})
    file.write_text(file.read_text()[:-5])
    log = Log(file, {"epochs": (3, 4)})
    assert log.find(*METHOD, RUN) is not None and log.find(*METHOD, RUN | {"seed": 1}) is None
    log.add(*METHOD, RUN | {"seed": 1}, {"score": 4.0})
    assert Log(file, {"epochs": (3, 4)}).find(*METHOD, RUN | {"seed": 1}) == {"score": 4.0}


@pytest.mark.parametrize("line", ["nothing", "[]", "1", '{"method": "fgw"}', '{"method": "fgw", "numbers": {}}'])
def test_other_files_are_refused(file, line):
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ValueError, match="needs runs of this benchmark, got in line 3"):
        Log(file, {"epochs": (3, 4)})
