"""Text that every Python has: the first paragraphs of the docstrings that are installed."""

import ast
from collections.abc import Sequence
from pathlib import Path
from sysconfig import get_path

ELSEWHERE = {"site-packages", "dist-packages", "test", "tests"}
"""Folders that are passed over."""

FEWEST_WORDS = 4


def docstrings(packages: Sequence[str] = ()) -> dict[str, str]:
    """First paragraphs of docstrings, of the standard library and of packages, each with its file.

    Files are only read, nothing is imported. A paragraph of fewer than four words is left out, and one that is there
    several times has its first file.

    Args:
        packages: Folders in ``site-packages`` to read beside the standard library; one that is not there has none.

    >>> len(docstrings()) > 1000
    True
    """
    found: dict[str, str] = {}
    for root in (Path(get_path("stdlib")), *(Path(get_path("purelib"), name) for name in packages)):
        for file in sorted(path.relative_to(root) for path in root.rglob("*.py")):
            if not ELSEWHERE & set(file.parts):
                for text in _first_paragraphs(root / file):
                    found.setdefault(text, file.as_posix())
    return found


def _first_paragraphs(file: Path) -> list[str]:
    documented = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, documented)]
    words = [(ast.get_docstring(node) or "").split("\n\n")[0].split() for node in nodes]
    return [" ".join(each) for each in words if len(each) >= FEWEST_WORDS]
