"""Neuron selectivity transfer (NST): which positions of an image channels answer to, as two sets of patterns.

Huang, Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", arXiv:1707.01219.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch_geometric.data import Data

from graphkd import checks
from graphkd.encoders import Several
from graphkd.kernels import Gaussian, Polynomial
from graphkd.loss import Criterion
from graphkd.losses.mmd import between_means
from graphkd.maps import check_named, same_size, sized
from graphkd.measures import inner, unit
from graphkd.typing import Features, Measure, Real


def nst(
    maps: Sequence[str] = ("map",),
    *,
    kernel: Literal["polynomial", "linear", "gaussian"] = "polynomial",
    bandwidth: Real = 1.0,
    size: int | None = None,
) -> Criterion:
    r"""Neuron selectivity transfer.

    .. math::
        L = \frac{1}{n} \sum_{\text{images}} \Bigl[ \frac{1}{c_s^2} \sum_{ik} k(f^s_i, f^s_k)
            + \frac{1}{c_t^2} \sum_{jl} k(f^t_j, f^t_l) - \frac{2}{c_s c_t} \sum_{ij} k(f^s_i, f^t_j) \Bigr],
        \qquad k(x, y) = \langle x, y\rangle^2

    where f are an image's channels, flattened and scaled to length one: the squared maximum mean discrepancy between
    the patterns of the two networks' neurons, of one image after the other.

    Nodes are the channels of an image, each image a problem of its own, and every channel is coupled with every other,
    so that the networks may have different numbers of them; see :func:`~graphkd.losses.mmd`, also for the factor of 2
    that is a weight.

    Needs: ``map`` (n c h w), or each of ``maps``.
    Pairing: used.
    Cost: n c² h w, of which n c² numbers are held.
    Terms: ``map``, or as ``maps`` are named.
    Extra parameters: none.
    Equal to: its definition.

    Images are paired, channels are not. Labels are not used. The size does not change with batch, channels or
    positions: it is the published number, to which the published weight of 50 belongs.

    Departures from the released code: it pools the larger of two maps to the size of the smaller; here that takes
    ``size``.

    Args:
        maps: Names of the features that are compared, one term each; the released code takes the last map of each of
            the three stages.
        kernel: k; the paper also has ``linear`` and ``gaussian``, :math:`\exp(-\|x - y\|^2 / (2 h^2))`.
        bandwidth: h of the Gaussian kernel. The paper takes the mean of the squared distances for :math:`h^2`, which
            would not be one kernel for all pairs of sets; for patterns without a common position that is 2.
        size: Rows and columns to which both networks' maps are averaged by adaptive pooling; as they are, if omitted.

    Raises:
        ValueError: For options out of range; at the call for features that are no maps, and for maps of different
            height or width without ``size``.

    >>> channels = torch.rand(2, 3, 4, 4)
    >>> float(nst()({"map": channels}, {"map": channels.flip(1).repeat(1, 2, 1, 1)}).value) < 1e-6
    True
    """
    checks.one_of("kernel", kernel, ("polynomial", "linear", "gaussian"))
    check_named(maps, size)
    kernels: dict[str, Measure] = {"polynomial": Polynomial(2), "linear": inner, "gaussian": Gaussian(bandwidth)}
    builds = [partial(_channels, name=name, size=size) for name in maps]
    terms = {name: between_means(kernels[kernel], hop, hop) for hop, name in enumerate(maps)}
    criterion = Criterion(Several(*builds), Several(*builds), terms)
    if size is None:
        same_size(criterion, *maps)
    return criterion


def _channels(features: Features, name: str, size: int | None) -> Data:
    """The channels of each image as nodes with their unit-length patterns, a problem per image: ``x`` (n c h w)."""
    x = sized(features, name, size).flatten(2)
    none = torch.empty((2, 0), dtype=torch.int64, device=x.device)
    mass = x.new_full(x.shape[:2], 1 / x.shape[1])
    return Data(x=unit(x), edge_index=none, mass=mass, node="neuron")
