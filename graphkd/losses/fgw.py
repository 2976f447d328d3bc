"""Fused Gromov-Wasserstein distillation (FGW): batch graphs aligned by nodes and structure, anchored at known pairs.

A method of this library, without a paper of its own. The distance between attributed graphs is that of Vayer, Chapel,
Flamary, Tavenard, Courty, "Optimal transport for structured data with application on graphs", ICML 2019,
arXiv:1805.09114.
"""

from functools import partial

from torch_geometric.data import Data
from torch_geometric.nn import SimpleConv

from graphkd import checks
from graphkd.couplings import FusedGromov, Identity, Sinkhorn
from graphkd.discrepancies import kl
from graphkd.encoders import GraphEncoder
from graphkd.features import vectors
from graphkd.graphs import knn_graph
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import Anchored, relative_cosine, sqeuclidean
from graphkd.precision import raised
from graphkd.reductions import TransportCost
from graphkd.relations import Pairwise, SelfPlan
from graphkd.typing import Coupling, Features, Measure, Real


def fgw(
    *,
    alpha: Real = 0.5,
    anchor: Real | None = 2.0,
    epsilon: Real = 0.3,
    num_iters: int = 10,
    num_layers: int = 0,
    k: int = 8,
    weight: Real = 5.0,
) -> Criterion:
    r"""Fused Gromov-Wasserstein distillation.

    .. math::
        \min_P\; (1 - \alpha) \sum_{ij} \bigl(\|x^s_i - x^t_j\|^2 + \lambda (1 - \delta_{ij})\bigr) P_{ij}
        + \alpha \sum_{ijkl} \mathrm{kl}(C^t_{jl}, C^s_{ik})\, P_{ij} P_{kl}

    over plans with uniform masses, where kl(t, s) = t log(t / s) - t + s.

    *Nodes* are samples; the attributes x are the square roots of their class probabilities, so that the node cost is
    the squared Hellinger distance. *Structure*: C is the density of the batch's transport onto itself by its features,
    :math:`n^2 \, \mathrm{Sinkhorn}_\epsilon` of cosine distances in units of their mean, as in
    :func:`~graphkd.losses.plan_matching.plan_matching`: which samples the network finds alike. *Edges* join each sample
    with its k nearest by features; each layer of message passing replaces x by the mean over these, scaled to length
    one, and adds a term of the same form at that hop.

    *Anchor*: an optimised plan alone is content with somebody else's teacher: shuffling the teacher's batch changes
    nothing. The penalty :math:`\lambda` makes every pair but the known one cost more. At the identity the objective is
    a paired one, feature matching and a relational loss.

    Needs: ``feat`` (n d) and ``logits`` (n c); for alpha = 1 ``feat`` alone.
    Pairing: used, by an anchor.
    Cost: n² (d + c) + n³ a step of the plan, two or three.
    Terms: ``hop0``, and one more for each layer.
    Extra parameters: none.
    Equal to: its definition.

    Both networks have as many classes. Labels are not used. Intensive: no part of it grows with batch or width.

    What was tried, on digits, by the protocols of :func:`~graphkd.losses.plan_matching.plan_matching` (8 seeds to
    choose by, 8 others to report): without knowledge distillation (KD) beside it, this gains 5.8 +- 2.4, 3.1 +- 1.1,
    4.6 +- 2.0 and 4.8 +- 1.7 points over the best of the same methods, none of which sees logits; over KD alone 2.2 +-
    2.1, 0.5 +- 0.5, -1.2 +- 0.7 and -0.3 +- 2.6; over its own node term alone 2.1 to 7.5. Beside KD it is as good as
    the best of these, not better. The gain comes from the two terms, and not from transport between the networks: the
    optimised plan, held by the anchor, leaves 95 % and more of the mass at the known pairs, and training with it is as
    good as with ``anchor=None`` within noise, which takes 0.4 to 0.8 of the time. An optimised plan that nothing holds
    is worse (48.5 against 75.3 % on noisy validation images). Message passing, a learned projection with cosine costs
    as nodes, similarities or distances as structure, and the teacher's own plan as the coupling did not help. All this
    with z-scored costs of the transport onto itself, at an epsilon of .5. In many dimensions a sample is far nearer to
    itself than to any other, in deviations, and such a plan is all but the identity. Costs in units of their mean make
    no difference on digits beyond noise (-0.1 +- 0.5), and keep 9.4 +- 0.4 points more of the nearest neighbours of
    sentences (`graphkd benchmark accuracy --ablation fgw`, and with ``--suite sentences``).

    Args:
        alpha: The structure's share. With 1 there are no node costs, and all that holds the plan is where it starts.
        anchor: :math:`\lambda`, in units of the node cost, which is at most 2. The plan starts at the known pairs, and
            is never worse than these; with 0 it starts at the product of the masses and knows nothing of the pairing.
            None fixes it to the known pairs.
        epsilon: Of the transport of each batch onto itself; its cost has a mean of one.
        num_iters: Sweeps of that transport, with a gradient through all.
        num_layers: Rounds of message passing.
        k: Neighbours of a sample, itself among them.
        weight: Of each term.

    >>> import torch
    >>> criterion = fgw()
    >>> student, teacher = ({"feat": torch.randn(9, d), "logits": torch.randn(9, 4)} for d in (5, 7))
    >>> list(criterion(student, teacher).terms)
    ['hop0']
    """
    checks.share("alpha", alpha)
    checks.at_least("num_layers", num_layers, 0)
    checks.at_least("num_iters", num_iters, 1)
    checks.at_least("k", k, 1)
    build = partial(_batch_graph, k=k, with_logits=alpha < 1)
    relation = SelfPlan(Pairwise(relative_cosine, on="feat"), Sinkhorn(epsilon, num_iters, gradient="unroll"))
    start = "product" if anchor == 0 else "identity"
    coupling: Coupling = FusedGromov(alpha, loss="kl", start=start, teacher_first=True)
    cost: Measure | None = None
    if alpha < 1:
        cost = sqeuclidean if anchor is None else Anchored(sqeuclidean, anchor)
    if anchor is None:
        coupling = Identity()
    loss = GraphLoss(cost, relation, coupling, TransportCost(alpha, kl))

    def encoder() -> GraphEncoder:
        return GraphEncoder(build, convs=[SimpleConv("mean") for _ in range(num_layers)], normalize=alpha < 1)

    terms = {f"hop{hop}": Term(loss, weight, student=hop, teacher=hop) for hop in range(num_layers + 1)}
    return Criterion(encoder(), encoder(), terms)


def _batch_graph(features: Features, k: int, with_logits: bool) -> Data:
    """Samples with the roots of their class probabilities, joined by their features, which stay at hand."""
    x = vectors(features, "feat")
    roots = (raised(vectors(features, "logits")).log_softmax(-1) / 2).exp() if with_logits else x
    graph = knn_graph(roots, k, on=x, loop=True)
    graph.feat = x
    return graph
