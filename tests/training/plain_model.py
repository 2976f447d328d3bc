"""A model without batch statistics, so that several processes train it as one does."""

import torch
from torch import nn


class Plain(nn.Sequential):
    """A perceptron on digits; its hidden layer is module 2."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def seeded(width: int) -> Plain:
    """The same weights whatever was drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Plain(width)
