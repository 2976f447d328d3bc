"""A command: a function, and how its parameters become options."""

import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from lightning.pytorch.utilities import rank_zero_only

from graphkd.training.folder import LAST


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
        parser = new_parser(description=described, epilog=self.example or None)
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
                self.function(**arguments_of(parser, chosen))
            else:
                rank_zero_only(print)(self.start(parser, chosen))
        except (KeyboardInterrupt, SystemExit):  # Lightning makes the first one the second
            print(f"graphkd: interrupted; {self._how_to_go_on(chosen)}", file=sys.stderr)
            return 130
        except BrokenPipeError:
            # Whoever read the output, such as `head`, had enough; what is left must not fail when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except ConnectionError as error:
            print(f"graphkd: error: {error}; {self._how_to_go_on(chosen)}", file=sys.stderr)
            return 1
        return 0

    def _how_to_go_on(self, chosen: Namespace) -> str:
        if "resume" in self.options and (Path(chosen.out) / LAST).exists():
            return f"go on with: graphkd {self.name} --resume {chosen.out}"
        return "nothing to resume yet, start it again"


class Formatter(DefaultHelpFormatter):
    """Help without the list of every class that torch happens to know."""

    def _expand_help(self, action: Any) -> str:
        return re.sub(r",\s*known subclasses:[^)]*", "", super()._expand_help(action))


def new_parser(**how: Any) -> ArgumentParser:
    """One that completes no option's name, and raises what is wrong with the words given instead of ending Python."""
    return ArgumentParser(formatter_class=Formatter, allow_abbrev=False, exit_on_error=False, **how)


def arguments_of(parser: ArgumentParser, chosen: Namespace) -> dict[str, Any]:
    """The function's arguments, with what is named by its import path built.

    Raises:
        ValueError: For what cannot be built, with where it failed.
    """
    try:
        built = parser.instantiate(chosen)
    except (ImportError, RuntimeError, TypeError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename}, line {last.lineno}"
        raise ValueError(f"cannot build what is named: {type(error).__name__}: {error} ({where})") from error
    return {name: value for name, value in vars(built).items() if name != "config"}
