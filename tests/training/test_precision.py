"""Half precision, accumulated and clipped gradients, in runs with criteria that learn."""

import pytest
import torch
from lightning import Callback
from lightning.pytorch.plugins import MixedPrecision

from graphkd import Distiller, losses
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training.folder import LAST
from graphkd.training.run import run

QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "seed": 0}


class Watch(Callback):
    """Kinds of numbers in a run, and the length of the gradient that the optimiser gets."""

    def __init__(self):
        self.plans, self.losses, self.lengths, self.logits = set(), set(), [], set()

    def setup(self, trainer, pl_module, stage):
        forward = pl_module.distiller.forward

        def watched(*batch):
            step = forward(*batch)
            self.plans |= {seen.plan.dtype for seen in step.comparisons.values() if seen.plan is not None}
            self.losses.add(step.loss.dtype)
            self.logits.add(step.output.dtype)
            return step

        if stage == "fit":
            pl_module.distiller.forward = watched

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        found = [each.grad.flatten() for each in pl_module.distiller.learnable_parameters() if each.grad is not None]
        if found:
            self.lengths.append(float(torch.cat(found).norm()))


def train(watch, n=128, epochs=2, criteria=None, **options):
    torch.manual_seed(0)
    data = DigitsData(batch_size=32)
    data.train = tuple(part[:n] for part in data.train)
    spec = {"feat": "pool"}
    distiller = Distiller(
        SmallCNN(4),
        SmallCNN(8),
        student_features=spec,
        teacher_features=spec,
        criteria=criteria or {"otgd": losses.otgd(embed_dim=8, k=4), "kd": losses.kd()},
    )
    return distiller, *run(distiller, data, epochs=epochs, callbacks=(watch,), **QUIET | options)


HALF = {
    torch.bfloat16: lambda: {"precision": "bf16-mixed"},
    # With its own first scale a few steps would be skipped, which are all that there are.
    torch.float16: lambda: {"plugins": MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", 1024.0))},
}


@pytest.mark.parametrize("half", HALF)
def test_networks_run_in_half_precision_and_transport_in_full(tmp_path, half):
    watch = Watch()
    distiller, _, history = train(watch, folder=tmp_path, **HALF[half]())
    assert watch.logits == {half}
    assert watch.plans == {torch.float32} and watch.losses == {torch.float32}
    assert all(each.dtype == torch.float32 for each in distiller.parameters())
    _, _, full = train(Watch())
    assert history.curves["train/loss"] == pytest.approx(full.curves["train/loss"], rel=0.05)
    assert history.curves["train/loss"][0] != full.curves["train/loss"][0]


def test_a_step_whose_scaled_gradient_is_not_finite_is_skipped_and_the_run_goes_on(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, backoff_factor=2.0**-50)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    distiller, _, history = train(Watch(), plugins=[plugin], folder=tmp_path)
    assert scaler.get_scale() == 2.0**10
    assert all(torch.isfinite(each).all() for each in distiller.parameters())
    assert torch.load(tmp_path / LAST, weights_only=True)["MixedPrecision"]["scale"] == scaler.get_scale()


def test_gradients_are_accumulated_and_clipped_with_those_of_criteria():
    accumulated, clipped = Watch(), Watch()
    train(accumulated, n=192, accumulate_grad_batches=2, epochs=1)
    train(clipped, n=192, accumulate_grad_batches=2, epochs=1, gradient_clip_val=0.01)
    assert len(clipped.lengths) == 2
    assert all(length == pytest.approx(0.01, rel=1e-3) for length in clipped.lengths)
    assert all(length > 0.1 for length in accumulated.lengths)
