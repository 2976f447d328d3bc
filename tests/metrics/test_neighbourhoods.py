"""Neighbours against scikit-learn's, overlap and the most missed samples against plain loops."""

import math

import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from graphkd.measures import Anchored, cosine, cosine_distance, euclidean, inner, manhattan, sqeuclidean
from graphkd.metrics import most_missed, neighbour_overlap, neighbours


def rows(n: int = 12, d: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near(x: Tensor, y: Tensor) -> Tensor:
    """Distances of numbers, which are exact, so that ties are ties."""
    return (x - y.mT).abs()


def loop_order(x: Tensor, measure, similarity: bool) -> list[list[int]]:
    value = measure(x, x)
    key = -value if similarity else value
    return [sorted((j for j in range(len(x)) if j != i), key=lambda j: (float(key[i, j]), j)) for i in range(len(x))]


def loop_missed(student: Tensor, teacher: Tensor, k: int, count: int, measure, similarity: bool) -> list[tuple]:
    mine, theirs = loop_order(student, measure, similarity), loop_order(teacher, measure, similarity)
    found = []
    for i in range(len(student)):
        overlap = len(set(mine[i][:k]) & set(theirs[i][:k])) / k
        rank = sum(mine[i].index(j) + 1 for j in theirs[i][:k]) / k
        found.append((overlap, -rank, i, theirs[i][:k], mine[i][:k]))
    return sorted(found)[:count]


@pytest.mark.parametrize(
    "measure, name", [(cosine, "cosine"), (euclidean, "euclidean"), (sqeuclidean, "sqeuclidean"), (manhattan, "l1")]
)
@pytest.mark.parametrize("k", [1, 4, 11])
def test_neighbours_are_those_of_scikit_learn(measure, name, k):
    x = rows()
    wanted = NearestNeighbors(n_neighbors=k, metric=name, algorithm="brute").fit(x.numpy()).kneighbors()[1]
    assert torch.equal(neighbours(x, k, measure), torch.tensor(wanted))


def test_near_is_large_for_a_similarity_and_small_for_a_distance():
    x = rows()
    assert torch.equal(neighbours(x, 5), neighbours(x, 5, cosine_distance))
    line = torch.tensor([[1.0], [2.0], [3.0]])
    assert neighbours(line, 1, inner).tolist() == [[2], [2], [1]]
    assert neighbours(line, 1, euclidean).tolist() == [[1], [0], [1]]


@pytest.mark.parametrize("measure", [near, cosine])
def test_of_equally_near_ones_the_first_row_comes_first(measure):
    x = torch.ones(40, 1)
    wanted = [[j for j in range(40) if j != i][:7] for i in range(40)]
    assert neighbours(x, 7, measure).tolist() == wanted


def test_a_row_is_not_its_own_neighbour_even_if_another_is_nearer():
    """By the inner product, a long row is nearer than the row itself."""
    x = torch.tensor([[1.0, 0.0], [-5.0, 0.0], [-1.0, 0.0]])
    assert neighbours(x, 2, inner).tolist() == [[2, 1], [2, 0], [1, 0]]


def test_neighbours_of_half_precision_are_those_of_its_values_in_float32():
    x = rows(30, 5)
    for dtype in (torch.float16, torch.bfloat16):
        got = neighbours(x.to(dtype), 6)
        assert torch.equal(got, neighbours(x.to(dtype).float(), 6))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(neighbours(x.to(dtype), 6), got)
    assert torch.equal(neighbours(x.float(), 6), neighbours(x, 6))


@pytest.mark.parametrize("measure, similarity", [(cosine, True), (sqeuclidean, False), (manhattan, False)])
@pytest.mark.parametrize("k", [1, 3, 11])
def test_overlap_is_the_loop(measure, similarity, k):
    student, teacher = rows(12, 3), rows(12, 5, 1)
    mine, theirs = loop_order(student, measure, similarity), loop_order(teacher, measure, similarity)
    wanted = [len(set(mine[i][:k]) & set(theirs[i][:k])) / k for i in range(12)]
    got = neighbour_overlap(student, teacher, k, measure)
    assert got.tolist() == pytest.approx(wanted, abs=1e-12)
    assert got.dtype == torch.float64
    assert neighbour_overlap(student.half(), teacher, k, measure).dtype == torch.float32


def test_overlap_is_one_with_itself_and_chance_without_relation():
    x = rows(12)
    assert neighbour_overlap(x, 3 * x, 4).tolist() == [1.0] * 12
    unrelated = neighbour_overlap(rows(400, 8), rows(400, 8, 1), 40)
    assert float(unrelated.mean()) == pytest.approx(40 / 399, abs=0.01)
    assert torch.equal(neighbour_overlap(rows(9), rows(9, 4, 1), 8), torch.ones(9, dtype=torch.float64))


@pytest.mark.parametrize("measure, similarity", [(cosine, True), (euclidean, False)])
@pytest.mark.parametrize("k, count", [(1, 5), (3, 12), (11, 4), (4, 1)])
def test_the_most_missed_are_those_of_the_loop(measure, similarity, k, count):
    student, teacher = rows(12, 3), rows(12, 5, 1)
    got = most_missed(student, teacher, k, count, measure)
    wanted = loop_missed(student, teacher, k, count, measure, similarity)
    assert got.index.tolist() == [i for _, _, i, _, _ in wanted]
    assert got.overlap.tolist() == pytest.approx([overlap for overlap, *_ in wanted], abs=1e-12)
    assert got.rank.tolist() == pytest.approx([-rank for _, rank, *_ in wanted], abs=1e-12)
    assert got.teacher.tolist() == [theirs for *_, theirs, _ in wanted]
    assert got.student.tolist() == [mine for *_, mine in wanted]


def test_the_most_missed_are_those_of_the_loop_with_ties_everywhere():
    generator = torch.Generator().manual_seed(3)
    student = torch.randint(0, 4, (30, 1), generator=generator).double()
    teacher = torch.randint(0, 4, (30, 1), generator=generator).double()
    got = most_missed(student, teacher, 3, 30, near)
    wanted = loop_missed(student, teacher, 3, 30, near, False)
    assert got.index.tolist() == [i for _, _, i, _, _ in wanted]
    assert len({(overlap, rank) for overlap, rank, *_ in wanted}) < 30


def test_a_student_that_misses_nothing_is_missed_in_the_order_of_samples():
    x = rows(7)
    got = most_missed(x, x, 3)
    assert got.index.tolist() == list(range(7))
    assert got.overlap.tolist() == [1.0] * 7
    assert got.rank.tolist() == [2.0] * 7
    assert torch.equal(got.teacher, neighbours(x, 3))
    assert most_missed(rows(20), rows(20, 3, 1), 3).index.shape == (10,)


def test_the_most_missed_have_floats_of_the_students_precision():
    got = most_missed(rows().half(), rows(), 3)
    assert got.overlap.dtype == got.rank.dtype == torch.float32
    assert most_missed(rows(), rows().half(), 3).rank.dtype == torch.float64


@pytest.mark.parametrize(
    "ask",
    [
        lambda x, k: neighbours(x, k),
        lambda x, k: neighbour_overlap(x, x, k),
        lambda x, k: most_missed(x, x, k),
    ],
)
def test_what_has_no_neighbours_is_refused(ask):
    x = rows(4)
    for k in (0, -1, 4, 8, True):
        with pytest.raises(ValueError, match=f"needs 0 < k < n, got k={k} for n=4"):
            ask(x, k)
    with pytest.raises(ValueError, match=r"needs one set of rows \(n, d\), got shape \(2, 4, 3\)"):
        ask(torch.zeros(2, 4, 3), 1)
    with pytest.raises(ValueError, match="needs finite values, got 1 NaN"):
        ask(torch.tensor([[0.0], [1.0], [math.nan], [2.0]]), 1)
    with pytest.raises(ValueError, match="needs floating-point values"):
        ask(x.long(), 1)


def test_numbers_beyond_the_measure_are_refused():
    with pytest.raises(ValueError, match=r"stays in the range of torch.float32, got x up to .*e\+30"):
        neighbours(1e30 * rows(4).float(), 1, sqeuclidean)


def test_student_and_teacher_need_the_same_samples():
    for ask in (neighbour_overlap, most_missed):
        with pytest.raises(ValueError, match=r"the same samples, got shapes \(4, 3\) and \(5, 3\)"):
            ask(rows(4), rows(5), 1)
        with pytest.raises(ValueError, match="^teacher needs finite values"):
            ask(rows(4), rows(4) / 0, 1)
    with pytest.raises(ValueError, match="count needs an integer of at least 1, got 0"):
        most_missed(rows(4), rows(4), 1, count=0)


def test_a_measure_sees_all_rows_at_once():
    x = rows(6)
    assert torch.equal(neighbours(x, 2, Anchored(sqeuclidean, 5.0)), neighbours(x, 2, sqeuclidean))


def test_neighbourhoods_carry_no_gradient():
    x = rows().requires_grad_()
    assert not neighbour_overlap(x, x, 2).requires_grad
    assert not most_missed(x, x, 2).rank.requires_grad
