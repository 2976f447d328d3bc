"""Proximal point transport: against the numbers of published code, exact transport, and central differences."""

from pathlib import Path

import numpy as np
import ot
import pytest
import torch

from graphkd.ot import ipot

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("ipot_*.npz"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("num_iters", [20, 50])
def test_plans_are_those_of_published_code(path, num_iters):
    golden = np.load(path)
    transport = ipot(torch.from_numpy(golden["cost"]), beta=float(golden["beta"]), num_iters=num_iters)
    np.testing.assert_allclose(transport.plan.detach().numpy(), golden[f"plan_{num_iters}"], atol=1e-15)
    assert float(transport.value) == pytest.approx(float(golden[f"loss_{num_iters}_f64"]), rel=1e-13)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_gradient_of_the_features_is_that_of_published_code(path):
    golden = np.load(path)
    student = torch.from_numpy(golden["h_student"]).requires_grad_()
    teacher = torch.from_numpy(golden["h_teacher"])
    cost = 1 - torch.nn.functional.normalize(teacher, dim=-1) @ torch.nn.functional.normalize(student, dim=-1).mT
    ipot(cost, beta=float(golden["beta"])).value.backward()
    np.testing.assert_allclose(student.grad.numpy(), golden["grad_student_50_f64"], atol=2e-8)


def test_golden_values_are_there():
    assert len(GOLDEN) == 3


@pytest.mark.parametrize("beta", [0.05, 0.5])
def test_limit_is_exact_transport_whatever_the_step(problem, beta):
    cost, a, b = problem(7, 9)
    transport = ipot(cost, a, b, beta=beta, num_iters=6000)
    assert float(transport.value) == pytest.approx(ot.emd2(a.numpy(), b.numpy(), cost.numpy()), rel=1e-6)
    f, g = transport.potentials
    assert float((f * a).sum() + (g * b).sum()) == pytest.approx(float(transport.value), rel=1e-5)
    assert float((f.unsqueeze(-1) + g - cost).max()) < 1e-5
    assert transport.converged


def test_gradients_are_those_of_exact_transport(problem, assert_slopes):
    assert_slopes(lambda *x: ipot(*x, beta=0.05, num_iters=4000).value, problem(4, 5), step=1e-4)


def test_more_inner_sweeps_meet_the_rows_better(problem):
    cost, a, b = problem(7, 9)
    errors = [float(ipot(cost, a, b, num_iters=10, num_inner=inner).marginal_error) for inner in (1, 4, 16)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_columns_without_mass_get_none_and_have_slopes(problem):
    cost, a, b = problem(5, 6)
    b[2], a[1] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    rows, columns = a > 0, b > 0
    alone = ipot(cost[rows][:, columns], a[rows], b[columns], beta=0.1)
    leaves = [x.requires_grad_() for x in (cost, a, b)]
    transport = ipot(*leaves, beta=0.1)
    assert not transport.plan[:, ~columns].any()
    assert not transport.plan[~rows].any()
    torch.testing.assert_close(transport.plan[rows][:, columns], alone.plan)
    torch.testing.assert_close(transport.value, alone.value)
    for gradient in torch.autograd.grad(transport.value, leaves):
        assert gradient.isfinite().all()


def test_small_steps_are_safe_in_float32(problem):
    cost, a, b = problem(20, 30, dtype=torch.float32)
    transport = ipot(cost, a, b, beta=1e-3, num_iters=100, num_inner=50)
    assert transport.plan.isfinite().all()
    assert float(transport.value) == pytest.approx(ot.emd2(a.numpy(), b.numpy(), cost.numpy()), rel=1e-3)


def test_batch_equals_loop(problem):
    cost, a, b = problem(5, 7, batch=(2, 3))
    together = ipot(cost, a, b)
    for i in range(2):
        for j in range(3):
            alone = ipot(cost[i, j], a[i, j], b[i, j])
            torch.testing.assert_close(together.plan[i, j], alone.plan)
            torch.testing.assert_close(together.value[i, j], alone.value)


def test_few_steps_say_that_the_rows_are_off(problem):
    assert not ipot(*problem(7, 9), beta=0.02, num_iters=2).converged


def test_a_loss_that_reads_the_plan_is_refused(problem):
    cost, a, b = problem(3, 3)
    with pytest.raises(ValueError, match="this plan has no gradient"):
        ipot(cost.requires_grad_(), a, b).plan.square().sum().backward()


@pytest.mark.parametrize(
    "options", [{"beta": 0}, {"beta": -1.0}, {"beta": float("nan")}, {"num_iters": 0}, {"num_inner": 0}], ids=str
)
def test_bad_options_are_refused(problem, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} needs"):
        ipot(*problem(3, 3), **options)
