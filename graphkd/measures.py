"""Pairwise measures: two sets of rows (*b n d), (*b m d) to a matrix (*b n m).

A *similarity* grows as rows get alike (:func:`cosine`, :func:`inner`, :func:`correlation`); every other callable is
read as a distance. All are computed in float32 at least, also under autocast: half precision loses the small
differences that these matrices are made of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import torch
from jaxtyping import Float
from torch import Tensor, nn

from graphkd import checks
from graphkd.precision import no_autocast, raised, root
from graphkd.typing import Measure, Real

Pairs = Float[Tensor, "*b n m"]
Rows = Float[Tensor, "*b n d"]
OtherRows = Float[Tensor, "*b m d"]


def full_precision(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run a function of tensors without autocast, half-precision inputs raised to float32."""

    @wraps(function)
    def wrapped(*tensors: Tensor) -> Tensor:
        with no_autocast(tensors[0].device):
            return function(*map(raised, tensors))

    return wrapped


def unit(x: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
    r"""Rows scaled to length one, :math:`x / \|x\|`; a zero row stays zero, with a finite gradient.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    # The length of what is very large or small would leave the range of squares; the result does not depend on scale.
    largest = x.detach().abs().amax(-1, keepdim=True)
    x = x / torch.where(largest > 0, largest, 1.0)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(length > 0, length, 1.0)


def centred(x: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
    """Rows without their means; a constant row is zero, whatever its mean was rounded to.

    >>> centred(torch.tensor([[3.0, 4.0], [0.1, 0.1]]))
    tensor([[-0.5000,  0.5000],
            [ 0.0000,  0.0000]])
    """
    spread = x - x.mean(-1, keepdim=True)
    noise = spread.abs() <= 8 * torch.finfo(x.dtype).eps * x.abs().amax(-1, keepdim=True)
    return torch.where(noise.all(-1, keepdim=True), spread - spread.detach(), spread)


@full_precision
def inner(x: Rows, y: OtherRows) -> Pairs:
    r"""Inner product :math:`\langle x_i, y_j \rangle`, a similarity.

    >>> inner(torch.eye(2), torch.ones(3, 2)).shape
    torch.Size([2, 3])
    """
    return x @ y.mT


@full_precision
def cosine(x: Rows, y: OtherRows) -> Pairs:
    r"""Cosine similarity :math:`\langle x_i, y_j \rangle / (\|x_i\| \|y_j\|)`; zero for zero rows.

    >>> cosine(torch.eye(2), torch.tensor([[2.0, 0.0]]))
    tensor([[1.],
            [0.]])
    """
    return unit(x) @ unit(y).mT


@full_precision
def cosine_distance(x: Rows, y: OtherRows) -> Pairs:
    r"""One minus the cosine similarity, in [0, 2].

    >>> cosine_distance(torch.eye(2), torch.tensor([[-2.0, 0.0]]))
    tensor([[2.],
            [1.]])
    """
    return 1 - cosine(x, y)


@full_precision
def correlation(x: Rows, y: OtherRows) -> Pairs:
    r"""Pearson correlation, the cosine of rows from which their means are subtracted; zero for constant rows.

    >>> correlation(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[5.0, 4.0, 3.0], [1.0, 1.0, 1.0]]))
    tensor([[-1.0000,  0.0000]])
    """
    return cosine(centred(x), centred(y))


@full_precision
def correlation_distance(x: Rows, y: OtherRows) -> Pairs:
    r"""One minus the Pearson correlation, in [0, 2].

    >>> correlation_distance(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[5.0, 4.0, 3.0]]))
    tensor([[2.]])
    """
    return 1 - correlation(x, y)


@full_precision
def zscored_cosine(x: Rows, y: OtherRows) -> Pairs:
    r"""One minus the z-scored cosine similarity, the cost of optimal transport graph distillation (OTGD).

    .. math:: M_{ij} = 1 - (S_{ij} - \bar S) / \sigma(S), \qquad S = \cos(x_i, y_j)

    with mean and unbiased standard deviation over all n m entries; gradients flow through both. Not a distance: it is
    negative for pairs that are more alike than usual. Its scale does not depend on how spread the similarities are, so
    an ``epsilon`` of 1 fits. Where all similarities are equal the cost is 1 everywhere.

    Source: the released code of Li, Liu, Chen, "Optimal Transport Graph Distillation" (ICONIP 2024).

    >>> zscored_cosine(torch.eye(2), torch.eye(2))
    tensor([[0.1340, 1.8660],
            [1.8660, 0.1340]])
    """
    similarity = cosine(x, y)
    centred = similarity - similarity.mean((-2, -1), keepdim=True)
    spread = torch.linalg.vector_norm(centred, dim=(-2, -1), keepdim=True)
    spread = spread / max(similarity.shape[-2] * similarity.shape[-1] - 1, 1) ** 0.5
    return 1 - _in_units(spread, centred, otherwise=0.0)


@full_precision
def relative_cosine(x: Rows, y: OtherRows) -> Pairs:
    r"""Cosine distance in units of its mean.

    .. math:: M_{ij} = (1 - S_{ij}) / (1 - \bar S), \qquad S = \cos(x_i, y_j)

    with the mean over all n m entries; gradients flow through it. Rows of one direction are at zero and the usual pair
    is at one, however crowded the similarities are, as they are in many dimensions: in units of their deviation, as in
    :func:`zscored_cosine`, a row is then far nearer to itself than to any other. Where all rows have one direction the
    cost is 1 everywhere.

    >>> relative_cosine(torch.eye(2), torch.eye(2))
    tensor([[0., 2.],
            [2., 0.]])
    """
    distance = cosine_distance(x, y)
    return _in_units(distance.mean((-2, -1), keepdim=True), distance, otherwise=1.0)


def _in_units(scale: Tensor, cosines: Tensor, otherwise: float) -> Tensor:
    """Divide by a scale; below the rounding error of a cosine it is only noise, which a division would blow up."""
    resolved = scale > 8 * torch.finfo(scale.dtype).eps
    return torch.where(resolved, cosines, otherwise) / torch.where(resolved, scale, 1.0)


@full_precision
def sqeuclidean(x: Rows, y: OtherRows) -> Pairs:
    r"""Squared Euclidean distance :math:`\|x_i - y_j\|^2`.

    Computed as one matrix product after the rows are centred, so that a common offset does not cancel digits. Equal
    rows are at distance zero, as are rows whose distance is lost in the rounding of that product. Of equally many rows,
    those that are paired, i with i, are measured by their difference, to all digits.

    >>> sqeuclidean(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
    tensor([[25.]])
    """
    paired = (x - y).square().sum(-1) if x.shape[-2] == y.shape[-2] else None
    centre = y.mean(-2, keepdim=True).detach()
    x, y = x - centre, y - centre
    squares = x.square().sum(-1).unsqueeze(-1) + y.square().sum(-1).unsqueeze(-2)
    distance = squares - 2 * (x @ y.mT)
    # Below the rounding error of the product there is no distance, only noise whose root would not be small. The
    # gradient does not suffer from it and is kept.
    noise = distance < (8 + x.shape[-1] ** 0.5) * torch.finfo(x.dtype).eps * squares
    distance = torch.where(noise, distance - distance.detach(), distance)
    if paired is None:
        return distance
    own = torch.eye(x.shape[-2], dtype=torch.bool, device=x.device)
    return torch.where(own, paired.unsqueeze(-1), distance)


@full_precision
def mean_sqeuclidean(x: Rows, y: OtherRows) -> Pairs:
    r"""Squared Euclidean distance per attribute, :math:`\|x_i - y_j\|^2 / d`, which does not grow with the width.

    >>> mean_sqeuclidean(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
    tensor([[12.5000]])
    """
    return sqeuclidean(x, y) / x.shape[-1]


@full_precision
def euclidean(x: Rows, y: OtherRows) -> Pairs:
    r"""Euclidean distance :math:`\|x_i - y_j\|`; its gradient at distance zero is zero.

    >>> euclidean(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
    tensor([[5.]])
    """
    return root(sqeuclidean(x, y))


@full_precision
def euclidean_by_differences(x: Rows, y: OtherRows) -> Pairs:
    r"""Euclidean distance :math:`\|x_i - y_j\|` to all digits, also of rows that are much nearer than they are long.

    Takes n m d operations that are no matrix product, for relations of a batch; see :func:`euclidean` for large graphs.
    Its gradient at distance zero is zero.

    >>> euclidean_by_differences(torch.tensor([[1.0]]), torch.tensor([[1.0], [1.25]]))
    tensor([[0.0000, 0.2500]])
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


@full_precision
def manhattan(x: Rows, y: OtherRows) -> Pairs:
    r"""Sum of absolute differences :math:`\|x_i - y_j\|_1`.

    >>> manhattan(torch.zeros(1, 2), torch.tensor([[3.0, -4.0]]))
    tensor([[7.]])
    """
    return torch.cdist(x, y, p=1)


@dataclass(frozen=True)
class SoftmaxKL:
    r"""Divergence of the class probabilities of student row i from those of teacher row j, at a temperature.

    .. math:: M_{ij} = T^2 \, \mathrm{KL}(\mathrm{softmax}(y_j / T) \,\|\, \mathrm{softmax}(x_i / T))

    A distance in nats (times T squared), from one matrix product: the n m c differences are never formed.

    >>> SoftmaxKL(4.0)(torch.zeros(2, 3), torch.zeros(5, 3)).shape
    torch.Size([2, 5])
    """

    temperature: Real = 1.0

    def __post_init__(self) -> None:
        checks.positive("temperature", self.temperature)

    def __call__(self, x: Rows, y: OtherRows) -> Pairs:
        """Map student and teacher logits to the matrix of divergences."""
        return full_precision(self._divergence)(x, y)

    def _divergence(self, x: Rows, y: OtherRows) -> Pairs:
        student, teacher = (x / self.temperature).log_softmax(-1), (y / self.temperature).log_softmax(-1)
        probability = teacher.exp()
        divergence = (probability * teacher).sum(-1).unsqueeze(-2) - student @ probability.mT
        # Equal rows may come out below zero by a rounding error; their gradient is right and is kept.
        divergence = divergence + (divergence.clamp_min(0) - divergence).detach()
        return self.temperature**2 * divergence


@dataclass(frozen=True)
class Anchored:
    r"""A cost with a penalty on pairs that are not the known ones, i with i.

    .. math:: M_{ij} = \mathrm{measure}(x_i, y_j) + \lambda (1 - \delta_{ij})

    For an optimised coupling of a batch, which otherwise does not know whose teacher is whose. With a large penalty the
    coupling is the identity.

    Raises:
        ValueError: For a penalty that is negative or not finite; at the call for sets of two sizes.

    >>> Anchored(sqeuclidean, 2.0)(torch.zeros(2, 1), torch.zeros(2, 1))
    tensor([[0., 2.],
            [2., 0.]])
    """

    measure: Measure
    penalty: Real

    def __post_init__(self) -> None:
        checks.not_negative("penalty", self.penalty)

    def __call__(self, x: Rows, y: OtherRows) -> Pairs:
        """The cost of every pair, penalised."""
        cost = self.measure(x, y)
        if cost.shape[-2] != cost.shape[-1]:
            raise ValueError(f"an anchored cost needs as many student as teacher nodes, got {tuple(cost.shape[-2:])}")
        return cost + self.penalty * (1 - torch.eye(cost.shape[-1], dtype=cost.dtype, device=cost.device))


class Fixed(nn.Module):
    """A cost that is given, whatever the nodes' attributes are, such as that between classes.

    A buffer: it moves and is saved with the model.

    Raises:
        ValueError: For a cost that is no finite, floating-point matrix, and at the call for other numbers of nodes.

    >>> Fixed(1 - torch.eye(2))(torch.zeros(2, 1), torch.zeros(2, 1))
    tensor([[0., 1.],
            [1., 0.]])
    """

    cost: Tensor

    def __init__(self, cost: Float[Tensor, "n m"]) -> None:
        super().__init__()
        checks.rows("cost", cost)
        if cost.dim() != 2:
            raise ValueError(f"cost needs one matrix (n, m), got shape {tuple(cost.shape)}")
        self.register_buffer("cost", cost.detach().clone())

    def forward(self, x: Rows, y: OtherRows) -> Float[Tensor, "n m"]:
        """The cost, in the precision of the nodes."""
        nodes = (x.shape[-2], y.shape[-2])
        if nodes != self.cost.shape:
            raise ValueError(f"a fixed cost of shape {tuple(self.cost.shape)} needs as many nodes, got {nodes}")
        return self.cost.to(raised(x).dtype)

    def extra_repr(self) -> str:
        """The shape."""
        return f"{tuple(self.cost.shape)}"


def is_similarity(measure: Measure) -> bool:
    """Whether nearer means larger: :func:`cosine`, :func:`inner`, :func:`correlation`; any other is read as a distance.

    But for those that say of themselves, by an attribute ``similarity``, what they are, such as the kernels.

    >>> is_similarity(cosine), is_similarity(euclidean)
    (True, False)
    """
    return measure in (cosine, inner, correlation) or getattr(measure, "similarity", False)
