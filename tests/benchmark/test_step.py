import json

import pytest

from graphkd.benchmark.step import benchmark_step


def test_table_names_the_setting_and_every_criterion(capsys, tmp_path):
    timings = benchmark_step(batch_size=4, feature_dim=8, rounds=2, out=str(tmp_path / "step.json"))
    printed = capsys.readouterr().out
    assert set(timings) == {"student", "otgd", "kd"}
    for word in ("batch 4", "8-d", "2 rounds", "ResNet-8x4", "otgd", "kd", "100.00"):
        assert word in printed
    written = json.loads((tmp_path / "step.json").read_text())
    assert written["setting"]["batch_size"] == 4
    assert written["seconds"]["otgd"]["median"] == timings["otgd"].median > 0


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"rounds": 0}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match="got"):
        benchmark_step(**options)
