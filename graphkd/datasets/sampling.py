"""Which samples come when, and to which process: from seed and epoch only, so that a resumed run sees the same ones."""

from collections.abc import Iterator

import torch
from torch.utils.data import DistributedSampler

from graphkd import checks, parallel


class EpochShuffle(DistributedSampler):
    """A shuffle that depends on seed and epoch only, dealt out to the processes of a run.

    Step by step the processes' batches are together one batch of the whole order, ``batch_size`` samples each, so that
    a run of several processes sees the batches of a run of one with as many times the batch size. What remains at an
    epoch's end is dealt out evenly, as one smaller batch each. Only where fewer samples than processes remain do some
    of the epoch's first samples come again, so that no process is left without.

    It is a :class:`~torch.utils.data.DistributedSampler` so that trainers that know those leave it as it is.

    Args:
        size: How many samples there are.
        seed: Of the order.
        batch_size: Samples of a process in a step, as its loader has it.

    >>> sampler = EpochShuffle(4, seed=0, batch_size=2)
    >>> sorted(sampler) == [0, 1, 2, 3] and list(sampler) == list(sampler)
    True
    """

    def __init__(self, size: int, seed: int, batch_size: int) -> None:
        checks.at_least("batch_size", batch_size, 1)
        super().__init__(range(size), num_replicas=1, rank=0, seed=seed)  # pyright: ignore[reportArgumentType]
        self.size, self.batch_size = size, batch_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is next; the trainer calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.size, generator=generator).tolist()
        rank, world = parallel.rank(), parallel.world()
        together = self.batch_size * world
        for start in range(0, self.size, together):
            batch = order[start : start + together]
            batch += order[: max(world - len(batch), 0)]
            yield from batch[rank::world]

    def __len__(self) -> int:
        full, rest = divmod(self.size, self.batch_size * parallel.world())
        dealt = range(parallel.rank(), max(rest, parallel.world()), parallel.world()) if rest else ()
        return full * self.batch_size + len(dealt)


class InOrder(DistributedSampler):
    """Every sample once, in order, dealt out to the processes of a run: each is measured once.

    Processes may have different numbers of batches, so nothing that all of them have to join may happen at each.

    Args:
        size: How many samples there are.

    Raises:
        ValueError: When it is read, for fewer samples than processes.

    >>> list(InOrder(3))
    [0, 1, 2]
    """

    def __init__(self, size: int) -> None:
        super().__init__(range(size), num_replicas=1, rank=0, shuffle=False)  # pyright: ignore[reportArgumentType]
        self.size = size

    def __iter__(self) -> Iterator[int]:
        return iter(self._share())

    def __len__(self) -> int:
        return len(self._share())

    def _share(self) -> range:
        world = parallel.world()
        if self.size < world:
            raise ValueError(f"needs at least as many samples as the {world} processes, got {self.size}")
        return range(parallel.rank(), self.size, world)


class EpochViews(DistributedSampler):
    """Each sample of a shuffle as a key (index, view): which version of a randomly augmented sample an epoch sees.

    The key travels to the process that loads the sample, so that none of them has to know the epoch.

    Args:
        order: What deals out the samples.
        views: In how many versions each sample exists: epoch e has version e mod views. None: a new one in each epoch.

    >>> sampler = EpochViews(EpochShuffle(2, seed=0, batch_size=2), views=3)
    >>> sampler.set_epoch(4)
    >>> sorted(sampler)
    [(0, 1), (1, 1)]
    """

    def __init__(self, order: EpochShuffle, views: int | None) -> None:
        if views is not None:
            checks.at_least("views", views, 1)
        super().__init__(range(order.size), num_replicas=1, rank=0, seed=order.seed)  # pyright: ignore[reportArgumentType]
        self.order, self.views = order, views

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and view are next; the trainer calls it."""
        self.epoch = epoch
        self.order.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        view = self.epoch if self.views is None else self.epoch % self.views
        return ((index, view) for index in self.order)

    def __len__(self) -> int:
        return len(self.order)
