"""Samples that come in batches, brought together by class: all of them, or their means."""

from collections import deque

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from graphkd import checks
from graphkd.typing import UNLABELLED

Positions = Float[Tensor, "n p d"]
PerSample = Int[Tensor, " n"]


class Samples:
    """The features of all samples, each with its class and its place among those of its class.

    >>> store = Samples(2)
    >>> store.add(torch.tensor([[[1.0]], [[2.0]]]), torch.tensor([1, 0]), torch.tensor([0, 0]))
    >>> store.finish(torch.tensor([1, 1]))
    tensor([[[2.]],
            [[1.]]])
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._batches: deque[tuple[Tensor, Tensor, Tensor]] = deque()

    def add(self, x: Positions, labels: PerSample, places: PerSample) -> None:
        """Take in n samples of p positions."""
        if self._batches and self._batches[0][0].shape[1:] != x.shape[1:]:
            first, came = tuple(self._batches[0][0].shape[1:]), tuple(x.shape[1:])
            raise ValueError(f"CKA needs samples of one size, positions x d = {first} as at first, got {came}")
        if len(x):
            self._batches.append((x, labels, places))

    def finish(self, counts: Int[Tensor, " c"]) -> Float[Tensor, "c m d"]:
        """Every class cut to the smallest, positions next to each other; batches are let go on the way."""
        m, total = int(counts.min()), int(counts.sum())
        dropped = total - self.classes * m
        if dropped > 0.1 * total:
            checks.logger.warning(
                f"class cost: CKA cuts every class to the {m} samples of the smallest and drops {dropped} of {total}"
            )
        x = self._batches[0][0]
        grouped = x.new_empty(self.classes, m, *x.shape[1:])
        while self._batches:
            x, labels, places = self._batches.popleft()
            used = places < m
            grouped[labels[used], places[used]] = x[used]
        return grouped.flatten(1, 2)


class Centroids:
    """Running sums of each class's features, a sample being the mean of its positions.

    >>> store = Centroids(2)
    >>> store.add(torch.tensor([[[1.0]], [[2.0]], [[4.0]]]), torch.tensor([1, 0, 0]), torch.tensor([0, 0, 1]))
    >>> store.finish(torch.tensor([2, 1]))
    tensor([[3.],
            [1.]])
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._sums: Tensor | None = None

    def add(self, x: Positions, labels: PerSample, places: PerSample) -> None:
        """Take in n samples of p positions."""
        # A product, since an indexed sum has no fixed order on a GPU.
        sums = F.one_hot(labels, self.classes).to(x.dtype).T @ x.mean(1)
        self._sums = sums if self._sums is None else self._sums + sums

    def finish(self, counts: Int[Tensor, " c"]) -> Float[Tensor, "c d"]:
        """The mean of each class."""
        assert self._sums is not None
        return self._sums / counts.unsqueeze(1)


class ByClass:
    """The first samples of each class, in the order they come in, without those that have no label.

    Args:
        store: What becomes of the samples.
        most: Samples of each class that are wanted; all, if None.

    >>> seen = ByClass(Centroids(2), most=1)
    >>> seen.add(torch.tensor([[[1.0]], [[2.0]], [[4.0]]]), torch.tensor([1, 0, 0]))
    >>> seen.full(), seen.finish().tolist()
    (True, [[2.0], [1.0]])
    """

    def __init__(self, store: Samples | Centroids, most: int | None = None) -> None:
        self.store = store
        self.most = torch.iinfo(torch.int64).max if most is None else most
        self.unlabelled = 0
        self.counts = torch.zeros(store.classes, dtype=torch.int64)

    def add(self, x: Positions, labels: Tensor) -> None:
        """Take in a batch: labels (n), -100 for none."""
        checks.class_labels(labels.cpu(), torch.empty(len(x), self.store.classes, device="meta"))
        labels = labels.to(x.device, torch.int64)
        labelled = labels != UNLABELLED
        self.unlabelled += int((~labelled).sum())
        x, labels = x[labelled], labels[labelled]
        one_hot = F.one_hot(labels, self.store.classes)
        before = self.counts.to(x.device)
        places = ((one_hot.cumsum(0) - 1 + before) * one_hot).sum(1)
        wanted = places < self.most
        self.store.add(x[wanted], labels[wanted], places[wanted])
        self.counts = (before + one_hot.sum(0)).clamp_max(self.most)

    def full(self) -> bool:
        """Whether no class needs another sample."""
        return bool((self.counts == self.most).all())

    def finish(self) -> Tensor:
        """What the store has made of them; logs how many had no label.

        Raises:
            ValueError: For classes without samples.
        """
        if self.unlabelled:
            checks.logger.warning(f"class cost: skipped {self.unlabelled} samples without a label")
        missing = (self.counts == 0).nonzero().flatten().tolist()
        if missing:
            few = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
            raise ValueError(f"needs samples of every class, got none of {len(missing)} of {len(self.counts)}: {few}")
        return self.store.finish(self.counts)
