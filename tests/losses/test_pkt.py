"""Probabilistic knowledge transfer against its definition, written again with plain loops."""

import pytest
import torch
from structured import assert_like_loops, size

from graphkd.losses import pkt


def draw(n=6, widths=(3, 5)):
    networks = [{"feat": torch.randn(n, width, dtype=torch.float64)} for width in widths]
    # One sample is unlike all others, so that rows of similarities have different sums.
    for side in networks:
        side["feat"][1:] += 1
        side["feat"][0] -= 1
    return networks


def probabilities_by_loops(x):
    n = len(x)
    chance = [[1 + (x[i] @ x[k]) / (x[i].norm() * x[k].norm()) for k in range(n)] for i in range(n)]
    return [[chance[i][k] / sum(chance[i]) for k in range(n)] for i in range(n)]


def pkt_by_loops(divisor):
    def value(student, teacher):
        s, t = probabilities_by_loops(student["feat"]), probabilities_by_loops(teacher["feat"])
        n = len(s)
        return sum(t[i][k] * (t[i][k] / s[i][k]).log() for i in range(n) for k in range(n)) / divisor(n)

    return value


def test_it_is_the_mean_divergence_of_rows():
    assert_like_loops(pkt(), *draw(), pkt_by_loops(lambda n: n))


def test_parity_divides_by_the_batch_once_more():
    assert_like_loops(pkt(parity=True), *draw(), pkt_by_loops(lambda n: n**2))


def test_with_its_small_numbers_the_released_formula_gives_the_same_to_five_digits():
    student, teacher = draw()

    def released(x, eps=1e-7):
        rows = x / (x.norm(dim=1, keepdim=True) + eps)
        similarity = (rows @ rows.T + 1) / 2
        return similarity / similarity.sum(1, keepdim=True)

    s, t = released(student["feat"]), released(teacher["feat"])
    expected = (t * ((t + 1e-7) / (s + 1e-7)).log()).mean()
    torch.testing.assert_close(pkt(parity=True)(student, teacher).value, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("width", [64, 1024])
def test_its_size_hardly_changes_with_the_batch_and_the_published_one_falls(width):
    ours = {n: size(pkt(), n, width) for n in (16, 64, 256)}
    published = {n: size(pkt(parity=True), n, width) for n in (16, 64, 256)}
    for n in (16, 256):
        assert ours[n] == pytest.approx(ours[64], rel=0.2)
        assert published[n] / published[64] == pytest.approx(64 / n, rel=0.2)


def test_its_size_falls_with_the_width():
    narrow, wide = size(pkt(), 64, 64), size(pkt(), 64, 1024)
    assert narrow / wide == pytest.approx(1024 / 64, rel=0.2)
    assert narrow == pytest.approx(0.0041, rel=0.1)
    assert wide == pytest.approx(0.00025, rel=0.1)


def test_opposite_rows_have_a_finite_value_and_gradient():
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.3, 0.4]], requires_grad=True)
    other = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.3, -0.4]])
    for student, teacher in ((x, other), (other.requires_grad_(), x.detach())):
        value = pkt()({"feat": student}, {"feat": teacher.detach()}).value
        (gradient,) = torch.autograd.grad(value, student)
        assert value.isfinite() and value > 0
        assert gradient.isfinite().all()


def test_scaling_and_turning_a_network_changes_nothing():
    student, teacher = draw()
    turned = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    moved = {"feat": 3 * teacher["feat"] @ turned}
    torch.testing.assert_close(pkt()(student, moved).value, pkt()(student, teacher).value)


def test_the_pairing_counts():
    student, _ = draw(n=12)
    assert pkt()(student, {"feat": student["feat"].flip(0)}).value > 0.01


def test_features_without_a_vector_per_sample_are_refused():
    with pytest.raises(ValueError, match="one vector per sample"):
        pkt()({"feat": torch.zeros(4, 2, 3)}, {"feat": torch.zeros(4, 2)})
