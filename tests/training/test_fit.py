from functools import partial

import pytest
import torch
from lightning import Callback

from graphkd import Distiller, losses
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.teachers import ema
from graphkd.training import DistillationModule, evaluate, fit
from graphkd.training.folder import LAST, METRICS
from graphkd.training.schedules import ConstantThenCosine, LinearWarmup

QUIET = {"enable_progress_bar": False}


def small_data(labels=5):
    data = DigitsData(labels, batch_size=32)
    data.train = tuple(part[:96] for part in data.train)
    data.validation = tuple(part[:50] for part in data.validation)
    return data


def module(criteria=True, dropout=0.0, weights=None, average=False):
    torch.manual_seed(0)
    student, teacher = SmallCNN(2), SmallCNN(4)
    student.pool.append(torch.nn.Dropout(dropout))
    if average:
        teacher = ema(student, 0.8)
    distiller = Distiller(
        student,
        teacher,
        student_features={"feat": "pool"},
        teacher_features={"feat": "pool"},
        criteria={"otgd": losses.otgd(embed_dim=8), "kd": losses.kd()} if criteria else {},
        weights=weights,
    )
    scheduler = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=3)
    return DistillationModule(distiller, scheduler=scheduler)


def weights(trained):
    return torch.cat([parameter.detach().flatten() for parameter in trained.distiller.learnable_parameters()])


class Stop(Callback):
    """Raise in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            raise RuntimeError("stopped here")


def test_a_teacher_that_is_an_average_moves_after_every_step_and_resumes(tmp_path):
    whole = module(average=True)
    trainer, history = fit(whole, small_data(), epochs=3, folder=tmp_path / "whole", **QUIET)
    assert int(whole.distiller.teacher.n_averaged) == 1 + trainer.global_step
    with pytest.raises(RuntimeError, match="stopped here"):
        fit(module(average=True), small_data(), epochs=3, folder=tmp_path / "cut", callbacks=[Stop(1)], **QUIET)
    resumed = module(average=True)
    _, continued = fit(resumed, small_data(), epochs=3, folder=tmp_path / "cut", resume=True, **QUIET)
    assert torch.equal(weights(whole), weights(resumed))
    assert continued.curves["train/kd"] == history.curves["train/kd"]
    assert continued.curves["val/agreement"] == history.curves["val/agreement"]


@pytest.mark.parametrize("accumulated", [1, 2])
def test_an_average_counts_steps_of_the_optimiser(accumulated):
    trained = module(average=True)
    trainer, _ = fit(trained, small_data(), epochs=1, accumulate_grad_batches=accumulated, **QUIET)
    assert int(trained.distiller.teacher.n_averaged) == 1 + trainer.global_step


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_run_resumed_in_any_epoch_ends_at_the_same_numbers(tmp_path, epoch):
    whole = module(dropout=0.5)
    _, history = fit(whole, small_data(), epochs=3, folder=tmp_path / "whole", **QUIET)
    with pytest.raises(RuntimeError, match="stopped here"):
        fit(module(dropout=0.5), small_data(), epochs=3, folder=tmp_path / "cut", callbacks=[Stop(epoch)], **QUIET)
    torch.manual_seed(123)
    resumed = module(dropout=0.5)
    _, continued = fit(resumed, small_data(), epochs=3, folder=tmp_path / "cut", resume=True, **QUIET)
    assert torch.equal(weights(whole), weights(resumed))
    assert {key: curve for key, curve in continued.curves.items() if key != "seconds"} == {
        key: curve for key, curve in history.curves.items() if key != "seconds"
    }
    assert len(continued.curves["train/loss"]) == 3


def test_a_resumed_run_goes_on_with_the_weights_of_its_epochs(tmp_path):
    scheduled = {"task": LinearWarmup(1.0, 2), "kd": ConstantThenCosine(4.0, 1), "otgd/f": ConstantThenCosine(2.0, 0)}
    whole = module(weights=scheduled)
    _, history = fit(whole, small_data(), epochs=4, folder=tmp_path / "whole", **QUIET)
    with pytest.raises(RuntimeError, match="stopped here"):
        fit(module(weights=scheduled), small_data(), epochs=4, folder=tmp_path / "cut", callbacks=[Stop(2)], **QUIET)
    resumed = module(weights=scheduled)
    _, continued = fit(resumed, small_data(), epochs=4, folder=tmp_path / "cut", resume=True, **QUIET)
    assert torch.equal(weights(whole), weights(resumed))
    curves = {name: curve for name, curve in history.curves.items() if name.startswith("train/weight/")}
    assert curves == {name: curve for name, curve in continued.curves.items() if name.startswith("train/weight/")}
    expected = {"task": [0.5, 1, 1, 1], "kd": [4, 3, 1, 0], "otgd/f": [2**0.5 / 2 + 1, 1, 1 - 2**0.5 / 2, 0]}
    assert curves == {f"train/weight/{name}": pytest.approx(curve, abs=1e-6) for name, curve in expected.items()}
    for name in ("task", "kd"):
        weighted = [
            weight * value for weight, value in zip(expected[name], history.curves[f"train/{name}"], strict=True)
        ]
        assert history.curves[f"train/weighted/{name}"] == pytest.approx(weighted, rel=1e-5)


def test_weights_that_are_numbers_are_not_logged(tmp_path):
    _, history = fit(module(weights={"kd": 2.0}), small_data(), epochs=1, **QUIET)
    assert not any("weight/" in name for name in history.curves)


def test_the_checkpoint_has_no_teacher_and_nothing_but_it_and_the_curves_is_kept(tmp_path):
    fit(module(), small_data(), epochs=1, folder=tmp_path, **QUIET)
    assert {path.name for path in tmp_path.iterdir()} == {LAST, METRICS}
    state = torch.load(tmp_path / LAST, weights_only=True)["state_dict"]
    assert any(key.startswith("distiller.student.") for key in state)
    assert not any("teacher" in key for key in state if not key.startswith("distiller.criteria."))


def test_resuming_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a checkpoint, got none"):
        fit(module(), small_data(), epochs=1, folder=tmp_path, resume=True, **QUIET)


def test_training_learns_and_is_measured(tmp_path):
    trained = module()
    trainer, history = fit(trained, small_data(None), epochs=8, **QUIET)
    curves = history.curves
    assert curves["train/task"][-1] < curves["train/task"][0]
    assert all(seconds > 0 for seconds in curves["seconds"])
    data = small_data()
    measured = evaluate(trainer, trained, data)
    trained.eval()
    images, labels = data.test
    with torch.no_grad():
        chosen = trained.distiller.student(images).argmax(-1)
        teacher = trained.distiller.teacher(images).argmax(-1)
    assert measured["accuracy"] == pytest.approx(float((chosen == labels).float().mean()), abs=1e-5)
    assert measured["agreement"] == pytest.approx(float((chosen == teacher).float().mean()), abs=1e-5)


def test_a_run_without_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(module(criteria=False), small_data(), epochs=1, **QUIET)
    assert list(tmp_path.iterdir()) == []
