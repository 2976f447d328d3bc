"""Runs that stop inside an epoch, and go on to the numbers of those that did not stop."""

import random

import numpy as np
import pytest
import torch
from lightning import Callback, LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, Dataset

from graphkd import Distiller, losses
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.teachers import ema
from graphkd.training import DistillationModule, fit
from graphkd.training.folder import LAST, METRICS
from graphkd.training.run import run

QUIET = {"enable_progress_bar": False}


class Crash(RuntimeError):
    pass


class StopAt(Callback):
    """Raise when a batch begins, the epoch's batches counted from 0."""

    def __init__(self, epoch, batch):
        self.at = (epoch, batch)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise Crash


class Augmented(Dataset):
    """Digits with noise from all three global sources of random numbers."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images[1])

    def __getitem__(self, i):
        noise = 0.1 * torch.randn(1, 8, 8) + 0.1 * np.random.rand() + 0.1 * random.random()
        return self.images[0][i] + noise, self.images[1][i], i


class UserData(LightningDataModule):
    """What somebody may write: PyTorch's own shuffle, and noise that does not know the epoch."""

    def __init__(self, workers=0, generator=None):
        super().__init__()
        digits = DigitsData()
        self.images = tuple(part[:80] for part in digits.train)
        self.validation = DigitsData().val_dataloader
        self.workers, self.generator = workers, generator

    def train_dataloader(self):
        options = {"num_workers": self.workers, "generator": self.generator}
        return DataLoader(Augmented(self.images), 16, shuffle=True, **options)

    def val_dataloader(self):
        return self.validation()

    def test_dataloader(self):
        return self.validation()


def small_digits():
    data = DigitsData(batch_size=16, with_index=True)
    data.train = tuple(part[:80] for part in data.train)
    return data


def distiller(memory=True, average=False):
    """Dropout and a memory's negatives draw random numbers; batch statistics and the memory are buffers."""
    torch.manual_seed(0)
    student, teacher = SmallCNN(2), SmallCNN(4)
    student.pool.append(nn.Dropout(0.3))
    criteria = {"crd": losses.crd(num_samples=80, num_negatives=20, embed_dim=8)} if memory else {"kd": losses.kd()}
    spec = {"feat": "pool"}
    return Distiller(
        student,
        ema(student, 0.8) if average else teacher,
        student_features=spec if memory else None,
        teacher_features=spec if memory else None,
        criteria=criteria,
    )


def comparable(history):
    return {name: curve for name, curve in history.curves.items() if name != "seconds"}


