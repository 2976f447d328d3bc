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


def plan_matrix(plan: Plan) -> np.ndarray:
    """The plan as a matrix (n m) of float64.

    Raises:
        ValueError: For a plan that is not one matrix, or whose masses are not finite, not negative and not all zero.

    >>> plan_matrix(torch.eye(2)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    given = plan.plan if isinstance(plan, Comparison) else plan
    if given.dim() != 2 or 0 in given.shape:
        raise ValueError(f"needs one plan of shape (n, m), got shape {tuple(given.shape)}")
    matrix = given.detach().to("cpu", torch.float64).numpy()
    bad = int((~np.isfinite(matrix) | (matrix < 0)).sum())
    if bad or matrix.sum() == 0:
        came = f"{bad} negative, NaN or infinite of {matrix.size}" if bad else "only zeros"
        raise ValueError(f"a plan needs finite masses, none below 0 and some above, got {came}")
    return matrix


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


def both_classes(
    labels: Labels | None, teacher_labels: Labels | None, n: int, m: int
) -> tuple[np.ndarray, np.ndarray] | None:
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


def axes_or_new(ax: Axes | None, width: Real, height: Real) -> Axes:
    """The given axes, or those of a new figure of that size in inches, kept out of pyplot's global state.

    >>> axes_or_new(None, 4, 3).get_title()
    ''
    """
    return Figure(figsize=(width, height), layout="constrained").add_subplot() if ax is None else ax
