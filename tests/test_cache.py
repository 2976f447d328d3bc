"""The teacher cache: the teacher's own values, whole or not there, and none but those that were asked for."""

import errno
import io
import os
import pickle
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from processes import context
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from graphkd import parallel
from graphkd.cache import TeacherCache, build, build_cache, made_of, writing
from graphkd.cache.functions import described
from graphkd.features import FeatureExtractor
from graphkd.sources import Derived
from graphkd.teachers import ema

SAMPLES, VIEWS, BATCH = 11, 3, 4
FEATURES = {"feat": "1", "early/map": "0"}


def network(seed: int = 0, scale: float = 1.0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 6), nn.Dropout(), nn.BatchNorm1d(6), nn.Linear(6, 3))
    with torch.no_grad():
        model[3].weight *= scale
    return model


def images(seed: int = 0) -> torch.Tensor:
    return torch.rand(VIEWS, SAMPLES, 5, generator=torch.Generator().manual_seed(seed))


class Views:
    """Loaders of a view, of some or all columns of samples; ``order`` says which samples come."""

    def __init__(self, x=None, index=None, order=None, batch=BATCH):
        self.x = images() if x is None else x
        samples = self.x.shape[1]
        self.index = torch.arange(samples) if index is None else torch.as_tensor(index)
        self.order = range(samples) if order is None else order
        self.batch = batch

    def __call__(self, view: int) -> DataLoader:
        dataset = TensorDataset(self.x[view], torch.zeros(len(self.index)), self.index)
        return DataLoader(dataset, self.batch, sampler=list(self.order))


def built(folder: Path, teacher=None, views=None, number=VIEWS, **options) -> TeacherCache:
    views = views or Views()
    options = {"features": FEATURES, "dtype": "float32"} | options
    return build_cache(folder / "cache", teacher or network(), views, number, progress=False, **options)


def expected(teacher: nn.Module, view: int, batch: int = BATCH, features=None) -> dict[str, torch.Tensor]:
    """What the teacher says of all samples in a view, in the batches of a build."""
    extract, found = FeatureExtractor(teacher.eval(), features or FEATURES), []
    with torch.no_grad():
        for x in images()[view].split(batch):
            # As a loader does, in new memory: where a tensor begins changes the last digits of a product.
            result = extract(x.clone())
            found.append(result.features | {"logits": result.output})
    return {name: torch.cat([each[name] for each in found]) for name in found[0]}


def whole(cache: TeacherCache, view: int) -> dict[str, torch.Tensor]:
    return cache.read(torch.arange(cache.samples), view)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# What it says


@pytest.mark.parametrize("batch", [1, 4, 11, 50])
def test_float32_features_are_the_teachers_own_to_the_last_digit(batch, tmp_path):
    cache = built(tmp_path, views=Views(batch=batch))
    for view in range(VIEWS):
        right = expected(network(), view, batch)
        found = whole(cache, view)
        assert list(found) == ["feat", "early/map", "logits"] == cache.names
        assert all(torch.equal(found[name], right[name]) for name in right)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_float16_features_are_within_half_precision(dtype, tmp_path):
    teacher = network().to(dtype)
    cache = built(tmp_path, teacher, Views(images().to(dtype)), dtype="float16")
    found, extract = whole(cache, 1), FeatureExtractor(teacher.eval(), FEATURES)
    with torch.no_grad():
        right = torch.cat([extract(x.to(dtype)).output for x in images()[1].split(BATCH)])
    # Half of the last digit of a half, or of the smallest number that it knows.
    torch.testing.assert_close(found["logits"], right.float(), rtol=2.0**-11, atol=2.0**-25)
    assert found["logits"].dtype == torch.float32
    # What has eight digits fits a half.
    assert torch.equal(found["logits"].double(), right.double()) == (dtype == torch.bfloat16)


