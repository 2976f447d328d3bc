"""Relational knowledge distillation (RKD): distances between samples, and the angles of their triangles.

Park, Kim, Lu, Cho, "Relational Knowledge Distillation", CVPR 2019, arXiv:1904.05068.
"""

from graphkd import checks
from graphkd.couplings import Identity
from graphkd.discrepancies import smooth_l1
from graphkd.encoders import GraphEncoder
from graphkd.graphs import samples
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import euclidean_by_differences
from graphkd.reductions import TransportCost
from graphkd.relations import Angle, Pairwise, by_mean
from graphkd.typing import Real, Relation


def rkd(*, distance_weight: Real = 25.0, angle_weight: Real = 50.0, num_vertices: int | None = None) -> Criterion:
    r"""Relational knowledge distillation.

    .. math::
        L = \frac{w_d}{n^2} \sum_{ik} \ell(D^s_{ik}, D^t_{ik}) + \frac{w_a}{n^3} \sum_{ijk} \ell(A^s_{ijk}, A^t_{ijk}),
        \qquad D_{ik} = \|x_i - x_k\| / \mu, \quad A_{ijk} = \cos \angle (x_j, x_i, x_k)

    with the Huber loss :math:`\ell` of width one and the mean distance :math:`\mu` of samples that are apart, each
    network's own, with its gradient. The angle is zero where j or k is i.

    Nodes are samples, distances and angles two relations, compared at the identity coupling. Widths are free. Labels
    are not used.

    Needs: ``feat`` (n d).
    Pairing: used.
    Cost: n² d, and n³ with angles, of which some 4 n³ numbers are held.
    Terms: ``distance``, ``angle``.
    Extra parameters: none.
    Equal to: its definition.

    Angles take 4 MB at a batch of 64, 270 MB at 256 and 17 GB at 1024, in float32. With ``num_vertices`` v they are
    seen from v samples only, and n³ becomes v n².

    Departures from the released code: rows that coincide are apart by zero, and do not count in :math:`\mu`; there,
    distances are at least 1e-6 and do.

    Args:
        distance_weight: Of the term ``distance``; zero leaves it out. The defaults are for classification; the authors'
            scripts for metric learning take 1 for distances and 2 for angles.
        angle_weight: Of the term ``angle``; zero leaves it out, and with it what it costs.
        num_vertices: From how many samples angles are seen, evenly spaced in the batch; all if omitted. The value then
            depends on the order of the batch, which is meant to be shuffled.

    Raises:
        ValueError: For weights that are negative or both zero, and for no vertices.

    >>> import torch
    >>> student = {"feat": torch.randn(8, 3)}
    >>> output = rkd()(student, {"feat": 2 * student["feat"]})
    >>> list(output.terms), float(output.value) < 1e-6
    (['distance', 'angle'], True)
    """
    checks.not_negative("distance_weight", distance_weight)
    checks.not_negative("angle_weight", angle_weight)
    if distance_weight == angle_weight == 0:
        raise ValueError("rkd needs a weight above 0, got 0 for distances and for angles")

    def loss(relation: Relation) -> GraphLoss:
        return GraphLoss(relation=relation, coupling=Identity(), reduction=TransportCost(1.0, smooth_l1))

    terms = {
        "distance": Term(loss(Pairwise(euclidean_by_differences, by_mean)), distance_weight),
        "angle": Term(loss(Angle(num_vertices)), angle_weight),
    }
    return Criterion(
        student=GraphEncoder(samples, normalize=False),
        teacher=GraphEncoder(samples, normalize=False),
        terms={name: term for name, term in terms.items() if term.weight > 0},
    )
