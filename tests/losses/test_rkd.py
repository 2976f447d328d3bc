"""Relational knowledge distillation against its definition, written again with plain loops."""

import pytest
import torch
from jaxtyping import TypeCheckError
from structured import assert_like_loops, size

from graphkd import GraphLoss
from graphkd.discrepancies import smooth_l1
from graphkd.graphs import point_cloud
from graphkd.losses import rkd
from graphkd.reductions import TransportCost
from graphkd.relations import Angle

REFUSED = (ValueError, TypeCheckError)


def draw(n=7, widths=(3, 5), scales=(0.4, 3.0)):
    return [{"feat": k * torch.randn(n, d, dtype=torch.float64)} for d, k in zip(widths, scales, strict=True)]


def huber(difference):
    return 0.5 * difference**2 if difference.abs() < 1 else difference.abs() - 0.5


def distances_by_loops(x):
    n = len(x)
    apart = {(i, k): (x[i] - x[k]).pow(2).sum().sqrt() for i in range(n) for k in range(n) if i != k}
    mean = sum(apart.values()) / len(apart)
    return {pair: distance / mean for pair, distance in apart.items()}


def angles_by_loops(x, vertices):
    n, found = len(x), {}
    for i in vertices:
        for j in range(n):
            for k in range(n):
                if i not in (j, k):
                    one, other = x[j] - x[i], x[k] - x[i]
                    found[i, j, k] = (one @ other) / (one.norm() * other.norm())
    return found


def gap(student, teacher, count):
    return sum(huber(student[key] - teacher[key]) for key in student) / count


def rkd_by_loops(distance_weight, angle_weight, vertices=range(7)):
    def value(student, teacher):
        s, t = student["feat"], teacher["feat"]
        n = len(s)
        distance = gap(distances_by_loops(s), distances_by_loops(t), n**2)
        angle = gap(angles_by_loops(s, vertices), angles_by_loops(t, vertices), len(vertices) * n**2)
        return distance_weight * distance + angle_weight * angle

    return value


@pytest.mark.parametrize(("distance_weight", "angle_weight"), [(25.0, 50.0), (1, 2), (3, 0), (0, 0.5)])
def test_it_is_the_huber_loss_of_distances_and_angles(distance_weight, angle_weight):
    criterion = rkd(distance_weight=distance_weight, angle_weight=angle_weight)
    assert_like_loops(criterion, *draw(), rkd_by_loops(distance_weight, angle_weight))


def test_the_weights_are_those_of_the_benchmarks_unless_told():
    assert_like_loops(rkd(), *draw(), rkd_by_loops(25, 50))


@pytest.mark.parametrize(("num_vertices", "vertices"), [(1, [0]), (3, [0, 2, 4]), (7, range(7)), (50, range(7))])
def test_angles_are_seen_from_some_samples_evenly_spaced(num_vertices, vertices):
    criterion = rkd(distance_weight=0, num_vertices=num_vertices)
    assert_like_loops(criterion, *draw(), rkd_by_loops(0, 50, vertices))


def test_both_sides_of_the_huber_loss_occur():
    student, teacher = (distances_by_loops(side["feat"]) for side in draw(n=9, widths=(1, 1)))
    assert {bool((student[pair] - teacher[pair]).abs() < 1) for pair in student} == {True, False}
    s, t = draw(n=9, widths=(1, 1))
    assert_like_loops(rkd(), s, t, rkd_by_loops(25, 50, range(9)))


def test_a_weight_of_zero_leaves_the_term_out():
    student, teacher = draw()
    assert list(rkd(angle_weight=0)(student, teacher).terms) == ["distance"]
    assert list(rkd(distance_weight=0)(student, teacher).terms) == ["angle"]


def test_moving_turning_and_scaling_a_network_changes_nothing():
    student, teacher = draw()
    turned = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    moved = {"feat": 100 + 3 * teacher["feat"] @ turned}
    torch.testing.assert_close(rkd()(student, moved).value, rkd()(student, teacher).value)


def test_the_pairing_counts():
    student, teacher = draw(n=12)
    same = {"feat": torch.cat([student["feat"]] * 2, 1)}
    assert float(rkd()(student, same).value) == pytest.approx(0, abs=1e-12)
    assert rkd()(student, {"feat": same["feat"].flip(0)}).value > 1


def test_its_size_does_not_change_with_the_batch():
    sizes = [size(rkd(num_vertices=16), n, 64) for n in (16, 64, 256)]
    assert max(sizes) < 1.3 * min(sizes)


def test_masses_weigh_the_pairs_that_a_vertex_sees_but_not_the_vertex():
    student, teacher = (side["feat"] for side in draw())
    mass = torch.rand(7, dtype=torch.float64)
    mass = mass / mass.sum()
    loss = GraphLoss(relation=Angle(), reduction=TransportCost(1.0, smooth_l1))
    s, t = (angles_by_loops(x, range(7)) for x in (student, teacher))
    expected = sum(huber(s[i, j, k] - t[i, j, k]) * mass[j] * mass[k] / 7 for i, j, k in s)
    torch.testing.assert_close(loss(point_cloud(student, mass), point_cloud(teacher, mass)), expected)


@pytest.mark.parametrize(
    "arguments",
    [{"distance_weight": -1.0}, {"angle_weight": float("nan")}, {"distance_weight": 0, "angle_weight": 0}]
    + [{"num_vertices": 0}, {"num_vertices": 2.5}],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(REFUSED):
        rkd(**arguments)


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4])
def test_samples_of_a_class_may_be_near_in_single_precision(spread):
    means = torch.randn(10, 512).relu()
    labels = torch.arange(40) % 10
    student, teacher = ((means[labels] + spread * torch.randn(40, 512)).requires_grad_() for _ in range(2))
    slopes, values = [], []
    for dtype in (torch.float32, torch.float64):
        output = rkd()({"feat": student.to(dtype)}, {"feat": teacher.detach().to(dtype)})
        values.append(torch.stack([value.detach().double() for value in output.terms.values()]))
        slopes.append(torch.autograd.grad(output.value, student)[0])
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-7)
    assert (slopes[0] - slopes[1]).norm() < 1e-3 * slopes[1].norm()
