import pytest
import torch

from graphkd.datasets import TensorData
from graphkd.typing import UNLABELLED

X, Y = torch.arange(12.0).reshape(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])


def test_each_split_has_its_own_samples():
    data = TensorData((X, Y), (X[:2] + 100, Y[:2]), (X[:3] + 200, Y[:3]), batch_size=4)
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    found = [torch.cat([inputs for inputs, _ in loader]) for loader in loaders]
    assert torch.equal(found[0].sort(dim=0).values, X)
    assert torch.equal(found[1], X[:2] + 100) and torch.equal(found[2], X[:3] + 200)
    assert data.num_classes == 3


def test_the_index_is_a_samples_place_and_there_is_one_view():
    data = TensorData((X, Y), (X, Y), (X, Y), with_view=True, seed=2)
    inputs, labels, index, view = next(iter(data.train_dataloader()))
    assert torch.equal(inputs, X[index]) and torch.equal(labels, Y[index]) and not view.any()
    inputs, labels, index = next(iter(data.train_view_dataloader()))
    assert torch.equal(inputs, X) and torch.equal(labels, Y) and index.tolist() == list(range(6))
    with pytest.raises(ValueError, match="needs a view in 0..0"):
        data.train_view_dataloader(1)


def test_labels_are_hidden_from_training_alone():
    data = TensorData((X, Y), (X, Y), (X, Y), labels_per_class=1)
    assert (data.train[1] == UNLABELLED).sum() == 3
    assert torch.equal(data.validation[1], Y) and torch.equal(data.test[1], Y)
    assert data.num_classes == 3


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_inputs_without_as_many_labels_are_refused(part):
    good = {name: (X, Y) for name in ("train", "validation", "test")}
    with pytest.raises(ValueError, match=f"{part} needs a label for each input, got 6 and 5"):
        TensorData(**good | {part: (X, Y[:5])})
    with pytest.raises(ValueError, match=f"{part} needs a label for each input, got 0 and 0"):
        TensorData(**good | {part: (X[:0], Y[:0])})
