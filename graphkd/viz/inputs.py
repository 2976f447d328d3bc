"""What the figures are given, read into NumPy: a plan, the nodes' classes, the axes to draw on."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from graphkd.typing import UNLABELLED, Comparison, Real

Plan = Shaped[Tensor, "*b n m"] | Comparison
"""A plan (n m), rows are student nodes, or the comparison that holds it."""

Labels = Shaped[Tensor, "..."] | Sequence[int]
"""One class index per node (n); -100 says that the node has none."""

Groups = tuple[np.ndarray, np.ndarray]
"""A number per student node (n) and per teacher node (m) that says what belongs together; -100 for none."""

MOST_CELLS_AT_ONCE = 2**22


def read_plan(plan: Plan) -> Shaped[Tensor, "n m"]:
    """The plan (n m) on the CPU without its gradient: dense, or a coalesced sparse tensor if it came sparse.

    Raises:
        ValueError: For a plan that is not one matrix, or whose masses are not finite, not negative and not all zero.

    >>> read_plan(torch.eye(2).to_sparse()).values()
    tensor([1., 1.])
    """
    given = plan.plan if isinstance(plan, Comparison) else plan
    if given.dim() != 2 or 0 in given.shape:
        raise ValueError(f"needs one plan of shape (n, m), got shape {tuple(given.shape)}")
    given = given.detach().cpu()
    given = given if given.layout == torch.strided else given.to_sparse_coo().coalesce()
    masses = given.values() if given.is_sparse else given
    # The extremes are found without a copy, which for 10,000 nodes would be hundreds of megabytes.
    low, high = torch.aminmax(masses) if masses.numel() else (masses.new_zeros(()), masses.new_zeros(()))
    if not (low >= 0 and 0 < high < torch.inf):
        bad = int((~masses.isfinite() | (masses < 0)).sum())
        came = f"{bad} negative, NaN or infinite of {masses.numel()}" if bad else "only zeros"
        raise ValueError(f"a plan needs finite masses, none below 0 and some above, got {came}")
    return given


def plan_matrix(plan: Plan) -> np.ndarray:
    """The whole plan as a dense matrix (n m) of float64, for few nodes.

    Raises:
        ValueError: As :func:`read_plan`.

    >>> plan_matrix(torch.eye(2)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return read_plan(plan).to_dense().double().numpy()


def group_sums(
    plan: Shaped[Tensor, "n m"], rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Mass between groups of nodes, float64 of a given shape, from a plan that was read.

    The plan is read in parts, so that no second one is formed.

    Args:
        plan: P (n m) as :func:`read_plan` gives it.
        rows: The group of each student node (n), -1 for none.
        columns: The group of each teacher node (m), -1 for none.
        shape: How many groups there are of students and of teachers.

    >>> plan = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> group_sums(plan, np.array([1, 0]), np.array([0, -1, 0]), (2, 1)).tolist()
    [[10.0], [4.0]]
    """
    sums = np.zeros(shape)
    if plan.is_sparse:
        (i, j), mass = plan.indices().numpy(), plan.values().double().numpy()
        kept = (rows[i] >= 0) & (columns[j] >= 0)
        np.add.at(sums, (rows[i[kept]], columns[j[kept]]), mass[kept])
        return sums
    (by_row, _, _), (by_column, starts, groups) = _grouped(rows), _grouped(columns)
    in_order = len(by_column) == len(columns) and bool((np.diff(by_column) > 0).all())
    for part in _parts(by_row, plan.shape[1]):
        masses = plan[torch.from_numpy(part)].double().numpy()
        masses = np.add.reduceat(masses if in_order else masses[:, by_column], starts, axis=1)
        # Sorted, so that no group comes twice and one assignment adds all.
        found, first = np.unique(rows[part], return_index=True)
        sums[np.ix_(found, groups)] += np.add.reduceat(masses, first, axis=0)
    return sums


def matched_mass(plan: Shaped[Tensor, "n m"], student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Mass (n) of each student node on the teacher nodes of its own class, from a plan that was read.

    Args:
        plan: P (n m) as :func:`read_plan` gives it.
        student: Class of each student node (n), or any other number that says what belongs together; -100 for none.
        teacher: Class of each teacher node (m).

    >>> matched_mass(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), np.array([0, 1]), np.array([1, 1])).tolist()
    [0.0, 7.0]
    """
    found = np.zeros(len(student))
    if plan.is_sparse:
        (i, j), mass = plan.indices().numpy(), plan.values().double().numpy()
        same = verdicts(student[i], teacher[j]) == 1
        np.add.at(found, i[same], mass[same])
        return found
    for part in _parts(np.flatnonzero(student != UNLABELLED), plan.shape[1]):
        found[part] = np.where(
            student[part][:, None] == teacher, plan[torch.from_numpy(part)].double().numpy(), 0.0
        ).sum(1)
    return found


def groups_of(classes: Groups | None, n: int, m: int) -> Groups:
    """What should be matched: nodes of one class; without classes node i with node i, if n is m; else nobody knows.

    >>> student, teacher = groups_of(None, 2, 2)
    >>> student.tolist(), teacher.tolist()
    ([0, 1], [0, 1])
    """
    if classes is not None:
        return classes
    return (np.arange(n), np.arange(m)) if n == m else (np.full(n, UNLABELLED), np.full(m, UNLABELLED))


def verdicts(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Whether mass from a student to a teacher node is right (1), wrong (-1), or neither (0), as groups say.

    Args:
        student: Groups of student nodes, see :func:`groups_of`.
        teacher: Groups of as many teacher nodes, or of any shape that goes with the students'.

    >>> verdicts(np.array([3, 3, -100, 3]), np.array([3, 5, -100, -100])).tolist()
    [1, -1, 0, 0]
    """
    return np.where((student == UNLABELLED) | (teacher == UNLABELLED), 0, np.where(student == teacher, 1, -1))


def mass_shares(plan: Shaped[Tensor, "n m"], classes: Groups | None) -> tuple[float, dict[int, float]]:
    """The mass of a plan that was read, and which shares of it are right (1), wrong (-1) or neither (0).

    There are no shares where nobody knows, see :func:`groups_of`, and where no mass runs between nodes of known class.

    >>> mass_shares(torch.tensor([[3.0, 1.0], [0.0, 4.0]]), None)
    (8.0, {1: 0.875, -1: 0.125, 0: 0.0})
    """
    groups = groups_of(classes, *plan.shape)
    labelled = [(side != UNLABELLED).astype(int) for side in groups]
    if all(side.all() for side in labelled):
        total = known = _total(plan)
        unknown = 0.0
    else:
        sums = group_sums(plan, labelled[0], labelled[1], (2, 2))
        total, known = float(sums.sum()), float(sums[1, 1])
        unknown = float(sums[0].sum() + sums[1, 0])
    if known == 0:
        return total, {}
    on_pairs = classes is None and not plan.is_sparse
    right = float(plan.diagonal().double().sum() if on_pairs else matched_mass(plan, *groups).sum())
    return total, {1: right / total, -1: max(known - right, 0.0) / total, 0: unknown / total}


def _total(plan: Tensor) -> float:
    if plan.is_sparse:
        return float(plan.values().double().sum())
    return sum(float(rows.double().sum()) for rows in plan.split(max(1, MOST_CELLS_AT_ONCE // plan.shape[1])))


def _grouped(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nodes that have a group, sorted by it; where each group starts among them; the groups."""
    order = np.argsort(groups, kind="stable")[int((groups < 0).sum()) :]
    present, starts = np.unique(groups[order], return_index=True)
    return order, starts, present


def _parts(rows: np.ndarray, width: int) -> list[np.ndarray]:
    """The rows in parts of at most some four million cells."""
    step = max(1, MOST_CELLS_AT_ONCE // width)
    return [rows[start : start + step] for start in range(0, len(rows), step)]


def node_classes(name: str, labels: Labels, n: int) -> np.ndarray:
    """Class indices (n) of the nodes.

    Raises:
        ValueError: For labels that are not one integer per node, or a negative one that is not -100.

    >>> node_classes("labels", [2, 0, -100], 3).tolist()
    [2, 0, -100]
    """
    classes = np.asarray(labels.detach().cpu()) if isinstance(labels, Tensor) else np.asarray(labels)
    if classes.shape != (n,) or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(
            f"{name} needs one integer per node, shape ({n},), got shape {classes.shape} of {classes.dtype}"
        )
    if ((classes < 0) & (classes != UNLABELLED)).any():
        raise ValueError(f"{name} needs class indices from 0 on, or {UNLABELLED} for none, got {classes.min()}")
    return classes.astype(np.int64)


def both_classes(labels: Labels | None, teacher_labels: Labels | None, n: int, m: int) -> Groups | None:
    """Classes of the student's nodes (n) and of the teacher's (m), where any are given; by default they are the same.

    Raises:
        ValueError: For labels that do not fit, see :func:`node_classes`, and for unequal n and m without
            ``teacher_labels``.

    >>> student, teacher = both_classes([0, 1], [1, 1, 0], 2, 3)
    >>> student.tolist(), teacher.tolist()
    ([0, 1], [1, 1, 0])
    """
    if labels is None:
        if teacher_labels is not None:
            raise ValueError("teacher_labels needs labels of the student's nodes beside it, got none")
        return None
    student = node_classes("labels", labels, n)
    if teacher_labels is None:
        if n != m:
            raise ValueError(
                f"needs teacher_labels where the numbers of nodes differ, got only labels, n={n} and m={m}"
            )
        return student, student
    return student, node_classes("teacher_labels", teacher_labels, m)


def by_class(classes: np.ndarray) -> np.ndarray:
    """The order (n) that sorts nodes by class, unlabelled ones last, otherwise as they came.

    >>> by_class(np.array([1, -100, 0, 1])).tolist()
    [2, 0, 3, 1]
    """
    return np.argsort(np.where(classes == UNLABELLED, np.iinfo(np.int64).max, classes), kind="stable")


def class_spans(classes: np.ndarray) -> list[tuple[int, int, int]]:
    """Runs of one class in a sorted list (n): the class, its first place, the place after its last.

    >>> class_spans(np.array([0, 0, 3]))
    [(0, 0, 2), (3, 2, 3)]
    """
    starts = [0, *(np.flatnonzero(np.diff(classes)) + 1).tolist()]
    return [(int(classes[i]), i, j) for i, j in zip(starts, [*starts[1:], len(classes)], strict=True)]


def class_name(index: int, names: Sequence[str] | None) -> str:
    """What a class is called: its name if there are names, else its index.

    Raises:
        ValueError: For names that end before the index.

    >>> class_name(1, ["cat", "dog"]), class_name(1, None), class_name(-100, None)
    ('dog', '1', 'unlabelled')
    """
    if index == UNLABELLED:
        return "unlabelled"
    if names is None:
        return str(index)
    if index >= len(names):
        raise ValueError(f"class_names needs a name for class {index}, got {len(names)} names")
    return names[index]


def percent(share: Real) -> str:
    """A share in words, so that a little is not nothing.

    >>> percent(0.25), percent(0.001), percent(0)
    ('25 %', 'less than 1 %', '0 %')
    """
    return "less than 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def axes_or_new(ax: Axes | None, width: Real, height: Real) -> Axes:
    """The given axes, or those of a new figure of that size in inches, kept out of pyplot's global state.

    >>> axes_or_new(None, 4, 3).get_title()
    ''
    """
    return Figure(figsize=(width, height), layout="constrained").add_subplot() if ax is None else ax
