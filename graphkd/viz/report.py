"""One page with text, tables and figures, in one file that needs nothing else."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphkd.typing import Real

DPI = 110

PAGE = """<!DOCTYPE html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c1c1c; --soft: #555; --line: #d4d4d4; --band: #f5f5f5; --page: #fff; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e8e8e8; --soft: #b4b4b4; --line: #444; --band: #252525; --page: #181818; }}
}}
body {{ margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }}
main {{ max-width: 66rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }}
h1 {{ font-size: 1.8rem; line-height: 1.2; margin: 0.5rem 0 1.5rem; }}
a {{ color: inherit; }}
h2 {{ font-size: 1.2rem; line-height: 1.3; margin: 2.5rem 0 0.75rem; }}
p {{ max-width: 42rem; margin: 0 0 0.8rem; }}
figure {{ margin: 0; }}
img {{ max-width: 100%; height: auto; background: #fff; padding: 0.5rem; box-sizing: border-box; border-radius: 4px; }}
figcaption {{ color: var(--soft); font-size: 0.9rem; max-width: 42rem; margin-top: 0.4rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.35rem 0.9rem; text-align: left; border-bottom: 1px solid var(--line); }}
thead th {{ border-bottom: 2px solid var(--ink); }}
tbody th {{ font-weight: normal; }}
tbody tr:nth-child(even) {{ background: var(--band); }}
.number {{ text-align: right; }}
@media print {{ section {{ break-inside: avoid; }} }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{sections}
</main>
</body>
</html>
"""


@final
class Report:
    """A page that is built section by section, in order, and written as one HTML file.

    Images are inside the file, no script runs and nothing is fetched. All text is taken literally, never as HTML.

    Args:
        title: Of the page.
        lang: Language of the text, as in HTML's ``lang``.

    Raises:
        ValueError: For a title, a heading or an alternative text that is empty.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = Report("OTGD").text("Setting", "Two seeds.").table("Accuracy", ["loss", "top 1"], [["kd", 71.5]])
    ...     page = report.write(Path(folder) / "report.html").read_text("utf-8")
    >>> "<h1>OTGD</h1>" in page, "71.5" in page
    (True, True)
    """

    def __init__(self, title: str, *, lang: str = "en") -> None:
        self._title = _filled("title", title)
        self._lang = _filled("lang", lang)
        self._sections: list[str] = []

    def text(self, heading: str, paragraph: str) -> "Report":
        """Add text; a blank line starts a new paragraph."""
        parts = [part.strip() for part in paragraph.split("\n\n")]
        return self._add(heading, "\n".join(f"<p>{escape(part)}</p>" for part in parts if part))

    def links(self, heading: str, paragraph: str, pages: Mapping[str, str]) -> "Report":
        """Add a paragraph and links to other pages, by what they are called; a file name leads beside this page."""
        links = "\n".join(f'<li><a href="{escape(page)}">{escape(name)}</a></li>' for name, page in pages.items())
        return self._add(heading, f"<p>{escape(paragraph)}</p>\n<ul>\n{links}\n</ul>")

    def table(self, heading: str, columns: Sequence[str], rows: Sequence[Sequence[str | Real]]) -> "Report":
        """Add a table; the first cell of a row names the row, numbers that are not integers get four digits.

        Raises:
            ValueError: For no columns, and rows that do not have a cell per column.
        """
        lengths = {len(row) for row in rows}
        if not columns or lengths - {len(columns)}:
            raise ValueError(
                f"a table needs columns and a cell for each in every row, got {len(columns)} columns and "
                f"rows of {sorted(lengths)} cells"
            )
        numeric = [bool(rows) and all(not isinstance(row[i], str) for row in rows) for i in range(len(columns))]
        look = [' class="number"' if number else "" for number in numeric]
        head = "".join(f'<th scope="col"{c}>{escape(name)}</th>' for c, name in zip(look, columns, strict=True))
        body = "\n".join(
            f'<tr><th scope="row"{look[0]}>{_cell(row[0])}</th>'
            + "".join(f"<td{c}>{_cell(value)}</td>" for c, value in zip(look[1:], row[1:], strict=True))
            + "</tr>"
            for row in rows
        )
        return self._add(
            heading,
            f'<div class="scroll" role="region" aria-label="{escape(heading)}" tabindex="0">\n<table>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>",
        )

    def figure(self, heading: str, fig: Figure | Axes, caption: str, alt: str) -> "Report":
        """Add a figure as it looks now.

        Args:
            heading: Of the section.
            fig: A figure, or axes, whose whole figure is then shown.
            caption: Below it; what to see in it.
            alt: For those who cannot see it, what it shows.
        """
        whole = fig.figure if isinstance(fig, Axes) else fig
        while not isinstance(whole, Figure):
            whole = whole.figure
        png = BytesIO()
        whole.savefig(png, format="png", dpi=DPI, bbox_inches="tight", facecolor="white", metadata={"Software": None})
        source = "data:image/png;base64," + b64encode(png.getvalue()).decode("ascii")
        return self._add(
            heading,
            f'<figure>\n<img src="{source}" alt="{escape(_filled("alt", alt))}">\n'
            f"<figcaption>{escape(caption)}</figcaption>\n</figure>",
        )

    def write(self, path: str | Path) -> Path:
        """Write the page, in a folder that exists, and return its path."""
        page = PAGE.format(lang=escape(self._lang), title=escape(self._title), sections="\n".join(self._sections))
        path = Path(path)
        path.write_text(page, encoding="utf-8")
        return path

    def _add(self, heading: str, content: str) -> "Report":
        self._sections.append(f"<section>\n<h2>{escape(_filled('heading', heading))}</h2>\n{content}\n</section>")
        return self


def _filled(name: str, text: str) -> str:
    if not text.strip():
        raise ValueError(f"{name} needs some text, got {text!r}")
    return text


def _cell(value: str | Real) -> str:
    return escape(value) if isinstance(value, str) else str(value) if isinstance(value, int) else f"{value:.4g}"
