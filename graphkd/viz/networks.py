"""A comparison as networkx graphs, for all that networkx, Gephi and Cytoscape can do with them."""

import re
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import networkx as nx
import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from graphkd import checks
from graphkd.typing import UNLABELLED, Comparison
from graphkd.viz.inputs import Labels, class_name, node_classes, plan_matrix

NOT_IN_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 forbids, and the carriage return, which it reads back as another."""


class Networks(NamedTuple):
    """What a loss saw, as networkx graphs. Node i of the student is ``s<i>`` everywhere, of the teacher ``t<i>``.

    Attributes:
        transport: The plan: a bipartite graph of student nodes and teacher nodes.
        student: The student's batch graph.
        teacher: The teacher's batch graph.
    """

    transport: nx.Graph
    student: nx.DiGraph
    teacher: nx.DiGraph

    def write(self, folder: str | PathLike[str], format: Literal["graphml", "gexf"] = "graphml") -> list[Path]:
        """Write ``transport``, ``student`` and ``teacher``, a file each, into a folder that is made if it is missing.

        Args:
            folder: Where to; files of these names are replaced.
            format: GraphML is read by Gephi, Cytoscape, yEd and igraph; GEXF is Gephi's own.

        Raises:
            ValueError: For another format.
        """
        checks.one_of("format", format, ("graphml", "gexf"))
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write = nx.write_graphml if format == "graphml" else nx.write_gexf
        files = [folder / f"{name}.{format}" for name in self._fields]
        for graph, file in zip(self, files, strict=True):
            write(graph, file)
        return files


def to_networkx(
    comparison: Comparison,
    *,
    labels: Labels | None = None,
    teacher_labels: Labels | None = None,
    class_names: Sequence[str] | None = None,
    top: int | None = None,
) -> Networks:
    """Turn a comparison into three networkx graphs, with plain numbers and strings as attributes.

    Nodes have ``network`` ("student" or "teacher"), ``bipartite`` (0 or 1, networkx's mark for the two sides),
    ``index`` and ``mass``, the plan's marginal; ``class_index`` and ``class_name`` where they are known.

    Edges of ``transport`` are the pairs with mass. They have ``weight``, the mass; ``share`` of the student node's
    mass; ``cost`` if the loss has one; ``paired``, whether i is j, if there are as many students as teachers; and
    ``same_class`` where both classes are known.

    Edges of ``student`` and ``teacher`` run from source to target as in PyTorch Geometric. They have ``weight``, 1.0
    where the graph has none; the weights of an edge given twice add up, as they do in message passing. If the loss has
    relations, ``relation`` is the entry (target, source), as in :class:`~graphkd.relations.Adjacency`; relations of
    nodes that no edge joins are left out.

    Args:
        comparison: Of one problem, with a plan (n m).
        labels: Class of each student node (n), -100 for none; by default the student graph's ``y`` where that is one
            per node.
        teacher_labels: Class of each teacher node (m); by default ``labels`` if given and n is m, else the teacher
            graph's ``y``.
        class_names: The name of class c at place c. Characters that XML forbids become U+FFFD.
        top: How many edges of a student node are kept at most, the strongest; by default all. A dense plan has n m.

    Raises:
        ValueError: For a plan with leading axes, see :func:`graphkd.viz.inputs.plan_matrix`; for graphs with other
            numbers of nodes, labels that are not one class per node, a class without a name, edge weights that are not
            one finite number per edge, and ``top`` below 1.

    >>> import torch
    >>> from graphkd import GraphLoss, graphs, measures
    >>> x = torch.eye(3)
    >>> compared = GraphLoss(cost=measures.euclidean).compare(graphs.knn_graph(x, k=1), graphs.point_cloud(x))
    >>> networks = to_networkx(compared, labels=[0, 1, 1], class_names=["cat", "dog"])
    >>> networks.transport.edges["s1", "t1"]["paired"], networks.student.nodes["s1"]["class_name"]
    (True, 'dog')
    """
    if top is not None:
        checks.at_least("top", top, 1)
    plan = plan_matrix(comparison)
    n, m = plan.shape
    student = _classes("labels", labels, comparison.graphs[0], n)
    teacher = _classes(
        "teacher_labels", labels if teacher_labels is None and n == m else teacher_labels, comparison.graphs[1], m
    )
    relations = (None, None) if comparison.relations is None else comparison.relations
    sides = [
        list(_nodes("student", plan.sum(1), student, class_names)),
        list(_nodes("teacher", plan.sum(0), teacher, class_names)),
    ]
    transport = nx.Graph(name="transport")
    transport.add_nodes_from(sides[0] + sides[1])
    transport.add_edges_from(_pairs(plan, comparison.cost, student, teacher, top))
    return Networks(
        transport,
        _batch_graph("student", sides[0], comparison.graphs[0], relations[0]),
        _batch_graph("teacher", sides[1], comparison.graphs[1], relations[1]),
    )


def _classes(name: str, labels: Labels | None, graph: Data, n: int) -> np.ndarray | None:
    """The classes that were given, else the graph's own if they are one per node."""
    if labels is not None:
        return node_classes(name, labels, n)
    y = graph.get("y")
    per_node = isinstance(y, Tensor) and y.shape == (n,) and not y.is_floating_point()
    return node_classes(name, y, n) if per_node else None


def _nodes(
    network: Literal["student", "teacher"],
    masses: np.ndarray,
    classes: np.ndarray | None,
    class_names: Sequence[str] | None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    side = 0 if network == "student" else 1
    for i, mass in enumerate(masses.tolist()):
        node = {"network": network, "bipartite": side, "index": i, "mass": mass}
        if classes is not None and classes[i] != UNLABELLED:
            node["class_index"] = int(classes[i])
            if class_names is not None:
                node["class_name"] = NOT_IN_XML.sub("\ufffd", class_name(int(classes[i]), class_names))
        yield f"{network[0]}{i}", node


def _pairs(
    plan: np.ndarray, cost: Tensor | None, student: np.ndarray | None, teacher: np.ndarray | None, top: int | None
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    n, m = plan.shape
    costs = None if cost is None else cost.detach().to_dense().cpu().double().numpy()
    for i, row in enumerate(plan):
        partners = np.flatnonzero(row)
        if top is not None:
            partners = np.sort(partners[np.argsort(-row[partners], kind="stable")[:top]])
        for j in partners.tolist():
            edge: dict[str, Any] = {"weight": float(row[j]), "share": float(row[j] / row.sum())}
            if costs is not None:
                edge["cost"] = float(costs[i, j])
            if n == m:
                edge["paired"] = i == j
            if student is not None and teacher is not None and UNLABELLED not in (student[i], teacher[j]):
                edge["same_class"] = bool(student[i] == teacher[j])
            yield f"s{i}", f"t{j}", edge


def _batch_graph(
    network: Literal["student", "teacher"],
    nodes: list[tuple[str, dict[str, Any]]],
    graph: Data,
    relation: Tensor | None,
) -> nx.DiGraph:
    if graph.num_nodes != len(nodes):
        raise ValueError(f"needs a {network}'s graph of the plan's {len(nodes)} nodes, got {graph.num_nodes}")
    ends = np.zeros((2, 0), dtype=np.int64) if graph.edge_index is None else graph.edge_index.cpu().numpy()
    given = graph.get("edge_weight")
    weights = np.ones(ends.shape[1]) if given is None else given.detach().cpu().double().numpy()
    if weights.shape != ends.shape[1:] or not np.isfinite(weights).all():
        raise ValueError(f"edge_weight needs one finite number per edge, ({ends.shape[1]},), got {weights.shape}")
    relations = None if relation is None else relation.detach().cpu().double().numpy()
    joined = nx.DiGraph(name=network)
    joined.add_nodes_from(nodes)
    for source, target, weight in zip(*ends.tolist(), weights.tolist(), strict=True):
        edge = (nodes[source][0], nodes[target][0])
        before = joined.edges[edge]["weight"] if joined.has_edge(*edge) else 0.0
        joined.add_edge(*edge, weight=before + weight)
        if relations is not None:
            joined.edges[edge]["relation"] = float(relations[target, source])
    return joined
