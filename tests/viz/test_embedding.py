import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from torch_geometric.data import Data

from graphkd.typing import Comparison
from graphkd.viz import palette, plot_embedding
from graphkd.viz.embedding import MOST_SAMPLES
from graphkd.viz.inputs import axes_or_new

SIDES = ("student", "teacher")


def rows(n, d=8, seed=0, classes=2):
    """Rows around a centre per class; row i is of class i % classes."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(classes, d, generator=torch.Generator().manual_seed(99))
    return centres[torch.arange(n) % classes] + 0.3 * torch.randn(n, d, generator=generator)


def places(ax, side):
    """Places of one network's nodes by class name, and how they are filled."""
    parts = [c for c in ax.collections if isinstance(c, PathCollection) and c.get_gid() == side]
    return {p.get_label(): np.asarray(p.get_offsets()) for p in parts}


def all_places(ax, side):
    return np.concatenate(list(places(ax, side).values()))


def lines(ax):
    """Ends of the lines by verdict."""
    return {c.get_label(): np.array(c.get_segments()) for c in ax.collections if isinstance(c, LineCollection)}


def joined(ax, verdict):
    """Which student and teacher the lines join, without labels."""
    ends = lines(ax)[verdict]
    return {
        tuple(int(np.abs(all_places(ax, side) - end).sum(1).argmin()) for side, end in zip(SIDES, pair, strict=True))
        for pair in ends
    }


def compared(plan):
    zero, graph = torch.zeros(()), Data(x=torch.zeros(3, 1))
    return Comparison(zero, plan, None, None, zero, torch.ones((), dtype=torch.bool), (graph, graph))


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_students_are_filled_and_teachers_hollow_in_the_colour_of_their_class():
    ax = plot_embedding(rows(6), rows(6, seed=1), labels=[0, 1] * 3, class_names=["cat", "dog"], method="pca")
    for side in SIDES:
        assert {name: len(at) for name, at in places(ax, side).items()} == {"cat": 3, "dog": 3}
    parts = [c for c in ax.collections if isinstance(c, PathCollection)]
    student, teacher = parts[:2], parts[2:]
    colours = [palette.class_colour(c).upper() for c in (0, 1)]
    assert [to_hex(p.get_facecolor()[0]).upper() for p in student] == colours
    assert [to_hex(p.get_edgecolor()[0]).upper() for p in teacher] == colours
    assert all(len(p.get_facecolor()) == 0 for p in teacher)
    assert legend(ax) == ["student", "teacher", "same sample", "cat", "dog"]
    handles = ax.get_legend().legend_handles[3:]
    assert [handle.get_color().upper() for handle in handles] == colours
    assert [handle.get_marker() for handle in handles] == [palette.class_marker(c) for c in (0, 1)]
    networks = ax.get_legend().legend_handles[:2]
    assert networks[0].get_markerfacecolor() == palette.INK and networks[1].get_markerfacecolor() == "none"


def test_teachers_have_classes_of_their_own():
    ax = plot_embedding(rows(4), rows(4, seed=1), labels=[0, 0, 1, 1], teacher_labels=[2, 2, 2, 0], method="pca")
    assert {name: len(at) for name, at in places(ax, "student").items()} == {"0": 2, "1": 2}
    assert {name: len(at) for name, at in places(ax, "teacher").items()} == {"0": 1, "2": 3}
    assert legend(ax)[-3:] == ["0", "1", "2"]


def test_many_samples_have_smaller_nodes_and_thinner_lines_to_one_scale():
    few, many = (plot_embedding(rows(n), rows(n, seed=1), method="pca") for n in (30, 150))
    for kind, measure in ((PathCollection, "get_sizes"), (LineCollection, "get_linewidths")):
        first, second = (
            {float(getattr(c, measure)()[0]) for c in ax.collections if isinstance(c, kind)} for ax in (few, many)
        )
        assert len(first) == len(second) == 1 and first.pop() > 2 * second.pop()
    assert few.get_aspect() == 1


