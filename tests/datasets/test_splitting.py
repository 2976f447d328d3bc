import pytest
import torch

from graphkd.datasets.splitting import few_labels, held_out
from graphkd.typing import UNLABELLED

LABELS = torch.arange(60) % 3


@pytest.mark.parametrize(("validation", "count"), [(9, 9), (0.15, 9), (0.5, 30), (3, 3)])
def test_held_out_samples_are_spread_evenly_over_classes(validation, count):
    kept, held = held_out(LABELS, validation)
    assert LABELS[held].bincount().tolist() == [count // 3] * 3
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(60))
    assert kept.tolist() == sorted(kept.tolist())
    assert held.tolist() == sorted(held.tolist())


@pytest.mark.parametrize("nothing", [0, 0.0])
def test_nothing_is_held_out_unless_asked(nothing):
    kept, held = held_out(LABELS, nothing)
    assert kept.tolist() == list(range(60))
    assert held.tolist() == []


def test_the_split_is_the_same_whatever_was_drawn():
    torch.manual_seed(0)
    first = held_out(LABELS, 12)[1]
    torch.manual_seed(1)
    assert torch.equal(first, held_out(LABELS, 12)[1])
    assert not torch.equal(first, torch.arange(12))


@pytest.mark.parametrize(("labels", "validation", "message"), [
    (LABELS, 2, "each of 3 classes images on both sides, got 2 of 60"),
    (LABELS, 58, "got 58 of 60"),
    (LABELS, 0.01, "got 1 of 60"),
    (torch.tensor([0, 0, 0, 1]), 2, "1 of the rarest class"),
    (LABELS, -1, "at least 0, got -1"),
    (LABELS, True, "at least 0, got True"),
    (LABELS, 1.0, r"a share in \[0, 1\) .* got 1.0"),
    (LABELS, -0.1, "got -0.1"),
    (LABELS, float("nan"), "got nan"),
])  # fmt: skip
def test_splits_that_leave_a_class_out_are_refused(labels, validation, message):
    with pytest.raises(ValueError, match=message):
        held_out(labels, validation)


def test_classes_without_a_sample_do_not_count_as_left_out():
    kept, held = held_out(torch.tensor([0, 0, 5, 5]), 2)
    assert len(kept) == len(held) == 2


def test_as_many_labels_are_kept_as_asked():
    few = few_labels(LABELS, 4, seed=1)
    known = few != UNLABELLED
    assert few[known].bincount().tolist() == [4, 4, 4]
    assert torch.equal(few[known], LABELS[known])
    assert torch.equal(few, few_labels(LABELS, 4, seed=1))
    assert not torch.equal(few, few_labels(LABELS, 4, seed=2))
