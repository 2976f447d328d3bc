"""The command: which methods on which settings, what is run, and where its tables go."""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graphkd import checks, kept
from graphkd.benchmark.accuracy import cifar100
from graphkd.benchmark.accuracy.ablations import ABLATIONS
from graphkd.benchmark.accuracy.cost import costs
from graphkd.benchmark.accuracy.entries import ENTRIES
from graphkd.benchmark.accuracy.readme import replaced
from graphkd.benchmark.accuracy.report import Line, lines, markdown, plot, table
from graphkd.benchmark.accuracy.runs import Job, Numbers, chosen, run_all, tuning
from graphkd.benchmark.accuracy.suites import SUITES
from graphkd.benchmark.table import print_table
from graphkd.training.record import made_by

CIFAR100 = "cifar100"

OURS = "fgw"
"""What methods are compared with beside the suite's baseline."""

SEEDS = {"digits": 10, "synthetic": 3, "sentences": 3}
"""How many are reported, unless asked for; of CIFAR-100 one."""


def benchmark_accuracy(
    suite: str = "digits",
    methods: Sequence[str] = (),
    settings: Sequence[str] = (),
    ablation: str | None = None,
    pair: str | None = None,
    seeds: int | None = None,
    jobs: int = 2,
    rounds: int = 15,
    out: str = "runs/benchmark",
    readme: str | None = None,
    configs: str = "examples/configs/cifar100",
    progress: bool = True,
) -> dict[str, list[Line]]:
    """Train a student with every method, from the same teacher and for as long, and say what each comes to and costs.

    Each method's setting is chosen first, among as many as any other has, by the mean score on validation samples over
    seeds that are not reported; then it is tested once for each seed, after the last epoch. What is searched is how
    hard the method pulls at the student's features, relative to the task (of knowledge distillation, whose weights are
    given, the temperature; of sentences, without a task, the learning rate); everything else is the recipe's default.

    A run that was made before with the same definition and teacher is not made again, so the command may be
    interrupted, and given again with more methods or seeds. Every run is in one thread, and a second one gives the same
    numbers.

    Args:
        suite: ``digits``, ``synthetic``, ``sentences``; or ``cifar100``, which runs the configs of the literature's
            protocol, in days, and puts the papers' figures beside.
        methods: Names of methods; all by default. What they are compared with is always among them.
        settings: Names of the suite's settings; all by default.
        ablation: Compare the variants of this method, ``otgd`` or ``fgw``, with itself, in place of the methods.
        pair: Of ``cifar100``: teacher and student, such as ``resnet32x4_resnet8x4``.
        seeds: How many seeds are reported; 10 for digits and 3 for the others by default.
        jobs: Processes.
        rounds: How often each method's step is timed.
        out: Folder for the teacher, the log of runs, results.json, tables and plots.
        readme: A file in which the tables of this suite are replaced.
        configs: Of ``cifar100``: the folder of its configs.
        progress: Whether to show progress bars.

    Returns:
        The lines of each setting's table.

    Raises:
        ValueError: For names that are not there, and for a run that fails.
    """
    checks.one_of("suite", suite, (*SUITES, CIFAR100))
    if suite == CIFAR100:
        if ablation is not None:
            raise ValueError(f"ablation is of the suites that run here, got {ablation} with cifar100")
        _cifar100(pair, methods, 1 if seeds is None else seeds, Path(configs), Path(out) / suite)
        return {}
    if pair is not None:
        raise ValueError(f"pair is of cifar100, got {pair} with {suite}")
    places = {
        name: place for name, place in SUITES[suite].items() if name in _named("settings", settings, SUITES[suite])
    }
    if ablation is not None:
        checks.one_of("ablation", ablation, tuple(ABLATIONS))
    group = ENTRIES if ablation is None else ABLATIONS[ablation]
    names = _named("methods", methods, group)
    checks.at_least("jobs", jobs, 1)
    checks.at_least("rounds", rounds, 1)
    count = SEEDS[suite] if seeds is None else seeds
    checks.at_least("seeds", count, 1)
    folder = Path(out)
    teachers = {name: place.prepare(folder / suite) for name, place in places.items()}
    first = [
        Job(suite, name, method, {}, 0, final=False)
        for name, place in places.items()
        for method in group
        if method in {*names, ablation or place.baseline} and not place.refuses(group[method])
    ]
    trials = _chosen(first, folder, jobs, progress)
    finals = [
        job._replace(trial=trials[job.setting, job.entry], seed=seed, final=True)
        for job in first
        for seed in range(count)
    ]
    found = run_all(finals, folder, jobs, f"{suite}: seeds", progress)
    tables = {}
    for name in places:
        mine = {job.entry: trials[name, job.entry] for job in first if job.setting == name}
        by_seed = {
            method: {job.seed: found[i] for i, job in enumerate(finals) if (job.setting, job.entry) == (name, method)}
            for method in mine
        }
        cost = costs(suite, name, mine, folder / suite, rounds)
        tables[name] = lines(by_seed, mine, cost, (places[name].baseline, OURS) if ablation is None else (ablation,))
    asked = _command(suite=suite, settings=settings, methods=methods, ablation=ablation, seeds=count)
    _keep(asked, suite, ablation, teachers, tables, folder, readme)
    return tables


