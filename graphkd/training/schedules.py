"""Weights that change from epoch to epoch: of a criterion, of one of its terms, or of the task."""

import math
from dataclasses import dataclass

from graphkd import checks
from graphkd.typing import Real


@dataclass(frozen=True)
class ConstantThenCosine:
    r"""Constant, then down to zero along half a cosine.

    .. math::
        w_e = w \cdot \begin{cases} 1 & e \le e_0 \\
        \tfrac12 \bigl(1 + \cos(\pi \tfrac{e - e_0}{E - e_0})\bigr) & e > e_0 \end{cases}

    with epochs e = 1, ..., E, so the weight of the last epoch is exactly zero. Where :math:`e_0 \ge E` it stays
    constant.

    Wasserstein distance rivals Kullback-Leibler divergence for knowledge distillation (Lv, Yang, Li, NeurIPS 2024,
    arXiv:2412.08139), as in the authors' code (JiamingLv/WKD): on CIFAR-100 from epoch 150 of 240, on ImageNet mostly
    from the start (``decay_from=0``). It applies to the transport cost alone, not to the term of the target class
    beside it; schedule that one term with a weight such as ``wkd/transport``.

    Args:
        weight: w, up to and with epoch ``decay_from``.
        decay_from: :math:`e_0`, the last epoch at full weight.

    Raises:
        ValueError: At construction for a weight that is negative or not finite, or a negative epoch. At the call for
            an epoch that is not in 1..E.

    >>> schedule = ConstantThenCosine(600.0, decay_from=2)
    >>> [round(schedule(epoch, 6), 3) for epoch in range(1, 7)]
    [600.0, 600.0, 512.132, 300.0, 87.868, 0.0]
    """

    weight: Real
    decay_from: int

    def __post_init__(self) -> None:
        checks.not_negative("weight", self.weight)
        checks.at_least("decay_from", self.decay_from, 0)

    def __call__(self, epoch: int, epochs: int) -> float:
        """The weight in an epoch, counted from 1, of a total."""
        checks.epoch(epoch, epochs)
        if epoch <= self.decay_from:
            return float(self.weight)
        share = (epoch - self.decay_from) / (epochs - self.decay_from)
        return self.weight * 0.5 * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class LinearWarmup:
    r"""Up to the full weight in equal steps, then constant.

    .. math:: w_e = w \cdot \min(e / W, 1)

    with epochs e = 1, 2, ...; the full weight is reached in epoch W, and never in a run that is shorter.

    Decoupled knowledge distillation (Zhao, Cui, Song, Qiu, Liang, CVPR 2022, arXiv:2203.08679), and Distilling
    knowledge via knowledge review (Chen, Liu, Zhao, Jia, CVPR 2021, arXiv:2104.09044), both with W = 20 on CIFAR-100,
    as in the code of the former (megvii-research/mdistiller). The code of the latter counts epochs from 0: its weights
    come one epoch later.

    Args:
        weight: w, from epoch ``epochs`` on.
        epochs: W.

    Raises:
        ValueError: At construction for a weight that is negative or not finite, or fewer than 1 epoch. At the call for
            an epoch that is not in 1..E.

    >>> schedule = LinearWarmup(2.0, epochs=4)
    >>> [schedule(epoch, 6) for epoch in range(1, 7)]
    [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    """

    weight: Real
    epochs: int

    def __post_init__(self) -> None:
        checks.not_negative("weight", self.weight)
        checks.at_least("epochs", self.epochs, 1)

    def __call__(self, epoch: int, epochs: int) -> float:
        """The weight in an epoch, counted from 1, of a total."""
        checks.epoch(epoch, epochs)
        return self.weight * min(epoch / self.epochs, 1.0)
