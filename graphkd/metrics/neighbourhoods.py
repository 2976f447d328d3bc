"""Nearest neighbours: who they are, whether a student keeps its teacher's, and which samples lose theirs.

All of a batch at once: the matrix (n n) of the measure, and its rows sorted, are formed.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from graphkd import checks
from graphkd.measures import cosine, is_similarity
from graphkd.precision import raised
from graphkd.typing import Measure

Rows = Shaped[Tensor, "..."]
"""One row per sample (n d)."""


class Missed(NamedTuple):
    """The samples whose teacher neighbourhood a student misses most, the worst first.

    Attributes:
        index: Which samples (c).
        overlap: Share of the teacher's neighbours that the student keeps (c).
        teacher: The teacher's neighbours (c k), nearest first.
        student: The student's neighbours (c k), nearest first.
        rank: Mean place (c) that the teacher's neighbours have in the student's order of all others: its nearest is at
            1, its farthest at n - 1, and (k + 1) / 2 is the best there is.
    """

    index: Int[Tensor, " c"]
    overlap: Float[Tensor, " c"]
    teacher: Int[Tensor, "c k"]
    student: Int[Tensor, "c k"]
    rank: Float[Tensor, " c"]


@torch.no_grad()
def neighbours(x: Rows, k: int, measure: Measure = cosine) -> Int[Tensor, "n k"]:
    """The k nearest others of each row, nearest first; of equally near ones, the first row first.

    Args:
        x: Rows (n d).
        k: How many.
        measure: A pairwise measure; near means large for ``cosine`` and ``inner``, small for any other.

    Raises:
        ValueError: For k not in 1..n-1, for rows that are empty, not finite or not floating-point, and for rows so
            large that the measure overflows.

    >>> neighbours(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), k=1).T
    tensor([[1, 0, 1]])
    """
    return _order("x", x, k, measure)[:, :k]


@torch.no_grad()
def neighbour_overlap(student: Rows, teacher: Rows, k: int, measure: Measure = cosine) -> Float[Tensor, " n"]:
    r"""Of each sample, the share of the teacher's k nearest that are among the student's k nearest.

    .. math:: |N_k^s(i) \cap N_k^t(i)| / k

    Its mean is what tables report. A student that knows nothing reaches k / (n - 1) by chance, so tell k and n with it.

    Args:
        student: Rows (n d).
        teacher: Rows (n e) of the same samples; the width may differ.
        k: Neighbours of a sample, in 1..n-1.
        measure: As in :func:`neighbours`, for both.

    Raises:
        ValueError: As :func:`neighbours`, and for unequal numbers of samples.

    >>> line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    >>> neighbour_overlap(line[[1, 0, 2, 3]], line, 2, measure=lambda x, y: (x - y.mT).abs())
    tensor([1.0000, 1.0000, 1.0000, 0.5000])
    """
    mine, theirs = _orders(student, teacher, k, measure)
    return _shared(mine[:, :k], theirs[:, :k], raised(student).dtype)


@torch.no_grad()
def most_missed(student: Rows, teacher: Rows, k: int, count: int = 10, measure: Measure = cosine) -> Missed:
    """The samples whose teacher neighbourhood the student misses most, with both neighbourhoods.

    Lowest overlap first; among equal ones the largest mean rank first, then the first sample.

    Args:
        student: Rows (n d).
        teacher: Rows (n e) of the same samples; the width may differ.
        k: Neighbours of a sample, in 1..n-1.
        count: How many samples; all of them, if there are fewer.
        measure: As in :func:`neighbours`, for both.

    Raises:
        ValueError: As :func:`neighbour_overlap`, and for a count below one.

    >>> teacher = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.1, 0.9], [0.0, 1.0]])
    >>> missed = most_missed(teacher[[0, 2, 1, 3]], teacher, k=1, count=2)
    >>> missed.index, missed.teacher.T, missed.student.T, missed.rank
    (tensor([1, 2]), tensor([[0, 3]]), tensor([[3, 0]]), tensor([3., 3.]))
    """
    checks.at_least("count", count, 1)
    mine, theirs = _orders(student, teacher, k, measure)
    wanted, found = theirs[:, :k], mine[:, :k]
    overlap = _shared(found, wanted, raised(student).dtype)
    places = torch.arange(1, mine.shape[1] + 1, device=mine.device).expand_as(mine)
    ranks = torch.zeros((len(mine), len(mine)), dtype=torch.int64, device=mine.device).scatter_(1, mine, places)
    rank = ranks.gather(1, wanted).sum(1).to(overlap.dtype) / k
    # Two stable sorts, the second key first.
    worst = rank.argsort(descending=True, stable=True)
    worst = worst[overlap[worst].argsort(stable=True)][:count]
    return Missed(worst, overlap[worst], wanted[worst], found[worst], rank[worst])


def _orders(student: Tensor, teacher: Tensor, k: int, measure: Measure) -> tuple[Tensor, Tensor]:
    """For both, all others of each sample, nearest first."""
    checks.tensor(student=student, teacher=teacher)
    if student.shape[:1] != teacher.shape[:1]:
        came = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ValueError(f"needs a student's and a teacher's rows of the same samples, got shapes {came}")
    return _order("student", student, k, measure), _order("teacher", teacher, k, measure)


def _order(name: str, x: Tensor, k: int, measure: Measure) -> Tensor:
    """All others of each row (n n-1), nearest first."""
    checks.rows(name, x)
    if x.dim() != 2:
        raise ValueError(f"{name} needs one set of rows (n, d), got shape {tuple(x.shape)}")
    n = len(x)
    if not isinstance(k, int) or isinstance(k, bool) or not 0 < k < n:
        raise ValueError(f"needs 0 < k < n, got k={k!r} for n={n}")
    value = measure(x, x)
    checks.in_range(value, **{name: x})
    nearness = value if is_similarity(measure) else -value
    own = torch.eye(n, dtype=torch.bool, device=x.device)
    return nearness.masked_fill(own, -torch.inf).sort(dim=-1, descending=True, stable=True).indices[:, :-1]


def _shared(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> Tensor:
    """Share (n) of the wanted (n k) that was found (n k)."""
    member = torch.zeros((len(found), len(found)), dtype=torch.bool, device=found.device).scatter_(1, found, True)
    return member.gather(1, wanted).sum(1).to(dtype) / wanted.shape[1]
