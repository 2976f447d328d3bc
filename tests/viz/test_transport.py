import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex

from graphkd.viz import palette, plot_transport
from graphkd.viz.inputs import axes_or_new


def edges(ax):
    """Edges as {verdict: [(student height, teacher height, width)]}."""
    found = {}
    for lines in (c for c in ax.collections if isinstance(c, LineCollection)):
        ends = np.array(lines.get_segments())
        assert (ends[:, 0, 0] == 0).all() and (ends[:, 1, 0] == 1).all()
        widths = np.broadcast_to(lines.get_linewidths(), len(ends))
        found[lines.get_label()] = [(a, b, w) for a, b, w in zip(ends[:, 0, 1], ends[:, 1, 1], widths, strict=True)]
    return found


def heights(ax, side):
    """Heights of the nodes of one column by class name, in the order drawn."""
    parts = [c for c in ax.collections if isinstance(c, PathCollection)]
    return {p.get_label(): p.get_offsets()[:, 1].tolist() for p in parts if (p.get_offsets()[:, 0] == side).all()}


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def plan(n, m):
    p = torch.rand(n, m, generator=torch.Generator().manual_seed(0))
    return p / p.sum()


def test_students_stand_left_and_teachers_right_first_node_on_top():
    ax = plot_transport(plan(3, 4))
    assert [len(y) for y in heights(ax, 0).values()] == [3]
    (right,) = heights(ax, 1).values()
    assert right == sorted(right, reverse=True) and len(right) == 4
    assert [t.get_text() for t in ax.texts] == ["student", "teacher"]


def test_edge_width_is_proportional_to_mass():
    p = torch.tensor([[0.4, 0.1], [0.0, 0.5]])
    ax = plot_transport(p)
    found = edges(ax)
    assert sorted(found) == ["right", "wrong"]
    widths = sorted(w for lines in found.values() for *_, w in lines)
    assert len(widths) == 3
    assert np.allclose(np.array(widths) / widths[-1], [0.2, 0.8, 1.0])


def test_mass_on_another_sample_is_highlighted_without_labels():
    ax = plot_transport(torch.tensor([[0.4, 0.1], [0.2, 0.3]]))
    assert legend(ax) == ["same sample: 70 %", "another sample: 30 %"]
    assert all(a == b for a, b, _ in edges(ax)["right"]) and len(edges(ax)["right"]) == 2
    assert all(a != b for a, b, _ in edges(ax)["wrong"]) and len(edges(ax)["wrong"]) == 2
    colours = {c.get_label(): to_hex(c.get_color()[0]).upper() for c in ax.collections if isinstance(c, LineCollection)}
    assert colours == {"right": palette.RIGHT, "wrong": palette.WRONG}


def test_right_and_wrong_mass_differ_in_grey_print():
    ax = plot_transport(torch.tensor([[0.4, 1e-9], [0.2, 0.3]]))
    dashes = {c.get_label(): c.get_linestyles() for c in ax.collections if isinstance(c, LineCollection)}
    assert all(dash is None for _, dash in dashes["right"])
    assert all(dash is not None and min(dash) >= 1 for _, dash in dashes["wrong"])
    right, wrong = ax.get_legend().get_lines()
    assert not right.is_dashed() and wrong.is_dashed()


def test_mass_on_another_class_is_highlighted_with_labels():
    p = torch.tensor([[0.1, 0.2, 0.0], [0.0, 0.3, 0.1], [0.2, 0.0, 0.1]])
    ax = plot_transport(p, labels=[0, 0, 1], class_names=["cat", "dog"])
    assert legend(ax) == ["same class: 70 %", "another class: 30 %"]
    assert len(edges(ax)["right"]) == 4
    assert len(edges(ax)["wrong"]) == 2
    assert [t.get_text() for t in ax.texts] == ["student", "cat", "dog", "teacher", "cat", "dog"]


def test_mass_from_an_unlabelled_node_is_neither_right_nor_wrong():
    ax = plot_transport(torch.eye(3) / 3 + torch.ones(3, 3) / 9, labels=[0, 1, -100])
    assert {name: len(lines) for name, lines in edges(ax).items()} == {"unknown": 5, "right": 2, "wrong": 2}
    assert legend(ax)[2] == "unlabelled: 44 %"  # (4/9 + 1/3 + 1/9) / 2