def test_scattered_and_repeated_samples_are_read_in_each_ones_view(tmp_path):
    cache = built(tmp_path)
    index, view = torch.tensor([7, 0, 10, 7, 3]), torch.tensor([2, 0, 1, 0, 2])
    found = cache.read(index, view)
    for name in cache.names:
        right = torch.stack([expected(network(), int(v))[name][i] for i, v in zip(index, view, strict=True)])
        assert torch.equal(found[name], right)
    assert torch.equal(cache.read(index, torch.tensor(2))["feat"], expected(network(), 2)["feat"][index])
    assert cache.read(index[:0], 0)["feat"].shape == (0, 6)


def test_features_of_several_axes_keep_them(tmp_path):
    teacher = nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(6, 3))
    cache = built(tmp_path, teacher, features={"map": "1", "first": lambda output: output[:, 0]})
    right = expected(teacher, 2, features={"map": "1", "first": lambda output: output[:, 0]})
    found = whole(cache, 2)
    assert found["map"].shape == (SAMPLES, 2, 3) and found["first"].shape == (SAMPLES,)
    assert all(torch.equal(found[name], right[name]) for name in right)


def test_the_loaders_order_does_not_matter(tmp_path):
    order = [3, 4, 5, 10, 0, 9, 8, 1, 2, 7, 6]
    cache = built(tmp_path, views=Views(order=order, batch=SAMPLES))
    right = expected(network(), 0, SAMPLES)
    torch.testing.assert_close(whole(cache, 0), right)


def test_names_and_devices_are_chosen_at_reading(tmp_path):
    cache = built(tmp_path)
    found = cache.read(torch.tensor([1]), 0, names=["feat"], device="meta")
    assert list(found) == ["feat"] and found["feat"].device.type == "meta"
    assert cache.read(torch.tensor([1]), 0)["feat"].device.type == "cpu"
    assert cache.read(torch.tensor([1]), 0, names=[]) == {}


def test_changing_what_was_read_does_not_change_the_cache(tmp_path):
    cache = built(tmp_path)
    cache.read(torch.tensor([1]), 0)["feat"].zero_()
    assert bool(cache.read(torch.tensor([1]), 0)["feat"].any())


def test_bad_reading_is_refused(tmp_path):
    cache = built(tmp_path)
    with pytest.raises(KeyError, match=r"needs a feature named 'tokens', got \['early/map', 'feat', 'logits'\]"):
        cache.read(torch.tensor([0]), 0, names=["feat", "tokens"])
    for index, view, words in [
        ([SAMPLES], 0, "index needs numbers from 0 to 10, got 11"),
        ([0, -1], 0, "index needs numbers from 0 to 10, got -1"),
        ([0], VIEWS, "view needs numbers from 0 to 2, got 3"),
        ([0, 1], [0, -1], "view needs numbers from 0 to 2, got -1"),
        ([0.0], 0, "index needs integers, got torch.float32"),
        ([True], 0, "index needs integers, got torch.bool"),
        ([[0]], 0, r"needs indices of shape \(n\)"),
        ([0, 1, 2], [0, 1], "one view or as many"),
    ]:
        with pytest.raises(ValueError, match=words):
            cache.read(torch.tensor(index), torch.tensor(view) if isinstance(view, list) else view)


def test_it_says_what_is_in_it(tmp_path):
    cache = built(tmp_path, dtype="float16")
    assert repr(cache) == ("TeacherCache(11 samples in 3 views as float16: feat (6,), early/map (6,), logits (3,))")
    assert names_in(tmp_path / "cache") == ["cache.json", "early%2Fmap.npy", "feat.npy", "logits.npy"]
    kept = np.load(tmp_path / "cache" / "feat.npy")
    assert kept.shape == (VIEWS, SAMPLES, 6) and kept.dtype == np.float16


def test_a_build_leaves_the_teacher_and_random_numbers_as_they_were(tmp_path):
    teacher = network().train()
    teacher[2].eval()
    state, before = torch.get_rng_state(), {name: x.clone() for name, x in teacher.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        cache = built(tmp_path, teacher, Views(order=torch.randperm(SAMPLES, generator=torch.Generator())))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in teacher] == [True, True, False, True]
    assert all(torch.equal(x, before[name]) for name, x in teacher.state_dict().items())
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    torch.testing.assert_close(whole(cache, 0), expected(network(), 0), rtol=1e-6, atol=1e-6)


