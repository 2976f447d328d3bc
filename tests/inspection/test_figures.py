import pytest
import torch
from torch_geometric.data import Data

from graphkd.inspection import packing
from graphkd.inspection.figures import MOST_CURVES, figures

LABELS = torch.arange(12) % 3


def headings(found):
    return [each.heading for each in found]


def rows():
    return {"logits": torch.randn(12, 3), "feat": torch.randn(12, 4)}


def test_a_run_with_everything_has_every_figure(run):
    last = run[-1]._replace(student=rows(), teacher=rows())
    found = figures(last, {"loss": [3.0, 2.0]})
    assert headings(found) == [
        "Plans of otgd",
        "Plans of kd",
        "Both networks' samples in one plane",
        "Correlations between classes",
        "Classes by the cost of wkd_logits/transport",
        "The run over its epochs",
    ]
    assert all(each.alt and each.caption for each in found)
    assert "features 'feat' at step 20" in found[2].caption


def test_the_terms_of_one_criterion_are_one_figure(make):
    comparisons = {name: make.compared(torch.eye(12)) for name in ("a/f", "b/x", "a/g")}
    found = figures(make.snapshot(comparisons, LABELS, student={}))
    assert headings(found) == ["Plans of a", "Plans of b"]
    titles = [ax.get_title().splitlines()[0] for ax in found[0].figure.axes if ax.get_title()]
    assert titles == ["a/f", "a/g"]


@pytest.mark.parametrize(
    "plan", [torch.ones(2, 12, 12), torch.ones(12, 13), torch.full((12, 12), torch.nan), torch.zeros(12, 12)]
)
def test_what_is_no_plan_between_the_samples_is_left_out(make, plan):
    assert figures(make.snapshot({"a/b": make.compared(plan)}, LABELS, student={})) == []


def test_nodes_that_only_happen_to_be_as_many_are_no_samples(make):
    seen = make.compared(torch.ones(12, 12), graphs=(Data(node="neuron"), Data(node="neuron")))
    assert figures(make.snapshot({"a/b": seen}, LABELS, student={})) == []


def test_features_or_logits_that_are_not_finite_are_left_out(make):
    broken = {name: torch.full_like(x, torch.nan) for name, x in rows().items()}
    assert figures(make.snapshot({}, LABELS, student=broken, teacher=rows())) == []


def test_logits_of_other_widths_have_no_correlation_gap(make):
    student = {"logits": torch.randn(12, 3)}
    found = figures(make.snapshot({}, LABELS, student=student, teacher={"logits": torch.randn(12, 4)}))
    assert headings(found) == ["Both networks' samples in one plane"]


def test_a_cost_between_classes_is_drawn_once_and_under_the_first_name(make):
    classes = Data(x=torch.zeros(3, 1), node="class")
    seen = make.compared(torch.eye(3), 1 - torch.eye(3), (classes, classes))
    found = figures(make.snapshot({"a": seen, "b": seen}, LABELS, student={}))
    assert headings(found) == ["Classes by the cost of a"]


def test_names_with_dollars_are_no_formulas(make):
    names = ["$a^{$", "b", "c"]
    found = figures(make.snapshot({"a/b": make.compared(torch.eye(12))}, LABELS, class_names=names), {"$x^{$": [1.0]})
    for each in found:
        packing.figure(each.figure)
    assert len(found) == 3


def test_too_few_class_names_are_not_used(make):
    (found,) = figures(make.snapshot({"a/b": make.compared(torch.eye(12))}, LABELS, class_names=["cat"], student={}))
    assert "cat" not in [tick.get_text() for ax in found.figure.axes for tick in ax.get_yticklabels()]


def test_each_curve_has_a_panel_up_to_a_dozen(make):
    curves = {f"curve {i}": [1.0, 2.0] for i in range(MOST_CURVES + 2)} | {"none": []}
    (found,) = figures(make.snapshot({}, LABELS, student={}), curves)
    assert [ax.get_title() for ax in found.figure.axes] == [f"curve {i}" for i in range(MOST_CURVES)]
    assert "The first 12 of 14 numbers." in found.caption


def test_without_labels_the_plans_are_drawn_as_they_come(make):
    found = figures(make.snapshot({"a/b": make.compared(torch.eye(12))}, torch.full((12,), -100)))
    assert headings(found) == ["Plans of a", "Both networks' samples in one plane"]
