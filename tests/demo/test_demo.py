import json
from html.parser import HTMLParser
from importlib.metadata import version

import pytest
import torch

from graphkd.demo import METHODS, demo
from graphkd.models import SmallCNN


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.links = [], []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        self.links += [value for name, value in attrs if name in ("src", "href")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    demo(seeds=2, epochs=1, student_width=2, out=str(out), progress=False)
    return out


def test_it_keeps_results_figures_report_and_checkpoints(folder):
    kept = {path.name for path in folder.iterdir()}
    assert kept == {
        "checkpoints",
        "results.json",
        "report.html",
        "curves.png",
        "graphs.png",
        "plans.png",
        "transport.png",
        "snapshots",
        "inspect_kd.html",
        "inspect_otgd.html",
    }
    assert {path.name for path in (folder / "snapshots").iterdir()} == {"kd", "otgd"}
    assert len(list((folder / "checkpoints").iterdir())) == 1 + 3 * 2


def test_results_name_config_versions_and_every_run(folder):
    record = json.loads((folder / "results.json").read_text())
    assert record["config"]["labels_per_class"] == 10
    assert record["versions"]["torch"] == version("torch")
    assert {(run["method"], run["seed"]) for run in record["runs"]} == {
        (method, seed) for method in ("alone", "kd", "otgd") for seed in (0, 1)
    }
    assert record["teacher"]["accuracy"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"kd", "otgd"}))
def test_every_method_trains_and_has_a_row(method, tmp_path, capsys):
    demo(methods=[method], seeds=1, epochs=1, student_width=2, out=str(tmp_path), progress=False)
    record = json.loads((tmp_path / "results.json").read_text())
    assert [run["method"] for run in record["runs"]] == ["alone", method]
    assert all(value == value for value in record["runs"][1]["curves"]["train/loss"])
    assert any(f"train/weighted/{method}" == name for name in record["runs"][1]["curves"])
    assert METHODS[method].title.split()[0] in capsys.readouterr().out
    assert (tmp_path / "report.html").exists()


def test_a_method_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(ValueError, match="methods needs one of kd, otgd"):
        demo(methods=["magic"], out=str(tmp_path))


def test_a_checkpoint_gives_the_accuracy_that_was_written(folder):
    from graphkd.datasets import DigitsData

    record = json.loads((folder / "results.json").read_text())
    student = SmallCNN(2).eval()
    student.load_state_dict(torch.load(folder / "checkpoints" / "student_otgd_seed1.pt", weights_only=True))
    images, labels = DigitsData().test
    with torch.no_grad():
        accuracy = float((student(images).argmax(-1) == labels).float().mean())
    written = next(run for run in record["runs"] if (run["method"], run["seed"]) == ("otgd", 1))
    assert accuracy == pytest.approx(written["accuracy"], abs=1e-5)


def test_the_report_is_one_page_with_all_figures(folder):
    page = Page()
    text = (folder / "report.html").read_text()
    page.feed(text)
    assert len(page.images) == 4
    assert all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in page.images)
    others = [link for link in page.links if not link.startswith(("data:", "#"))]
    assert others == ["inspect_kd.html", "inspect_otgd.html"]
    assert all(10_000 < (folder / name).stat().st_size < 5e6 for name in ("report.html", *others))


@pytest.mark.slow
def test_a_second_demo_gives_the_same_numbers(folder, tmp_path):
    demo(seeds=2, epochs=1, student_width=2, out=str(tmp_path), progress=False)
    first, second = (json.loads((out / "results.json").read_text()) for out in (folder, tmp_path))

    def numbers(record):
        return [(run["method"], run["seed"], run["accuracy"], run["agreement"], run["curves"]["train/loss"])
                for run in record["runs"]]  # fmt: skip

    assert numbers(first) == numbers(second)
