"""What a plan does: who keeps to its own pair, who to its class, and how widely the mass is spread.

A share of no mass is NaN: a plan without any, or without any between nodes of known class. One problem of a batch is
then NaN and the others are not.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from graphkd import checks
from graphkd.precision import raised
from graphkd.typing import UNLABELLED

Plan = Shaped[Tensor, "*b n m"]
Classes = Shaped[Tensor, "..."]


@torch.no_grad()
def diagonal_mass(plan: Plan) -> Float[Tensor, "*b"]:
    r"""Share of the mass that lies on the true pairs, i with i; one for the identity coupling, 1/n for an even plan.

    .. math:: \sum_i P_{ii} \Big/ \sum_{ij} P_{ij}

    Args:
        plan: P (\*b n n).

    Raises:
        ValueError: For as many students as there are not teachers, and for what is no dense plan of finite masses.

    >>> diagonal_mass(torch.tensor([[3.0, 1.0], [0.0, 4.0]]))
    tensor(0.8750)
    """
    plan = _masses(plan)
    n, m = plan.shape[-2:]
    if n != m:
        raise ValueError(f"true pairs need as many students as teachers, got n={n} and m={m}")
    return plan.diagonal(dim1=-2, dim2=-1).sum(-1) / plan.sum((-2, -1))


@torch.no_grad()
def class_purity(plan: Plan, labels: Classes, teacher_labels: Classes | None = None) -> Float[Tensor, "*b"]:
    r"""Share of the mass between nodes of known class that stays within its class.

    .. math:: \sum_{ij} P_{ij} [y_i = z_j \ne -100] \Big/ \sum_{ij} P_{ij} [y_i \ne -100] [z_j \ne -100]

    NaN where no mass runs between nodes of known class.

    Args:
        plan: P (\*b n m).
        labels: Class y of each student node (n), the same for all problems; -100 where it is not known.
        teacher_labels: Class z of each teacher node (m), by default ``labels``; needed where m is not n.

    Raises:
        ValueError: For labels that are not one integer per node or, on the CPU, negative and not -100; for unequal n
            and m without ``teacher_labels``; and for what is no dense plan of finite masses.

    >>> class_purity(torch.tensor([[2.0, 1.0, 9.0], [0.0, 1.0, 9.0]]), torch.tensor([0, 1]), torch.tensor([0, 1, -100]))
    tensor(0.7500)
    """
    plan = _masses(plan)
    n, m = plan.shape[-2:]
    if teacher_labels is None and n != m:
        raise ValueError(f"needs teacher_labels where the numbers of nodes differ, got only labels, n={n} and m={m}")
    student = _classes("labels", labels, n).unsqueeze(-1)
    teacher = _classes("teacher_labels", labels if teacher_labels is None else teacher_labels, m)
    known = (student != UNLABELLED) & (teacher != UNLABELLED)
    within = known & (student == teacher)
    return (plan * within).sum((-2, -1)) / (plan * known).sum((-2, -1))


@torch.no_grad()
def plan_entropy(plan: Plan) -> Float[Tensor, "*b"]:
    r"""Entropy of a plan over its sum, in nats.

    .. math:: -\sum_{ij} p_{ij} \log p_{ij}, \qquad p = P \Big/ \sum_{ij} P_{ij}, \qquad 0 \log 0 = 0

    Zero where all mass is in one entry, log n for a permutation of n nodes of equal mass, log(n m) for an even plan.
    The coupling that knows nothing, :math:`a b^\top`, has the sum of the entropies of a and b, the largest there is.

    Args:
        plan: P (\*b n m).

    Raises:
        ValueError: For what is no dense plan of finite masses.

    >>> plan_entropy(torch.eye(4)).exp(), plan_entropy(torch.ones(4, 4)).exp()
    (tensor(4.), tensor(16.))
    """
    plan = _masses(plan)
    return torch.special.entr(plan / plan.sum((-2, -1), keepdim=True)).sum((-2, -1))


@torch.no_grad()
def effective_partners(plan: Plan) -> Float[Tensor, "*b n"]:
    r"""How many teachers each student is matched with: the exponential of its row's entropy.

    .. math:: \exp\Bigl(-\sum_j q_{ij} \log q_{ij}\Bigr), \qquad q_{ij} = P_{ij} \Big/ \sum_l P_{il}

    One for a single partner, m for m equal ones, zero for a row without mass. Of a teacher's students: ``plan.mT``.

    Args:
        plan: P (\*b n m).

    Raises:
        ValueError: For what is no dense plan of finite masses.

    >>> effective_partners(torch.tensor([[0.0, 1.0], [2.0, 2.0], [0.0, 0.0]]))
    tensor([1., 2., 0.])
    """
    plan = _masses(plan)
    total = plan.sum(-1, keepdim=True)
    number = torch.special.entr(plan / total).sum(-1).exp()
    return number.masked_fill(total.squeeze(-1) == 0, 0.0)


def _masses(plan: Tensor) -> Tensor:
    """A plan in float32 at least, once it is known to be one."""
    checks.tensor(plan=plan)
    checks.floating("plan", plan)
    if plan.layout != torch.strided:
        raise ValueError(f"needs a dense plan, got layout {plan.layout}: plan.to_dense() makes it one")
    if plan.dim() < 2 or 0 in plan.shape:
        raise ValueError(f"needs a plan of shape (*b, n, m), got shape {tuple(plan.shape)}")
    checks.finite("plan", plan)
    if checks.can_look(plan) and bool((plan < 0).any()):
        raise ValueError(f"a plan needs masses of at least 0, got {float(plan.min()):.3g}")
    return raised(plan)


def _classes(name: str, labels: Tensor, n: int) -> Tensor:
    """Classes (n), once they are known to be some."""
    checks.tensor(**{name: labels})
    if labels.shape != (n,) or labels.is_floating_point() or labels.dtype == torch.bool:
        came = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise ValueError(f"{name} needs one integer per node, shape ({n},), got {came}")
    if checks.can_look(labels):
        wrong = labels[(labels < 0) & (labels != UNLABELLED)]
        if len(wrong):
            raise ValueError(f"{name} needs classes from 0 on, or {UNLABELLED} for none, got {int(wrong[0])}")
    # In an unsigned type, -100 would be read as 156.
    return labels.long()
