"""Contrasts: reductions that tell each sample's partner from negatives, which the teacher's graph names.

Both read the cost, the coupling of partners, and the attribute ``negatives`` (*b n m) of the teacher's graph, which
says how often node j is a negative of node i; see :func:`graphkd.memory.samples_apart` and
:meth:`graphkd.memory.MemoryBank.recall`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphkd import checks
from graphkd.graphs import masses
from graphkd.typing import Real, Relations, Transport


@dataclass(frozen=True)
class InfoNCE:
    r"""Tell each sample's partner from its negatives by a softmax over both.

    .. math::
        -\sum_{ip} P_{ip} \log \frac{e^{-M_{ip} / T}}{e^{-M_{ip} / T} + \sum_j N_{ij} e^{-M_{ij} / T}}

    P is the coupling of partners and N, the attribute ``negatives`` (*b n m) of the teacher's graph, says how often
    node j is a negative of node i. A sample without negatives adds nothing. Summed over problems, not averaged: both
    ways add up. Where all other nodes are negatives, it is :class:`~graphkd.reductions.PlanNLL` of
    :class:`~graphkd.couplings.RowSoftmax`.

    Args:
        temperature: T, in units of the cost.

    Source: van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018,
    arXiv:1807.03748.

    >>> from graphkd.couplings import Identity
    >>> from graphkd.memory import samples_apart
    >>> graph = samples_apart({"feat": torch.zeros(2, 3)})
    >>> cost, mass = torch.zeros(2, 2), masses(graph)
    >>> InfoNCE()(Identity()(cost, None, mass, mass), cost, None, (graph, graph))
    tensor(0.6931)
    """

    temperature: Real = 0.07

    reads_plan = False

    def __post_init__(self) -> None:
        checks.positive("temperature", self.temperature)

    def __call__(
        self, transport: Transport, cost: Tensor | None, relations: Relations | None, graphs: tuple[Data, Data]
    ) -> Float[Tensor, ""]:
        """The contrast."""
        cost, negatives = _contrasted("InfoNCE", cost, graphs)
        score = -cost / self.temperature
        none = negatives.sum(-1, keepdim=True) == 0
        # The logarithm of the sum over no negatives at all is minus infinity, whose gradient is NaN.
        times = torch.where(none, 1.0, negatives)
        against = torch.logsumexp(score + times.log(), -1, keepdim=True)
        partners = transport.plan.masked_fill(none, 0.0)
        return -(partners * F.logsigmoid(score - against)).sum()


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
        cost, negatives = _contrasted("NoiseContrast", cost, graphs)
        plan, a = transport.plan, masses(graphs[0]).to(cost.dtype).unsqueeze(-1)
        if cost.shape[:-2].numel() != len(self.log_normalizer):
            raise ValueError(
                f"NoiseContrast(num_problems={len(self.log_normalizer)}) needs costs of {len(self.log_normalizer)} "
                f"problem(s), got shape {tuple(cost.shape)}"
            )
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


def _contrasted(name: str, cost: Tensor | None, graphs: tuple[Data, Data]) -> tuple[Tensor, Tensor]:
    """The cost and the negatives in its precision."""
    negatives = graphs[1].get("negatives")
    if cost is None or negatives is None:
        raise ValueError(f"{name} needs a cost, and a teacher's graph that says which nodes are negatives")
    return cost, negatives.to(cost.dtype)
