"""Commands that make runs and read them: the config that a run keeps, how it goes on, what is said in the end."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning import seed_everything

from graphkd.cli.command import arguments_of
from graphkd.training.class_cost import save_class_cost
from graphkd.training.evaluation import evaluate_student
from graphkd.training.export import export_student
from graphkd.training.folder import CONFIG, LAST, write_text
from graphkd.training.inspect import inspect
from graphkd.training.save_teacher import save_teacher, weights_of
from graphkd.training.train import train

PLOTS: dict[str, Any] = {
    "metavar": "STEPS",
    "nargs": "?",
    "type": int | Literal["epoch"] | None,
    "const": "epoch",
    "default": None,
    "help": "Look at what the criteria compare, every so many steps or after every epoch: snapshots in the run's "
    "folder, and in the end inspect.html, a page that shows them; with a TensorBoard logger, images too.",
}
"""An option with or without a value, kept in the run's config."""

AUTO_WEIGHTS: dict[str, Any] = {
    "metavar": "RATIO",
    "nargs": "?",
    "type": float | None,
    "const": 1.0,
    "default": None,
    "help": "Set weights for the criteria that --weights leaves out, so that each pulls at the student's features "
    "RATIO times as hard as the task, 1 if omitted. Measured once before training, and kept in weights.json.",
}
"""An option with or without a value, kept in the run's config."""

RESUME: dict[str, Any] = {
    "metavar": "RUN",
    "nargs": "?",
    "const": True,
    "default": False,
    "help": "Go on with the run in a folder, from its last checkpoint and with its own config, to the numbers of an "
    "uninterrupted run. Without a folder: the one that the config's 'out' names.",
}
"""An option with or without a value."""


def resumed(arguments: list[str]) -> list[str]:
    """Replace ``--resume RUN`` by the run's own config and folder."""
    arguments = [part for argument in arguments for part in re.split(r"(?<=^--resume)=", argument, maxsplit=1)]
    if "--resume" not in arguments:
        return arguments
    at = arguments.index("--resume")
    if at + 1 == len(arguments) or arguments[at + 1].startswith("-"):
        if not any(argument.startswith("--config") for argument in arguments):
            raise ValueError("--resume needs the folder of a run, or a --config whose 'out' is one, got neither")
        return arguments
    folder = Path(arguments[at + 1])
    _require_config(folder)
    rest = arguments[:at] + arguments[at + 2 :]
    return ["--config", str(folder / CONFIG), *rest, "--out", str(folder), "--resume"]


def start_train(parser: ArgumentParser, chosen: Namespace) -> str:
    """Keep the config in the run's folder, and train from it."""
    options = chosen.clone()
    resume = bool(options.pop("resume"))
    with kept_config(parser, options, resume):
        seed_everything(options.seed, verbose=False)
        result = train(**arguments_of(parser, options), resume=resume)
    return f"test accuracy {100 * result.accuracy:.2f} %, kept in {options.out}"


def start_train_teacher(parser: ArgumentParser, chosen: Namespace) -> str:
    """Keep the config in the run's folder, and train from it."""
    options = chosen.clone()
    resume = bool(options.pop("resume"))
    with kept_config(parser, options, resume):
        seed_everything(options.seed, verbose=False)
        result = save_teacher(**arguments_of(parser, options), resume=resume)
    return f"test accuracy {100 * result.accuracy:.2f} %, weights in {weights_of(options.out)}"


def start_evaluate(parser: ArgumentParser, chosen: Namespace) -> str:
    """Say what the student is worth."""
    found = evaluate_student(**arguments_of(parser, chosen))
    accuracy = f"{chosen.split} accuracy {100 * found.accuracy:.2f} %"
    return f"{accuracy} on {found.samples} samples, {found.per_second:,.0f} a second"


def start_export(parser: ArgumentParser, chosen: Namespace) -> str:
    """Say where the file is."""
    found = export_student(**arguments_of(parser, chosen))
    checked = f"its logits are within {found.difference:.1e} of the student's"
    return f"{found.parameters:,} parameters in {found.path}; {checked}"


def start_inspect(parser: ArgumentParser, chosen: Namespace) -> str:
    """Say where the page is."""
    return f"open {inspect(**arguments_of(parser, chosen))} in a browser"


def start_class_cost(parser: ArgumentParser, chosen: Namespace) -> str:
    """Say between which bounds the costs are."""
    seed_everything(chosen.seed, verbose=False)
    cost = save_class_cost(**arguments_of(parser, chosen))
    apart = cost[~torch.eye(len(cost), dtype=torch.bool, device=cost.device)]
    return f"{len(cost)} classes, {float(apart.min()):.3f} to {float(apart.max()):.3f} apart, kept in {chosen.out}"


@contextmanager
def kept_config(parser: ArgumentParser, options: Namespace, resume: bool) -> Iterator[None]:
    """Keep the config in the run's folder, the one that it goes on with too; not if it turns out to be a mistake."""
    path = Path(options.out) / CONFIG
    last = path.parent / LAST
    if resume:
        _require_config(path.parent)
    elif last.exists() and not options.overwrite:
        yield
        return
    before, checkpoint = path.read_text() if path.exists() else None, _changed(last)
    kept = options.clone()
    kept.pop("config", None)
    kept.overwrite = False
    write_text(path, parser.dump(kept))
    try:
        yield
    except (ValueError, KeyError):
        # Where training had begun, what is in the folder is the new config's.
        if before is not None and _changed(last) == checkpoint:
            write_text(path, before)
        raise


def _changed(path: Path) -> int | None:
    """When a file was last written; None if it is not there."""
    return path.stat().st_mtime_ns if path.exists() else None


def _require_config(folder: Path) -> None:
    if not (folder / CONFIG).exists():
        raise ValueError(f"--resume needs the folder of a run, with a {CONFIG}, got {folder}")
