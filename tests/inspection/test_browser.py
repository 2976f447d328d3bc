"""The page in a browser, as a reader uses it."""

import json
import re

import pytest

from graphkd.inspection import write_page

pytestmark = [pytest.mark.slow, pytest.mark.browser]

TERMS = [
    "otgd/g",
    "kd/kd",
    "crd/contrast, student to teacher",
    "crd/contrast, teacher to student",
    "wkd_logits/transport",
    "wkd_features/mean",
    "rtot/neurons",
]
ORDER = [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]

CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3)
    .map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((numbers(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255 255 255)";
  };
  const texts = [...document.querySelectorAll("body *")].filter((node) =>
    [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()) && node.checkVisibility()
    && !node.closest("script, :disabled"));
  return texts.map((node) => {
    const [low, high] = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => a - b);
    return [(high + 0.05) / (low + 0.05), node.tagName + " " + node.textContent.trim().slice(0, 40)];
  }).sort((a, b) => a[0] - b[0]).slice(0, 3);
}"""


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield started
        started.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a page of snapshots; whatever it says or asks for beside itself fails the test."""
    contexts, complaints = [], []

    def opened(snapshots, width=1200, height=900, scheme="light", motion="no-preference", scale=1, **options):
        path = write_page(snapshots, tmp_path / "page.html", title='<b>"title"</b>', **options)
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion=motion,
            device_scale_factor=scale,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))

        def seen(request):
            if request.url != path.as_uri() and not request.url.startswith("data:"):
                complaints.append(request.url)

        page.on("request", seen)
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def pixels(page, canvas="cells"):
    return page.evaluate(f'document.getElementById("{canvas}").toDataURL()')


