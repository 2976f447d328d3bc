"""Several processes: batches that span all of them, with gradients that find their way back.

Every process sees the rows of all, computes the same loss on the whole batch, and sends the gradient of each row back
to the process that it came from. Parameter gradients, averaged over processes as
:class:`torch.nn.parallel.DistributedDataParallel` does, are then those of one process with the whole batch. With one
process nothing is done.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable


def world() -> int:
    """How many processes there are.

    >>> world()
    1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0.

    >>> rank()
    0
    """
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gathered(*groups: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ...]:
    r"""The rows of all processes, those of the first process first; gradients go back to where a row came from.

    .. math:: X = [X_1; \dots; X_W], \qquad \frac{\partial}{\partial X_w} = \sum_v \frac{\partial L_v}{\partial X_w}

    with the loss :math:`L_v` of process v. All processes call it together, for tensors of the same names, types and
    widths, of which the same need gradients. Their numbers of rows may differ. A step waits once for the device, since
    these numbers have to be known.

    Args:
        groups: Tensors (n ...) by name, for example a student's features and a teacher's.

    Returns:
        As many groups as were given.

    Raises:
        ValueError: With several processes, for tensors of different numbers of rows.

    >>> student, teacher = gathered({"feat": torch.ones(2, 3)}, {"feat": torch.ones(2, 5)})
    >>> student["feat"].shape, teacher["feat"].shape
    (torch.Size([2, 3]), torch.Size([2, 5]))
    """
    tensors = [x for group in groups for x in group.values()]
    if world() == 1 or not tensors:
        return tuple(dict(group) for group in groups)
    own = [x.shape[0] if x.dim() else 0 for x in tensors]
    if len(set(own)) > 1:
        raise ValueError(f"gathering over processes needs one number of rows, got {', '.join(map(str, own))}")
    sizes = _sizes(tensors[0])
    return tuple({name: _Gather.apply(x, sizes) for name, x in group.items()} for group in groups)


def agreed(x: Tensor) -> Tensor:
    """The first process's values, written into the tensor of each: for what is drawn at random and has to be the same.

    >>> agreed(torch.arange(3))
    tensor([0, 1, 2])
    """
    if world() > 1:
        dist.broadcast(x, src=0)
    return x


def summed(x: Tensor) -> Tensor:
    """The sum over processes, written into the tensor of each.

    >>> summed(torch.arange(3))
    tensor([0, 1, 2])
    """
    if world() > 1:
        dist.all_reduce(x)
    return x


def alike(x: Tensor) -> bool:
    """Whether all processes have the same tensor; all of them call it together, and get one answer.

    >>> alike(torch.arange(3))
    True
    """
    if world() == 1:
        return True
    if len(set(_sizes(x))) > 1:
        return False
    same = (agreed(x.clone()) == x).all().to(torch.int32)
    dist.all_reduce(same, dist.ReduceOp.MIN)
    return bool(same)


class _Gather(torch.autograd.Function):
    """All processes' rows; backward, the sum over processes of what they say about one's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        most = max(sizes)
        padded = x.new_zeros(most, *x.shape[1:])
        padded[: len(x)] = x
        every = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(every, padded)
        return torch.cat([rows[:size] for rows, size in zip(every, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        start = sum(ctx.sizes[: rank()])
        return grad[start : start + ctx.sizes[rank()]], None


def _sizes(x: Tensor) -> list[int]:
    """How many rows each process has."""
    own = torch.tensor([len(x)], device=x.device)
    every = [torch.empty_like(own) for _ in range(world())]
    dist.all_gather(every, own)
    return torch.cat(every).tolist()
