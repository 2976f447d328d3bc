"""Gradients of fused Gromov-Wasserstein transport, against central differences at a minimum that is followed."""

import pytest
import torch
from torch import Tensor

from graphkd.ot.fused.lowrank import LowRank
from graphkd.ot.gromov import fused_gromov

NAMES = ("cost", "student", "teacher", "a", "b")


def direction(name: str, x: Tensor, seed: int) -> Tensor:
    way = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    # Masses move along directions that keep their sum.
    return way - way.mean(-1, keepdim=True) if name in ("a", "b") else way


def near(values: dict[str, Tensor], name: str, way: Tensor, step: float) -> dict[str, Tensor]:
    return {**values, name: values[name] + step * way}


@pytest.mark.parametrize("loss", ["square", "kl"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("solver", "alpha", "seed"),
    [("conditional", 0.0, 0), ("conditional", 0.4, 0), ("conditional", 1.0, 0), ("mirror", 0.4, 3)],
)
def test_gradients_are_the_slopes_of_the_value_along_the_minimum(graphs, alpha, solver, seed, symmetric, loss):
    # Seeds whose minima are vertices, which both solvers reach to the last digit.
    values = dict(zip(NAMES, graphs(5, 4, symmetric=symmetric, seed=seed), strict=True))
    options = dict(alpha=alpha, solver=solver, loss=loss, num_iters=200)
    check_slopes(values, lambda v: fused_gromov(*v.values(), **options).value)


@pytest.mark.parametrize("solver", ["mirror", "conditional"])
def test_gradients_of_low_rank_factors_are_slopes(graphs, solver):
    cost, _, _, a, b = graphs(7, 8)
    generator = torch.Generator().manual_seed(4)
    names = ("cost", "student_left", "student_right", "teacher_left", "teacher_right", "a", "b")
    factors = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (7, 7, 8, 8))
    values = dict(zip(names, (cost, *factors, a, b), strict=True))

    def value(v: dict[str, Tensor], dense: bool = False) -> Tensor:
        sides = [LowRank(v[f"{x}_left"], v[f"{x}_right"]) for x in ("student", "teacher")]
        relations = [x.dense() for x in sides] if dense else sides
        return fused_gromov(v["cost"], *relations, v["a"], v["b"], alpha=0.6, solver=solver, num_iters=200).value

    check_slopes(values, value)
    leaves = [x.requires_grad_() for x in values.values()]
    of_factors = torch.autograd.grad(value(values), leaves)
    through_dense = torch.autograd.grad(value(values, dense=True), leaves)
    for left, right in zip(of_factors, through_dense, strict=True):
        torch.testing.assert_close(left, right, atol=1e-9, rtol=1e-6)


