import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from torch_geometric.data import Batch, Data

from graphkd.graphs import knn_graph, point_cloud, similarity_graph
from graphkd.viz import graph_layout, palette, plot_graph
from graphkd.viz.inputs import axes_or_new


def edges(ax):
    return [c for c in ax.collections if isinstance(c, LineCollection)]


def nodes(ax):
    return [c for c in ax.collections if isinstance(c, PathCollection)]


def two_classes(n=20):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    x = torch.randn(n, 4, generator=generator) + 8 * torch.nn.functional.one_hot(labels, 4)
    return knn_graph(x, 4), labels


def test_layout_depends_on_the_seed_alone():
    graph, _ = two_classes()
    first, again, other = graph_layout(graph, seed=1), graph_layout(graph, seed=1), graph_layout(graph, seed=2)
    assert sorted(first) == list(range(20))
    assert all(np.array_equal(first[i], again[i]) for i in first)
    assert not all(np.allclose(first[i], other[i]) for i in first)


def test_layout_ignores_features_and_labels():
    graph, labels = two_classes()
    bare = Data(x=torch.zeros(20, 1), edge_index=graph.edge_index)
    full = Data(x=torch.rand(20, 3), edge_index=graph.edge_index, y=labels)
    assert all(np.array_equal(graph_layout(bare)[i], at) for i, at in graph_layout(full).items())


def test_joined_nodes_are_near_and_unjoined_parts_do_not_fly_apart():
    graph, labels = two_classes()
    at = np.stack([graph_layout(graph)[i] for i in range(20)])
    centres = np.stack([at[labels == c].mean(0) for c in (0, 1)])
    within = np.linalg.norm(at - centres[labels], axis=1)
    between = np.linalg.norm(centres[0] - centres[1])
    assert within.max() < between
    assert between < 6 * within.mean()


def test_a_large_weight_pulls_more_than_a_small_one():
    star = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4]])
    at = graph_layout(Data(x=torch.zeros(5, 1), edge_index=star, edge_weight=torch.tensor([1.0, 1.0, 0.05, -1.0])))
    length = [np.linalg.norm(at[0] - at[i]) for i in range(1, 5)]
    assert 1.2 * max(length[:2]) < min(length[2:])


def test_a_negative_weight_pulls_no_more_than_none():
    star = torch.tensor([[0, 0, 0], [1, 2, 3]])
    negative, none = (
        graph_layout(Data(x=torch.zeros(4, 1), edge_index=star, edge_weight=torch.tensor([1.0, 0.5, weight])))
        for weight in (-1.0, 0.0)
    )
    assert all(np.array_equal(negative[i], none[i]) for i in range(4))


def test_each_joined_pair_is_drawn_once_without_self_loops():
    edge_index = torch.tensor([[0, 1, 1, 2, 2], [1, 0, 2, 2, 0]])
    (lines,) = edges(plot_graph(Data(x=torch.zeros(3, 1), edge_index=edge_index)))
    assert len(lines.get_segments()) == 3


def test_edges_join_the_places_of_their_nodes():
    at = {0: np.array([0.0, 0.0]), 1: np.array([1.0, 0.0]), 2: np.array([0.0, 2.0])}
    graph = Data(x=torch.zeros(3, 1), edge_index=torch.tensor([[2], [1]]))
    ax = plot_graph(graph, positions=at)
    assert edges(ax)[0].get_segments()[0].tolist() == [[1, 0], [0, 2]]
    assert nodes(ax)[0].get_offsets().tolist() == [[0, 0], [1, 0], [0, 2]]


