import networkx as nx
import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch_geometric.data import Data

from graphkd import GraphLoss
from graphkd.couplings import Sinkhorn
from graphkd.graphs import knn_graph, point_cloud, similarity_graph, stacked
from graphkd.measures import cosine, sqeuclidean
from graphkd.relations import Adjacency, Pairwise
from graphkd.typing import Comparison, Relations
from graphkd.viz import Networks, to_networkx

REFUSED = (ValueError, TypeCheckError)  # With shape checks on, a word outside a Literal does not get as far as ours.
READ = {"graphml": nx.read_graphml, "gexf": nx.read_gexf}


def rows(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def compared(plan, cost=None, relations=None, student=None, teacher=None):
    """A comparison that holds a plan, of graphs without edges if none are given."""
    n, m = plan.shape[-2:]
    graphs = (
        Data(x=torch.zeros(n, 1)) if student is None else student,
        Data(x=torch.zeros(m, 1)) if teacher is None else teacher,
    )
    zero = torch.zeros(())
    return Comparison(zero, plan, cost, relations, zero, torch.ones((), dtype=torch.bool), graphs)


def matched(n=4, m=5, **kwargs):
    """What an optimised loss of two small graphs saw."""
    student, teacher = similarity_graph(rows(n, 3)), knn_graph(rows(m, 3, seed=1), k=1)
    return GraphLoss(sqeuclidean, Pairwise(cosine), Sinkhorn(1.0)).compare(student, teacher)


PLAN = torch.tensor([[0.125, 0.375], [0.0, 0.5]])


def test_the_transport_joins_the_pairs_that_have_mass():
    cost = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    graph = to_networkx(compared(PLAN, cost)).transport
    assert not graph.is_directed()
    assert {(u, v): d for u, v, d in graph.edges(data=True)} == {
        ("s0", "t0"): {"weight": 0.125, "share": 0.25, "cost": 1.0, "paired": True},
        ("s0", "t1"): {"weight": 0.375, "share": 0.75, "cost": 2.0, "paired": False},
        ("s1", "t1"): {"weight": 0.5, "share": 1.0, "cost": 4.0, "paired": True},
    }


def test_nodes_say_their_side_their_place_and_the_marginal():
    graph = to_networkx(compared(PLAN)).transport
    assert dict(graph.nodes(data=True)) == {
        "s0": {"network": "student", "bipartite": 0, "index": 0, "mass": 0.5},
        "s1": {"network": "student", "bipartite": 0, "index": 1, "mass": 0.5},
        "t0": {"network": "teacher", "bipartite": 1, "index": 0, "mass": 0.125},
        "t1": {"network": "teacher", "bipartite": 1, "index": 1, "mass": 0.875},
    }


def test_pairs_are_told_only_where_both_sides_have_as_many_nodes():
    graph = to_networkx(compared(torch.ones(2, 3) / 6)).transport
    assert all("paired" not in edge and "cost" not in edge for *_, edge in graph.edges(data=True))


def test_classes_are_told_where_they_are_known():
    plan = torch.ones(3, 2) / 6
    graph = to_networkx(
        compared(plan), labels=[0, 2, -100], teacher_labels=[2, 0], class_names=["cat", "dog", "eel"]
    ).transport
    assert graph.nodes["s1"]["class_index"] == graph.nodes["t0"]["class_index"] == 2
    assert graph.nodes["s0"]["class_name"] == graph.nodes["t1"]["class_name"] == "cat"
    assert not {"class_index", "class_name"} & graph.nodes["s2"].keys()
    assert {(u, v): d.get("same_class") for u, v, d in graph.edges(data=True)} == {
        ("s0", "t0"): False,
        ("s0", "t1"): True,
        ("s1", "t0"): True,
        ("s1", "t1"): False,
        ("s2", "t0"): None,
        ("s2", "t1"): None,
    }


def test_an_unlabelled_teacher_node_has_no_common_class():
    graph = to_networkx(compared(torch.ones(2, 2) / 4), labels=[0, -100], teacher_labels=[-100, -100]).transport
    assert not any("same_class" in edge for *_, edge in graph.edges(data=True))


def classes(networks):
    return [[node.get("class_index") for _, node in graph.nodes(data=True)] for graph in networks[1:]]


def test_labels_are_those_of_the_graphs_unless_given():
    student, teacher = (
        Data(x=torch.zeros(2, 1), y=torch.tensor([3, 4])),
        Data(x=torch.zeros(2, 1), y=torch.tensor([4, 3])),
    )
    seen = compared(torch.eye(2) / 2, student=student, teacher=teacher)
    assert classes(to_networkx(seen)) == [[3, 4], [4, 3]]
    assert classes(to_networkx(seen, labels=[0, 1])) == [[0, 1], [0, 1]]
    assert classes(to_networkx(seen, teacher_labels=[0, 1])) == [[3, 4], [0, 1]]


def test_given_labels_leave_a_teacher_of_another_size_to_its_own():
    teacher = Data(x=torch.zeros(3, 1), y=torch.tensor([1, 1, 0]))
    assert classes(to_networkx(compared(torch.ones(2, 3) / 6, teacher=teacher), labels=[0, 1])) == [[0, 1], [1, 1, 0]]
    assert classes(to_networkx(compared(torch.ones(2, 3) / 6), labels=[0, 1])) == [[0, 1], [None] * 3]


@pytest.mark.parametrize("y", [torch.tensor([1]), torch.rand(2, 2), torch.rand(2), None])
def test_a_y_that_is_not_one_class_per_node_is_no_label(y):
    assert classes(to_networkx(compared(torch.eye(2), student=Data(x=torch.zeros(2, 1), y=y)))) == [[None] * 2] * 2


def test_top_keeps_the_strongest_edges_of_each_student():
    plan = torch.tensor([[0.1, 0.3, 0.2], [0.05, 0.05, 0.0]])
    graph = to_networkx(compared(plan), top=2).transport
    assert sorted(graph.edges) == [("s0", "t1"), ("s0", "t2"), ("s1", "t0"), ("s1", "t1")]
    assert sorted(to_networkx(compared(plan), top=1).transport.edges) == [("s0", "t1"), ("s1", "t0")]
    assert graph.edges["s0", "t1"]["share"] == pytest.approx(0.5)
    assert graph.nodes["s0"]["mass"] == pytest.approx(0.6)
    assert len(to_networkx(compared(plan), top=9).transport.edges) == 5


def test_batch_graphs_run_from_source_to_target_with_their_weights():
    student = Data(
        x=torch.zeros(3, 1), edge_index=torch.tensor([[0, 2, 1], [1, 0, 1]]), edge_weight=torch.tensor([0.5, -1.0, 2.0])
    )
    teacher = Data(x=torch.zeros(3, 1), edge_index=torch.tensor([[0, 0], [1, 2]]))
    networks = to_networkx(compared(torch.eye(3) / 3, student=student, teacher=teacher))
    assert networks.student.is_directed() and networks.teacher.is_directed()
    assert sorted(networks.student.edges(data="weight")) == [("s0", "s1", 0.5), ("s1", "s1", 2.0), ("s2", "s0", -1.0)]
    assert sorted(networks.teacher.edges(data="weight")) == [("t0", "t1", 1.0), ("t0", "t2", 1.0)]


def test_an_edge_given_twice_has_the_sum_of_its_weights():
    student = Data(
        x=torch.zeros(2, 1), edge_index=torch.tensor([[0, 0, 1], [1, 1, 0]]), edge_weight=torch.tensor([0.5, 0.25, 1.0])
    )
    graph = to_networkx(compared(torch.eye(2), student=student)).student
    assert sorted(graph.edges(data="weight")) == [("s0", "s1", 0.75), ("s1", "s0", 1.0)]


def test_relations_stand_on_the_edges_that_there_are():
    student = Data(x=torch.zeros(2, 1), edge_index=torch.tensor([[0], [1]]))
    relations = Relations(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0]]))
    teacher = Data(x=torch.zeros(2, 1), edge_index=torch.tensor([[1], [0]]))
    networks = to_networkx(compared(torch.eye(2), relations=relations, student=student, teacher=teacher))
    assert list(networks.student.edges(data="relation")) == [("s0", "s1", 3.0)]
    assert list(networks.teacher.edges(data="relation")) == [("t1", "t0", 6.0)]