# What it refuses to be made of


class Augmented(Dataset):
    """Images that are noisy whenever they are drawn, from one of several sources of chance."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return SAMPLES

    def __getitem__(self, i):
        return torch.full((5,), float(i)) + self.draw(), 0, i


@pytest.mark.parametrize(
    "draw", [lambda: torch.rand(()).item(), random.random, lambda: float(np.random.default_rng().random())]
)
def test_random_augmentation_is_refused(draw, tmp_path):
    with pytest.raises(ValueError, match="same inputs whenever view 0 is drawn"):
        built(tmp_path, views=lambda view: DataLoader(Augmented(draw), BATCH))
    with pytest.raises(ValueError, match="view 1"):
        built(tmp_path, views=lambda view: DataLoader(Augmented(draw if view == 1 else float), BATCH))
    assert names_in(tmp_path) == [".cache.lock"]


def test_data_without_a_number_of_views_are_refused(tmp_path):
    with pytest.raises(ValueError, match="fixed number of views, got None: they are augmented anew in every epoch"):
        built(tmp_path, number=None)
    with pytest.raises(ValueError, match="views needs an integer of at least 1, got 0"):
        built(tmp_path, number=0)


@pytest.mark.parametrize(
    ("views", "words"),
    [
        (Views(order=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]), "view 0 needs each sample once, got sample 9 again"),
        (Views(order=[0, 1, 2, 3, 4, 5, 6, 2, 7, 8, 9, 10]), "got sample 2 again"),
        (Views(order=range(10)), "view 0 needs each of 11 samples once, got none for 1 of them, such as sample 10"),
        (Views(index=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]), "an index from 0 to 10, got 11"),
        (Views(index=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1]), "an index from 0 to 10, got -1"),
        (Views(index=torch.arange(11.0)), "integers as the index, got torch.float32"),
        (Views(index=torch.arange(11)[:, None]), r"one index per sample, shape \(n\), got \((8|11), 1\)"),
        (lambda view: DataLoader(TensorDataset(images()[view], torch.zeros(SAMPLES)), 4), "got 2 parts"),
        (lambda view: DataLoader(TensorDataset(images()[0], torch.zeros(SAMPLES)), None), "makes batches"),
        (lambda view: iter(Views()(view)), "needs a DataLoader or a sequence of batches"),
        (lambda view: Views(torch.rand(VIEWS, 9 + view, 5))(view), r"each view, at least one, got \[9, 10, 11\]"),
        (lambda view: [], r"at least one, got \[0\]"),
        (lambda view: DataLoader(Endless(), 2), "data set with length and index"),
    ],
)
def test_samples_that_are_not_each_there_once_are_refused(views, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        built(tmp_path, views=views)
    assert not (tmp_path / "cache").exists()


class Endless(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(5), 0, 0)] * 3)


def test_a_later_view_may_not_lack_samples_either(tmp_path):
    views, short = Views(), Views(order=range(1, SAMPLES))
    with pytest.raises(ValueError, match="view 2 needs each of 11 samples once, got none for 1 of them, .* sample 0"):
        built(tmp_path, views=lambda view: short(view) if view == 2 else views(view))


def test_a_sequence_of_batches_is_data_too(tmp_path):
    def batches(view):
        parts = zip(images()[view].split(4), torch.arange(SAMPLES).split(4), strict=True)
        return [(x.clone(), None, index) for x, index in parts]

    cache = built(tmp_path, views=batches)
    assert all(torch.equal(whole(cache, 1)[name], x) for name, x in expected(network(), 1).items())


def test_a_share_of_the_samples_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "world", lambda: 2)
    with pytest.raises(ValueError, match="all samples in one process, got a share of them in each of 2"):
        built(tmp_path)


def test_teachers_that_move_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a frozen teacher, got an average"):
        built(tmp_path, ema(network()))


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        (lambda output: output * torch.inf, "feature 'feat' needs finite values, got 12 NaN or infinite of 12"),
        (lambda output: output.argmax(-1), "feature 'feat' needs floating-point values, got torch.int64"),
        (lambda output: output.sum(), r"a row for each of 4 samples, got \(\)"),
        (lambda output: output[:2], r"a row for each of 4 samples, got \(2, 3\)"),
        (lambda output: output[:, :0], r"a row for each of 4 samples, got \(4, 0\)"),
        (lambda output: output @ torch.ones(3, len(output)), r"needs features of one shape in all batches"),
    ],
)
def test_features_that_cannot_be_kept_are_refused(feature, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        built(tmp_path, features={"feat": feature})
    assert names_in(tmp_path) == [".cache.lock"]


def test_a_cache_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one feature, got none"):
        built(tmp_path, Silent(), features=None)


class Silent(nn.Module):
    def forward(self, x):
        return {"hidden": x}


def test_what_exceeds_half_precision_is_an_error_and_not_infinite(tmp_path):
    large = network(scale=1e6)
    with pytest.raises(
        ValueError, match=r"'logits' needs values up to 65504 to be stored as float16, got \d{6}.*; .* float32"
    ):
        built(tmp_path, large, dtype="float16")
    assert names_in(tmp_path) == [".cache.lock"]
    assert float(whole(built(tmp_path, large), 0)["logits"].abs().max()) > 65504
    with pytest.raises(ValueError, match="float32, got"):
        double = network().double()
        double[3].weight.data *= 1e40
        built(tmp_path / "double", double, Views(images().double()))


def test_bad_dtypes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="dtype needs one of float16, float32, got 'bfloat16'"):
        built(tmp_path, dtype="bfloat16")


# What it says it was made of


class Sum(Derived):
    sources = ("0", "3")

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, *found: torch.Tensor) -> torch.Tensor:
        return self.factor * (found[0].sum(-1) + found[1].sum(-1))


class Difference(Sum):
    def __call__(self, *found: torch.Tensor) -> torch.Tensor:
        return self.factor * (found[0].sum(-1) - found[1].sum(-1))


def times(factor: float):
    return lambda output: factor * output


def shifted(view: int, sample: int):
    x = images()
    x[view, sample, 2] += 0.5
    return Views(x)


CHANGES = {
    "weights": ({"teacher": network(1)}, "teacher 'weights': '.*' there, '.*' here$"),
    "type": ({"teacher": nn.ModuleList(network())}, "teacher 'model': 'Sequential' there, 'ModuleList' here"),
    "path": ({"features": {"feat": "0"}}, "features 'feat': '1' there, '0' here"),
    "fewer features": ({"features": {}}, "features 'feat': '1' there, None here"),
    "more features": ({"features": {"feat": "1", "more": "2"}}, "features 'more': None there, '2' here"),
    "function": ({"features": {"feat": times(2.0)}}, "features 'feat': '1' there, 'times.<locals>.<lambda> "),
    "first sample": ({"views": shifted(0, 0)}, "data 'first samples': '.*' there, '.*' here$"),
    "last sample of the last view": ({"views": shifted(2, 10)}, "data 'first samples'"),
    "index": ({"views": Views(index=torch.arange(SAMPLES).flip(0))}, "data 'first samples'"),
    "fewer samples": ({"views": Views(images()[:, :10])}, "data 'samples': 11 there, 10 here"),
    "views": ({"number": 2}, "data 'views': 3 there, 2 here"),
    "swapped views": ({"views": Views(images().flip(0))}, "data 'first samples'"),
    "dtype": ({"dtype": "float16"}, "storage 'dtype': 'float32' there, 'float16' here$"),
}


def fresh(teacher=None, views=None, number=VIEWS, features=None, dtype="float32"):
    features = {"feat": "1"} if features is None else features
    return made_of(teacher or network(), views or Views(), number, features=features, dtype=dtype)


@pytest.mark.parametrize("change", CHANGES)
def test_a_cache_made_of_other_things_is_refused_with_what_differs(change, tmp_path):
    options, words = CHANGES[change]
    cache = built(tmp_path, features={"feat": "1"})
    assert TeacherCache(cache.folder, fresh()).names == ["feat", "logits"]
    with pytest.raises(ValueError, match=words) as error:
        TeacherCache(cache.folder, fresh(**options))
    assert str(error.value).startswith(f"the teacher cache {tmp_path / 'cache'} needs to be made of the same; ")


def test_a_build_takes_what_is_there_if_it_is_of_the_same(tmp_path, monkeypatch):
    built(tmp_path)
    monkeypatch.setattr(build.FeatureExtractor, "run", lambda *_: pytest.fail("ran the teacher"))
    again = built(tmp_path)
    assert torch.equal(whole(again, 2)["feat"], expected(network(), 2)["feat"])
    with pytest.raises(ValueError, match="'weights'.*Choose another folder, or overwrite=True to replace a cache"):
        built(tmp_path, network(1))


def test_labels_order_and_size_of_batches_may_change(tmp_path):
    built(tmp_path)
    assert made_of(network(), Views(order=range(10, -1, -1), batch=3), 3) == made_of(network(), Views(), 3)
    labelled = [
        lambda view, label=label: [(images()[view], torch.full((SAMPLES,), label), torch.arange(SAMPLES))]
        for label in (1, -100)
    ]
    assert made_of(network(), labelled[0], 3) == made_of(network(), labelled[1], 3)


def test_an_old_cache_is_replaced_if_asked(tmp_path):
    old = built(tmp_path)
    new = built(tmp_path, network(1), overwrite=True, features={"feat": "0"})
    assert names_in(tmp_path) == [".cache.lock", "cache"] and new.names == ["feat", "logits"]
    assert torch.equal(whole(new, 0)["feat"], expected(network(1), 0, features={"feat": "0"})["feat"])
    # Whoever has the old one open still reads it.
    assert torch.equal(whole(old, 0)["feat"], expected(network(), 0)["feat"])


def test_folders_of_other_things_are_neither_read_nor_replaced(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "thesis.tex").touch()
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"needs the folder of a teacher cache, with a cache\.json, got"):
            built(tmp_path, overwrite=overwrite)
    assert names_in(folder) == ["thesis.tex"]
    (folder / "cache.json").write_text("[1]")
    with pytest.raises(ValueError, match="needs to begin with 'graphkd teacher cache 1', got something else"):
        TeacherCache(folder)
    (folder / "cache.json").write_text('{"kind"')
    with pytest.raises(ValueError, match="needs the folder of a teacher cache"):
        TeacherCache(folder)
    shutil.rmtree(folder)
    folder.write_text("a file")
    with pytest.raises(ValueError, match="needs the folder of a teacher cache"):
        built(tmp_path, overwrite=True)


def test_an_empty_folder_is_a_place_for_a_cache(tmp_path):
    (tmp_path / "cache").mkdir()
    assert built(tmp_path).samples == SAMPLES


@pytest.mark.parametrize("damage", ["cut", "missing", "other shape", "other dtype", "no array"])
def test_files_that_are_not_whole_are_refused(damage, tmp_path):
    path = built(tmp_path).folder / "feat.npy"
    array = np.load(path)
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 1)
    elif damage == "missing":
        path.unlink()
    elif damage == "no array":
        path.write_bytes(b"text")
    else:
        np.save(path, array[:, 1:] if damage == "other shape" else array.astype(np.float64))
    with pytest.raises(ValueError, match=r"feat\.npy needs"):
        TeacherCache(tmp_path / "cache")
    with pytest.raises(ValueError, match=r"feat\.npy needs"):
        built(tmp_path)
    assert torch.equal(whole(built(tmp_path, overwrite=True), 0)["feat"], expected(network(), 0)["feat"])


def test_the_teacher_alone_can_be_checked_without_data(tmp_path):
    cache = built(tmp_path)
    cache.check_teacher(network().requires_grad_(False).eval(), FEATURES)
    with pytest.raises(ValueError, match="'weights'"):
        cache.check_teacher(network(1), FEATURES)
    with pytest.raises(ValueError, match="'early/map': '0' there, None here"):
        cache.check_teacher(network(), {"feat": "1"})


def test_functions_are_told_by_code_and_what_they_enclose():
    def pooled(output, axis=1):
        return output.mean(axis)

    functions = {
        "mean": lambda output: output.mean(1),
        "sum": lambda output: output.sum(1),
        "other axis": lambda output: output.mean(2),
        "twice": times(2.0),
        "thrice": times(3.0),
        "default": pooled,
        "partial": partial(pooled, axis=1),
        "other partial": partial(pooled, axis=2),
        "module": network(),
        "other module": network(1),
        "object": Sum(1.0),
        "other object": Sum(2.0),
        "other call": Difference(1.0),
        "inner": lambda output: [x for x in output if x in {"a", "b", "c"}][0],
        "other inner": lambda output: [x for x in output if x in {"a", "b", "d"}][0],
        "builtin": torch.flatten,
        "other builtin": torch.sum,
    }
    seen = {name: described(function) for name, function in functions.items()}
    assert len(set(seen.values())) == len(seen)
    assert described(times(2.0)) == seen["twice"] and described(Sum(1.0)) == seen["object"]
    assert described(lambda output: output.mean(1)).split()[1] == seen["mean"].split()[1]
    with pytest.raises(ValueError, match="functions that can be told apart, got <generator"):
        described(_ for _ in ())


def test_one_function_of_all_features_is_part_of_what_it_is_made_of(tmp_path):
    def both(output):
        return {"double": 2 * output, "half": output / 2}

    cache = built(tmp_path, features=both)
    assert cache.names == ["double", "half", "logits"]
    assert torch.equal(whole(cache, 0)["double"], 2 * whole(cache, 0)["logits"])
    cache.check_teacher(network(), both)
    with pytest.raises(ValueError, match="features ''"):
        cache.check_teacher(network(), lambda output: {"double": output, "half": output})


# Whole or not there


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(Views):
    """Loaders of which one kills the process before some batch of a pass; looks at a few samples do it no harm."""

    def __init__(self, view: int, batch: int) -> None:
        super().__init__()
        self.deadly, self.after = view, batch

    def __call__(self, view: int) -> DataLoader:
        loader = super().__call__(view)
        if view == self.deadly:
            seen = []
            collate = loader.collate_fn
            # A look collates all samples at once; a pass, in batches.
            loader.collate_fn = lambda samples: die() if self._last(samples, seen) else collate(samples)
        return loader

    def _last(self, samples, seen):
        seen += [1] * (len(samples) <= BATCH)
        return len(seen) > self.after


def build_and_die(folder: Path, moment: str) -> None:
    """Replace what is in a folder, and be killed at some moment."""
    torch.set_num_threads(1)
    views, patches = Views(), []
    if moment.startswith("batch"):
        views = Deadly(*map(int, moment.split()[1:]))
    else:
        where, number = moment.split()
        module, name = {
            "begin": (writing.Files, "_begin"),
            "finish": (writing.Files, "finish"),
            "fsync": (writing.os, "fsync"),
            "rename": (writing.os, "rename"),
            "remove": (writing.shutil, "rmtree"),
        }[where]
        original, calls = getattr(module, name), []

        def dies_at(*arguments, **options):
            calls.append(1)
            return die() if len(calls) == int(number) else original(*arguments, **options)

        patches.append(mock.patch.object(module, name, dies_at))
    for patch in patches:
        patch.start()
    built(folder, network(1), views, overwrite=True)


MOMENTS = ["begin 1", "batch 0 0", "batch 0 2", "batch 1 1", "batch 2 2", "finish 1", "fsync 1", "fsync 5", "rename 1"]
REPLACING = [*MOMENTS, "rename 2", "fsync 6", "remove 1"]


def kill_at_each_moment(parent: Path) -> None:
    """In a folder for each moment, a process that is killed while it builds or replaces a cache."""
    torch.set_num_threads(1)
    for what, moments in (("new", MOMENTS), ("replaced", REPLACING)):
        for moment in moments:
            folder = parent / what / moment
            folder.mkdir(parents=True)
            if what == "replaced":
                built(folder)
            process = os.fork()
            if process == 0:
                try:
                    build_and_die(folder, moment)
                finally:
                    os._exit(1)
            assert os.waitpid(process, 0)[1] == signal.SIGKILL, (what, moment)


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """What kills have left behind."""
    parent = tmp_path_factory.mktemp("killed")
    process = context.Process(target=kill_at_each_moment, args=(parent,))
    process.start()
    process.join()
    assert process.exitcode == 0
    return parent


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_build_leaves_nothing_that_reads_as_whole_and_the_next_one_works(moment, killed):
    folder = killed / "new" / moment
    assert names_in(folder) == [".cache.lock", ".cache.part"]
    with pytest.raises(ValueError, match="needs the folder of a teacher cache"):
        TeacherCache(folder / "cache")
    cache = built(folder, network(1))
    assert torch.equal(whole(cache, 2)["logits"], expected(network(1), 2)["logits"])
    assert names_in(folder) == [".cache.lock", "cache"]


@pytest.mark.parametrize("moment", REPLACING)
def test_a_killed_replacement_leaves_the_old_cache_or_none_or_the_new_one(moment, killed):
    folder = killed / "replaced" / moment
    left = {"rename 2": [".cache.old", ".cache.part"], "fsync 6": [".cache.old", "cache"]}
    left["remove 1"] = left["fsync 6"]
    assert names_in(folder) == sorted([".cache.lock", *left.get(moment, [".cache.part", "cache"])])
    if moment != "rename 2":
        right = expected(network(int(moment in left)), 0)["feat"]
        assert torch.equal(whole(TeacherCache(folder / "cache"), 0)["feat"], right)
    cache = built(folder, network(1), overwrite=True)
    assert torch.equal(whole(cache, 2)["logits"], expected(network(1), 2)["logits"])
    assert names_in(folder) == [".cache.lock", "cache"]


class Full(io.FileIO):
    """A file on a disk that is full after some writes."""

    left = 0

    def write(self, data):
        Full.left -= 1
        if Full.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize("writes", [0, 1, 13, 26])
def test_a_full_disk_leaves_nothing(writes, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "open", Full, raising=False)
    Full.left = writes
    with pytest.raises(OSError, match="No space left"):
        built(tmp_path)
    assert names_in(tmp_path) == [".cache.lock"]
    Full.left = 10**6
    assert torch.equal(whole(built(tmp_path), 2)["feat"], expected(network(), 2)["feat"])


@pytest.mark.parametrize("fails", [1, 3, 5])
def test_what_the_disk_does_not_keep_is_not_there(fails, tmp_path, monkeypatch):
    built(tmp_path)
    synced, fsync = [], os.fsync

    def failing(handle):
        synced.append(handle)
        if len(synced) == fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        built(tmp_path, network(1), overwrite=True)
    assert names_in(tmp_path) == [".cache.lock", "cache"]
    assert torch.equal(whole(TeacherCache(tmp_path / "cache"), 0)["feat"], expected(network(), 0)["feat"])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads a file's name from /proc")
def test_everything_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    events, fsync, rename = [], os.fsync, os.rename

    def synced(handle):
        events.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def renamed(old, new):
        events.append(f"{Path(old).name} to {Path(new).name}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    built(tmp_path)
    assert set(events[:4]) == {"cache.json", "feat.npy", "early%2Fmap.npy", "logits.npy"}
    assert events[4:] == [".cache.part", ".cache.part to cache", tmp_path.name]


def test_too_small_a_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    needed = VIEWS * SAMPLES * (6 + 6 + 3) * 4
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(ValueError, match=r"needs 1\.98e-06 GB in .*, got 1\.98e-06"):
        built(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    assert built(tmp_path).samples == SAMPLES


# Several processes


class Counted(nn.Module):
    """Writes down which process ran it."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log, self.model = log, network()

    def forward(self, x):
        with open(self.log, "a") as file:
            print(os.getpid(), file=file)
        time.sleep(0.05)
        return self.model(x)


