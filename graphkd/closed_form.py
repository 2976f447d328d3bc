"""Couplings in closed form: who is matched with whom, without a solver. Frozen, as in :mod:`graphkd.couplings`."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from graphkd import checks
from graphkd.ot.problem import marginal_error
from graphkd.typing import Real, Relations, Transport


@dataclass(frozen=True)
class Identity:
    r"""Node i with node i: the pairing that a batch comes with, :math:`P = \mathrm{diag}(a)`.

    The teacher may have further nodes behind, such as remembered ones, if they have no mass.

    >>> Identity()(None, None, torch.ones(2) / 2, torch.ones(2) / 2).plan
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])
    """

    differentiates_plan = False

    def __call__(self, cost: Tensor | None, relations: Relations | None, a: Tensor, b: Tensor) -> Transport:
        """Couple equally many nodes one to one."""
        further = b.shape[-1] - a.shape[-1]
        if a.shape[:-1] != b.shape[:-1] or further < 0 or (further and _carries(b[..., -further:])):
            raise ValueError(
                f"the identity coupling needs as many student as teacher nodes, got {a.shape[-1]} and {b.shape[-1]}; "
                "only teacher nodes without mass may come behind"
            )
        plan = pad(torch.diag_embed(a), (0, further))
        # Without any mass, which a batch without labels may have, there is nothing to be wrong.
        error = torch.where(a.sum(-1) + b.sum(-1) == 0, 0.0, marginal_error(plan, a, b))
        return Transport(
            plan=plan,
            value=None if cost is None else (plan * cost).sum((-2, -1)),
            potentials=None,
            marginal_error=error,
            converged=error <= 1e-3,
            num_iters=torch.zeros_like(error, dtype=torch.int64),
            epsilon=torch.zeros((), dtype=a.dtype, device=a.device),
            paired=not further,
        )


@dataclass(frozen=True)
class RowSoftmax:
    r"""Each student node spreads its own mass; teacher nodes take what comes (semi-relaxed entropic transport).

    .. math:: P_{ij} = a_i \frac{b_j \exp(-M_{ij} / \epsilon)}{\sum_l b_l \exp(-M_{il} / \epsilon)}

    The coupling of contrastive losses: with :class:`~graphkd.reductions.PlanNLL` it is InfoNCE at temperature epsilon.

    >>> RowSoftmax(1.0)(torch.zeros(1, 2), None, torch.ones(1), torch.ones(2) / 2).plan
    tensor([[0.5000, 0.5000]])
    """

    epsilon: Real

    differentiates_plan = True

    def __post_init__(self) -> None:
        checks.positive("epsilon", self.epsilon)

    def __call__(self, cost: Tensor | None, relations: Relations | None, a: Tensor, b: Tensor) -> Transport:
        """Couple by a softmax over each row of the cost."""
        cost = needed(cost, "the row softmax")
        exponent = b.log().unsqueeze(-2) - cost / self.epsilon
        f = -self.epsilon * torch.logsumexp(exponent, -1)
        plan = a.unsqueeze(-1) * exponent.softmax(-1)
        error = marginal_error(plan, a, plan.detach().sum(-2))
        return Transport(
            plan=plan,
            value=(f * a).sum(-1),
            potentials=(f, torch.zeros_like(cost[..., 0, :])),
            marginal_error=error,
            converged=error <= 1e-3,
            num_iters=torch.ones_like(error, dtype=torch.int64),
            epsilon=torch.full((1, 1), self.epsilon, dtype=cost.dtype, device=cost.device),
        )


@dataclass(frozen=True)
class Product:
    r"""Everybody with everybody, :math:`P = a b^\top`: the coupling of two independent draws.

    The pairing of student and teacher samples is ignored.

    >>> Product()(None, None, torch.ones(2) / 2, torch.tensor([0.2, 0.8])).plan
    tensor([[0.1000, 0.4000],
            [0.1000, 0.4000]])
    """

    differentiates_plan = False

    def __call__(self, cost: Tensor | None, relations: Relations | None, a: Tensor, b: Tensor) -> Transport:
        """Couple by the masses alone."""
        return _direct(a.unsqueeze(-1) * b.unsqueeze(-2) / b.sum(-1)[..., None, None], cost, a, b)


@dataclass(frozen=True)
class Affinity:
    r"""The similarities themselves, read as a plan: :math:`P_{ij} = a_i (1 - M_{ij})`.

    No transport: no masses are kept, as the marginal error says, and entries may be negative. For costs that are one
    minus a similarity, compared with a target by :class:`~graphkd.reductions.PlanGap`.

    >>> Affinity()(torch.tensor([[0.0, 1.5]]), None, torch.ones(1), torch.ones(2) / 2).plan
    tensor([[ 1.0000, -0.5000]])
    """

    differentiates_plan = True

    def __call__(self, cost: Tensor | None, relations: Relations | None, a: Tensor, b: Tensor) -> Transport:
        """Couple by similarity."""
        return _direct(a.unsqueeze(-1) * (1 - needed(cost, "the affinity")), cost, a, b)


def needed(cost: Tensor | None, coupling: str) -> Tensor:
    """The cost, where there is one."""
    if cost is None:
        raise ValueError(f"{coupling} coupling needs a cost between the two graphs, got a loss without one")
    return cost


def _direct(plan: Tensor, cost: Tensor | None, a: Tensor, b: Tensor) -> Transport:
    """A plan that took no solving, with how far it is from its marginals."""
    error = marginal_error(plan.detach(), a, b)
    return Transport(
        plan=plan,
        value=None if cost is None else (plan * cost).sum((-2, -1)),
        potentials=None,
        marginal_error=error,
        converged=error <= 1e-3,
        num_iters=torch.zeros_like(error, dtype=torch.int64),
        epsilon=torch.zeros((), dtype=a.dtype, device=a.device),
    )


def _carries(mass: Tensor) -> bool:
    return checks.can_look(mass) and bool(mass.any())