def test_the_relation_adjacency_is_the_weight():
    graph = knn_graph(rows(6, 3), k=2)
    graph.edge_weight = torch.rand(12)
    relations = Relations(Adjacency()(graph), Adjacency()(graph))
    seen = to_networkx(compared(torch.eye(6), relations=relations, student=graph, teacher=graph)).student
    assert len(seen.edges) == 12
    assert all(edge["relation"] == pytest.approx(edge["weight"]) for *_, edge in seen.edges(data=True))


def test_batch_graphs_have_the_nodes_of_the_transport():
    networks = to_networkx(matched(), labels=[0, 1, 1, 0], teacher_labels=[0, 1, 1, 0, -100])
    both = dict(networks.student.nodes(data=True)) | dict(networks.teacher.nodes(data=True))
    assert both == dict(networks.transport.nodes(data=True))
    networks.student.nodes["s0"]["mass"] = -1
    assert networks.transport.nodes["s0"]["mass"] > 0


def test_sparse_plans_and_those_with_gradients_are_read():
    dense = to_networkx(compared(PLAN)).transport
    assert nx.utils.graphs_equal(to_networkx(compared(PLAN.to_sparse())).transport, dense)
    assert nx.utils.graphs_equal(to_networkx(compared(PLAN.clone().requires_grad_())).transport, dense)


