"""Graphs whose edges are given: of all nodes, and of mini-batches of them."""

import pytest
import torch
from torch_geometric.utils import subgraph

from graphkd import Distiller
from graphkd.edges import GivenEdges, given_graph
from graphkd.losses import otgd

EDGES = torch.tensor([[0, 1, 7, 4, 9, 7], [1, 7, 9, 7, 4, 7]])


def test_all_nodes_keep_all_edges_and_their_weights():
    x, weight = torch.randn(10, 3), torch.rand(6)
    graph = given_graph(x, EDGES, edge_weight=weight)
    assert graph.x is x
    assert torch.equal(graph.edge_index, EDGES)
    assert torch.equal(graph.edge_weight, weight)
    assert given_graph(x, EDGES).edge_weight is None


def test_a_mini_batch_keeps_the_edges_of_which_both_ends_are_in_it():
    index, weight = torch.tensor([7, 9, 2, 4]), torch.arange(6.0)
    graph = given_graph(torch.randn(4, 3), EDGES, index, weight)
    assert graph.edge_index.T.tolist() == [[0, 1], [3, 0], [1, 3], [0, 0]]
    assert graph.edge_weight.tolist() == [2, 3, 4, 5]


def test_a_mini_batch_of_any_order_is_pytorch_geometrics_subgraph():
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, 50, (2, 300), generator=generator)
    index = torch.randperm(50, generator=generator)[:20]
    graph = given_graph(torch.zeros(20, 1), edges, index)
    expected, _ = subgraph(index, edges, num_nodes=50)
    assert expected.shape[1] > 20
    assert torch.equal(index[graph.edge_index], expected)


def test_nodes_without_an_edge_among_them_are_a_graph_too():
    assert given_graph(torch.zeros(2, 1), EDGES, torch.tensor([0, 30])).edge_index.shape == (2, 0)
    assert given_graph(torch.zeros(2, 1), EDGES[:, :0]).edge_index.shape == (2, 0)


@pytest.mark.parametrize(
    ("edges", "options", "message"),
    [
        (EDGES, {}, "rows from 0 to 3, got 0 to 9: for a mini-batch of a larger graph, give the index"),
        (EDGES - 1, {}, "rows from 0 to 3, got -1 to 8"),
        (EDGES.T, {}, r"integers of shape \(2, e\), got torch.int64 of shape \(6, 2\)"),
        (EDGES.float(), {}, r"integers of shape \(2, e\), got torch.float32"),
        (EDGES, {"index": torch.arange(5)}, r"one node per row, \(4,\), got \(5,\)"),
        (EDGES, {"index": torch.tensor([1, 2, 1, 3])}, "each node once, got 4 rows of 3 nodes"),
        (EDGES, {"index": torch.arange(4), "edge_weight": torch.ones(5)}, r"per edge, \(6,\), got \(5,\)"),
    ],
)
def test_edges_that_do_not_fit_are_refused(edges, options, message):
    with pytest.raises(ValueError, match=message):
        given_graph(torch.zeros(4, 1), edges, **options)


def test_a_criterion_sees_the_given_edges_of_each_mini_batch():
    criterion = otgd(4, 6, embed_dim=3)
    criterion.student.build = criterion.teacher.build = GivenEdges(EDGES)
    student, teacher = torch.nn.Linear(5, 4), torch.nn.Linear(5, 6)
    distiller = Distiller(
        student,
        teacher,
        student_features={"feat": "logits", "logits": "logits"},
        teacher_features={"feat": "logits", "logits": "logits"},
        criteria={"otgd": criterion},
        weights={"task": 0.0},
    )
    step = distiller(torch.randn(4, 5), None, torch.tensor([7, 9, 2, 4]))
    for graph in step.comparisons["otgd/g"].graphs:
        assert graph.edge_index.T.tolist() == [[0, 1], [3, 0], [1, 3], [0, 0]]
    step.loss.backward()
    assert student.weight.grad.abs().sum() > 0


def test_given_edges_move_with_the_criterion_and_are_not_saved():
    build = GivenEdges(EDGES, torch.ones(6))
    criterion = otgd(4, 4)
    criterion.student.build = build
    assert not any("edge" in name for name in criterion.state_dict())
    criterion.to("meta")
    assert build.edge_index.is_meta
    assert build.edge_weight.is_meta
    assert repr(build) == "GivenEdges(6 edges, name='feat')"


def test_given_edges_join_the_feature_that_they_are_told():
    features = {"feat": torch.zeros(10, 2), "hidden": torch.ones(10, 3)}
    assert GivenEdges(EDGES, name="hidden")(features).x is features["hidden"]
