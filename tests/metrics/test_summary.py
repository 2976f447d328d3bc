"""A graph's numbers against NetworkX and plain loops, and how they read."""

import networkx as nx
import pytest
import torch
from torch_geometric.data import Batch, Data

from graphkd.metrics import summarise


def graph(**given) -> Data:
    """Six nodes, of which 4 has only a self-loop and 5 nothing; edges 0-1 run both ways."""
    edges = torch.tensor([[0, 1, 2, 0, 4, 3, 3], [1, 0, 1, 2, 4, 1, 2]])
    return Data(x=torch.zeros(6, 8), edge_index=edges, **given)


def test_a_summary_is_what_networkx_says():
    got = summarise(graph(y=torch.tensor([0, 0, 1, 0, 2, 2])))
    drawn = nx.DiGraph(graph().edge_index.T.tolist())
    drawn.add_nodes_from(range(6))
    degrees = [degree for _, degree in drawn.in_degree()]
    assert (got.nodes, got.width, got.edges, got.self_loops) == (6, 8, 7, 1)
    assert (got.mean_degree, got.min_degree, got.max_degree) == (pytest.approx(sum(degrees) / 6), 0, max(degrees))
    drawn.remove_edges_from(list(nx.selfloop_edges(drawn)))
    assert got.isolated == len(list(nx.isolates(drawn))) == 2
    assert got.reciprocity == pytest.approx(nx.overall_reciprocity(drawn)) == pytest.approx(2 / 6)
    assert got.homophily == pytest.approx(3 / 6)
    assert (got.min_weight, got.mean_weight, got.max_weight) == (None, None, None)
    assert got.mass is False


def test_repeated_edges_count_each_and_big_indices_do_not_collide():
    edges = torch.tensor([[0, 0, 0, 2], [1, 1, 2, 1]])
    got = summarise(Data(edge_index=edges, num_nodes=3, y=torch.tensor([1, 1, 0])))
    assert (got.edges, got.reciprocity, got.homophily, got.max_degree) == (4, 0.0, 0.5, 3)
    assert got.width is None
    # With a factor of n - 1 in place of n these two would be one pair.
    assert summarise(Data(edge_index=torch.tensor([[0, 1], [2, 0]]), num_nodes=3)).reciprocity == 0
    both = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    assert summarise(both).reciprocity == 1


def test_unknown_classes_are_left_out_of_homophily():
    assert summarise(graph(y=torch.tensor([0, -100, 1, -100, 1, 0]))).homophily == 0
    # Node 2 has edges both to and from nodes of known class.
    assert summarise(graph(y=torch.tensor([0, 0, -100, 0, 1, 1]))).homophily == 1
    assert summarise(graph(y=torch.full((6,), -100))).homophily is None
    assert summarise(graph()).homophily is None
    for other in (torch.zeros(6), torch.zeros(5, dtype=torch.int64), torch.zeros((6, 1), dtype=torch.int64), "cat"):
        assert summarise(graph(y=other)).homophily is None


def test_weights_and_masses_are_told():
    weight = torch.tensor([-1.0, 2, 0, 0.5, 4, 1, 0.5], requires_grad=True)
    got = summarise(graph(edge_weight=weight, mass=torch.ones(6) / 6))
    assert (got.min_weight, got.mean_weight, got.max_weight) == (-1, 1, 4)
    assert got.mass is True
    half = torch.tensor([1, 0, 0, 0, 0, 0, 0], dtype=torch.float16)
    assert summarise(graph(edge_weight=half)).mean_weight == pytest.approx(1 / 7, abs=1e-12)


@pytest.mark.parametrize("edges", [None, torch.zeros((2, 0), dtype=torch.int64), torch.tensor([[1], [1]])])
def test_a_graph_may_join_nothing(edges):
    got = summarise(Data(x=torch.zeros(3, 2), edge_index=edges, y=torch.arange(3)))
    loops = 0 if edges is None else edges.shape[1]
    assert (got.edges, got.self_loops, got.isolated, got.max_degree) == (loops, loops, 3, loops)
    assert got.mean_degree == loops / 3
    assert (got.reciprocity, got.homophily) == (None, None)
    empty = Data(x=torch.zeros(3, 2), edge_index=torch.zeros((2, 0), dtype=torch.int64), edge_weight=torch.zeros(0))
    assert summarise(empty).mean_weight is None


def test_several_graphs_of_a_batch_count_as_one():
    got = summarise(Batch.from_data_list([graph(), graph()]))
    assert (got.nodes, got.edges, got.isolated, got.max_degree) == (12, 14, 4, 3)
    assert got.reciprocity == pytest.approx(1 / 3)


def test_a_summary_reads_as_a_few_lines():
    lines = repr(summarise(graph(y=torch.tensor([0, 0, 1, 0, 2, 2]), edge_weight=torch.arange(7.0) / 3))).split("\n")
    assert lines == [
        "nodes        6 of width 8",
        "edges        7 directed, 1 self-loops; 2 isolated nodes",
        "in-degree    1.167 (0 to 3)",
        "weight       1 (0 to 2)",
        "reciprocity  0.3333",
        "homophily    0.5",
        "mass         uniform",
    ]
    plain = repr(summarise(Data(num_nodes=2, mass=torch.tensor([0.5, 0.5]))))
    assert plain.split("\n")[0] == "nodes      2"
    assert plain.split("\n")[-1] == "mass       its own"
    assert "reciprocity" not in plain and "homophily" not in plain and "weight" not in plain


def test_a_summary_is_a_table_in_a_notebook():
    summary = summarise(graph())
    page = summary._repr_html_()
    assert page.startswith("<table") and page.endswith("</table>")
    assert page.count("<tr>") == len(repr(summary).split("\n"))
    assert "6 of width 8" in page and "reciprocity" in page


def test_what_is_no_graph_is_refused():
    with pytest.raises(ValueError, match="at least one node, got 0"):
        summarise(Data(x=torch.zeros(0, 3)))
    for end in (3, -1):
        with pytest.raises(ValueError, match="needs edges between nodes 0 to 2, got nodes"):
            summarise(Data(x=torch.zeros(3, 1), edge_index=torch.tensor([[0, end], [1, 1]])))
    with pytest.raises(ValueError, match=r"edge_weight needs one number per edge, shape \(7,\), got \(6,\)"):
        summarise(graph(edge_weight=torch.zeros(6)))
