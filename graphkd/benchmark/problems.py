"""The problems that solvers are compared on, and how well they were solved, in float64."""

from typing import Literal

import torch
from torch import Tensor

Family = Literal["matched", "noisy", "independent", "adjacency"]
FAMILIES: tuple[Family, ...] = ("matched", "noisy", "independent", "adjacency")
"""Pairs of graphs: the same samples in another order and hardly moved; the same moved by half a deviation; other
samples; binary graphs of the four nearest neighbours of samples moved by a deviation."""

NEIGHBOURS = 4
NOISE = {"matched": 0.1, "noisy": 0.5, "adjacency": 1.0}


def linear_problem(
    n: int, batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float32, seed: int = 0, dim: int = 16
) -> tuple[Tensor, Tensor, Tensor]:
    """Squared distances of Gaussian samples, scaled to a largest of one, and two masses that are not uniform.

    >>> [tuple(x.shape) for x in linear_problem(4, (2,))]
    [(2, 4, 4), (2, 4), (2, 4)]
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(*batch, n, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    cost = torch.cdist(x, y).square()
    a, b = (
        (torch.randn(*batch, n, generator=generator, dtype=torch.float64) / 2).softmax(-1).to(dtype) for _ in range(2)
    )
    return (cost / cost.amax((-2, -1), keepdim=True)).to(dtype), a, b


def spread(cost: Tensor) -> float:
    """The cost's range."""
    return float(cost.max() - cost.min())


def entropic_objective(plan: Tensor, cost: Tensor, a: Tensor, b: Tensor, epsilon: float) -> float:
    """What entropic transport minimises, <P, M> + epsilon KL(P | a b), summed over the batch.

    >>> entropic_objective(torch.eye(2) / 2, torch.zeros(2, 2), torch.ones(2) / 2, torch.ones(2) / 2, 1.0) > 0.69
    True
    """
    plan, cost, a, b = (x.double() for x in (plan, cost, a, b))
    reference = a.unsqueeze(-1) * b.unsqueeze(-2)
    kl = torch.special.xlogy(plan, plan / reference).sum() - plan.sum() + reference.sum()
    return float((plan * cost).sum() + epsilon * kl)


def entropic_optimum(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tol: float = 1e-11) -> float:
    """The least of :func:`entropic_objective`, summed over the batch, by plain sweeps on logarithms in float64.

    >>> cost, a, b = linear_problem(4)
    >>> abs(entropic_optimum(cost, a, b, 1e3) - float(a @ cost @ b)) < 1e-4
    True
    """
    cost, a, b = (x.double() for x in (cost, a, b))
    # Where sums differ by what float32 lost, potentials would move on for ever.
    a, b = (x / x.sum(-1, keepdim=True) for x in (a, b))
    kernel, log_a, log_b = -cost / epsilon, a.log(), b.log()
    v = torch.zeros_like(b)
    for _ in range(10_000):
        u = -(kernel + (log_b + v).unsqueeze(-2)).logsumexp(-1)
        before, v = v, -(kernel + (log_a + u).unsqueeze(-1)).logsumexp(-2)
        if float((v - before).abs().max()) < tol:
            break
    # The last sweep met b, so that all that is lacking is the mass of the dual's exponential, which is then one.
    return float(epsilon * ((u * a).sum() + (v * b).sum()))


def gromov_problem(
    family: Family, n: int, batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cost, the student's relation, the teacher's, and uniform masses, of two graphs of one family.

    >>> [tuple(x.shape) for x in gromov_problem("adjacency", 6)]
    [(6, 6), (6, 6), (6, 6), (6,), (6,)]
    """
    generator = torch.Generator().manual_seed(seed)
    teacher, noise = (torch.randn(*batch, n, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    student = noise if family == "independent" else teacher + NOISE[family] * noise
    if family == "matched":
        student = student[..., torch.randperm(n, generator=generator), :]
    relate = _adjacency if family == "adjacency" else _distances
    cost = _scaled(torch.cdist(student, teacher).square())
    mass = torch.full((*batch, n), 1 / n, dtype=dtype)
    return cost.to(dtype), relate(student).to(dtype), relate(teacher).to(dtype), mass, mass.clone()


def fused_objective(plan: Tensor, cost: Tensor, student: Tensor, teacher: Tensor, alpha: float) -> float:
    """What fused Gromov-Wasserstein minimises, with squared differences, summed over the batch.

    >>> cost, student, teacher, _, _ = gromov_problem("noisy", 5)
    >>> fused_objective(torch.eye(5) / 5, cost, student, student, 1.0) < 1e-9
    True
    """
    plan, cost, student, teacher = (x.double() for x in (plan, cost, student, teacher))
    p, q = plan.sum(-1, keepdim=True), plan.sum(-2).unsqueeze(-1)
    own = (p.mT @ student.square() @ p).sum() + (q.mT @ teacher.square() @ q).sum()
    crossed = (student @ plan @ teacher.mT * plan).sum()
    return float((1 - alpha) * (plan * cost).sum() + alpha * (own - 2 * crossed))


def class_problem(samples: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What distillation between class probabilities compares: a class cost, both networks' logits, labels.

    >>> [tuple(x.shape) for x in class_problem(3, 5)]
    [(5, 5), (3, 5), (3, 5), (3,)]
    """
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.nn.functional.normalize(torch.randn(classes, 64, generator=generator), dim=-1)
    cost = (1 - prototypes @ prototypes.T).clamp_min(0).fill_diagonal_(0)
    student, teacher = (torch.randn(samples, classes, generator=generator) for _ in range(2))
    return cost, student, teacher, torch.randint(classes, (samples,), generator=generator)


def _distances(x: Tensor) -> Tensor:
    return _scaled(torch.cdist(x, x))


def _adjacency(x: Tensor) -> Tensor:
    """Two nodes are joined where one is among the nearest of the other."""
    distances = torch.cdist(x, x)
    distances.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
    nearest = distances.topk(min(NEIGHBOURS, x.shape[-2] - 1), largest=False).indices
    joined = torch.zeros_like(distances).scatter_(-1, nearest, 1.0)
    return joined.maximum(joined.mT)


def _scaled(x: Tensor) -> Tensor:
    return x / x.amax((-2, -1), keepdim=True)
