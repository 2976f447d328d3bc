"""What runs came to, in a file that is only ever added to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphkd import kept
from graphkd.training.record import made_by

Outcome = dict[str, float] | str
"""The numbers of a run, or why it came to no end."""

NUMBERS, FAILED = "numbers", "failed"


class Log:
    """The runs of one setting, a line of JSON for each, below lines that say what the runs after them were made with.

    A run is found again where it was made of the same setting, teacher, method, trial, seed and split. Commit, versions
    and hardware are written down and not compared. A last line that is cut off, as by a full disk, is dropped.

    Args:
        file: Where they are kept; it need not exist.
        made_with: The setting, and what stands for the teacher, as plain values.

    Raises:
        ValueError: For a file with other lines.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log, run = Log(Path(folder, "log"), {"epochs": 3}), {"seed": 0}
    ...     log.add("kd", {"weight": 1}, run, {"score": 50.0})
    ...     again = Log(Path(folder, "log"), {"epochs": 3})
    ...     again.find("kd", {"weight": 1}, run), again.find("kd", {"weight": 2}, run)
    ({'score': 50.0}, None)
    """

    def __init__(self, file: Path, made_with: Mapping[str, Any]) -> None:
        self.file, self.made_with = file, _plain(made_with)
        self._found: dict[str, Outcome] = {}
        self._head: dict[str, Any] = {}
        if not file.exists():
            return
        text = file.read_text()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            kept.write_text(file, whole)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                content = json.loads(line)
                if "made_with" in content:
                    self._head = content
                elif self._head["made_with"] == self.made_with:
                    outcome = content.pop(NUMBERS) if NUMBERS in content else content.pop(FAILED)
                    self._found[_key(**content)] = outcome
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{file} needs runs of this benchmark, got in line {number}: {line[:80]}") from error

    def find(self, method: str, definition: Mapping[str, Any], run: Mapping[str, Any]) -> Outcome | None:
        """What a run came to; None if it was not made."""
        return self._found.get(_key(method, _digest(definition), run))

    def add(self, method: str, definition: Mapping[str, Any], run: Mapping[str, Any], outcome: Outcome) -> None:
        """Write down what a run came to."""
        line = {"method": method, "definition": _digest(definition), "run": _plain(run)}
        line[FAILED if isinstance(outcome, str) else NUMBERS] = outcome
        head = _plain({"made_with": self.made_with, **made_by()})
        lines = [line] if head == self._head else [head, line]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as stream:
            stream.write("".join(json.dumps(each) + "\n" for each in lines))
        self._head = head
        self._found[_key(method, line["definition"], run)] = outcome


def _plain(content: Mapping[str, Any]) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(content))


def _digest(definition: Mapping[str, Any]) -> str:
    return kept.digest(json.dumps(definition, sort_keys=True))


def _key(method: str, definition: str, run: Mapping[str, Any]) -> str:
    return json.dumps([method, definition, run], sort_keys=True)