def test_networkx_finds_the_two_sides():
    graph = to_networkx(matched(4, 5)).transport
    assert nx.is_bipartite(graph)
    assert nx.bipartite.sets(graph) == ({f"s{i}" for i in range(4)}, {f"t{j}" for j in range(5)})


def test_the_heaviest_matching_of_a_diagonal_plan_is_the_true_pairing():
    noise = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    plan = torch.eye(6) + 0.5 * noise
    graph = to_networkx(compared(plan / plan.sum())).transport
    assert {frozenset(pair) for pair in nx.max_weight_matching(graph)} == {
        frozenset((f"s{i}", f"t{i}")) for i in range(6)
    }
    assert {node for node, side in graph.nodes(data="bipartite") if side == 0} == {f"s{i}" for i in range(6)}


def test_a_node_without_mass_has_no_edges():
    graph = to_networkx(compared(torch.tensor([[0.0, 0.0], [0.5, 0.5]])), top=1).transport
    assert graph.nodes["s0"]["mass"] == 0.0
    assert list(nx.isolates(graph)) == ["s0", "t1"]


@pytest.mark.parametrize(
    ("seen", "options", "came"),
    [
        (compared(torch.ones(2, 3, 3)), {}, r"one plan of shape \(n, m\), got shape \(2, 3, 3\)"),
        (compared(torch.zeros(2, 2)), {}, "got only zeros"),
        (compared(PLAN), {"top": 0}, "top needs an integer of at least 1, got 0"),
        (compared(PLAN), {"labels": [0]}, r"labels needs one integer per node, shape \(2,\), got shape \(1,\)"),
        (compared(PLAN), {"teacher_labels": [0]}, r"teacher_labels needs one integer per node, shape \(2,\)"),
        (compared(PLAN), {"labels": [0, 2], "class_names": ["cat", "dog"]}, "a name for class 2, got 2 names"),
        (compared(PLAN, student=Data(x=torch.zeros(3, 1))), {}, "a student's graph of the plan's 2 nodes, got 3"),
        (compared(PLAN, teacher=Data(x=torch.zeros(1, 1))), {}, "a teacher's graph of the plan's 2 nodes, got 1"),
        (
            compared(
                PLAN,
                student=Data(
                    x=torch.zeros(2, 1), edge_index=torch.tensor([[0], [1]]), edge_weight=torch.tensor([torch.nan])
                ),
            ),
            {},
            r"edge_weight needs one finite number per edge, \(1,\)",
        ),
        (
            compared(
                PLAN, student=Data(x=torch.zeros(2, 1), edge_index=torch.tensor([[0], [1]]), edge_weight=torch.ones(2))
            ),
            {},
            r"one finite number per edge, \(1,\), got \(2,\)",
        ),
    ],
)
def test_what_is_no_single_comparison_is_refused(seen, options, came):
    with pytest.raises(ValueError, match=came):
        to_networkx(seen, **options)


def test_stacked_problems_are_refused():
    both = stacked(point_cloud(rows(3, 2)), point_cloud(rows(3, 2, seed=1)))
    with pytest.raises(ValueError, match=r"needs one plan of shape \(n, m\), got shape \(2, 3, 3\)"):
        to_networkx(GraphLoss(sqeuclidean).compare(both, both))


