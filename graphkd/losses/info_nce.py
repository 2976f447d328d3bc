"""Information noise-contrastive estimation (InfoNCE): a sample's teacher told from those of the rest of the batch.

van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018, arXiv:1807.03748. As a
loss between two networks it is the plain baseline of contrastive distillation, without a memory.
"""

from functools import partial

from graphkd import checks
from graphkd.contrasts import InfoNCE
from graphkd.encoders import GraphEncoder
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.measures import cosine_distance
from graphkd.memory import samples_apart
from graphkd.projectors import linear
from graphkd.typing import Real


def info_nce(
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    *,
    embed_dim: int = 128,
    temperature: Real = 0.07,
    symmetric: bool = False,
    same_class: bool = True,
) -> Criterion:
    r"""InfoNCE between the two networks, in the batch.

    .. math::
        -\frac{1}{n} \sum_i \log \frac{\exp(\cos(v^s_i, v^t_i) / T)}{\sum_j \exp(\cos(v^s_i, v^t_j) / T)},
        \qquad v = W h + b

    the cross-entropy of each student sample's similarities to all of the batch's teacher samples, with its own as the
    class. W and b are learned for both networks. Nodes are samples, the cost is the cosine distance, the coupling of
    partners the identity, the reduction :class:`~graphkd.contrasts.InfoNCE`.

    Needs: ``feat`` (n d).
    Pairing: used.
    Cost: n² d.
    Terms: ``contrast``.
    Extra parameters: two projectors.
    Equal to: its definition.

    Labels change nothing by default: samples of one class are pushed apart like any others, as in the textbook. With
    ``same_class=False`` they are no negatives of each other; a sample without a label (-100) stays the negative of all.
    The value of a uniform guess is log n: intensive but for that.

    Args:
        student_dim: Width of the student's ``feat``; read off the first batch if omitted.
        teacher_dim: Width of the teacher's ``feat``; read off the first batch if omitted.
        embed_dim: Width of embeddings.
        temperature: T.
        symmetric: Whether each teacher sample is also told its student; the two directions add up.
        same_class: Whether samples of one class are negatives of each other.

    Raises:
        ValueError: For options out of range.

    >>> import torch
    >>> criterion = info_nce(embed_dim=8)
    >>> output = criterion({"feat": torch.zeros(4, 3)}, {"feat": torch.zeros(4, 5)})
    >>> round(output.value.item(), 4)  # All alike: log 4.
    1.3863
    """
    checks.at_least("embed_dim", embed_dim, 1)
    build = partial(samples_apart, same_class=same_class)
    loss = GraphLoss(cosine_distance, reduction=InfoNCE(temperature))
    return Criterion(
        GraphEncoder(build, linear(student_dim, embed_dim)),
        GraphEncoder(build, linear(teacher_dim, embed_dim)),
        {"contrast": Term(loss, both_ways=symmetric)},
    )
