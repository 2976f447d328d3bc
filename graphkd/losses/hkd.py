"""Holistic knowledge distillation (HKD): features and batch graphs of both networks, told from many other samples.

Zhou, Wang, Chen, Chen, Wang, Wang, Bu, "Distilling Holistic Knowledge with Graph Neural Networks", ICCV 2021,
arXiv:2108.05507.
"""

from functools import partial

from graphkd import checks
from graphkd.contrasts import InfoNCE
from graphkd.encoders import GraphEncoder, Remembering
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.losses.crd import minus_inner
from graphkd.losses.otgd import batch_graph, convolution
from graphkd.memory import MemoryBank
from graphkd.projectors import linear
from graphkd.typing import Real


def hkd(
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    *,
    num_samples: int,
    embed_dim: int = 128,
    k: int = 8,
    num_negatives: int = 16384,
    temperature: Real = 0.07,
    momentum: Real = 0.9,
    blend: Real = 0.25,
    own_negatives: bool = False,
) -> Criterion:
    r"""Holistic knowledge distillation.

    Embeddings are :math:`f = \mathrm{normalize}(W h + b)`. Each network joins every sample of the batch with itself and
    its k - 1 nearest in cosine distance of class probabilities; a convolution of one hop gives :math:`g =
    \mathrm{normalize}(\mathrm{GNN}(f))`. Each network keeps a memory of the f of all samples, r. With x = f and partner
    :math:`r_i` (``feature``), and with x = g and partner :math:`\mathrm{normalize}((1 - \beta) r_i + \beta g_i)`
    (``graph``), each sample is told from K others,

    .. math::
        -\frac{1}{n} \sum_i \log \frac{\exp(x_i \cdot p_i / T)}{\exp(x_i \cdot p_i / T)
            + \sum_k \exp(x_i \cdot r_k / T)}

    with the student's x, the teacher's partners p and memory, and the converse, added up. Then the memories follow,
    :math:`r \leftarrow \mathrm{normalize}(\mu r + (1 - \mu) f)`, in training only.

    Nodes are samples, on one side those of the batch, on the other remembered ones. Topology carries no gradient, nor
    do memories and partners.

    Needs: ``feat`` (n d), ``logits`` (n c) and ``index`` (n).
    Pairing: used.
    Cost: n K d, N d held by each network.
    Terms: ``feature``, ``graph``.
    Extra parameters: two projectors, two GNNs, and two memories (N d).
    Equal to: its definition.

    ``index`` is where each sample stands in the data set; with :class:`~graphkd.Distiller` it is its argument.
    Negatives are drawn evenly from the data set, once for all samples of a batch; those of a sample's own class, as far
    as labels are known (not -100), do not count, and without labels all others do. The value does not depend on the
    size of the batch, but grows like log K.

    Departures from the code. It draws K of other classes for each sample, without replacement: give them as the feature
    ``negatives`` (n k) to reproduce it. Its negatives are those of the anchor's own network, though it calls them the
    other's, so that the student's are compared with its own memory only; by default they are the other network's here,
    as its partners are, and as in :func:`~graphkd.losses.crd.crd`: ``own_negatives`` follows the code. Batches of less
    than k samples are left out of its ``graph`` and its memories; here their k is smaller.

    Args:
        student_dim: Width of the student's ``feat``; read off the first batch if omitted.
        teacher_dim: Width of the teacher's ``feat``; read off the first batch if omitted.
        num_samples: N, size of the data set.
        embed_dim: Width d of embeddings.
        k: Neighbours of a sample, itself among them.
        num_negatives: K. A step multiplies the batch with K rows, or with all N where ``negatives`` are given.
        temperature: T.
        momentum: :math:`\mu`.
        blend: :math:`\beta`, how far the partners of ``graph`` follow the batch.
        own_negatives: Whether negatives are those of the anchor's own network.

    Raises:
        ValueError: For options out of range; at the call for an index out of range.
        KeyError: At the call without ``index``.

    >>> import torch
    >>> criterion = hkd(num_samples=50, num_negatives=20, k=3)
    >>> features = lambda d: {"feat": torch.randn(6, d), "logits": torch.randn(6, 10), "index": torch.arange(6)}
    >>> list(criterion(features(16), features(32)).terms)
    ['feature', 'graph']
    """
    checks.at_least("embed_dim", embed_dim, 1)
    checks.at_least("k", k, 1)
    loss = GraphLoss(minus_inner, reduction=InfoNCE(temperature))

    def encoder(width: int | None) -> Remembering:
        convs = [convolution("tag", embed_dim)]
        embedded = GraphEncoder(partial(batch_graph, k=k), linear(width, embed_dim), convs)
        return Remembering(embedded, MemoryBank(num_samples, embed_dim, momentum), num_negatives, blend)

    def term(hop: int, partners: int) -> Term:
        return Term(loss, student=hop, teacher=partners, both_ways=True, own_negatives=own_negatives)

    return Criterion(encoder(student_dim), encoder(teacher_dim), terms={"feature": term(0, 2), "graph": term(1, 3)})