def test_nothing_is_highlighted_where_nobody_knows_who_is_right():
    ax = plot_transport(plan(3, 4))
    assert list(edges(ax)) == ["unknown"]
    assert ax.get_legend() is None


def test_only_the_strongest_edges_of_each_student_are_drawn_and_their_share_is_said():
    p = torch.tensor([[0.30, 0.15, 0.05], [0.05, 0.05, 0.40]])
    ax = plot_transport(p, top=1)
    assert ax.get_xlabel() == "drawn: strongest edge of each student, 70 % of the mass"
    left, right = heights(ax, 0), heights(ax, 1)
    (students,), (teachers,) = left.values(), right.values()
    assert sorted((a, b) for a, b, _ in edges(ax)["unknown"]) == sorted(
        [(students[0], teachers[0]), (students[1], teachers[2])]
    )
    ax = plot_transport(p, top=2)
    assert ax.get_xlabel() == "drawn: 2 strongest edges of each student, 90 % of the mass"


def test_edges_without_mass_are_not_drawn():
    ax = plot_transport(torch.eye(5), top=3)
    assert [len(lines) for lines in edges(ax).values()] == [5]


def test_classes_stand_together_and_apart_from_each_other():
    ax = plot_transport(plan(4, 4), labels=[1, 0, 1, 0])
    left = heights(ax, 0)
    assert list(left) == ["0", "1"]
    steps = -np.diff(left["0"] + left["1"])
    assert np.allclose(steps[[0, 2]], steps[0])
    assert np.isclose(steps[1], 2 * steps[0])


def test_large_plans_are_summed_by_class():
    labels = torch.arange(300) % 3
    p = plan(300, 300) + torch.eye(300)
    p = p / p.sum()
    ax = plot_transport(p, labels=labels, class_names=["cat", "dog", "eel"], top=3)
    assert ax.get_xlabel() == "drawn: 3 strongest edges of each student class, 100 % of the mass"
    left, right = heights(ax, 0), heights(ax, 1)
    assert [len(y) for y in left.values()] == [len(y) for y in right.values()] == [1, 1, 1]
    mass = torch.stack([torch.stack([p[labels == i][:, labels == j].sum() for j in range(3)]) for i in range(3)])
    rows, columns = [y for (y,) in left.values()], [y for (y,) in right.values()]
    drawn = {(a, b): w for lines in edges(ax).values() for a, b, w in lines}
    widths = np.array([[drawn[a, b] for b in columns] for a in rows])
    assert np.allclose(widths / widths.max(), (mass / mass.max()).numpy(), atol=1e-5)


def test_large_plans_without_labels_are_sampled_at_even_steps():
    p = torch.zeros(250, 250)
    p[torch.arange(250), torch.arange(250)] = torch.arange(250) + 1.0
    p[0, 5] = 1000.0
    ax = plot_transport(p, top=2)
    sampled = np.arange(100) * 250 // 100
    drawn = (sampled + 1).sum() + 1000
    assert 5 in sampled
    share = f"{100 * drawn / float(p.sum()):.0f} %"
    assert ax.get_xlabel().splitlines() == [
        f"drawn: 2 strongest edges of each student, {share} of the mass",
        "among 100 of 250 students and 100 of 250 teachers, at even steps",
    ]
    (left,), (right,) = heights(ax, 0).values(), heights(ax, 1).values()
    assert len(left) == len(right) == 100
    widths = {a: w for a, b, w in edges(ax)["right"] if left.index(a) == right.index(b)}
    assert np.allclose([widths[y] for y in left], 1.4 * (sampled + 1) / 1000)
    assert [(left.index(a), right.index(b)) for a, b, _ in edges(ax)["wrong"]] == [(0, 2)]
    assert legend(ax) == ["same sample: 97 %", "another sample: 3 %"]


def test_a_sample_of_unequal_sides_has_no_pairs():
    ax = plot_transport(plan(3, 150), top=1)
    assert ax.get_xlabel().endswith("among all 3 students and 100 of 150 teachers, at even steps")
    assert list(edges(ax)) == ["unknown"]
    assert ax.get_legend() is None
    ax = plot_transport(plan(150, 200), top=1)
    assert list(edges(ax)) == ["unknown"]


