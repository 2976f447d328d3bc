import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from graphkd.viz import palette, plot_class_cost
from graphkd.viz.class_cost import MOST_CLASSES
from graphkd.viz.inputs import axes_or_new


def clusters(c, groups, seed=0):
    """A cost of classes in groups: class i is near those of the same remainder."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(groups, 16, generator=generator)
    x = centres[torch.arange(c) % groups] + 0.4 * torch.randn(c, 16, generator=generator)
    x = torch.nn.functional.normalize(x)
    return (1 - (x @ x.T - 1).exp()).clamp_min(0).fill_diagonal_(0)


def nodes(ax):
    """Places by class name."""
    parts = [c for c in ax.collections if isinstance(c, PathCollection)]
    return {p.get_label(): np.asarray(p.get_offsets())[0] for p in parts}


def edges(ax):
    """Cost and width by the names of both ends."""
    (lines,) = (c for c in ax.collections if isinstance(c, LineCollection))
    names, places = list(nodes(ax)), np.stack(list(nodes(ax).values()))
    found = {}
    for (a, b), cost, width in zip(lines.get_segments(), lines.get_array(), lines.get_linewidths(), strict=True):
        ends = [names[int(np.abs(places - end).sum(1).argmin())] for end in (a, b)]
        found[tuple(ends)] = (float(cost), float(width))
    return found


def distance(ax, first, second):
    return float(np.linalg.norm(nodes(ax)[first] - nodes(ax)[second]))


def boxes(ax):
    ax.figure.draw_without_rendering()
    return [text.get_window_extent() for text in ax.texts]


COST = torch.tensor([[0.0, 0.1, 0.6, 0.9], [0.1, 0.0, 0.5, 0.8], [0.6, 0.5, 0.0, 0.3], [0.9, 0.8, 0.3, 0.0]])


def test_each_class_is_joined_with_its_cheapest_others():
    ax = plot_class_cost(COST, k=1)
    assert set(edges(ax)) == {("0", "1"), ("2", "3")}
    assert ax.get_xlabel() == "each class joined with its cheapest other"
    ax = plot_class_cost(COST, k=2)
    assert set(edges(ax)) == {("0", "1"), ("2", "3"), ("1", "2"), ("0", "2"), ("1", "3")}
    assert ax.get_xlabel() == "each class joined with its 2 cheapest others"


def test_more_neighbours_than_there_are_join_all():
    ax = plot_class_cost(COST, k=9)
    assert len(edges(ax)) == 6
    assert ax.get_xlabel() == "each class joined with its 3 cheapest others"


def test_an_edge_has_its_cost_and_is_the_wider_and_darker_the_cheaper():
    ax = plot_class_cost(COST)
    found = edges(ax)
    assert found["0", "1"][0] == pytest.approx(0.1) and found["0", "3"][0] == pytest.approx(0.9)
    by_cost = sorted(found.values())
    widths = [width for _, width in by_cost]
    assert widths == sorted(widths, reverse=True) and widths[0] > 4 * widths[-1]
    (lines,) = (c for c in ax.collections if isinstance(c, LineCollection))
    grey = [lines.to_rgba(cost)[0] for cost, _ in by_cost]
    assert (np.diff(grey) > 0).all()
    (bar,) = ax.child_axes
    assert bar.get_ylabel() == "cost of an edge"
    assert lines.get_clim() == pytest.approx((0.1, 0.9))


def test_the_cheapest_edges_are_drawn_last():
    (lines,) = (c for c in plot_class_cost(COST).collections if isinstance(c, LineCollection))
    assert (np.diff(lines.get_array()) < 0).all()


def test_cheap_classes_stand_together():
    ax = plot_class_cost(COST)
    assert distance(ax, "0", "1") < distance(ax, "2", "3") < distance(ax, "1", "2") < distance(ax, "0", "3")


def test_places_keep_the_ratios_of_costs_that_a_plane_can_hold():
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-1.0, 2.0]])
    cost = torch.cdist(points, points)
    places = torch.from_numpy(np.stack(list(nodes(plot_class_cost(cost)).values())))
    ratios = (torch.cdist(places, places) / cost)[~torch.eye(5, dtype=torch.bool)]
    assert float(ratios.max() / ratios.min()) < 1.02


def test_classes_in_a_row_are_drawn_in_a_row():
    row = torch.randperm(20, generator=torch.Generator().manual_seed(0)).float()[:, None]
    places = torch.from_numpy(np.stack(list(nodes(plot_class_cost(torch.cdist(row, row))).values())))
    ratios = torch.pdist(places) / torch.pdist(row)
    assert float(ratios.max() / ratios.min()) < 1.3


def test_many_classes_have_more_room_and_smaller_nodes():
    few, many = plot_class_cost(clusters(30, 6)), plot_class_cost(clusters(60, 6))
    assert (few.figure.get_size_inches() < many.figure.get_size_inches()).all()
    sizes = [{float(c.get_sizes()[0]) for c in ax.collections if isinstance(c, PathCollection)} for ax in (few, many)]
    assert len(sizes[0]) == len(sizes[1]) == 1 and sizes[0].pop() > 1.5 * sizes[1].pop()


def test_distances_are_to_one_scale_with_room_for_names():
    ax = plot_class_cost(COST)
    assert ax.get_aspect() == 1
    assert ax.margins() == (0.12, 0.12)


def test_both_directions_count_and_the_diagonal_does_not():
    cost = COST.clone()
    cost[0, 1] += 0.2
    cost.fill_diagonal_(5)
    assert edges(plot_class_cost(cost))["0", "1"][0] == pytest.approx(0.2)
    mirrored = edges(plot_class_cost(cost.T.contiguous()))
    assert mirrored == edges(plot_class_cost(cost))


def test_the_cost_is_left_as_it_came():
    cost = COST.clone().fill_diagonal_(5)
    kept = cost.clone()
    plot_class_cost(cost)
    assert torch.equal(cost, kept)


def test_a_class_has_its_name_and_the_colour_that_it_has_everywhere():
    ax = plot_class_cost(COST, class_names=["cat", "dog", "eel", "fox"])
    assert set(nodes(ax)) == {"cat", "dog", "eel", "fox"} == {text.get_text() for text in ax.texts}
    parts = [c for c in ax.collections if isinstance(c, PathCollection)]
    assert [to_hex(p.get_facecolor()[0]).upper() for p in parts] == [palette.class_colour(i).upper() for i in range(4)]
    assert {tuple(text.xy) for text in ax.texts} == {tuple(place) for place in nodes(ax).values()}


@pytest.mark.parametrize("cost", [torch.zeros(5, 5), 1 - torch.eye(5), torch.zeros(2, 2), 1 - torch.eye(2)])
def test_equal_costs_part_the_classes_all_the_same(cost):
    ax = plot_class_cost(cost)
    places = torch.from_numpy(np.stack(list(nodes(ax).values())))
    assert torch.pdist(places).min() > 0.3
    (bar,) = ax.child_axes
    assert [float(tick) for tick in bar.get_yticks()] == [float(cost[0, 1])]
    assert [width for _, width in edges(ax).values()] == pytest.approx([1.8] * len(edges(ax)))
    (lines,) = (c for c in ax.collections if isinstance(c, LineCollection))
    assert lines.get_clim() == (float(cost[0, 1]) - 0.5, float(cost[0, 1]) + 0.5)


def test_classes_without_a_difference_are_not_drawn_at_infinity():
    cost = COST.clone()
    cost[0, 1] = cost[1, 0] = 0
    assert np.isfinite(np.stack(list(nodes(plot_class_cost(cost)).values()))).all()


@pytest.mark.parametrize("names", [None, [f"a class of a long name {i}" for i in range(60)]])
def test_names_overlap_neither_names_nor_the_bar(names):
    ax = plot_class_cost(clusters(60, 12), class_names=names)
    found = boxes(ax)
    assert len(found) > 20
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])
    bar = ax.child_axes[0].get_window_extent()
    assert not any(box.overlaps(bar) for box in found)
    points = ax.transData.transform(np.stack(list(nodes(ax).values())))
    assert not any(box.contains(*point) for box in found for point in points)
    assert {text.get_text() for text in ax.texts} <= set(nodes(ax))
    left_out = 60 - len(found)
    assert (f"{left_out} of 60 names left out" in ax.get_xlabel()) == (left_out > 0)


def test_nodes_on_the_cheapest_edges_are_named_first():
    ax = plot_class_cost(COST[[2, 0, 3, 1]][:, [2, 0, 3, 1]])
    assert [text.get_text() for text in ax.texts] == ["1", "3", "0", "2"]


def test_a_name_stands_on_the_side_away_from_the_edges():
    ax = plot_class_cost(1 - torch.eye(2))
    points = dict(zip(nodes(ax), ax.transData.transform(np.stack(list(nodes(ax).values()))), strict=True))
    for name, other in (("0", "1"), ("1", "0")):
        (text,) = (text for text in ax.texts if text.get_text() == name)
        assert np.dot(text.xyann, points[name] - points[other]) > 0


def test_names_of_panels_side_by_side_do_not_overlap():
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for ax in figure.subplots(1, 2):
        plot_class_cost(clusters(12, 3), ax=ax)
    for ax in figure.axes[:2]:
        found = boxes(ax)
        assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])


def test_classes_that_start_at_one_place_come_apart(monkeypatch):
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: (np.ones(len(matrix)), np.zeros_like(matrix)))
    cost = torch.cdist(torch.randn(9, 2), torch.randn(9, 2))
    places = np.array(list(nodes(plot_class_cost(cost + cost.T)).values()))
    assert np.isfinite(places).all()
    assert np.linalg.norm(places[:, None] - places, axis=-1)[~np.eye(9, dtype=bool)].min() > 0.01


def test_of_many_classes_those_are_drawn_that_are_confused_most_easily():
    c = MOST_CLASSES + 50
    cost = torch.ones(c, c).fill_diagonal_(0)
    near = torch.arange(40, 40 + MOST_CLASSES)
    for i, j in near.view(-1, 2).tolist():
        cost[i, j] = cost[j, i] = 0.5 - i / 1000
    ax = plot_class_cost(cost, k=1)
    assert list(nodes(ax)) == [str(i) for i in near.tolist()]
    assert set(edges(ax)) == {(str(i), str(i + 1)) for i in range(40, 40 + MOST_CLASSES, 2)}
    assert {text.get_text() for text in ax.texts} <= set(nodes(ax))
    assert "100 of 150 classes: those with the cheapest other class" in ax.get_xlabel()
    assert "classes" not in plot_class_cost(cost[:100, :100], k=1).get_xlabel()


def test_the_same_cost_gives_the_same_places():
    first, second = (nodes(plot_class_cost(clusters(20, 4))) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_half_precision_costs_are_drawn():
    assert len(nodes(plot_class_cost(COST.half().requires_grad_()))) == 4


def test_given_axes_are_drawn_on():
    ax = axes_or_new(None, 3, 3)
    assert plot_class_cost(COST, ax=ax, title="classes") is ax
    assert ax.get_title() == "classes"


@pytest.mark.parametrize(
    ("cost", "came"),
    [
        (torch.rand(1, 1), r"a cost \(c c\) of at least two classes, got shape \(1, 1\)"),
        (-COST, "numbers of at least 0, got a smallest of -0.9"),
        (COST / 0, "cost needs finite values"),
        (COST.long(), "cost needs floating-point values"),
    ],
)
def test_what_is_no_cost_is_refused(cost, came):
    with pytest.raises(ValueError, match=came):
        plot_class_cost(cost)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 3), (3,)])
def test_a_cost_that_is_not_square_is_refused(shape):
    with pytest.raises((ValueError, TypeCheckError)):  # With shape checks on, it does not get as far as ours.
        plot_class_cost(torch.rand(shape))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="k needs an integer of at least 1, got 0"):
        plot_class_cost(COST, k=0)
    with pytest.raises(ValueError, match="name for class 3, got 3 names"):
        plot_class_cost(COST, class_names=["cat", "dog", "eel"])
