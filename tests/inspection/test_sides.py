import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from graphkd.inspection.sides import MOST_NODES, evenly, paired, sides

NOTHING = Data()


def test_samples_are_sorted_by_class_and_unlabelled_ones_come_last():
    one, other = sides((NOTHING, NOTHING), torch.tensor([1, -100, 0, 1]), 4, 4)
    assert one.shown.tolist() == other.shown.tolist() == [2, 0, 3, 1]
    assert one.classes.tolist() == [1, -100, 0, 1]
    assert paired(one, other)


def test_as_many_nodes_as_samples_are_only_samples_where_the_graph_does_not_say_otherwise():
    one, other = sides((Data(node="neuron"), Data(node="neuron")), torch.tensor([1, 0]), 2, 2)
    assert one.kind == "neuron" and one.classes.tolist() == [-100, -100]
    assert not paired(one, other)


def test_other_numbers_of_nodes_have_no_class():
    one, other = sides((NOTHING, NOTHING), torch.tensor([1, 0, 1]), 2, 3)
    assert (one.kind, other.kind) == ("node", "sample")
    assert one.shown.tolist() == [0, 1]
    assert not paired(one, other)


def test_a_class_node_is_the_class_of_its_place():
    one, other = sides((Data(node="class"), Data(node="class")), torch.tensor([1, 0]), 4, 4)
    assert one.classes.tolist() == [0, 1, 2, 3]
    assert paired(one, other)


def test_remembered_nodes_begin_with_the_batch_and_the_rest_has_no_class():
    one, other = sides((NOTHING, Data(node="remembered")), torch.tensor([1, 0]), 2, 5)
    assert other.own == 2
    assert other.classes.tolist() == [1, 0, -100, -100, -100]
    assert other.shown.tolist() == [1, 0, 2, 3, 4]
    assert paired(one, other)


@pytest.mark.parametrize(("n", "m"), [(100, 612), (300, 900), (150, 160)])
def test_a_memory_has_room_beside_the_same_samples_on_both_sides(n, m):
    one, other = sides((NOTHING, Data(node="remembered")), torch.arange(n) % 7, n, m)
    assert len(other.shown) == min(MOST_NODES, m)
    own = other.shown[other.shown < n]
    assert own.tolist() == one.shown.tolist()
    assert len(own) == min(n, 150)


def test_many_samples_are_chosen_evenly_from_all_classes():
    one, other = sides((NOTHING, NOTHING), torch.arange(1000) % 10, 1000, 1000)
    assert len(one.shown) == MOST_NODES
    assert np.bincount(one.classes[one.shown]).tolist() == [20] * 10
    assert one.shown.tolist() == other.shown.tolist()


def test_even_choices_are_different_nodes():
    chosen = evenly(np.arange(301), 200)
    assert len(set(chosen.tolist())) == 200 and chosen[0] == 0


def test_networks_with_other_numbers_of_classes_have_no_pairs():
    one, other = sides((Data(node="class"), Data(node="class")), torch.tensor([1, 0]), 3, 4)
    assert one.kind == other.kind == "class"
    assert not paired(one, other)
