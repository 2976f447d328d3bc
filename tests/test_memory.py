"""The memory of a data set's embeddings: what is recalled, what is remembered, and what is refused."""

import pytest
import torch

from graphkd.graphs import masses
from graphkd.memory import MemoryBank, Queue, others, samples_apart


def embeddings(n: int = 4, d: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def bank() -> MemoryBank:
    return MemoryBank(num_samples=9, dim=3, momentum=0.3).double()


def test_a_bank_starts_with_even_rows_of_about_length_one_and_no_labels():
    bank = MemoryBank(num_samples=500, dim=48)
    bound = (3 / 48) ** 0.5
    assert bank.rows.shape == (500, 48)
    assert bound * 0.99 < bank.rows.abs().max() <= bound
    # Rows of even entries in (-b, b) have the mean squared length 48 b^2 / 3 = 1.
    assert float(bank.rows.square().sum(-1).mean()) == pytest.approx(1, abs=0.03)
    assert bank.labels.tolist() == [-100] * 500
    assert bank.labels.dtype == torch.int64


def test_the_samples_own_rows_come_first_and_have_all_the_mass(bank):
    index = torch.tensor([7, 0, 3, 7])
    graph = bank.recall(index, None, num_negatives=6)
    assert graph.x.shape == (10, 3)
    assert torch.equal(graph.x[:4], bank.rows[[7, 0, 3, 7]])
    assert masses(graph).tolist() == [0.25] * 4 + [0.0] * 6
    assert masses(graph).dtype == graph.negatives.dtype == torch.float64
    assert graph.edge_index.shape == (2, 0)
    assert not graph.x.requires_grad


def test_drawn_rows_are_of_the_bank_and_negatives_of_all_other_samples(bank):
    index = torch.tensor([7, 0, 3])
    graph = bank.recall(index, None, num_negatives=40)
    assert graph.negatives.shape == (3, 43)
    assert graph.negatives[:, :3].abs().sum() == 0
    for j, row in enumerate(graph.x[3:]):
        (drawn,) = [k for k in range(9) if torch.equal(row, bank.rows[k])]
        assert graph.negatives[:, 3 + j].tolist() == [float(drawn != i) for i in (7, 0, 3)]


def test_draws_are_even_over_the_whole_bank_and_follow_the_seed():
    bank = MemoryBank(num_samples=5, dim=1)
    bank.rows.copy_(torch.arange(5.0).unsqueeze(1))
    graphs = []
    for _ in range(2):
        torch.manual_seed(3)
        graphs.append(bank.recall(torch.tensor([0]), None, num_negatives=20000))
    assert torch.equal(graphs[0].x, graphs[1].x)
    assert not torch.equal(bank.recall(torch.tensor([0]), None, num_negatives=20000).x, graphs[0].x)
    counts = torch.bincount(graphs[0].x[1:, 0].long(), minlength=5)
    # The deviation of a count of 4000 is 57.
    assert ((counts - 4000).abs() < 300).all()


def test_rows_of_a_samples_own_class_are_no_negatives_as_far_as_labels_are_known(bank):
    classes = [0, 1, 2, 0, 1, -100, 0, -100, 2]
    bank.labels.copy_(torch.tensor(classes))
    index, labels = torch.tensor([0, 4, 5, 8]), torch.tensor([0, 1, -100, 2])
    graph = bank.recall(index, labels, num_negatives=60)
    seen = set()
    for j, row in enumerate(graph.x[4:]):
        (drawn,) = [k for k in range(9) if torch.equal(row, bank.rows[k])]
        seen.add(drawn)
        for i, (own, label) in enumerate(zip(index.tolist(), labels.tolist(), strict=True)):
            same = label != -100 and label == classes[drawn]
            assert graph.negatives[i, 4 + j] == float(drawn != own and not same)
    assert seen == set(range(9))


def test_labels_of_the_batch_count_and_not_what_was_remembered_of_it(bank):
    bank.labels.copy_(torch.tensor([5] + [1] * 8))
    unknown = bank.recall(torch.tensor([0]), None, num_negatives=50).negatives
    known = bank.recall(torch.tensor([0]), torch.tensor([1]), num_negatives=50).negatives
    assert unknown.sum() > 0
    assert known.sum() == 0


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_given_negatives_are_counted_as_they_are(bank, dtype):
    bank.labels.fill_(1)
    index = torch.tensor([2, 6])
    negatives = torch.tensor([[3, 3, 8, 2], [0, 1, 3, 3]], dtype=dtype)
    graph = bank.recall(index, torch.tensor([1, 1]), 5, negatives)
    assert torch.equal(graph.x, torch.cat([bank.rows[[2, 6]], bank.rows]))
    assert graph.negatives.tolist() == [[0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1], [0, 0, 1, 1, 0, 2, 0, 0, 0, 0, 0]]
    assert masses(graph).tolist() == [0.5, 0.5] + [0.0] * 9


@pytest.mark.parametrize("momentum", [0, 0.3, 1.0])
def test_an_update_is_the_running_mean_scaled_to_length_one(momentum):
    bank = MemoryBank(9, 3, momentum).double()
    before, x, index = bank.rows.clone(), embeddings(), torch.tensor([7, 0, 3, 8])
    bank.update(index, x, None)
    for i, place in enumerate(index.tolist()):
        mixed = momentum * before[place] + (1 - momentum) * x[i]
        torch.testing.assert_close(bank.rows[place], mixed / (mixed * mixed).sum().sqrt())
    left = [k for k in range(9) if k not in index.tolist()]
    assert torch.equal(bank.rows[left], before[left])
    assert bank.labels.tolist() == [-100] * 9


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_an_update_remembers_labels(bank, dtype):
    bank.update(torch.tensor([7, 0], dtype=dtype), embeddings(2), torch.tensor([4, 2], dtype=dtype))
    bank.update(torch.tensor([0, 5]), embeddings(2), torch.tensor([-100, 3]))
    bank.update(torch.tensor([7]), embeddings(1), None)
    assert bank.labels.tolist() == [-100, -100, -100, -100, -100, 3, -100, 4, -100]


def test_what_was_recalled_does_not_change_with_an_update(bank):
    index = torch.tensor([7, 0])
    graphs = [bank.recall(index, None, 5), bank.recall(index, None, 5, torch.tensor([[1], [2]]))]
    before = [graph.x.clone() for graph in graphs]
    bank.update(index, embeddings(2), None)
    assert torch.equal(graphs[0].x, before[0])
    assert torch.equal(graphs[1].x, before[1])
    assert not torch.equal(bank.recall(index, None, 5).x[:2], before[0][:2])


def test_rows_carry_no_gradient(bank):
    x = embeddings().requires_grad_()
    bank.update(torch.tensor([7, 0, 3, 8]), x, None)
    assert not bank.rows.requires_grad
    assert not bank.recall(torch.tensor([7]), None, 3).x.requires_grad
    assert list(bank.parameters()) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_embeddings_of_any_precision_are_remembered_in_that_of_the_bank(dtype):
    bank, same = (MemoryBank(9, 3) for _ in range(2))
    same.load_state_dict(bank.state_dict())
    x, index = embeddings().to(dtype), torch.tensor([7, 0, 3, 8])
    bank.update(index, x, None)
    same.update(index, x.float(), None)
    assert bank.rows.dtype == torch.float32
    assert torch.equal(bank.rows, same.rows)


def test_a_zero_row_stays_zero():
    bank = MemoryBank(2, 3, momentum=0.0)
    bank.update(torch.tensor([1]), torch.zeros(1, 3), None)
    assert bank.rows[1].tolist() == [0.0, 0.0, 0.0]


def test_a_bank_is_saved_and_loaded(bank):
    bank.update(torch.tensor([7, 0]), embeddings(2), torch.tensor([4, 2]))
    assert list(bank.state_dict()) == ["rows", "labels"]
    fresh = MemoryBank(9, 3).double()
    fresh.load_state_dict(bank.state_dict())
    assert torch.equal(fresh.rows, bank.rows)
    assert torch.equal(fresh.labels, bank.labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples needs an integer of at least 1, got 0"),
        ({"dim": 0}, "dim needs an integer of at least 1, got 0"),
        ({"momentum": 1.1}, r"momentum needs a number in \[0, 1\], got 1.1"),
        ({"momentum": -0.1}, r"momentum needs a number in \[0, 1\], got -0.1"),
        ({"momentum": float("nan")}, r"momentum needs a number in \[0, 1\], got nan"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MemoryBank(**{"num_samples": 9, "dim": 3, **options})


BAD_PLACES = {
    "high": ([0, 9], "a memory of 9 samples needs an index of at least 0 and below that, got 0 to 9"),
    "negative": ([-1, 4], "a memory of 9 samples needs an index of at least 0 and below that, got -1 to 4"),
}


@pytest.mark.parametrize(("places", "message"), BAD_PLACES.values(), ids=BAD_PLACES)
def test_places_out_of_range_are_refused_wherever_they_come_from(bank, places, message):
    before = bank.rows.clone()
    with pytest.raises(ValueError, match=message):
        bank.recall(torch.tensor(places), None, 3)
    with pytest.raises(ValueError, match=message):
        bank.recall(torch.tensor([1, 2]), None, 3, torch.tensor([places, places]))
    with pytest.raises(ValueError, match=message):
        bank.update(torch.tensor(places), embeddings(2), None)
    assert torch.equal(bank.rows, before)


def test_places_that_are_no_integers_are_refused(bank):
    # The run-time type checks of the tests see this first where they are on.
    with pytest.raises((ValueError, TypeError), match="integers as index of samples, got torch.float32|Type-check"):
        bank.recall(torch.zeros(2), None, 3)
    with pytest.raises((ValueError, TypeError), match="integers as index of samples, got torch.bool|Type-check"):
        bank.recall(torch.zeros(2, dtype=torch.bool), None, 3)


@pytest.mark.parametrize("mine", [None, [5, -100, 6, 5, 7]])
@pytest.mark.parametrize("theirs", [None, [5, -100, 6, 6]])
def test_others_are_other_samples_not_known_to_be_of_the_same_class(mine, theirs):
    index, other_index = [0, 1, 2, 3, 4], [0, 3, 8, 1]
    labels = [None if found is None else torch.tensor(found) for found in (mine, theirs)]
    got = others(torch.tensor(index), torch.tensor(other_index), *labels)
    for i in range(5):
        for j in range(4):
            known = mine is not None and theirs is not None and mine[i] != -100
            same = known and mine[i] == theirs[j]
            assert got[i, j] == float(index[i] != other_index[j] and not same)
    assert got.dtype == torch.float32


# Queue


def latest(batches: list[torch.Tensor], size: int) -> torch.Tensor:
    """The last rows of all that was pushed, in no particular order."""
    return torch.cat(batches)[-size:]


def in_order(rows: torch.Tensor) -> list[list[float]]:
    return sorted(rows.tolist())


@pytest.mark.parametrize("sizes", [[3, 3, 3, 3], [2, 5, 1, 4, 3], [9, 2, 8], [20, 3, 7]])
def test_a_queue_holds_the_latest_rows_whatever_the_sizes_of_batches(sizes):
    queue, batches = Queue(size=7, dim=3).double(), []
    for seed, n in enumerate(sizes):
        batches.append(embeddings(n, seed=seed))
        queue.push(batches[-1])
        pushed = sum(sizes[: seed + 1])
        assert int(queue.pushed) == pushed
        assert in_order(queue.rows[:pushed]) == in_order(latest(batches, 7))


@pytest.mark.parametrize("sizes", [[3], [3, 3], [5, 4], [2, 5, 1, 4], [7, 6], [20, 3, 2]])
@pytest.mark.parametrize("n", [1, 3, 7, 9])
def test_a_recalled_queue_is_the_batch_and_what_will_stay_beside_it(sizes, n):
    queue, batches = Queue(size=7, dim=3).double(), [embeddings(k, seed=k) for k in sizes]
    for batch in batches:
        queue.push(batch)
    x = embeddings(n, seed=99)
    graph = queue.recall(x)
    assert graph.x.shape == (n + 7, 3)
    assert torch.equal(graph.x[:n], x)
    counted = graph.x[masses(graph) > 0]
    stays = latest([*batches, x[:7]], 7) if n <= 7 else x
    assert in_order(counted) == in_order(stays)
    assert masses(graph).unique().tolist() in ([0.0, 1 / len(stays)], [1 / len(stays)])
    assert graph.node == "remembered"


def test_an_empty_queue_is_the_batch_alone():
    graph = Queue(size=4, dim=3).recall(embeddings(2).float())
    assert masses(graph).tolist() == [0.5, 0.5, 0, 0, 0, 0]


def test_what_was_recalled_of_a_queue_does_not_change_with_a_push_and_has_no_gradient():
    queue, x = Queue(size=4, dim=3).double(), embeddings(3).requires_grad_()
    queue.push(embeddings(4, seed=1))
    graph = queue.recall(x)
    before = graph.x.clone()
    queue.push(x)
    assert torch.equal(graph.x, before)
    assert not graph.x.requires_grad
    assert not queue.rows.requires_grad
    assert list(queue.parameters()) == []


def test_a_queue_is_saved_and_loaded():
    queue, fresh = Queue(size=4, dim=3), Queue(size=4, dim=3)
    queue.push(embeddings(6).float())
    assert list(queue.state_dict()) == ["rows", "pushed"]
    fresh.load_state_dict(queue.state_dict())
    queue.push(embeddings(1, seed=1).float())
    fresh.push(embeddings(1, seed=1).float())
    assert torch.equal(fresh.rows, queue.rows)
    assert "size=4, dim=3" in repr(queue)


def test_embeddings_of_any_precision_are_queued_in_that_of_the_queue():
    queue = Queue(size=4, dim=3)
    queue.push(embeddings(2).bfloat16())
    assert queue.rows.dtype == queue.recall(embeddings(2).double()).x.dtype == torch.float32


def test_rows_of_another_width_are_not_queued():
    queue = Queue(size=4, dim=3)
    for act in (queue.push, queue.recall):
        with pytest.raises(ValueError, match=r"a queue of width 3 needs such rows, got \(2, 5\)"):
            act(torch.zeros(2, 5))


@pytest.mark.parametrize("options", [{"size": 0}, {"dim": 0}])
def test_a_queue_refuses_sizes_out_of_range(options):
    with pytest.raises(ValueError, match="needs an integer of at least 1, got 0"):
        Queue(**{"size": 4, "dim": 3, **options})


# samples_apart


@pytest.mark.parametrize("same_class", [True, False])
@pytest.mark.parametrize("labels", [None, [5, -100, 6, 5, -100]])
def test_samples_of_a_batch_are_negatives_of_all_others_but_of_their_class(labels, same_class):
    features = {"feat": torch.zeros(5, 3)} | ({} if labels is None else {"labels": torch.tensor(labels)})
    graph = samples_apart(features, same_class)
    for i in range(5):
        for j in range(5):
            same = labels is not None and labels[i] == labels[j] != -100
            assert graph.negatives[i, j] == float(i != j and (same_class or not same))


def test_samples_with_soft_labels_are_of_their_likeliest_class():
    soft = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert samples_apart({"feat": torch.zeros(3, 1), "labels": soft}).negatives.tolist() == [
        [0, 1, 0],
        [1, 0, 1],
        [0, 1, 0],
    ]
