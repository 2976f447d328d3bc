"""README.md runs, its links lead somewhere, and its table of methods is complete."""

import pkgutil
import re
from pathlib import Path

import pytest

import graphkd.losses

README = Path(__file__).parent.parent / "README.md"


def text() -> str:
    return README.read_text()


def prose() -> str:
    return re.sub(r"^```.*?^```", "", text(), flags=re.DOTALL | re.MULTILINE)


def python_blocks() -> list[str]:
    """Each block, moved down to the line where it stands, so that a traceback names the README's own line."""
    blocks = re.finditer(r"^```python\n(.*?)^```", text(), flags=re.DOTALL | re.MULTILINE)
    return ["\n" * text().count("\n", 0, block.start(1)) + block[1] for block in blocks]


def links() -> list[str]:
    markdown = re.findall(r"\]\(\s*<?([^\s)>]+)", prose())
    html = re.findall(r"\b(?:src|srcset|href)=[\"']([^\"']+)[\"']", prose())
    return [link for link in [*markdown, *html] if not re.match(r"[a-z]+:", link)]


def anchors() -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*?) *$", prose(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def method_rows() -> str:
    return "\n".join(line for line in prose().splitlines() if line.lstrip().startswith("|"))


@pytest.mark.slow
def test_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert python_blocks(), "README.md has no ```python block"
    namespace = {"__name__": "__main__"}
    for block in python_blocks():
        exec(compile(block, str(README), "exec"), namespace)


def test_python_blocks_are_written_in_python():
    assert python_blocks(), "README.md has no ```python block"
    for block in python_blocks():
        compile(block, str(README), "exec")


def test_relative_links_lead_somewhere():
    missing = [
        link
        for link in links()
        if (link[1:] not in anchors() if link.startswith("#") else not (README.parent / link.split("#")[0]).exists())
    ]
    assert not missing


@pytest.mark.parametrize("module", [module.name for module in pkgutil.iter_modules(graphkd.losses.__path__)])
def test_table_of_methods_names_each_loss(module: str):
    if not module.startswith("_"):
        assert re.search(rf"`(?:(?:graphkd\.)?losses\.)?{module}\b[^`]*`", method_rows()), f"no row names `{module}`"
