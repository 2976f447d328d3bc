"""Kernels against loops, and what makes them kernels."""

import math

import pytest
import torch

from graphkd.graphs import knn_graph
from graphkd.kernels import Gaussian, Polynomial
from graphkd.measures import is_similarity

KERNELS = [Gaussian(0.7), Gaussian(2), Polynomial(2), Polynomial(3, offset=0.5)]


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(kernel, x, y):
    if isinstance(kernel, Gaussian):
        squared = sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
        return math.exp(-squared / (2 * kernel.bandwidth**2))
    return (sum(a * b for a, b in zip(x, y, strict=True)) + kernel.offset) ** kernel.degree


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_entry_is_the_kernel_of_its_two_rows(kernel):
    x, y = rows(4, 3), rows(6, 3, seed=1)
    found = kernel(x, y)
    for i in range(4):
        for j in range(6):
            assert float(found[i, j]) == pytest.approx(by_loops(kernel, x[i].tolist(), y[j].tolist()), rel=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
def test_matrices_of_a_set_with_itself_are_symmetric_and_have_no_negative_eigenvalue(kernel):
    x = rows(7, 3)
    matrix = kernel(x, x)
    torch.testing.assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() > -1e-10


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_those_of_finite_differences(kernel):
    x, y = rows(4, 3).requires_grad_(), rows(5, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(kernel, (x, y))


@pytest.mark.parametrize("kernel", KERNELS)
def test_batches_are_measured_one_by_one_and_half_precision_in_float32(kernel):
    x, y = rows(2, 4, 3), rows(2, 6, 3, seed=1)
    torch.testing.assert_close(kernel(x, y)[1], kernel(x[1], y[1]))
    half = kernel(x.bfloat16(), y.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, kernel(x.bfloat16().float(), y.bfloat16().float()))


def test_equal_rows_have_a_gaussian_kernel_of_one_with_gradient_zero():
    x = (1e3 + rows(1, 3)).float().repeat(4, 1).requires_grad_()
    matrix = Gaussian(0.1)(x, x)
    assert (matrix == 1).all()
    (gradient,) = torch.autograd.grad(matrix.sum(), x)
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_similarities(kernel):
    assert is_similarity(kernel)


def test_neighbours_by_a_kernel_are_those_of_the_largest_entries():
    x = torch.tensor([[0.0], [1.0], [5.0]])
    assert knn_graph(x, k=1, measure=Gaussian(1.0)).edge_index[0].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("kernel", "options", "message"),
    [
        (Gaussian, dict(bandwidth=0.0), "bandwidth needs a finite number above 0, got 0.0"),
        (Gaussian, dict(bandwidth=-1), "bandwidth needs"),
        (Polynomial, dict(degree=0), "degree needs an integer of at least 1, got 0"),
        (Polynomial, dict(offset=-0.1), "offset needs a finite number of at least 0, got -0.1"),
    ],
)
def test_bad_options_are_refused_at_construction(kernel, options, message):
    with pytest.raises(ValueError, match=message):
        kernel(**options)