def test_heavy_edges_are_wide_and_dark_and_negative_ones_dashed():
    edge_index = torch.tensor([[0, 1, 0, 1], [1, 0, 2, 2]])
    weight = torch.tensor([1.0, 0.8, 0.3, -0.5], requires_grad=True)  # 0-1 mean 0.9, 0-2 0.3, 1-2 -0.5
    (lines,) = edges(plot_graph(Data(x=torch.zeros(3, 1), edge_index=edge_index, edge_weight=weight)))
    widths = lines.get_linewidths()
    share = np.array([0.9, 0.3, 0.5]) / 0.9
    assert np.allclose(widths, 0.2 + 1.4 * share)
    assert np.argsort(lines.get_edgecolors()[:, 3]).tolist() == [1, 2, 0]
    assert [dashes is not None for _, dashes in lines.get_linestyles()] == [False, False, True]


def test_nodes_take_the_colour_of_their_class():
    graph = point_cloud(torch.zeros(4, 2))
    ax = plot_graph(graph, labels=[1, 0, -100, 1], class_names=["cat", "dog"])
    assert {p.get_label(): to_hex(p.get_facecolor()[0]).upper() for p in nodes(ax)} == {
        "cat": palette.COLOURS[0],
        "dog": palette.COLOURS[1],
        "unlabelled": palette.GREY,
    }
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["cat", "dog", "unlabelled"]


def test_labels_are_those_of_the_graph_unless_given():
    graph = point_cloud(torch.zeros(2, 2))
    graph.y = torch.tensor([4, 7])
    assert [p.get_label() for p in nodes(plot_graph(graph))] == ["4", "7"]
    assert [p.get_label() for p in nodes(plot_graph(graph, labels=[1, 1]))] == ["1"]


def test_a_graph_without_labels_has_no_legend():
    ax = plot_graph(point_cloud(torch.zeros(2, 2)), title="student")
    assert ax.get_legend() is None
    assert ax.get_title() == "student"


@pytest.mark.parametrize("n", [1, 2, 300])
def test_graphs_of_any_size_are_drawn(n):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    graph = knn_graph(x, 5) if n > 1 else point_cloud(x)
    ax = plot_graph(graph, labels=torch.arange(n) % 7)
    assert sum(len(p.get_offsets()) for p in nodes(ax)) == n
    assert len(edges(ax)) == (n > 1)


def test_a_batch_of_graphs_is_one_picture():
    batch = similarity_graph(torch.rand(3, 4, 2, requires_grad=True))
    assert isinstance(batch, Batch)
    ax = plot_graph(batch)
    assert len(nodes(ax)[0].get_offsets()) == 12
    assert len(edges(ax)[0].get_segments()) == 3 * 6


def test_many_classes_are_drawn_without_a_legend():
    ax = plot_graph(point_cloud(torch.zeros(60, 2)), labels=list(range(60)))
    assert len(nodes(ax)) == 60
    assert ax.get_legend() is None


def test_given_axes_are_drawn_on_and_pyplot_stays_as_it_was():
    before = pyplot.get_fignums()
    ax = axes_or_new(None, 3, 3)
    assert plot_graph(point_cloud(torch.zeros(2, 2)), ax=ax) is ax
    assert pyplot.get_fignums() == before


def test_weights_and_labels_that_do_not_fit_are_refused():
    edge_index = torch.tensor([[0, 1], [1, 2]])
    x = torch.zeros(3, 1)
    with pytest.raises(ValueError, match=r"finite number per edge, \(2,\), got \(3,\)"):
        plot_graph(Data(x=x, edge_index=edge_index, edge_weight=torch.ones(3)))
    with pytest.raises(ValueError, match="finite number per edge"):
        graph_layout(Data(x=x, edge_index=edge_index, edge_weight=torch.tensor([1.0, torch.nan])))
    with pytest.raises(ValueError, match=r"labels needs one integer per node, shape \(3,\)"):
        plot_graph(Data(x=x, edge_index=edge_index), labels=[0, 1])
    with pytest.raises(ValueError, match="place for each of 3 nodes, got none for 2"):
        plot_graph(Data(x=x, edge_index=edge_index), positions={1: np.zeros(2)})
    with pytest.raises(ValueError, match="at least one node, got 0"):
        plot_graph(Data(x=torch.zeros(0, 1), edge_index=torch.zeros(2, 0, dtype=torch.int64)))