def _cifar100(pair: str | None, methods: Sequence[str], seeds: int, configs: Path, folder: Path) -> None:
    """Run what is missing, row by row, and show all rows of the pair."""
    if pair is None:
        raise ValueError("cifar100 needs a pair such as resnet32x4_resnet8x4, got none")
    if not configs.is_dir():
        raise ValueError(f"configs needs the folder of CIFAR-100's configs, got {configs}")
    checks.at_least("seeds", seeds, 1)
    known = cifar100.methods_of(pair, configs)
    for method in _named("methods", methods, known):
        for seed in range(seeds):
            cifar100.train(pair, method, seed, configs, folder / pair / method / f"seed{seed}")
    rows = cifar100.rows(pair, known, folder)
    print_table(f"CIFAR-100, {pair}, test accuracy after the last epoch", cifar100.COLUMNS, rows)
    kept.write_text(folder / f"{pair}.md", markdown(cifar100.COLUMNS, rows) + "\n")


def _named(what: str, given: Sequence[str], known: Iterable[str]) -> list[str]:
    for name in given:
        checks.one_of(what, name, tuple(known))
    return list(given) or list(known)


def _chosen(first: Sequence[Job], folder: Path, jobs: int, progress: bool) -> dict[tuple[str, str], dict[str, Any]]:
    """The setting of each method, by the runs that it is chosen by."""
    tried = [trial for job in first for trial in tuning(job)]
    found = run_all(tried, folder, jobs, f"{first[0].suite}: settings", progress)
    by_method: dict[tuple[str, str], list[tuple[Job, Numbers]]] = {}
    for i, job in enumerate(tried):
        by_method.setdefault((job.setting, job.entry), []).append((job, found[i]))
    return {(job.setting, job.entry): chosen(job, by_method.get((job.setting, job.entry), [])) for job in first}


def _command(**options: Any) -> str:
    """The command that makes the same tables, with the options that are not empty.

    >>> _command(suite="digits", methods=["kd", "fgw"], ablation=None)
    'graphkd benchmark accuracy --suite digits --methods kd fgw'
    """
    words = {name: value if isinstance(value, list | tuple) else [value] for name, value in options.items() if value}
    return " ".join(["graphkd benchmark accuracy", *(f"--{k} {' '.join(map(str, v))}" for k, v in words.items())])


def _keep(
    asked: str,
    suite: str,
    ablation: str | None,
    teachers: Mapping[str, Mapping[str, float]],
    tables: Mapping[str, Sequence[Line]],
    folder: Path,
    readme: str | None,
) -> None:
    """Print the tables, and write them, the plots, and what they were made with."""
    record = {"command": asked, **made_by()}
    what = suite if ablation is None else f"{suite}_{ablation}"
    (folder / what).mkdir(parents=True, exist_ok=True)
    text = [f"`{asked}`, graphkd {version('graphkd')}, torch {version('torch')}\n"]
    for name, rows in tables.items():
        place = SUITES[suite][name]
        header, body = table(place, rows)
        title = f"{place.title}; teacher {teachers[name]['score']:.2f}"
        print_table(f"{suite}, {name}: {title}", header, body, width=200)
        plot(place, rows, folder / what / f"{name}.png")
        text.append(f"<details><summary><b>{name}</b>: {title}</summary>\n\n{markdown(header, body)}\n\n</details>\n")
    kept.write_text(folder / what / "table.md", "\n".join(text))
    content = {name: [row._asdict() for row in rows] for name, rows in tables.items()}
    kept.write_text(
        folder / what / "results.json", json.dumps({**record, "teachers": teachers, "tables": content}, indent=1)
    )
    if readme is not None:
        path = Path(readme)
        kept.write_text(path, replaced(path.read_text(), f"accuracy {what}", "\n".join(text)))
