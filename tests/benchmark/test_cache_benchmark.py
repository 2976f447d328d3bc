import json

import pytest

from graphkd.benchmark import cache
from graphkd.benchmark.cache import benchmark_cache
from graphkd.benchmark.timing import Timing


def test_table_has_the_teacher_and_its_caches_with_their_ratio(capsys, tmp_path):
    timings = benchmark_cache(samples=5, batch_size=3, rounds=2, out=str(tmp_path / "cache.json"))
    printed = " ".join(capsys.readouterr().out.split())
    assert {name: len(each) for name, each in timings.items()} == {"ResNet-32x4": 3, "CNN for digits": 2}
    for word in ("5 samples", "batch 3", "2 rounds", "ResNet-32x4: teacher", "CNN for digits: cache of pooled"):
        assert word in printed
    written = json.loads((tmp_path / "cache.json").read_text())
    assert written["setting"]["samples"] == 5
    assert written["seconds"]["CNN for digits"]["teacher"]["median"] == timings["CNN for digits"]["teacher"].median > 0


def test_the_ratio_is_of_teacher_over_cache(monkeypatch, capsys):
    seconds = {"teacher": 6.0, "cache of pooled features and logits": 2.0, "cache of the last maps too": 3.0}

    def timed(functions, *_):
        return {name: Timing(*[seconds[name]] * 3, [seconds[name]]) for name in functions}

    monkeypatch.setattr(cache, "time_together", timed)
    benchmark_cache(samples=2, rounds=1)
    lines = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()]
    cells = {line[1]: line[2:6] for line in lines if len(line) > 5}
    assert cells["ResNet-32x4: cache of pooled features and logits"] == ["2000", "2000 .. 2000", "3", "3 .. 3"]
    assert cells["ResNet-32x4: cache of the last maps too"][2] == "2"


@pytest.mark.parametrize("options", [{"samples": 0}, {"batch_size": 0}, {"rounds": 0}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match="got"):
        benchmark_cache(**options)
