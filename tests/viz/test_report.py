import re
from base64 import b64decode
from html.parser import HTMLParser

import pytest
import torch
from matplotlib.figure import Figure

from graphkd.graphs import knn_graph
from graphkd.viz import Report, plot_graph, plot_history, plot_plan, plot_transport

VOID = {"meta", "img", "link", "br", "hr", "input"}
ODD = '<b>&"quoted"</b> {braces} é'


class Page(HTMLParser):
    """Elements as (tag, attributes, text), and whether every one of them is closed in order."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.open = [], []
        self.declaration = None
        self.feed(page)
        self.close()

    def handle_decl(self, decl):
        self.declaration = decl

    def handle_starttag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open[-1][0] == tag
        self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.open[-1][2] += data

    def all(self, *tags):
        return [element for element in self.elements if element[0] in tags]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1])
    report = (
        Report(ODD)
        .text("Setting " + ODD, f"First {ODD}.\n\nSecond.")
        .table("Results", ["loss", "top 1", "note"], [["kd", 71.23456, ODD], ["otgd", 72, "-"]])
        .figure("Plan", figure, "Caption " + ODD, "Alternative " + ODD)
    )
    path = report.write(tmp_path_factory.mktemp("report") / "page.html")
    return Page(path.read_text("utf-8"))


def test_the_page_is_closed_html5_in_a_language(page):
    assert page.declaration == "DOCTYPE html"
    assert page.open == []
    assert page.all("html")[0][1]["lang"] == "en"
    assert {"charset": "utf-8"} in [attributes for _, attributes, _ in page.all("meta")]


def test_headings_come_in_order(page):
    assert [(tag, text) for tag, _, text in page.all("h1", "h2", "h3", "h4")] == [
        ("h1", ODD),
        ("h2", "Setting " + ODD),
        ("h2", "Results"),
        ("h2", "Plan"),
    ]


def test_all_text_is_taken_literally(page):
    assert page.all("title")[0][2] == ODD
    assert [text for *_, text in page.all("p")] == [f"First {ODD}.", "Second."]
    assert page.all("figcaption")[0][2] == "Caption " + ODD
    assert page.all("img")[0][1]["alt"] == "Alternative " + ODD
    assert not page.all("b")


def test_tables_have_scoped_headers_and_a_cell_per_column(page):
    heads = page.all("th")
    assert [(a["scope"], text) for _, a, text in heads] == [
        ("col", "loss"),
        ("col", "top 1"),
        ("col", "note"),
        ("row", "kd"),
        ("row", "otgd"),
    ]
    assert [text for *_, text in page.all("td")] == ["71.23", ODD, "72", "-"]
    assert [a.get("class") for _, a, _ in page.all("td")] == ["number", None, "number", None]


def test_images_are_in_the_page_as_png(page):
    (_, attributes, _), *others = page.all("img")
    assert not others
    kind, data = attributes["src"].split(",")
    assert kind == "data:image/png;base64"
    assert b64decode(data, validate=True).startswith(b"\x89PNG\r\n\x1a\n")


def test_nothing_is_fetched_and_no_script_runs(page):
    assert not page.all("script", "link", "iframe", "object")
    references = [
        value for _, attributes, _ in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert len(references) == 1 and references[0].startswith("data:")
    (_, _, style), *_ = page.all("style")
    assert "prefers-color-scheme: dark" in style
    assert not re.search(r"url\(|@import|//", style)
    assert any("default-src 'none'" in attributes.get("content", "") for _, attributes, _ in page.all("meta"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_readable_contrast(page, scheme):
    style = page.all("style")[0][2]
    light, dark = re.findall(r":root \{(.*?)\}", style)
    colours = dict(re.findall(r"--(\w+): (#\w+)", light if scheme == "light" else dark))

    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        rgb = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for text in ("ink", "soft"):
        for ground in ("page", "band"):
            high, low = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG AA


def test_a_report_of_eight_figures_stays_under_three_megabytes(tmp_path):
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    plan, labels = (x @ x.mT).exp(), torch.arange(256) % 10
    report = Report("Figures")
    for ax in (
        plot_plan(plan, labels=labels),
        plot_transport(plan, labels=labels),
        plot_graph(knn_graph(x, 8), labels=labels, positions=dict(enumerate(x[:, :2].numpy()))),
        plot_history({"kd": [[1, 2], [2, 3]]}),
    ):
        report.figure("heading", ax, "caption", "alt")
    assert 10_000 < report.write(tmp_path / "page.html").stat().st_size < 3e6 / 2


def test_axes_stand_for_their_figure(tmp_path):
    ax = plot_history({"kd": [[1, 2]]})
    by_axes = Report("a").figure("h", ax, "c", "alt").write(tmp_path / "a.html").read_bytes()
    by_figure = Report("a").figure("h", ax.figure, "c", "alt").write(tmp_path / "b.html").read_bytes()
    assert by_axes == by_figure


def test_axes_of_a_subfigure_stand_for_the_whole_figure(tmp_path):
    figure = Figure()
    left, _ = figure.subfigures(1, 2)
    ax = left.add_subplot()
    by_axes = Report("a").figure("h", ax, "c", "alt").write(tmp_path / "a.html").read_bytes()
    by_figure = Report("a").figure("h", figure, "c", "alt").write(tmp_path / "b.html").read_bytes()
    assert by_axes == by_figure


def test_links_lead_to_pages_beside_this_one(tmp_path):
    report = Report("a").links("More", "Look <here>.", {"plans & graphs": 'inspect "otgd".html'})
    page = Page(report.write(tmp_path / "a.html").read_text("utf-8"))
    assert [text for *_, text in page.all("p")] == ["Look <here>."]
    assert [(a["href"], text) for _, a, text in page.all("a")] == [('inspect "otgd".html', "plans & graphs")]


def test_a_table_without_rows_keeps_its_head(tmp_path):
    page = Page(Report("a").table("h", ["x", "y"], []).write(tmp_path / "a.html").read_text("utf-8"))
    assert [text for *_, text in page.all("th")] == ["x", "y"]


def test_what_a_reader_would_miss_is_refused():
    with pytest.raises(ValueError, match="title needs some text, got ''"):
        Report("")
    with pytest.raises(ValueError, match="heading needs some text, got ' '"):
        Report("a").text(" ", "text")
    with pytest.raises(ValueError, match="alt needs some text"):
        Report("a").figure("h", Figure(), "caption", "")


def test_rows_that_do_not_fit_the_columns_are_refused():
    with pytest.raises(ValueError, match=r"got 2 columns and rows of \[1, 2\] cells"):
        Report("a").table("h", ["x", "y"], [["kd", 1], ["otgd"]])
    with pytest.raises(ValueError, match="got 0 columns"):
        Report("a").table("h", [], [])
