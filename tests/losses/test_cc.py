"""Correlation congruence against its definition, written again with plain loops."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from structured import assert_like_loops, size

from graphkd.losses import cc

REFUSED = (ValueError, TypeCheckError)


def draw(n=6, widths=(3, 5)):
    return [{"feat": 2 * torch.randn(n, width, dtype=torch.float64)} for width in widths]


def kernel_by_loops(x, gamma, order):
    rows = [row / row.norm() for row in x]
    shares = [math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) for p in range(order + 1)]
    return [[sum(share * (a @ b) ** p for p, share in enumerate(shares)) for b in rows] for a in rows]


def cc_by_loops(gamma, order):
    def value(student, teacher):
        s, t = (kernel_by_loops(side["feat"], gamma, order) for side in (student, teacher))
        n = len(s)
        return sum((s[i][k] - t[i][k]) ** 2 for i in range(n) for k in range(n)) / n**2

    return value


@pytest.mark.parametrize(("gamma", "order"), [(0.4, 2), (0.4, 1), (1.5, 3), (0.1, 6)])
def test_it_is_the_mean_squared_difference_of_kernels(gamma, order):
    assert_like_loops(cc(gamma=gamma, order=order), *draw(), cc_by_loops(gamma, order))


def test_gamma_and_order_are_those_of_the_paper_unless_told():
    assert_like_loops(cc(), *draw(), cc_by_loops(0.4, 2))


def test_with_many_powers_the_kernel_is_gaussian():
    student, teacher = draw()
    relations = cc(gamma=0.7, order=20)(student, teacher).comparisons["correlation"].relations
    rows = torch.nn.functional.normalize(student["feat"])
    gaussian = (-0.7 * torch.cdist(rows, rows) ** 2).exp()
    torch.testing.assert_close(relations.student, gaussian, rtol=0, atol=1e-10)


def test_its_size_does_not_change_with_the_batch_and_falls_with_the_width():
    sizes = {n: size(cc(), n, 64) for n in (16, 64, 256)}
    assert max(sizes.values()) < 1.2 * min(sizes.values())
    assert sizes[64] / size(cc(), 64, 1024) == pytest.approx(1024 / 64, rel=0.2)
    assert 0.0032 < min(sizes.values()) and max(sizes.values()) < 0.0038


def test_the_order_of_the_batch_does_not_matter_but_the_pairing_does():
    student, teacher = draw(n=12)
    order = torch.randperm(12)
    value = cc()(student, teacher).value
    moved = cc()(*({"feat": side["feat"][order]} for side in (student, teacher))).value
    torch.testing.assert_close(moved, value)
    assert cc()(student, {"feat": student["feat"].flip(0)}).value > 0.01


@pytest.mark.parametrize("arguments", [{"gamma": 0.0}, {"gamma": float("inf")}, {"order": 0}, {"order": 1.5}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(REFUSED):
        cc(**arguments)
