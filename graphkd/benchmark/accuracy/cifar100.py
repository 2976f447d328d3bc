"""CIFAR-100 in the official protocol: the shipped configs, run and put beside the papers' figures."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from graphkd import checks
from graphkd.training.folder import CONFIG, LAST, RESULTS

PUBLISHED = Path(__file__).with_suffix(".csv")
"""Figures of papers and repositories: pair, method as its folder of configs, top-1 accuracy, deviation, source."""

COLUMNS = ["method", "ours, %", "seeds", "published, %", "by"]

BESIDE = ("teacher", "alone")
"""Rows that are no method."""


class Figure(NamedTuple):
    """What somebody else reports."""

    accuracy: str
    deviation: str
    source: str

    def __str__(self) -> str:
        return f"{self.accuracy} ± {self.deviation}" if self.deviation else self.accuracy


def published() -> dict[str, dict[str, Figure]]:
    """Figures by pair and method.

    >>> str(published()["resnet32x4_resnet8x4"]["crd"])
    '75.51'
    """
    found: dict[str, dict[str, Figure]] = {}
    with PUBLISHED.open() as file:
        for pair, method, *figure in list(csv.reader(file))[1:]:
            found.setdefault(pair, {})[method] = Figure(*figure)
    return found


def methods_of(pair: str, configs: Path) -> list[str]:
    """The methods that have a config for a pair.

    Raises:
        ValueError: For a pair without any, with those that there are.
    """
    pairs = sorted({path.stem for path in configs.glob("*/*_*.yaml")})
    checks.one_of("pair", pair, tuple(pairs))
    return sorted(path.parent.name for path in configs.glob(f"*/{pair}.yaml"))


def train(pair: str, method: str, seed: int, configs: Path, folder: Path) -> None:
    """Train with a config in a process of its own, where that was not done; a run that stopped goes on.

    Raises:
        ValueError: If the run ended with an error, which has been printed.
    """
    if (folder / RESULTS).exists():
        return
    command = [sys.executable, "-m", "graphkd", "train"]
    if (folder / LAST).exists() and (folder / CONFIG).exists():
        command += ["--resume", str(folder)]
    else:
        command += ["--config", str(configs / method / f"{pair}.yaml"), "--out", str(folder)]
        command += ["--seed", str(seed), "--data.init_args.seed", str(seed)]
    status = subprocess.run(command, check=False).returncode
    if status != 0:
        raise ValueError(f"{method} on {pair}, seed {seed}, ended with status {status}: {' '.join(command[1:])}")


def rows(pair: str, methods: Sequence[str], out: Path) -> list[list[str]]:
    """The table's cells: what was run here, and what others report; empty where there is nothing."""
    figures = published().get(pair, {})
    found = []
    for method in dict.fromkeys([*(name for name in BESIDE if name in figures), *methods]):
        files = sorted((out / pair / method).glob(f"seed*/{RESULTS}"))
        scores = [100 * json.loads(file.read_text())["accuracy"] for file in files]
        spread = f" ± {stdev(scores):.2f}" if len(scores) > 1 else ""
        ours = f"{mean(scores):.2f}{spread}" if scores else ""
        figure = figures.get(method)
        cells = ["", ""] if figure is None else [str(figure), figure.source]
        found.append([method, ours, str(len(scores)) if scores else "", *cells])
    return found
