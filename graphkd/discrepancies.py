r"""Elementwise discrepancies L between a student's relation and a teacher's.

A :class:`Factored` discrepancy is a sum of products, :math:`L(s, t) = f_1(s) + f_2(t) - h_1(s) h_2(t)`, which lets the
sum over four indices of an unpaired plan be computed from matrix products (Peyré, Cuturi, Solomon, ICML 2016).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Factored:
    """A discrepancy with its factors, usable with any plan; without h where the product is zero.

    >>> mse(torch.tensor([3.0]), torch.tensor([1.0]))
    tensor([4.])
    """

    elementwise: Callable[[Tensor, Tensor], Tensor]
    f1: Callable[[Tensor], Tensor]
    f2: Callable[[Tensor], Tensor]
    h1: Callable[[Tensor], Tensor] | None = None
    h2: Callable[[Tensor], Tensor] | None = None

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The discrepancy of two tensors of one shape."""
        return self.elementwise(student, teacher)

    @property
    def __name__(self) -> str:
        """What it is called, as a function is."""
        return self.elementwise.__name__.lstrip("_")


def _squared_difference(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square()


def _same(x: Tensor) -> Tensor:
    return x


def _double(x: Tensor) -> Tensor:
    return 2 * x


mse = Factored(_squared_difference, torch.square, torch.square, _same, _double)
"""Squared difference, :math:`(s - t)^2`."""


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return _entropy(teacher) + student - _log(student) * teacher


def _entropy(teacher: Tensor) -> Tensor:
    return teacher * _log(teacher) - teacher


def _log(x: Tensor) -> Tensor:
    return x.clamp_min(torch.finfo(x.dtype).tiny).log()


kl = Factored(_divergence, _same, _entropy, _log, _same)
"""Divergence of positive numbers, :math:`t \\log(t / s) - t + s`: how well the student's explain the teacher's."""


def _total(student: Tensor, teacher: Tensor) -> Tensor:
    return student + teacher


total = Factored(_total, _same, _same)
"""The sum, :math:`s + t`: what the two graphs are by themselves, whoever is matched with whom."""


def smooth_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of width one; not factored, so for paired plans only.

    >>> smooth_l1(torch.tensor([3.0]), torch.tensor([1.0]))
    tensor([1.5000])
    """
    return F.smooth_l1_loss(student, teacher, reduction="none")
