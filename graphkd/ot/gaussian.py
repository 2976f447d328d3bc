"""The 2-Wasserstein distance between Gaussians that are given by samples, in closed form."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from graphkd import checks
from graphkd.ot.gradients import Gradients, once
from graphkd.ot.problem import mass, uniform
from graphkd.precision import no_autocast, raised, root
from graphkd.typing import Real

Covariance = Literal["diagonal", "full"]

RANK = 1e-6
"""Singular values below this share of the largest count as zero; what rounding leaves of them has no direction."""


class GaussianTransport(NamedTuple):
    r"""The squared 2-Wasserstein distance between two Gaussians, and the two terms that it is the sum of.

    There is no plan between samples: the transport is an affine map of the space. Each field carries its own gradient,
    so that a loss may weight the terms.

    Attributes:
        value: ``mean + covariance`` (\*b), in squared units of the samples.
        mean: :math:`\|\mu_x - \mu_y\|^2` (\*b).
        covariance: How far the covariances are apart (\*b), the squared Bures distance.
    """

    value: Float[Tensor, "*b"]
    mean: Float[Tensor, "*b"]
    covariance: Float[Tensor, "*b"]


def gaussian(
    x: Shaped[Tensor, "... p d"],
    y: Shaped[Tensor, "... q d"],
    a: Shaped[Tensor, "..."] | None = None,
    b: Shaped[Tensor, "..."] | None = None,
    *,
    covariance: Covariance = "diagonal",
    unbiased: bool = False,
    eps: Real = 0.0,
) -> GaussianTransport:
    r"""Squared 2-Wasserstein distance between the Gaussians with the samples' means and covariances.

    .. math::
        W_2^2 = \|\mu_x - \mu_y\|^2 + \mathrm{tr}\bigl(\Sigma_x + \Sigma_y
            - 2 (\Sigma_x^{1/2} \Sigma_y \Sigma_x^{1/2})^{1/2}\bigr)

    where, with masses scaled to sum to one,

    .. math:: \mu_x = \sum_i a_i x_i, \qquad \Sigma_x = \sum_i a_i (x_i - \mu_x)(x_i - \mu_x)^\top.

    With diagonal covariances the second term is :math:`\|\sigma_x - \sigma_y\|^2`, :math:`\sigma` being the channels'
    standard deviations. With full ones the trace of the last root is the nuclear norm of :math:`X Y^\top`, the rows of
    X being :math:`\sqrt{a_i} (x_i - \mu_x)`. It takes one eigen-decomposition of the size of the fewer samples, or
    where samples outnumber channels two of the size of the channels, in float64. On an accelerator these may make
    the host wait.

    Equal Gaussians are at distance zero with gradient zero. The gradient is exact where there is one, also at equal
    eigenvalues, and finite elsewhere: what does not vary at all on one side (a channel; in the full form a direction
    with a singular value of X Y^T below 1e-6 of the largest) is neither pushed nor pulled by the other side's spread.
    Masses get gradients too; in the full form zero masses count as padding, and theirs leaves out the spread that they
    would add. The full form cannot be differentiated twice.

    Args:
        x: The student's samples, such as the positions of a feature map; d channels. Leading axes are independent
            problems and broadcast with the teacher's.
        y: The teacher's samples, with as many channels. It may have another number of samples.
        a: Mass of the student's samples (p) or (\*b p); uniform by default. Zero for padding. Sums need not be equal.
        b: Mass of the teacher's samples.
        covariance: ``diagonal`` ignores how channels vary together, ``full`` does not.
        unbiased: Whether covariances are divided by :math:`1 - \sum_i a_i^2`, which makes them those of
            :math:`p - 1` for p samples of equal mass, instead of those of p. One sample has covariance zero either way.
        eps: Added to all variances under the root, :math:`\sigma = \sqrt{\mathrm{var} + \epsilon}`, with full
            covariances :math:`\Sigma + \epsilon I`. In squared units of the samples.

    Raises:
        ValueError: For options out of range, for samples or masses with wrong shapes, dtypes or devices, and on the
            CPU for values that are not finite, negative masses or masses that sum to zero. On an accelerator such
            values give NaN or an error of the decomposition.

    >>> x, y = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    >>> gaussian(x, y).value, gaussian(x, y, covariance="full").value.round(decimals=3)
    (tensor(0.), tensor(4.))

    Source: Dowson, Landau, "The Fréchet distance between multivariate normal distributions", Journal of Multivariate
    Analysis 1982. As a loss between feature maps: Lv, Yang, Li, "Wasserstein Distance Rivals Kullback-Leibler
    Divergence for Knowledge Distillation", NeurIPS 2024, arXiv:2412.08139, with diagonal covariances; the authors' code
    has ``unbiased=True, eps=1e-5``.
    """
    checks.one_of("covariance", covariance, ("diagonal", "full"))
    checks.not_negative("eps", eps)
    x, y, a, b = _prepare(x, y, a, b)
    with no_autocast(x.device):
        mean_x, centred_x, weight_x = _moments(x, a, unbiased)
        mean_y, centred_y, weight_y = _moments(y, b, unbiased)
        mean = (mean_x - mean_y).square().sum(-1)
        if covariance == "diagonal":
            gap = _deviation(centred_x, weight_x, eps) - _deviation(centred_y, weight_y, eps)
            spread = gap.square().sum(-1)
        else:
            spread = _bures(_factor(centred_x, weight_x, eps), _factor(centred_y, weight_y, eps))
    checks.in_range(mean + spread, x=x, y=y)
    return GaussianTransport(mean + spread, mean, spread)


def _prepare(x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Checked samples in one dtype, and their masses."""
    checks.rows("x", x)
    checks.rows("y", y)
    checks.same_device(x=x, y=y, a=a, b=b)
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"x and y need as many channels, got shapes {tuple(x.shape)} and {tuple(y.shape)}")
    dtype = torch.promote_types(raised(x).dtype, raised(y).dtype)
    x, y = x.to(dtype), y.to(dtype)
    a = uniform(x.shape[-2], x) if a is None else mass("a", a, x.shape[-2], x)
    b = uniform(y.shape[-2], y) if b is None else mass("b", b, y.shape[-2], y)
    shapes = x.shape[:-2], y.shape[:-2], a.shape[:-1], b.shape[:-1]
    try:
        torch.broadcast_shapes(*shapes)  # pyright: ignore # torch does not type its arguments
    except RuntimeError as error:
        raise ValueError(f"needs leading axes that broadcast, got {[tuple(shape) for shape in shapes]}") from error
    return x, y, a, b