def test_one_side_of_low_rank_and_one_dense_have_the_same_gradients(graphs):
    cost, _, _, a, b = graphs(7, 8)
    x, y = (torch.randn(n, 2, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (7, 8))
    results = []
    for dense in ([True, True], [True, False], [False, True]):
        leaves = [z.clone().requires_grad_() for z in (x, y)]
        sides = [LowRank.gram(z).dense() if flat else LowRank.gram(z) for z, flat in zip(leaves, dense, strict=True)]
        results.append(torch.autograd.grad(fused_gromov(cost, *sides, a, b).value, leaves))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("solver", ["mirror", "conditional"])
def test_semi_relaxed_gradients_are_slopes_too(graphs, solver):
    values = dict(zip(NAMES[:4], graphs(5, 4, symmetric=False)[:4], strict=True))
    options = dict(alpha=0.5, solver=solver, semi_relaxed=True, num_iters=200)
    check_slopes(values, lambda v: fused_gromov(*v.values(), **options).value)


def check_slopes(values: dict[str, Tensor], value) -> None:
    leaves = {name: x.clone().requires_grad_() for name, x in values.items()}
    gradients = dict(zip(values, torch.autograd.grad(value(leaves), list(leaves.values())), strict=True))
    step = 1e-5
    for seed, name in enumerate(values):
        way = direction(name, values[name], seed)
        wanted = (value(near(values, name, way, step)) - value(near(values, name, way, -step))) / (2 * step)
        assert float((gradients[name] * way).sum()) == pytest.approx(float(wanted), abs=1e-5, rel=1e-5), name


@pytest.mark.parametrize("solver", ["mirror", "conditional"])
def test_gradients_of_a_batch_are_those_of_its_problems(graphs, solver):
    batch = graphs(5, 4, batch=(2,))
    batch[1] = batch[1][0]  # one student's relation for both
    leaves = [x.clone().requires_grad_() for x in batch]
    weights = torch.tensor([2.0, -1.0], dtype=torch.float64)
    together = torch.autograd.grad((weights * fused_gromov(*leaves, solver=solver).value).sum(), leaves)
    alone = []
    for i in range(2):
        parts = [(x if x is batch[1] else x[i]).clone().requires_grad_() for x in batch]
        alone.append(torch.autograd.grad(weights[i] * fused_gromov(*parts, solver=solver).value, parts))
    for k, gradient in enumerate(together):
        wanted = alone[0][k] + alone[1][k] if k == 1 else torch.stack([x[k] for x in alone])
        torch.testing.assert_close(gradient, wanted, atol=1e-9, rtol=0)


@pytest.mark.parametrize("solver", ["mirror", "conditional"])
def test_nodes_without_mass_have_finite_gradients_and_leave_the_others_theirs(graphs, solver):
    cost, student, teacher, a, b = graphs(6, 5)
    a[2], b[4] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    rows, columns = [0, 1, 3, 4, 5], [0, 1, 2, 3]
    whole = [x.requires_grad_() for x in (cost, student, teacher, a, b)]
    part = [cost[rows][:, columns], student[rows][:, rows], teacher[columns][:, columns], a[rows], b[columns]]
    part = [x.detach().requires_grad_() for x in part]
    options = dict(solver=solver, num_iters=20, epsilon=0.05)
    transport, wanted = fused_gromov(*whole, **options), fused_gromov(*part, **options)
    torch.testing.assert_close(transport.value, wanted.value)
    torch.testing.assert_close(transport.plan[rows][:, columns].detach(), wanted.plan.detach(), atol=1e-6, rtol=0)
    assert transport.plan[2].sum() == transport.plan[:, 4].sum() == 0
    gradients, of_part = torch.autograd.grad(transport.value, whole), torch.autograd.grad(wanted.value, part)
    assert all(torch.isfinite(x).all() for x in (*gradients, *transport.potentials))
    torch.testing.assert_close(gradients[1][rows][:, rows], of_part[1], atol=1e-6, rtol=0)
    of_masses = gradients[3][rows]
    torch.testing.assert_close(of_masses - of_masses.mean(), of_part[3], atol=1e-4, rtol=0)


def test_only_the_value_carries_a_gradient_and_reading_the_plan_is_refused(graphs):
    cost, student, teacher, a, b = graphs(5, 4)
    transport = fused_gromov(cost.requires_grad_(), student, teacher, a, b)
    assert not any(x.requires_grad for x in (*transport.potentials, transport.marginal_error))
    with pytest.raises(ValueError, match="this plan has no gradient"):
        (transport.plan * cost).sum().backward()
    (gradient,) = torch.autograd.grad(transport.value, cost)
    torch.testing.assert_close(gradient, transport.plan.detach() / 2)


def test_masses_of_a_given_value_have_centred_slopes(graphs):
    values = graphs(5, 4)
    leaves = [x.requires_grad_() for x in values]
    of_a, of_b = torch.autograd.grad(fused_gromov(*leaves).value, leaves[3:])
    for slope in (of_a, of_b):
        assert abs(float(slope.sum())) < 1e-12
        assert slope.abs().max() > 1e-3


@pytest.mark.parametrize("solver", ["mirror", "conditional"])
def test_backward_keeps_one_matrix_beyond_what_was_given(graphs, solver):
    leaves = [x.requires_grad_() for x in graphs(12, 12)]
    given, kept = {x.data_ptr() for x in leaves}, {}

    def pack(x: Tensor) -> Tensor:
        if x.numel() == 144 and x.data_ptr() not in given:
            kept[x.data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        value = fused_gromov(*leaves, solver=solver).value
    assert len(kept) == 1
    value.backward()
