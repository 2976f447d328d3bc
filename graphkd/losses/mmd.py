"""Maximum mean discrepancy (MMD): the features of a batch, as two sets of points, by their means in a kernel's space.

Gretton, Borgwardt, Rasch, Schölkopf, Smola, "A Kernel Two-Sample Test", JMLR 2012. As a loss of distillation:
Montesuma, "KD2M: A unifying framework for feature knowledge distillation", GSI 2025, arXiv:2504.01757.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from graphkd import checks
from graphkd.couplings import Product
from graphkd.discrepancies import total
from graphkd.encoders import GraphEncoder
from graphkd.graphs import samples
from graphkd.kernels import Gaussian, Polynomial
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import inner
from graphkd.projectors import LinearProjector, ProjectorName, matched
from graphkd.reductions import TransportCost
from graphkd.relations import Pairwise
from graphkd.typing import Measure, Real

KernelName = Literal["gaussian", "linear", "polynomial"]


def mmd(
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    *,
    kernel: KernelName = "gaussian",
    bandwidth: Real = 0.5,
    normalize: bool = True,
    projector: ProjectorName | nn.Module | None = "linear",
) -> Criterion:
    r"""Squared maximum mean discrepancy.

    .. math::
        L = \frac{1}{n^2} \sum_{ik} k(x_i, x_k) + \frac{1}{n^2} \sum_{jl} k(y_j, y_l)
            - \frac{2}{n^2} \sum_{ij} k(x_i, y_j)

    between the student's rows x, behind the projector, and the teacher's y: the squared distance of the two means in
    the space of the kernel. Diagonals count (the biased estimate), so that it is never negative.

    In the library's terms nodes are samples, everybody is coupled with everybody, and the value is the fused
    Gromov-Wasserstein objective itself: cost :math:`-2 k`, relation k, discrepancy s + t, alpha a half. That is half of
    the above, so the term has weight 2, and what is logged of it unweighted is the half.

    Needs: ``feat`` (n d).
    Pairing: ignored.
    Cost: n² d, of which n² numbers are held.
    Terms: ``mmd``.
    Extra parameters: a linear projector.
    Equal to: its definition.

    Labels are not used. Intensive: with rows of length one and the Gaussian kernel the value is below 2, whatever batch
    and width are; of two equal distributions it still is about 2 (1 - mean k) / n.

    Departures from the code of KD2M: it reads the Gaussian kernel's bandwidth off the batch, as the mean of all
    distances of raw features, which here would take a kernel that sees all three sets at once; here rows have length
    one, and the bandwidth is a number.

    Args:
        student_dim: Width of the student's ``feat``; read off the first batch if omitted.
        teacher_dim: Width of the teacher's ``feat``; read off the first batch if omitted.
        kernel: k: ``gaussian``, :math:`\exp(-\|x - y\|^2 / (2 h^2))`; ``linear``, :math:`\langle x, y\rangle`, with
            which L is the squared distance of the means; ``polynomial``, :math:`\langle x, y\rangle^2`.
        bandwidth: h of the Gaussian kernel, in units of the rows: those of length one are at most 2 apart.
        normalize: Whether rows are scaled to length one. Raw ones, with the linear kernel, give the published number,
            to which the published weight of 1e-4 belongs.
        projector: ``linear``, a module of your own, or None for features of equal width.

    Raises:
        ValueError: For options out of range; at the call for widths that differ without a projector.

    >>> import torch
    >>> criterion = mmd(kernel="linear", projector=None)
    >>> student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    >>> criterion({"feat": student}, {"feat": teacher}).value
    tensor(0.)
    """
    checks.one_of("kernel", kernel, ("gaussian", "linear", "polynomial"))
    if isinstance(projector, str):
        checks.one_of("projector", projector, ("linear",))
        projector = LinearProjector(student_dim, teacher_dim)
    kernels: dict[str, Measure] = {"gaussian": Gaussian(bandwidth), "linear": inner, "polynomial": Polynomial(2)}
    criterion = Criterion(
        student=GraphEncoder(samples, projector, normalize=normalize),
        teacher=GraphEncoder(samples, normalize=normalize),
        terms={"mmd": between_means(kernels[kernel])},
    )
    matched(criterion, "feat")
    return criterion


def between_means(kernel: Measure, student: int = 0, teacher: int = 0) -> Term:
    """The squared distance of two graphs' means in the space of a kernel, of the nodes at two hops."""
    reduction = TransportCost(0.5, total)
    loss = GraphLoss(_Attraction(kernel), Pairwise(kernel), coupling=Product(), reduction=reduction)
    return Term(loss, weight=2.0, student=student, teacher=teacher)


@dataclass(frozen=True)
class _Attraction:
    """A cost that falls as nodes get alike: minus twice a kernel."""

    kernel: Measure

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return -2 * self.kernel(x, y)
