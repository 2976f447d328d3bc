"""The methods that there are, as their recipes' docstrings tell of them: one list, of which all others are made."""

import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from graphkd import losses
from graphkd.loss import Criterion

FIELDS = ("Needs", "Pairing", "Cost", "Terms", "Extra parameters", "Equal to")
"""What a recipe's docstring says of it, a line each, in this order."""

NO_PAPER = "A method of this library, without a paper of its own"
"""What stands in the place of the paper where there is none."""

COLUMNS = ("call", "paper", "what is compared", "needs", "pairing", "cost of a step", "learns, and drops", "equal to")
"""The header of :func:`as_markdown`."""


@dataclass(frozen=True)
class Method:
    """A recipe in :mod:`graphkd.losses`, described.

    Attributes:
        name: Of its function.
        title: Its full name, such as ``Knowledge distillation (KD)``.
        compares: What it compares, in a line.
        paper: Authors, title, venue, year, arXiv number; or that there is none.
        needs: Features that it reads.
        pairing: Whether it knows which student's sample is which teacher's: ``used`` or ``ignored``, perhaps by part.
        cost: Of a step.
        terms: Their names.
        extra_parameters: What it learns, and is dropped after training.
        equal_to: What it was compared with in its test.
    """

    name: str
    title: str
    compares: str
    paper: str
    needs: str
    pairing: str
    cost: str
    terms: str
    extra_parameters: str
    equal_to: str

    @property
    def cited(self) -> str:
        """The paper without its title: authors, venue and year, arXiv number; ``ours`` where there is none."""
        if self.paper == NO_PAPER:
            return "ours"
        return re.sub(r',? "[^"]*",?', ",", self.paper).rstrip(",")


def methods() -> list[Method]:
    """All recipes, ordered by name.

    Raises:
        ValueError: For a docstring that lacks what a method is to say.

    >>> next(method.paper for method in methods() if method.name == "crd")
    'Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv:1910.10699'
    """
    names = sorted(module.name for module in pkgutil.iter_modules(losses.__path__) if not module.name.startswith("_"))
    return [described(getattr(losses, name)) for name in names]


def described(recipe: Callable[..., Criterion]) -> Method:
    """A recipe as its own docstring, and that of its module, tell of it.

    >>> described(losses.otgd).pairing
    'used, as the target'
    """
    title, compares, paper = _introduced(inspect.getdoc(inspect.getmodule(recipe)) or "", recipe.__name__)
    text = inspect.getdoc(recipe) or ""
    fields = "|".join(FIELDS)
    found = re.findall(rf"^({fields}): (.*?)(?=^(?:{fields}): |\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    said = {name: _one_line(value).rstrip(".") for name, value in found}
    missing = [name for name in FIELDS if name not in said]
    if missing:
        raise ValueError(f"the docstring of {recipe.__name__} needs lines '{FIELDS[0]}: ...', got none of {missing}")
    return Method(recipe.__name__, title, compares, paper, *(said[name] for name in FIELDS))


def as_markdown() -> str:
    """The methods as a table in Markdown.

    >>> as_markdown().splitlines()[0]
    '| call | paper | what is compared | needs | pairing | cost of a step | learns, and drops | equal to |'
    """
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for method in methods():
        paper = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", method.cited)
        facts = method.needs, method.pairing, method.cost, method.extra_parameters, method.equal_to
        rows.append((f"`losses.{method.name}`", paper, method.compares, *(fact.replace("``", "`") for fact in facts)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def show_methods(markdown: bool = False) -> None:
    """Print the methods that there are: paper, needs, pairing, cost and extra parameters of each.

    n samples, d features, c classes or channels, h w positions, K negatives, N samples of the data set.

    Args:
        markdown: As the table of the README.
    """
    if markdown:
        print(as_markdown())
        return
    found, lines = methods(), []
    indent = max(len(method.name) for method in found) + 2
    for method in found:
        facts = {
            "needs": method.needs,
            "pairing": method.pairing,
            "cost": method.cost,
            "extra parameters": method.extra_parameters,
        }
        said = "; ".join(f"{name}: {fact}" for name, fact in facts.items()).replace("``", "")
        for i, line in enumerate((f"{method.title}: {method.compares}", method.cited, said)):
            start = (method.name if i == 0 else "").ljust(indent)
            lines += textwrap.wrap(line, 120, initial_indent=start, subsequent_indent=" " * indent)
    print("\n".join(lines))


def _introduced(text: str, name: str) -> tuple[str, str, str]:
    """Title, what is compared, and the paper, from a module's docstring."""
    summary, _, rest = text.partition("\n\n")
    title, separator, compares = _one_line(summary).partition(": ")
    sentence = re.match(r"(.*?(?:arXiv:\d{4}\.\d{4,5}|\d{4}|own))\.(?:\s|$)", _one_line(rest.partition("\n\n")[0]))
    if not separator or sentence is None:
        raise ValueError(
            f"the docstring of graphkd/losses/{name}.py needs a first line 'Name: what is compared.', then a paragraph "
            f"that begins with the paper, got {text!r}"
        )
    return title, compares.rstrip("."), sentence[1]


def _one_line(text: str) -> str:
    return " ".join(text.split())
