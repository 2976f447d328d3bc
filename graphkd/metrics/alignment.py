"""How alike two networks represent the same samples: centred kernel alignment (CKA), and the correlations of logits.

:mod:`graphkd.cka` has the CKA of classes within one network; here are two representations, which may differ in width.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from graphkd import checks
from graphkd.measures import unit
from graphkd.precision import no_autocast, raised
from graphkd.typing import Features

Samples = Shaped[Tensor, "..."]
"""What each of n samples has (n ...)."""

CHUNK = 2**24
"""Entries of the kernels' rows that are formed at a time, where one row of each allows it."""


@torch.no_grad()
def cka(x: Samples, y: Samples, debiased: bool = False) -> Float[Tensor, ""]:
    r"""Linear centred kernel alignment (CKA) of two representations of the same samples.

    .. math:: \frac{\langle \tilde K, \tilde L \rangle}{\|\tilde K\|_F \, \|\tilde L\|_F}, \qquad
        K = X X^\top, \quad L = Y Y^\top

    Plain, in [0, 1], the tilde centres rows and columns. Debiased, in [-1, 1], the inner products are the unbiased
    estimators of the Hilbert-Schmidt independence criterion (HSIC): K without its diagonal, and

    .. math:: \tilde K_{ij} = K_{ij} - \frac{\sum_l K_{il} + \sum_l K_{lj}}{n - 2}
        + \frac{\sum_{kl} K_{kl}}{(n - 1)(n - 2)}, \qquad \tilde K_{ii} = 0

    Shifts, rotations and scaling of either side change nothing. With few samples, n much smaller than the width, the
    plain CKA is near one whatever the features are. The debiased one is near zero for unrelated ones, often below it.

    The plain one multiplies features, (d d), where that is cheaper; else kernels (n n) are, a few rows at a time.

    Source: Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited" (ICML 2019),
    arXiv:1905.00414; debiased, Nguyen, Raghu, Kornblith, "Do Wide and Deep Networks Learn the Same Things?" (ICLR
    2021), arXiv:2010.15327, after Song et al., "Feature Selection via Dependence Maximization" (JMLR 2012). They
    average the three products over batches before they divide; this is the value of one batch.

    Args:
        x: Of one network (n ...); what one sample has is flattened.
        y: Of the other (n ...).
        debiased: Whether to estimate without bias.

    Raises:
        ValueError: For fewer than three samples, debiased four; for features that are empty or not floating-point. On
            the CPU also for features that are not finite, and where CKA would be 0/0: for features that do not vary
            over the samples beyond rounding and, debiased, for kernels that are flat without their diagonal, as those
            of samples that are all equally far apart, or all but one alike. On an accelerator these give NaN.

    >>> x = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
    >>> cka(x, 3 * x.flip(1) + 1), cka(x, x.square()) < 0.2
    (tensor(1.), tensor(True))
    """
    return _aligned([("x", x), ("y", y)], debiased, strict=True)[0, 1]


@torch.no_grad()
def layer_cka(student: Features, teacher: Features, debiased: bool = True) -> Float[Tensor, "s t"]:
    """CKA (:func:`cka`) of every feature of the student with every one of the teacher, in the order of the mappings.

    Takes about as much memory again as the features do. A feature whose CKA would be 0/0, such as that of a dead layer,
    has NaN with all others.

    Args:
        student: Features by name (n ...), for example those of :class:`~graphkd.features.FeatureExtractor`.
        teacher: Features by name, of the same samples.
        debiased: Whether to estimate without bias; batches are small, so by default yes.

    Raises:
        ValueError: As :func:`cka`, but for what gives NaN; with the feature's name, and for a mapping without features.

    >>> x = torch.randn(8, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> layer_cka({"map": x, "feat": x.mean((2, 3))}, {"map": 2 * x}).shape
    torch.Size([2, 1])
    """
    if not student or not teacher:
        raise ValueError(f"needs at least one feature of each, got {len(student)} and {len(teacher)}")
    named = [(f"student's {name!r}", x) for name, x in student.items()]
    named += [(f"teacher's {name!r}", x) for name, x in teacher.items()]
    return _aligned(named, debiased, strict=False)[: len(student), len(student) :]


@torch.no_grad()
def correlation_gap(student_logits: Samples, teacher_logits: Samples) -> Float[Tensor, "c c"]:
    r"""How far the correlations between classes, of logits over samples, are from the teacher's; in [0, 2].

    .. math:: |\mathrm{corr}(z^s) - \mathrm{corr}(z^t)|, \qquad \mathrm{corr}(z)_{kl} = \mathrm{corr}_i(z_{ik}, z_{il})

    A logit that does not vary over the samples has correlation zero with every other one, and one, as all, with itself:
    the diagonal is zero.

    Source: the figure of Tian, Krishnan, Isola, "Contrastive Representation Distillation" (ICLR 2020),
    arXiv:1910.10699.

    Args:
        student_logits: (n c).
        teacher_logits: (n c).

    Raises:
        ValueError: For unequal shapes, fewer than three samples (any two correlate fully), and logits that are not
            finite or not floating-point.

    >>> student, teacher = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]), torch.eye(3)[:, :2]
    >>> correlation_gap(student, teacher)
    tensor([[0.0000, 1.5000],
            [1.5000, 0.0000]])
    """
    checks.rows("student_logits", student_logits)
    checks.rows("teacher_logits", teacher_logits)
    shapes = tuple(student_logits.shape), tuple(teacher_logits.shape)
    if student_logits.dim() != 2 or shapes[0] != shapes[1] or shapes[0][0] < 3:
        raise ValueError(f"needs logits of one shape (n, c) with n of at least 3, got {shapes[0]} and {shapes[1]}")
    with no_autocast(student_logits.device):
        gap = (_correlation(student_logits) - _correlation(teacher_logits)).abs()
    return gap.fill_diagonal_(0.0)


