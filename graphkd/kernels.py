"""Kernels: pairwise similarities (*b n d), (*b m d) to (*b n m) that are inner products of some space of features.

Computed in float32 at least. The linear one is :func:`graphkd.measures.inner`.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from graphkd import checks
from graphkd.measures import inner, sqeuclidean
from graphkd.typing import Real

Pairs = Float[Tensor, "*b n m"]
Rows = Float[Tensor, "*b n d"]
OtherRows = Float[Tensor, "*b m d"]


@dataclass(frozen=True)
class Gaussian:
    r"""Gaussian kernel, also called radial basis function, in (0, 1].

    .. math:: k(x, y) = \exp\bigl(-\|x - y\|^2 / (2 h^2)\bigr)

    Args:
        bandwidth: h, in units of the rows. One number and not read off the batch: student with student, teacher with
            teacher and student with teacher must be measured by the same kernel.

    >>> import torch
    >>> Gaussian(bandwidth=1.0)(torch.zeros(1, 2), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    tensor([[1.0000, 0.3679]])
    """

    bandwidth: Real = 1.0

    similarity: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.positive("bandwidth", self.bandwidth)

    def __call__(self, x: Rows, y: OtherRows) -> Pairs:
        """The kernel of every pair."""
        return (-sqeuclidean(x, y) / (2 * self.bandwidth**2)).exp()


@dataclass(frozen=True)
class Polynomial:
    r"""Polynomial kernel :math:`k(x, y) = (\langle x, y\rangle + c)^p`.

    Args:
        degree: p.
        offset: c, at least zero.

    >>> import torch
    >>> Polynomial(degree=2)(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, -1.0]]))
    tensor([[1.]])
    """

    degree: int = 2
    offset: Real = 0.0

    similarity: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.at_least("degree", self.degree, 1)
        checks.not_negative("offset", self.offset)

    def __call__(self, x: Rows, y: OtherRows) -> Pairs:
        """The kernel of every pair."""
        return (inner(x, y) + self.offset) ** self.degree
