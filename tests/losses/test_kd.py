"""Knowledge distillation against PyTorch's own Kullback-Leibler divergence."""

import pytest
import torch
from torch.nn import functional as F

from graphkd.losses import kd


def reference(student, teacher, temperature):
    log_student = F.log_softmax(student / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_student, F.softmax(teacher / temperature, dim=-1), reduction="batchmean")


def logits(dtype=torch.float64, n=7, classes=11, scale=3.0):
    generator = torch.Generator().manual_seed(0)
    student, teacher = scale * torch.randn(2, n, classes, generator=generator, dtype=torch.float64)
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


@pytest.mark.parametrize("temperature", [0.5, 1, 4.0, 20.0])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_value_and_gradient_are_those_of_kl_div(temperature, dtype, rtol):
    student, teacher = logits(dtype)
    value = kd(temperature)({"logits": student}, {"logits": teacher}).value
    expected = reference(student, teacher, temperature)
    assert value.dtype == dtype
    torch.testing.assert_close(value, expected, rtol=rtol, atol=rtol * float(expected.detach()))
    (gradient,) = torch.autograd.grad(value, student)
    (wanted,) = torch.autograd.grad(expected, student)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=rtol * float(wanted.abs().max()))


def test_the_default_temperature_is_four():
    student, teacher = logits()
    torch.testing.assert_close(kd()({"logits": student}, {"logits": teacher}).value, reference(student, teacher, 4.0))


def test_the_divergence_is_of_the_student_from_the_teacher_and_not_the_reverse():
    student, teacher = logits()
    forward = kd()({"logits": student}, {"logits": teacher}).value
    assert not torch.isclose(forward, kd()({"logits": teacher}, {"logits": student}).value, rtol=1e-2)


def test_the_value_does_not_grow_with_the_batch():
    student, teacher = logits()
    once = kd()({"logits": student}, {"logits": teacher}).value
    twice = kd()({"logits": student.repeat(2, 1)}, {"logits": teacher.repeat(2, 1)}).value
    torch.testing.assert_close(once, twice)


def test_pairing_is_used():
    student, teacher = logits()
    paired = kd()({"logits": student}, {"logits": teacher}).value
    assert not torch.isclose(paired, kd()({"logits": student}, {"logits": teacher.flip(0)}).value, rtol=1e-2)


def test_equal_logits_cost_nothing_and_pull_nowhere():
    student, _ = logits()
    value = kd()({"logits": student}, {"logits": student.detach() + 5.0}).value
    (gradient,) = torch.autograd.grad(value, student)
    assert abs(float(value.detach())) < 1e-12
    assert float(gradient.abs().max()) < 1e-12


def test_confident_logits_stay_finite_in_float32():
    student, teacher = logits(torch.float32, scale=1e4)
    value = kd(1.0)({"logits": student}, {"logits": teacher}).value
    (gradient,) = torch.autograd.grad(value, student)
    torch.testing.assert_close(value, reference(student, teacher, 1.0))
    assert gradient.isfinite().all()


def test_kd_learns_nothing_of_its_own():
    assert list(kd().parameters()) == []


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature needs a finite number above 0, got {temperature}"):
        kd(temperature)


def test_different_numbers_of_classes_are_refused_with_both():
    with pytest.raises(ValueError, match="one width, got 10 and 100"):
        kd()({"logits": torch.zeros(2, 10)}, {"logits": torch.zeros(2, 100)})


def standardized_by_loops(rows):
    """Each row by its own mean and unbiased deviation, number by number."""
    found = []
    for row in rows:
        mean = sum(row) / len(row)
        deviation = (sum((x - mean) ** 2 for x in row) / (len(row) - 1)) ** 0.5
        found.append(torch.stack([(x - mean) / deviation for x in row]))
    return torch.stack(found)


@pytest.mark.parametrize("temperature", [1, 2.0, 4.0])
def test_standardized_logits_have_value_and_gradient_of_their_definition(temperature):
    student, teacher = logits(n=5, classes=4)
    with torch.no_grad():
        student[1] += 50
        student[2] *= 20
    value = kd(temperature, standardize=True)({"logits": student}, {"logits": teacher}).value
    expected = reference(standardized_by_loops(student), standardized_by_loops(teacher), temperature)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    gradients = [torch.autograd.grad(each, student)[0] for each in (value, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_standardized_logits_may_have_any_offset_and_scale():
    student, teacher = logits()
    value = kd(2.0, standardize=True)({"logits": student}, {"logits": teacher}).value
    offset, scale = torch.randn(2, 7, 1, dtype=torch.float64)
    for moved in ({"logits": student * scale.exp() + offset}, {"logits": student + 100 * offset}):
        torch.testing.assert_close(kd(2.0, standardize=True)(moved, {"logits": teacher}).value, value)
    plain = kd(2.0)({"logits": student}, {"logits": teacher}).value
    assert not torch.isclose(kd(2.0)({"logits": 2 * student}, {"logits": teacher}).value, plain, rtol=1e-2)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_logits_are_standardized_to_zeros_with_a_finite_gradient(constant, dtype):
    student, teacher = torch.full((3, 7), constant, dtype=dtype), torch.randn(3, 7, dtype=dtype)
    student.requires_grad_()
    value = kd(2.0, standardize=True)({"logits": student}, {"logits": teacher}).value
    zeros = torch.zeros(3, 7, dtype=dtype)
    torch.testing.assert_close(value, reference(zeros, standardized_by_loops(teacher), 2.0))
    (gradient,) = torch.autograd.grad(value, student)
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 10