def facts(page):
    names, values = (page.locator(f"#details {tag}").all_inner_texts() for tag in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def test_a_page_of_every_kind_of_term_is_quiet(visit, run):
    page = visit(run, curves={"loss": [2.0, 1.0]})
    assert page.locator("h1").all_inner_texts() == ['<b>"title"</b>']
    assert page.locator("#term option").all_inner_texts() == TERMS
    for name in TERMS:
        page.select_option("#term", label=name)
        drawn = name != "wkd_features/mean"
        assert page.locator("#cells").is_visible() == drawn
        assert page.locator("#graphs").is_visible() == (name == "otgd/g")
        assert page.locator("#numbers caption").inner_text() == f"{name} at step 20"
    assert page.locator("#facts").inner_text() == "12 samples, 3 classes; 3 saved steps, from 0 to 20."


def test_arrow_keys_on_the_slider_change_step_plan_and_numbers(visit, run):
    page = visit(run)
    slider = page.locator("#step")
    assert slider.get_attribute("aria-valuetext") == page.locator("#where").inner_text() == "step 20, epoch 2"
    before = pixels(page), page.locator("#numbers b").first.inner_text(), page.locator("#missed").inner_html()
    edges = page.locator("#student-graph .extra").first.get_attribute("d")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == page.locator("#where").inner_text() == "step 10, epoch 1"
    assert pixels(page) != before[0]
    assert page.locator("#numbers b").first.inner_text() != before[1]
    assert page.locator("#numbers b").first.inner_text() == f"{float(run[1].comparisons['otgd/g'].value):.3g}"
    page.keyboard.press("Home")
    assert page.locator("#student-graph .extra").first.get_attribute("d") != edges
    assert page.locator("#missed").inner_html() != before[2]
    page.keyboard.press("End")
    assert pixels(page) == before[0]


def test_the_colour_scale_is_the_same_at_all_steps(visit, run):
    page = visit(run)
    at_end = page.locator("#scale").inner_text()
    largest = max(float(each.comparisons["otgd/g"].plan.max()) for each in run)
    assert at_end.split()[-6:][0] == f"{largest:.3g}"
    page.locator("#step").focus()
    page.keyboard.press("Home")
    assert page.locator("#scale").inner_text() == at_end


@pytest.mark.parametrize("scale", [1, 1.5, 3])
def test_pointing_at_a_cell_tells_both_samples_and_the_mass(visit, run, scale):
    page = visit(run, scale=scale)
    row, column = 2, 7
    page.locator("#cells").scroll_into_view_if_needed()
    box = page.locator("#cells").bounding_box()
    size = page.evaluate("document.getElementById('cells').width") / scale
    # The names take what is left of the width after twelve cells and two pixels, and 30 pixels above.
    height = page.evaluate("document.getElementById('cells').height") / scale
    across = (height - 30 - 2 / scale) / 12
    left = size - 12 * across - 2 / scale
    page.mouse.move(box["x"] + left + (column + 0.5) * across, box["y"] + 30 + (row + 0.5) * across)
    student, teacher = ORDER[row], ORDER[column]
    assert page.locator("#details .pair").inner_text().splitlines()[0] == f"student sample {student}"
    assert f"teacher sample {teacher}" in page.locator("#details .pair").inner_text()
    plan, cost = run[2].comparisons["otgd/g"].plan, run[2].comparisons["otgd/g"].cost
    mass = float(plan[student, teacher])
    told = facts(page)
    assert float(told["mass"]) == pytest.approx(mass, rel=0.01)
    assert told["share of the student's mass"] == f"{100 * mass / float(plan[student].sum()):.1f} %"
    assert float(told["cost, about"]) == pytest.approx(float(cost[student, teacher]), abs=0.01)
    assert page.locator("#details .verdict").inner_text() == "another class"
    tiles = page.locator("#details .pair .tile")
    assert [tiles.nth(i).get_attribute("aria-label") for i in (0, 1)] == ["sample 6, cat", "sample 10, dog"]


def test_keys_move_over_the_plan_and_list_the_strongest_partners(visit, run):
    page = visit(run)
    page.locator("#heat").focus()
    for key in ("ArrowDown", "ArrowDown", "End", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    # The first key comes to the first cell.
    row, column = ORDER[2], ORDER[10]
    plan = run[2].comparisons["otgd/g"].plan
    assert f"student sample {row}\n" in page.locator("#details .pair").inner_text()
    assert f"teacher sample {column}\n" in page.locator("#details .pair").inner_text()
    assert float(facts(page)["mass"]) == pytest.approx(float(plan[row, column]), rel=0.01)
    expected = plan[row].topk(5).indices.tolist()
    shown = page.locator("#details .who").all_inner_texts()
    assert [int(re.findall(r"sample (\d+)", each)[0]) for each in shown] == expected
    assert ["(true pair)" in each for each in shown] == [each == row for each in expected]


def test_page_keys_and_home_stay_within_the_plan(visit, run):
    page = visit(run)
    page.locator("#heat").focus()
    for key in ("ArrowDown", "End", "PageDown", "PageDown"):
        page.keyboard.press(key)
    assert page.locator("#details .pair").inner_text().count("sample 11\n") == 2
    assert page.locator("#details .verdict").inner_text() == "the true pair"
    for key in ("Home", "PageUp", "PageUp", "ArrowUp"):
        page.keyboard.press(key)
    assert page.locator("#details .pair").inner_text().count("sample 0\n") == 2


def test_a_click_pins_until_escape(visit, run):
    page = visit(run)
    box = page.locator("#cells").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    pinned = page.locator("#details .pair").inner_text()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 3)
    assert page.locator("#details .pair").inner_text() == pinned
    page.keyboard.press("Escape")
    assert "Point at" in page.locator("#details").inner_text()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2.9)
    assert page.locator("#details .pair").inner_text() != pinned


def test_choosing_a_class_hides_the_others_in_plan_and_graphs(visit, run):
    page = visit(run)
    shown = '#student-graph .node:not([display="none"])'
    before = pixels(page)
    assert page.locator(shown).count() == 12
    page.locator("#chips button", has_text="dog").click()
    assert page.locator("#chips button", has_text="dog").get_attribute("aria-pressed") == "true"
    assert page.locator("#chips button", has_text="all").get_attribute("aria-pressed") == "false"
    assert "4 rows by 4 columns" in page.locator("#heat").get_attribute("aria-label")
    assert page.locator(shown).count() == 4 and pixels(page) != before
    page.locator("#heat").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#details .pair").inner_text().count("sample 1\n") == 2
    page.locator("#chips button", has_text="all").click()
    assert page.locator(shown).count() == 12
    assert "12 rows by 12 columns" in page.locator("#heat").get_attribute("aria-label")


