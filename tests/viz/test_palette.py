from itertools import combinations

import networkx as nx
import numpy as np
import pytest
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
