"""The command ``graphkd``."""

import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from lightning import seed_everything

import graphkd
from graphkd.benchmark.step import benchmark_step
from graphkd.demo import demo
from graphkd.training.fit import LAST
from graphkd.training.run import train

CONFIG = "config.yaml"
"""The config's name in a run's folder."""

EXAMPLES = {
    "train": "Example: graphkd train --config examples/configs/digits/otgd.yaml --epochs 10 "
    "--criteria.otgd.init_args.k 4. Models, data and criteria are named by their import path (class_path) with their "
    "arguments (init_args); the configs in examples/configs show how.",
    "benchmark": "Example: graphkd benchmark step --batch_size 128 --rounds 50",
}
"""What stands at the end of a command's help."""

RESUME_HELP = """Go on with the run in a folder, from its last checkpoint and with its own config, to the numbers of an
uninterrupted run. Without a folder: the one that the config's 'out' names."""


class _Formatter(DefaultHelpFormatter):
    """Help without the list of every class that torch happens to know."""

    def _expand_help(self, action: Any) -> str:
        return re.sub(r",\s*known subclasses:[^)]*", "", super()._expand_help(action))


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 2 for a caller's mistake, 130 for an interrupt."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    parser, functions = _parser()
    try:
        arguments = _resumed(list(sys.argv[1:] if arguments is None else arguments))
        config = parser.parse_args(arguments)
        if config.subcommand is None:
            parser.print_help()
            return 0
        return _run(functions, config)
    except (ValueError, KeyError) as error:
        print(f"graphkd: error: {error.args[0]}", file=sys.stderr)
        return 2


def _parser() -> tuple[ArgumentParser, dict[str, tuple[ArgumentParser, Callable[..., Any]]]]:
    parser = ArgumentParser(
        prog="graphkd",
        description="Distil one network into another through graphs and optimal transport.",
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"graphkd {graphkd.__version__}")
    commands = parser.add_subcommands(required=False, metavar="COMMAND")
    functions = {}
    described = {
        "demo": (demo, "distil a digits classifier in a minute and write a report"),
        "train": (train, "train a student from a config file"),
        "benchmark": (benchmark_step, "time a criterion's step against the student's own"),
    }
    for name, (function, summary) in described.items():
        sub = ArgumentParser(
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=EXAMPLES.get(name),
            formatter_class=_Formatter,
        )
        if name == "benchmark":
            sub.add_argument("what", choices=["step"], help="step: forward and backward of one training step")
        sub.add_argument("--config", action="config", help="a YAML file with these options")
        sub.add_function_arguments(function, skip={"resume"} if name == "train" else None, fail_untyped=False)
        if name == "train":
            sub.add_argument("--resume", metavar="RUN", nargs="?", const=True, default=False, help=RESUME_HELP)
        commands.add_subcommand(name, sub, help=summary)
        functions[name] = (sub, function)
    return parser, functions


def _resumed(arguments: list[str]) -> list[str]:
    """Replace ``train --resume RUN`` by the run's own config and folder."""
    arguments = [part for argument in arguments for part in re.split(r"(?<=^--resume)=", argument, maxsplit=1)]
    if arguments[:1] != ["train"] or "--resume" not in arguments:
        return arguments
    at = arguments.index("--resume")
    if at + 1 == len(arguments) or arguments[at + 1].startswith("-"):
        return arguments
    folder = Path(arguments[at + 1])
    if not (folder / CONFIG).exists():
        raise ValueError(f"--resume needs the folder of a run, with a {CONFIG}, got {folder}")
    rest = arguments[1:at] + arguments[at + 2 :]
    return ["train", "--config", str(folder / CONFIG), *rest, "--out", str(folder), "--resume"]


def _run(functions: dict[str, Any], config: Namespace) -> int:
    name = config.subcommand
    sub, function = functions[name]
    chosen = config[name].clone()
    resume = bool(chosen.pop("resume", False))
    if name == "train":
        _keep_config(sub, chosen, resume)
        seed_everything(chosen.seed, verbose=False)
    built = sub.instantiate(chosen)
    options = {key: value for key, value in vars(built).items() if key not in ("config", "what")}
    if name == "train":
        options["resume"] = resume
    try:
        result = function(**options)
    except (KeyboardInterrupt, SystemExit):
        print(f"graphkd: interrupted; {_how_to_go_on(name, chosen)}", file=sys.stderr)
        return 130
    if name == "train":
        print(f"test accuracy {100 * result.accuracy:.2f} %, kept in {chosen.out}")
    return 0


def _how_to_go_on(name: str, chosen: Namespace) -> str:
    if name == "train" and (Path(chosen.out) / LAST).exists():
        return f"go on with: graphkd train --resume {chosen.out}"
    return "nothing to resume yet, start it again"


def _keep_config(sub: ArgumentParser, chosen: Namespace, resume: bool) -> None:
    folder = Path(chosen.out)
    if resume and not (folder / CONFIG).exists():
        raise ValueError(f"--resume needs the folder of a run, with a {CONFIG}, got {folder}")
    if not resume and (chosen.overwrite or not (folder / LAST).exists()):
        folder.mkdir(parents=True, exist_ok=True)
        kept = chosen.clone()
        kept.pop("config", None)
        kept.overwrite = False
        (folder / CONFIG).write_text(sub.dump(kept))
