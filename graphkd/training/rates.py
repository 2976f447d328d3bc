"""The learning rate of a run that names no schedule."""

import math
from typing import Any

from torch.optim.lr_scheduler import CosineAnnealingLR


class CosineToZero(CosineAnnealingLR):
    r"""A cosine over the epochs of a run, stepped once an epoch.

    .. math:: \eta_t = \tfrac12 \eta_0 (1 + \cos(\pi t / T))

    A run that is resumed for more epochs than it began with goes on at the rate that the longer cosine has there. The
    epochs before had the shorter one's, so that it is not the run that would have been as long from the start.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> CosineToZero(optimizer, T_max=4).get_last_lr()
    [1.0]
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's epoch, over the epochs that are asked for now."""
        epochs = self.T_max
        super().load_state_dict(state_dict)
        if epochs == self.T_max:
            return
        self.T_max = epochs
        rates = [rate * (1 + math.cos(math.pi * self.last_epoch / epochs)) / 2 for rate in self.base_lrs]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = rates