def test_of_many_classes_those_with_most_misplaced_mass_are_drawn():
    labels = torch.arange(130)
    p = torch.diag(torch.cat([torch.full((30,), 1000.0), torch.full((100,), 10.0)]))
    p[30:, 129] += torch.arange(100) + 1.0
    p[29, 28] = 0.5
    ax = plot_transport(p, labels=labels)
    assert ax.get_xlabel().splitlines()[1] == "among the 100 of 130 classes with most misplaced mass"
    assert list(heights(ax, 0)) == [str(c) for c in range(30, 130)]
    assert list(heights(ax, 1)) == list(heights(ax, 0))
    total = float(p.sum())
    wrong = (99 * 100 / 2 + 0.5) / total
    assert legend(ax) == [f"same class: {100 - 100 * wrong:.0f} %", f"another class: {100 * wrong:.0f} %"]


def test_mass_from_unlabelled_nodes_is_not_misplaced():
    labels = torch.arange(131)
    labels[0] = -100
    p = torch.eye(131)
    p[0, 1] = p[1, 0] = 50.0
    p[2:, 130] += 1.0
    ax = plot_transport(p, labels=labels)
    assert "1" not in heights(ax, 0) and "unlabelled" not in heights(ax, 0)
    assert "among the 100 of 130 classes" in ax.get_xlabel()


def test_sides_of_different_classes_keep_nodes_on_both():
    students, teachers = list(range(101)), list(range(200, 350))
    ax = plot_transport(torch.ones(101, 150), labels=students, teacher_labels=teachers)
    assert sum(map(len, heights(ax, 0).values())) == sum(map(len, heights(ax, 1).values())) == 100


def test_a_hundred_classes_and_unlabelled_nodes_are_all_drawn():
    labels = [*range(100), -100]
    assert list(heights(plot_transport(plan(101, 101), labels=labels), 0)) == [*map(str, range(100)), "unlabelled"]


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("n", [4, 150])
def test_sparse_plans_are_drawn_like_dense_ones(n, labelled):
    p = plan(n, n) * (plan(n, n) > 0.4 / n**2)
    labels = torch.arange(n) % 3 if labelled else None
    dense, sparse = (plot_transport(each, labels=labels) for each in (p, p.to_sparse()))
    assert dense.get_xlabel() == sparse.get_xlabel() and legend(dense) == legend(sparse)
    assert edges(dense).keys() == edges(sparse).keys()
    for verdict, lines in edges(dense).items():
        assert np.allclose(sorted(lines), sorted(edges(sparse)[verdict]))


def test_names_that_would_overlap_are_left_out():
    ax = plot_transport(plan(80, 80), labels=list(range(80)))
    for side, names in (("student", ax.texts[1:]), ("teacher", ax.texts[1:])):
        found = [t for t in names if t.get_text() != "teacher" and (t.get_position()[0] < 0) == (side == "student")]
        assert 20 < len(found) < 40
        assert (-np.diff([t.get_position()[1] for t in found]) > 0.03).all()


def test_students_and_teachers_may_differ_in_number():
    ax = plot_transport(plan(2, 120), labels=[0, 4], teacher_labels=[c % 5 for c in range(120)])
    assert list(heights(ax, 0)) == ["0", "4"]
    assert list(heights(ax, 1)) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("n", [1, 2, 100])
def test_plans_of_up_to_a_hundred_nodes_are_drawn_node_by_node(n):
    (students,) = heights(plot_transport(plan(n, n)), 0).values()
    assert len(students) == n
    assert 0 <= min(students) and max(students) <= 1


def test_given_axes_are_drawn_on():
    ax = axes_or_new(None, 3, 3)
    assert plot_transport(plan(2, 2), ax=ax, title="P") is ax
    assert ax.get_title() == "P"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="top needs an integer of at least 1, got 0"):
        plot_transport(plan(2, 2), top=0)
    with pytest.raises(ValueError, match="teacher_labels"):
        plot_transport(plan(2, 3), labels=[0, 1])
    with pytest.raises(ValueError, match=r"one plan of shape \(n, m\)"):
        plot_transport(torch.rand(2, 3, 3))
