"""Results in files: what a fingerprint tells apart, and what a file refuses."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from graphkd import kept

MADE_OF = {"options": {"k": 1, "name": None}, "fingerprint": {"weights": "abc"}}


class Stream(IterableDataset):
    def __iter__(self):
        return iter([torch.zeros(1)])


class Noisy(Dataset):
    """Adds a random number to each sample, as an augmentation does."""

    def __len__(self):
        return 5

    def __getitem__(self, i):
        return {"x": np.full(2, i) + torch.rand(()).item(), "word": "a"}, i


def dataset(n: int = 40) -> TensorDataset:
    return TensorDataset(torch.arange(2.0 * n).reshape(n, 2), torch.arange(n) % 3)


def test_a_result_comes_back_as_it_was(tmp_path):
    x = torch.randn(3, 3, dtype=torch.float64)
    path = tmp_path / "new" / "folder" / "kept.pt"
    kept.save(path, x.requires_grad_(), MADE_OF)
    got = kept.load(path, MADE_OF)
    assert torch.equal(got, x)
    assert got.dtype == torch.float64 and not got.requires_grad
    assert [each.name for each in path.parent.iterdir()] == ["kept.pt"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "kept.pt"
    kept.save(path, torch.zeros(1), MADE_OF)

    def interrupted(content, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kept.save(path, torch.ones(1), MADE_OF)
    assert torch.equal(kept.load(path, MADE_OF), torch.zeros(1))
    assert list(tmp_path.iterdir()) == [path]


def test_what_differs_is_said(tmp_path):
    path = tmp_path / "kept.pt"
    kept.save(path, torch.zeros(1), MADE_OF)
    other = {"options": {"k": 2, "name": None, "more": 3}, "fingerprint": {"weights": "abc"}}
    with pytest.raises(ValueError) as error:
        kept.load(path, other)
    assert str(error.value) == (
        f"{path} needs to be made of the same; options 'k': 1 there, 2 here; options 'more': None there, 3 here"
    )
    with pytest.raises(ValueError, match="'name': 'x' there, None here"):
        kept.save(path, torch.zeros(1), {"options": {"k": 1, "name": "x"}, "fingerprint": {}})
        kept.load(path, {"options": {"k": 1}, "fingerprint": {}})


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("was run",))


@pytest.mark.parametrize("content", [Harmful(), [1], {"result": 3}, {"result": torch.zeros(1)}, b"text"])
def test_other_files_are_refused_and_never_run(content, tmp_path):
    path = tmp_path / "kept.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=r"kept\.pt needs"):
        kept.load(path, MADE_OF)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        kept.load(tmp_path / "kept.pt", MADE_OF)


def test_a_model_is_told_by_type_names_and_every_weight():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    seen = [kept.model_fingerprint(model), kept.model_fingerprint(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))]
    assert kept.model_fingerprint(model.train(not model.training)) == seen[0]
    with torch.no_grad():
        model[0].bias[2] += 1e-6
    seen.append(kept.model_fingerprint(model))
    model[1].num_batches_tracked += 1
    seen.append(kept.model_fingerprint(model))
    seen.append(kept.model_fingerprint(model.double()))
    seen.append(kept.model_fingerprint(nn.ModuleList(model)))
    seen.append(kept.model_fingerprint(nn.Sequential(model[1], model[0])))
    assert all(one != other for i, one in enumerate(seen) for other in seen[:i])


def test_data_is_told_by_size_samplers_and_the_samples_looked_at():
    seen = [kept.data_fingerprint(DataLoader(dataset(), 4))]
    assert kept.data_fingerprint(DataLoader(dataset(), 7)) == seen[0]
    seen.append(kept.data_fingerprint(DataLoader(dataset(), 4, shuffle=True)))
    seen.append(kept.data_fingerprint(DataLoader(dataset(41), 4)))
    for i in (0, 39):
        for tensor in range(2):
            other = dataset()
            other.tensors[tensor][i] += 1
            seen.append(kept.data_fingerprint(DataLoader(other, 4)))
    seen.append(kept.data_fingerprint([(torch.zeros(2), torch.zeros(2))]))
    seen.append(kept.data_fingerprint([(torch.zeros(2, 1), torch.zeros(2))]))
    seen.append(kept.data_fingerprint([(torch.zeros(2), torch.zeros(2))] * 2))
    assert all(one != other for i, one in enumerate(seen) for other in seen[:i])


def test_only_a_few_samples_are_read(monkeypatch):
    read = []
    data = dataset(1000)
    monkeypatch.setattr(TensorDataset, "__getitem__", lambda self, i: read.append(i) or self.tensors[0][i])
    kept.data_fingerprint(DataLoader(data, 4))
    assert len(read) == kept.LOOKED_AT and min(read) == 0 and max(read) == 999
    read.clear()
    kept.data_fingerprint(DataLoader(dataset(3), None))
    assert read == [0, 1, 2]


def test_random_samples_are_read_with_a_fixed_seed_that_leaves_no_trace():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = kept.data_fingerprint(DataLoader(Noisy(), 2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert kept.data_fingerprint(DataLoader(Noisy(), 2)) == first


def test_data_that_can_be_looked_at_once_has_no_fingerprint():
    for loader in (DataLoader(Stream()), iter([torch.zeros(1)])):
        with pytest.raises(ValueError, match="a fingerprint needs data with a length and an index"):
            kept.data_fingerprint(loader)
    with pytest.raises(ValueError, match="a fingerprint needs tensors, numbers and words, got object"):
        kept.data_fingerprint([object()])