def test_rows_of_one_width_are_embedded_at_unit_length_together():
    student, teacher = rows(5), rows(7, seed=1)
    ax = plot_embedding(student, teacher, method="pca")
    unit = torch.nn.functional.normalize(torch.cat([student, teacher]).double())
    left, scale, _ = torch.linalg.svd(unit - unit.mean(0), full_matrices=False)
    wanted = left[:, :2] * scale[:2]
    found = np.concatenate([all_places(ax, side) for side in SIDES])
    assert np.allclose(np.abs(found), wanted.abs().numpy(), atol=1e-6)
    share = scale**2 / (scale**2).sum()
    assert ax.get_xlabel() == f"PCA ({share[0]:.0%} and {share[1]:.0%} of the variance) of rows at unit length".replace(
        "%", " %"
    )


def test_the_length_of_rows_does_not_matter():
    student, teacher = rows(5), rows(5, seed=1)
    first = plot_embedding(student, teacher, method="pca")
    second = plot_embedding(100 * student, teacher / 7, method="pca")
    assert all(np.allclose(all_places(first, side), all_places(second, side), atol=1e-6) for side in SIDES)


def test_rows_of_different_width_are_told_by_their_similarities():
    student = rows(6, classes=4)
    turned = torch.linalg.qr(torch.randn(11, 8, generator=torch.Generator().manual_seed(0)))[0].T
    ax = plot_embedding(student, student @ turned, method="pca")
    # A rotation keeps all similarities.
    assert np.allclose(all_places(ax, "student"), all_places(ax, "teacher"), atol=1e-5)
    assert np.ptp(all_places(ax, "student"), axis=0).min() > 0.1
    assert "of standardised similarities within each network" in ax.get_xlabel()


def test_a_network_whose_samples_are_all_more_alike_stands_on_the_other():
    student = torch.nn.functional.normalize(rows(6, classes=4))
    alike = torch.cat([student, torch.full((len(student), 1), 3.0)], 1)
    ax = plot_embedding(student, alike, method="pca")
    assert np.allclose(all_places(ax, "student"), all_places(ax, "teacher"), atol=1e-4)


def test_lines_join_the_rows_of_one_sample_without_a_plan():
    ax = plot_embedding(rows(5), rows(5, seed=1), method="pca")
    assert joined(ax, "unknown") == {(i, i) for i in range(5)}
    assert legend(ax) == ["student", "teacher", "same sample"]
    ax = plot_embedding(rows(5), rows(6, seed=1), method="pca")
    assert lines(ax) == {} and legend(ax) == ["student", "teacher"]


PLAN = torch.tensor([[0.2, 0.1, 0.0], [0.0, 0.0, 0.3], [0.05, 0.15, 0.2]])


@pytest.mark.parametrize("plan", [PLAN, PLAN.to_sparse(), PLAN.requires_grad_()])
def test_lines_lead_to_the_strongest_partners(plan):
    ax = plot_embedding(rows(3), rows(3, seed=1), plan=plan, method="pca")
    assert joined(ax, "right") == {(0, 0), (2, 2)} and joined(ax, "wrong") == {(1, 2)}
    assert "lines: strongest partner of each student" in ax.get_xlabel()
    ax = plot_embedding(rows(3), rows(3, seed=1), plan=plan, method="pca", top=2)
    assert joined(ax, "right") == {(0, 0), (2, 2)} and joined(ax, "wrong") == {(0, 1), (1, 2), (2, 1)}
    assert "lines: 2 strongest partners of each student" in ax.get_xlabel()
    assert legend(ax)[2:] == ["same sample: 40 %", "another sample: 60 %"]
    colours = {c.get_label(): to_hex(c.get_color()[0]).upper() for c in ax.collections if isinstance(c, LineCollection)}
    assert colours == {"right": palette.RIGHT, "wrong": palette.WRONG}


