import torch

from graphkd.benchmark.accuracy.cost import peak_memory


def test_the_peak_is_of_what_is_held_at_once():
    mib = 2**18  # float32 numbers

    def held():
        kept = [torch.ones(mib) for _ in range(3)]
        return sum(float(x[0]) for x in kept)

    def one_after_the_other():
        return sum(float(torch.ones(mib)[0]) for _ in range(3))

    assert 3.0 <= peak_memory(held) < 3.1
    assert 1.0 <= peak_memory(one_after_the_other) < 1.1


def test_what_is_held_before_and_given_back_does_not_count():
    before = torch.ones(2**20)
    assert peak_memory(lambda: before.sum()) < 0.01


def test_nothing_is_written(capfd):
    peak_memory(lambda: torch.ones(3))
    assert capfd.readouterr() == ("", "")
