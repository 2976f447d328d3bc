"""Where a run stands inside an epoch: the batches it has seen, and the random numbers to come."""

import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import distributed

from graphkd import kept, parallel

logger = logging.getLogger(__name__)


class ResumableLoader:
    """Training batches whose place in an epoch can be saved, and found again.

    A run that goes on inside an epoch reads the epoch's batches from the first, drops those that it has seen, and then
    brings the random numbers of PyTorch, NumPy and Python to where they were. That is exact for every loader whose
    order and augmentation come from these, seeded anew in each epoch, from ``set_epoch`` of its sampler, or from
    generators of the loader and its sampler, which are seeded anew in each epoch here. Where it is not, the last batch
    that was seen does not come again, and a warning says so.

    Nothing is read before the first batch is asked for: Lightning makes the iterator of a run that goes on before it
    tells the sampler the epoch, and workers would fetch the first epoch's batches.

    Args:
        loader: Where batches come from.
        epoch: Says which epoch it is.

    >>> loader = ResumableLoader([1, 2, 3], epoch=lambda: 0)
    >>> batches = iter(loader)
    >>> next(batches), next(batches)
    (1, 2)
    >>> again = ResumableLoader([1, 2, 3], epoch=lambda: 0)
    >>> again.load_state_dict(loader.state_dict())
    >>> list(again), list(again)
    ([3], [1, 2, 3])
    """

    def __init__(self, loader: Any, epoch: Callable[[], int]) -> None:
        self.loader, self._epoch = loader, epoch
        # Lightning looks for samplers under these names, to tell them the epoch.
        self.sampler = getattr(loader, "sampler", None)
        self.batch_sampler = getattr(loader, "batch_sampler", None)
        self._seeds = {generator: generator.initial_seed() for generator in _generators(loader)}
        self._seen = 0
        self._last: Any = None
        self._state: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for generator, seed in self._seeds.items():
            generator.manual_seed((seed + 1_000_003 * self._epoch()) % 2**63)
        state, self._state = self._state, {}
        before = state.get("batches", 0)
        self._seen = 0
        for batch in self.loader:
            self._seen += 1
            if self._seen > before:
                self._last = batch
                yield batch
            elif self._seen == before:
                _take_up(state["processes"][parallel.rank()], batch)

    def state_dict(self) -> dict[str, Any]:
        """How many batches were seen, what the last one was, and the state of random numbers, of all processes."""
        own = {"last": _digest(self._last), "random": random_state()}
        every = [own]
        if parallel.world() > 1:
            every = [own] * parallel.world()
            distributed.all_gather_object(every, own)
        return {"batches": self._seen, "processes": every}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin the next epoch behind the batches that were seen.

        Raises:
            ValueError: For a state of another number of processes, whose batches were others.
        """
        if len(state_dict["processes"]) != parallel.world():
            raise ValueError(
                f"a run that stopped inside an epoch needs {len(state_dict['processes'])} processes to go on, as it "
                f"had, got {parallel.world()}"
            )
        self._state = state_dict


def random_state() -> dict[str, Any]:
    """The state of the random numbers of PyTorch, here and on the present accelerator, NumPy and Python.

    >>> before = random_state()
    >>> numbers = torch.rand(1), np.random.rand(), random.random()
    >>> set_random_state(before)
    >>> numbers == (torch.rand(1), np.random.rand(), random.random())
    True
    """
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Bring random numbers to a state of :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    random.setstate(state["python"])


def _generators(loader: Any) -> list[torch.Generator]:
    """Those that the loader and its samplers draw from."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found = {id(each): each for each in (getattr(owner, "generator", None) for owner in owners)}
    return [each for each in found.values() if isinstance(each, torch.Generator)]


def _take_up(state: dict[str, Any], last: Any) -> None:
    """Go on behind the last batch that was seen."""
    if state["last"] != _digest(last):
        logger.warning(
            "the epoch's batches are not those that were seen before the run stopped: it goes on, but not to the "
            "numbers of an uninterrupted run; for that, order and augmentation need to depend on seed and epoch only"
        )
    set_random_state(state["random"])


def _digest(batch: Any) -> str | None:
    """Labels and index, which tell batches from others; None where they hold what cannot be read.

    Not the inputs: those that were seen may be augmented otherwise when they come again, without harm, since the random
    numbers after them are brought to what they were.
    """
    try:
        return kept.digest(batch[1:] if isinstance(batch, list | tuple) else batch)
    except ValueError:
        return None
