"""The command ``graphkd``."""

import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from lightning import seed_everything

import graphkd
from graphkd.benchmark.ot import SECTIONS, benchmark_ot
from graphkd.benchmark.step import benchmark_step
from graphkd.demo import METHODS, demo
from graphkd.methods import show_methods
from graphkd.training.class_cost import save_class_cost
from graphkd.training.fit import CONFIG, LAST
from graphkd.training.inspect import inspect
from graphkd.training.run import train


@dataclass(frozen=True)
class Command:
    """A function that is a command: its parameters are the options, their descriptions the help.

    Attributes:
        name: As it is typed after ``graphkd``; the first word of two is a group of commands.
        function: What it runs.
        summary: In a line.
        example: What stands at the end of its help.
        options: Parameters that are not simply ``--name VALUE``, with what jsonargparse has to know of them.
        positional: Whether parameters without a default are given without their names.
        expand: Rewrites the arguments that come after the name, before they are read.
        start: Calls the function with the options chosen, where there is more to do than that; what it returns is
            printed.
    """

    name: str
    function: Callable[..., Any]
    summary: str
    example: str = ""
    options: Mapping[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    positional: bool = False
    expand: Callable[[list[str]], list[str]] = list
    start: Callable[[ArgumentParser, Namespace], str] | None = None

    def parser(self) -> ArgumentParser:
        """What reads the command's options."""
        described = f"{self.summary[0].upper()}{self.summary[1:]}."
        parser = ArgumentParser(description=described, epilog=self.example or None, formatter_class=_Formatter)
        parser.add_argument(
            "--config", action="config", help="a YAML file with these options; options that come after it win"
        )
        parser.add_function_arguments(
            self.function,
            as_positional=self.positional,
            skip={name.replace("-", "_") for name in self.options},
            fail_untyped=False,
        )
        for name, how in self.options.items():
            parser.add_argument(f"--{name}", **how)
        return parser

    def run(self, parser: ArgumentParser, chosen: Namespace) -> int:
        """Run the command with the options chosen; returns the exit status."""
        try:
            if self.start is None:
                self.function(**_arguments(parser, chosen))
            else:
                print(self.start(parser, chosen))
        except (KeyboardInterrupt, SystemExit):
            print(f"graphkd: interrupted; {self._how_to_go_on(chosen)}", file=sys.stderr)
            return 130
        except BrokenPipeError:
            # Whoever read the output, such as `head`, had enough; what is left must not fail when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0

    def _how_to_go_on(self, chosen: Namespace) -> str:
        if "resume" in self.options and (Path(chosen.out) / LAST).exists():
            return f"go on with: graphkd {self.name} --resume {chosen.out}"
        return "nothing to resume yet, start it again"


class _Formatter(DefaultHelpFormatter):
    """Help without the list of every class that torch happens to know."""

    def _expand_help(self, action: Any) -> str:
        return re.sub(r",\s*known subclasses:[^)]*", "", super()._expand_help(action))


def _arguments(parser: ArgumentParser, chosen: Namespace) -> dict[str, Any]:
    """The function's arguments, with what is named by its import path built."""
    return {name: value for name, value in vars(parser.instantiate(chosen)).items() if name != "config"}


def _resumed(arguments: list[str]) -> list[str]:
    """Replace ``--resume RUN`` by the run's own config and folder."""
    arguments = [part for argument in arguments for part in re.split(r"(?<=^--resume)=", argument, maxsplit=1)]
    if "--resume" not in arguments:
        return arguments
    at = arguments.index("--resume")
    if at + 1 == len(arguments) or arguments[at + 1].startswith("-"):
        return arguments
    folder = Path(arguments[at + 1])
    _require_config(folder)
    rest = arguments[:at] + arguments[at + 2 :]
    return ["--config", str(folder / CONFIG), *rest, "--out", str(folder), "--resume"]


def _train(parser: ArgumentParser, chosen: Namespace) -> str:
    """Keep the config in the run's folder, and train from it."""
    options = chosen.clone()
    resume = bool(options.pop("resume"))
    _keep_config(parser, options, resume)
    seed_everything(options.seed, verbose=False)
    result = train(**_arguments(parser, options), resume=resume)
    return f"test accuracy {100 * result.accuracy:.2f} %, kept in {options.out}"


def _inspect(parser: ArgumentParser, chosen: Namespace) -> str:
    """Say where the page is."""
    return f"open {inspect(**_arguments(parser, chosen))} in a browser"


def _class_cost(parser: ArgumentParser, chosen: Namespace) -> str:
    """Say between which bounds the costs are."""
    seed_everything(chosen.seed, verbose=False)
    cost = save_class_cost(**_arguments(parser, chosen))
    apart = cost[~torch.eye(len(cost), dtype=torch.bool, device=cost.device)]
    return f"{len(cost)} classes, {float(apart.min()):.3f} to {float(apart.max()):.3f} apart, kept in {chosen.out}"


def _keep_config(parser: ArgumentParser, options: Namespace, resume: bool) -> None:
    folder = Path(options.out)
    if resume:
        _require_config(folder)
    elif options.overwrite or not (folder / LAST).exists():
        folder.mkdir(parents=True, exist_ok=True)
        kept = options.clone()
        kept.pop("config", None)
        kept.overwrite = False
        (folder / CONFIG).write_text(parser.dump(kept))


def _require_config(folder: Path) -> None:
    if not (folder / CONFIG).exists():
        raise ValueError(f"--resume needs the folder of a run, with a {CONFIG}, got {folder}")


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

COMMANDS = [
    Command(
        "demo",
        demo,
        "distil a digits classifier in a minute and write a report",
        "Example: graphkd demo --methods kd fgw --seeds 10",
        options={
            "methods": {
                "nargs": "+",
                "default": ["kd", "otgd"],
                "help": f"of {', '.join(METHODS)}, beside the student alone",
            }
        },
    ),
    Command(
        "train",
        train,
        "train a student from a config file",
        "Example: graphkd train --config examples/configs/digits/otgd.yaml --epochs 10 --criteria.otgd.init_args.k 4. "
        "Models, data and criteria are named by their import path (class_path) with their arguments (init_args); the "
        "configs in examples/configs show how.",
        options={"resume": RESUME, "plots": PLOTS, "auto-weights": AUTO_WEIGHTS},
        expand=_resumed,
        start=_train,
    ),
    Command(
        "inspect",
        inspect,
        "show what a run compared: plans, graphs and numbers over its training, as one page",
        "Example: graphkd inspect runs/digits/otgd --out report.html",
        positional=True,
        start=_inspect,
    ),
    Command(
        "class-cost",
        save_class_cost,
        "relate a teacher's classes, for WKD-L",
        "Example: graphkd class-cost --config examples/configs/digits/class_cost.yaml. The file is what a config of "
        "graphkd.losses.wkd_logits names as class_cost.",
        start=_class_cost,
    ),
    Command(
        "methods",
        show_methods,
        "list the methods: paper, needs, pairing, cost, extra parameters",
        "Example: graphkd methods",
        options={"markdown": {"action": "store_true", "help": "As the table of the README."}},
    ),
    Command(
        "benchmark step",
        benchmark_step,
        "time a criterion's step against the student's own",
        "Example: graphkd benchmark step --batch_size 128 --rounds 50",
    ),
    Command(
        "benchmark ot",
        benchmark_ot,
        "time transport solvers against those of other libraries (pip install graphkd[bench])",
        "Example: graphkd benchmark ot --sections sinkhorn batch --rounds 10 --out ot.json",
        options={
            "sections": {"nargs": "+", "default": list(SECTIONS), "help": f"of {', '.join(SECTIONS)}; all by default"},
            "sizes": {
                "nargs": "+",
                "type": int,
                "help": "nodes (in shared: samples, in step: the batch size) instead of each section's own",
            },
        },
    ),
]

GROUPS = {"benchmark": "time what graphkd does"}
"""The first words of commands with two."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 2 for a caller's mistake, 130 for an interrupt."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    parsers = {command.name: command.parser() for command in COMMANDS}
    parser = _parser(parsers)
    try:
        config = parser.parse_args(_expanded(list(sys.argv[1:] if arguments is None else arguments)))
        for command in COMMANDS:
            chosen = _chosen(command, config)
            if chosen is not None:
                return command.run(parsers[command.name], chosen)
    except (ValueError, KeyError) as error:
        print(f"graphkd: error: {error.args[0]}", file=sys.stderr)
        return 2
    parser.print_help()
    return 0


def _parser(parsers: Mapping[str, ArgumentParser]) -> ArgumentParser:
    """All commands, those of a group behind its name."""
    parser = ArgumentParser(
        prog="graphkd",
        description="Distil one network into another through graphs and optimal transport.",
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"graphkd {graphkd.__version__}")
    commands = parser.add_subcommands(required=False, metavar="COMMAND")
    groups = {}
    for command in COMMANDS:
        *group, name = command.name.split()
        if group and group[0] not in groups:
            summary = GROUPS[group[0]]
            members = ArgumentParser(description=f"{summary[0].upper()}{summary[1:]}.", formatter_class=_Formatter)
            commands.add_subcommand(group[0], members, help=summary)
            groups[group[0]] = members.add_subcommands(required=True, metavar="WHAT")
        (groups[group[0]] if group else commands).add_subcommand(name, parsers[command.name], help=command.summary)
    return parser


def _expanded(arguments: list[str]) -> list[str]:
    for command in COMMANDS:
        words = command.name.split()
        if arguments[: len(words)] == words:
            return words + command.expand(arguments[len(words) :])
    return arguments


def _chosen(command: Command, config: Namespace) -> Namespace | None:
    """The command's own options, where it is the one that was called."""
    for word in command.name.split():
        if config.subcommand != word:
            return None
        config = config[word]
    return config
