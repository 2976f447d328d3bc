"""What a distiller says of one batch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from graphkd.typing import Comparison, CriterionOutput


class Step(NamedTuple):
    """What a :class:`Distiller` returns for one batch.

    Attributes:
        loss: The weighted sum, to be minimised.
        output: The student's output.
        logs: Detached scalars by name: ``loss``; ``task`` and each criterion; each criterion's terms as ``otgd/f``,
            with ``otgd/f/marginal_error``; and what each adds to the loss, under ``weighted/``. Read them when you
            print: turning one into a number waits for the device.
        comparisons: Each criterion's comparisons as ``otgd/f``.
        student_features: What the criteria saw of the student, by name; in training with several processes, of the
            samples of all.
        teacher_features: What they saw of the teacher; empty where nothing asked. Of several teachers, as ``vgg/feat``.
    """

    loss: Float[Tensor, ""]
    output: Any
    logs: dict[str, Tensor]
    comparisons: dict[str, Comparison]
    student_features: dict[str, Tensor]
    teacher_features: dict[str, Tensor]


def joined(seen: Mapping[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """All teachers' features, with the teacher before the name where there are several."""
    if len(seen) < 2:
        return next(iter(seen.values()), {})
    return {f"{teacher}/{name}": x for teacher, features in seen.items() for name, x in features.items()}


def flat(outputs: Mapping[str, CriterionOutput]) -> dict[str, Comparison]:
    """Each comparison by criterion and term."""
    return {f"{name}/{term}": seen for name, output in outputs.items() for term, seen in output.comparisons.items()}
