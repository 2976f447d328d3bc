"""A run whose loss is no number ends, says where, and keeps what is needed to see why."""

import pytest
import torch
from lightning import Callback
from torch import nn

from graphkd import Distiller, losses
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training import DistillationModule, fit
from graphkd.training.finite import FiniteLosses, check_weights
from graphkd.training.folder import LAST

QUIET = {"enable_progress_bar": False}


def data():
    digits = DigitsData(batch_size=16, with_index=True)
    digits.train = tuple(part[:64] for part in digits.train)
    return digits


def breaking(at, factor=torch.nan):
    """The task's loss, times something in one of its calls, counted from 0."""
    calls = []

    def task(logits, labels):
        calls.append(None)
        loss = nn.functional.cross_entropy(logits, labels)
        return loss * factor if len(calls) == at + 1 else loss

    return task


def module(task_loss):
    torch.manual_seed(0)
    distiller = Distiller(SmallCNN(2), SmallCNN(4), criteria={"kd": losses.kd()}, task_loss=task_loss)
    return DistillationModule(distiller)


class Batches(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_batch(tmp_path):
    batches = Batches()
    with pytest.raises(ValueError, match=r"got nan at step 5 in epoch 2: task is nan; its batch is kept in ") as error:
        fit(module(breaking(5)), data(), epochs=3, folder=tmp_path, callbacks=[batches], **QUIET)
    path = tmp_path / "not_finite_step000005.pt"
    assert str(path) in str(error.value)
    content = torch.load(path, weights_only=True)
    inputs, labels, index = batches.seen[5]
    assert len(batches.seen) == 6
    assert torch.equal(content["inputs"], inputs) and torch.equal(content["labels"], labels)
    assert torch.equal(content["index"], index)
    assert (content["step"], content["epoch"], content["not_finite"]) == (5, 2, "task")
    assert content["logs"]["task"] != content["logs"]["task"] and 0 < content["logs"]["kd"] < 10
    kept = torch.load(tmp_path / LAST, weights_only=True)
    assert (kept["global_step"], kept["epoch"]) == (4, 0)
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())


def test_a_run_without_a_folder_ends_as_well():
    with pytest.raises(ValueError, match=r"got inf at step 0 in epoch 1: task is inf$"):
        fit(module(breaking(0, torch.inf)), data(), epochs=1, **QUIET)


