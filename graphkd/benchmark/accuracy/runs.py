"""All runs of the benchmark: what is to be run, what was run before, and processes that do the rest."""

import json
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from graphkd import kept
from graphkd.benchmark.accuracy.ablations import EVERY
from graphkd.benchmark.accuracy.cost import one_thread
from graphkd.benchmark.accuracy.suites import SUITES
from graphkd.training.record import commit, versions

Numbers = dict[str, float]

FAILED = "failed"
"""Where a run's file says why it came to no end."""


class Job(NamedTuple):
    """One run.

    Attributes:
        suite: Name of the suite.
        setting: Name in the suite.
        entry: Name of the method.
        trial: The knob and its value.
        seed: Of everything.
        final: Whether it is measured on the test split.
    """

    suite: str
    setting: str
    entry: str
    trial: dict[str, Any]
    seed: int
    final: bool

    def file(self, folder: Path) -> Path:
        """Where its numbers are kept."""
        trial = "_".join(f"{name}={value}" for name, value in self.trial.items()) or "default"
        split = "test" if self.final else "validation"
        return folder / self.suite / self.setting / self.entry / f"{split}_{trial}_seed{self.seed}.json"


def tuning(job: Job) -> list[Job]:
    """The runs that a method's setting is chosen by; none where there is nothing to choose."""
    place = SUITES[job.suite][job.setting]
    trials = place.trials(EVERY[job.entry])
    seeds = place.tuning_seeds if len(trials) > 1 else ()
    return [job._replace(trial=trial, seed=seed, final=False) for trial in trials for seed in seeds]


def chosen(job: Job, tried: Sequence[tuple[Job, Numbers]]) -> dict[str, Any]:
    """The setting with the best mean score on validation samples; of equal ones the first.

    Raises:
        ValueError: If no setting could be trained with every seed.
    """
    trials = SUITES[job.suite][job.setting].trials(EVERY[job.entry])
    if len(trials) == 1:
        return trials[0]
    scores = [mean(numbers["score"] for each, numbers in tried if each.trial == trial) for trial in trials]
    possible = [score for score in scores if not math.isnan(score)]
    if not possible:
        raise ValueError(
            f"{job.suite}/{job.setting}, {job.entry}: no setting could be trained, see {FAILED} in its runs"
        )
    return trials[scores.index(max(possible))]


def run_all(jobs: Sequence[Job], folder: Path, processes: int, title: str, progress: bool) -> dict[int, Numbers]:
    """The numbers of each run, from its file where it was run before with the same definition.

    A run on the test split that fails is a ``ValueError`` that names it; what other runs found is kept.
    """
    found: dict[int, Numbers] = {}
    waiting: list[int] = []
    for i, job in enumerate(jobs):
        before = _read(job, folder)
        if before is None:
            waiting.append(i)
        else:
            found[i] = before
    with _bar(progress) as bar:
        task = bar.add_task(title, total=len(jobs), completed=len(found), note="")
        for i, numbers in _run([jobs[i] for i in waiting], folder, processes):
            found[waiting[i]] = numbers
            bar.update(task, advance=1, note=f"{jobs[waiting[i]].entry} {numbers['score']:.1f}")
    return found


def _run(jobs: Sequence[Job], folder: Path, processes: int) -> Iterator[tuple[int, Numbers]]:
    if processes == 1 or len(jobs) <= 1:
        with one_thread():
            yield from ((i, perform(job, folder)) for i, job in enumerate(jobs))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = {pool.submit(perform, job, folder): i for i, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def perform(job: Job, folder: Path) -> Numbers:
    """Run a job and keep its numbers; of a setting that cannot be trained, which is not chosen then, that it cannot."""
    place = SUITES[job.suite][job.setting]
    record = {"definition": _definition(job), "commit": commit(Path.cwd()), "versions": versions()}
    try:
        numbers = place.train(EVERY[job.entry], job.trial, job.seed, folder / job.suite / job.setting, job.final)
    except ValueError as error:
        if job.final:
            raise ValueError(f"{job.suite}/{job.setting}, {job.entry} {job.trial}, seed {job.seed}: {error}") from error
        numbers = {"score": math.nan}
        record[FAILED] = str(error)
    record["numbers"] = numbers
    kept.write_text(job.file(folder), json.dumps(record, indent=1))
    return numbers


def _definition(job: Job) -> dict[str, Any]:
    """What a run's numbers depend on, as JSON has it."""
    what = {"place": SUITES[job.suite][job.setting].definition(), "method": EVERY[job.entry].definition()}
    return json.loads(json.dumps({**job._asdict(), **what}))


def _read(job: Job, folder: Path) -> Numbers | None:
    path = job.file(folder)
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    return record["numbers"] if record["definition"] == _definition(job) else None


def _bar(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=not shown,
    )
