"""Similarity-preserving knowledge distillation against its definition, written again with plain loops."""

import pytest
import torch
from jaxtyping import TypeCheckError
from structured import assert_like_loops, size

from graphkd.losses import sp

REFUSED = (ValueError, TypeCheckError)


def draw(n=6):
    student = {"map": torch.randn(n, 2, 3, 3, dtype=torch.float64), "feat": torch.randn(n, 3, dtype=torch.float64)}
    teacher = {"map": torch.randn(n, 4, 2, 2, dtype=torch.float64), "feat": torch.randn(n, 5, dtype=torch.float64)}
    # One row is longer than the others, so that rows of similarities have different lengths.
    for side in (student, teacher):
        for x in side.values():
            x[1] *= 5
    return student, teacher


def rows_by_loops(x):
    n = len(x)
    inner = [[(x[i] * x[k]).sum() for k in range(n)] for i in range(n)]
    return [[inner[i][k] / sum(value**2 for value in inner[i]).sqrt() for k in range(n)] for i in range(n)]


def sp_by_loops(feature, divisor):
    def value(student, teacher):
        s, t = rows_by_loops(student[feature]), rows_by_loops(teacher[feature])
        n = len(s)
        return sum((s[i][k] - t[i][k]) ** 2 for i in range(n) for k in range(n)) / divisor(n)

    return value


@pytest.mark.parametrize("feature", ["map", "feat"])
def test_it_is_the_mean_squared_distance_of_rows_of_length_one(feature):
    assert_like_loops(sp(feature=feature), *draw(), sp_by_loops(feature, lambda n: n))


@pytest.mark.parametrize("feature", ["map", "feat"])
def test_parity_divides_by_the_batch_once_more(feature):
    assert_like_loops(sp(feature=feature, parity=True), *draw(), sp_by_loops(feature, lambda n: n**2))


def test_the_last_map_is_compared_unless_told():
    student, teacher = draw()
    assert sp()(student, teacher).value == sp(feature="map")(student, teacher).value


def test_two_samples_that_are_alike_in_one_network_and_opposite_in_the_other_differ_by_two():
    student, teacher = {"feat": torch.tensor([[1.0], [1.0]])}, {"feat": torch.tensor([[1.0], [-1.0]])}
    assert float(sp(feature="feat")(student, teacher).value) == pytest.approx(2)


@pytest.mark.parametrize("width", [64, 1024])
def test_its_size_hardly_changes_with_the_batch_and_the_published_one_falls(width):
    ours = {n: size(sp(feature="feat"), n, width) for n in (16, 64, 256)}
    published = {n: size(sp(feature="feat", parity=True), n, width) for n in (16, 64, 256)}
    for n in (16, 256):
        assert ours[n] == pytest.approx(ours[64], rel=0.3)
        assert published[n] / published[64] == pytest.approx(64 / n, rel=0.3)


def test_its_size_falls_with_the_width():
    narrow, wide = size(sp(feature="feat"), 64, 64), size(sp(feature="feat"), 64, 1024)
    assert narrow / wide == pytest.approx(1024 / 64, rel=0.3)
    assert narrow == pytest.approx(0.15, rel=0.1)
    assert wide == pytest.approx(0.0093, rel=0.1)


def test_scaling_and_turning_a_network_changes_nothing():
    student, teacher = draw()
    turned = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    moved = {"feat": 3 * teacher["feat"] @ turned}
    criterion = sp(feature="feat")
    torch.testing.assert_close(criterion(student, moved).value, criterion(student, teacher).value)


def test_the_pairing_counts():
    student, _ = draw(n=12)
    assert sp()(student, {"map": student["map"].flip(0)}).value > 0.1


@pytest.mark.parametrize(
    "x", [torch.zeros(4, 2, 2, 2, dtype=torch.int64), torch.zeros(4), torch.full((4, 2), torch.nan)]
)
def test_bad_features_are_refused(x):
    good = {"map": torch.ones(4, 3)}
    with pytest.raises(REFUSED):
        sp()({"map": x}, good)


def test_a_feature_that_is_not_there_is_named():
    with pytest.raises(KeyError, match="map"):
        sp()({"feat": torch.ones(4, 3)}, {"feat": torch.ones(4, 3)})
