"""A batch graph in numbers, for people: what is joined, how evenly, and whether it joins what belongs together."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd import display
from graphkd.typing import UNLABELLED


class GraphSummary(NamedTuple):
    """What :func:`summarise` says of a graph; prints as a few lines, and in a notebook as a table.

    Attributes:
        nodes: How many.
        width: Attributes of a node, None without ``x``.
        edges: How many, directed, with self-loops.
        self_loops: How many of them.
        isolated: Nodes that no edge joins with another.
        mean_degree: Mean number of edges that end in a node, self-loops counted.
        min_degree: The smallest such number.
        max_degree: The largest.
        min_weight: Smallest edge weight; None, as the next two, without weights or edges.
        mean_weight: Mean edge weight.
        max_weight: Largest edge weight.
        reciprocity: Share of edges that also run back, self-loops left out; None without edges.
        homophily: Share of edges between nodes of known class that join one class, self-loops left out; None without
            such edges, and without one class per node in ``y``.
        mass: Whether the graph carries masses of its own; otherwise they are uniform.
    """

    nodes: int
    width: int | None
    edges: int
    self_loops: int
    isolated: int
    mean_degree: float
    min_degree: int
    max_degree: int
    min_weight: float | None
    mean_weight: float | None
    max_weight: float | None
    reciprocity: float | None
    homophily: float | None
    mass: bool

    def _rows(self) -> list[tuple[str, str]]:
        """What is said, line by line."""
        rows = [
            ("nodes", f"{self.nodes}" + (f" of width {self.width}" if self.width is not None else "")),
            ("edges", f"{self.edges} directed, {self.self_loops} self-loops; {self.isolated} isolated nodes"),
            ("in-degree", f"{self.mean_degree:.4g} ({self.min_degree} to {self.max_degree})"),
        ]
        if self.mean_weight is not None:
            rows.append(("weight", f"{self.mean_weight:.4g} ({self.min_weight:.4g} to {self.max_weight:.4g})"))
        if self.reciprocity is not None:
            rows.append(("reciprocity", f"{self.reciprocity:.4g}"))
        if self.homophily is not None:
            rows.append(("homophily", f"{self.homophily:.4g}"))
        return [*rows, ("mass", "its own" if self.mass else "uniform")]

    def __repr__(self) -> str:
        """A few lines."""
        return "\n".join(display.aligned(self._rows()))

    def _repr_html_(self) -> str:
        """A small table."""
        return display.table(self._rows())


def summarise(graph: Data) -> GraphSummary:
    """A graph in plain numbers; looks at values, so it waits for an accelerator.

    Args:
        graph: Nodes, and what there is of ``edge_index``, ``edge_weight``, ``y`` and ``mass``. Several graphs in one
            :class:`~torch_geometric.data.Batch` count as one.

    Raises:
        ValueError: For a graph without nodes, for edges to nodes that are not there, and for weights that are not one
            per edge.

    >>> graph = Data(x=torch.zeros(3, 8), edge_index=torch.tensor([[0, 1, 1], [1, 0, 2]]), y=torch.tensor([0, 0, 1]))
    >>> summarise(graph)
    nodes        3 of width 8
    edges        3 directed, 0 self-loops; 0 isolated nodes
    in-degree    1 (1 to 1)
    reciprocity  0.6667
    homophily    0.6667
    mass         uniform
    """
    n = graph.num_nodes
    if not n:
        raise ValueError(f"needs a graph of at least one node, got {n}")
    ends = torch.zeros((2, 0), dtype=torch.int64) if graph.edge_index is None else graph.edge_index.detach().cpu()
    if ends.numel() and not 0 <= int(ends.min()) <= int(ends.max()) < n:
        raise ValueError(f"needs edges between nodes 0 to {n - 1}, got nodes {int(ends.min())} to {int(ends.max())}")
    between = ends[:, ends[0] != ends[1]]
    degree = ends[1].bincount(minlength=n)
    low, mean, high = _weights(graph, ends.shape[1])
    return GraphSummary(
        nodes=n,
        width=None if graph.x is None else graph.x.shape[1:].numel(),
        edges=ends.shape[1],
        self_loops=ends.shape[1] - between.shape[1],
        isolated=n - len(between.unique()),
        mean_degree=ends.shape[1] / n,
        min_degree=int(degree.min()),
        max_degree=int(degree.max()),
        min_weight=low,
        mean_weight=mean,
        max_weight=high,
        reciprocity=_share(torch.isin(between[0] * n + between[1], between[1] * n + between[0])),
        homophily=_homophily(graph.get("y"), between, n),
        mass=graph.get("mass") is not None,
    )


def _weights(graph: Data, edges: int) -> tuple[float, float, float] | tuple[None, None, None]:
    """Smallest, mean and largest weight."""
    weight = graph.get("edge_weight")
    if weight is None:
        return None, None, None
    if weight.shape != (edges,):
        raise ValueError(f"edge_weight needs one number per edge, shape ({edges},), got {tuple(weight.shape)}")
    if not edges:
        return None, None, None
    weight = weight.detach().double()
    return float(weight.min()), float(weight.mean()), float(weight.max())


def _homophily(y: object, between: Tensor, n: int) -> float | None:
    """Share of edges between known classes that join one class."""
    if not isinstance(y, Tensor) or y.shape != (n,) or y.is_floating_point():
        return None
    start, end = y.cpu()[between]
    known = (start != UNLABELLED) & (end != UNLABELLED)
    return _share((start == end)[known])


def _share(claims: Tensor) -> float | None:
    """Share of claims that hold; None without any."""
    return float(claims.double().mean()) if claims.numel() else None
