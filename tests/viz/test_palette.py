from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb

from graphkd.viz import palette
from graphkd.viz.inputs import axes_or_new

# Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009),
# full severity, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def cielab(colour, sight):
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(np.asarray(SIGHT[sight]) @ linear, 0, 1) / TO_XYZ.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_ten_classes_and_unlabelled_nodes_differ_by_colour(sight):
    colours = {palette.class_colour(c) for c in [*range(10), -100]}
    assert len(colours) == 11
    apart = [np.linalg.norm(cielab(a, sight) - cielab(b, sight)) for a, b in combinations(colours, 2)]
    assert min(apart) > 15


def test_a_hundred_classes_differ_by_colour_or_shape():
    assert len({(palette.class_colour(c), palette.class_marker(c)) for c in range(100)}) == 100


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_ten_classes_in_a_row_differ_by_shape(first):
    assert len({palette.class_marker(c) for c in range(first, first + 10)}) == 10


def lightness(colour, alpha):
    """Of a line on white paper, from 0 to 100."""
    return cielab(alpha * np.array(to_rgb(colour)) + 1 - alpha, "normal")[0]


def test_right_and_wrong_mass_differ_by_more_than_hue():
    right, wrong = palette.VERDICTS[1], palette.VERDICTS[-1]
    assert right.dash is None and wrong.dash is not None
    assert lightness(wrong.colour, wrong.alpha) < lightness(right.colour, right.alpha) - 5
    assert np.linalg.norm(cielab(right.colour, "deuteranopia") - cielab(wrong.colour, "deuteranopia")) > 15


def drawn_mass(found, widths):
    """The lines by what they are called."""
    ax = axes_or_new(None, 2, 2)
    ends = np.arange(4.0 * len(found)).reshape(-1, 2, 2)
    palette.draw_mass(ax, ends, np.array(found), np.array(widths))
    return {c.get_label(): c for c in ax.collections if isinstance(c, LineCollection)}, ends


def test_mass_is_drawn_line_by_line_the_wrong_on_top():
    parts, ends = drawn_mass([-1, 1, 0, -1], [1.0, 2.0, 3.0, 4.0])
    assert list(parts) == ["unknown", "right", "wrong"]
    assert np.array_equal(parts["wrong"].get_segments(), ends[[0, 3]])
    assert parts["wrong"].get_linewidths().tolist() == [1, 4]
    assert np.array_equal(parts["right"].get_segments(), ends[[1]])
    for name, verdict in (("unknown", 0), ("right", 1), ("wrong", -1)):
        look = palette.VERDICTS[verdict]
        assert to_hex(parts[name].get_color()[0]).upper() == look.colour and parts[name].get_alpha() == look.alpha
        assert parts[name].get_zorder() < 1


def test_dashes_of_thin_lines_are_long_enough_to_be_drawn():
    parts, _ = drawn_mass([-1] * 4, [0.0, 1e-9, 0.2, 2.0])
    dashes = np.array([dash for _, dash in parts["wrong"].get_linestyles()])
    assert np.allclose(dashes, np.outer([1, 1, 1, 2], palette.VERDICTS[-1].dash))
    parts["wrong"].figure.draw_without_rendering()


def test_the_legend_of_a_plan_tells_what_is_known():
    handles = palette.mass_handles({1: 0.5, -1: 0.2, 0: 0.3}, "sample")
    labels = [handle.get_label() for handle in handles]
    assert labels == ["same sample: 50 %", "another sample: 20 %", "unlabelled: 30 %"]
    for handle, verdict in zip(handles, (1, -1, 0), strict=True):
        look = palette.VERDICTS[verdict]
        assert (handle.get_color().upper(), handle.get_alpha()) == (look.colour, look.alpha)
        assert handle.is_dashed() == (verdict == -1)
    assert len(palette.mass_handles({1: 0.0, -1: 1.0, 0: 0.0}, "class")) == 2
    assert palette.mass_handles({}, "class") == []


def test_nodes_are_grouped_by_class_with_unlabelled_ones_last():
    classes = np.array([12, -100, 1, 12])
    positions = {node: np.array([float(node), -1.0]) for node in (5, 6, 7, 8)}
    graph = nx.empty_graph(9)
    parts = palette.draw_nodes(graph, [5, 6, 7, 8], positions, classes, axes_or_new(None, 2, 2), 30)
    assert [part.get_label() for part in parts] == ["1", "12", "unlabelled"]
    assert [part.get_offsets()[:, 0].tolist() for part in parts] == [[7], [5, 8], [6]]
    assert [to_hex(part.get_facecolor()[0]).upper() for part in parts] == ["#E69F00", "#009E73", palette.GREY]


def test_nodes_without_classes_look_alike():
    positions = {i: np.zeros(2) for i in range(3)}
    (part,) = palette.draw_nodes(nx.empty_graph(3), range(3), positions, None, axes_or_new(None, 2, 2), 30)
    assert len(part.get_offsets()) == 3
    assert to_hex(part.get_facecolor()[0]).upper() == palette.INK


def test_each_node_may_have_a_size_of_its_own():
    positions = {i: np.zeros(2) for i in range(3)}
    parts = palette.draw_nodes(
        nx.empty_graph(3),
        range(3),
        positions,
        np.array([1, 0, 1]),
        axes_or_new(None, 2, 2),
        np.array([10.0, 20.0, 30.0]),
    )
    assert [part.get_sizes().tolist() for part in parts] == [[20], [10, 30]]


def test_curves_differ_by_line_or_lightness_or_colour():
    looks = [palette.curve_look(i) for i in range(50)]
    assert len(set(looks)) == 50
    for (colour, line), (other, style) in combinations(looks[:10], 2):
        assert line != style or abs(lightness(colour, 1.0) - lightness(other, 1.0)) > 10
