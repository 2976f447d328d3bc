"""CKA and correlations against their definitions, and where a kernel is flat, samples few, or digits short."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from graphkd.metrics import alignment, cka, correlation_gap, layer_cka

BOTH = pytest.mark.parametrize("debiased", [False, True], ids=["plain", "debiased"])


def features(n: int, d: int, seed: int = 0) -> Tensor:
    """Features with some common structure, far from the origin."""
    shared = torch.randn(n, 2, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    mixed = shared @ torch.randn(2, d, generator=generator, dtype=torch.float64)
    return mixed + torch.randn(n, d, generator=generator, dtype=torch.float64) + 5


def loop_hsic(k: Tensor, l: Tensor) -> float:  # noqa: E741
    """The plain estimator, up to its factor."""
    n = len(k)
    centring = torch.eye(n, dtype=k.dtype) - 1 / n
    return float(torch.trace(k @ centring @ l @ centring))


def loop_unbiased_hsic(k: Tensor, l: Tensor) -> float:  # noqa: E741
    """Equation 3 of Nguyen, Raghu, Kornblith, term by term, up to its factor."""
    n = len(k)
    first = second = 0.0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                if i != q and q != j:
                    second += float(k[i, q] * l[q, j])
            if i != j:
                first += float(k[i, j] * l[j, i])
    off = [sum(float(a[i, j]) for i in range(n) for j in range(n) if i != j) for a in (k, l)]
    return first + off[0] * off[1] / ((n - 1) * (n - 2)) - 2 / (n - 2) * second


def loop_cka(x: Tensor, y: Tensor, debiased: bool) -> float:
    hsic = loop_unbiased_hsic if debiased else loop_hsic
    k, l = x.flatten(1) @ x.flatten(1).T, y.flatten(1) @ y.flatten(1).T  # noqa: E741
    return hsic(k, l) / math.sqrt(hsic(k, k) * hsic(l, l))


@BOTH
@pytest.mark.parametrize("n, d, e", [(6, 3, 3), (4, 9, 2), (7, 2, 40), (20, 3, 5), (5, 1, 1)])
@pytest.mark.parametrize("chunk", [1, 30, 2**24])
def test_cka_is_its_definition_whatever_the_chunks(debiased, n, d, e, chunk, monkeypatch):
    monkeypatch.setattr(alignment, "CHUNK", chunk)
    x, y = features(n, d), features(n, e, 1)
    assert float(cka(x, y, debiased)) == pytest.approx(loop_cka(x, y, debiased), abs=1e-9)


@BOTH
def test_cka_forgets_where_features_lie_how_they_are_turned_and_their_scale(debiased):
    x, y = features(9, 4), features(9, 6, 1)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=x.dtype))
    wanted = cka(x, y, debiased)
    torch.testing.assert_close(cka(7e5 * (x @ turn) + torch.randn(4, dtype=x.dtype), y, debiased), wanted)
    torch.testing.assert_close(cka(y, x, debiased), wanted)
    torch.testing.assert_close(cka(x, -3 * x @ turn, debiased), torch.ones_like(wanted))
    order = torch.randperm(9)
    torch.testing.assert_close(cka(x[order], y[order], debiased), wanted)
    assert (cka(x[order], y, debiased) - wanted).abs() > 0.01
    assert (cka(x * torch.tensor([9.0, 1, 1, 1]), y, debiased) - wanted).abs() > 1e-3


def test_few_samples_are_alike_plainly_and_unrelated_without_bias():
    plain, debiased = [], []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(16, 4000, generator=generator) for _ in range(2))
        plain.append(float(cka(x, y)))
        debiased.append(float(cka(x, y, debiased=True)))
    assert min(plain) > 0.99
    assert abs(np.mean(debiased)) < 3 * np.std(debiased) / math.sqrt(40) < 0.06
    assert min(debiased) < 0 < max(debiased)


def test_both_are_one_number_where_samples_are_many():
    x = torch.randn(1500, 3, dtype=torch.float64)
    y = torch.cat([x[:, :1], torch.randn(1500, 2, dtype=torch.float64)], 1)
    assert float(cka(x, y)) == pytest.approx(1 / 3, abs=0.03)
    assert float(cka(x, y, debiased=True)) == pytest.approx(float(cka(x, y)), abs=3e-3)


def test_plain_cka_takes_the_cheaper_products(count_operations):
    x = features(60, 3)
    with count_operations() as operations:
        tall = cka(x, x[:, :2])
    assert operations.largest <= x.numel()
    with count_operations() as operations:
        wide = cka(torch.cat([x, x.new_zeros(60, 100)], 1), x[:, :2])
    assert operations.largest <= 2 * 60 * 103
    torch.testing.assert_close(tall, wide)


@BOTH
def test_cka_forms_kernels_a_few_rows_at_a_time(debiased, monkeypatch, count_operations):
    monkeypatch.setattr(alignment, "CHUNK", 1)
    x = features(80, 7)
    with count_operations() as operations:
        cka(x, x.roll(1, 1), debiased)
    assert operations.largest <= 80 * 7


@BOTH
def test_cka_of_float32_is_that_of_float64_to_rounding_and_half_is_raised(debiased):
    for n, d in ((40, 6), (12, 3000), (300, 5)):
        x, y = features(n, d).float(), features(n, d + 1, 1).float()
        wanted = cka(x.double(), y.double(), debiased)
        torch.testing.assert_close(cka(x, y, debiased).double(), wanted, atol=2e-5, rtol=0)
        assert cka(x, y.double(), debiased).dtype == torch.float64
        half = cka(x.half(), y.bfloat16(), debiased)
        assert half.dtype == torch.float32
        assert cka(x.half(), y.half(), debiased) == cka(x.half().float(), y.half().float(), debiased)
        assert half == cka(x.half().float(), y.bfloat16().float(), debiased)
        with torch.autocast("cpu", torch.bfloat16):
            assert cka(x, y, debiased) == cka(x.clone(), y, debiased)
            inside = cka(x, y, debiased)
        assert inside == cka(x, y, debiased)
    for scale in (1e-30, 1e30):
        torch.testing.assert_close(cka(scale * x, y, debiased), cka(x, y, debiased), atol=1e-5, rtol=0)


@BOTH
@pytest.mark.parametrize("n, d, offset, atol", [(64, 500, 1e5, 1e-6), (2000, 5, 0.0, 2e-5)], ids=["far", "many"])
def test_neither_an_offset_nor_many_samples_cost_digits(debiased, n, d, offset, atol):
    x = torch.randn(n, d)
    y = x + torch.randn(n, d)
    x = x + offset
    torch.testing.assert_close(cka(x, y, debiased).double(), cka(x.double(), y.double(), debiased), atol=atol, rtol=0)


@BOTH
def test_cka_stays_within_its_bounds(debiased):
    for seed in range(20):
        x = torch.randn(5, 30, generator=torch.Generator().manual_seed(seed))
        assert cka(x, 3 * x + 1, debiased) <= 1
        assert (-1 if debiased else 0) <= cka(x, x.roll(1, 0), debiased) <= 1
    # Two samples on each of two lines that are at right angles.
    x, y = torch.tensor([[1.0], [-1], [0], [0]]), torch.tensor([[0.0], [0], [1], [-1]])
    assert cka(x, y) == 0
    assert cka(x, y, debiased=True) == pytest.approx(loop_cka(x, y, True))


@BOTH
def test_cka_refuses_what_does_not_vary(debiased):
    x = features(8, 3)
    constant = torch.tensor([0.1, -3.7, 1e3], dtype=torch.float64).expand(8, 3)
    with pytest.raises(ValueError, match="needs features that vary over the samples, got constant ones; so in y$"):
        cka(x, constant, debiased)
    with pytest.raises(ValueError, match="constant ones; so in x$"):
        cka(1 + 1e-7 * x.float(), x.float(), debiased)
    with pytest.raises(ValueError, match="constant ones; so in x, y$"):
        cka(constant, constant, debiased)
    assert 0 < cka(1 + 1e-5 * (x - 5), x, debiased) <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n, d", [(4, 4), (9, 30), (64, 1000)])
def test_debiased_cka_refuses_a_flat_kernel(n, d, dtype):
    x = features(n, d).to(dtype)
    turn, _ = torch.linalg.qr(torch.randn(d, d, dtype=dtype))
    simplex = 3 * torch.eye(n, d, dtype=dtype) @ turn + 0.1
    outlier = torch.zeros(n, d, dtype=dtype).index_fill(0, torch.tensor([2]), 0.7) + 0.1
    axes = torch.linspace(1, 2, n, dtype=dtype).unsqueeze(1) * torch.eye(n, d, dtype=dtype) @ turn
    for flat in (simplex, outlier, axes):
        assert 0 <= cka(x, flat) <= 1
        with pytest.raises(ValueError, match="nor all equally far apart, for a debiased CKA, got such; so in y$"):
            cka(x, flat, debiased=True)
    noisy = simplex + 1e-4 * x
    assert float(cka(noisy, noisy, debiased=True)) == pytest.approx(1, abs=1e-5)


def test_on_an_accelerator_what_has_no_cka_is_nan(monkeypatch):
    monkeypatch.setattr(alignment.checks, "can_look", lambda tensor: False)
    x = features(8, 3)
    broken = x.clone()
    broken[0, 0] = math.nan
    mapping = {"a": x, "constant": x * 0 + 0.1, "nan": broken, "flat": torch.eye(8, 1, dtype=x.dtype)}
    got = layer_cka(mapping, {"x": x})
    assert got.isnan().flatten().tolist() == [False, True, True, True]
    assert layer_cka(mapping, {"x": x}, debiased=False).isnan().flatten().tolist() == [False, True, True, False]


@BOTH
def test_cka_needs_the_same_samples_and_enough_of_them(debiased):
    least = 4 if debiased else 3
    x = features(least, 3)
    assert cka(x, x, debiased).isfinite()
    with pytest.raises(ValueError, match=f"y needs at least {least} samples, got {least - 1} "):
        cka(x, x[1:], debiased)
    with pytest.raises(ValueError, match="needs features of the same samples, got 9 of x, 8 of y"):
        cka(features(9, 3), features(8, 3), debiased)
    with pytest.raises(ValueError, match=r"x needs rows of shape \(n, d\), got shape \(8,\)"):
        cka(features(8, 1).flatten(), features(8, 3), debiased)
    with pytest.raises(ValueError, match="y needs floating-point values"):
        cka(x, x.long(), debiased)
    with pytest.raises(ValueError, match="y needs finite values"):
        cka(x, x / 0, debiased)
    with pytest.raises(ValueError, match="at least one row and one column"):
        cka(x, x[:, :0], debiased)


def test_cka_and_layers_flatten_what_a_sample_has():
    x, y = features(6, 24).reshape(6, 2, 3, 4), features(6, 10, 1).reshape(6, 5, 2)
    assert cka(x, y) == cka(x.flatten(1), y.flatten(1))
    assert float(cka(x, y, debiased=True)) == pytest.approx(loop_cka(x, y, True), abs=1e-9)


@pytest.mark.parametrize("n", [7, 200])
@BOTH
def test_layers_are_compared_in_pairs_in_their_order(debiased, n, monkeypatch):
    monkeypatch.setattr(alignment, "CHUNK", 3000)
    student = {"z": features(n, 8).reshape(n, 2, 2, 2), "a": features(n, 3, 1), "m": features(n, 1, 2).float()}
    teacher = {"z": features(n, 4, 3), "b": features(n, 5, 4)}
    got = layer_cka(student, teacher, debiased)
    assert got.shape == (3, 2)
    for i, x in enumerate(student.values()):
        for j, y in enumerate(teacher.values()):
            torch.testing.assert_close(got[i, j], cka(x, y, debiased).double(), atol=1e-6, rtol=0)
    assert torch.equal(layer_cka(student, teacher), layer_cka(student, teacher, debiased=True))


@pytest.mark.parametrize("flat", [torch.ones(7, 3), torch.eye(7)], ids=["constant", "equally far apart"])
def test_a_layer_without_cka_has_nan_with_all_others(flat):
    got = layer_cka({"feat": features(7, 3), "flat": flat}, {"map": features(7, 2, 1), "dead": flat})
    assert got.isnan().tolist() == [[False, True], [True, True]]


def test_layers_that_do_not_fit_are_named():
    x = features(7, 3)
    with pytest.raises(ValueError, match="teacher's 'feat' needs finite values"):
        layer_cka({"feat": x}, {"feat": x / 0})
    with pytest.raises(ValueError, match="needs at least one feature of each, got 1 and 0"):
        layer_cka({"feat": x}, {})
    with pytest.raises(ValueError, match="needs at least one feature of each, got 0 and 1"):
        layer_cka({}, {"feat": x})


def test_the_correlation_gap_is_that_of_numpy():
    student, teacher = features(9, 4), features(9, 4, 1)
    wanted = np.abs(np.corrcoef(student.numpy().T) - np.corrcoef(teacher.numpy().T))
    got = correlation_gap(student, teacher)
    torch.testing.assert_close(got, torch.tensor(wanted), atol=1e-12, rtol=0)
    assert got.max() > 0.1
    assert not got.diagonal().any()
    assert correlation_gap(student, student @ torch.diag(torch.tensor([1.0, 2, 3, 1e6]).double()) - 4).max() < 1e-12
    negated = correlation_gap(student[:, :1].expand(9, 2), torch.cat([student[:, :1], -student[:, :1]], 1))
    assert float(negated[0, 1]) == pytest.approx(2)


def test_a_logit_that_does_not_vary_has_correlation_zero_with_others():
    student, teacher = features(9, 3), features(9, 3, 1)
    student[:, 1] = 0.1
    wanted = np.abs(np.corrcoef(teacher.numpy().T))
    got = correlation_gap(student, teacher)
    assert got[1].tolist() == pytest.approx([wanted[1, 0], 0, wanted[1, 2]])
    torch.testing.assert_close(got, got.mT)
    noisy = student.float()
    noisy[:, 1] = 1000 + 1e-5 * noisy[:, 0]
    assert correlation_gap(noisy, teacher.float())[1].tolist() == pytest.approx(
        [wanted[1, 0], 0, wanted[1, 2]], abs=1e-5
    )


def test_the_correlation_gap_keeps_its_digits():
    student, teacher = features(50, 6).float() + 1000, features(50, 6, 1).float()
    wanted = correlation_gap(student.double(), teacher.double())
    torch.testing.assert_close(correlation_gap(student, teacher).double(), wanted, atol=2e-4, rtol=0)
    assert correlation_gap(student.half(), teacher.half()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        inside = correlation_gap(student, teacher)
    assert torch.equal(inside, correlation_gap(student, teacher))


def test_the_correlation_gap_refuses_what_has_none():
    x = features(5, 4)
    for student, teacher in ((x, x[:, :3]), (x, x[:4]), (x[:2], x[:2]), (x.reshape(5, 2, 2), x.reshape(5, 2, 2))):
        with pytest.raises(ValueError, match=r"needs logits of one shape \(n, c\) with n of at least 3, got \("):
            correlation_gap(student, teacher)
    with pytest.raises(ValueError, match="teacher_logits needs finite values"):
        correlation_gap(x, x / 0)
    with pytest.raises(ValueError, match="student_logits needs finite values"):
        correlation_gap(x / 0, x)
    with pytest.raises(ValueError, match="student_logits needs floating-point values"):
        correlation_gap(x.long(), x)


def test_alignment_carries_no_gradient():
    x = features(6, 3).requires_grad_()
    assert not cka(x, x).requires_grad
    assert not layer_cka({"x": x}, {"x": x}).requires_grad
    assert not correlation_gap(x, x).requires_grad
