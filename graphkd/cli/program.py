"""From the words after ``graphkd`` to a command that runs."""

import logging
import sys
from argparse import ArgumentError
from collections.abc import Mapping

from jsonargparse import ArgumentParser, Namespace

import graphkd
from graphkd.cli.command import Command, new_parser
from graphkd.cli.commands import COMMANDS, GROUPS

ABOUT_TYPES = (
    "Does not validate against any of the Union",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Given value type:",
    "Given value: NestedArg",
)
"""How those lines of jsonargparse begin that say nothing to who typed a command."""


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
    except ArgumentError as error:
        print(f"graphkd: error: {_in_a_line(str(error))}", file=sys.stderr)
        return 2
    except (ValueError, KeyError) as error:
        print(f"graphkd: error: {error.args[0]}", file=sys.stderr)
        return 2
    parser.print_help()
    return 0


def _in_a_line(message: str) -> str:
    """What jsonargparse says, without what it tells of its own types."""
    lines = (line.strip(" -") for line in message.replace('Parser key "', 'option "').splitlines())
    return " ".join(line for line in lines if line and not line.startswith(ABOUT_TYPES))


def _parser(parsers: Mapping[str, ArgumentParser]) -> ArgumentParser:
    """All commands, those of a group behind its name."""
    parser = new_parser(
        prog="graphkd", description="Distil one network into another through graphs and optimal transport."
    )
    parser.add_argument("--version", action="version", version=f"graphkd {graphkd.__version__}")
    commands = parser.add_subcommands(required=False, metavar="COMMAND")
    groups = {}
    for command in COMMANDS:
        *group, name = command.name.split()
        if group and group[0] not in groups:
            summary = GROUPS[group[0]]
            members = new_parser(description=f"{summary[0].upper()}{summary[1:]}.")
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
