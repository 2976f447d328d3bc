"""Attention transfer (AT): where in an image the student's activations are large, relative to elsewhere.

Zagoruyko, Komodakis, "Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks
via Attention Transfer", ICLR 2017, arXiv:1612.03928.
"""

from collections.abc import Sequence
from functools import partial

from torch_geometric.data import Data

from graphkd import checks
from graphkd.encoders import Several
from graphkd.graphs import point_cloud
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.maps import check_named, same_size, sized
from graphkd.measures import mean_sqeuclidean, sqeuclidean, unit
from graphkd.typing import Features, Real


def attention_transfer(
    maps: Sequence[str] = ("map",), *, p: Real = 2, size: int | None = None, parity: bool = False
) -> Criterion:
    r"""Attention transfer between feature maps.

    .. math:: \frac{1}{n} \sum_i \Bigl\| \frac{q^s_i}{\|q^s_i\|} - \frac{q^t_i}{\|q^t_i\|} \Bigr\|^2, \qquad
        q_{ixy} = \frac{1}{d} \sum_k |F_{ikxy}|^p

    one such term for each named map. Channels are averaged away, so that networks of any widths compare, and the length
    of q is divided out. Each term is in [0, 2], whatever the size of the maps.

    Nodes are samples with their spatial attention as attributes, one graph for each named map; the cost is the squared
    distance, the coupling the identity. Labels are not looked at.

    Needs: ``map`` (n c h w), or each of ``maps``.
    Pairing: used.
    Cost: n c h w + n² h w, of which n h w + n² numbers are held.
    Terms: ``map``, or as ``maps`` are named.
    Extra parameters: none.
    Equal to: its definition.

    The paper takes the length of the difference, not squared; its authors' code and that of CRD's authors, which the
    published weight of 1000 belongs to, take the mean of squares over samples and positions: ``parity``, which is the
    term divided by h w. There activations keep their sign, which matters for an odd p without a ReLU before; all stages
    are compared at once; of two sizes of a map the latter averages the larger to the smaller, which here is given.

    Args:
        maps: Names of the features.
        p: Power of the activations, at least 1.
        size: Rows and columns to which both networks' maps are averaged by adaptive pooling; as they are, if omitted.
        parity: Mean over positions instead of their sum.

    Raises:
        ValueError: For options out of range; at the call, without ``size``, for maps of different sizes.

    >>> import torch
    >>> student, teacher = {"map": torch.rand(4, 3, 8, 8)}, {"map": torch.ones(4, 5, 8, 8)}
    >>> float(attention_transfer()(student, teacher).value) < 2
    True
    """
    check_named(maps, size)
    checks.positive("p", p)
    if p < 1:
        raise ValueError(
            f"p needs a number of at least 1, below which a position without activation has no gradient, got {p!r}"
        )
    builds = [partial(_attention, name=name, p=p, size=size) for name in maps]
    loss = GraphLoss(cost=mean_sqeuclidean if parity else sqeuclidean)
    terms = {name: Term(loss, student=i, teacher=i) for i, name in enumerate(maps)}
    criterion = Criterion(Several(*builds), Several(*builds), terms)
    if size is None:
        same_size(criterion, *maps)
    return criterion


def _attention(features: Features, name: str, p: Real, size: int | None) -> Data:
    """Samples with how active each position is, of length one."""
    return point_cloud(unit(sized(features, name, size).abs().pow(p).mean(1).flatten(1)))
