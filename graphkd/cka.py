"""Relations of classes, each a set of samples (c m d): centred kernel alignment (CKA), and a distance made of it.

For one vector per class, such as a centroid or a row of a classifier, :func:`~graphkd.measures.cosine` is the relation.
All look at values on any device, since they run once per teacher and not once per step.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from graphkd import checks
from graphkd.measures import sqeuclidean
from graphkd.precision import no_autocast, raised
from graphkd.typing import Real

Grouped = Float[Tensor, "c m d"]
Related = Float[Tensor, "c c"]

CHUNK = 2**24
"""Entries of the largest tensor that CKA forms beside the features, where one row of each class allows it."""


def linear_cka(x: Grouped) -> Related:
    r"""Linear centred kernel alignment (CKA) of every two classes, in [0, 1], one on the diagonal.

    .. math:: S_{ij} = \frac{\|X_j^\top X_i\|_F^2}{\|X_i^\top X_i\|_F \, \|X_j^\top X_j\|_F}
        = \frac{\langle X_i X_i^\top, X_j X_j^\top \rangle}{\|X_i X_i^\top\|_F \, \|X_j X_j^\top\|_F}

    with each class centred over its samples. Sample k of one class is paired with sample k of the other, so their order
    matters, although nothing but chance pairs samples of two classes. Shifts, rotations and scaling of a class change
    nothing. With few samples the value is large whatever the features: one for any two classes whose samples are
    orthogonal and of equal length, as they nearly are where d is much larger than m.

    The left form is computed where it takes fewer multiplications, (d d) per pair of classes, else the right one,
    (m m) per class, both in chunks. Memory is about three times that of x; more where x requires a gradient.

    Source: Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited" (ICML 2019),
    arXiv:1905.00414; of classes, Lv, Yang, Li, "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge
    Distillation" (NeurIPS 2024), arXiv:2412.08139.

    Args:
        x: Features grouped by class, m samples of each, at least three: with two, every CKA is one.

    Raises:
        ValueError: For fewer than three samples, features that are not finite, and a class whose features do not vary,
            beyond rounding, over its samples: its CKA would be 0/0.

    >>> x = torch.tensor([[0.0, 1.0, 2.0], [0.0, 2.0, 4.0], [0.0, 2.0, 0.0]]).unsqueeze(-1)
    >>> linear_cka(x)
    tensor([[1., 1., 0.],
            [1., 1., 0.],
            [0., 0., 1.]])
    """
    with no_autocast(x.device):
        x = _centred(x)
        c, m, d = x.shape
        if (c + 1) * d * d < 2 * m * (c + d):
            return _aligned(_products_of_features(x))
        return _aligned(_products_of_kernels(c, m, lambda rows: x[:, rows] @ x.mT))


def rbf_cka(x: Grouped, sigma: Real = 0.8) -> Related:
    r"""Centred kernel alignment (CKA) of every two classes with a Gaussian kernel, in [0, 1], one on the diagonal.

    .. math:: S_{ij} = \frac{\langle H K_i H, H K_j H \rangle}{\|H K_i H\|_F \, \|H K_j H\|_F}, \qquad
        K_i[k, l] = \exp\Bigl(-\frac{\|x_{ik} - x_{il}\|^2}{2 \sigma^2 \mu_i}\Bigr)

    where H centres rows and columns, and :math:`\mu_i` is the median of class i's squared distances: of all m m of them
    with the m zeros of samples to themselves, the lower one of two middle values, as in the released code of Lv et al.
    Samples are paired as in :func:`linear_cka`, which is the limit of a large sigma. With a small one every K becomes
    the identity and every CKA one. The median takes a tensor of m m entries, of one class at a time.

    Source: as :func:`linear_cka`. The released code has no default for sigma; 0.8 is the largest of Kornblith et al.

    Args:
        x: Features grouped by class, m samples of each, at least three.
        sigma: The kernel's width, as a share of the median distance.

    Raises:
        ValueError: As :func:`linear_cka`; for a sigma that is not above zero; for a class of which most samples are
            equal, so that the median distance is zero; and for a sigma so large that all kernels are flat.

    >>> x = torch.tensor([[0.0, 1.0, 2.0], [0.0, 2.0, 4.0], [0.0, 2.0, 0.0]]).unsqueeze(-1)
    >>> rbf_cka(x[:2])
    tensor([[1., 1.],
            [1., 1.]])
    """
    checks.positive("sigma", sigma)
    with no_autocast(x.device):
        x = _centred(x)
        c, m, _ = x.shape
        median = torch.stack([sqeuclidean(each, each).flatten().median() for each in x]).reshape(c, 1, 1)
        _need(median > 0, "needs a median distance above 0 for the width of its kernel, got 0: most samples are equal")
        width = 2 * sigma**2 * median

        def kernel(rows: slice) -> Float[Tensor, "c k m"]:
            # Less one, which centring takes away: a wide kernel would lose its digits next to the one.
            return torch.expm1(-sqeuclidean(x[:, rows], x) / width)

        mean = torch.cat([kernel(rows).mean(-1) for rows in _row_chunks(c, m)], dim=1)
        total = mean.mean(-1).reshape(c, 1, 1)

        def centred(rows: slice) -> Float[Tensor, "c k m"]:
            return kernel(rows) - mean[:, rows].unsqueeze(-1) - mean.unsqueeze(-2) + total

        return _aligned(_products_of_kernels(c, m, centred))


def class_distance(similarity: Related, sharpen: Real = 0.0) -> Related:
    r"""One minus the similarity of classes, sharpened if asked; the diagonal is exactly zero, the result symmetric.

    .. math:: D_{ij} = 1 - S_{ij}, \qquad D_{ij} = 1 - \exp(-\kappa (1 - S_{ij})) \text{ where } \kappa > 0

    Sharpening lifts small distances and bounds all by one. The two halves of the similarity may differ by rounding, and
    are averaged; similarities above one by rounding count as one.

    Source: Lv, Yang, Li (NeurIPS 2024), arXiv:2412.08139, where kappa is 1 or 2.

    Args:
        similarity: Of classes, at most one: CKA or cosine.
        sharpen: Kappa; zero leaves the distance as it is.

    Raises:
        ValueError: For a negative kappa, and for similarities that are not finite, not symmetric or above one.

    >>> class_distance(torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    tensor([[0.0000, 0.5000],
            [0.5000, 0.0000]])
    """
    checks.not_negative("sharpen", sharpen)
    similarity = raised(similarity)
    if not bool(torch.isfinite(similarity).all()):
        raise ValueError("the similarity of classes needs finite values, got NaN or infinite ones")
    rounding = 64 * torch.finfo(similarity.dtype).eps
    uneven, largest = float((similarity - similarity.T).detach().abs().max()), float(similarity.detach().max())
    if uneven > rounding:
        raise ValueError(f"the similarity of classes needs to be symmetric, got halves that differ by {uneven:.3g}")
    if largest > 1 + rounding:
        raise ValueError(f"the similarity of classes needs values of at most 1, got {largest:.6g}")
    distance = (1 - (similarity + similarity.T) / 2).clamp_min(0)
    if sharpen > 0:
        distance = -torch.expm1(-sharpen * distance)
    own = torch.eye(distance.shape[0], dtype=torch.bool, device=distance.device)
    return distance.masked_fill(own, 0.0)


def _need(claims: Tensor, words: str) -> None:
    """Raise with the classes of which the claim is false."""
    if not bool(claims.all()):
        bad = (~claims).flatten().nonzero().flatten().tolist()
        named = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
        raise ValueError(f"each class {words}; so in {len(bad)} of {claims.numel()}: {named}")


def _centred(x: Grouped) -> Grouped:
    """Each class less its mean, divided by its largest entry, so that no product leaves the range of the dtype."""
    checks.rows("features grouped by class", x)
    if x.shape[1] < 3:
        raise ValueError(f"needs at least 3 samples per class, got {x.shape[1]} (shape {tuple(x.shape)})")
    x = raised(x)
    largest = torch.linalg.vector_norm(x, ord=torch.inf, dim=(1, 2))
    _need(torch.isfinite(largest), "needs finite features, got NaN or infinite ones")
    # Less the first sample first: equal samples then come out as zeros, and not as the rounding of their mean.
    x = x - x[:, :1]
    x = x - x.mean(1, keepdim=True)
    size = torch.linalg.vector_norm(x, ord=torch.inf, dim=(1, 2))
    noise = 8 * torch.finfo(x.dtype).eps * largest
    _need(size > noise, "needs features that vary over its samples, got constant ones")
    return x / size.reshape(-1, 1, 1)


def _products_of_features(x: Grouped) -> Related:
    """Squared Frobenius norms of the (d d) products of every two classes, one pair once."""
    c, _, d = x.shape
    step = max(1, CHUNK // (d * d))
    rows = []
    for i in range(c):
        own = x[i].T
        later = [torch.bmm(own.expand(len(x[j]), -1, -1), x[j]) for j in _slices(i, c, step)]
        rows.append(torch.cat([x.new_zeros(i), *(each.square().sum((1, 2)) for each in later)]))
    upper = torch.stack(rows)
    return upper + upper.T.tril(-1)


def _products_of_kernels(c: int, m: int, kernel: Callable[[slice], Tensor]) -> Related:
    """Inner products of the (m m) kernels of every two classes, a few rows of all at a time."""
    products = torch.zeros(())
    for rows in _row_chunks(c, m):
        flat = kernel(rows).flatten(1)
        products = products.to(flat) + flat @ flat.T
    return products


def _row_chunks(c: int, m: int) -> Iterator[slice]:
    return _slices(0, m, max(1, CHUNK // (c * m)))


def _slices(start: int, end: int, step: int) -> Iterator[slice]:
    return (slice(i, min(i + step, end)) for i in range(start, end, step))


def _aligned(products: Related) -> Related:
    """Products over the norms of both; what rounding took out of [0, 1] is put back."""
    norm = products.diagonal().sqrt()
    _need(norm > 0, "needs a kernel that varies over its samples, got a flat one")
    aligned = products / (norm.unsqueeze(1) * norm.unsqueeze(0))
    own = torch.eye(norm.numel(), dtype=torch.bool, device=norm.device)
    return ((aligned + aligned.T) / 2).clamp(0, 1).masked_fill(own, 1.0)
