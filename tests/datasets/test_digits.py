import pytest
import torch

from graphkd.datasets import DigitsData
from graphkd.datasets.digits import TEST, TRAIN, VALIDATION
from graphkd.typing import UNLABELLED


def test_splits_are_disjoint_and_cover_all_images():
    data = DigitsData()
    parts = [data.train, data.validation, data.test]
    assert [len(images) for images, _ in parts] == [TRAIN, VALIDATION, TEST]
    images = torch.cat([part[0] for part in parts]).flatten(1)
    from sklearn.datasets import load_digits

    original = torch.tensor(load_digits().images, dtype=torch.float32).flatten(1) / 16
    restored = torch.round((images * 0.376 + 0.305) * 16)
    assert sorted(map(tuple, restored.tolist())) == sorted(map(tuple, (original * 16).tolist()))


def test_each_class_keeps_as_many_labels_as_asked():
    _, labels = DigitsData(labels_per_class=7, seed=3).train
    kept = labels[labels != UNLABELLED]
    assert kept.bincount().tolist() == [7] * 10


def test_kept_labels_are_the_true_ones_and_depend_on_the_seed_only():
    _, truth = DigitsData().train
    _, few = DigitsData(labels_per_class=5, seed=1).train
    _, again = DigitsData(labels_per_class=5, seed=1).train
    _, other = DigitsData(labels_per_class=5, seed=2).train
    known = few != UNLABELLED
    assert torch.equal(few[known], truth[known])
    assert torch.equal(few, again)
    assert not torch.equal(few, other)


def test_validation_and_test_keep_all_labels():
    data = DigitsData(labels_per_class=1)
    for _, labels in (data.validation, data.test):
        assert (labels != UNLABELLED).all()


def test_batches_hold_every_image_once_and_change_with_the_epoch():
    data = DigitsData(batch_size=300)
    loader = data.train_dataloader()
    first = torch.cat([images for images, _ in loader])
    assert sorted(first.flatten(1).sum(1).tolist()) == sorted(data.train[0].flatten(1).sum(1).tolist())
    loader.sampler.set_epoch(1)
    assert not torch.equal(first, torch.cat([images for images, _ in loader]))


def test_starting_an_epoch_draws_nothing_from_the_global_generator():
    loader = DigitsData().train_dataloader()
    before = torch.get_rng_state()
    next(iter(loader))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("options", "message"), [
    ({"labels_per_class": 0}, "at least 1, got 0"),
    ({"labels_per_class": 500}, "at most .* got 500"),
    ({"batch_size": 0}, "at least 1, got 0"),
])  # fmt: skip
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DigitsData(**options)


def test_training_batches_say_where_their_images_stand_if_asked():
    data = DigitsData(batch_size=50, with_index=True)
    seen = []
    for images, labels, index in data.train_dataloader():
        assert torch.equal(images, data.train[0][index])
        assert torch.equal(labels, data.train[1][index])
        seen += index.tolist()
    assert sorted(seen) == list(range(TRAIN))
    assert len(next(iter(DigitsData().train_dataloader()))) == 2
    assert len(next(iter(data.val_dataloader()))) == 2


def test_batches_say_the_only_view_if_asked():
    data = DigitsData(batch_size=50, with_view=True)
    images, labels, index, view = next(iter(data.train_dataloader()))
    assert torch.equal(images, data.train[0][index])
    assert torch.equal(labels, data.train[1][index])
    assert view.tolist() == [0] * 50
    assert data.views == 1
    assert data.num_classes == 10


def test_the_only_view_comes_in_order():
    data = DigitsData(labels_per_class=5)
    images, labels, index = (torch.cat(parts) for parts in zip(*data.train_view_dataloader(), strict=True))
    assert index.tolist() == list(range(TRAIN))
    assert torch.equal(images, data.train[0])
    assert torch.equal(labels, data.train[1])
    with pytest.raises(ValueError, match="view in 0..0, .* got 1"):
        data.train_view_dataloader(1)
