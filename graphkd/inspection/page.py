"""The page: what it shows and how it looks, in one HTML file that needs nothing else."""

import json
import warnings
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from graphkd import checks, kept
from graphkd.inspection import packing
from graphkd.inspection.content import chosen_steps, content
from graphkd.inspection.figures import Drawn, figures
from graphkd.snapshots import Snapshot
from graphkd.typing import Real

WIDE = 9.0
"""Inches from which on a figure has a row of the page to itself."""

HERE = Path(__file__).parent

SCRIPTS = ("data", "marks", "heat", "graphs", "details", "tables", "main")
"""Files of the page's script, in an order in which each uses only those before it."""


def write_page(
    snapshots: Sequence[Snapshot],
    path: str | Path,
    *,
    title: str,
    curves: Mapping[str, Sequence[Real]] | None = None,
    most_steps: int = 12,
    limit_mb: Real = 4,
) -> Path:
    """Write one page to look at a run: a slider over its snapshots moves plans, graphs and numbers.

    The page opens from disk, fetches nothing, and runs no script but its own. All names are taken literally. Plans are
    kept to a percent or better; of more than 200 nodes on a side every so many-th is on the page, which it then says.

    Args:
        snapshots: Of the same samples at several steps of one run.
        path: Of the HTML file, in a folder that exists.
        title: Of the page.
        curves: Numbers that the run logged, by name one per epoch.
        most_steps: How many of the snapshots are on the page, spread evenly, the first and the last among them.
        limit_mb: Size of the file, in millions of bytes, above which further steps are left out, down to two.

    Raises:
        ValueError: For an empty title, no snapshots, those of different samples, layers or terms, for fewer than one
            step and for a limit that is not above zero.

    >>> import tempfile, torch
    >>> from graphkd import Distiller, losses
    >>> from graphkd.probe import Probe
    >>> from graphkd.snapshots import take
    >>> distiller = Distiller(torch.nn.Linear(3, 5), torch.nn.Linear(3, 5), criteria={"kd": losses.kd()})
    >>> snapshot = take(distiller, Probe(torch.randn(6, 3), torch.arange(6) % 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_page([snapshot], Path(folder) / "page.html", title="KD").read_text("utf-8")
    >>> "<h1>KD</h1>" in page
    True
    """
    checks.positive("limit_mb", limit_mb)
    checks.at_least("most_steps", most_steps, 1)
    if not title.strip():
        raise ValueError(f"title needs some text, got {title!r}")
    last = chosen_steps(snapshots, 1)[0]
    with warnings.catch_warnings():
        # A name in letters that matplotlib's fonts lack still stands in the page's own text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawn = "\n".join(_figure(each) for each in figures(last, curves))
    script = "\n".join((HERE / f"{name}.js").read_text("utf-8") for name in SCRIPTS)
    style = (HERE / "page.css").read_text("utf-8")
    frame = (HERE / "page.html").read_text("utf-8")
    room = 1e6 * limit_mb - sum(len(part.encode()) for part in (drawn, script, style, frame))
    data = _fitting(snapshots, min(most_steps, len(snapshots)), room)
    page = Template(frame).substitute(
        title=escape(title),
        policy=f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        style=style,
        script=script,
        data=data,
        figures=drawn or "<p>There is nothing to draw.</p>",
    )
    path = Path(path)
    kept.write_text(path, page)
    return path


def _fitting(snapshots: Sequence[Snapshot], steps: int, room: float) -> str:
    """The content as JSON, of as many steps as there is room for, at least two if there are two."""
    while True:
        shown = content(snapshots, steps)
        data = _json(shown | {"dropped": 0 if steps == len(snapshots) else len(snapshots) - steps})
        if len(data) <= room or steps <= 2:
            return data
        steps = max(2, min(steps - 1, int(steps * room / len(data))))


def _figure(drawn: Drawn) -> str:
    """A figure as HTML, on a row of its own if it is wide."""
    look = ' class="wide"' if drawn.figure.get_figwidth() > WIDE else ""
    return (
        f"<figure{look}>\n<h3>{escape(drawn.heading)}</h3>\n"
        f'<img src="{packing.figure(drawn.figure)}" alt="{escape(drawn.alt)}">\n'
        f"<figcaption>{escape(drawn.caption)}</figcaption>\n</figure>"
    )


def _json(value: dict[str, Any]) -> str:
    """JSON that ends no script element and starts no comment."""
    given = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return given.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _hash(code: str) -> str:
    """What the policy knows a style or a script by."""
    return "sha256-" + b64encode(sha256(code.encode("utf-8")).digest()).decode("ascii")
