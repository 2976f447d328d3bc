"""Relations of classes against the authors' values (tests/golden), and against plain loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from graphkd import cka as module
from graphkd.cka import class_distance, linear_cka, rbf_cka
from graphkd.measures import cosine

GOLDEN = Path(__file__).parent / "golden" / "wkd_cka_cost.npz"


def nodes(n: int = 5, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()


def grouped(c: int = 4, m: int = 7, d: int = 3) -> Tensor:
    x = torch.randn(c, m, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x + torch.arange(c, dtype=x.dtype).reshape(c, 1, 1)


def loop_linear(x: Tensor, y: Tensor) -> Tensor:
    """One pair of classes, from its definition on features."""
    x, y = x - x.mean(0), y - y.mean(0)
    return (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())


def loop_kernel(x: Tensor, sigma: float) -> Tensor:
    m = len(x)
    squares = torch.stack([torch.stack([(one - other).square().sum() for other in x]) for one in x])
    median = squares.flatten().sort().values[(m * m - 1) // 2]
    kernel = torch.exp(-squares / (2 * sigma**2 * median))
    centring = torch.eye(m, dtype=x.dtype) - torch.full((m, m), 1 / m, dtype=x.dtype)
    return centring @ kernel @ centring


def loop_rbf(x: Tensor, y: Tensor, sigma: float = 0.8) -> Tensor:
    own, other = loop_kernel(x, sigma), loop_kernel(y, sigma)
    return (own * other).sum() / (own.norm() * other.norm())


ALIGNMENTS = pytest.mark.parametrize("cka, loop", [(linear_cka, loop_linear), (rbf_cka, loop_rbf)], ids=["lin", "rbf"])
CKA = pytest.mark.parametrize("cka", [linear_cka, rbf_cka])


@pytest.mark.parametrize(
    "name, cka",
    [
        ("dist_linear_precenter", linear_cka),
        ("dist_linear_gram", linear_cka),
        ("dist_linear_batched", linear_cka),
        ("dist_rbf_sigma08", lambda x: rbf_cka(x, 0.8)),
    ],
)
def test_class_distances_are_the_authors(name, cka):
    with np.load(GOLDEN) as golden:
        x, wanted = torch.tensor(golden["class_features"]), torch.tensor(golden[name])
    torch.testing.assert_close(class_distance(cka(x)), wanted, atol=1e-10, rtol=0)


@ALIGNMENTS
@pytest.mark.parametrize("c, m, d", [(4, 7, 3), (3, 20, 2), (5, 4, 9), (2, 3, 1), (6, 50, 3)])
@pytest.mark.parametrize("chunk", [1, 40, 2**24])
def test_cka_equals_a_loop_over_pairs_whatever_the_chunks(cka, loop, c, m, d, chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    x = grouped(c, m, d)
    wanted = torch.stack([torch.stack([loop(one, other) for other in x]) for one in x])
    torch.testing.assert_close(cka(x), wanted, atol=1e-12, rtol=0)


def test_both_forms_of_linear_cka_are_one(monkeypatch):
    used = []
    for name in ("_products_of_features", "_products_of_kernels"):
        form = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, form=form, name=name: used.append(name) or form(*args))
    x = grouped(4, 30, 3)
    tall = linear_cka(x)
    # Zeros change nothing but the number of multiplications that either form takes.
    wide = linear_cka(torch.cat([x, x.new_zeros(4, 30, 60)], dim=2))
    assert used == ["_products_of_features", "_products_of_kernels"]
    torch.testing.assert_close(tall, wide, atol=1e-12, rtol=0)


@CKA
def test_cka_has_the_gradient_of_the_loop(cka):
    loop = loop_linear if cka is linear_cka else loop_rbf
    x = grouped(3, 6, 2).requires_grad_()
    weight = torch.tensor([[0, 2, -1], [2, 0, 3], [-1, 3, 0]], dtype=x.dtype)
    (got,) = torch.autograd.grad((weight * cka(x)).sum(), x)
    wanted = sum(weight[i, j] * loop(x[i], x[j]) for i in range(3) for j in range(3))
    torch.testing.assert_close(got, torch.autograd.grad(wanted, x)[0], atol=1e-10, rtol=0)


@CKA
def test_cka_forgets_where_a_class_lies_how_it_is_turned_and_its_scale(cka):
    x = grouped(4, 9, 3)
    turn, _ = torch.linalg.qr(torch.randn(4, 3, 3, dtype=x.dtype))
    scale = torch.tensor([1e-3, 1, 7, 1e5], dtype=x.dtype).reshape(4, 1, 1)
    torch.testing.assert_close(cka(scale * (x @ turn) + torch.randn(4, 1, 3, dtype=x.dtype)), cka(x))
    order = torch.randperm(9)
    torch.testing.assert_close(cka(x[:, order]), cka(x))
    assert (cka(torch.cat([x[:1, order], x[1:]])) - cka(x)).abs().max() > 0.01


@CKA
def test_cka_is_symmetric_within_bounds_and_one_with_itself(cka):
    got = cka(torch.randn(20, 8, 5))
    assert torch.equal(got, got.T)
    assert 0 <= got.min() and got.max() <= 1
    assert torch.equal(got.diagonal(), torch.ones(20))
    x = grouped(2, 5, 3)
    torch.testing.assert_close(cka(torch.stack([x[0], 2 * x[0]])), torch.ones(2, 2, dtype=x.dtype))
    alike = cka(torch.arange(1, 41).reshape(40, 1, 1) * torch.randn(1, 9, 5))
    assert alike.max() == 1 and alike.min() > 1 - 1e-5


def test_a_wide_kernel_is_the_linear_one():
    x = torch.randn(5, 12, 4)
    torch.testing.assert_close(rbf_cka(x, 1e4), linear_cka(x), atol=1e-5, rtol=0)
    narrow = rbf_cka(x, 0.02)
    torch.testing.assert_close(narrow, torch.ones(5, 5), atol=1e-3, rtol=0)


@CKA
def test_cka_of_float32_is_that_of_float64_to_rounding_and_half_is_raised(cka):
    x = torch.randn(6, 40, 5) + 30
    torch.testing.assert_close(cka(x).double(), cka(x.double()), atol=1e-4, rtol=0)
    assert cka(x.half()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        inside = cka(x)
    assert torch.equal(inside, cka(x))
    small = torch.randn(3, 9, 2)
    for scale in (1e-30, 1e30):
        torch.testing.assert_close(cka(scale * small), cka(small))


@CKA
@pytest.mark.parametrize("shape", [(12, 60, 16), (12, 8, 40)], ids=["tall", "wide"])
def test_cka_stays_within_its_chunks(cka, shape, monkeypatch, count_operations):
    c, m, d = shape
    monkeypatch.setattr(module, "CHUNK", 1)
    x = torch.randn(shape)
    with count_operations() as operations:
        cka(x)
    assert operations.largest <= max(x.numel(), m * m, d * d)


@CKA
def test_cka_refuses_what_has_none(cka):
    x = grouped(4, 7, 3)
    with pytest.raises(ValueError, match=r"needs at least 3 samples per class, got 2 \(shape \(4, 2, 3\)\)"):
        cka(x[:, :2])
    constant = x.clone()
    constant[1] = constant[3] = torch.tensor([0.1, -3.7, 1e3])
    with pytest.raises(ValueError, match="features that vary over its samples, got constant ones; so in 2 of 4: 1, 3$"):
        cka(constant)
    noise = x.float()
    noise[2] = 1 + 1e-7 * noise[2]
    with pytest.raises(ValueError, match="so in 1 of 4: 2$"):
        cka(noise)
    for bad in (torch.nan, torch.inf):
        broken = x.clone()
        broken[0, 0, 0] = bad
        with pytest.raises(ValueError, match="grouped by class needs finite values, got 1 NaN or infinite"):
            cka(broken)
    with pytest.raises(ValueError, match="needs at least one row and one column"):
        cka(x[:0])
    with pytest.raises(ValueError, match=r"got constant ones; so in 12 of 12: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.$"):
        cka(torch.ones(12, 3, 2))


def test_rbf_cka_refuses_widths_that_say_nothing():
    x = grouped(3, 8, 2)
    for sigma in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="sigma needs a finite number above 0"):
            rbf_cka(x, sigma)
    x[1, :7] = x[1, 0]
    with pytest.raises(ValueError, match="median distance above 0 .* most samples are equal; so in 1 of 3: 1$"):
        rbf_cka(x)
    with pytest.raises(ValueError, match="a kernel that varies over its samples, got a flat one; so in 2 of 2"):
        rbf_cka(x[[0, 2]].float(), 1e30)


@pytest.mark.parametrize("sharpen", [0, 0.5, 2.0])
def test_class_distance_is_its_formula_with_zeros_on_the_diagonal(sharpen):
    similarity = cosine(nodes().detach(), nodes().detach())
    got = class_distance(similarity, sharpen)
    for i in range(5):
        for j in range(5):
            apart = 0.0 if i == j else 1 - float(similarity[i, j])
            wanted = apart if sharpen == 0 else 1 - np.exp(-sharpen * apart)
            assert float(got[i, j]) == pytest.approx(wanted, abs=1e-12)
    assert torch.equal(got.diagonal(), torch.zeros(5, dtype=got.dtype))
    assert torch.equal(got, got.T)
    assert got.max() > 1 or sharpen > 0


def test_class_distance_has_a_gradient():
    x = grouped(3, 6, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: class_distance(linear_cka(x), 2.0), x)


def test_class_distance_is_not_sharpened_unless_told():
    similarity = linear_cka(grouped())
    assert torch.equal(class_distance(similarity), class_distance(similarity, 0.0))


def test_class_distance_forgives_rounding_only():
    similarity = torch.tensor([[0.9, 1 + 2e-6, 0.2], [1 + 1e-6, 1.0, 0.3], [0.2, 0.3 + 1e-6, 1.0]])
    got = class_distance(similarity)
    assert torch.equal(got, got.T)
    assert got.min() == 0
    assert not got.diagonal().any()
    similarity[0, 2] = 0.25
    with pytest.raises(ValueError, match="needs to be symmetric, got halves that differ by 0.05"):
        class_distance(similarity)
    with pytest.raises(ValueError, match="values of at most 1, got 1.01"):
        class_distance(torch.full((2, 2), 1.01))
    with pytest.raises(ValueError, match="finite values, got NaN"):
        class_distance(torch.full((2, 2), torch.nan))
    for sharpen in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="sharpen needs a finite number of at least 0"):
            class_distance(torch.eye(2), sharpen)
