"""Reductions: which number of a transport is minimised. Called with what a loss computed; frozen, or modules."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import checks
from graphkd.discrepancies import Factored, mse
from graphkd.graphs import masses
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


class NoiseContrast(nn.Module):
    r"""Tell each sample's partner from negatives by noise-contrastive estimation.

    .. math::
        -\sum_{ij} P_{ij} \log \frac{h_{ij}}{h_{ij} + c_i} - \sum_{ij} a_i N_{ij} \log \frac{c_i}{h_{ij} + c_i},
        \qquad h_{ij} = \frac{e^{-M_{ij} / T}}{Z}, \quad c_i = \frac{1}{m} \sum_j N_{ij}

    P is the coupling of partners and N, the attribute ``negatives`` (*b n m) of the teacher's graph, says how often
    node j is a negative of node i. Z, one for each problem, is set by the first batch in training so that the mean of h
    over partners and negatives is 1 / m, and then stays. Summed over problems, not averaged: both ways add up.

    Args:
        temperature: T, in units of the cost.
        num_nodes: m, how many nodes negatives are drawn from; the teacher's nodes of the batch, if omitted.
        logs: Without, the logarithms are dropped and what is left is the dual form of a Wasserstein distance with the
            bounded critic :math:`g = h / (h + c)`, mean over partners minus mean over negatives, to be maximised:
            :math:`-\sum_{ij} P_{ij} g_{ij} + \sum_{ij} a_i N_{ij} g_{ij} / \sum_j N_{ij}`.
        num_problems: How many problems come in a batch: two for a term that goes both ways.

    Source: Gutmann, Hyvärinen, "Noise-contrastive estimation", AISTATS 2010; with a fixed Z as in the released code of
    Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv:1910.10699, whose 1e-7 in the
    denominators is kept.
    """

    reads_plan = False

    log_normalizer: Tensor

    def __init__(
        self, temperature: Real = 0.07, num_nodes: int | None = None, logs: bool = True, num_problems: int = 1
    ) -> None:
        super().__init__()
        checks.positive("temperature", temperature)
        if num_nodes is not None:
            checks.at_least("num_nodes", num_nodes, 1)
        self.temperature, self.num_nodes, self.logs = temperature, num_nodes, logs
        checks.at_least("num_problems", num_problems, 1)
        self.register_buffer("log_normalizer", torch.full((num_problems, 1, 1), torch.nan))

    def forward(
        self, transport: Transport, cost: Tensor | None, relations: Relations | None, graphs: tuple[Data, Data]
    ) -> Float[Tensor, ""]:
        """The contrast."""
        negatives = graphs[1].get("negatives")
        if cost is None or negatives is None:
            raise ValueError("NoiseContrast needs a cost, and a teacher's graph that says which nodes are negatives")
        plan, a = transport.plan, masses(graphs[0]).to(cost.dtype).unsqueeze(-1)
        if cost.shape[:-2].numel() != len(self.log_normalizer):
            raise ValueError(
                f"NoiseContrast(num_problems={len(self.log_normalizer)}) needs costs of {len(self.log_normalizer)} "
                f"problem(s), got shape {tuple(cost.shape)}"
            )
        negatives = negatives.to(cost.dtype)
        nodes = self.num_nodes or cost.shape[-1]
        score = -cost / self.temperature
        log_h = score - self._normalizer(score.detach(), plan > 0, negatives) - math.log(nodes)
        noise = negatives.sum(-1, keepdim=True) / nodes
        log_both = torch.logaddexp(log_h, (noise + 1e-7).log())
        if not self.logs:
            share = negatives / negatives.sum(-1, keepdim=True).clamp_min(1)
            return ((a * share - plan) * (log_h - log_both).exp()).sum()
        log_noise = torch.where(noise > 0, noise, 1.0).log()
        return -(plan * (log_h - log_both) + a * negatives * (log_noise - log_both)).sum()

    def _normalizer(self, score: Tensor, partners: Tensor, negatives: Tensor) -> Tensor:
        """The logarithm of the mean of exp(score), of the first batch that was trained on."""
        times = partners + negatives
        axes = (-2, -1)
        # Nodes that are neither may be nearer than all that count.
        largest = score.masked_fill(times == 0, -torch.inf).amax(axes, keepdim=True)
        total = ((score - largest).clamp_max(0).exp() * times).sum(axes, keepdim=True)
        current = largest + (total / times.sum(axes, keepdim=True)).log()
        kept = torch.where(self.log_normalizer.isnan(), current, self.log_normalizer.to(current.dtype))
        if self.training:
            self.log_normalizer = kept
        return kept

    def extra_repr(self) -> str:
        """The settings."""
        num_problems = len(self.log_normalizer)
        return (
            f"temperature={self.temperature}, num_nodes={self.num_nodes}, logs={self.logs}, num_problems={num_problems}"
        )


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