def test_right_and_wrong_lines_differ_in_grey_print():
    ax = plot_embedding(rows(3), rows(3, seed=1), plan=PLAN, method="pca")
    dashes = {c.get_label(): c.get_linestyles()[0][1] for c in ax.collections if isinstance(c, LineCollection)}
    assert dashes["right"] is None and dashes["wrong"] is not None
    right, wrong = ax.get_legend().legend_handles[2:]
    assert not right.is_dashed() and wrong.is_dashed()


def test_a_comparison_is_drawn():
    ax = plot_embedding(rows(3), rows(3, seed=1), plan=compared(PLAN), method="pca")
    assert joined(ax, "wrong") == {(1, 2)}


def test_mass_on_another_class_is_highlighted_with_labels():
    ax = plot_embedding(
        rows(3), rows(3, seed=1), plan=PLAN, labels=[0, 1, 1], teacher_labels=[1, 0, 1], method="pca", top=3
    )
    assert {name: len(ends) for name, ends in lines(ax).items()} == {"right": 4, "wrong": 2}
    assert legend(ax)[2:] == ["same class: 65 %", "another class: 35 %", "0", "1"]


def test_mass_of_unlabelled_rows_is_neither_right_nor_wrong():
    ax = plot_embedding(
        rows(3), rows(3, seed=1), plan=PLAN, labels=[0, -100, 1], teacher_labels=[0, 1, -100], method="pca"
    )
    assert {name: len(ends) for name, ends in lines(ax).items()} == {"unknown": 2, "right": 1}
    assert legend(ax)[2:] == ["same class: 35 %", "another class: 15 %", "unlabelled: 50 %", "0", "1", "unlabelled"]
    nobody = plot_embedding(rows(2), rows(2, seed=1), plan=torch.eye(2), labels=[-100, -100], method="pca")
    assert legend(nobody) == ["student", "teacher", "unlabelled"]
    (hollow,) = (p for p in nobody.collections if isinstance(p, PathCollection) and p.get_gid() == "teacher")
    assert to_hex(hollow.get_edgecolor()[0]) == "#808080"


def test_nothing_is_highlighted_where_nobody_knows_who_is_right():
    ax = plot_embedding(rows(3), rows(4, seed=1), plan=torch.rand(3, 4), method="pca")
    assert list(lines(ax)) == ["unknown"] and legend(ax) == ["student", "teacher"]


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_classes_that_lie_apart_are_drawn_apart(method):
    ax = plot_embedding(rows(40), rows(40, seed=1), labels=[0, 1] * 20, method=method)
    for side in SIDES:
        for other in SIDES:
            same = np.linalg.norm(places(ax, side)["0"][:, None] - places(ax, other)["0"], axis=-1)
            apart = np.linalg.norm(places(ax, side)["0"][:, None] - places(ax, other)["1"], axis=-1)
            assert same.max() < apart.min()


def test_the_same_seed_gives_the_same_places():
    student, teacher = rows(20), rows(20, seed=1)
    first, second, other = (all_places(plot_embedding(student, teacher, seed=s), "student") for s in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    wide = rows(300, 200), rows(300, 200, seed=1)
    first, second = (all_places(plot_embedding(*wide, method="pca"), "student") for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("method", ["tsne", "pca"])
@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 3), (1, 2, 3), (2, 2, 1), (2, 2, 4), (3, 3, 2)])
def test_few_samples_are_embedded(n, m, d, method):
    ax = plot_embedding(rows(n, d), rows(m, d, seed=1), method=method)
    assert np.isfinite(all_places(ax, "student")).all() and len(all_places(ax, "teacher")) == m
    ax.figure.draw_without_rendering()


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_equal_rows_are_embedded(method):
    ax = plot_embedding(torch.ones(3, 4), torch.ones(3, 4), method=method)
    assert np.array_equal(all_places(ax, "student"), np.zeros((3, 2)))
    twice = rows(4).repeat(2, 1)
    ax = plot_embedding(twice, twice, method=method)
    assert np.isfinite(all_places(ax, "student")).all()


