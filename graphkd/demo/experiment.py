"""The demo: a digits teacher, a small student with few labels, alone and with each method, and a report."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import nn

from graphkd import checks, kept, losses
from graphkd.class_cost import class_cost
from graphkd.datasets import DigitsData
from graphkd.datasets.digits import TRAIN
from graphkd.demo.report import COLUMNS, Run, rows, write_report
from graphkd.distiller import Distiller
from graphkd.inspection import write_page
from graphkd.loss import Criterion
from graphkd.models import SmallCNN
from graphkd.snapshots import load_all
from graphkd.training.run import Result, run, train_teacher, versions
from graphkd.training.watch import FOLDER as SNAPSHOTS
from graphkd.training.watch import SaveSnapshots

FEATURES = {"feat": "pool", "map": "body"}

TEACHER_WIDTH, TEACHER_EPOCHS = 24, 15


@dataclass(frozen=True)
class Method:
    """A way to train the student: the criteria beside its own cross-entropy, with their weights."""

    title: str
    criteria: Callable[[nn.Module], dict[str, Criterion]]
    weights: dict[str, float]


def _wkd_logits(teacher: nn.Module) -> dict[str, Criterion]:
    cost = class_cost(teacher, DigitsData().train_dataloader(), feature=FEATURES["feat"], progress=False)
    return {"wkd_logits": losses.wkd_logits(cost, transport_weight=100.0, tol=0.01)}


def _with_memory(method: Callable[..., Criterion]) -> Criterion:
    return method(num_samples=TRAIN, num_negatives=512)


METHODS = {
    "kd": Method("KD (CE + KD)", lambda _: {"kd": losses.kd()}, {"kd": 1.0}),
    "otgd": Method(
        "OTGD (CE + KD + OTGD)",
        lambda _: {"kd": losses.kd(), "otgd": losses.otgd()},
        {"kd": 1.0, "otgd": 1.0},
    ),
    "wkd_logits": Method("WKD-L (CE + WKD-L)", _wkd_logits, {"wkd_logits": 1.0}),
    "wkd_features": Method(
        "WKD-F (CE + WKD-F)", lambda _: {"wkd_features": losses.wkd_features()}, {"wkd_features": 0.5}
    ),
    "crd": Method("CRD (CE + CRD)", lambda _: {"crd": _with_memory(losses.crd)}, {"crd": 0.8}),
    "wcord": Method("WCoRD (CE + WCoRD)", lambda _: {"wcord": _with_memory(losses.wcord)}, {"wcord": 3.0}),
    "rtot": Method("RTOT (CE + RTOT)", lambda _: {"rtot": losses.rtot()}, {"rtot": 3.0}),
    "plan_matching": Method(
        "plan matching (CE + own plans)", lambda _: {"plan_matching": losses.plan_matching()}, {"plan_matching": 1.0}
    ),
    "fgw": Method("FGW (CE + FGW)", lambda _: {"fgw": losses.fgw()}, {"fgw": 1.0}),
}

ALONE = Method("student alone (CE)", lambda _: {}, {})


def demo(
    methods: Sequence[str] = ("kd", "otgd"),
    seeds: int = 3,
    labels_per_class: int = 10,
    student_width: int = 4,
    epochs: int = 30,
    out: str = "runs/demo",
    progress: bool = True,
) -> None:
    """Distil a digits classifier, print a table, and write a report.

    The teacher, a CNN of 24 channels, is trained on all 1000 labels. Copies of one small student see the same images
    but only a few labels: one learns from these alone, and one with each method also from the teacher, such as from its
    softened class probabilities (KD), or from these and from batch graphs through optimal transport (OTGD). Accuracy is
    that of the last epoch on 597 test images that nothing was tuned on.

    Args:
        methods: Which methods, beside the student alone.
        seeds: How often each student is trained, from other initial weights and with other labelled images.
        labels_per_class: Labels that the student sees of each of the ten digits.
        student_width: Channels of the student's first layer.
        epochs: Passes over the training images.
        out: Folder for checkpoints, results.json, figures, report.html, and a page for each method that looks into its
            first seed, ``inspect_<method>.html``.
        progress: Whether to show progress bars.
    """
    for name in methods:
        checks.one_of("methods", name, tuple(METHODS))
    chosen = {"alone": ALONE} | {name: METHODS[name] for name in methods}
    for name, value in (("seeds", seeds), ("epochs", epochs), ("student_width", student_width)):
        checks.at_least(name, value, 1)
    start = time.perf_counter()
    # Networks this small gain nothing from a second thread, and with one the numbers do not depend on the cores.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = Path(out)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    config = {
        "seeds": seeds,
        "labels_per_class": labels_per_class,
        "student_width": student_width,
        "epochs": epochs,
        "teacher_width": TEACHER_WIDTH,
        "teacher_epochs": TEACHER_EPOCHS,
        "weights": {name: method.weights for name, method in chosen.items()},
    }
    with _progress(progress) as bars:
        teacher, teacher_result = _teacher(bars, folder)
        runs = [
            _student(bars, folder, teacher, name, method, seed, labels_per_class, student_width, epochs)
            for name, method in chosen.items()
            for seed in range(seeds)
        ]
    torch.set_num_threads(threads)
    table = rows(teacher_result, runs)
    _print(table)
    _keep(folder, config, runs, teacher_result)
    pages = {method.title: _page(folder, name, method).name for name, method in chosen.items() if name != "alone"}
    write_report(folder, config, table, runs, pages)
    print(f"{time.perf_counter() - start:.0f} s; open {folder / 'report.html'} in a browser")


def _page(folder: Path, name: str, method: Method) -> Path:
    """The page that looks into a method's first seed."""
    return write_page(load_all(folder / SNAPSHOTS / name), folder / f"inspect_{name}.html", title=method.title)


