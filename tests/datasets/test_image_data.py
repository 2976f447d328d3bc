import builtins
from collections.abc import Callable
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from graphkd import datasets, kept
from graphkd.datasets import CIFAR10Data, CIFAR100Data, DigitsData, SyntheticData
from graphkd.datasets.image_data import ImageData, Sources
from graphkd.typing import UNLABELLED

# One image of each of 100 classes to train on, and one to test on.
ONE: dict[str, Any] = {"train_per_class": 1, "test_per_class": 1, "batch_size": 30}


def epoch(loader: DataLoader, number: int) -> list[Tensor]:
    """An epoch's batches, put behind each other."""
    loader.sampler.set_epoch(number)  # pyright: ignore[reportAttributeAccessIssue]
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


@pytest.fixture(scope="module")
def sources() -> dict[int, Sources]:
    """One or three training images of each class."""
    return {per_class: SyntheticData(per_class, 1).read() for per_class in (1, 3)}


@pytest.fixture
def make(sources: dict[int, Sources]) -> Callable[..., ImageData]:
    """A data module of images that are drawn only once."""

    class Drawn(SyntheticData):
        def read(self) -> Sources:
            return sources[self.train_per_class]

    return lambda **options: Drawn(**(ONE | options))


def test_a_run_sees_the_same_whatever_loads_and_wherever_it_starts(make):
    options = {"with_view": True, "seed": 3}
    loader = make(**options).train_dataloader()
    whole = [epoch(loader, number) for number in range(4)]
    for workers in (0, 2):
        torch.manual_seed(workers)
        again = epoch(make(workers=workers, **options).train_dataloader(), 3)
        assert all(torch.equal(a, b) for a, b in zip(again, whole[3], strict=True))
    assert len({images.sum().item() for images, *_ in whole}) == 4


def test_workers_that_live_on_see_the_epochs_views(make):
    loader = make(with_view=True, workers=2, views=3).train_dataloader()
    one = make(with_view=True, views=3).train_dataloader()
    for number in (0, 1, 2, 3):
        seen = epoch(loader, number)
        assert set(seen[3].tolist()) == {number % 3}
        assert all(torch.equal(a, b) for a, b in zip(seen, epoch(one, number), strict=True))


def test_the_seed_changes_order_and_augmentation_but_not_the_split(make):
    first, second = (make(train_per_class=3, seed=seed, validation=100, with_view=True) for seed in (0, 1))
    assert torch.equal(first.parts.train.rows, second.parts.train.rows)
    one, two = (epoch(data.train_dataloader(), 0) for data in (first, second))
    assert not torch.equal(one[2], two[2])
    assert not torch.equal(one[0][one[2].argsort()], two[0][two[2].argsort()])


def test_with_views_a_sample_is_seen_in_so_many_versions_only(make):
    data = make(views=2, with_view=True)
    assert data.views == 2
    loader, versions = data.train_dataloader(), [set() for _ in range(100)]
    for number in range(5):
        images, _, index, view = epoch(loader, number)
        assert set(view.tolist()) == {number % 2}
        for image, i in zip(images, index.tolist(), strict=True):
            versions[i].add(image.sum().item())
    # Two crops may be the same by chance.
    assert {len(seen) for seen in versions} <= {1, 2}
    assert sum(len(seen) == 2 for seen in versions) > 80


def test_without_views_each_epoch_is_new(make):
    data = make(with_view=True)
    assert data.views is None
    loader = data.train_dataloader()
    first, last = (epoch(loader, number) for number in (0, 7))
    assert set(last[3].tolist()) == {7}
    order = last[2].argsort(), first[2].argsort()
    changed = (last[0][order[0]] != first[0][order[1]]).flatten(1).any(1)
    assert changed.sum() > 80


@pytest.mark.parametrize("options", [{"views": 3}, {}, {"augment": False}])
def test_a_view_in_order_is_what_its_epoch_sees(make, options):
    data = make(with_index=True, labels_per_class=1, **options)
    images, labels, index = epoch(data.train_dataloader(), 2)
    view = 0 if options == {"augment": False} else 2
    ordered = [torch.cat(parts) for parts in zip(*data.train_view_dataloader(view), strict=True)]
    assert ordered[2].tolist() == list(range(100))
    assert torch.equal(ordered[0], images[index.argsort()])
    assert torch.equal(ordered[1], labels[index.argsort()])


def test_views_differ_in_their_fingerprints(make):
    prints = [kept.data_fingerprint(make(views=2).train_view_dataloader(view)) for view in (0, 1, 0)]
    assert prints[0] == prints[2] != prints[1]


def test_without_augmentation_there_is_one_view(make):
    data = make(augment=False, with_view=True)
    assert data.views == 1
    loader = data.train_dataloader()
    (first, _, i, v), (second, _, j, w) = (epoch(loader, number) for number in (0, 1))
    assert set(v.tolist()) == set(w.tolist()) == {0}
    assert torch.equal(first[i.argsort()], second[j.argsort()])


@pytest.mark.parametrize(("options", "columns"), [
    ({}, 2), ({"with_index": True}, 3), ({"with_view": True}, 4), ({"with_index": True, "with_view": True}, 4),
])  # fmt: skip
def test_training_batches_have_what_is_asked(make, options, columns):
    data = make(**options)
    batch = next(iter(data.train_dataloader()))
    assert len(batch) == columns
    assert batch[0].dtype == torch.float32
    assert all(each.dtype == torch.int64 for each in batch[1:])
    if columns > 2:
        assert torch.equal(data.parts.train.labels[batch[2]], batch[1])
    assert len(next(iter(data.val_dataloader()))) == len(next(iter(data.test_dataloader()))) == 2


