"""Samples brought together by class, against a loop over samples."""

import pytest
import torch
from torch import Tensor

from graphkd.grouped import ByClass, Centroids, Samples


def batches(size: int = 5) -> list[tuple[Tensor, Tensor]]:
    """Twenty-three samples of three positions and two attributes, of three classes or none."""
    x = torch.arange(23 * 3 * 2, dtype=torch.float64).reshape(23, 3, 2)
    labels = torch.tensor([0, 2, 1, -100, 0] * 4 + [2, 2, 1])
    return list(zip(x.split(size), labels.split(size), strict=True))


def loop(most: int | None = None) -> list[list[Tensor]]:
    found = [[], [], []]
    for x, labels in batches(1):
        if labels >= 0 and (most is None or len(found[int(labels)]) < most):
            found[int(labels)].append(x[0])
    return found


def run(store: Samples | Centroids, most: int | None = None, size: int = 5) -> Tensor:
    seen = ByClass(store, most)
    for x, labels in batches(size):
        seen.add(x, labels)
    return seen.finish()


@pytest.mark.parametrize("size", [1, 5, 7, 23])
@pytest.mark.parametrize("most", [None, 3, 100])
def test_samples_keep_their_order_and_are_cut_to_the_smallest_class(size, most):
    wanted = torch.stack([torch.cat(found[: min(most or 5, 5)]) for found in loop()])
    assert torch.equal(run(Samples(3), most, size), wanted)


@pytest.mark.parametrize("size", [1, 5, 23])
@pytest.mark.parametrize("most", [None, 3, 100])
def test_centroids_are_means_of_all_that_are_wanted(size, most):
    wanted = torch.stack([torch.cat(found).mean(0) for found in loop(most)])
    torch.testing.assert_close(run(Centroids(3), most, size), wanted)


def test_no_more_is_held_than_is_wanted():
    store = Samples(3)
    seen = ByClass(store, 2)
    for x, labels in batches():
        seen.add(x, labels)
        assert sum(len(batch[0]) for batch in store._batches) <= 6
        assert all(batch[0].untyped_storage().nbytes() == batch[0].numel() * 8 for batch in store._batches)
    assert seen.full()
    assert seen.finish().shape == (3, 6, 2)
    assert not store._batches


def test_a_class_is_full_at_the_most_and_never_without_one():
    seen = ByClass(Samples(2), 2)
    for label, full in ((0, False), (1, False), (0, False), (-100, False), (1, True), (1, True)):
        seen.add(torch.zeros(1, 1, 1), torch.tensor([label]))
        assert seen.full() == full
    endless = ByClass(Centroids(1))
    endless.add(torch.zeros(9, 1, 1), torch.zeros(9, dtype=torch.int64))
    assert not endless.full()


def test_what_is_left_out_is_logged(caplog):
    run(Samples(3))
    assert [record.message for record in caplog.records] == [
        "class cost: skipped 4 samples without a label",
        "class cost: CKA cuts every class to the 5 samples of the smallest and drops 4 of 19",
    ]
    caplog.clear()
    run(Samples(3), 5)
    run(Centroids(3))
    assert [record.message for record in caplog.records] == ["class cost: skipped 4 samples without a label"] * 2


def test_wrong_labels_and_sizes_are_refused():
    for label in (3, -1):
        with pytest.raises(ValueError, match=f"labels need numbers from 0 to 2, or -100 for none, got {label}"):
            ByClass(Samples(3)).add(torch.zeros(2, 1, 1), torch.tensor([0, label]))
    with pytest.raises(ValueError, match="labels need one integer per sample"):
        ByClass(Samples(3)).add(torch.zeros(2, 1, 1), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="labels need one integer per sample"):
        ByClass(Samples(3)).add(torch.zeros(2, 1, 1), torch.tensor([0.1, 0.9]))
    seen = ByClass(Samples(2))
    seen.add(torch.zeros(1, 4, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"samples of one size, positions x d = \(4, 3\) as at first, got \(5, 3\)"):
        seen.add(torch.zeros(1, 5, 3), torch.tensor([1]))
    with pytest.raises(ValueError, match="needs samples of every class, got none of 1 of 2: 1$"):
        seen.finish()
    with pytest.raises(ValueError, match=r"got none of 12 of 12: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.$"):
        ByClass(Samples(12)).finish()
