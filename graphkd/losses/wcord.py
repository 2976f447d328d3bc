"""Wasserstein contrastive representation distillation (WCoRD): a dual term over the data, a primal one in the batch.

Chen, Wang, Gan, Liu, Henao, Carin, "Wasserstein Contrastive Representation Distillation", CVPR 2021, arXiv:2012.08674.
Its authors have published no code: what the paper leaves open is ours, and marked below.
"""

from typing import Literal

from torch import nn

from graphkd import checks
from graphkd.couplings import IPOT, Sinkhorn
from graphkd.encoders import Encoder, GraphEncoder, Remembering
from graphkd.graphs import samples
from graphkd.loss import Criterion, GraphLoss, Term
from graphkd.losses.crd import minus_inner
from graphkd.measures import cosine_distance
from graphkd.memory import MemoryBank, samples_apart
from graphkd.projectors import SpectralLinear, linear
from graphkd.reductions import NoiseContrast, TransportCost
from graphkd.typing import Real


def wcord(
    student_dim: int | None = None,
    teacher_dim: int | None = None,
    *,
    num_samples: int | None = None,
    embed_dim: int = 128,
    negatives: Literal["bank", "batch"] = "bank",
    num_negatives: int = 16384,
    temperature: Real = 0.07,
    momentum: Real = 0.5,
    global_weight: Real = 0.8,
    local_weight: Real = 0.05,
    solver: Literal["ipot", "sinkhorn"] = "ipot",
    beta: Real = 0.5,
    num_iters: int = 50,
) -> Criterion:
    r"""Wasserstein contrastive representation distillation.

    .. math::
        L = \lambda_1 \underbrace{\Bigl(\mathop{\mathrm{mean}}_{\text{incongruent}} g
            - \mathop{\mathrm{mean}}_{\text{congruent}} g\Bigr)}_{\texttt{global}}
        + \lambda_2 \underbrace{\min_{P 1 = P^\top 1 = 1/n} \langle P, M\rangle}_{\texttt{local}}, \qquad
        M_{ij} = 1 - \cos(v^s_i, v^t_j)

    ``global`` (GCKT) is the dual form of a Wasserstein distance between joint and product distribution of the two
    networks' features, ``local`` (LCKT) the primal form between the two sets of features in a batch.

    From the paper: both forms and their weights; the objective of contrastive representation distillation
    (:func:`~graphkd.losses.crd.crd`) with the logarithms dropped; a critic made 1-Lipschitz by spectral normalisation;
    negatives from a memory of the data set; the cosine cost; the plan held constant for the gradient; Algorithm 1,
    which is the proximal point method IPOT, though it is called Sinkhorn. Its masses would make the plan sum to 1/n, 64
    times too small at batch 64; here they sum to 1, as in the first author's earlier code.

    Ours, where the paper is silent: the critic is :math:`g = h / (h + K / N)`, :math:`h_{ij} = \exp(v_i \cdot r_j / T)
    / Z`, on :math:`v = \mathrm{normalize}(W h / \sigma(W) + b)`; it is summed over both anchors, student samples
    against the teacher's memory and the converse, as in CRD; incongruent pairs count by their mean, as in the dual of a
    Wasserstein distance, where the paper multiplies it by their number: with that, and this critic, training on digits
    ended at g = 0 for all pairs; beta, iterations and inner iterations are those of the first author's code; ``local``
    compares the same embeddings v. Where ``global`` has weight 0 nothing would keep learned embeddings of both networks
    from collapsing: then ``local`` compares the features themselves, the student's projected to the teacher's width
    where the two widths are given and differ.

    Nodes are samples.

    Needs: ``feat`` (n d); ``index`` (n) for the memory.
    Pairing: used; ignored by ``local``.
    Cost: n K d + n² (d + 50).
    Terms: ``global``, ``local``.
    Extra parameters: two projectors, two memories (N 128).
    Equal to: its solver: first author's code, 1e-8; no code of its own is public.

    The index says where each sample stands in the data set; :class:`~graphkd.Distiller` takes it as an argument.

    Args:
        student_dim: Width of the student's ``feat``; read off the first batch if omitted.
        teacher_dim: Width of the teacher's ``feat``; read off the first batch if omitted.
        num_samples: N, size of the data set; needed for the bank.
        embed_dim: Width of embeddings.
        negatives: ``bank`` draws them from the data set, ``batch`` takes the other samples of the batch and needs no
            memory; those of a sample's own class, as far as labels are known, do not count.
        num_negatives: K, of the bank.
        temperature: T.
        momentum: Of the bank.
        global_weight: :math:`\lambda_1`; with 0 the term is left out.
        local_weight: :math:`\lambda_2`; with 0 the term is left out.
        solver: Of ``local``: ``ipot``, which tends to the unregularised plan, or ``sinkhorn``.
        beta: Weight of IPOT's proximal term, or the entropic weight of Sinkhorn, in units of the cost.
        num_iters: Of the solver.

    Raises:
        ValueError: For options out of range, a bank without ``num_samples``, and no term at all.
        KeyError: At the call without what is needed.

    >>> import torch
    >>> criterion = wcord(16, 32, negatives="batch")
    >>> list(criterion({"feat": torch.randn(6, 16)}, {"feat": torch.randn(6, 32)}).terms)
    ['global', 'local']
    """
    checks.one_of("negatives", negatives, ("bank", "batch"))
    checks.one_of("solver", solver, ("ipot", "sinkhorn"))
    checks.at_least("embed_dim", embed_dim, 1)
    checks.at_least("num_negatives", num_negatives, 1)
    if global_weight == local_weight == 0:
        raise ValueError("needs a term, got global_weight and local_weight of 0")
    # As Algorithm 1 has it: the teacher's masses first, the student's last.
    order = "columns_first"
    coupling = IPOT(beta, num_iters, order=order) if solver == "ipot" else Sinkhorn(beta, num_iters, order=order)
    local = Term(GraphLoss(cosine_distance, coupling=coupling, reduction=TransportCost()), local_weight)
    if global_weight == 0:
        same = None in (student_dim, teacher_dim) or student_dim == teacher_dim
        embed = None if same or teacher_dim is None else linear(student_dim, teacher_dim)
        return Criterion(GraphEncoder(samples, embed), GraphEncoder(samples), {"local": local})
    if negatives == "bank" and num_samples is None:
        raise ValueError("negatives='bank' needs num_samples, the size of the data set; or choose negatives='batch'")

    def encoder(width: int | None) -> Encoder:
        embed: nn.Module = SpectralLinear(width, embed_dim)
        if num_samples is None or negatives == "batch":
            return GraphEncoder(samples_apart, embed)
        return Remembering(GraphEncoder(samples, embed), MemoryBank(num_samples, embed_dim, momentum), num_negatives)

    in_bank = negatives == "bank"
    contrast = NoiseContrast(temperature, num_samples if in_bank else None, logs=False, num_problems=2)
    loss = GraphLoss(minus_inner, reduction=contrast)
    terms = {"global": Term(loss, global_weight, student=0, teacher=int(in_bank), both_ways=True)}
    if local_weight != 0:
        terms["local"] = local
    return Criterion(encoder(student_dim), encoder(teacher_dim), terms)
