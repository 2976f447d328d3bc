"""Candidate pairs: which nodes of one side may be matched with which of the other, and how much mass they let pass."""

from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array  # pyright: ignore # scipy has no types
from scipy.sparse.csgraph import maximum_flow  # pyright: ignore
from torch import Tensor

from graphkd import checks
from graphkd.ot.problem import mass
from graphkd.precision import no_autocast, raised

BLOCK = 2**22
"""How many distances are held at once."""

UNITS = 2**30
"""How many units the mass is cut into: flows are counted in whole numbers of 32 bits."""


@torch.no_grad()
def nearest_pairs(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], k: int) -> Int[Tensor, "2 e"]:
    r"""Candidate pairs of two sets of points: each point with the k nearest of the other set.

    .. math::
        S = \{(i, j) : j \text{ is one of the } k \text{ nearest to } i, \text{ or } i \text{ one of those to } j\}

    by Euclidean distance, so that no node is left without a candidate: at most k (n + m) pairs. A set of fewer than k
    points is near as a whole. Distances are taken in blocks of bounded size, never n by m at once, which takes time of
    n m d all the same. Candidates for every node do not yet carry every mass: see :func:`carried`. Waits for an
    accelerator, since the number of pairs is not known before.

    Args:
        x: Points of the rows.
        y: Points of the columns.
        k: Neighbours per point.

    Returns:
        The pairs, a row over a column, sorted by row and then by column.

    Raises:
        ValueError: For k below 1, and for points that are not finite rows of one width, dtype and device.

    >>> nearest_pairs(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.1], [0.2], [9.0]]), k=1)
    tensor([[0, 0, 1, 1],
            [0, 1, 1, 2]])
    """
    checks.at_least("k", k, 1)
    checks.rows("x", x)
    checks.rows("y", y)
    checks.same_device(x=x, y=y)
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1] or x.dtype != y.dtype:
        raise ValueError(
            f"needs points (n, d) and (m, d) of one dtype, got x {tuple(x.shape)} {x.dtype} "
            f"and y {tuple(y.shape)} {y.dtype}"
        )
    with no_autocast(x.device):
        x, y = raised(x), raised(y)
        right, left = _nearest(x, y, k), _nearest(y, x, k)
    row, column = (torch.arange(len(points), device=x.device).unsqueeze(-1) for points in (x, y))
    keys = torch.cat([(row * len(y) + right).flatten(), (left * len(y) + column).flatten()])
    key: Tensor = keys.unique()  # pyright: ignore # torch does not type it
    return torch.stack([key // len(y), key % len(y)])


def carried(edge_index: Int[Tensor, "2 e"], a: Float[Tensor, " n"], b: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    r"""The largest share of the mass that can move from a to b along the pairs of a support S.

    .. math::
        \max_{P \ge 0} \sum_{ij} P_{ij} \quad \text{where} \quad P 1 \le a, \; P^\top 1 \le b, \;
        P_{ij} = 0 \text{ outside } S,

    both masses scaled to a sum of one. Below 1, no plan on S has the marginals a and b. Found as a maximum flow on the
    CPU, for which an accelerator waits; too large by no more than 1e-9 per node.

    Args:
        edge_index: The pairs.
        a: Mass of the row nodes.
        b: Mass of the column nodes.

    Raises:
        ValueError: For pairs and masses that :func:`~graphkd.ot.sparse.sparse_sinkhorn` would refuse.

    Three nodes that share two candidates:

    >>> carried(torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]]), torch.ones(3), torch.ones(3))
    tensor(0.6667)

    Source: Hall, "On representatives of subsets", J. London Math. Soc. 1935; the flow: Dinitz, "Algorithm for solution
    of a problem of maximum flow in networks with power estimation", Soviet Math. Dokl. 1970.
    """
    checks.same_device(edge_index=edge_index, a=a, b=b)
    # On the CPU values are looked at.
    pairs, left, right = (x.detach().cpu() for x in (edge_index, a, b))
    arranged(pairs, left, right)
    left, right = mass("a", left, len(a), raised(left)), mass("b", right, len(b), raised(right))
    return largest_flow(pairs[0], pairs[1], left, right).to(a.device)


def largest_flow(row: Tensor, column: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """What :func:`carried` finds, for tensors that have been checked and are on the CPU."""
    # Rounded up, masses that fit still do.
    left, right = ((UNITS * x / x.sum()).ceil().numpy() for x in (a.detach().double(), b.detach().double()))
    n, m = len(left), len(right)
    start, end = 0, n + m + 1
    tails = np.concatenate([np.full(n, start), 1 + row.numpy(), 1 + n + np.arange(m)])
    heads = np.concatenate([1 + np.arange(n), 1 + n + column.numpy(), np.full(m, end)])
    room = np.concatenate([left, np.full(len(row), UNITS), right]).astype(np.int32)
    network: Any = csr_array((room, (tails, heads)), shape=(end + 1, end + 1))
    flow = int(cast(Any, maximum_flow(network, start, end)).flow_value)
    return torch.tensor(min(1.0, flow / UNITS), dtype=a.dtype)


def arranged(edge_index: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs sorted by row, then column.

    Returns:
        The pairs; their positions in what was given; and whether any were bad, which raises where looking is free.
        Elsewhere a node out of range, which would end the process, is moved inside.
    """
    checks.same_device(edge_index=edge_index, a=a, b=b)
    if edge_index.dtype != torch.int64 or edge_index.dim() != 2 or len(edge_index) != 2 or edge_index.numel() == 0:
        raise ValueError(
            "edge_index needs at least one pair, as integers torch.int64 of shape (2, e), "
            f"got {tuple(edge_index.shape)} {edge_index.dtype}"
        )
    for name, x in (("a", a), ("b", b)):
        checks.floating(name, x)
        if x.dim() != 1 or len(x) == 0:
            raise ValueError(f"{name} needs masses of shape (n), one problem at a time, got {tuple(x.shape)}")
    n, m = len(a), len(b)
    row, column = edge_index[0].clamp(0, n - 1), edge_index[1].clamp(0, m - 1)
    outside = (edge_index[0] != row) | (edge_index[1] != column)
    key, order = (row * m + column).sort()
    twice = key[1:] == key[:-1]
    pairs = torch.stack([key // m, key % m])
    bad = outside.any() | twice.any()
    if checks.can_look(edge_index) and bool(bad):
        if bool(outside.any()):
            i, j = map(int, edge_index[:, outside][:, 0])
            raise ValueError(
                f"edge_index needs row nodes in [0, {n}) and column nodes in [0, {m}), got a pair ({i}, {j})"
            )
        i, j = map(int, pairs[:, 1:][:, twice][:, 0])
        raise ValueError(f"edge_index needs each pair once, got {int(twice.sum())} repeated, as ({i}, {j})")
    return pairs, order, bad


def _nearest(x: Tensor, y: Tensor, k: int) -> Tensor:
    """The k nearest rows of y for each row of x (n k), or all of them."""
    blocks = cast(tuple[Tensor, ...], x.split(max(1, BLOCK // len(y))))  # pyright: ignore[reportUnknownMemberType]
    return torch.cat([torch.cdist(block, y).topk(min(k, len(y)), largest=False).indices for block in blocks])
