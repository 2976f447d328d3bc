import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from graphkd.viz.reduced import reduced_graph


def graph(n, pairs, weights=None):
    ends = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    given = None if weights is None else torch.tensor(weights)
    return Data(x=torch.zeros(n, 1), edge_index=ends, edge_weight=given)


def path(n):
    return graph(n, [[i, i + 1] for i in range(n - 1)])


def test_up_to_five_hundred_nodes_nothing_is_reduced():
    found = reduced_graph(path(500), torch.arange(500) % 2, None, 0)
    assert found.members.tolist() == list(range(500))
    assert found.note == "" and found.within is None and found.weights is None
    assert found.pairs.tolist() == [[i, i + 1] for i in range(499)]


def test_edges_between_classes_have_their_share_of_all():
    # classes 0, 1, 2 are nodes 0-199, 200-399, 400-599
    pairs = [[0, 1], [1, 0], [1, 2], [0, 200], [201, 3], [250, 599], [400, 401], [3, 3]]
    found = reduced_graph(graph(600, pairs), torch.arange(600) // 200, None, 0)
    assert found.pairs.tolist() == [[0, 1], [1, 2]]
    assert np.allclose(found.weights, [2 / 6, 1 / 6])  # both directions are one edge, self-loops are none
    assert np.allclose(found.within, [2 / 4, 0, 1 / 2])
    assert found.classes.tolist() == [0, 1, 2]
    assert "ring: share of a class's edges" in found.note


def test_weights_between_classes_count_by_their_absolute_sum_and_keep_the_sign_of_their_sum():
    pairs, weights = [[0, 1], [0, 300], [1, 300], [2, 599], [3, 599]], [1.0, 2.0, -3.0, 1.0, 1.0]
    found = reduced_graph(graph(600, pairs, weights), [0] * 300 + [5] * 200 + [-100] * 100, None, 0)
    assert found.classes.tolist() == [-100, 0, 5]
    assert found.pairs.tolist() == [[0, 1], [1, 2]]
    assert np.allclose(found.weights, [2 / 8, -5 / 8])
    assert np.allclose(found.within, [0, 1 / 8, 0])
    assert "ring: share of a class's edge weight" in found.note


def test_classes_without_edges_have_no_ring_and_none_is_explained():
    found = reduced_graph(graph(600, []), torch.arange(600) % 2, None, 0)
    assert found.within.tolist() == [0, 0]
    assert found.note == "600 nodes as 2 classes, sized by their nodes"


@pytest.mark.parametrize(("classes", "drawn"), [(1, 500), (2, 2), (100, 100), (101, 500)])
def test_graphs_of_two_to_a_hundred_classes_are_drawn_by_class(classes, drawn):
    found = reduced_graph(path(606), torch.arange(606) % classes, None, 0)
    assert found.members.max() + 1 == drawn
    assert len(found.classes) == drawn


def test_a_neighbourhood_is_connected_and_keeps_its_edges_and_classes():
    found = reduced_graph(path(2000), torch.arange(2000), None, 3)
    chosen = np.flatnonzero(found.members >= 0)
    assert len(chosen) == 500 and np.ptp(chosen) == 499
    assert found.members[chosen].tolist() == list(range(500))
    assert found.pairs.tolist() == [[i, i + 1] for i in range(499)]
    assert found.classes.tolist() == chosen.tolist()
    assert found.note == "500 of 2,000 nodes, around a random one"


def test_a_neighbourhood_follows_edges_in_both_directions():
    star = graph(600, [[i, 0] for i in range(1, 550)])
    for seed in range(4):
        found = reduced_graph(star, None, None, seed)
        assert (found.members >= 0).sum() == 500
    assert found.members[0] >= 0 and len(found.pairs) == 499


def test_a_neighbourhood_depends_on_the_seed_alone():
    first, again, other = (reduced_graph(path(5000), None, None, seed).members for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_where_the_parts_are_small_there_are_several():
    assert (reduced_graph(graph(700, []), None, None, 0).members >= 0).sum() == 500
    parts = graph(900, [[3 * i, 3 * i + 1] for i in range(300)] + [[3 * i, 3 * i + 2] for i in range(300)])
    found = reduced_graph(parts, None, None, 0)
    assert (found.members >= 0).sum() == 500 and len(found.pairs) >= 332  # 166 whole parts of two edges


def test_weights_of_a_neighbourhood_are_those_of_its_edges():
    pairs = [[i, i + 1] for i in range(999)]
    found = reduced_graph(graph(1000, pairs, [float(i) for i in range(999)]), None, None, 0)
    first = int(np.flatnonzero(found.members >= 0)[0])
    assert np.allclose(found.weights, first + np.arange(499))


def test_nodes_that_have_a_place_are_drawn_where_not_all_are():
    found = reduced_graph(path(600), None, dict.fromkeys([7, 8, 3], np.zeros(2)), 0)
    assert np.flatnonzero(found.members >= 0).tolist() == [3, 7, 8]
    assert found.pairs.tolist() == [[1, 2]]
    everywhere = reduced_graph(path(600), None, dict.fromkeys(range(600), np.zeros(2)), 0)
    assert np.array_equal(everywhere.members, reduced_graph(path(600), None, None, 0).members)


def test_places_of_other_nodes_are_refused():
    for at in (600, -1):
        with pytest.raises(ValueError, match="positions needs nodes of the graph, 0 to 599"):
            reduced_graph(path(600), None, {at: np.zeros(2), 0: np.zeros(2)}, 0)


def test_only_labels_of_every_node_count_as_the_graphs_own():
    own = path(3)
    own.y = torch.tensor([2, 2, 1])
    assert reduced_graph(own, None, None, 0).classes.tolist() == [2, 2, 1]
    assert reduced_graph(own, [0, 0, 0], None, 0).classes.tolist() == [0, 0, 0]
    for y in (torch.tensor([1]), torch.tensor([[0], [1], [2]]), "cat"):
        own.y = y
        assert reduced_graph(own, None, None, 0).classes is None
