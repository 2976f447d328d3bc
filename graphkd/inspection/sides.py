"""What the rows and columns of a plan are, and in which order a page shows them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from torch import Tensor
from torch_geometric.data import Data

from graphkd.typing import UNLABELLED
from graphkd.viz.inputs import by_class

MOST_NODES = 200
"""Rows and columns of a plan on the page, at most."""

REMEMBERED = "remembered"
"""What a graph calls nodes of which the first are the batch's own, and the rest are out of a memory."""


class Side(NamedTuple):
    """The nodes of one side of a plan.

    Attributes:
        kind: ``sample``, ``class``, or what else a node is.
        classes: The class of each node (n), -100 for none.
        shown: Which nodes the page shows, in which order.
        own: How many nodes are the batch's own; the rest are out of a memory.
    """

    kind: str
    classes: np.ndarray
    shown: np.ndarray
    own: int


def sides(graphs: tuple[Data, Data], labels: Shaped[Tensor, " k"], n: int, m: int) -> tuple[Side, Side]:
    """Student's and teacher's side of a plan (n m) on a batch of k samples: sorted by class, at most 200 nodes each.

    Of more the page shows every so many-th. Where some nodes are out of a memory, a quarter of the room is theirs.

    >>> import torch
    >>> one, other = sides((Data(), Data(node="class")), torch.tensor([1, 0, 1]), 3, 2)
    >>> one.kind, one.shown.tolist(), other.kind, other.classes.tolist()
    ('sample', [1, 0, 2], 'class', [0, 1])
    """
    remembered = any(graph.get("node") == REMEMBERED for graph in graphs)
    most = MOST_NODES * 3 // 4 if remembered else MOST_NODES
    one, other = (_side(graph, labels, count, most) for graph, count in zip(graphs, (n, m), strict=True))
    return one, other


def paired(one: Side, other: Side) -> bool:
    """Whether node i of one side is node i of the other: the same sample, or the same class."""
    return one.kind == other.kind and one.kind in ("sample", "class") and one.own == other.own


def evenly(nodes: np.ndarray, count: int) -> np.ndarray:
    """At most so many of the nodes, every so many-th.

    >>> evenly(np.arange(6), 3).tolist(), evenly(np.arange(2), 3).tolist()
    ([0, 2, 4], [0, 1])
    """
    return nodes if len(nodes) <= count else nodes[np.arange(count) * len(nodes) // count]


def _side(graph: Data, labels: Tensor, count: int, most: int) -> Side:
    node, known = graph.get("node"), labels.numpy()
    classes = np.full(count, UNLABELLED)
    kind, own = (node or "node"), count
    if node == "class":
        classes = np.arange(count)
    elif node == REMEMBERED and count >= len(known):
        kind, own = "sample", len(known)
        classes[:own] = known
    elif node is None and count == len(known):
        kind, classes = "sample", known
    first = evenly(by_class(classes[:own]), most)
    return Side(kind, classes, np.concatenate([first, evenly(np.arange(own, count), MOST_NODES - len(first))]), own)
