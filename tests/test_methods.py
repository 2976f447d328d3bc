"""The list of methods: what docstrings say, and that all lists are made of it."""

import pkgutil
import re
from types import FunctionType, ModuleType

import pytest
from test_contract import build

from graphkd import losses, methods
from graphkd.methods import FIELDS, NO_PAPER, Method, as_markdown, described, show_methods

ALL = methods.methods()


def test_each_file_is_a_method_in_order():
    files = [module.name for module in pkgutil.iter_modules(losses.__path__) if not module.name.startswith("_")]
    assert [method.name for method in ALL] == sorted(files)
    assert len(ALL) > 20


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_each_says_what_a_list_shows(method: Method):
    assert all(re.search(r"\w", value) for value in vars(method).values())
    assert re.match(r"used|ignored", method.pairing)
    assert re.search(r"``(feat|logits|map|tokens)``", method.needs)
    assert re.search(r"arXiv:\d{4}\.\d{4,5}$|(19|20)\d\d$", method.paper) or method.paper == NO_PAPER
    assert '"' not in method.cited
    assert "|" not in "".join(vars(method).values())


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_terms_are_those_that_it_has(method: Method):
    terms = re.findall(r"``([^`]+)``", method.terms)
    assert build(method.name).terms.keys() <= set(terms)


def example(text: str, module_text: str) -> FunctionType:
    """A recipe with these docstrings."""
    module = ModuleType("graphkd.losses.example", module_text)

    def recipe() -> None: ...

    recipe.__doc__, recipe.__name__, recipe.__module__ = text, "example", module.__name__
    return recipe


FACTS = {name: f"{name.lower()} of it" for name in FIELDS}
MODULE = """Some method (SM): this and that, compared.

Doe, Roe, "A Title, with a comma", ICLR 2020, arXiv:2001.00001. More.
"""


def text(facts: dict[str, str], before: str = "A method.\n\n", after: str = "\n\nMore: this.") -> str:
    return before + "\n".join(f"{name}: {value}." for name, value in facts.items()) + after


@pytest.fixture
def of(monkeypatch: pytest.MonkeyPatch):
    def read(recipe_text: str, module_text: str = MODULE) -> Method:
        monkeypatch.setattr("inspect.getmodule", lambda recipe: ModuleType("example", module_text))
        return described(example(recipe_text, module_text))

    return read


def test_a_docstring_is_read_field_by_field(of):
    method = of(text(FACTS | {"Cost": "n²\nand a line more"}))
    assert (method.title, method.compares) == ("Some method (SM)", "this and that, compared")
    assert method.paper == 'Doe, Roe, "A Title, with a comma", ICLR 2020, arXiv:2001.00001'
    assert method.cited == "Doe, Roe, ICLR 2020, arXiv:2001.00001"
    assert (method.needs, method.cost, method.equal_to) == ("needs of it", "n² and a line more", "equal to of it")


def test_a_method_of_our_own_is_cited_as_ours(of):
    assert of(text(FACTS), f"Ours: it.\n\n{NO_PAPER}. It builds on others.").cited == "ours"


@pytest.mark.parametrize("missing", FIELDS)
def test_a_docstring_that_lacks_a_line_is_refused(of, missing: str):
    with pytest.raises(ValueError, match=rf"docstring of example needs lines .* got none of \['{missing}'\]"):
        of(text({name: value for name, value in FACTS.items() if name != missing}))


@pytest.mark.parametrize("module_text", ["No colon\n\nDoe, ICLR 2020.", "Name: it.\n\nNo paper at all.", "Name: it."])
def test_a_module_that_does_not_say_what_it_is_is_refused(of, module_text: str):
    with pytest.raises(ValueError, match="example.py needs a first line 'Name: what is compared.'"):
        of(text(FACTS), module_text)


def test_the_markdown_has_a_row_for_each_and_links_its_paper():
    header, rule, *rows = as_markdown().splitlines()
    assert [re.match(r"\| `losses\.(\w+)` \|", row)[1] for row in rows] == [method.name for method in ALL]
    assert len({line.count("|") for line in (header, rule, *rows)}) == 1
    (crd,) = (row for row in rows if "`losses.crd`" in row)
    assert "Tian, Krishnan, Isola, ICLR 2020, [arXiv:1910.10699](https://arxiv.org/abs/1910.10699)" in crd
    assert "``" not in "".join(rows)


def test_they_are_shown_as_a_table_or_as_markdown(capsys: pytest.CaptureFixture[str]):
    show_methods()
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    for method in ALL:
        assert method.name in shown
    assert "``" not in shown
    show_methods(markdown=True)
    assert capsys.readouterr().out.strip() == as_markdown()
