"""Reductions: which number of a transport is minimised. Called with what a loss computed; frozen, or modules."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Data

from graphkd import checks
from graphkd.contrasts import InfoNCE as InfoNCE
from graphkd.contrasts import NoiseContrast as NoiseContrast
from graphkd.discrepancies import Factored, mse
from graphkd.graphs import masses
from graphkd.precision import root
from graphkd.relations import Pairwise, own_plan
from graphkd.typing import Coupling, Discrepancy, Measure, Real, Relations, Transport

Target = Tensor | Callable[[Data], Tensor] | None
"""The plan to be pulled towards: a tensor (n m) with the masses of P, a function of the teacher's graph, or None for
the identity coupling."""


@dataclass(frozen=True)
class TransportCost:
    r"""The fused Gromov-Wasserstein objective of a plan.

    .. math:: (1 - \alpha) \langle P, M\rangle + \alpha \sum_{ijkl} L(C^s_{ik}, C^t_{jl}) P_{ij} P_{kl}

    With the identity coupling its first term is feature matching, its second relational distillation. With an optimised
    coupling whose gradient is ``envelope`` the plan is a constant here.

    Args:
        alpha: Share of the relations, in [0, 1].
        discrepancy: L; any function for a paired plan, a :class:`~graphkd.discrepancies.Factored` one for others.
    """

    alpha: Real = 0.0
    discrepancy: Discrepancy = mse

    reads_plan = False

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha needs a number in [0, 1], got {self.alpha!r}")

    def __call__(
        self, transport: Transport, cost: Tensor | None, relations: Relations | None, graphs: tuple[Data, Data]
    ) -> Float[Tensor, ""]:
        """The objective, averaged over leading axes."""
        value = torch.zeros((), dtype=transport.plan.dtype, device=transport.plan.device)
        if self.alpha < 1:
            if cost is None:
                raise ValueError(f"TransportCost(alpha={self.alpha}) needs a cost, got a loss without one")
            # Some couplings never form the plan of each problem; their plan is a mean.
            paid = (transport.plan * cost).sum((-2, -1)) if transport.linear is None else transport.linear
            value = value + (1 - self.alpha) * paid.mean()
        if self.alpha > 0:
            if relations is None:
                raise ValueError(f"TransportCost(alpha={self.alpha}) needs a relation, got a loss without one")
            if transport.linear is not None:
                raise ValueError(
                    f"TransportCost(alpha={self.alpha}) needs a plan per problem, got the mean of all plans"
                )
            value = value + self.alpha * self._structure(transport, relations).mean()
        return value

    def _structure(self, transport: Transport, relations: Relations) -> Tensor:
        plan = transport.plan
        p, q = plan.sum(-1), plan.sum(-2)
        if transport.paired:
            gaps = self.discrepancy(relations.student, relations.teacher)
            return (p.unsqueeze(-1) * gaps * p.unsqueeze(-2)).sum((-2, -1))
        if not isinstance(self.discrepancy, Factored):
            raise ValueError(
                "an unpaired plan needs a Factored discrepancy such as mse: any other would take n^4 operations, "
                f"got {self.discrepancy!r}"
            )
        loss = self.discrepancy
        own = torch.einsum("...i,...ik,...k->...", p, loss.f1(relations.student), p)
        other = torch.einsum("...j,...jl,...l->...", q, loss.f2(relations.teacher), q)
        if loss.h1 is None or loss.h2 is None:
            return own + other
        mixed = loss.h1(relations.student) @ plan @ loss.h2(relations.teacher).mT
        return own + other - (mixed * plan).sum((-2, -1))


@dataclass(frozen=True)
class PlanNLL:
    r"""Cross-entropy of the conditional plan with a target plan T, mean over the student's mass.

    .. math:: -\sum_{ij} T_{ij} \log (P_{ij} / a_i)

    Against the identity, :math:`T = \mathrm{diag}(a)`, it is the negative log-likelihood of the right partner; with
    :class:`~graphkd.couplings.RowSoftmax` that is InfoNCE. The logarithm comes from the potentials where the coupling
    has them, so that it stays finite, with its gradient, where P underflows.
    """

    target: Target = None

    reads_plan = True

    def __call__(
        self, transport: Transport, cost: Tensor | None, relations: Relations | None, graphs: tuple[Data, Data]
    ) -> Float[Tensor, ""]:
        """The cross-entropy, averaged over leading axes."""
        target = _target(self.target, transport.plan, graphs)
        log_plan = _log_conditional(transport, cost, graphs)
        return -torch.where(target > 0, target * log_plan, 0.0).sum((-2, -1)).mean()


@dataclass(frozen=True)
class PlanGap:
    r"""Frobenius distance of the conditional plan from a target plan T, as in OTGD.

    .. math:: \| \mathrm{diag}(a)^{-1} (P - T) \|_F

    Against the identity, T = diag(a), with uniform masses this is :math:`\| n P - I \|_F`. It grows like
    :math:`\sqrt{n - 1}`; ``intensive=True`` divides by that.

    Its gradient is the plan's alone, so the coupling must differentiate its plan.
    """

    target: Target = None
    intensive: bool = False

    reads_plan = True

    def __call__(
        self, transport: Transport, cost: Tensor | None, relations: Relations | None, graphs: tuple[Data, Data]
    ) -> Float[Tensor, ""]:
        """The distance, averaged over leading axes."""
        a = masses(graphs[0]).to(transport.plan.dtype).unsqueeze(-1)
        gap = transport.plan - _target(self.target, transport.plan, graphs)
        gap = torch.where(a > 0, gap, 0.0) / torch.where(a > 0, a, 1.0)
        size = max(gap.shape[-2] - 1, 1) ** 0.5 if self.intensive else 1.0
        return torch.linalg.vector_norm(gap, dim=(-2, -1)).mean() / size


@dataclass(frozen=True)
class RelationGap:
    r"""Frobenius distance of the two relations, node i with node i, as in embedding graph alignment (EGA).

    .. math:: n \sqrt{\sum_{ik} a_i a_k (C^s_{ik} - C^t_{ik})^2}

    With uniform masses this is :math:`\| C^s - C^t \|_F`, not squared, which grows with the number of nodes.
    ``intensive=True`` leaves n out: the root of the mean square. Its gradient is zero where the two agree.

    Raises:
        ValueError: At the call for a plan that is not paired, and without relations.
    """

    intensive: bool = False

    reads_plan = False

    def __call__(
        self, transport: Transport, cost: Tensor | None, relations: Relations | None, graphs: tuple[Data, Data]
    ) -> Float[Tensor, ""]:
        """The distance, averaged over leading axes."""
        if relations is None or not transport.paired:
            lacking = "a loss without a relation" if relations is None else "a plan that is not the identity"
            raise ValueError(f"RelationGap needs a relation and the identity coupling, got {lacking}")
        share = root(transport.plan.sum(-1))
        gap = share.unsqueeze(-1) * (relations.student - relations.teacher) * share.unsqueeze(-2)
        size = 1.0 if self.intensive else float(gap.shape[-1])
        return size * torch.linalg.vector_norm(gap, dim=(-2, -1)).mean()


@dataclass(frozen=True)
class TeacherPlan:
    """A target for the plan reductions: the teacher's graph transported onto itself, without gradient.

    It knows which samples the teacher finds alike, where the identity pushes apart whatever is not the same sample.
    """

    cost: Measure
    coupling: Coupling

    def __call__(self, teacher: Data) -> Tensor:
        """The teacher's own plan (m m)."""
        with torch.no_grad():
            return own_plan(teacher, Pairwise(self.cost), self.coupling)


def _target(target: Target, plan: Tensor, graphs: tuple[Data, Data]) -> Tensor:
    if target is None:
        wanted = torch.diag_embed(masses(graphs[0]).to(plan.dtype))
    elif isinstance(target, Tensor):
        checks.same_device(plan=plan, target=target)
        wanted = target.to(plan.dtype)
    else:
        wanted = target(graphs[1]).to(plan.dtype)
    if wanted.shape[-2:] != plan.shape[-2:]:
        raise ValueError(
            f"the target plan needs the shape of the plan, {tuple(plan.shape[-2:])}, got {tuple(wanted.shape[-2:])}"
        )
    return wanted


def _log_conditional(transport: Transport, cost: Tensor | None, graphs: tuple[Data, Data]) -> Tensor:
    """log(P_ij / a_i)."""
    if transport.potentials is None or cost is None:
        a = masses(graphs[0]).unsqueeze(-1)
        return transport.plan.clamp_min(torch.finfo(transport.plan.dtype).tiny).log() - a.log()
    f, g = transport.potentials
    b = masses(graphs[1]).to(cost.dtype).unsqueeze(-2)
    return (f.unsqueeze(-1) + g.unsqueeze(-2) - cost) / transport.epsilon + b.log()