def test_rows_in_one_dimension_do_not_stay_on_a_line():
    x = torch.linspace(-1, 1, 30)[:, None]
    ax = plot_embedding(x, x)
    assert np.ptp(all_places(ax, "student"), axis=0).min() > 0.1


def test_of_many_samples_some_are_drawn_the_same_on_both_sides():
    n = MOST_SAMPLES + 100
    student, labels = rows(n, classes=10), torch.arange(n) % 10
    plan = torch.eye(n).roll(1, 1)
    ax = plot_embedding(student, student, plan=plan, labels=labels, method="pca")
    assert np.array_equal(all_places(ax, "student"), all_places(ax, "teacher"))
    assert len(all_places(ax, "student")) == MOST_SAMPLES
    assert len(places(ax, "student")) == 10
    assert ax.get_xlabel().endswith(f"drawn: {MOST_SAMPLES} samples of {n}, lines between these")
    assert legend(ax)[3] == "another class: 100 %"
    drawn = np.sort(np.random.default_rng(0).permutation(n)[:MOST_SAMPLES])
    assert len(lines(ax)["wrong"]) == np.isin((drawn + 1) % n, drawn).sum() < MOST_SAMPLES
    unpaired = plot_embedding(student, rows(20, seed=1), method="pca")
    assert f"drawn: {MOST_SAMPLES} of {n} students, 20 of 20 teachers" in unpaired.get_xlabel()


def test_a_sample_of_pairs_of_different_width_is_drawn():
    n = MOST_SAMPLES + 1
    ax = plot_embedding(rows(n), rows(n, 5, seed=1), method="pca")
    assert len(lines(ax)["unknown"]) == len(all_places(ax, "teacher")) == MOST_SAMPLES


def test_many_classes_are_not_named():
    ax = plot_embedding(rows(41), rows(41, seed=1), labels=list(range(41)), method="pca")
    assert legend(ax) == ["student", "teacher", "same sample"]
    ax = plot_embedding(rows(40), rows(40, seed=1), labels=list(range(40)), method="pca")
    assert len(legend(ax)) == 43 and ax.get_legend()._ncols == 2


def test_given_axes_are_drawn_on():
    ax = axes_or_new(None, 3, 3)
    assert plot_embedding(rows(3).half(), rows(3).double(), method="pca", ax=ax, title="both") is ax
    assert ax.get_title() == "both"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"one width, or as many students .* got shapes \(3, 8\) and \(4, 5\)"):
        plot_embedding(rows(3), rows(4, 5))
    with pytest.raises(ValueError, match=r"needs a plan of shape \(3, 4\) for these rows, got shape \(3, 3\)"):
        plot_embedding(rows(3), rows(4), plan=compared(PLAN))
    with pytest.raises(ValueError, match="finite masses, none below 0"):
        plot_embedding(rows(3), rows(3), plan=-PLAN)
    with pytest.raises(ValueError, match="top needs an integer of at least 1, got 0"):
        plot_embedding(rows(3), rows(3), top=0)
    with pytest.raises((ValueError, TypeCheckError)):  # With shape checks on, it does not get as far as ours.
        plot_embedding(rows(3), rows(3), method="umap")
    with pytest.raises(ValueError, match="teacher needs finite values"):
        plot_embedding(rows(3), rows(3) / 0)
    with pytest.raises(ValueError, match="teacher_labels"):
        plot_embedding(rows(3), rows(4), labels=[0, 1, 0])
    with pytest.raises(ValueError, match="name for class 1, got 1 names"):
        plot_embedding(rows(3), rows(3), labels=[0, 1, 0], class_names=["cat"], method="pca")
