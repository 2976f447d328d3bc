"""README.md runs, its links lead somewhere, its table is that of the methods, and a loss is added as it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from graphkd.methods import as_markdown

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


@pytest.mark.slow
def test_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert python_blocks(), "README.md has no ```python block"
    namespace = {"__name__": "__main__"}
    own_test = added_loss()
    for block in python_blocks():
        if block.lstrip("\n") in own_test:
            continue
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


def test_table_of_methods_is_made_of_their_docstrings():
    assert as_markdown() in text(), "put what `graphkd methods --markdown` prints into README.md"


def added_loss() -> tuple[str, str]:
    """The two blocks of the section on adding a loss: the file and its test."""
    section = text().split("## Add a loss")[1].split("\n## ")[0]
    module, test = re.findall(r"^```python\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)
    return module, test


AS_IF_IN_THE_PACKAGE = """
import sys
import pytest
from graphkd import losses, methods
losses.__path__.append(sys.argv[1])
from graphkd.losses.soft_neighbours import soft_neighbours
losses.soft_neighbours = soft_neighbours
assert "`losses.soft_neighbours`" in methods.as_markdown()
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", sys.argv[2], *sys.argv[3:]]))
"""


def test_a_loss_takes_one_file_and_one_test(tmp_path: Path):
    (tmp_path / "losses").mkdir()
    module, test = added_loss()
    (tmp_path / "losses" / "soft_neighbours.py").write_text(module)
    (tmp_path / "test_soft_neighbours.py").write_text(test)
    root = README.parent
    which = str(tmp_path / "test_soft_neighbours.py"), str(root / "tests" / "test_contract.py"), "-k", "soft_neighbours"
    run = subprocess.run(
        [sys.executable, "-c", AS_IF_IN_THE_PACKAGE, str(tmp_path / "losses"), str(root), *which],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    passed = int(re.search(r"(\d+) passed", run.stdout)[1])
    assert passed > 20
    assert "skipped" not in run.stdout
