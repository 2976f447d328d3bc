"""The student's own task: its logits, and what it loses on them."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from graphkd.features import MODEL_OUTPUT, model_logits
from graphkd.precision import raised
from graphkd.teachers import has_logits
from graphkd.typing import UNLABELLED, Features

TaskLoss = Callable[[Tensor, Tensor], Tensor]
"""Of logits and labels, a scalar."""


def labelled_cross_entropy(logits: Float[Tensor, "n c"], labels: Tensor) -> Float[Tensor, ""]:
    """Cross-entropy, mean over the samples whose label is not -100; zero if there are none.

    >>> import torch
    >>> labelled_cross_entropy(torch.zeros(2, 4), torch.tensor([-100, -100]))
    tensor(0.)
    """
    total = F.cross_entropy(raised(logits), labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp_min(1)


def task_logits(output: Any, features: Features) -> Tensor:
    """What the task is about: the output's logits; where it has none, the feature of that name.

    >>> import torch
    >>> task_logits(torch.zeros(2, 3), {}).shape
    torch.Size([2, 3])
    """
    return features[MODEL_OUTPUT] if MODEL_OUTPUT in features and not has_logits(output) else model_logits(output)
