import pytest
import torch
from torch.utils.data import DataLoader

from graphkd import parallel
from graphkd.datasets.sampling import EpochShuffle, EpochViews, InOrder


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch):
    """Be one of several processes, as far as samplers can see."""

    def be(rank: int, world: int) -> None:
        monkeypatch.setattr(parallel, "rank", lambda: rank)
        monkeypatch.setattr(parallel, "world", lambda: world)

    return be


def test_order_depends_on_seed_and_epoch():
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        sampler = EpochShuffle(50, seed, batch_size=8)
        sampler.set_epoch(epoch)
        orders.append(tuple(sampler))
        assert sorted(orders[-1]) == list(range(50))
        assert len(sampler) == 50
    assert len(set(orders)) == 3


@pytest.mark.parametrize(("size", "world"), [(48, 2), (50, 2), (53, 4), (16, 4), (15, 4), (7, 4)])
def test_processes_together_see_the_batches_of_one(process, size: int, world: int):
    process(0, 1)
    whole = [batch.tolist() for batch in loader(EpochShuffle(size, 3, 4 * world), 4 * world)]
    steps = []
    for rank in range(world):
        process(rank, world)
        sampler = EpochShuffle(size, 3, 4)
        steps.append([batch.tolist() for batch in loader(sampler, 4)])
        assert len(sampler) == sum(map(len, steps[-1]))
    assert len({len(each) for each in steps}) == 1
    for together, batch in zip(zip(*steps, strict=True), whole, strict=True):
        assert sorted(i for each in together for i in each) == sorted(batch)


def test_no_process_is_left_without_a_last_batch(process):
    seen = []
    for rank in range(4):
        process(rank, 4)
        sampler = EpochShuffle(18, 0, batch_size=4)
        seen.append(list(sampler))
        assert len(seen[-1]) == len(sampler) == 5
    together = [i for each in seen for i in each]
    assert set(together) == set(range(18))
    process(0, 1)
    assert sorted(together) == sorted([*range(18), *list(EpochShuffle(18, 0, 4))[:2]])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_in_order_every_sample_comes_once(process, world: int):
    seen = []
    for rank in range(world):
        process(rank, world)
        sampler = InOrder(10)
        assert len(sampler) == len(list(sampler))
        seen += list(sampler)
    assert sorted(seen) == list(range(10))


@pytest.mark.parametrize(("views", "seen"), [(None, [0, 1, 2, 3, 4]), (1, [0, 0, 0, 0, 0]), (3, [0, 1, 2, 0, 1])])
def test_keys_are_the_shuffle_with_the_epochs_view(process, views, seen):
    process(1, 2)
    sampler, order = EpochViews(EpochShuffle(13, 5, batch_size=3), views), EpochShuffle(13, 5, batch_size=3)
    for epoch, view in enumerate(seen):
        sampler.set_epoch(epoch)
        order.set_epoch(epoch)
        assert list(sampler) == [(index, view) for index in order]
        assert len(sampler) == len(order) == len(list(sampler))


def test_bad_sizes_are_refused(process):
    with pytest.raises(ValueError, match="batch_size .* at least 1, got 0"):
        EpochShuffle(10, 0, 0)
    with pytest.raises(ValueError, match="views .* at least 1, got 0"):
        EpochViews(EpochShuffle(10, 0, 1), 0)
    process(0, 4)
    with pytest.raises(ValueError, match="the 4 processes, got 3"):
        list(InOrder(3))


def loader(sampler: EpochShuffle, batch_size: int) -> DataLoader:
    return DataLoader(torch.arange(sampler.size), batch_size, sampler=sampler)
