from graphkd.training import History


def test_curves_are_read_as_they_were_written(tmp_path):
    history = History()
    history.curves = {"train/loss": [1.5, 0.25], "seconds": [3.0, 2.0]}
    history.save(tmp_path / "history.json")
    assert History.read(tmp_path / "history.json").curves == history.curves