def test_held_out_images_are_not_trained_on_and_not_augmented(make):
    data, whole = make(train_per_class=3, validation=1 / 3), make(train_per_class=3, augment=False)
    train, validation, test = data.parts
    assert [len(part) for part in data.parts] == [200, 100, 100]
    assert validation.labels.bincount().tolist() == [1] * 100
    assert train.labels.bincount().tolist() == [2] * 100
    assert set(train.rows.tolist()) | set(validation.rows.tolist()) == set(range(300))
    images, labels = epoch(data.val_dataloader(), 0)
    everything = whole.train_view_dataloader()
    expected, truth, _ = (torch.cat(parts) for parts in zip(*everything, strict=True))
    assert torch.equal(images, expected[validation.rows])
    assert torch.equal(labels, truth[validation.rows])
    assert test.source is not validation.source


def test_nothing_held_out_leaves_the_test_split_to_validate_on(make):
    data = make()
    assert len(data.parts.train) == 100
    one, two = (
        [torch.cat(parts) for parts in zip(*loader, strict=True)]
        for loader in (data.val_dataloader(), data.test_dataloader())
    )
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


def test_few_labels_are_those_of_the_training_part(make):
    data = make(train_per_class=3, labels_per_class=1, validation=100)
    labels = data.parts.train.labels
    known = labels != UNLABELLED
    assert labels[known].bincount().tolist() == [1] * 100
    assert known.sum() == 100
    assert len(labels) == 200
    truth = make(train_per_class=3, validation=100).parts.train.labels
    assert torch.equal(labels[known], truth[known])
    assert (data.parts.validation.labels >= 0).all()
    assert not torch.equal(
        labels, make(train_per_class=3, labels_per_class=1, validation=100, seed=1).parts.train.labels
    )
    with pytest.raises(ValueError, match="at most 2, .* got 3"):
        make(train_per_class=3, labels_per_class=3, validation=100).setup()


def test_each_image_comes_once_in_an_epoch(make):
    _, _, index = epoch(make(with_index=True).train_dataloader(), 4)
    assert sorted(index.tolist()) == list(range(100))
    assert len(make().train_dataloader()) == 4


def test_starting_an_epoch_draws_nothing_from_the_global_generator(make):
    loader = make().train_dataloader()
    before = torch.get_rng_state()
    next(iter(loader))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("module", [SyntheticData, CIFAR100Data])
@pytest.mark.parametrize(("options", "message"), [
    ({"batch_size": 0}, "batch_size needs an integer of at least 1, got 0"),
    ({"workers": -1}, "workers needs an integer of at least 0, got -1"),
    ({"seed": -1}, "seed needs an integer of at least 0, got -1"),
    ({"labels_per_class": 0}, "labels_per_class needs an integer of at least 1, got 0"),
    ({"views": 0}, "views needs an integer of at least 1, got 0"),
    ({"validation": 1.5}, "validation needs a share .* got 1.5"),
    ({"validation": -1}, "validation needs an integer of at least 0, got -1"),
    ({"augment": False, "views": 2}, "without augmentation there is one view, got views=2"),
])  # fmt: skip
def test_bad_settings_are_refused_before_anything_is_read(module, options, message):
    with pytest.raises(ValueError, match=message):
        module(**options)


@pytest.mark.parametrize(("views", "view", "message"), [(2, 2, "0..1, got 2"), (None, -1, "at least 0, got -1")])
def test_views_that_do_not_exist_are_refused(make, views, view, message):
    with pytest.raises(ValueError, match=message):
        make(views=views).train_view_dataloader(view)


def test_without_torchvision_the_error_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "torchvision":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install graphkd\[vision\]"):
        CIFAR10Data()
    assert len(DigitsData().train[1]) == 1000


class Views(LightningModule):
    """Remembers which views each epoch's batches had."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[set[int]] = []

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_train_epoch_start(self) -> None:
        self.seen.append(set())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen[-1] |= set(batch[3].tolist())
        return self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")
@pytest.mark.parametrize(("views", "seen"), [(2, [{0}, {1}, {0}]), (None, [{0}, {1}, {2}])])
def test_lightning_says_the_epoch(make, views, seen):
    model = Views()
    Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    ).fit(model, datamodule=make(views=views, with_view=True))
    assert model.seen == seen


@pytest.mark.parametrize("name", ["CIFAR10Data", "CIFAR100Data", "TinyImageNetData", "ImageFolderData", "ImageNetData"])
@pytest.mark.parametrize("validation", [0.1, 5000])
def test_configs_build_data_from_plain_values(name, validation):
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    options = {"folder": "/nowhere", "validation": validation, "views": 4, "workers": 2, "with_view": True}
    chosen = parser.parse_object({"data": {"class_path": f"graphkd.datasets.{name}", "init_args": options}})
    data = parser.instantiate(chosen).data
    assert type(data) is getattr(datasets, name)
    assert (data.held_out, data.views, data.workers, str(data.folder)) == (validation, 4, 2, "/nowhere")
