"""Builders of feature maps: positions, or cells of the windows of adaptive pooling, each a graph of its own."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn.functional import pad
from torch_geometric.data import Data

from graphkd import checks
from graphkd.ot.gaussian import Covariance, gaussian
from graphkd.precision import raised, root
from graphkd.typing import Real

Part = Literal["mean", "covariance"]


def positions(maps: Shaped[Tensor, "..."]) -> Data:
    """Positions of feature maps as nodes, with the channels as attributes: ``x`` (n h w, 1, c).

    Each is a graph of its own, so that a position is compared with the same one of the same image.

    Raises:
        ValueError: For maps that are not finite or not (n c h w).

    >>> positions(torch.zeros(2, 3, 4, 4)).x.shape
    torch.Size([32, 1, 3])
    """
    checks.maps("maps", maps)
    return _singles(raised(maps).movedim(1, -1).flatten(0, -2).unsqueeze(1))


def moments(maps: Shaped[Tensor, "..."], grid: int = 1, eps: Real = 0.0) -> Data:
    r"""Cells of feature maps as nodes, each a Gaussian: the channels' means and standard deviations over its positions.

    .. math:: \sigma = \sqrt{\mathrm{var} + \epsilon}, \qquad \text{var with } p - 1 \text{ for p positions}

    A batch of single nodes, one for each of n maps times g g cells: ``x`` (n g g, 1, 2 c), means first. Where g does
    not divide height or width, cells overlap as those of adaptive pooling do: rows from floor(i h / g) to
    ceil((i + 1) h / g).

    Args:
        maps: Of shape (n c h w).
        grid: g.
        eps: Added to variances.

    Raises:
        ValueError: For maps that are not finite or not (n c h w), and for cells of a single position.

    >>> moments(torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2)).x.round(decimals=3)
    tensor([[[1.0000, 1.4140]]])
    """
    means, deviations = [], []
    for cell in _cells(maps, grid):
        # Two passes of plain arithmetic take half the time of torch.var on the CPU.
        positions = cell.flatten(2)
        mean = positions.mean(-1, keepdim=True)
        variance = (positions - mean).square().sum(-1) / (positions.shape[-1] - 1)
        means.append(mean.squeeze(-1))
        deviations.append(root(variance + eps))
    x = torch.cat([torch.stack(means, 1), torch.stack(deviations, 1)], -1)
    return _singles(x.flatten(0, 1).unsqueeze(1))


def clouds(maps: Shaped[Tensor, "..."], grid: int = 1) -> Data:
    """Cells of feature maps as nodes, each the cloud of its positions.

    A batch of single nodes, one for each of n maps times g g cells as in :func:`moments`: ``x`` (n g g, p, c + 1) has a
    row per position of the largest cell, the last column being that position's share of its cell, zero where a cell has
    fewer.

    Raises:
        ValueError: As :func:`moments` does.

    >>> clouds(torch.zeros(5, 3, 2, 2)).x.shape
    torch.Size([5, 4, 4])
    """
    cells = [cell.flatten(2).mT for cell in _cells(maps, grid)]
    most = max(cell.shape[1] for cell in cells)
    rows = []
    for cell in cells:
        share = cell.new_full((*cell.shape[:2], 1), 1 / cell.shape[1])
        rows.append(pad(torch.cat([cell, share], -1), (0, 0, 0, most - cell.shape[1])))
    return _singles(torch.stack(rows, 1).flatten(0, 1))


@dataclass(frozen=True)
class GaussianGap:
    r"""A cost between cells: one part of the squared 2-Wasserstein distance of the two as Gaussians.

    .. math:: \|\mu^s - \mu^t\|^2, \qquad
        \mathrm{tr}\bigl(\Sigma^s + \Sigma^t - 2 (\Sigma^{s\,1/2} \Sigma^t \Sigma^{s\,1/2})^{1/2}\bigr)

    the latter :math:`\|\sigma^s - \sigma^t\|^2` where covariances are diagonal.

    Args:
        part: ``mean`` or ``covariance``.
        covariance: ``diagonal``, between the cells of :func:`moments`, or ``full``, between those of :func:`clouds`.
        eps: Added to variances of ``full``.

    >>> GaussianGap("mean", "diagonal")(torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
    tensor([[[1.]]])
    """

    part: Part
    covariance: Covariance = "diagonal"
    eps: Real = 0.0

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The cost of single cells (b 1 d) against single cells, (b 1 1)."""
        if self.covariance == "diagonal":
            half = slice(0, x.shape[-1] // 2) if self.part == "mean" else slice(x.shape[-1] // 2, None)
            return (x[..., half] - y[..., half]).square().sum(-1, keepdim=True)
        shares = x[..., -1], y[..., -1]
        if self.part == "mean":
            means = [(share.unsqueeze(-1) * z[..., :-1]).sum(-2) for share, z in zip(shares, (x, y), strict=True)]
            return (means[0] - means[1]).square().sum(-1)[..., None, None]
        found = gaussian(x[..., :-1], y[..., :-1], *shares, covariance="full", unbiased=True, eps=self.eps)
        return found.covariance[..., None, None]


def _cells(maps: Tensor, grid: int) -> list[Tensor]:
    """The windows of adaptive pooling, of at least two positions."""
    checks.at_least("grid", grid, 1)
    checks.maps("maps", maps)
    maps = raised(maps)
    spans = [[slice(i * size // grid, -(-(i + 1) * size // grid)) for i in range(grid)] for size in maps.shape[-2:]]
    cells = [maps[:, :, rows, columns] for rows in spans[0] for columns in spans[1]]
    if min(cell.shape[-2:].numel() for cell in cells) < 2:
        raise ValueError(
            f"needs cells of at least two positions, since one has no deviation, got {grid} x {grid} cells of maps of "
            f"{maps.shape[-2]} x {maps.shape[-1]}: name a layer with larger maps, or a smaller grid"
        )
    return cells


def _singles(x: Tensor) -> Data:
    """A batch of graphs of one node each."""
    none = torch.empty((2, 0), dtype=torch.int64, device=x.device)
    return Data(x=x, edge_index=none, mass=x.new_ones(len(x), 1), node="cell")
