"""The tables that are published are those of the runs that are published beside them."""

import json
import math
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import pytest

from graphkd.benchmark.accuracy.ablations import ABLATIONS
from graphkd.benchmark.accuracy.entries import ENTRIES
from graphkd.benchmark.accuracy.suites import SUITES

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "examples/results"
TABLES = sorted(RESULTS.glob("*/table.md"))


def _blocks(table):
    """Rows of cells by setting."""
    for setting, rows in re.findall(r"<b>(\w+)</b>.*?\|---\|\n(.*?)\n\n", table, re.DOTALL):
        yield setting, [[cell.strip() for cell in line.strip("|").split("|")] for line in rows.splitlines()]


def _runs(suite, setting):
    """Scores by split, method, trial and seed; NaN of runs that came to no end."""
    scores = defaultdict(dict)
    for line in (RESULTS / suite / f"{setting}.jsonl").read_text().splitlines():
        content = json.loads(line)
        if "run" in content:
            run = content["run"]
            place = (run["split"], content["method"], *run["trial"].values())
            scores[place][run["seed"]] = content.get("numbers", {"score": math.nan})["score"]
    return scores


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.parent.name)
def test_every_row_is_the_mean_of_its_runs_with_the_setting_that_was_best_on_validation_samples(path):
    suite, _, ablation = path.parent.name.partition("_")
    group = ABLATIONS[ablation] if ablation else ENTRIES
    names = {entry.title: name for name, entry in group.items()}
    assert len(names) == len(group)
    seen = 0
    for setting, rows in _blocks(path.read_text()):
        scores = _runs(suite, setting)
        for title, chosen, score, *_ in rows:
            name = names[title]
            values = [value for trial in SUITES[suite][setting].trials(group[name]) for value in trial.values()]
            tried = {value: mean(scores["validation", name, value].values()) for value in values}
            possible = [value for value, each in tried.items() if not math.isnan(each)]
            trial = [max(possible, key=lambda value: tried[value])] if possible else []
            assert chosen.split()[1:] == [f"{value:g}" for value in trial]
            found = list(scores[("test", name, *trial)].values())
            assert score == f"{mean(found):.2f} ± {stdev(found):.2f}", (setting, name)
            seen += 1
    assert seen > 10


def test_there_are_tables():
    assert TABLES


def test_the_readme_has_the_tables_of_the_suites():
    readme = (ROOT / "README.md").read_text()
    for path in TABLES:
        if "_" not in path.parent.name:
            assert path.read_text().strip() in readme
