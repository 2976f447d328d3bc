"""Cells of feature maps against plain loops over the windows of adaptive pooling."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from graphkd.cells import GaussianGap
from graphkd.graphs import clouds, masses, moments, positions


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def cells_by_loops(maps: Tensor, grid: int) -> list[list[Tensor]]:
    """For each map and each of its cells, line by line, the positions (p, c) that adaptive pooling would average."""
    _, _, h, w = maps.shape
    found = []
    for one in maps:
        for i in range(grid):
            for j in range(grid):
                found.append(
                    [
                        one[:, y, x]
                        for y in range(h)
                        for x in range(w)
                        if i * h // grid <= y < -(-(i + 1) * h // grid) and j * w // grid <= x < -(-(j + 1) * w // grid)
                    ]
                )
    return [torch.stack(cell) for cell in found]


SIZES = [(1, 4, 4), (2, 4, 6), (2, 5, 7), (3, 7, 5), (4, 7, 7), (3, 2, 9)]


@pytest.mark.parametrize(("grid", "h", "w"), SIZES)
def test_moments_are_mean_and_deviation_of_every_channel_in_every_cell(grid, h, w):
    maps = rows(3, 2, h, w).double().requires_grad_()
    graph = moments(maps, grid, eps=0.01)
    wanted = []
    for cell in cells_by_loops(maps, grid):
        mean = sum(cell) / len(cell)
        variance = sum((position - mean) ** 2 for position in cell) / (len(cell) - 1)
        wanted.append(torch.cat([mean, (variance + 0.01).sqrt()]))
    wanted = torch.stack(wanted).unsqueeze(1)
    assert graph.x.shape == (3 * grid**2, 1, 4)
    torch.testing.assert_close(graph.x, wanted)
    scale = torch.linspace(-1, 2, wanted.numel(), dtype=wanted.dtype).reshape(wanted.shape)
    gradients = [torch.autograd.grad((scale * x).sum(), maps)[0] for x in (graph.x, wanted)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("grid", "h", "w"), SIZES)
def test_cells_are_those_of_adaptive_pooling(grid, h, w):
    maps = rows(3, 2, h, w)
    wanted = F.adaptive_avg_pool2d(maps, grid).flatten(2).mT.flatten(0, 1)
    torch.testing.assert_close(moments(maps, grid).x[:, 0, :2], wanted)
    cloud = clouds(maps, grid).x
    torch.testing.assert_close((cloud[..., :-1] * cloud[..., -1:]).sum(1), wanted)


@pytest.mark.parametrize(("grid", "h", "w"), SIZES)
def test_a_cloud_has_all_positions_of_its_cell_and_their_shares(grid, h, w):
    maps = rows(3, 2, h, w).requires_grad_()
    graph, cells = clouds(maps, grid), cells_by_loops(maps, grid)
    most = max(len(cell) for cell in cells)
    assert graph.x.shape == (3 * grid**2, most, 3)
    for found, cell in zip(graph.x, cells, strict=True):
        assert torch.equal(found[: len(cell), :2], cell)
        assert found[: len(cell), 2].tolist() == [pytest.approx(1 / len(cell))] * len(cell)
        assert found[len(cell) :].abs().sum() == 0
    graph.x.sum().backward()
    assert (maps.grad >= 1).all()


def test_some_cells_are_smaller_than_others():
    sizes = [int((cloud[:, 2] > 0).sum()) for cloud in clouds(rows(1, 2, 5, 7), 3).x]
    assert sizes == [6, 6, 6, 9, 9, 9, 6, 6, 6]


@pytest.mark.parametrize("build", [moments, clouds])
def test_cells_are_single_nodes_of_mass_one_without_edges(build):
    graph = build(rows(3, 2, 4, 4).double(), 2)
    assert graph.edge_index.shape == (2, 0)
    assert torch.equal(masses(graph), torch.ones(12, 1, dtype=torch.float64))


def test_a_constant_channel_has_a_deviation_with_a_finite_gradient():
    maps = rows(2, 3, 4, 4)
    # What a ReLU leaves of a dead channel.
    maps[:, 1] = 0
    maps.requires_grad_()
    graph = moments(maps)
    assert graph.x[:, 0, 4].abs().sum() == 0
    (gradient,) = torch.autograd.grad(graph.x.square().sum() + graph.x.sum(), maps)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_moments_are_computed_in_float32_at_least(dtype):
    maps = rows(2, 3, 4, 4).to(dtype)
    torch.testing.assert_close(moments(maps, eps=1e-5).x, moments(maps.float(), eps=1e-5).x, atol=0, rtol=0)


@pytest.mark.parametrize("build", [moments, clouds])
@pytest.mark.parametrize(
    ("maps", "grid", "message"),
    [
        (torch.zeros(2, 3, 1, 1), 1, "at least two positions.* got 1 x 1 cells of maps of 1 x 1"),
        (torch.zeros(2, 3, 4, 4), 4, "at least two positions.* got 4 x 4 cells of maps of 4 x 4"),
        (torch.zeros(2, 3, 2, 2), 3, "at least two positions.* got 3 x 3 cells of maps of 2 x 2"),
        (torch.zeros(2, 3, 4, 4), 0, "grid needs an integer of at least 1, got 0"),
        (torch.zeros(2, 3, 4), 1, "feature maps|Type-check error"),
        (torch.full((2, 3, 4, 4), torch.nan), 1, "maps needs finite values, got 96 NaN or infinite of 96"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), 1, "maps needs floating-point values|Type-check error"),
    ],
)
def test_cells_that_have_no_deviation_are_refused(build, maps, grid, message):
    # The run-time type checks of the tests see some of these first where they are on.
    with pytest.raises((ValueError, TypeError), match=message):
        build(maps, grid)


# Positions


def test_positions_are_single_nodes_with_the_channels_of_each_place():
    maps = rows(3, 2, 4, 5).double().requires_grad_()
    graph = positions(maps)
    wanted = [maps[i, :, r, c] for i in range(3) for r in range(4) for c in range(5)]
    assert graph.x.shape == (60, 1, 2)
    torch.testing.assert_close(graph.x.squeeze(1), torch.stack(wanted), rtol=0, atol=0)
    assert graph.edge_index.shape == (2, 0)
    assert graph.node == "cell"
    assert torch.equal(masses(graph), torch.ones(60, 1, dtype=torch.float64))
    scale = torch.linspace(-1, 2, 120, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((scale * graph.x.flatten()).sum(), maps)
    torch.testing.assert_close(gradient, scale.reshape(3, 4, 5, 2).movedim(-1, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_positions_are_in_float32_at_least(dtype):
    assert positions(rows(2, 3, 4, 4).to(dtype)).x.dtype == torch.float32


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.zeros(2, 3, 4), r"feature maps \(n, c, h, w\), got shape \(2, 3, 4\)"),
        (torch.full((2, 3, 4, 4), torch.nan), "maps needs finite values, got 96 NaN or infinite of 96"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), "maps needs floating-point values"),
    ],
)
def test_what_is_no_map_has_no_positions(maps, message):
    with pytest.raises(ValueError, match=message):
        positions(maps)


# The gap between cells


def weighted(cost: Tensor) -> Tensor:
    """A scalar to which every entry contributes differently."""
    return (cost * torch.linspace(-1, 2, cost.numel(), dtype=cost.dtype).reshape(cost.shape)).sum()


def moments_by_loops(cell: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (c) and unbiased covariance (c c) of positions (p, c)."""
    mean = torch.stack(list(cell)).mean(0)
    products = [torch.outer(position - mean, position - mean) for position in cell]
    return mean, torch.stack(products).sum(0) / (len(cell) - 1)