def _moments(x: Tensor, mass: Tensor, unbiased: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The mean, the centred samples, and their weights in the covariance (*b p 1)."""
    share = (mass / mass.sum(-1, keepdim=True)).unsqueeze(-1)
    # Seen from a value that occurs, what does not vary is exactly zero, where a mean would leave rounding errors.
    origin = torch.where(share > 0, x.detach(), -torch.inf).amax(-2, keepdim=True)
    shifted = x - origin
    shift = (share * shifted).sum(-2, keepdim=True)
    weight = share
    if unbiased:
        left = (share * (1 - share)).sum(-2, keepdim=True)
        weight = share / torch.where(left == 0, 1.0, left)
    return (origin + shift).squeeze(-2), shifted - shift, weight


def _deviation(centred: Tensor, weight: Tensor, eps: Real) -> Float[Tensor, "*b d"]:
    return root((weight * centred.square()).sum(-2) + eps)


def _factor(centred: Tensor, weight: Tensor, eps: Real) -> Float[Tensor, "*b r d"]:
    """Rows X with X^T X the covariance."""
    rows = root(weight) * centred
    if eps == 0:
        return rows
    d = rows.shape[-1]
    floor = eps**0.5 * torch.eye(d, dtype=rows.dtype, device=rows.device)
    return torch.cat([rows, floor.expand(*rows.shape[:-2], d, d)], -2)


def _bures(x: Tensor, y: Tensor) -> Tensor:
    """The squared Bures distance between X^T X and Y^T Y."""
    if x.shape[-2] > y.shape[-2]:
        x, y = y, x
    rows, channels = x.shape[-2:]
    # Decompositions dominate: one of the size of the rows, or two of the size of the channels.
    if rows**3 > 2 * channels**3:
        x = _apply(_Thin, x)
    return _apply(_Bures, x, y)


class _Thin(torch.autograd.Function):
    """Another X with the same X^T X and no more rows than channels, for what depends on X^T X only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: D102
        wide = x.double()
        root, inverse, axes = _roots(wide.mT @ wide)
        ctx.save_for_backward(x, axes * inverse.unsqueeze(-2))
        return (root.unsqueeze(-1) * axes.mT).to(x)

    @staticmethod
    @once
    def backward(ctx: Any, grad_thin: Tensor) -> Gradients:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        x, axes = ctx.saved_tensors
        return ((x.double() @ (axes @ grad_thin.double())).to(x),)


class _Bures(torch.autograd.Function):
    r"""The least distance over rotations of the rows, :math:`\min_W \|X - W Y\|^2 + \|Y - W^\top W Y\|^2`.

    W runs over partial isometries; the best is the polar factor of X Y^T. At the minimum W counts as constant, so that
    the gradients are 2 (X - W Y) and 2 (Y - W^T X): nothing is divided by a difference of eigenvalues.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:  # noqa: D102
        cross = x.double() @ y.double().mT
        _, inverse, axes = _roots(cross @ cross.mT)
        turn = (axes * inverse.unsqueeze(-2)) @ (axes.mT @ cross)
        # Small singular values lost digits when they were squared: a Newton step makes W W^T W = W exact again.
        turn = (1.5 * turn - 0.5 * (turn @ turn.mT) @ turn).to(x)
        matched = turn @ y
        gap = x - matched
        wanted = ctx.needs_input_grad
        ctx.save_for_backward(gap if wanted[0] else None, y - turn.mT @ x if wanted[1] else None)
        ctx.shapes = x.shape, y.shape
        # A sum of squares: close Gaussians do not cancel to noise, and the value is never negative.
        return gap.square().sum((-2, -1)) + (y - turn.mT @ matched).square().sum((-2, -1))

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        # Once_differentiable would go by grad_value alone and call the rest a constant.
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise ValueError("the full form can be differentiated once, got create_graph=True")
        scale = 2 * grad_value[..., None, None]
        pairs = zip(ctx.saved_tensors, ctx.shapes, strict=True)
        return tuple(None if gap is None else (scale * gap).sum_to_size(shape) for gap, shape in pairs)


def _roots(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values, their inverses (zero beyond the numerical rank) and axes, from a Gram matrix."""
    # Half as costly as a singular value decomposition; float64 has the digits that squaring takes.
    squares, axes = _eigh(gram)
    keep = squares > RANK**2 * squares[..., -1:]
    return squares.clamp(min=0).sqrt(), torch.where(keep, squares, torch.inf).rsqrt(), axes


# Torch does not type these two.
_eigh: Callable[[Tensor], tuple[Tensor, Tensor]] = torch.linalg.eigh  # pyright: ignore


def _apply(function: type[torch.autograd.Function], *tensors: Tensor) -> Tensor:
    return function.apply(*tensors)  # pyright: ignore