def test_pointing_at_a_node_shows_its_neighbours_in_both_graphs(visit, run):
    page = visit(run, height=1600)
    graph = page.locator("#teacher-graph svg")
    place = page.evaluate("JSON.parse(document.getElementById('data').textContent).terms[0].graphs.places[1]")
    box = graph.bounding_box()
    x, y = (0.08 + 0.84 * at for at in place)
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    # Place 1 is sample 3; the teacher joins it with 1 and 5, the student, three steps apart, with 0 and 6.
    assert "student sample 3\n" in page.locator("#details .pair").inner_text()
    assert "2 neighbours in the teacher's, of which the student keeps 0 and has 2 others" in (
        page.locator("#details").inner_text()
    )
    lit = "[...document.querySelectorAll('#student-graph .node')].flatMap((n, i) => n.matches('.on') ? [i] : [])"
    assert sorted(ORDER[i] for i in page.evaluate(lit)) == [0, 3, 6]
    assert page.locator("#teacher-graph .ring:not(.self)").count() == 5


def test_keys_move_over_the_graphs(visit, run):
    page = visit(run)
    page.locator("#student-graph svg").focus()
    first = page.locator("#details .pair").inner_text()
    moved = set()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
        moved.add(page.locator("#details .pair").inner_text())
    assert moved - {first}
    page.keyboard.press("Enter")
    assert "Pinned" in page.locator("#details").inner_text()


def test_edges_are_told_apart_by_who_has_them(visit, run):
    page = visit(run)
    # At the last step the student joins places three apart, the teacher two apart: nothing is in common.
    texts = page.locator("#graph-legend li").all_inner_texts()
    assert texts == ["0 edges in both", "12 that the student has too many", "12 that the student lacks"]
    page.locator("#step").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#graph-legend li").first.inner_text() == "12 edges in both"


def test_the_ways_of_a_term_name_their_networks_and_what_is_remembered(visit, run):
    page = visit(run)
    page.select_option("#term", label=TERMS[3])
    page.locator("#heat").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    text = page.locator("#details .pair").inner_text()
    assert "teacher sample 0" in text and "sample 27 of the student's memory" in text
    assert "share of the teacher's mass" in facts(page)


def test_play_goes_through_the_steps_and_pauses(visit, run):
    from playwright.sync_api import expect

    page = visit(run)
    page.locator("#play").click()
    assert page.locator("#where").inner_text() == "step 0, epoch 0"
    assert page.locator("#play").get_attribute("aria-label") == "Pause"
    expect(page.locator("#where")).to_have_text("step 10, epoch 1")
    page.locator("#play").click()
    assert page.locator("#play").get_attribute("aria-label") == "Play the steps"


def test_who_wants_no_motion_steps_by_hand(visit, run):
    page = visit(run, motion="reduce")
    assert page.locator("#play").get_attribute("aria-label") == "Next step"
    page.locator("#play").click()
    page.wait_for_timeout(1200)
    assert page.locator("#where").inner_text() == "step 0, epoch 0"


def test_one_step_fixes_the_slider(visit, run):
    page = visit(run[:1])
    assert page.locator("#step").is_disabled() and page.locator("#play").is_disabled()
    assert "so the slider is fixed" in page.locator("#facts").inner_text()


def test_samples_without_pictures_and_labels_are_numbers(visit, run):
    bare = [each._replace(pictures=None, labels=each.labels * 0 - 100, class_names=None) for each in run]
    page = visit(bare)
    assert "12 samples, no labels" in page.locator("#facts").inner_text()
    page.locator("#heat").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert "another sample, no labels to compare" in page.locator("#details").inner_text()
    assert page.locator("#details .tile").first.inner_text() == "0"
    assert page.locator("#chips").is_hidden()


@pytest.mark.parametrize("width", [400, 700, 1001, 1600])
def test_the_page_is_never_wider_than_the_window(visit, run, width):
    page = visit(run, width=width)
    page.locator("#heat").focus()
    page.keyboard.press("ArrowDown")
    for name in TERMS:
        page.select_option("#term", label=name)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_read_easily_on_its_ground(visit, run, scheme):
    page = visit(run, scheme=scheme)
    page.locator("#heat").focus()
    page.keyboard.press("ArrowDown")
    page.locator("#chips button", has_text="dog").click()
    worst = page.evaluate(CONTRAST)
    assert worst[0][0] >= 4.5, worst


def test_everything_that_is_used_has_a_name(visit, run):
    page = visit(run)
    names = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, [tabindex='0'], [role=img], img")]
        .filter((node) => node.checkVisibility())
        .map((node) => node.ariaLabel || node.alt || (node.labels && node.labels.length && node.labels[0].textContent)
          || node.textContent.trim())"""
    )
    assert len(names) > 20 and all(names)
    assert page.locator("h1").count() == 1
    assert json.loads(page.locator("#data").text_content())["first"] == 0