def build_counted(folder: Path, dies: bool = False) -> None:
    torch.set_num_threads(1)
    views = Deadly(1, 1) if dies else Views()
    cache = built(folder, Counted(folder / "log"), views, features={})
    torch.save((os.getpid(), whole(cache, 1)), folder / f"{os.getpid()}.pt")


def test_of_two_builders_one_builds_and_both_read_the_same(tmp_path):
    processes = [context.Process(target=build_counted, args=(tmp_path,)) for _ in range(2)]
    [process.start() for process in processes]
    [process.join() for process in processes]
    assert [process.exitcode for process in processes] == [0, 0]
    ran = (tmp_path / "log").read_text().split()
    assert len(ran) == VIEWS * 3 and len(set(ran)) == 1
    for path in tmp_path.glob("*.pt"):
        assert torch.equal(torch.load(path)[1]["logits"], expected(network(), 1)["logits"])
    assert len(list(tmp_path.glob("*.pt"))) == 2


def test_a_builder_that_waits_for_one_that_is_killed_builds(tmp_path):
    first = context.Process(target=build_counted, args=(tmp_path, True))
    first.start()
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    cache = built(tmp_path, Counted(tmp_path / "log"), features={})
    first.join()
    assert first.exitcode == -signal.SIGKILL
    assert torch.equal(whole(cache, 1)["logits"], expected(network(), 1)["logits"])
    assert not (tmp_path / ".cache.part").exists()


