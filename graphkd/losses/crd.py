"""Contrastive representation distillation (CRD): a sample's partner told from many others of the data set.

Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv:1910.10699. Checked against the
authors' code.
"""

from torch import Tensor

from graphkd import checks
from graphkd.encoders import GraphEncoder, Remembering
from graphkd.graphs import samples
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import inner
from graphkd.memory import MemoryBank
from graphkd.projectors import linear
from graphkd.reductions import NoiseContrast
from graphkd.typing import Real


def crd(
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    *,
    num_samples: int,
    embed_dim: int = 128,
    num_negatives: int = 16384,
    temperature: Real = 0.07,
    momentum: Real = 0.5,
) -> Criterion:
    r"""Contrastive representation distillation.

    Embeddings are :math:`v = \mathrm{normalize}(W h + b)`, learned for both networks. Each network keeps a memory of
    the embeddings r of all samples; a sample's own row in the other network's memory is told from K others,

    .. math::
        -\frac{1}{n} \sum_i \Bigl[ \log \frac{h_{ii}}{h_{ii} + K / N}
            + \sum_k \log \frac{K / N}{h_{ik} + K / N} \Bigr], \qquad h_{ij} = \frac{\exp(v_i \cdot r_j / T)}{Z}

    with Z fixed by the first batch, summed over student samples against the teacher's memory and the converse. Then the
    memories follow, :math:`r \leftarrow \mathrm{normalize}(\mu r + (1 - \mu) v)`, in training only.

    Nodes are samples, on one side those of the batch, on the other remembered ones.

    Needs: ``feat`` (n d), ``index`` (n).
    Pairing: used.
    Cost: n K d.
    Terms: ``contrast``.
    Extra parameters: two projectors, two memories (N 128).
    Equal to: authors' code, 1e-15, over steps.

    The index says where each sample stands in the data set; :class:`~graphkd.Distiller` takes it as an argument.

    Negatives are drawn evenly from the data set, once for all samples of a batch; those of a sample's own class, as
    far as labels are known, do not count. The released code draws K of other classes for each sample, without
    replacement: give them as the feature ``negatives`` (n k) to reproduce it.

    Args:
        student_dim: Width of the student's ``feat``; read off the first batch if omitted.
        teacher_dim: Width of the teacher's ``feat``; read off the first batch if omitted.
        num_samples: N, size of the data set.
        embed_dim: Width of embeddings.
        num_negatives: K. A step multiplies the batch with K rows, or with all N where ``negatives`` are given.
        temperature: T.
        momentum: :math:`\mu`.

    Raises:
        ValueError: For options out of range; at the call for an index out of range.
        KeyError: At the call without ``index``.

    >>> import torch
    >>> criterion = crd(num_samples=50, num_negatives=20)
    >>> features = lambda d: {"feat": torch.randn(6, d), "index": torch.arange(6)}
    >>> list(criterion(features(16), features(32)).terms)
    ['contrast']
    """
    checks.at_least("embed_dim", embed_dim, 1)
    checks.at_least("num_negatives", num_negatives, 1)

    def encoder(width: int | None) -> Remembering:
        embed = GraphEncoder(samples, linear(width, embed_dim))
        return Remembering(embed, MemoryBank(num_samples, embed_dim, momentum), num_negatives)

    contrast = NoiseContrast(temperature, num_samples, num_problems=2)
    return Criterion(
        encoder(student_dim),
        encoder(teacher_dim),
        terms={"contrast": Term(GraphLoss(minus_inner, reduction=contrast), student=0, teacher=1, both_ways=True)},
    )


def minus_inner(x: Tensor, y: Tensor) -> Tensor:
    """A cost from the inner product: unlike the cosine, it sees that remembered rows start shorter than one."""
    return -inner(x, y)