class _Tick(Callback):
    """Moves a progress bar by one per epoch, with the accuracy on the validation images."""

    def __init__(self, bars: Progress, task: TaskID) -> None:
        self.bars, self.task = bars, task

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        accuracy = float(trainer.callback_metrics["val/accuracy"])
        self.bars.update(self.task, advance=1, note=f"validation {100 * accuracy:5.1f} %")


def _progress(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        disable=not shown,
    )


def _tick(bars: Progress, title: str, epochs: int) -> _Tick:
    return _Tick(bars, bars.add_task(title, total=epochs, note=""))


def _teacher(bars: Progress, folder: Path) -> tuple[nn.Module, Result]:
    seed_everything(0, verbose=False)
    teacher = SmallCNN(TEACHER_WIDTH)
    tick = _tick(bars, f"teacher, {TEACHER_WIDTH} channels", TEACHER_EPOCHS)
    result = train_teacher(
        teacher, DigitsData(), epochs=TEACHER_EPOCHS, seed=0, callbacks=(tick,), enable_progress_bar=False
    )
    kept.write(folder / "checkpoints" / "teacher.pt", teacher.state_dict())
    return teacher, result


def _student(
    bars: Progress,
    folder: Path,
    teacher: nn.Module,
    name: str,
    method: Method,
    seed: int,
    labels: int,
    width: int,
    epochs: int,
) -> Run:
    seed_everything(seed, verbose=False)
    student = SmallCNN(width)
    distiller = Distiller(
        student,
        teacher,
        student_features=FEATURES,
        teacher_features=FEATURES,
        criteria=method.criteria(teacher),
        weights=method.weights,
    )
    looks = [SaveSnapshots(folder / SNAPSHOTS / name)] if distiller.criteria and seed == 0 else []
    result, history = run(
        distiller,
        DigitsData(labels, seed=seed, with_index=True),
        epochs=epochs,
        seed=seed,
        callbacks=(_tick(bars, f"{method.title}, seed {seed}", epochs), *looks),
        enable_progress_bar=False,
    )
    kept.write(folder / "checkpoints" / f"student_{name}_seed{seed}.pt", student.state_dict())
    return Run(name, method.title, seed, result, history, distiller)


def _print(table: list[tuple[str, ...]]) -> None:
    shown = Table(title="test images, last epoch; mean ± standard deviation over seeds")
    for column in COLUMNS:
        shown.add_column(column, justify="left" if column == COLUMNS[0] else "right")
    for row in table:
        shown.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(shown)


def _keep(folder: Path, config: dict[str, object], runs: list[Run], teacher: Result) -> None:
    record = {
        "config": config,
        "versions": versions(),
        "teacher": asdict(teacher),
        "runs": [
            {"method": run.method, "seed": run.seed, **asdict(run.result), "curves": run.history.curves} for run in runs
        ],
    }
    (folder / "results.json").write_text(json.dumps(record, indent=1))
