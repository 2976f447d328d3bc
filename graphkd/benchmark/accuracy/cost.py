"""What a method costs in training: the time of a step against the student's own, and memory."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from graphkd.benchmark.accuracy.ablations import EVERY
from graphkd.benchmark.accuracy.suites import SUITES
from graphkd.benchmark.timing import paired_ratio, time_together

MIB = 2**20

Trials = Mapping[str, dict[str, Any]]
"""The chosen setting of each method, by its name."""


def costs(suite: str, setting: str, trials: Trials, folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """What a training step costs with each method, beside that of the setting's cheapest one.

    A step is forward, backward and the optimiser's on the first batch, with what the teacher says of it read from where
    it is kept, on the CPU, in one thread.

    Args:
        suite: Name of the suite.
        setting: Name in it.
        trials: Methods, with their settings.
        folder: Where the teacher is.
        rounds: How often each is timed, in alternation.

    Returns:
        By method: ``time``, the median ratio to the ``cheapest``, and ``memory``, the peak of what tensors take in a
        step, in MiB.
    """
    cheapest = SUITES[suite][setting].cheapest
    with one_thread():
        steps = {name: _step(suite, setting, name, trials.get(name, {}), folder) for name in {**trials, cheapest: {}}}
        timings = time_together(steps, rounds, torch.device("cpu"))
        return {
            name: {"time": paired_ratio(timings[name], timings[cheapest]).median, "memory": peak_memory(steps[name])}
            for name in trials
        }


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from a second thread, and with one the numbers do not depend on the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _step(suite: str, setting: str, name: str, trial: dict[str, Any], folder: Path) -> Callable[[], None]:
    place = SUITES[suite][setting]
    distiller, batch = place.first_step(EVERY[name], trial, folder)
    optimizer = torch.optim.SGD(distiller.learnable_parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        distiller(*batch).loss.backward()
        optimizer.step()

    step()  # what the first one makes stays
    return step


def peak_memory(function: Callable[[], object]) -> float:
    """How much more memory tensors take at most while a function runs than before, in MiB, on the CPU.

    >>> round(peak_memory(lambda: torch.ones(512, 512) + 1), 1)
    2.0
    """
    with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        function()
    results = seen.profiler.kineto_results if seen.profiler is not None else None
    events = [] if results is None else [event for event in results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue] - left out of its stubs
        most = max(most, now)
    return most / MIB


@contextmanager
def _silent() -> Iterator[None]:
    """Without the standard error stream, where the profiler writes about itself from C++."""
    before = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
