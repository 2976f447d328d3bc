"""Candidate pairs: nearest neighbours against all distances, carried mass against Hall's condition."""

import inspect
from itertools import product

import pytest
import torch
from torch import Tensor

from graphkd.ot import candidates
from graphkd.ot.candidates import carried, nearest_pairs
from graphkd.ot.sparse import sparse_sinkhorn


def points(n: int, m: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(size, 3, generator=generator, dtype=dtype) for size in (n, m))


@pytest.mark.parametrize("block", [1, 20, 2**22])
@pytest.mark.parametrize("k", [1, 3, 8, 100])
def test_nearest_pairs_are_those_of_all_distances(monkeypatch, k, block):
    monkeypatch.setattr(candidates, "BLOCK", block)
    x, y = points(11, 8)
    distance = (x[:, None] - y).square().sum(-1)
    wanted = torch.zeros(11, 8, dtype=torch.bool)
    for i in range(11):
        wanted[i, distance[i].argsort()[:k]] = True
    for j in range(8):
        wanted[distance[:, j].argsort()[:k], j] = True
    pairs = nearest_pairs(x, y, k)
    assert torch.equal(pairs, wanted.nonzero().T)
    assert pairs.shape[1] <= k * 19
    assert torch.equal(nearest_pairs(y, x, k).flip(0).T.unique(dim=0), pairs.T)


def test_nearest_pairs_of_identical_points_leave_no_one_out():
    x = torch.zeros(6, 2)
    row, column = nearest_pairs(x, x, 2)
    assert len(row.unique()) == len(column.unique()) == 6


def test_nearest_pairs_of_half_precision_and_without_gradient():
    x, y = points(9, 7)
    x, y = x.half().requires_grad_(), y.half()
    assert torch.equal(nearest_pairs(x, y, 2), nearest_pairs(x.detach().float(), y.float(), 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest_pairs(x.float(), y.float(), 2), nearest_pairs(x, y, 2))


@pytest.mark.parametrize(
    "x, y, k, message",
    [
        (torch.rand(4, 2), torch.rand(3, 2), 0, "k needs an integer of at least 1, got 0"),
        (torch.rand(4, 2), torch.rand(3, 3), 1, r"needs points .* of one dtype, got x \(4, 2\) .* and y \(3, 3\)"),
        (torch.rand(4, 2), torch.rand(3, 2).double(), 1, "got x .* torch.float32 and y .* torch.float64"),
        (torch.rand(1, 4, 2), torch.rand(3, 2), 1, r"got x \(1, 4, 2\)"),
        (torch.rand(4), torch.rand(3, 2), 1, "x needs rows"),
        (torch.rand(4, 2), torch.rand(0, 2), 1, "y needs at least one row"),
        (torch.rand(4, 2), torch.full((3, 2), torch.nan), 1, "y needs finite values"),
        (torch.rand(4, 2), torch.rand(3, 2).to("meta"), 1, "needs all tensors on one device"),
    ],
)
def test_bad_points_are_refused(x, y, k, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(nearest_pairs)(x, y, k)


def most(pairs: Tensor, a: Tensor, b: Tensor) -> float:
    """By Hall's condition: no set of rows sends more than its neighbours take; the worst set decides."""
    a, b = a / a.sum(), b / b.sum()
    allowed = torch.zeros(len(a), len(b), dtype=torch.bool)
    allowed[pairs[0], pairs[1]] = True
    shares = []
    for chosen in product([False, True], repeat=len(a)):
        rows = torch.tensor(chosen)
        shares.append(float(a[~rows].sum() + b[allowed[rows].any(0)].sum()))
    return min(shares)


@pytest.mark.parametrize("seed", range(12))
def test_carried_mass_is_what_halls_condition_lets_pass(seed):
    generator = torch.Generator().manual_seed(seed)
    n, m = 6, 5
    allowed = torch.rand(n, m, generator=generator) < 0.3
    allowed[0, 0] = True
    a, b = (torch.rand(size, generator=generator, dtype=torch.float64) for size in (n, m))
    a[seed % n] = 0
    pairs = allowed.nonzero().T[:, torch.randperm(int(allowed.sum()), generator=generator)]
    share = carried(pairs, 7 * a, b)
    assert share.dtype == torch.float64
    assert share.item() == pytest.approx(most(pairs, a, b), abs=1e-7)


def test_all_pairs_carry_all_mass(problem):
    _, a, b = problem(30, 40)
    assert carried(torch.cartesian_prod(torch.arange(30), torch.arange(40)).T, a, b) == 1


def test_one_pair_per_node_carries_equal_masses_and_the_smaller_of_unequal_ones():
    nodes, order = torch.arange(1000), torch.randperm(1000)
    a = torch.rand(1000)
    pairs = torch.stack([nodes, order])
    assert carried(pairs, a, a[order.argsort()]) == 1
    b = torch.rand(1000)
    wanted = (a / a.sum()).minimum(b[order] / b.sum()).sum()
    assert carried(pairs, a, b).item() == pytest.approx(wanted.item(), abs=2e-6)


def test_carried_refuses_what_the_solver_refuses():
    pairs, one = torch.tensor([[0, 1], [0, 1]]), torch.ones(2)
    for bad, a in (
        (pairs[:, [0, 0]], one),
        (pairs + 1, one),
        (pairs.int(), one),
        (pairs, -one),
        (pairs, 0 * one),
        (pairs, torch.tensor([1.0, torch.nan])),
        (pairs, one.long()),
    ):
        messages = set()
        for refuse in (
            lambda pairs, a: inspect.unwrap(carried)(pairs, a, one),
            lambda pairs, a: inspect.unwrap(sparse_sinkhorn)(pairs, one, a, one, epsilon=0.1),
        ):
            with pytest.raises(ValueError) as error:
                refuse(bad, a)
            messages.add(str(error.value))
        assert len(messages) == 1
