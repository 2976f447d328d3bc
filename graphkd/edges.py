"""Graphs that are known: batches whose edges are the data's own, as in citation networks or molecules."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import checks
from graphkd.features import pick, vectors
from graphkd.typing import Features


def given_graph(
    x: Float[Tensor, "n d"], edge_index: Tensor, index: Tensor | None = None, edge_weight: Tensor | None = None
) -> Data:
    """Join rows by known edges; of a mini-batch, by those of which both ends are in it.

    The number of edges in a mini-batch depends on the data, which makes the host wait once on an accelerator.

    Args:
        x: Node attributes (n d).
        edge_index: Edges (2 e): sources in row 0, centres in row 1, as everywhere in PyTorch Geometric.
        index: Which node each row is (n), where the edges are those of a larger graph: the ``n_id`` of a batch of
            PyTorch Geometric's loaders. Row i is node i, if omitted.
        edge_weight: One number per edge (e).

    Raises:
        ValueError: For rows that are empty, edges to rows that are not there, and nodes that come twice.

    >>> edges = torch.tensor([[0, 1, 7], [1, 7, 9]])
    >>> given_graph(torch.zeros(3, 2), edges, index=torch.tensor([7, 1, 4])).edge_index
    tensor([[1],
            [0]])
    """
    checks.rows("x", x)
    checks.same_device(x=x, edge_index=edge_index, index=index, edge_weight=edge_weight)
    _check_shapes(len(x), edge_index, index, edge_weight)
    if index is None:
        _check_range(len(x), edge_index)
        kept = edge_index
    else:
        order = index.argsort()
        nodes = index[order]
        if checks.can_look(nodes) and bool((nodes[1:] == nodes[:-1]).any()):
            raise ValueError(f"index needs each node once, got {len(nodes)} rows of {len(nodes.unique())} nodes")
        at = torch.searchsorted(nodes, edge_index.contiguous()).clamp_max(len(nodes) - 1)
        inside = (nodes[at] == edge_index).all(0)
        kept = order[at[:, inside]]
        edge_weight = None if edge_weight is None else edge_weight[inside]
    return Data(x=x, edge_index=kept, **({} if edge_weight is None else {"edge_weight": edge_weight}))


class GivenEdges(nn.Module):
    """A builder of which the edges are given; a module, so that they move to a device with the criterion.

    The batch is all nodes in their order; or some, with the feature ``index`` that says which: the ``index`` of
    ``distiller(inputs, labels, index)``. To give a method the data's own graph instead of its own, replace the builders
    of its encoders.

    Args:
        edge_index: Edges (2 e) of the whole data set: sources in row 0, centres in row 1.
        edge_weight: One number per edge (e).
        name: Of the feature that nodes carry.

    >>> from graphkd.losses import otgd
    >>> criterion = otgd(8, 16)
    >>> criterion.student.build = criterion.teacher.build = GivenEdges(torch.tensor([[0, 1, 2], [1, 2, 0]]))
    >>> features = lambda d: {"feat": torch.randn(3, d), "logits": torch.randn(3, 4)}
    >>> criterion(features(8), features(16)).comparisons["g"].graphs[0].edge_index
    tensor([[0, 1, 2],
            [1, 2, 0]])
    """

    edge_index: Tensor
    edge_weight: Tensor | None

    def __init__(self, edge_index: Tensor, edge_weight: Tensor | None = None, name: str = "feat") -> None:
        super().__init__()
        self.register_buffer("edge_index", edge_index, persistent=False)
        self.register_buffer("edge_weight", edge_weight, persistent=False)
        self.name = name

    def forward(self, features: Features) -> Data:
        """The batch's graph."""
        index = pick(features, "index") if "index" in features else None
        return given_graph(vectors(features, self.name), self.edge_index, index, self.edge_weight)

    def extra_repr(self) -> str:
        """How many edges."""
        return f"{self.edge_index.shape[1]} edges, name={self.name!r}"


def _check_range(n: int, edge_index: Tensor) -> None:
    if not checks.can_look(edge_index) or edge_index.numel() == 0:
        return
    low, high = int(edge_index.min()), int(edge_index.max())
    if low < 0 or high >= n:
        raise ValueError(
            f"edge_index needs rows from 0 to {n - 1}, got {low} to {high}: for a mini-batch of a larger graph, give "
            "the index of each row"
        )


def _check_shapes(n: int, edge_index: Tensor, index: Tensor | None, edge_weight: Tensor | None) -> None:
    if edge_index.dim() != 2 or edge_index.shape[0] != 2 or edge_index.is_floating_point():
        raise ValueError(
            f"edge_index needs integers of shape (2, e), got {edge_index.dtype} of shape {tuple(edge_index.shape)}"
        )
    if index is not None and index.shape != (n,):
        raise ValueError(f"index needs one node per row, ({n},), got {tuple(index.shape)}")
    if edge_weight is not None and edge_weight.shape != edge_index.shape[1:]:
        raise ValueError(
            f"edge_weight needs one number per edge, {tuple(edge_index.shape[1:])}, got {tuple(edge_weight.shape)}"
        )
