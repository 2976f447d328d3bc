"""Features with the structure of classes, to see how the size of a loss changes with batch and width."""

import torch
from torch import Tensor


def class_structured(n: int, width: int, seed: int, num_classes: int = 10) -> list[dict[str, Tensor]]:
    """Of student and teacher: class means and noise of each network's own, behind a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % num_classes
    networks = []
    for _ in range(2):
        means = torch.randn(num_classes, width, generator=generator)
        noise = torch.randn(n, width, generator=generator)
        networks.append({"feat": (means[labels] + noise).relu()})
    return networks


def size(criterion, n: int, width: int, draws: int = 10) -> float:
    """The mean value of a criterion over some draws."""
    return sum(float(criterion(*class_structured(n, width, seed)).value) for seed in range(draws)) / draws


def assert_like_loops(criterion, student: dict[str, Tensor], teacher: dict[str, Tensor], by_loops, share=1e-10) -> None:
    """A criterion's value and its gradient for the student's features are those of a definition, up to a share."""
    leaves = {name: x.clone().requires_grad_() for name, x in student.items()}
    values = criterion(leaves, teacher).value, by_loops(leaves, teacher)
    torch.testing.assert_close(*values, rtol=share, atol=0)
    for x in leaves.values():
        actual, expected = (torch.autograd.grad(value, x, retain_graph=True, allow_unused=True)[0] for value in values)
        expected = torch.zeros_like(x) if expected is None else expected
        actual = torch.zeros_like(x) if actual is None else actual
        torch.testing.assert_close(actual, expected, rtol=0, atol=share * float(expected.abs().max()))
