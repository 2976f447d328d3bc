import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from graphkd.datasets import DigitsData
from graphkd.probe import choose


def batches(labels, size=4, index=False):
    labels = torch.tensor(labels)
    inputs = torch.arange(len(labels)).float().unsqueeze(1)
    parts = [inputs, labels, *([torch.arange(len(labels))] if index else [])]
    return [tuple(part[i : i + size] for part in parts) for i in range(0, len(labels), size)]


def test_a_probe_has_as_many_samples_of_each_class_sorted_by_class():
    probe = choose(DigitsData().val_dataloader(), samples=50, per_class=5)
    assert probe.labels.tolist() == [c for c in range(10) for _ in range(5)]
    assert probe.inputs.shape == (50, 1, 8, 8)


def test_inputs_labels_and_index_stay_together():
    labels = [2, 0, 1, 2, 0, 1, 1, 0, 2, 2]
    probe = choose(batches(labels, index=True), samples=6, per_class=2)
    assert probe.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert probe.index.tolist() == probe.inputs.flatten().tolist() == [1, 4, 2, 5, 0, 3]


def test_where_there_are_too_many_classes_the_first_ones_are_taken():
    probe = choose(batches([5, 9, 5, 1, 9, 5, 1, 9]), samples=4, per_class=2)
    assert probe.labels.tolist() == [5, 5, 9, 9]


def test_one_class_may_need_more_than_all_samples():
    assert choose(batches([3] * 9), samples=5, per_class=50).labels.tolist() == [3] * 5


def test_unlabelled_samples_fill_up_and_come_last():
    probe = choose(batches([-100, 1, -100, -100, -100, 1, 1]), samples=5, per_class=2)
    assert probe.labels.tolist() == [1, 1, -100, -100, -100]
    assert probe.inputs.flatten().tolist() == [1, 5, 0, 2, 3]
    assert choose(batches([-100] * 9), samples=6).inputs.flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_a_long_loader_is_not_read_to_its_end():
    read = []

    def loader():
        for i in range(10_000):
            read.append(i)
            yield torch.zeros(4, 1), torch.tensor([0, 0, 0, 1])

    assert choose(loader(), samples=6, per_class=2).labels.tolist() == [0, 0, 1, 1]
    assert len(read) == 75


def test_inputs_may_be_nested():
    inputs = {"ids": torch.arange(8).reshape(8, 1), "more": [torch.arange(8.0)]}
    batch = ({name: value for name, value in inputs.items()}, torch.tensor([1, 0] * 4))
    probe = choose([batch, batch], samples=4, per_class=2)
    assert probe.inputs["ids"].flatten().tolist() == [1, 3, 0, 2]
    assert probe.inputs["more"][0].tolist() == [1, 3, 0, 2]


def test_a_sequence_of_inputs_stays_one():
    batch = ([torch.arange(6.0), torch.arange(6.0) + 10], torch.zeros(6, dtype=torch.long))
    assert [part.tolist() for part in choose([batch], samples=4, per_class=4).inputs] == [
        [0, 1, 2, 3],
        [10, 11, 12, 13],
    ]


def test_names_of_classes_come_from_the_data_set():
    dataset = TensorDataset(torch.zeros(6, 1), torch.arange(6) % 2)
    assert choose(DataLoader(dataset, 3)).class_names is None
    dataset.classes = ["cat", "dog"]
    assert choose(DataLoader(dataset, 3)).class_names == ["cat", "dog"]


def test_choosing_draws_no_random_number():
    loader = DataLoader(TensorDataset(torch.zeros(9, 1), torch.arange(9) % 3), 3, shuffle=True)
    state = torch.get_rng_state()
    choose(loader, samples=6, per_class=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_no_batch_of_samples_is_refused():
    with pytest.raises(ValueError, match="samples needs an integer of at least 4, got 3"):
        choose(batches([0] * 4), samples=3)
    with pytest.raises(ValueError, match="per_class"):
        choose(batches([0] * 4), per_class=0)
    with pytest.raises(ValueError, match="at least 4 samples, got 3 in 3"):
        choose(batches([0] * 3))
    with pytest.raises(ValueError, match="inputs and labels, got 1 part"):
        choose([(torch.zeros(4, 1),)])
    with pytest.raises(ValueError, match="tensors, sequences or mappings of them, got str"):
        choose([("words", torch.zeros(4, dtype=torch.long))])