def test_weights_that_are_not_finite_are_never_kept(tmp_path):
    class Spoil(Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            if trainer.global_step == 2:
                pl_module.distiller.student.fc.bias.data[0] = torch.nan

    trained = module(breaking(-1))
    with pytest.raises(ValueError, match=r"got 1 parameters .* after 2 steps, such as student.fc.bias"):
        fit(trained, data(), epochs=1, folder=tmp_path, checkpoint_every=2, callbacks=[Spoil()], **QUIET)
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 0


def test_what_a_criterion_refuses_after_a_gradient_that_was_not_finite_is_explained(tmp_path):
    class Spoil(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2:
                pl_module.distiller.student.fc.weight.data[0] = torch.inf

    with pytest.raises(ValueError, match=r"got none at step 2 in epoch 1: the student's weights \(fc.weight\) are not"):
        fit(module(breaking(-1)), data(), epochs=1, folder=tmp_path, callbacks=[Spoil()], **QUIET)
    content = torch.load(tmp_path / "not_finite_step000002.pt", weights_only=True)
    assert content["inputs"].shape == (16, 1, 8, 8)


def test_inputs_that_are_not_finite_are_named(tmp_path):
    spoilt = data()
    spoilt.train[0][7] = torch.nan
    with pytest.raises(ValueError, match=r"the inputs are not finite"):
        fit(module(breaking(-1)), spoilt, epochs=1, folder=tmp_path, **QUIET)


def test_a_mistake_of_another_kind_stays_as_it_is(tmp_path):
    def task(logits, labels):
        raise ValueError("this is something else")

    with pytest.raises(ValueError, match="^this is something else$"):
        fit(module(task), data(), epochs=1, folder=tmp_path, **QUIET)
    assert not list(tmp_path.glob("not_finite*"))


def test_the_terms_are_named_before_what_they_add_up_to():
    nan, one = torch.tensor(torch.nan), torch.tensor(1.0)
    logs = {"loss": nan, "task": one, "otgd": nan, "otgd/f": nan, "weighted/otgd": nan, "weighted/otgd/f": nan}
    with pytest.raises(ValueError, match="otgd is nan, otgd/f is nan$"):
        FiniteLosses().watch(nan, logs, [], epoch=1, step=0)
    inf = torch.tensor(torch.inf)
    with pytest.raises(ValueError, match="got inf at step 0 in epoch 1: weighted/kd is inf$"):
        FiniteLosses().watch(inf, {"loss": inf, "kd": one, "weighted/kd": inf}, [], epoch=1, step=0)
    with pytest.raises(ValueError, match="got inf at step 0 in epoch 1: loss is inf$"):
        FiniteLosses().watch(inf, {"loss": inf, "kd": one, "weighted/kd": one}, [], epoch=1, step=0)


class OnDevice(torch.Tensor):
    """Says of itself that it is elsewhere, where nobody looks at once."""

    @property
    def is_cpu(self):
        return False


def test_on_a_device_a_step_is_looked_at_while_the_next_one_runs():
    seen = FiniteLosses()

    def watch(value, step):
        loss = torch.tensor(value).as_subclass(OnDevice)
        seen.watch(loss, {"loss": torch.tensor(value)}, [], epoch=1, step=step)

    watch(1.0, 0)
    watch(torch.nan, 1)
    with pytest.raises(ValueError, match="at step 1"):
        watch(1.0, 2)
    watch(torch.nan, 3)
    with pytest.raises(ValueError, match="at step 3"):
        seen.check()


def test_inputs_of_any_nesting_are_kept(tmp_path):
    nan = torch.tensor(torch.nan)
    batch = ({"ids": torch.ones(2), "more": [torch.zeros(1), "word", 3, object()]}, torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="kept in"):
        FiniteLosses(tmp_path).watch(nan, {"loss": nan}, batch, epoch=1, step=12)
    content = torch.load(tmp_path / "not_finite_step000012.pt", weights_only=True)
    assert content["inputs"]["more"][1:3] == ["word", 3]
    assert torch.equal(content["inputs"]["ids"], torch.ones(2))
    assert "index" not in content


def test_weights_are_looked_at_by_name():
    model = nn.Linear(2, 2)
    check_weights({"student": model, "criteria": nn.ModuleDict()}, step=1)
    model.bias.data[1] = torch.inf
    with pytest.raises(ValueError, match="such as criteria.bias"):
        check_weights({"student": nn.Linear(2, 2), "criteria": model}, step=1)
    check_weights({}, step=1)


def test_inputs_by_name_that_are_not_finite_are_named():
    nan = {"x": torch.ones(2, 3), "mask": torch.tensor([1.0, torch.nan])}
    with pytest.raises(ValueError, match=r"the inputs are not finite \(refused\)"):
        FiniteLosses().explain(ValueError("refused"), Masked(), [nan, None], epoch=1, step=0)


class Masked(nn.Module):
    def forward(self, x, mask):
        return x * mask[:, None]


@pytest.mark.parametrize("inputs", [{"x": torch.ones(2, 3), "mask": torch.ones(2)}, [torch.ones(2, 3), torch.ones(2)]])
def test_logits_of_inputs_in_parts_are_looked_at(inputs):
    student = Masked()
    FiniteLosses().explain(ValueError(), student, [inputs, None], epoch=1, step=0)
    student.register_forward_hook(lambda module, arguments, output: output / 0)
    with pytest.raises(ValueError, match="the student's logits are not finite"):
        FiniteLosses().explain(ValueError(), student, [inputs, None], epoch=1, step=0)
