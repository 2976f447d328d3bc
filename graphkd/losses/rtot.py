"""Representation transfer by optimal transport (RTOT): a layer as a set of neurons, each seen by its responses.

Li, Grandvalet, Flamary, Courty, Dou, "Representation Transfer by Optimal Transport", arXiv:2007.06737. Neither the full
paper nor code of its authors was at hand: this is a reconstruction from abstract and summaries.
"""

from functools import partial
from typing import Literal

from torch_geometric.data import Data

from graphkd import checks
from graphkd.couplings import Exact, Identity, Sinkhorn
from graphkd.encoders import GraphEncoder
from graphkd.features import pick, vectors
from graphkd.graphs import neurons
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import euclidean, manhattan, sqeuclidean
from graphkd.ot.problem import Relative
from graphkd.reductions import TransportCost
from graphkd.typing import Coupling, Features, Real

COSTS = {"euclidean": euclidean, "sqeuclidean": sqeuclidean, "l1": manhattan}

Node = Literal["neurons", "channels", "pooled"]


def rtot(
    *,
    cost: Literal["euclidean", "sqeuclidean", "l1"] = "euclidean",
    coupling: Literal["exact", "sinkhorn", "identity"] = "exact",
    epsilon: Real | Relative = Relative(0.1),  # noqa: B008 # it is frozen
    num_iters: int = 100,
    node: Node = "neurons",
) -> Criterion:
    r"""Representation transfer by optimal transport.

    .. math::
        \min_{P \ge 0,\; P 1 = 1 / d_s,\; P^\top 1 = 1 / d_t} \langle P, M\rangle, \qquad
        M_{ij} = \mathrm{dist}(A^s_{:i}, A^t_{:j})

    where the columns of A (n d) are neurons, each with its responses to the n samples of the batch as attributes.
    Transport makes the value blind to the order of neurons, and networks may have different widths. The plan is a
    constant for the gradient, which for the exact plan is no approximation (Danskin's theorem).

    Stated by the paper: a layer is a set of neurons, a neuron what it answers to examples; the distance is that of
    optimal transport; the teacher is fixed. Ours: the distance M (not scaled by the number of samples: ``euclidean``
    grows like the root of the batch size, the others like the batch size), the solvers, uniform masses, pooling, and
    the weight, which the paper's tables would say.

    Needs: ``feat`` (n d), or ``map`` (n c h w) by ``node``.
    Pairing: used, of samples.
    Cost: n d² + 100 d² by Sinkhorn, or a simplex.
    Terms: ``neurons``.
    Extra parameters: none.
    Equal to: exact transport; a reconstruction.

    Args:
        cost: dist.
        coupling: ``exact`` by a network simplex on the CPU, where 512 neurons take longer than the step of a small
            network; ``sinkhorn`` for wide layers and accelerators; ``identity`` for plain feature matching of equal
            widths as a baseline, neuron i with neuron i.
        epsilon: Of ``sinkhorn``, in units of the cost or relative to its standard deviation.
        num_iters: Sweeps of ``sinkhorn``.
        node: ``neurons`` of ``feat``; ``channels`` of ``map``, with every position of every image as one more sample,
            which needs maps of equal size; or ``pooled`` channels, averaged over positions.

    Raises:
        ValueError: For options that are not known; at the call for features of the wrong shape.

    >>> import torch
    >>> responses = torch.tensor([[0.0, 1.0, 2.0], [5.0, 3.0, 1.0]])
    >>> rtot()({"feat": responses}, {"feat": responses[:, [2, 0, 1]]}).value
    tensor(0.)
    """
    checks.one_of("cost", cost, tuple(COSTS))
    checks.one_of("coupling", coupling, ("exact", "sinkhorn", "identity"))
    checks.one_of("node", node, ("neurons", "channels", "pooled"))
    couplings: dict[str, Coupling] = {
        "exact": Exact(),
        "sinkhorn": Sinkhorn(epsilon, num_iters),
        "identity": Identity(),
    }
    loss = GraphLoss(COSTS[cost], coupling=couplings[coupling], reduction=TransportCost())
    build = partial(_layer, node=node)
    return Criterion(
        student=GraphEncoder(build, normalize=False),
        teacher=GraphEncoder(build, normalize=False),
        terms={"neurons": Term(loss)},
    )


def _layer(features: Features, node: Node) -> Data:
    if node == "neurons":
        return neurons(vectors(features, "feat"))
    maps = pick(features, "map")
    checks.maps("feature 'map'", maps)
    if node == "pooled":
        return neurons(maps.mean((2, 3)))
    return neurons(maps.movedim(1, -1).flatten(0, -2))
