"""Discrepancies and the factors that make their sums cheap."""

import pytest
import torch
from torch.nn import functional as F
from torch_geometric.data import Data

from graphkd.couplings import Exact, Identity, Product
from graphkd.discrepancies import Factored, kl, mse, smooth_l1, total
from graphkd.display import described
from graphkd.reductions import TransportCost
from graphkd.typing import Relations


def test_squared_difference_is_the_sum_of_its_factors():
    student, teacher = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    factored = mse.f1(student) + mse.f2(teacher) - mse.h1(student) * mse.h2(teacher)
    torch.testing.assert_close(factored, (student - teacher) ** 2)
    torch.testing.assert_close(mse(student, teacher), (student - teacher) ** 2)


def test_squared_difference_passes_gradcheck_by_either_route():
    pair = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(mse, pair)
    assert torch.autograd.gradcheck(lambda s, t: mse.f1(s) + mse.f2(t) - mse.h1(s) * mse.h2(t), pair)


@pytest.mark.parametrize("gap, wanted", [(0.0, 0.0), (0.5, 0.125), (-0.5, 0.125), (1.0, 0.5), (3.0, 2.5), (-3.0, 2.5)])
def test_smooth_l1_is_quadratic_near_zero_and_linear_beyond_one(gap, wanted):
    assert smooth_l1(torch.tensor([2.0 + gap]), torch.tensor([2.0])).item() == pytest.approx(wanted)


def test_smooth_l1_is_elementwise_and_not_factored():
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    assert smooth_l1(student, teacher).shape == (4, 5)
    torch.testing.assert_close(smooth_l1(student, teacher).mean(), F.smooth_l1_loss(student, teacher))
    assert not isinstance(smooth_l1, Factored)


def positive(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


def test_divergence_is_its_equation():
    student, teacher = positive(4, 5), positive(4, 5, seed=1)
    got = kl(student, teacher)
    for i in range(4):
        for j in range(5):
            s, t = student[i, j], teacher[i, j]
            torch.testing.assert_close(got[i, j], t * (t / s).log() - t + s)


def test_divergence_is_the_sum_of_its_factors_over_any_two_entries():
    student, teacher = positive(7), positive(5, seed=1)
    factored = kl.f1(student)[:, None] + kl.f2(teacher) - kl.h1(student)[:, None] * kl.h2(teacher)
    assert isinstance(kl, Factored)
    for i in range(7):
        for j in range(5):
            torch.testing.assert_close(factored[i, j], kl(student[i], teacher[j]))


def test_divergence_of_distributions_is_the_known_one():
    student, teacher = positive(3, 6).softmax(-1), positive(3, 6, seed=1).softmax(-1)
    torch.testing.assert_close(kl(student, teacher).sum(), F.kl_div(student.log(), teacher, reduction="sum"))


def test_divergence_is_zero_where_student_and_teacher_agree_and_positive_elsewhere():
    teacher = positive(5)
    assert kl(teacher, teacher).abs().max() < 1e-15
    assert (kl(teacher * 1.1, teacher) > 0).all()
    assert (kl(teacher * 0.9, teacher) > 0).all()


def test_divergence_passes_gradcheck_by_either_route():
    pair = [positive(3, 4).requires_grad_(), positive(3, 4, seed=1).requires_grad_()]
    assert torch.autograd.gradcheck(kl, pair)
    assert torch.autograd.gradcheck(lambda s, t: kl.f1(s) + kl.f2(t) - kl.h1(s) * kl.h2(t), pair)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_divergence_of_zero_entries_is_finite_with_its_gradient(dtype):
    student = torch.tensor([0.0, 0.5, 0.0], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([0.0, 0.0, 0.5], dtype=dtype, requires_grad=True)
    for found in (kl(student, teacher), kl.f1(student) + kl.f2(teacher) - kl.h1(student) * kl.h2(teacher)):
        # What the teacher lacks costs what the student has of it; what only the student lacks costs much, not infinity.
        assert found[:2].tolist() == [0.0, 0.5]
        assert 30 < float(found[2].detach()) < 400
        for gradient in torch.autograd.grad(found.sum(), (student, teacher)):
            assert gradient.isfinite().all()


def test_a_factored_discrepancy_is_told_by_its_name():
    assert (mse.__name__, kl.__name__) == ("squared_difference", "divergence")
    assert described(TransportCost(alpha=0.5, discrepancy=kl)) == "TransportCost(alpha=0.5, discrepancy=divergence)"


def test_the_total_is_the_sum_of_its_factors_over_any_two_entries():
    student, teacher = torch.randn(7, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    factored = total.f1(student)[:, None] + total.f2(teacher)
    assert isinstance(total, Factored)
    assert (total.h1, total.h2) == (None, None)
    assert total.__name__ == "total"
    for i in range(7):
        for j in range(5):
            torch.testing.assert_close(factored[i, j], student[i] + teacher[j])
            torch.testing.assert_close(total(student[i], teacher[j]), student[i] + teacher[j])


def test_the_total_is_what_the_graphs_are_by_themselves_whatever_the_plan():
    student, teacher = positive(4, 4), positive(6, 6, seed=1)
    a, b = positive(4), positive(6, seed=1)
    a, b = a / a.sum(), b / b.sum()
    cost = positive(4, 6, seed=2)
    wanted = sum(a[i] * a[k] * student[i, k] for i in range(4) for k in range(4))
    wanted = wanted + sum(b[j] * b[k] * teacher[j, k] for j in range(6) for k in range(6))
    for coupling in (Product(), Exact()):
        transport = coupling(cost, None, a, b)
        found = TransportCost(1.0, total)(transport, cost, Relations(student, teacher), (Data(), Data()))
        torch.testing.assert_close(found, wanted)


def test_the_total_at_the_identity_is_what_its_factors_say():
    student, teacher = positive(4, 4), positive(4, 4, seed=1)
    a = positive(4)
    transport = Identity()(None, None, a, a)
    found = [
        TransportCost(1.0, total)(each, None, Relations(student, teacher), (Data(), Data()))
        for each in (transport, transport._replace(paired=False))
    ]
    torch.testing.assert_close(found[0], a @ (student + teacher) @ a)
    torch.testing.assert_close(*found)


def test_the_total_passes_gradcheck_by_either_route():
    pair = [positive(3, 4).requires_grad_(), positive(3, 4, seed=1).requires_grad_()]
    assert torch.autograd.gradcheck(total, pair)
    assert torch.autograd.gradcheck(lambda s, t: total.f1(s) + total.f2(t), pair)
