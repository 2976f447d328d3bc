"""What fused Gromov-Wasserstein transport refuses, and what it takes that is odd but sound."""

import inspect

import pytest
import torch

from graphkd import checks
from graphkd.ot.fused.lowrank import LowRank
from graphkd.ot.gromov import fused_gromov
from graphkd.typing import BAD_COST, BAD_MASS, UNEQUAL_MASS

# Without the types that tests check at run time: its own errors are wanted.
plain = inspect.unwrap(fused_gromov)

COST, STUDENT, TEACHER = torch.rand(3, 2), torch.rand(3, 3), torch.rand(2, 2)
A, B = torch.full((3,), 1 / 3), torch.full((2,), 1 / 2)
SOLVERS = ("mirror", "conditional")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.1}, r"alpha needs a number in \[0, 1\], got -0.1"),
        ({"alpha": 1.5}, r"alpha needs a number in \[0, 1\], got 1.5"),
        ({"alpha": float("nan")}, "alpha needs a number"),
        ({"loss": "l1"}, "loss needs one of square, kl, got 'l1'"),
        ({"solver": "fast"}, "solver needs one of auto, mirror, conditional, got 'fast'"),
        ({"num_iters": 0}, "num_iters needs an integer of at least 1, got 0"),
        ({"num_inner": 0}, "num_inner needs an integer of at least 1, got 0"),
        ({"epsilon": 0.0}, "epsilon needs a finite number above 0, got 0.0"),
        ({"tol": -1.0}, "tol needs a finite number above 0, got -1.0"),
        ({"start": "random"}, "start needs one of product, identity, got 'random'"),
        ({"start": "identity"}, "start='identity' needs equal masses on both sides, got 3 and 2 nodes"),
        ({"start": torch.ones(3, 3)}, r"start needs a plan of shape \(3, 2\), got \(3, 3\)"),
        ({"start": torch.ones(3, 2)}, "start needs a plan of at least 0 with the masses asked for"),
        ({"start": torch.tensor([[1, -1], [0, 1.0], [0, 0]]) / 3}, "got a smallest entry of -0.333"),
        ({"start": torch.full((3, 2), float("nan"))}, "start needs finite values"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plain(COST, STUDENT, TEACHER, A, B, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cost": None}, "needs a cost where alpha is below 1, got None at alpha=0.5"),
        ({"student_relation": None}, "needs both relations where alpha is above 0, got None at alpha=0.5"),
        ({"teacher_relation": None}, "needs both relations where alpha is above 0"),
        ({"cost": torch.ones(3)}, "cost needs rows"),
        ({"cost": torch.full((3, 2), float("inf"))}, "cost needs finite values, got 6"),
        ({"student_relation": torch.ones(3, 2)}, r"student_relation needs a square matrix .* got shape \(3, 2\)"),
        ({"teacher_relation": torch.ones(3, 3)}, r"teacher_relation needs 2 nodes .* \(3, 2\), got 3"),
        ({"student_relation": torch.full((3, 3), float("nan"))}, "student_relation needs finite values, got 9"),
        ({"student_relation": torch.ones(3, 3, dtype=torch.int64)}, "student_relation needs floating-point values"),
        ({"student_relation": LowRank(torch.ones(3, 1), torch.ones(3, 2))}, "needs two factors of one shape"),
        (
            {"student_relation": LowRank(torch.ones(3, 1), torch.full((3, 1), torch.nan))},
            "student_relation.right needs",
        ),
        ({"student_relation": torch.rand(2, 3, 3), "teacher_relation": torch.rand(3, 2, 2)}, "leading axes"),
        ({"student_relation": torch.rand(3, 3, device="meta")}, "needs all tensors on one device"),
        ({"a": torch.tensor([1.5, -0.5, 0])}, "a needs masses of at least 0"),
        ({"a": torch.ones(4) / 4}, "a needs 3 masses"),
        ({"b": torch.tensor([1.0, 1.0])}, "a and b need equal sums"),
        ({"b": torch.tensor([1, 0])}, "b needs floating-point values"),
        (
            {"student_relation": STUDENT - 1, "loss": "kl"},
            "student_relation needs values of at least 0 for the KL loss",
        ),
    ],
)
def test_bad_costs_relations_and_masses_are_refused(change, message):
    given = dict(cost=COST, student_relation=STUDENT, teacher_relation=TEACHER, a=A, b=B)
    with pytest.raises(ValueError, match=message):
        plain(**{**given, **change})


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (4, 1)])
def test_single_nodes_are_matched(solver, n, m):
    cost, student, teacher = (torch.rand(*x, requires_grad=True) for x in ((n, m), (n, n), (m, m)))
    transport = fused_gromov(cost, student, teacher, solver=solver)
    torch.testing.assert_close(transport.plan.detach(), torch.full((n, m), 1 / (n * m)))
    of_cost, *others = torch.autograd.grad(transport.value, (cost, student, teacher))
    torch.testing.assert_close(of_cost, transport.plan.detach() / 2)
    assert all(torch.isfinite(x).all() for x in others)
    assert bool(transport.converged)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_constant_costs_and_relations_leave_the_product_of_the_masses(solver, scale):
    cost, student, teacher = (torch.full(x, 0.3 * scale) for x in ((5, 4), (5, 5), (4, 4)))
    transport = fused_gromov(cost, student, teacher, solver=solver)
    assert float(transport.value) == pytest.approx(0.15 * scale, rel=1e-4)
    assert transport.marginal_error < 1e-6
    if solver == "mirror":
        torch.testing.assert_close(transport.plan.detach(), torch.full((5, 4), 1 / 20), atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_masses_of_any_sum_are_kept(solver):
    one = fused_gromov(COST, STUDENT, TEACHER, alpha=1.0, solver=solver)
    ten = fused_gromov(COST, STUDENT, TEACHER, 10 * A, 10 * B, alpha=1.0, solver=solver)
    torch.testing.assert_close(ten.plan.detach(), 10 * one.plan.detach(), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(ten.value, 100 * one.value, rtol=1e-3, atol=0)


@pytest.mark.parametrize("tol", [None, 1e-3])
@pytest.mark.parametrize("factors", [True, False])
@pytest.mark.parametrize("semi_relaxed", [True, False])
@pytest.mark.parametrize("loss", ["square", "kl"])
def test_host_never_waits_where_looking_is_not_free(monkeypatch, count_operations, loss, semi_relaxed, factors, tol):
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    cost = torch.rand(2, 9, 8, requires_grad=True)
    x, y = torch.rand(9, 2), torch.rand(8, 2)
    student, teacher = (LowRank.gram(z) if factors else z @ z.T for z in (x, y))
    options = dict(tol=tol, semi_relaxed=semi_relaxed, loss=loss, num_iters=3, start=torch.full((9, 8), 1 / 72))
    with count_operations() as operations:
        fused_gromov(cost, student, teacher, **options).value.sum().backward()
    waits = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "item", "masked_select", "unique")
    assert sum(operations.counts[x] for x in waits) == 0
    assert operations.counts["exp"] + operations.counts["exp_"] == 3


def test_looking_does_read_values(count_operations):
    with count_operations() as operations:
        fused_gromov(COST, STUDENT, TEACHER, solver="mirror")
    assert operations.counts["_local_scalar_dense"] > 0


def test_where_looking_is_not_free_bad_values_are_in_the_status(monkeypatch):
    cost, student, a = COST.expand(5, 3, 2).clone(), STUDENT.expand(5, 3, 3).clone(), A.expand(5, 3).clone()
    cost[0, 0, 0], student[1, 2, 0] = torch.nan, torch.inf
    a[2, 0], a[3] = -1, 2 * a[3]
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    status = fused_gromov(cost, student, TEACHER, a, B).status
    assert status.tolist() == [BAD_COST, BAD_COST, BAD_MASS | UNEQUAL_MASS, UNEQUAL_MASS, 0]
    negative = fused_gromov(COST, STUDENT - 1, TEACHER, loss="kl").status
    assert negative.tolist() == BAD_COST
    factors = LowRank(torch.full((3, 1), torch.nan), torch.ones(3, 1))
    assert fused_gromov(COST, factors, TEACHER).status.tolist() == BAD_COST


def test_mirror_gives_the_same_where_looking_is_not_free(monkeypatch):
    batch = COST.expand(2, 3, 2) * torch.tensor([1.0, 2.0])[:, None, None]
    looked = fused_gromov(batch, STUDENT, TEACHER, solver="mirror", num_iters=100, tol=1e-3)
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    blind = fused_gromov(batch, STUDENT, TEACHER, num_iters=100, tol=1e-3)
    torch.testing.assert_close(blind.plan.detach(), looked.plan.detach(), atol=1e-5, rtol=0)
    assert blind.num_iters.tolist() == looked.num_iters.tolist()
    assert looked.num_iters.max() < 100
