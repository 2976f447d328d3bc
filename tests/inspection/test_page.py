import json
import re
from base64 import b64decode, b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest
import torch

from graphkd.inspection import write_page
from graphkd.inspection.page import HERE, SCRIPTS
from graphkd.viz.palette import MARKERS

VOID = {"meta", "img", "input", "br", "hr"}
ODD = '</script><b>&"quoted"</b> $title {braces} é'


class Page(HTMLParser):
    """Elements as [tag, attributes, text], closed in order."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            self.open[-1][2] += data

    def all(self, *tags):
        return [element for element in self.elements if element[0] in tags]


def written(tmp_path, snapshots, title=ODD, **options):
    path = tmp_path / "page.html"
    assert write_page(snapshots, path, title=title, **options) == path
    return Page(path.read_text("utf-8"))


def data(page):
    (found,) = (text for _, attributes, text in page.all("script") if attributes["type"] == "application/json")
    return json.loads(found)


@pytest.fixture
def page(tmp_path, run):
    return written(tmp_path, run, curves={"loss": [2.0, 1.0]})


def test_the_title_is_taken_literally_once_as_a_heading(page):
    assert [text for _, _, text in page.all("h1")] == [ODD]
    assert page.all("title")[0][2] == ODD
    assert not page.all("b")


def test_hostile_names_stay_in_the_data(page):
    assert data(page)["classes"][2]["name"] == "<script>alert(1)</script>"
    assert [attributes["type"] for _, attributes, _ in page.all("script")] == ["application/json", "module"]
    (text,) = (text for _, attributes, text in page.all("script") if attributes["type"] == "application/json")
    assert not set(text) & set("<>&")


def test_the_policy_allows_this_style_and_this_script_and_images_inside(page):
    (policy,) = (a["content"] for _, a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")

    def of(text):
        return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"

    (style,) = (text for _, _, text in page.all("style"))
    (script,) = (text for _, attributes, text in page.all("script") if attributes["type"] == "module")
    assert policy == f"default-src 'none'; img-src data:; style-src {of(style)}; script-src {of(script)}"


def test_nothing_is_fetched_and_nothing_is_styled_in_attributes(page):
    references = [value for _, a, _ in page.elements for name, value in a.items() if name in ("src", "href")]
    assert references and all(value.startswith("data:image/png;base64,") for value in references)
    assert not [a for _, a, _ in page.elements if "style" in a or any(name.startswith("on") for name in a)]
    code = "".join(text for _, _, text in page.all("style", "script")[:1]) + (HERE / "main.js").read_text()
    assert not re.search(r"@import|fetch\(|import\(|XMLHttpRequest|innerHTML", code)


def test_every_input_has_a_label_and_every_image_a_text(page):
    labelled = {attributes["for"] for _, attributes, _ in page.all("label")}
    assert {attributes["id"] for _, attributes, _ in page.all("input", "select")} <= labelled
    assert page.all("img") and all(attributes["alt"] for _, attributes, _ in page.all("img"))
    assert all(a.get("aria-label") for _, a, text in page.all("button") if not text.strip())


def test_figures_are_pictures(page):
    for _, attributes, _ in page.all("img"):
        assert b64decode(attributes["src"].split(",")[1], validate=True).startswith(b"\x89PNG")
    assert "The run over its epochs" in [text for _, _, text in page.all("h3")]


def test_every_script_is_on_the_page_and_none_is_long():
    assert {f"{name}.js" for name in SCRIPTS} == {path.name for path in HERE.glob("*.js")}
    for path in HERE.iterdir():
        if path.is_file():
            assert len(path.read_text("utf-8").splitlines()) < 300, path.name


def test_ids_are_given_once_and_those_that_scripts_ask_for_are_there(page):
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    asked = re.findall(r'\bat\("([\w-]+)"\)', (HERE / "main.js").read_text())
    assert asked and set(asked) <= set(ids)


def test_the_script_has_a_shape_for_every_marker_of_the_figures():
    shapes = (HERE / "marks.js").read_text().split("const SHAPES = {")[1].split("};")[0]
    assert set(MARKERS) <= set(re.findall(r'^  "?([^\s":]+)"?:', shapes, re.M))


def test_steps_that_are_too_many_are_said_to_be_left_out(tmp_path, run):
    shown = data(written(tmp_path, run, most_steps=2))
    assert [each["step"] for each in shown["steps"]] == [0, 20]
    assert (shown["saved"], shown["dropped"]) == (3, 1)


def test_steps_are_dropped_until_the_page_fits(tmp_path, make):
    def at(step):
        plan = torch.rand(60, 60, generator=torch.Generator().manual_seed(step))
        return make.snapshot({"a/b": make.compared(plan)}, torch.arange(60) % 3, step=step, student={})

    snapshots = [at(step) for step in range(10)]
    whole = written(tmp_path, snapshots)
    size = (tmp_path / "page.html").stat().st_size
    fewer = written(tmp_path, snapshots, limit_mb=size / 1e6 - 0.02)
    assert data(whole)["dropped"] == 0
    assert 0 < data(fewer)["dropped"] < 8
    assert (tmp_path / "page.html").stat().st_size < size - 20_000
    assert len(data(written(tmp_path, snapshots, limit_mb=1e-6))["steps"]) == 2


def test_at_least_two_steps_stay_whatever_the_limit(tmp_path, run):
    assert [each["step"] for each in data(written(tmp_path, run, limit_mb=1e-6))["steps"]] == [0, 20]


def test_the_limit_holds_for_the_whole_file(tmp_path, make):
    def at(step):
        plan = torch.rand(100, 100, generator=torch.Generator().manual_seed(step))
        return make.snapshot({"a/b": make.compared(plan)}, torch.arange(100) % 3, step=step, student={})

    written(tmp_path, [at(step) for step in range(12)], limit_mb=0.3)
    assert (tmp_path / "page.html").stat().st_size <= 300_000


def test_one_snapshot_makes_a_page(tmp_path, run):
    shown = data(written(tmp_path, run[:1]))
    assert len(shown["steps"]) == 1 and shown["dropped"] == 0


def test_what_makes_no_page_is_refused(tmp_path, run):
    with pytest.raises(ValueError, match="title needs some text, got ' '"):
        write_page(run, tmp_path / "a.html", title=" ")
    with pytest.raises(ValueError, match="at least one snapshot, got none"):
        write_page([], tmp_path / "a.html", title="a")
    with pytest.raises(ValueError, match="limit_mb needs a finite number above 0, got 0"):
        write_page(run, tmp_path / "a.html", title="a", limit_mb=0)
    with pytest.raises(ValueError, match="most_steps needs an integer of at least 1, got 0"):
        write_page(run, tmp_path / "a.html", title="a", most_steps=0)
    assert not (tmp_path / "a.html").exists()


def test_letters_that_no_font_has_make_no_noise(tmp_path, make):
    seen = make.snapshot({"a/b": make.compared(torch.eye(4))}, torch.tensor([0, 0, 1, 1]), class_names=["猫", "🐈"])
    assert data(written(tmp_path, [seen]))["classes"][0]["name"] == "猫"
