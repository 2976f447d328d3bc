"""All runs of the benchmark: what is to be run, what was run before, and processes that do the rest."""

import ctypes
import math
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from graphkd.benchmark.accuracy.ablations import EVERY
from graphkd.benchmark.accuracy.cost import one_thread
from graphkd.benchmark.accuracy.log import FAILED, Log, Outcome
from graphkd.benchmark.accuracy.suites import SUITES

Numbers = dict[str, float]

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Options of glibc's allocator."""


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

    @property
    def run(self) -> dict[str, Any]:
        """Which of a method's runs it is, as it is written down."""
        return {"trial": self.trial, "seed": self.seed, "split": "test" if self.final else "validation"}


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
            f"{job.suite}/{job.setting}, {job.entry}: no setting could be trained, see {FAILED} in the log of its runs"
        )
    return trials[scores.index(max(possible))]


def run_all(jobs: Sequence[Job], folder: Path, processes: int, title: str, progress: bool) -> dict[int, Numbers]:
    """The numbers of each run, from the log where it was made before with the same definition.

    A setting that cannot be trained has the score NaN, and is not chosen then. A run on the test split that fails is a
    ``ValueError`` that names it; what other runs found is kept.
    """
    logs = {place: _log(*place, folder) for place in {(job.suite, job.setting) for job in jobs}}
    definitions = {name: EVERY[name].definition() for name in {job.entry for job in jobs}}
    found: dict[int, Outcome] = {}
    for i, job in enumerate(jobs):
        before = logs[job.suite, job.setting].find(job.entry, definitions[job.entry], job.run)
        if before is not None:
            found[i] = before
    waiting = [i for i in range(len(jobs)) if i not in found]
    with _bar(progress) as bar:
        task = bar.add_task(title, total=len(jobs), completed=len(found), note="")
        for k, outcome in _run([jobs[i] for i in waiting], folder, processes):
            job = jobs[waiting[k]]
            logs[job.suite, job.setting].add(job.entry, definitions[job.entry], job.run, outcome)
            found[waiting[k]] = outcome
            bar.update(task, advance=1, note=f"{job.entry} {_numbers(outcome)['score']:.1f}")
    return {i: _numbers(outcome) for i, outcome in found.items()}


def _numbers(outcome: Outcome) -> Numbers:
    return {"score": math.nan} if isinstance(outcome, str) else outcome


def _log(suite: str, setting: str, folder: Path) -> Log:
    place = SUITES[suite][setting]
    made_with = {"setting": place.definition(), "source": place.source(folder / suite)}
    return Log(folder / suite / f"{setting}.jsonl", made_with)


def _run(jobs: Sequence[Job], folder: Path, processes: int) -> Iterator[tuple[int, Outcome]]:
    if processes == 1 or len(jobs) <= 1:
        with one_thread():
            yield from ((i, perform(job, folder)) for i, job in enumerate(jobs))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin) as pool:
        futures = {pool.submit(perform, job, folder): i for i, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin() -> None:
    """One thread for a process, which keeps what is freed: RKD's steps on large batches take a quarter of the time."""
    torch.set_num_threads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def perform(job: Job, folder: Path) -> Outcome:
    """Run a job."""
    place = SUITES[job.suite][job.setting]
    try:
        return place.train(EVERY[job.entry], job.trial, job.seed, folder / job.suite, job.final)
    except ValueError as error:
        if job.final:
            raise ValueError(f"{job.suite}/{job.setting}, {job.entry} {job.trial}, seed {job.seed}: {error}") from error
        return str(error)


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
