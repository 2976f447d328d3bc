"""The moving average of the student's weights: what it follows, what it is used for, and what it leaves alone."""

import pytest
import torch
from lightning import Callback

from graphkd import Distiller
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training.average import StudentAverage
from graphkd.training.folder import LAST
from graphkd.training.run import run

QUIET = {"enable_progress_bar": False, "seed": 0, "epochs": 2}


def data():
    digits = DigitsData(batch_size=16)
    digits.train = tuple(part[:64] for part in digits.train)
    return digits


def distiller():
    torch.manual_seed(0)
    return Distiller(SmallCNN(2))


class Weights(Callback):
    """The student's state after every step, and in validation."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, *rest):
        self.steps.append(state(pl_module.distiller.student))

    def on_validation_batch_start(self, trainer, pl_module, *rest):
        self.validated.append(state(pl_module.distiller.student))


def state(student):
    return {name: value.clone() for name, value in student.state_dict().items()}


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_average_follows_the_optimisers_steps_and_is_what_is_measured(accumulated, tmp_path):
    trained, seen = distiller(), Weights()
    first = state(trained.student)
    settings = QUIET | {"accumulate_grad_batches": accumulated, "callbacks": (seen,), "folder": tmp_path}
    result, history = run(trained, data(), student_ema=0.6, **settings)
    expected = {name: value.double() for name, value in first.items()}
    for step in seen.steps[accumulated - 1 :: accumulated]:
        for name, value in step.items():
            moved = 0.6 * expected[name] + 0.4 * value
            expected[name] = moved if value.is_floating_point() else value
    kept = state(trained.student)
    for name, value in expected.items():
        assert torch.allclose(kept[name].double(), value.double(), atol=1e-5), name
    assert any("running_mean" in name for name in kept) and any("num_batches_tracked" in name for name in kept)
    assert all(torch.equal(seen.validated[-1][name], value) for name, value in kept.items())
    assert result.student_ema == 0.6
    images, labels = data().test
    chosen = trained.student.eval()(images).argmax(-1)
    assert result.accuracy == pytest.approx(float((chosen == labels).float().mean()), abs=1e-5)
    content = torch.load(tmp_path / LAST, weights_only=True)["state_dict"]
    assert all(torch.equal(content[f"distiller.student.{name}"], value) for name, value in seen.steps[-1].items())


def test_training_is_the_same_with_and_without():
    seen = Weights(), Weights()
    for each, decay in zip(seen, (None, 0.9), strict=True):
        run(distiller(), data(), student_ema=decay, callbacks=(each,), **QUIET)
    for one, other in zip(seen[0].steps, seen[1].steps, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    one, other = seen[0].validated[-1], seen[1].validated[-1]
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


def test_a_run_that_had_no_average_goes_on_with_one_that_begins_there(tmp_path):
    run(distiller(), data(), folder=tmp_path, **QUIET)
    before = torch.load(tmp_path / LAST, weights_only=True)["state_dict"]["distiller.student.fc.weight"]
    trained = distiller()
    run(trained, data(), folder=tmp_path, resume=True, student_ema=1.0, **QUIET | {"epochs": 3})
    assert torch.equal(trained.student.fc.weight, before)


def test_a_finished_run_that_is_resumed_keeps_its_average(tmp_path):
    first, second = distiller(), distiller()
    for each, resume in ((first, False), (second, True)):
        run(each, data(), folder=tmp_path, resume=resume, student_ema=0.9, **QUIET)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_a_decay_that_is_no_share_is_refused(decay):
    with pytest.raises(ValueError, match=r"student_ema needs a number in \[0, 1\]"):
        StudentAverage(decay)