def _correlation(x: Tensor) -> Tensor:
    """Correlations (c c) of the columns; zero for those that do not vary."""
    columns = unit(_deviations(raised(x), 0)[0].mT)
    return columns @ columns.mT


def _deviations(x: Tensor, dim: int | tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Rows less their mean, over the largest entry along dim, and whether they vary; zeros where they do not."""
    largest = torch.linalg.vector_norm(x, ord=torch.inf, dim=dim, keepdim=True)
    # Less the first sample first: equal samples then come out as zeros, and not as the rounding of their mean.
    x = x - x[:1]
    x = x - x.mean(0)
    size = torch.linalg.vector_norm(x, ord=torch.inf, dim=dim, keepdim=True)
    varies = size > 8 * torch.finfo(x.dtype).eps * largest
    return torch.where(varies, x / size.masked_fill(~varies, 1.0), 0.0), varies


def _aligned(named: Sequence[tuple[str, Tensor]], debiased: bool, strict: bool) -> Tensor:
    """CKA (c c) of every two of c representations; strict, 0/0 raises on the CPU, else it is NaN."""
    least = 4 if debiased else 3
    for name, x in named:
        checks.rows(name, x)
        if len(x) < least:
            raise ValueError(f"{name} needs at least {least} samples, got {len(x)} (shape {tuple(x.shape)})")
    if len({len(x) for _, x in named}) > 1:
        came = ", ".join(f"{len(x)} of {name}" for name, x in named)
        raise ValueError(f"needs features of the same samples, got {came}")
    names, n = [name for name, _ in named], len(named[0][1])
    dtype = reduce(torch.promote_types, (raised(x).dtype for _, x in named))
    with no_autocast(named[0][1].device):
        deviations = [_deviations(x.to(dtype).flatten(1), (0, 1)) for _, x in named]
        varies = torch.stack([varying.reshape(()) for _, varying in deviations])
        if strict:
            _need(names, varies, "features that vary over the samples, got constant ones")
        centred = [x for x, _ in deviations]
        products = _products(centred, debiased)
        norm = products.diagonal().sqrt()
        noise = 8 * n**0.5 * torch.finfo(dtype).eps * torch.stack([_lengths(x).norm() for x in centred])
        varies = norm > noise
        if strict:
            _need(
                names, varies, "samples not all alike but one, nor all equally far apart, for a debiased CKA, got such"
            )
        norm = norm.masked_fill(~varies, torch.nan)
        return (products / (norm.unsqueeze(1) * norm)).clamp(-1.0 if debiased else 0.0, 1.0)


def _products(centred: list[Tensor], debiased: bool) -> Tensor:
    """Inner products (c c) of the kernels (n n) of c centred representations (n d), by their features if cheaper."""
    n, widths = len(centred[0]), [x.shape[1] for x in centred]
    pairs = [(i, j) for i in range(len(widths)) for j in range(i + 1)]
    products = centred[0].new_zeros(len(widths), len(widths))
    if not debiased and sum(widths[i] * widths[j] for i, j in pairs) < n * (sum(widths) + len(pairs)):
        for i, j in pairs:
            products[i, j] = products[j, i] = (centred[i].mT @ centred[j]).square().sum()
        return products
    for start in range(0, n, step := max(1, CHUNK // (n * len(centred)))):
        at = torch.arange(start, min(start + step, n), device=products.device)
        kernels = torch.stack([_kernel(x, at, debiased) for x in centred], dim=1)
        # Row by row, then summed: one product of all n n entries would lose half of float32's digits.
        products += (kernels @ kernels.mT).sum(0)
    return products


def _kernel(x: Tensor, at: Tensor, debiased: bool) -> Tensor:
    """Some rows of the centred kernel (n n) of centred features."""
    kernel = x[at] @ x.mT
    if not debiased:
        return kernel
    n, lengths = len(x), _lengths(x)
    # The rows of the whole kernel sum to zero, so those without the diagonal to the negative of it.
    kernel = kernel + (lengths[at].unsqueeze(1) + lengths) / (n - 2) - lengths.sum() / ((n - 1) * (n - 2))
    return kernel.masked_fill(at.unsqueeze(1) == torch.arange(n, device=x.device), 0.0)


def _lengths(x: Tensor) -> Tensor:
    """Squared lengths (n) of the rows."""
    return torch.linalg.vector_norm(x, dim=1).square()


def _need(names: list[str], claims: Tensor, words: str) -> None:
    """Raise, on the CPU, with the names of which the claim is false."""
    if checks.can_look(claims) and not bool(claims.all()):
        bad = [name for name, claim in zip(names, claims.tolist(), strict=True) if not claim]
        raise ValueError(f"needs {words}; so in {', '.join(bad)}")
