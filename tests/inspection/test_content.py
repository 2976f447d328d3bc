import json

import pytest
import torch

from graphkd import metrics
from graphkd.inspection.content import chosen_steps, content
from graphkd.viz.palette import class_colour, class_marker

FOUR = torch.tensor([0, 0, 1, 1])


def steps(make, count, labels=FOUR):
    return [make.snapshot({"a": make.compared(torch.eye(4))}, labels, step=i) for i in range(count)]


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(5, 12, [0, 1, 2, 3, 4]), (5, 3, [0, 2, 4]), (5, 2, [0, 4]), (5, 1, [4]), (1, 3, [0]), (100, 4, [0, 33, 66, 99])],
)
def test_steps_are_spread_evenly_from_the_first_to_the_last(make, count, most, expected):
    given = steps(make, count)
    assert [each.step for each in chosen_steps(given[::-1], most)] == expected


def test_no_snapshots_or_steps_are_refused(make):
    with pytest.raises(ValueError, match="at least one snapshot, got none"):
        content([])
    with pytest.raises(ValueError, match="most_steps needs an integer of at least 1, got 0"):
        content(steps(make, 2), 0)


def test_snapshots_of_other_samples_or_layers_are_refused(make):
    first, second = steps(make, 2)
    with pytest.raises(ValueError, match="same samples and layers, got others at step 1 than at step 0"):
        content([first, second._replace(labels=FOUR.flip(0))])
    with pytest.raises(ValueError, match="same samples and layers"):
        content([first, second._replace(layers=(["feat"], ["feat", "logits"]))])


def test_the_whole_run_is_one_json_value(run):
    shown = content(run)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert shown["steps"] == [{"step": step, "epoch": step // 10} for step in (0, 10, 20)]
    assert [each["name"] for each in shown["terms"]] == [
        "otgd/g",
        "kd/kd",
        "crd/contrast, student to teacher",
        "crd/contrast, teacher to student",
        "wkd_logits/transport",
        "wkd_features/mean",
        "rtot/neurons",
    ]


def test_samples_are_sorted_by_class_with_their_pictures(run):
    samples = content(run)["samples"]
    assert samples["index"] == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    assert samples["classes"] == [0] * 4 + [1] * 4 + [2] * 4
    assert samples["sprite"]["columns"] == 4


def test_classes_have_their_name_and_look_and_unlabelled_comes_last(make):
    seen = make.snapshot({"a": make.compared(torch.eye(4))}, torch.tensor([1, -100, 0, 0]), class_names=["cat"])
    assert content([seen])["classes"] == [
        {"id": c, "name": name, "colour": class_colour(c), "marker": class_marker(c)}
        for c, name in ((0, "cat"), (1, "1"), (-100, "unlabelled"))
    ]


def test_the_page_begins_with_a_term_that_has_graphs(run):
    shown = content([each._replace(comparisons=dict(reversed(each.comparisons.items()))) for each in run])
    assert shown["terms"][shown["first"]]["name"] == "otgd/g"


def test_the_page_begins_with_no_identity_coupling_where_there_is_another(make):
    comparisons = {"one": make.compared(torch.ones(3, 1, 1)), "two": make.compared(torch.eye(4))}
    assert content([make.snapshot(comparisons, FOUR)])["first"] == 1
    comparisons["three"] = make.compared(torch.ones(4, 4))
    assert content([make.snapshot(comparisons, FOUR)])["first"] == 2


def test_each_term_tells_how_many_neighbours_are_kept(run):
    shown = content(run)
    expected = [float(metrics.neighbour_overlap(each.student["feat"], each.teacher["feat"], 10).mean()) for each in run]
    for each in shown["terms"]:
        assert each["measures"][-1]["name"] == "neighbour overlap"
        assert each["measures"][-1]["values"] == pytest.approx(expected, rel=1e-4)


def test_the_missed_are_those_of_the_metrics(make):
    teacher = torch.randn(12, 3)
    seen = make.snapshot(
        {"a": make.compared(torch.eye(12))},
        torch.zeros(12).long(),
        student={"other": torch.randn(12, 5), "feat": torch.randn(12, 2)},
        teacher={"other": torch.randn(12, 5), "feat": teacher},
    )
    missed = content([seen])["missed"]
    found = metrics.most_missed(seen.student["feat"], teacher, 10, 10)
    assert (missed["feature"], missed["k"]) == ("feat", 10)
    assert [each["sample"] for each in missed["steps"][0]] == found.index.tolist()
    assert [each["teacher"] for each in missed["steps"][0]] == found.teacher.tolist()
    assert [each["student"] for each in missed["steps"][0]] == found.student.tolist()
    assert [each["kept"] for each in missed["steps"][0]] == [round(10 * x) for x in found.overlap.tolist()]


def test_four_samples_have_three_neighbours(make):
    assert content(steps(make, 1))["missed"]["k"] == 3


def test_without_a_common_feature_nobody_is_missed(make):
    seen = make.snapshot({"a": make.compared(torch.eye(4))}, FOUR, student={"x": torch.ones(4, 2)})
    shown = content([seen])
    assert shown["missed"] == {"feature": None, "k": 0, "steps": [[]]}
    assert "neighbour overlap" not in [each["name"] for each in shown["terms"][0]["measures"]]


def test_features_that_are_not_finite_leave_a_gap(make):
    first, second = steps(make, 2)
    broken = second._replace(student={"feat": torch.full((4, 3), torch.inf)})
    shown = content([first, broken])
    assert shown["missed"]["steps"][1] == []
    assert shown["terms"][0]["measures"][-1]["values"][1] is None


def test_the_cka_of_every_step_is_kept_and_unknown_values_are_none(make):
    seen = steps(make, 1)[0]._replace(cka=torch.tensor([[0.12345, torch.nan]]))
    assert content([seen])["cka"] == {"rows": ["feat"], "columns": ["feat", "map"], "steps": [[[0.123, None]]]}


def test_many_samples_are_fewer_on_the_page_and_all_that_is_shown_has_a_picture(make):
    n = 450
    seen = make.snapshot(
        {"a": make.compared(torch.eye(n))}, torch.arange(n) % 9, pictures=torch.zeros(n, 1, 2, 2).byte()
    )
    shown = content([seen])
    assert len(shown["terms"][0]["rows"]["index"]) == 200
    assert shown["samples"]["count"] == n
    missed = [i for each in shown["missed"]["steps"][0] for i in (each["sample"], *each["teacher"], *each["student"])]
    assert {*shown["terms"][0]["rows"]["index"], *missed} == set(shown["samples"]["index"])
    assert len(shown["samples"]["index"]) < n


def test_of_several_teachers_the_neighbourhoods_are_those_of_the_first(make):
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    alone = make.snapshot({"a": make.compared(torch.eye(4))}, FOUR, teacher={"feat": rows})
    several = alone._replace(teacher={"wide/logits": torch.ones(4, 2), "wide/feat": rows, "narrow/feat": -rows})
    assert content([several])["missed"] == content([alone])["missed"]
    assert content([several])["missed"]["k"] == 3
