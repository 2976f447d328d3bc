"""The Wasserstein distance between Gaussians: against closed forms and POT, its gradients, its edges."""

import inspect
import subprocess
import sys
import textwrap

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphkd import checks
from graphkd.ot.gaussian import GaussianTransport, gaussian

# The function as users have it, without the run-time type checks of the tests.
plain = inspect.unwrap(gaussian)

FORMS = ["diagonal", "full"]
# Fewer positions than channels, more, many more on one side and on both (where the full form goes by the channels).
SHAPES = [(3, 4, 6), (6, 5, 4), (3, 20, 4), (20, 3, 4), (14, 17, 3), (1, 4, 3), (4, 1, 3)]


def pair(p: int, q: int, d: int, *batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Samples of two Gaussians that are not aligned with each other."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*batch, p, d, generator=generator, dtype=torch.float64)
    y = torch.randn(*batch, q, d, generator=generator, dtype=torch.float64)
    return x, 1.5 * y @ torch.randn(d, d, generator=generator, dtype=torch.float64) + 0.3


def masses(p: int, seed: int = 0) -> Tensor:
    return torch.rand(p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.2


def rotation(d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q


def with_deviations(deviations: list[float]) -> Tensor:
    """Samples of mean zero whose covariance is diagonal with given roots."""
    d = len(deviations)
    x = torch.diag(torch.tensor(deviations, dtype=torch.float64)) * d**0.5
    return torch.cat([x, -x])


def moments(x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    share = a / a.sum()
    mean = share @ x
    return mean, (share[:, None] * (x - mean)).T @ (x - mean)


def slopes(x: Tensor, y: Tensor, *args: Tensor, **options) -> tuple[Tensor, Tensor]:
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    return torch.autograd.grad(gaussian(x, y, *args, **options).value.sum(), (x, y))


# Values


@pytest.mark.parametrize("form", FORMS)
def test_on_a_line_it_is_the_gap_of_means_and_of_deviations(form):
    x, y = pair(7, 5, 1)
    transport = gaussian(x, y, covariance=form)
    deviation_x, deviation_y = x.std(correction=0), y.std(correction=0)
    torch.testing.assert_close(transport.mean, (x.mean() - y.mean()) ** 2)
    torch.testing.assert_close(transport.covariance, (deviation_x - deviation_y) ** 2)
    torch.testing.assert_close(transport.value, transport.mean + transport.covariance)


def test_covariances_that_commute_are_compared_by_their_deviations():
    turn = rotation(3)
    x, y = with_deviations([1.0, 2.0, 0.0]) @ turn, with_deviations([3.0, 0.5, 1.0]) @ turn
    expected = torch.tensor(4 + 1.5**2 + 1, dtype=torch.float64)
    torch.testing.assert_close(gaussian(x, y, covariance="full").covariance, expected)


def test_isotropic_gaussians():
    x, y = with_deviations([2.0] * 5) @ rotation(5), with_deviations([3.0] * 5) + 1
    torch.testing.assert_close(gaussian(x, y, covariance="full").value, torch.tensor(10.0, dtype=torch.float64))


def test_orthogonal_directions_differ_in_the_full_form_only():
    x, y = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    assert gaussian(x, y).value == 0
    torch.testing.assert_close(gaussian(x, y, covariance="full").value, torch.tensor(4.0))


@pytest.mark.parametrize("p, q, d", SHAPES)
def test_full_form_agrees_with_pot(p, q, d):
    x, y = pair(p, q, d)
    a, b = masses(p), masses(q, seed=1)
    (mean_x, cov_x), (mean_y, cov_y) = moments(x, a), moments(y, b)
    # POT returns the root. Its own roots of matrices without full rank are good to about 1e-8 of their size.
    expected = ot.gaussian.bures_wasserstein_distance(mean_x, mean_y, cov_x, cov_y) ** 2
    transport = gaussian(x, y, a, b, covariance="full")
    torch.testing.assert_close(transport.value, expected.squeeze(), rtol=3e-8, atol=0)
    torch.testing.assert_close(transport.mean, (mean_x - mean_y).square().sum())


@pytest.mark.parametrize("p, q, d", SHAPES)
def test_diagonal_form_agrees_with_pot(p, q, d):
    x, y = pair(p, q, d)
    a, b = masses(p), masses(q, seed=1)
    (mean_x, cov_x), (mean_y, cov_y) = moments(x, a), moments(y, b)
    diagonals = cov_x.diagonal().diag(), cov_y.diagonal().diag()
    expected = ot.gaussian.bures_wasserstein_distance(mean_x, mean_y, *diagonals) ** 2
    torch.testing.assert_close(gaussian(x, y, a, b).value, expected.squeeze())


@pytest.mark.parametrize("p, q, d", SHAPES)
def test_full_form_is_exact_without_full_rank(p, q, d):
    x, y = pair(p, q, d)
    centred_x, centred_y = x - x.mean(0), y - y.mean(0)
    nuclear = torch.linalg.svdvals(centred_x @ centred_y.T).sum() / (p * q) ** 0.5
    expected = centred_x.square().sum() / p + centred_y.square().sum() / q - 2 * nuclear
    torch.testing.assert_close(gaussian(x, y, covariance="full").covariance, expected, rtol=1e-12, atol=0)


def test_a_symmetric_map_without_negative_eigenvalues_moves_the_samples_the_least():
    x, _ = pair(30, 1, 4)
    stretch = torch.diag(torch.tensor([0.0, 0.5, 1.0, 3.0], dtype=torch.float64))
    y = x @ rotation(4).T @ stretch @ rotation(4) + 2
    expected = (x - y).square().sum(-1).mean()
    torch.testing.assert_close(gaussian(x, y, covariance="full").value, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("p, q", [(30, 30), (30, 12), (6, 40)])
def test_no_coupling_of_the_samples_is_cheaper(p, q):
    x, y = pair(p, q, 3)
    plan = torch.from_numpy(ot.emd([], [], ot.dist(x.numpy(), y.numpy())))
    cheapest = (plan * torch.cdist(x, y).square()).sum()
    value = gaussian(x, y, covariance="full").value
    assert 0 < value < cheapest


def test_unbiased_covariances_are_those_of_the_field():
    x, y = pair(6, 8, 3)
    expected = (x.std(0) - y.std(0)).square().sum()
    torch.testing.assert_close(gaussian(x, y, unbiased=True).covariance, expected)
    corrections = (6 / 5) ** 0.5, (8 / 7) ** 0.5
    scaled = [(s - s.mean(0)) * correction for s, correction in zip((x, y), corrections, strict=True)]
    full = gaussian(*scaled, covariance="full").covariance
    torch.testing.assert_close(gaussian(x, y, covariance="full", unbiased=True).covariance, full)


def test_eps_is_added_to_the_variances():
    x, y = pair(6, 8, 3)
    roots = [(s.var(0, correction=0) + 0.3).sqrt() for s in (x, y)]
    torch.testing.assert_close(gaussian(x, y, eps=0.3).covariance, (roots[0] - roots[1]).square().sum())
    covs = [moments(s, torch.ones(len(s), dtype=torch.float64))[1] + 0.3 * torch.eye(3) for s in (x, y)]
    expected = ot.gaussian.bures_distance(*covs) ** 2
    torch.testing.assert_close(gaussian(x, y, covariance="full", eps=0.3).covariance, expected.squeeze())


def test_feature_maps_as_wkd_f_compares_them():
    """The formula of that method's released code, on cells of which the second has fewer positions."""
    student, teacher = pair(9, 9, 4, 2)
    sizes, cells = (6, 4), ([0, 1, 2, 3, 4, 5], [5, 6, 7, 8])

    def mean_and_deviation(x: Tensor) -> tuple[Tensor, Tensor]:
        parts = [x[:, cell] for cell in cells]
        means = torch.stack([part.mean(1) for part in parts], 1)
        return means, torch.stack([(part.var(1) + 1e-5).sqrt() for part in parts], 1)

    leaf = student.clone().requires_grad_()
    (mean_s, deviation_s), (mean_t, deviation_t) = mean_and_deviation(leaf), mean_and_deviation(teacher)
    by_hand = 3 * (mean_s - mean_t).square().sum(-1).mean() + (deviation_s - deviation_t).square().sum(-1).mean()

    index = torch.tensor([cell + [0] * (6 - len(cell)) for cell in cells])
    mass = torch.tensor([[1.0] * size + [0.0] * (6 - size) for size in sizes], dtype=torch.float64)
    other = student.clone().requires_grad_()
    transport = gaussian(other[:, index], teacher[:, index], mass, mass, unbiased=True, eps=1e-5)
    value = 3 * transport.mean.mean() + transport.covariance.mean()
    torch.testing.assert_close(value, by_hand)
    torch.testing.assert_close(torch.autograd.grad(value, other), torch.autograd.grad(by_hand, leaf))


# Gradients


@pytest.mark.parametrize("options", [{}, {"unbiased": True}, {"eps": 0.2}], ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p, q, d", SHAPES)
def test_gradients_are_those_of_central_differences(p, q, d, form, options):
    x, y = pair(p, q, d)
    a, b = masses(p), masses(q, seed=1)

    def terms(x, y, a, b):
        return gaussian(x, y, a, b, covariance=form, **options)[1:]

    leaves = [t.requires_grad_() for t in (x, y, a, b)]
    assert torch.autograd.gradcheck(terms, leaves, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("d, copies", [(3, 1), (2, 3)])
def test_gradients_are_exact_at_equal_eigenvalues(d, copies):
    x = (with_deviations([1.0] * d) @ rotation(d)).repeat(copies, 1).requires_grad_()
    y = (with_deviations([2.0] * d) @ rotation(d, seed=1) + 1).repeat(copies, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: gaussian(x, y, covariance="full").value, (x, y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p, d", [(5, 8), (12, 3), (9, 9), (30, 4)])
@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equal_gaussians_are_at_distance_zero_with_gradient_zero(form, p, d, dtype, close):
    x, _ = pair(p, 1, d)
    # The same moments from other samples.
    order = torch.randperm(p)
    for y in (x, x[order], 2 * x.mean(0) - x[order], x.repeat(3, 1)):
        x, y = (t.to(dtype) for t in (x, y))
        assert 0 <= gaussian(x, y, covariance=form).value < close**2 * x.square().sum()
        for slope in slopes(x, y, covariance=form):
            assert slope.abs().max() < close


@pytest.mark.parametrize("repeats_x, repeats_y", [(1, 9), (9, 1), (9, 9)])
def test_by_channels_or_by_samples_the_full_form_is_the_same(repeats_x, repeats_y):
    x, y = pair(4, 5, 4)
    few, many = slopes(x, y, covariance="full"), slopes(x.repeat(9, 1), y.repeat(9, 1), covariance="full")
    value = gaussian(x, y, covariance="full").value
    torch.testing.assert_close(
        gaussian(x.repeat(repeats_x, 1), y.repeat(repeats_y, 1), covariance="full").value, value, rtol=1e-10, atol=0
    )
    for slope, repeated in zip(few, many, strict=True):
        torch.testing.assert_close(repeated.unflatten(0, (9, -1)).sum(0), slope, rtol=1e-7, atol=1e-9)


def test_the_full_form_decomposes_nothing_larger_than_it_must(count_operations):
    for (p, q, d), decompositions in {(5, 9, 16): 1, (16, 20, 4): 2, (900, 6, 4): 2, (900, 3, 4): 1}.items():
        x, y = pair(p, q, d)
        with count_operations() as operations:
            gaussian(x.requires_grad_(), y, covariance="full").value.backward()
        counts = {name: count for name, count in operations.counts.items() if "eigh" in name or "svd" in name}
        assert list(counts.values()) == [decompositions], counts


@pytest.mark.parametrize("form", FORMS)
def test_terms_are_weighted_separately(form):
    x, y = pair(6, 7, 3)
    x.requires_grad_()
    transport = gaussian(x, y, covariance=form)
    mean, spread, value, mixed = (
        torch.autograd.grad(term, x, retain_graph=True)[0]
        for term in (transport.mean, transport.covariance, transport.value, 4 * transport.mean + transport.covariance)
    )
    torch.testing.assert_close(value, mean + spread)
    torch.testing.assert_close(mixed, 4 * mean + spread)
    torch.testing.assert_close(mean, (2 / 6 * (x.mean(0) - y.mean(0))).expand(6, 3).detach())
    torch.testing.assert_close(spread.sum(0), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("p", [6, 30])
def test_the_full_form_refuses_second_derivatives(p):
    x, y = pair(p, 7, 3)
    x.requires_grad_()
    with pytest.raises(ValueError, match="can be differentiated once, got create_graph=True"):
        torch.autograd.grad(gaussian(x, y, covariance="full").value, x, create_graph=True)


def test_the_diagonal_form_has_second_derivatives():
    x, y = pair(4, 7, 2)
    assert torch.autograd.gradgradcheck(lambda x: gaussian(x, y).value, x.requires_grad_())


# Edges


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p", [2, 6, 30])
def test_samples_that_are_all_equal_have_no_spread_and_get_the_gradient_of_the_mean(form, p):
    # 0.1 has no exact mean in floating point.
    x, (_, y) = torch.full((p, 3), 0.1, dtype=torch.float64), pair(1, 9, 3)
    transport = gaussian(x, y, covariance=form)
    torch.testing.assert_close(transport.covariance, y.var(0, correction=0).sum())
    slope_x, slope_y = slopes(x, y, covariance=form)
    torch.testing.assert_close(slope_x, (2 / p * (x[0] - y.mean(0))).expand(p, 3), rtol=1e-12, atol=0)
    assert slope_y.isfinite().all() and slope_y.abs().max() > 0
    both = gaussian(x, x[:1] + 1, covariance=form)
    torch.testing.assert_close(both.value, torch.tensor(3.0, dtype=torch.float64))
    assert both.covariance == 0
    assert all(slope.isfinite().all() for slope in slopes(x, x[:1], covariance=form))


@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_a_dead_channel_is_not_pushed(eps):
    x, y = pair(6, 7, 3)
    x[:, 1] = 0.1
    y[:, 1] -= y[:, 1].mean() - 0.1
    transport = gaussian(x[:, 1:2], y[:, 1:2], eps=eps)
    expected = (eps**0.5 - (y[:, 1].var(correction=0) + eps).sqrt()).square()
    torch.testing.assert_close(transport.covariance, expected)
    slope, _ = slopes(x, y, eps=eps)
    assert slope[:, 1].abs().max() < 1e-12
    assert slope[:, [0, 2]].abs().min() > 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("unbiased", [False, True])
def test_one_sample_has_no_covariance(form, unbiased):
    x, y = pair(1, 9, 3)
    transport = gaussian(x, y, covariance=form, unbiased=unbiased)
    torch.testing.assert_close(transport.covariance, y.var(0, correction=int(unbiased)).sum())
    assert all(slope.isfinite().all() for slope in slopes(x, y, covariance=form, unbiased=unbiased))
    torch.testing.assert_close(gaussian(x, y[:1], covariance=form).value, (x - y[:1]).square().sum())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p", [5, 30])
@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e-6, 1e-9, 1e-15])
def test_gradients_stay_bounded_on_the_way_to_rank_deficiency(form, p, factor):
    x, y = pair(p, 7, 4)
    x[:, 0] = x[:, 1] + factor * x[:, 0]
    x[:, 3] *= factor
    # Unit vectors per position at most: the pull of the other side has norm 2 sqrt(tr S_y / p).
    bound = 2 * (y.var(0, correction=0).sum() / p).sqrt() + 2 / p * (x.norm() + y.norm())
    slope_x, slope_y = slopes(x, y, covariance=form)
    assert slope_x.norm() <= bound
    assert slope_y.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("p", [4, 12])
def test_zero_masses_are_padding(form, unbiased, p):
    x, y = pair(p, 6, 3)
    a, b = masses(p), masses(6, seed=1)
    padded_x = torch.cat([torch.full((2, 3), 1e3, dtype=torch.float64), x])
    padded_a = torch.cat([torch.zeros(2, dtype=torch.float64), a]).requires_grad_()
    options = {"covariance": form, "unbiased": unbiased}
    expected, padded = gaussian(x, y, a, b, **options), gaussian(padded_x, y, padded_a, b, **options)
    torch.testing.assert_close(padded, expected, rtol=1e-10, atol=1e-12)
    (slope_a,) = torch.autograd.grad(padded.value, padded_a)
    assert slope_a.isfinite().all()
    slope, _ = slopes(x, y, a, b, **options)
    padded_slope, _ = slopes(padded_x, y, padded_a.detach(), b, **options)
    assert (padded_slope[:2] == 0).all()
    torch.testing.assert_close(padded_slope[2:], slope, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_masses_count_as_shares_and_as_repeats(form):
    x, y = pair(4, 6, 3)
    a = torch.tensor([1.0, 3.0, 2.0, 2.0], dtype=torch.float64)
    expected = gaussian(x.repeat_interleave(a.long(), 0), y, covariance=form)
    for scale in (1.0, 0.125, 1e6):
        torch.testing.assert_close(gaussian(x, y, scale * a, covariance=form), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p, q, d", [(3, 4, 6), (14, 5, 3), (14, 17, 3)])
def test_a_batch_is_a_loop(form, p, q, d):
    x, y = pair(p, q, d, 2, 3)
    a = torch.stack([masses(p, seed=seed) for seed in range(3)])
    batch = gaussian(x, y, a, covariance=form)
    slope_x, slope_y = slopes(x, y, a, covariance=form)
    for i in range(2):
        for j in range(3):
            alone = gaussian(x[i, j], y[i, j], a[j], covariance=form)
            torch.testing.assert_close(GaussianTransport(*(term[i, j] for term in batch)), alone)
            one_x, one_y = slopes(x[i, j], y[i, j], a[j], covariance=form)
            torch.testing.assert_close(slope_x[i, j], one_x)
            torch.testing.assert_close(slope_y[i, j], one_y)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p, q", [(3, 5), (14, 17)])
def test_one_teacher_for_a_batch(form, p, q):
    x, y = pair(p, q, 3, 4)
    repeated = y[0].expand(4, q, 3)
    torch.testing.assert_close(gaussian(x, y[0], covariance=form), gaussian(x, repeated, covariance=form))
    slope_x, slope_y = slopes(x, y[0], covariance=form)
    expected_x, expected_y = slopes(x, repeated, covariance=form)
    torch.testing.assert_close(slope_x, expected_x)
    torch.testing.assert_close(slope_y, expected_y.sum(0))
    swapped_y, swapped_x = slopes(y[0], x, covariance=form)
    torch.testing.assert_close((swapped_x, swapped_y), (slope_x, slope_y))


# Properties

seeds = st.integers(0, 10_000)
sizes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
quick = settings(max_examples=25, deadline=None)


@quick
@given(seeds, sizes, st.sampled_from(FORMS), st.booleans())
def test_not_negative_and_symmetric(seed, size, form, unbiased):
    x, y = pair(*size, seed=seed)
    there = gaussian(x, y, covariance=form, unbiased=unbiased)
    back = gaussian(y, x, covariance=form, unbiased=unbiased)
    assert all(term >= 0 for term in there)
    torch.testing.assert_close(back, there, rtol=1e-6, atol=1e-10)


@quick
@given(seeds, sizes)
def test_full_form_does_not_see_a_common_rotation_and_translation(seed, size):
    x, y = pair(*size, seed=seed)
    turn = rotation(size[2], seed)
    moved = gaussian(x @ turn + 2, y @ turn + 2, covariance="full")
    torch.testing.assert_close(moved, gaussian(x, y, covariance="full"), rtol=1e-6, atol=1e-10)


@quick
@given(seeds, sizes, st.sampled_from(FORMS), st.floats(1e-4, 1e4))
def test_value_scales_with_the_square_and_the_gradient_with_the_samples(seed, size, form, scale):
    x, y = pair(*size, seed=seed)
    scaled = gaussian(scale * x, scale * y + 3, covariance=form)
    expected = gaussian(x, y + 3 / scale, covariance=form)
    unit = scale**2 * (x.square().sum() + y.square().sum() + (3 / scale) ** 2)
    for there, here in zip(scaled, expected, strict=True):
        torch.testing.assert_close(there / unit, scale**2 * here / unit, rtol=1e-6, atol=1e-10)


@quick
@given(seeds, sizes, st.sampled_from(FORMS))
def test_the_order_of_samples_and_of_channels_does_not_matter(seed, size, form):
    x, y = pair(*size, seed=seed)
    p, q, d = size
    rows, others, channels = torch.randperm(p), torch.randperm(q), torch.randperm(d)
    moved = gaussian(x[rows][:, channels], y[others][:, channels], covariance=form)
    torch.testing.assert_close(moved, gaussian(x, y, covariance=form), rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(
        slopes(x[rows], y[others], covariance=form)[0], slopes(x, y, covariance=form)[0][rows], rtol=1e-4, atol=1e-7
    )


@quick
@given(seeds, sizes)
def test_channels_alone_are_never_farther_apart_than_together(seed, size):
    x, y = pair(*size, seed=seed)
    assert gaussian(x, y).covariance <= gaussian(x, y, covariance="full").covariance * (1 + 1e-7) + 1e-10


@quick
@given(seeds, sizes, st.sampled_from(FORMS))
def test_roots_of_values_obey_the_triangle_inequality(seed, size, form):
    p, q, d = size
    x, y = pair(p, q, d, seed=seed)
    z, _ = pair(p + q, 1, d, seed=seed + 1)
    xy, yz, xz = (gaussian(s, t, covariance=form).value.sqrt() for s, t in ((x, y), (y, z), (x, z)))
    assert xz <= xy + yz + 1e-5


# Precision


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p, q, d", [(49, 49, 64), (49, 30, 16), (100, 120, 8)])
@pytest.mark.parametrize("dead", [False, True])
def test_float32_is_enough(form, p, q, d, dead):
    x, y = (t.relu() + 2 for t in pair(p, q, d, 2))
    if dead:
        x[..., : d // 2], y[..., d // 4 : d // 2] = 2.0, 2.0
    x, y = x.float(), y.float()
    narrow, wide = gaussian(x, y, covariance=form), gaussian(x.double(), y.double(), covariance=form)
    assert narrow.value.dtype == torch.float32
    for few, many in zip(narrow, wide, strict=True):
        torch.testing.assert_close(few.double(), many, rtol=1e-4, atol=0)
    for few, many in zip(slopes(x, y, covariance=form), slopes(x.double(), y.double(), covariance=form), strict=True):
        assert (few - many).norm() < 1e-4 * many.norm()


@pytest.mark.parametrize("form", FORMS)
def test_a_large_common_offset_costs_no_digits(form):
    x, y = pair(20, 24, 6)
    x, y = (x + 1e4).float(), (y + 1e4).float()
    narrow, wide = gaussian(x, y, covariance=form), gaussian(x.double(), y.double(), covariance=form)
    torch.testing.assert_close(narrow.covariance.double(), wide.covariance, rtol=1e-5, atol=0)
    torch.testing.assert_close(narrow.mean.double(), wide.mean, rtol=1e-3, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_also_under_autocast(form, dtype):
    x, y = (t.to(dtype) for t in pair(6, 7, 3))
    x.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        transport = gaussian(x, y.float(), covariance=form)
    torch.testing.assert_close(transport, gaussian(x.float(), y.float(), covariance=form))
    transport.value.backward()
    assert x.grad is not None and x.grad.dtype == dtype


@pytest.mark.parametrize("form", FORMS)
def test_the_wider_type_of_two_is_taken(form):
    x, y = pair(6, 7, 3)
    assert gaussian(x.float(), y, masses(6), covariance=form).value.dtype == torch.float64


# Input

X, Y = torch.arange(12.0).reshape(4, 3), torch.arange(6.0).reshape(2, 3)
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "x, y, message",
    [
        (X, Y[:, :2], r"x and y need as many channels, got shapes \(4, 3\) and \(2, 2\)"),
        (X[0], Y, r"x needs rows of shape \(n, d\), got shape \(3,\)"),
        (X, Y[:0], r"y needs at least one row and one column, got shape \(0, 3\)"),
        (X.long(), Y, "x needs floating-point values, got torch.int64"),
        (X, Y * NAN, "y needs finite values, got 6 NaN"),
        (X / 0, Y, "x needs finite values"),
        (X, Y.to("meta"), "needs all tensors on one device, got x on cpu, y on meta"),
        (X.expand(2, 4, 3), Y.expand(5, 2, 3), r"leading axes that broadcast, got \[\(2,\), \(5,\), \(\), \(\)\]"),
    ],
)
def test_bad_samples_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        plain(x, y)


@pytest.mark.parametrize(
    "a, b, message",
    [
        (torch.ones(3), None, r"a needs 4 masses .* got \(3,\)"),
        (None, torch.ones(4), r"b needs 2 masses .* got \(4,\)"),
        (torch.ones(4).long(), None, "a needs floating-point values"),
        (-torch.ones(4), None, "a needs masses of at least 0"),
        (torch.zeros(4), None, "a needs masses of at least 0 with a finite sum above 0"),
        (None, torch.tensor([1.0, NAN]), "b needs finite values"),
        (torch.ones(2, 4), torch.ones(3, 2), "leading axes that broadcast"),
        (torch.ones(4, device="meta"), None, "needs all tensors on one device"),
    ],
)
def test_bad_masses_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        plain(X, Y, a, b)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(covariance="low-rank"), "covariance needs one of diagonal, full, got 'low-rank'"),
        (dict(eps=-1e-5), "eps needs a finite number of at least 0, got -1e-05"),
        (dict(eps=NAN), "eps .* got nan"),
        (dict(eps=INF), "eps .* got inf"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plain(X, Y, **options)


@pytest.mark.parametrize("form", FORMS)
def test_host_never_waits_where_looking_is_not_free(monkeypatch, count_operations, form):
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    x = X.clone().requires_grad_()
    with count_operations() as operations:
        gaussian(x, Y, torch.ones(4), covariance=form, unbiased=True, eps=1e-3).value.backward()
    assert operations.counts["_local_scalar_dense"] == operations.counts["nonzero"] == 0
    assert operations.counts["sum"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_can_be_compiled(form):
    # In a process of its own: the compiler cannot trace the run-time type checks that the tests switch on.
    program = f"""
        import torch
        from graphkd.ot.gaussian import gaussian

        def solve(x, y, a):
            return gaussian(x, y, a, covariance={form!r}, unbiased=True, eps=1e-3)

        x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
        y, a = torch.randn(3, 7, 4, dtype=torch.float64), torch.rand(9, dtype=torch.float64)
        eager, compiled = solve(x, y, a), torch.compile(solve, backend="aot_eager", fullgraph=True)(x, y, a)
        torch.testing.assert_close(compiled, eager)
        slopes = [torch.autograd.grad(outputs.value.sum(), x)[0] for outputs in (compiled, eager)]
        torch.testing.assert_close(*slopes)
        assert slopes[0].abs().sum() > 0
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
