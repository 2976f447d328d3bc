import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from torch_geometric.data import Batch, Data

from graphkd.graphs import knn_graph, point_cloud, similarity_graph
from graphkd.viz import graph_layout, palette, plot_graph, reduced
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


def test_labels_of_a_graph_that_are_not_one_per_node_do_not_count():
    graph = point_cloud(torch.zeros(3, 2))
    graph.y = torch.tensor([4, 7])
    (part,) = nodes(plot_graph(graph))
    assert to_hex(part.get_facecolor()[0]).upper() == palette.INK
    assert len(graph_layout(graph)) == 3


def chains(n, classes=3):
    """Samples in a row of each class, and their classes."""
    labels = torch.arange(n) * classes // n
    ends = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
    return Data(x=torch.zeros(n, 1), edge_index=ends), labels


def named(ax):
    """Drawn nodes by class name, without the rings."""
    return {p.get_label(): p for p in nodes(ax) if not p.get_label().startswith("_")}


def test_five_hundred_nodes_are_drawn_one_by_one_and_more_as_classes():
    for n, count in ((500, 500), (501, 3)):
        graph, labels = chains(n)
        ax = plot_graph(graph, labels=labels, positions={i: np.zeros(2) for i in range(n)})
        assert sum(len(p.get_offsets()) for p in named(ax).values()) == count
        assert ("501 nodes as 3 classes" in ax.get_xlabel()) == (n == 501)
        assert (ax.get_xlabel() == "") == (n == 500)


def test_classes_stand_in_the_middle_of_their_nodes_and_are_sized_by_them():
    graph, _ = chains(600)
    labels = torch.tensor([0] * 300 + [1] * 200 + [-100] * 100)
    at = {i: np.array([i, -i]) for i in range(600)}
    ax = plot_graph(graph, labels=labels, positions=at, class_names=["cat", "dog"])
    found = named(ax)
    assert {name: p.get_offsets().tolist() for name, p in found.items()} == {
        "cat": [[149.5, -149.5]],
        "dog": [[399.5, -399.5]],
        "unlabelled": [[549.5, -549.5]],
    }
    sizes = [float(p.get_sizes()[0]) for p in found.values()]
    assert np.allclose(np.array(sizes) / sizes[0], [1, 2 / 3, 1 / 3])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["cat", "dog", "unlabelled"]
    assert sorted(sorted(s.tolist()) for s in edges(ax)[0].get_segments()) == [
        [[149.5, -149.5], [399.5, -399.5]],
        [[399.5, -399.5], [549.5, -549.5]],
    ]
    assert np.allclose(edges(ax)[0].get_linewidths(), 0.2 + 4)


def arcs(ax):
    """The shares that the dark arcs show, by place."""
    dark = [
        p for p in nodes(ax) if p.get_label().startswith("_") and to_hex(p.get_edgecolor()[0]).upper() == palette.INK
    ]
    turned = {}
    for part in dark:
        x, y = part.get_paths()[0].vertices[[0, -1]].T
        start, stop = np.degrees(np.arctan2(y, x))
        assert np.isclose(stop, 90)
        turned[tuple(part.get_offsets()[0].tolist())] = ((90 - start) % 360 or 360) / 360
    return turned


def test_rings_show_the_share_of_edges_within_a_class():
    graph, labels = chains(600)
    graph.edge_index = torch.cat([graph.edge_index[:, :303], torch.tensor([[0, 0], [599, 598]])], dim=1)
    at = {i: np.array([float(labels[i]), 0.0]) for i in range(600)}
    found = arcs(plot_graph(graph, labels=labels, positions=at))
    # class 0: 199 within, one to class 1, two to class 2; class 1: 104 - 1 within of 104 + 1; class 2: none within
    assert found.keys() == {(0.0, 0.0), (1.0, 0.0)}
    assert np.isclose(found[0.0, 0.0], 199 / 202) and np.isclose(found[1.0, 0.0], 103 / 104)


def test_layouts_of_classes_and_of_samples_fit_every_graph_of_these_nodes(monkeypatch):
    monkeypatch.setattr(reduced, "MOST_NODES", 50)
    teacher, labels = chains(70)
    student = Data(x=torch.zeros(70, 1), edge_index=torch.randint(70, (2, 90)))
    at = graph_layout(teacher, labels=labels)
    assert len(at) == 70 and len({tuple(place) for place in at.values()}) == 3
    first, second = (named(plot_graph(graph, labels=labels, positions=at)) for graph in (teacher, student))
    assert all(np.allclose(first[c].get_offsets(), second[c].get_offsets()) for c in "012")
    at = graph_layout(teacher)
    assert len(at) == 50
    for graph in (teacher, student):
        ax = plot_graph(graph, positions=at)
        assert sorted(nodes(ax)[0].get_offsets().tolist()) == sorted(place.tolist() for place in at.values())
        assert ax.get_xlabel() == "50 of 70 nodes, those with a position"


def test_drawn_by_itself_a_large_graph_stands_as_its_layout_says(monkeypatch):
    monkeypatch.setattr(reduced, "MOST_NODES", 50)
    graph, labels = chains(60)
    for given in (labels, None):
        at = {tuple(place) for place in graph_layout(graph, labels=given).values()}
        parts = named(plot_graph(graph, labels=given)).values() if given is not None else nodes(plot_graph(graph))
        assert {tuple(place) for part in parts for place in part.get_offsets().tolist()} == at
    graph.y = labels
    assert len({tuple(place) for place in graph_layout(graph).values()}) == 3


def test_of_very_many_edges_the_strongest_are_drawn():
    graph = similarity_graph(torch.rand(120, 3, generator=torch.Generator().manual_seed(0)))
    at = {i: np.array([i, 0.0]) for i in range(120)}
    ax = plot_graph(graph, positions=at)
    (lines,) = edges(ax)
    assert ax.get_xlabel() == "5,000 of 7,140 edges, the strongest"
    weight = torch.zeros(120, 120)
    weight[graph.edge_index[0], graph.edge_index[1]] = graph.edge_weight
    drawn = np.array([[a[0], b[0]] for a, b in lines.get_segments()]).astype(int)
    assert len(drawn) == 5000
    assert np.isclose(weight[drawn[:, 0], drawn[:, 1]].min(), weight.triu().flatten().sort().values[-5000])
    assert lines.get_edgecolors()[:, 3].max() < 0.6  # fainter than few edges, which go to 0.7


def test_of_very_many_edges_without_weights_some_are_drawn_at_even_steps():
    ends = torch.triu_indices(120, 120, 1)
    ax = plot_graph(Data(x=torch.zeros(120, 1), edge_index=ends), positions={i: np.array([i, 0.0]) for i in range(120)})
    drawn = np.array([[a[0], b[0]] for a, b in edges(ax)[0].get_segments()])
    assert np.array_equal(drawn, ends.T.numpy()[np.arange(5000) * 7140 // 5000])
    assert ax.get_xlabel() == "5,000 of 7,140 edges, at even steps"


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
