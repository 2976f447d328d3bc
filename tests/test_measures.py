"""Pairwise measures against plain loops, and where rounding or equal rows would hurt."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from graphkd import measures
from graphkd.measures import (
    Anchored,
    Fixed,
    SoftmaxKL,
    centred,
    correlation,
    correlation_distance,
    cosine,
    cosine_distance,
    euclidean,
    euclidean_by_differences,
    inner,
    manhattan,
    mean_sqeuclidean,
    relative_cosine,
    sqeuclidean,
    unit,
    zscored_cosine,
)


def one_cosine(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum() / ((x * x).sum().sqrt() * (y * y).sum().sqrt())


def one_correlation(x: Tensor, y: Tensor) -> Tensor:
    return one_cosine(x - sum(x) / len(x), y - sum(y) / len(y))


def one_kl(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    p, q = (y / temperature).softmax(0), (x / temperature).softmax(0)
    return temperature**2 * sum(p[c] * (p[c].log() - q[c].log()) for c in range(len(p)))


PAIRS = {
    "inner": (inner, lambda x, y: sum(x[c] * y[c] for c in range(len(x)))),
    "cosine": (cosine, one_cosine),
    "cosine_distance": (cosine_distance, lambda x, y: 1 - one_cosine(x, y)),
    "correlation": (correlation, one_correlation),
    "correlation_distance": (correlation_distance, lambda x, y: 1 - one_correlation(x, y)),
    "mean_sqeuclidean": (mean_sqeuclidean, lambda x, y: sum((x[c] - y[c]) ** 2 for c in range(len(x))) / len(x)),
    "sqeuclidean": (sqeuclidean, lambda x, y: ((x - y) ** 2).sum()),
    "euclidean": (euclidean, lambda x, y: ((x - y) ** 2).sum().sqrt()),
    "manhattan": (manhattan, lambda x, y: sum((x[c] - y[c]).abs() for c in range(len(x)))),
    "kl": (SoftmaxKL(1), lambda x, y: one_kl(x, y, 1.0)),
    "kl at 2.5": (SoftmaxKL(2.5), lambda x, y: one_kl(x, y, 2.5)),
}
ALL = [pair[0] for pair in PAIRS.values()] + [zscored_cosine, relative_cosine]


def sets(n: int = 4, m: int = 5, d: int = 3, batch: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*batch, n, d, generator=generator, dtype=torch.float64)
    y = torch.randn(*batch, m, d, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), y.requires_grad_()


def weighted(matrix: Tensor) -> Tensor:
    """A scalar to which every entry contributes differently."""
    return (matrix * torch.linspace(-1, 2, matrix.numel(), dtype=matrix.dtype).reshape(matrix.shape)).sum()


@pytest.mark.parametrize("name", PAIRS)
def test_measure_equals_a_loop_over_pairs_in_value_and_gradient(name):
    measure, pair = PAIRS[name]
    x, y = sets()
    wanted = torch.stack([torch.stack([pair(row, other) for other in y]) for row in x])
    got = measure(x, y)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    gradients = torch.autograd.grad(weighted(got), (x, y))
    torch.testing.assert_close(gradients, torch.autograd.grad(weighted(wanted), (x, y)), atol=1e-11, rtol=0)


@pytest.mark.parametrize("n, m", [(4, 4), (3, 5)])
def test_zscored_cosine_equals_its_definition_in_value_and_gradient(n, m):
    x, y = sets(n, m)
    similarity = torch.stack([torch.stack([one_cosine(row, other) for other in y]) for row in x])
    mean = sum(s for row in similarity for s in row) / (n * m)
    variance = sum((s - mean) ** 2 for row in similarity for s in row) / (n * m - 1)
    wanted = 1 - (similarity - mean) / variance.sqrt()
    got = zscored_cosine(x, y)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    gradients = torch.autograd.grad(weighted(got), (x, y))
    torch.testing.assert_close(gradients, torch.autograd.grad(weighted(wanted), (x, y)), atol=1e-11, rtol=0)


@pytest.mark.parametrize("n, m", [(4, 4), (3, 5)])
def test_relative_cosine_equals_its_definition_in_value_and_gradient(n, m):
    x, y = sets(n, m)
    distance = torch.stack([torch.stack([1 - one_cosine(row, other) for other in y]) for row in x])
    wanted = distance / (sum(s for row in distance for s in row) / (n * m))
    got = relative_cosine(x, y)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    gradients = torch.autograd.grad(weighted(got), (x, y))
    torch.testing.assert_close(gradients, torch.autograd.grad(weighted(wanted), (x, y)), atol=1e-11, rtol=0)


@pytest.mark.parametrize("measure", ALL)
def test_batches_are_measured_one_by_one(measure):
    x, y = sets(batch=(2, 3))
    batched = measure(x, y)
    assert batched.shape == (2, 3, 4, 5)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(batched[i, j], measure(x[i, j], y[i, j]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("measure", ALL)
def test_gradients_pass_gradcheck(measure):
    assert torch.autograd.gradcheck(measure, sets())


@pytest.mark.parametrize("measure", [inner, sqeuclidean, cosine, zscored_cosine, SoftmaxKL(3.0)])
def test_gradients_pass_gradcheck_with_repeated_rows(measure):
    x, y = (z.detach() for z in sets())
    x[1], y[2], y[3] = x[0], x[0], y[0]
    assert torch.autograd.gradcheck(measure, (x.requires_grad_(), y.requires_grad_()))


@pytest.mark.parametrize("measure", [inner, sqeuclidean, SoftmaxKL(3.0)])
def test_gradients_pass_gradcheck_with_zero_rows(measure):
    x, y = (z.detach() for z in sets())
    x[1], y[2] = 0, 0
    assert torch.autograd.gradcheck(measure, (x.requires_grad_(), y.requires_grad_()))


@pytest.mark.parametrize("measure", ALL)
def test_zero_and_repeated_rows_have_finite_gradients(measure):
    x, y = (z.detach() for z in sets())
    x[0], x[1], y[2] = 0, y[0], 0
    x.requires_grad_(), y.requires_grad_()
    for gradient in torch.autograd.grad(weighted(measure(x, y)), (x, y)):
        assert torch.isfinite(gradient).all()
    (gradient,) = torch.autograd.grad(weighted(measure(x, x)), x)
    assert torch.isfinite(gradient).all()


def test_zero_rows_have_no_cosine():
    assert cosine(torch.zeros(1, 3), torch.randn(2, 3)).tolist() == [[0.0, 0.0]]
    assert measures.unit(torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("measure", [euclidean, manhattan])
def test_distance_zero_has_gradient_zero(measure):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    gaps = measure(x, x.detach())
    (gradient,) = torch.autograd.grad(gaps.diagonal().sum(), x)
    assert gaps.diagonal().tolist() == [0.0, 0.0, 0.0]
    assert gradient.abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n, d", [(16, 16), (64, 512), (128, 2048)])
@pytest.mark.parametrize("measure", [sqeuclidean, euclidean, manhattan])
def test_equal_rows_are_at_distance_zero_whatever_rounds(measure, n, d, dtype):
    # The root of a rounding error is large enough to count as a distance.
    x = (torch.randn(n, d, dtype=dtype) + 1).relu()
    x[3] = x[0]
    gaps = measure(x, x)
    assert gaps.diagonal().abs().max() == 0
    assert gaps[0, 3] == gaps[3, 0] == 0
    assert (gaps == 0).sum() == n + 2


def test_squared_distance_keeps_its_gradient_where_its_value_is_lost_in_rounding():
    x = torch.randn(8, 64, requires_grad=True)
    y = torch.cat([x.detach() + 1e-5, x.detach()[:1]])
    lost = sqeuclidean(x, y)
    assert lost.diagonal().abs().max() == 0
    (gradient,) = torch.autograd.grad(lost.diagonal().sum(), x)
    # 2 (x - y), off by the rounding of a sum of 64 products.
    torch.testing.assert_close(gradient, torch.full_like(gradient, -2e-5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("measure", [sqeuclidean, mean_sqeuclidean, euclidean])
def test_paired_rows_are_measured_to_all_digits(measure):
    y = torch.randn(8, 64)
    x = (y + 1e-4 * torch.randn(8, 64)).requires_grad_()
    wanted = (x.double() - y.double()).square().sum(-1) / (64 if measure is mean_sqeuclidean else 1)
    wanted = wanted.sqrt() if measure is euclidean else wanted
    found = measure(x, y).diagonal()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=0)
    slopes = [torch.autograd.grad(each.sum(), x)[0] for each in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-8)


def test_distances_by_differences_are_those_of_near_rows():
    near = torch.randn(1, 64) + 1e-5 * torch.randn(7, 64)
    x, y = near[:3].requires_grad_(), near[3:]
    wanted = (x.double()[:, None] - y.double()).square().sum(-1).sqrt()
    found = euclidean_by_differences(x, y)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=0)
    slopes = [torch.autograd.grad(each.sum(), x)[0] for each in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-6)
    same = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(euclidean_by_differences(same, same).sum(), same)
    assert slope.isfinite().all()


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1.0, 1e6, 1e25])
def test_rows_of_any_length_are_scaled_to_one(scale):
    x = torch.randn(5, 6)
    x[2] = 0
    scaled = (scale * x).requires_grad_()
    torch.testing.assert_close(unit(scaled), unit(x))
    (slope,) = torch.autograd.grad((unit(scaled) * torch.arange(6)).sum(), scaled)
    wanted = torch.autograd.functional.jacobian(lambda z: (unit(z) * torch.arange(6)).sum(), x)
    present = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(slope[present] * scale, wanted[present], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("measure", [sqeuclidean, euclidean])
def test_a_common_offset_does_not_cost_digits(measure):
    x, y = (z.detach() for z in sets(6, 7, 5))
    wanted = measure(x, y)
    got = measure(x.float() + 1024, y.float() + 1024)
    # Adding 1024 itself rounds each coordinate to 1e-4; without centring the error would be 1024 times as large.
    torch.testing.assert_close(got.double(), wanted, atol=3e-3, rtol=0)


def test_squared_distances_are_never_negative():
    x = torch.randn(64, 32) * 100
    assert (sqeuclidean(x, x + 1e-3 * torch.randn(64, 32)) >= 0).all()


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_before_anything_is_computed(measure, dtype):
    x, y = (z.detach().to(dtype) for z in sets())
    got = measure(x, y)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, measure(x.float(), y.float()), atol=0, rtol=0)


@pytest.mark.parametrize("measure", ALL)
def test_autocast_changes_nothing(measure):
    x, y = (z.detach().float() for z in sets())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = measure(x, y)
        half = measure(x.bfloat16(), y.bfloat16())
    assert got.dtype == half.dtype == torch.float32
    torch.testing.assert_close(got, measure(x, y), atol=0, rtol=0)


@pytest.mark.parametrize("measure", [zscored_cosine, relative_cosine])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cosines_of_equal_rows_are_one_with_gradient_zero(dtype, measure):
    row = torch.randn(1, 7, dtype=dtype)
    x, y = row.repeat(4, 1).requires_grad_(), row.repeat(6, 1).requires_grad_()
    got = measure(x, y)
    assert got.tolist() == [[1.0] * 6] * 4
    for gradient in torch.autograd.grad(weighted(got), (x, y)):
        assert gradient.abs().sum() == 0


def test_zscored_cosine_of_one_pair_is_one():
    assert zscored_cosine(torch.randn(1, 3), torch.randn(1, 3)).item() == 1


def test_zscored_cosine_does_not_depend_on_how_spread_the_similarities_are():
    x, y = (z.detach() for z in sets(6, 7, 5))
    far = torch.zeros(1, 6, dtype=x.dtype)
    far[0, 5] = 100
    crowded = zscored_cosine(F.pad(x, (0, 1)) + far, F.pad(y, (0, 1)) + far)
    assert crowded.std().item() == pytest.approx(1, abs=1e-6)
    assert zscored_cosine(x, y).std().item() == pytest.approx(1, abs=1e-6)


def test_relative_cosine_of_crowded_rows_is_between_zero_and_twice_the_usual_pair():
    x = torch.randn(40, 2000, dtype=torch.float64)
    got = relative_cosine(x, x)
    assert got.mean().item() == pytest.approx(1)
    assert got.diagonal().abs().max().item() < 1e-12
    # In units of the deviation a row is six of these nearer to itself than to others.
    assert zscored_cosine(x, x).diagonal().max().item() < -4


@pytest.mark.parametrize("temperature", [1, 4.0])
def test_softmax_kl_is_the_distillation_loss_on_the_diagonal(temperature):
    x, y = sets(5, 5, 10)
    log_student, teacher = (x / temperature).log_softmax(-1), (y / temperature).softmax(-1)
    wanted = F.kl_div(log_student, teacher, reduction="batchmean") * temperature**2
    got = SoftmaxKL(temperature)(x, y).diagonal().mean()
    torch.testing.assert_close(got, wanted)
    gradients = torch.autograd.grad(got, (x, y))
    torch.testing.assert_close(gradients, torch.autograd.grad(wanted, (x, y)))


def test_softmax_kl_of_equal_rows_is_not_negative_and_keeps_its_gradient():
    x = (5 * torch.randn(64, 100)).requires_grad_()
    assert (SoftmaxKL(2.0)(x, x) >= 0).all()
    copy = x.detach().double().requires_grad_()
    gradient, wanted = (torch.autograd.grad(SoftmaxKL(2.0)(z, z.detach().roll(1, 0)).sum(), z)[0] for z in (x, copy))
    torch.testing.assert_close(gradient.double(), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("temperature", [0, -1.0, math.inf, math.nan])
def test_softmax_kl_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(ValueError, match=f"temperature needs a finite number above 0, got {temperature}"):
        SoftmaxKL(temperature)


def test_only_cosine_inner_product_and_correlation_grow_with_likeness():
    assert [measure for measure in ALL if measures.is_similarity(measure)] == [inner, cosine, correlation]


def test_a_fixed_cost_is_what_was_given_whatever_the_nodes_are():
    cost = torch.rand(4, 5, dtype=torch.float64)
    measure = Fixed(cost)
    for width in (1, 3):
        assert torch.equal(measure(*(z.detach() for z in sets(d=width))), cost)
    assert not measures.is_similarity(measure)


def test_a_fixed_cost_is_a_copy_without_gradient():
    cost = torch.rand(4, 5, dtype=torch.float64, requires_grad=True)
    measure, before = Fixed(cost), cost.detach().clone()
    with torch.no_grad():
        cost += 1
    x, y = sets()
    got = measure(x, y)
    assert torch.equal(got, before)
    assert not got.requires_grad
    assert list(measure.parameters()) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_fixed_cost_is_in_the_precision_of_the_nodes_and_float32_at_least(dtype):
    cost = torch.rand(4, 5)
    x, y = (z.detach().to(dtype) for z in sets())
    got = Fixed(cost)(x, y)
    assert got.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(got, cost.to(got.dtype), atol=0, rtol=0)


def test_a_fixed_cost_moves_and_is_saved_with_the_model():
    first, second = Fixed(torch.rand(4, 5)), Fixed(torch.zeros(4, 5))
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.cost, first.cost)
    assert Fixed(torch.rand(4, 5)).to("meta").cost.is_meta
    assert "(4, 5)" in repr(first)


@pytest.mark.parametrize("n, m", [(5, 4), (4, 4), (3, 5)])
def test_a_fixed_cost_refuses_other_numbers_of_nodes(n, m):
    with pytest.raises(ValueError, match=rf"cost of shape \(4, 5\) needs as many nodes, got \({n}, {m}\)"):
        Fixed(torch.rand(4, 5))(torch.zeros(n, 2), torch.zeros(m, 2))


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (torch.ones(2, 3, dtype=torch.int64), "cost needs floating-point values, got torch.int64"),
        (torch.tensor([[0.0, torch.nan]]), "cost needs finite values, got 1"),
        (torch.ones(0, 3), "cost needs at least one row and one column"),
        (torch.ones(2, 3, 4), r"cost needs one matrix \(n, m\), got shape \(2, 3, 4\)"),
        (torch.ones(3), r"cost needs rows of shape \(n, d\), got shape \(3,\)"),
    ],
)
def test_a_fixed_cost_is_one_finite_matrix(cost, message):
    # The run-time type checks of the tests see some of these first where they are on.
    with pytest.raises((ValueError, TypeError), match=f"{message}|Type-check error"):
        Fixed(cost)


def test_an_anchored_cost_penalises_all_but_the_known_pairs():
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    cost = Anchored(sqeuclidean, 1.5)(x, y)
    plain = sqeuclidean(x, y)
    torch.testing.assert_close(cost.diagonal(), plain.diagonal())
    own = torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(cost[~own], plain[~own] + 1.5)
    with pytest.raises(ValueError, match=r"as many student as teacher nodes, got \(4, 3\)"):
        Anchored(sqeuclidean, 1.5)(x, y[:3])
    with pytest.raises(ValueError, match="penalty"):
        Anchored(sqeuclidean, -1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1 / 3, 1e6, -7e-9])
def test_a_constant_row_correlates_with_nothing_and_has_a_finite_gradient(constant, dtype):
    x, y = (z.detach().to(dtype) for z in sets(d=7))
    x[1] = constant
    x.requires_grad_()
    similarity = correlation(x, y)
    assert (similarity[1] == 0).all()
    assert (similarity[0] != 0).all()
    assert (correlation_distance(x, y)[1] == 1).all()
    (gradient,) = torch.autograd.grad(weighted(similarity), x)
    assert gradient.isfinite().all()


def test_correlation_is_that_of_numpy_and_does_not_see_offset_and_scale():
    x, y = (z.detach() for z in sets())
    torch.testing.assert_close(correlation(x, y), torch.from_numpy(np.corrcoef(x, y)[:4, 4:]))
    torch.testing.assert_close(correlation(3 * x - 5, 0.1 * y + 2), correlation(x, y))
    torch.testing.assert_close(correlation(-x, y), -correlation(x, y))


def test_a_row_that_varies_little_is_still_centred():
    x = torch.tensor([[1.0, 1.0 + 1e-4, 1.0 - 1e-4]])
    torch.testing.assert_close(centred(x), torch.tensor([[0.0, 1e-4, -1e-4]]), atol=2e-7, rtol=0)