# Files


def plain(graph):
    return all(
        type(value) in (bool, int, float, str)
        for _, attributes in [*graph.nodes(data=True), *((None, edge) for *_, edge in graph.edges(data=True))]
        for value in attributes.values()
    )


def kept(graph, read):
    """What was read, without what the format adds of its own, equals what was written."""
    added = {"label", "id"}
    nodes = {node: {k: v for k, v in a.items() if k not in added} for node, a in read.nodes(data=True)}
    edges = {(u, v): {k: x for k, x in a.items() if k not in added} for u, v, a in read.edges(data=True)}
    assert type(read) is type(graph)
    assert nodes == dict(graph.nodes(data=True))
    assert edges == {(u, v): dict(a) for u, v, a in graph.edges(data=True)}
    for node, attributes in graph.nodes(data=True):
        assert {k: type(v) for k, v in attributes.items()} == {k: type(v) for k, v in nodes[node].items()}
    for edge, attributes in edges.items():
        assert {k: type(v) for k, v in attributes.items()} == {k: type(v) for k, v in graph.edges[edge].items()}


CASES = {
    "two nodes": to_networkx(compared(PLAN)),
    "one node each": to_networkx(compared(torch.ones(1, 1))),
    "n is not m": to_networkx(matched(4, 5), labels=[0, 1, -100, 2], class_names=["a", "b", "c"]),
    "n is m": to_networkx(matched(5, 5), labels=[0, 1, -100, 2, 0]),
    "no mass": to_networkx(compared(torch.tensor([[0.0, 0.0], [0.5, 1e-30]]))),
    "names": to_networkx(
        compared(torch.eye(3)), labels=[0, 1, 2], class_names=['say "cat" & <dog>\'', "日本\tn\nx 🦊", "  "]
    ),
    "forbidden": to_networkx(
        compared(torch.eye(3)), labels=[0, 1, 2], class_names=["a\x00b\x1f", "c\rd\ud800", "\ufffee\uffff"]
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("format", ["graphml", "gexf"])
def test_files_read_back_as_they_were_written(case, format, tmp_path):
    networks = CASES[case]
    assert all(map(plain, networks))
    files = networks.write(tmp_path / "new" / "folder", format)
    assert files == [tmp_path / "new" / "folder" / f"{name}.{format}" for name in ("transport", "student", "teacher")]
    for graph, file in zip(networks, files, strict=True):
        kept(graph, READ[format](file))


def test_a_writer_of_networkx_needs_no_help(tmp_path):
    graph = CASES["n is not m"].transport
    nx.write_gexf(graph, tmp_path / "a.gexf")
    nx.write_graphml(graph, tmp_path / "a.graphml")
    kept(graph, nx.read_gexf(tmp_path / "a.gexf"))
    kept(graph, nx.read_graphml(tmp_path / "a.graphml"))


def test_characters_that_xml_forbids_become_one_that_says_so():
    names = [name for _, name in CASES["forbidden"].student.nodes(data="class_name")]
    assert names == ["a\ufffdb\ufffd", "c\ufffdd\ufffd", "\ufffde\ufffd"]
    kept = [name for _, name in CASES["names"].student.nodes(data="class_name")]
    assert kept == ['say "cat" & <dog>\'', "日本\tn\nx 🦊", "  "]


def test_files_are_graphml_by_default_and_replaced(tmp_path):
    first = CASES["two nodes"].write(str(tmp_path))
    CASES["n is m"].write(tmp_path)
    assert [file.name for file in first] == ["transport.graphml", "student.graphml", "teacher.graphml"]
    assert len(nx.read_graphml(first[1])) == 5


def test_another_format_is_refused(tmp_path):
    with pytest.raises(REFUSED):
        CASES["two nodes"].write(tmp_path / "folder", "dot")
    assert not (tmp_path / "folder").exists()


def test_masses_sum_to_those_of_the_plan():
    seen = matched()
    networks = to_networkx(seen)
    assert isinstance(networks, Networks)
    masses = np.array([mass for _, mass in networks.student.nodes(data="mass")])
    np.testing.assert_allclose(masses, seen.plan.sum(1).numpy(), rtol=1e-6)
    weights = sum(weight for *_, weight in networks.transport.edges(data="weight"))
    assert weights == pytest.approx(float(seen.plan.sum()), rel=1e-6)
