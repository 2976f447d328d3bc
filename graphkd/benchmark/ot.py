"""Transport solvers of several libraries side by side: the same inputs, threads and precision, in one process."""

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from graphkd import checks
from graphkd.benchmark.budget import step_section
from graphkd.benchmark.compare import Effort, Row
from graphkd.benchmark.gromov import gromov_section
from graphkd.benchmark.linear import batch_section, sinkhorn_section, tolerance_section
from graphkd.benchmark.pinning import pinned
from graphkd.benchmark.report import plot, print_case, print_notes, print_summary
from graphkd.benchmark.shared import shared_section
from graphkd.typing import Real

SECTIONS: dict[str, Callable[..., Iterator[list[Row]]]] = {
    "sinkhorn": sinkhorn_section,
    "tolerance": tolerance_section,
    "batch": batch_section,
    "shared": shared_section,
    "gromov": gromov_section,
    "step": step_section,
}
PEERS = ("torch", "POT", "geomloss", "ott-jax", "jax")


def benchmark_ot(
    sections: Sequence[str] = tuple(SECTIONS),
    sizes: Sequence[int] | None = None,
    rounds: int = 15,
    seconds: Real = 30,
    threads: int = 1,
    out: str | None = None,
) -> dict[str, list[Row]]:
    """Time transport solvers against each other, forward and with gradients, and say how well each solved the problem.

    Sections: ``sinkhorn``, 100 sweeps on one problem; ``tolerance``, the same until each library's own rule is met;
    ``batch``, 64 problems at once; ``shared``, one class cost for all samples (WKD-L); ``gromov``, fused
    Gromov-Wasserstein; ``step``, graphkd's solvers as a share of a ResNet-20 training step. Each library is called at
    its fastest documented setting; its gradient is compared with the slope of its own value, and a wrong one is named.
    All solvers of a case are timed in alternation, in blocks after an untimed call; ratios are medians over rounds.

    Args:
        sections: What to measure.
        sizes: Nodes (in shared: samples, in step: the batch size) instead of each section's own.
        rounds: How often each solver is timed, at most.
        seconds: No round of a case begins later than this, once three were run.
        threads: Threads of every library, and cores to run them on.
        out: A JSON file to write as well; the plot is written beside it, as PNG.

    Raises:
        ValueError: For unknown sections, and sizes, rounds, seconds or threads that are too small.
    """
    _check(sections, sizes, rounds, seconds, threads, out)
    rows: dict[str, list[Row]] = {}
    with pinned(threads):
        for section in dict.fromkeys(sections):
            rows[section] = []
            options = {} if sizes is None else {"sizes": sizes}
            for found in SECTIONS[section](Effort(rounds, seconds), **options):
                print_case(section, found)
                rows[section] += found
            print_notes(rows[section])
    for section, found in rows.items():
        print_summary(section, found)
    if out is not None:
        setting = {"sizes": sizes, "rounds": rounds, "seconds": seconds, "threads": threads}
        records = {section: [row.record() for row in found] for section, found in rows.items()}
        written = {"setting": setting | _machine(), "sections": records}
        Path(out).write_text(json.dumps(written, indent=1, allow_nan=False))
        plot(rows, Path(out).with_suffix(".png"))
    return rows


def _check(
    sections: Sequence[str], sizes: Sequence[int] | None, rounds: int, seconds: Real, threads: int, out: str | None
) -> None:
    if not sections or (sizes is not None and not sizes):
        raise ValueError(f"needs at least one section and one size, got sections {sections} and sizes {sizes}")
    for section in sections:
        checks.one_of("sections", section, tuple(SECTIONS))
    for size in sizes or ():
        checks.at_least("sizes", size, 2)
    checks.at_least("rounds", rounds, 1)
    checks.positive("seconds", seconds)
    checks.at_least("threads", threads, 1)
    if out is not None and (Path(out).suffix == ".png" or not Path(out).parent.is_dir()):
        raise ValueError(f"out needs a JSON file in a folder that exists, got {out}")


def _machine() -> dict[str, Any]:
    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    versions = {name: installed(name) for name in PEERS}
    return {"precision": str(torch.float32), "processor": _processor(), "versions": versions}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