def state(trained):
    return {name: value.clone() for name, value in trained.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def whole_and_cut(tmp_path, make, data, stops, **options):
    """A run, and one that is stopped in several places and goes on."""
    settings = {"epochs": 2, "seed": 1, "checkpoint_every": 1} | QUIET | options
    whole = make()
    expected = run(whole, data(), folder=tmp_path / "whole", **settings)
    for resume, stop in zip((False, *[True] * len(stops)), (*stops, None), strict=True):
        cut = make()
        torch.manual_seed(random.randrange(2**31))
        callbacks = (StopAt(*stop),) if stop else ()
        try:
            came = run(cut, data(), folder=tmp_path / "cut", resume=resume, callbacks=callbacks, **settings)
        except Crash:
            assert stop is not None
    return (whole, *expected), (cut, *came)


@pytest.mark.parametrize("stops", [[(1, 4)], [(0, 2), (0, 3), (1, 1)]])
def test_a_run_stopped_inside_an_epoch_ends_at_the_same_numbers(tmp_path, stops):
    first, second = whole_and_cut(tmp_path, distiller, small_digits, stops)
    assert same(state(first[0]), state(second[0]))
    assert comparable(first[2]) == comparable(second[2])
    assert first[1].accuracy == second[1].accuracy


@pytest.mark.parametrize("options", [{"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}, {"student_ema": 0.7}])
def test_so_does_one_that_accumulates_clips_and_averages(tmp_path, options):
    data, every = small_digits, {"checkpoint_every": 2}
    first, second = whole_and_cut(tmp_path, lambda: distiller(average=True), data, [(1, 4)], **options, **every)
    assert same(state(first[0]), state(second[0]))
    assert comparable(first[2]) == comparable(second[2])
    assert first[1].accuracy == second[1].accuracy


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("generator", [False, True])
def test_so_does_one_with_a_loader_that_draws_random_numbers_of_its_own(tmp_path, caplog, workers, generator):
    def data():
        return UserData(workers, torch.Generator().manual_seed(7) if generator else None)

    stops = [(1, 2)] if workers else [(0, 3), (1, 2)]
    first, second = whole_and_cut(tmp_path, lambda: distiller(memory=False), data, stops)
    assert same(state(first[0]), state(second[0]))
    assert comparable(first[2]) == comparable(second[2])
    assert "not those that were seen" not in caplog.text


def test_workers_of_a_run_that_goes_on_at_an_epochs_end_read_that_epoch(tmp_path):
    class Data(UserData):
        def train_dataloader(self):
            plain = small_digits().train_dataloader()
            return DataLoader(plain.dataset, 16, sampler=plain.sampler, num_workers=1)

    settings = {"checkpoint_every": None}
    first, second = whole_and_cut(tmp_path, lambda: distiller(memory=False), Data, [(1, 0)], **settings)
    assert same(state(first[0]), state(second[0]))


def test_batches_that_do_not_come_again_are_told(tmp_path, caplog):
    class Data(UserData):
        def train_dataloader(self):
            labels = torch.from_numpy(np.random.default_rng().integers(10, size=80))
            return DataLoader(torch.utils.data.TensorDataset(self.images[0], labels), 16)

    whole_and_cut(tmp_path, lambda: distiller(memory=False), Data, [(0, 2)], epochs=1)
    assert caplog.text.count("not those that were seen before the run stopped") == 1


def test_without_checkpoint_every_a_run_goes_on_from_the_beginning_of_its_epoch(tmp_path):
    settings = {"checkpoint_every": None}
    first, second = whole_and_cut(tmp_path, distiller, small_digits, [(0, 3), (1, 1)], **settings)
    assert same(state(first[0]), state(second[0]))


def test_a_run_that_stops_between_an_epochs_last_step_and_its_end_takes_up_the_last_step(tmp_path):
    class InValidation(Callback):
        def on_validation_start(self, trainer, pl_module):
            raise Crash

    settings = {"epochs": 2, "seed": 1, "checkpoint_every": 1} | QUIET
    whole, cut = distiller(), distiller()
    _, expected = run(whole, small_digits(), folder=tmp_path / "whole", **settings)
    with pytest.raises(Crash):
        run(distiller(), small_digits(), folder=tmp_path / "cut", callbacks=(InValidation(),), **settings)
    assert torch.load(tmp_path / "cut" / LAST, weights_only=True)["global_step"] == 4
    _, came = run(cut, small_digits(), folder=tmp_path / "cut", resume=True, **settings)
    assert same(state(whole), state(cut))
    assert comparable(expected) == comparable(came)


def test_the_table_has_one_row_per_epoch_however_often_a_run_is_stopped(tmp_path):
    first, _ = whole_and_cut(tmp_path, distiller, small_digits, [(0, 2), (1, 0), (1, 3)])
    tables = [(tmp_path / name / METRICS).read_text().splitlines() for name in ("whole", "cut")]
    names = tables[0][0].split(",")
    assert names[0] == "epoch" and {"train/crd", "val/accuracy", "seconds"} <= set(names)
    rows = [[dict(zip(names, row.split(","), strict=True)) for row in table[1:]] for table in tables]
    assert [row["epoch"] for row in rows[1]] == ["1", "2"]
    for one, other in zip(*rows, strict=True):
        assert {**one, "seconds": ""} == {**other, "seconds": ""}
    assert [float(row["train/crd"]) for row in rows[0]] == first[2].curves["train/crd"]


def test_a_loader_without_a_length_has_no_checkpoints_inside_an_epoch(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(Augmented(UserData().images)[i] for i in range(16))

    class Data(UserData):
        def train_dataloader(self):
            return DataLoader(Stream(), 4)

    module = DistillationModule(distiller(memory=False))
    with pytest.raises(ValueError, match="checkpoint_every needs a number of training batches"):
        fit(module, Data(), epochs=1, folder=tmp_path, checkpoint_every=2, **QUIET)
    fit(module, Data(), epochs=1, folder=tmp_path, **QUIET)


@pytest.mark.parametrize(("every", "match"), [(0, "at least 1, got 0"), (-1, "got -1")])
def test_checkpoints_every_no_step_are_refused(tmp_path, every, match):
    with pytest.raises(ValueError, match=match):
        fit(DistillationModule(distiller()), small_digits(), epochs=1, folder=tmp_path, checkpoint_every=every)


def test_checkpoints_without_a_folder_are_refused():
    with pytest.raises(ValueError, match="checkpoint_every needs a folder"):
        fit(DistillationModule(distiller()), small_digits(), epochs=1, checkpoint_every=1)


def test_more_epochs_go_on_along_the_longer_cosine(tmp_path):
    rates = []

    class Rates(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    settings = {"seed": 0, "folder": tmp_path, "callbacks": (Rates(),)} | QUIET
    run(distiller(), small_digits(), epochs=2, **settings)
    assert rates == pytest.approx([0.05, 0.025])
    rates.clear()
    _, history = run(distiller(), small_digits(), epochs=6, resume=True, **settings)
    assert rates == pytest.approx([0.05 * (1 + np.cos(np.pi * epoch / 6)) / 2 for epoch in range(2, 6)])
    assert len(history.curves["val/accuracy"]) == 6


def test_fewer_epochs_than_a_checkpoint_has_are_refused(tmp_path):
    settings = {"seed": 0, "folder": tmp_path} | QUIET
    run(distiller(), small_digits(), epochs=2, **settings)
    with pytest.raises(ValueError, match="needs at least the 2 epochs of the checkpoint, got 1"):
        run(distiller(), small_digits(), epochs=1, resume=True, **settings)


def test_a_checkpoint_can_be_read_without_running_what_it_says(tmp_path):
    with pytest.raises(Crash):
        run(
            distiller(),
            small_digits(),
            epochs=1,
            seed=0,
            folder=tmp_path,
            checkpoint_every=2,
            callbacks=(StopAt(0, 3),),
            **QUIET,
        )
    content = torch.load(tmp_path / LAST, weights_only=True)
    assert content["global_step"] == 2
    assert content["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["batches"] == 2