def read_often(cache: TeacherCache, seed: int) -> bool:
    torch.set_num_threads(1)
    right = [expected(network(), view) for view in range(VIEWS)]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(20):
        index = torch.randperm(SAMPLES, generator=generator)[:7]
        view = int(torch.randint(VIEWS, (), generator=generator))
        found = cache.read(index, view)
        if not all(torch.equal(x, right[view][name][index]) for name, x in found.items()):
            return False
    return True


def test_two_processes_read_at_once(tmp_path):
    cache = built(tmp_path)
    with context.Pool(2) as pool:
        assert pool.starmap(read_often, [(cache, seed) for seed in range(4)], chunksize=1) == [True] * 4


def test_a_pickled_cache_is_small_and_opens_the_same_files_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    built(tmp_path)
    cache = TeacherCache("cache")
    pickled = pickle.dumps(cache)
    assert len(pickled) < 2000
    monkeypatch.chdir("/")
    again = pickle.loads(pickled)
    assert torch.equal(whole(again, 2)["feat"], whole(cache, 2)["feat"])
    built(tmp_path, network(1), overwrite=True)
    with pytest.raises(ValueError, match="'weights'"):
        pickle.loads(pickled)


def test_a_worker_of_a_loader_reads_what_its_samples_need(tmp_path):
    cache = built(tmp_path)
    loader = DataLoader(Cached(cache), batch_size=None, num_workers=2)
    assert torch.equal(torch.cat(list(loader)), expected(network(), 1)["feat"])


class Cached(Dataset):
    def __init__(self, cache):
        self.cache = cache

    def __len__(self):
        return SAMPLES

    def __getitem__(self, i):
        return self.cache.read(torch.tensor([i]), 1)["feat"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_features_come_to_the_indexs_device(tmp_path):
    cache = built(tmp_path, network().cuda(), dtype="float16")
    found = cache.read(torch.tensor([3, 1], device="cuda"), torch.tensor([0, 2], device="cuda"))
    assert found["feat"].is_cuda and found["feat"].dtype == torch.float32
    right = torch.stack([expected(network(), 0)["feat"][3], expected(network(), 2)["feat"][1]])
    torch.testing.assert_close(found["feat"].cpu(), right, rtol=2e-3, atol=2e-3)
    assert cache.read(torch.tensor([0], device="cuda"), 0, device="cpu")["feat"].is_cpu