def cells_of_both(student: Tensor, teacher: Tensor, grid: int) -> list[tuple[Tensor, ...]]:
    """Means and covariances of the student's and of the teacher's cell, for each pair of cells."""
    pairs = zip(cells_by_loops(student, grid), cells_by_loops(teacher, grid), strict=True)
    return [(*moments_by_loops(ours), *moments_by_loops(theirs)) for ours, theirs in pairs]


@pytest.mark.parametrize("part", ["mean", "covariance"])
@pytest.mark.parametrize("grid", [1, 3])
def test_the_diagonal_gap_is_the_squared_distance_of_means_or_deviations(part, grid):
    student, teacher = rows(2, 3, 5, 7).double().requires_grad_(), rows(2, 3, 4, 6).double().flip(0)
    cost = GaussianGap(part, "diagonal")(*(moments(maps, grid, 0.01).x for maps in (student, teacher)))
    wanted = []
    for mean, covariance, other_mean, other_covariance in cells_of_both(student, teacher, grid):
        deviations = [(each.diagonal() + 0.01).sqrt() for each in (covariance, other_covariance)]
        one, other = (mean, other_mean) if part == "mean" else deviations
        wanted.append(sum((one[k] - other[k]) ** 2 for k in range(3)))
    wanted = torch.stack(wanted)[:, None, None]
    assert cost.shape == (2 * grid**2, 1, 1)
    torch.testing.assert_close(cost, wanted, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(weighted(each), student)[0] for each in (cost, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def matrix_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T


@pytest.mark.parametrize("grid", [1, 3])
def test_the_full_gap_has_the_same_means_and_the_bures_distance_of_covariances(grid):
    student, teacher = rows(2, 2, 5, 7).double().requires_grad_(), rows(2, 2, 6, 6).double().flip(0)
    graphs = [clouds(maps, grid).x for maps in (student, teacher)]
    means, covariances = [], []
    for mean, covariance, other_mean, other_covariance in cells_of_both(student, teacher, grid):
        a, b = (each + 0.01 * torch.eye(2, dtype=torch.float64) for each in (covariance, other_covariance))
        root = matrix_root(a)
        means.append(((mean - other_mean) ** 2).sum())
        covariances.append(torch.trace(a + b - 2 * matrix_root(root @ b @ root)))
    for part, expected in (("mean", means), ("covariance", covariances)):
        cost, wanted = GaussianGap(part, "full", 0.01)(*graphs), torch.stack(expected)[:, None, None]
        torch.testing.assert_close(cost, wanted, rtol=1e-9, atol=1e-10)
        gradients = [torch.autograd.grad(weighted(x), student, retain_graph=True)[0] for x in (cost, wanted)]
        torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)
