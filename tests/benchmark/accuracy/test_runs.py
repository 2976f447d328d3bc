"""Runs are made once, side by side or one after the other, and chosen by validation alone."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from graphkd.benchmark.accuracy import runs
from graphkd.benchmark.accuracy.entries import ENTRIES
from graphkd.benchmark.accuracy.runs import Job, chosen, run_all, tuning
from graphkd.benchmark.accuracy.suites import SUITES

JOB = Job("digits", "labels10", "fgw", {"ratio": 1.0}, 0, final=True)


def _lines(folder):
    return [json.loads(line) for line in (folder / "digits/labels10.jsonl").read_text().splitlines()]


class Place:
    """A setting whose scores are known; counts its runs."""

    baseline = cheapest = "kd"

    def __init__(self):
        self.made = []
        self.epochs = 3

    def definition(self):
        return {"epochs": self.epochs}

    def source(self, folder):
        return "weights"

    def trials(self, entry):
        return [{entry.knob: value} for value in entry.values] or [{}]

    tuning_seeds = (7, 8)

    def train(self, entry, trial, seed, folder, final):
        self.made.append((entry.title, dict(trial), seed, final))
        if seed == 13:
            raise ValueError("no luck")
        return {"score": 50.0 + seed + 10 * (trial.get("ratio") == 3.0)}


@pytest.fixture
def place(monkeypatch):
    found = Place()
    monkeypatch.setitem(SUITES, "digits", {"labels10": found})
    return found


def test_what_was_run_is_not_run_again_unless_it_is_defined_otherwise(place, tmp_path):
    jobs = [JOB._replace(seed=seed) for seed in range(3)]
    first = run_all(jobs, tmp_path, 1, "", progress=False)
    assert first == {0: {"score": 50.0}, 1: {"score": 51.0}, 2: {"score": 52.0}}
    assert run_all([*jobs, JOB._replace(seed=3)], tmp_path, 1, "", progress=False) == first | {3: {"score": 53.0}}
    assert [seed for _, _, seed, _ in place.made] == [0, 1, 2, 3]
    place.epochs = 4
    run_all(jobs[:1], tmp_path, 1, "", progress=False)
    assert len(place.made) == 5
    head, run = _lines(tmp_path)[-2:]
    assert head["made_with"] == {"setting": {"epochs": 4}, "source": "weights"}
    assert head["versions"]["torch"] and head["hardware"]["cpus"] and "commit" in head
    assert (run["method"], run["run"]) == ("fgw", {"trial": {"ratio": 1.0}, "seed": 0, "split": "test"})


def test_runs_for_choosing_and_for_reporting_are_apart(place, tmp_path):
    run_all([JOB, JOB._replace(final=False)], tmp_path, 1, "", progress=False)
    assert [final for *_, final in place.made] == [True, False]


def test_a_run_that_fails_is_named_and_the_others_are_kept(place, tmp_path):
    with pytest.raises(ValueError, match=r"digits/labels10, fgw \{'ratio': 1.0\}, seed 13: no luck"):
        run_all([JOB, JOB._replace(seed=13)], tmp_path, 1, "", progress=False)
    assert [line["run"]["seed"] for line in _lines(tmp_path)[1:]] == [0]


def test_a_setting_that_cannot_be_trained_is_not_chosen(place, tmp_path):
    place.tuning_seeds = (7,)
    tried = tuning(JOB)
    tried[2] = tried[2]._replace(seed=13)
    found = run_all(tried, tmp_path, 1, "", progress=False)
    assert found[2]["score"] != found[2]["score"]
    assert _lines(tmp_path)[3]["failed"] == "no luck"
    assert chosen(JOB, [(job, found[i]) for i, job in enumerate(tried)]) == {"ratio": 0.03}
    run_all(tried, tmp_path, 1, "", progress=False)
    assert len(place.made) == 4
    with pytest.raises(
        ValueError, match="digits/labels10, fgw: no setting could be trained, see failed in the log of its runs"
    ):
        chosen(JOB, [(job, found[2]) for job in tried])


def test_every_method_has_as_many_trials(place):
    counts = {name: len(tuning(JOB._replace(entry=name))) for name in ENTRIES}
    assert counts.pop("alone") == 0
    assert set(counts.values()) == {8}
    assert {job.seed for job in tuning(JOB)} == {7, 8}
    assert not any(job.final for job in tuning(JOB))


def test_the_best_mean_is_chosen_and_of_equal_ones_the_first(place):
    tried = tuning(JOB)
    assert chosen(JOB, [(job, place.train(ENTRIES["fgw"], job.trial, job.seed, None, False)) for job in tried]) == {
        "ratio": 3.0
    }
    assert chosen(JOB, [(job, {"score": 1.0}) for job in tried]) == {"ratio": 0.03}
    assert chosen(JOB._replace(entry="alone"), []) == {}


def test_several_processes_come_to_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ProcessPoolExecutor", Inline)
    monkeypatch.setitem(SUITES, "digits", {"labels10": Place()})
    jobs = [JOB._replace(seed=seed) for seed in range(3)]
    one = run_all(jobs, tmp_path / "one", 1, "", progress=False)
    assert run_all(jobs, tmp_path / "two", 2, "", progress=False) == one


def test_a_process_has_one_thread():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=runs._begin) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1


class Inline:
    """A pool that runs what it is given at once, last things first."""

    def __init__(self, processes, mp_context, initializer):
        assert (processes, mp_context.get_start_method(), initializer) == (2, "spawn", runs._begin)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, *given):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function(*given))
        return future
