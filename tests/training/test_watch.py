import pytest
import torch
from jaxtyping import TypeCheckError
from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from graphkd import Distiller, losses
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.probe import Probe
from graphkd.snapshots import load, saved
from graphkd.training import DistillationModule, SaveSnapshots, fit
from graphkd.training.watch import probe_of

PROBE = Probe(torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) // 2)


class FewDigits(DigitsData):
    """Three batches an epoch."""

    def __init__(self, **options):
        super().__init__(batch_size=50, **options)
        self.train = tuple(part[:150] for part in self.train)
        self.validation = tuple(part[:60] for part in self.validation)


def module(**criteria):
    torch.manual_seed(0)
    criteria = criteria or {"kd": losses.kd(), "otgd": losses.otgd()}
    features = {"feat": "pool"}
    return DistillationModule(
        Distiller(SmallCNN(2), SmallCNN(3), student_features=features, teacher_features=features, criteria=criteria)
    )


def steps(folder):
    return [load(path).step for path in saved(folder)]


def trained(callback, epochs=4, **options):
    quiet = {"enable_progress_bar": False, **options}
    distilled = module()
    fit(distilled, FewDigits(), epochs=epochs, callbacks=[callback] if callback else [], **quiet)
    return distilled


def test_a_snapshot_is_taken_before_training_and_after_every_epoch(tmp_path):
    trained(SaveSnapshots(tmp_path))
    seen = [load(path) for path in saved(tmp_path)]
    assert [(each.step, each.epoch) for each in seen] == [(0, 0), (3, 1), (6, 2), (9, 3), (12, 4)]
    assert seen[0].labels.tolist() == sorted(seen[0].labels.tolist())
    assert not torch.equal(seen[0].student["feat"], seen[4].student["feat"])
    assert torch.equal(seen[0].teacher["feat"], seen[4].teacher["feat"])


def test_a_snapshot_is_taken_every_few_steps_and_at_the_end(tmp_path):
    trained(SaveSnapshots(tmp_path, every=5, probe=PROBE))
    assert steps(tmp_path) == [0, 5, 10, 12]


def test_looking_does_not_change_what_is_learnt(tmp_path):
    alone, watched = trained(None), trained(SaveSnapshots(tmp_path, every=1))
    for name, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_the_last_snapshot_shows_the_trained_student(tmp_path):
    distilled = trained(SaveSnapshots(tmp_path, every=7, probe=PROBE), epochs=2)
    last = load(saved(tmp_path)[-1])
    assert last.step == 6
    expected = distilled.distiller.student.eval()(PROBE.inputs)
    assert torch.equal(last.student["logits"], expected)


@pytest.mark.parametrize(
    ("most", "expected"),
    [(4, [0, 4, 8, 12]), (6, [0, 4, 8, 12]), (7, [0, 2, 4, 6, 8, 10, 12]), (20, list(range(13))), (2, [0, 8, 12])],
)
def test_never_more_are_kept_than_asked_for_and_they_stay_evenly_spread(tmp_path, most, expected):
    trained(SaveSnapshots(tmp_path, every=1, most=most, probe=PROBE))
    assert steps(tmp_path) == expected


def test_an_interrupted_run_ends_with_the_snapshots_of_an_uninterrupted_one(tmp_path):
    whole, parts, run = tmp_path / "whole", tmp_path / "parts", tmp_path / "run"
    trained(SaveSnapshots(whole, most=3, probe=PROBE), epochs=6)

    class Stop(Exception):
        pass

    class Interrupt(Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            if trainer.global_step == 14:
                raise Stop

    quiet = {"enable_progress_bar": False, "folder": run}
    with pytest.raises(Stop):
        fit(
            module(), FewDigits(), epochs=6, callbacks=[SaveSnapshots(parts, most=3, probe=PROBE), Interrupt()], **quiet
        )
    (parts / "step000000013.pt").write_text("taken after the last checkpoint")
    again = SaveSnapshots(parts, most=3, probe=PROBE)
    fit(module(), FewDigits(), epochs=6, callbacks=[again], resume=True, **quiet)
    assert steps(parts) == steps(whole) == [0, 12, 18]
    for mine, theirs in zip(saved(parts), saved(whole), strict=True):
        assert torch.equal(load(mine).student["logits"], load(theirs).student["logits"])


def test_what_an_earlier_run_left_is_deleted(tmp_path):
    trained(SaveSnapshots(tmp_path, probe=PROBE), epochs=3)
    trained(SaveSnapshots(tmp_path, probe=PROBE), epochs=1)
    assert steps(tmp_path) == [0, 3]


def test_accumulated_gradients_count_as_one_step(tmp_path):
    trained(SaveSnapshots(tmp_path, every=1, probe=PROBE), epochs=1, accumulate_grad_batches=2)
    assert steps(tmp_path) == [0, 1, 2]


def test_half_precision_is_looked_at_as_it_runs(tmp_path):
    trained(SaveSnapshots(tmp_path, probe=PROBE), epochs=1, precision="bf16-mixed")
    assert load(saved(tmp_path)[-1]).student["feat"].dtype == torch.bfloat16


def test_plans_are_images_in_tensorboard(tmp_path):
    logger = TensorBoardLogger(tmp_path / "logs")
    trained(SaveSnapshots(tmp_path / "looks", probe=PROBE), epochs=1, logger=logger)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(logger.log_dir).Reload()
    assert events.Tags()["images"] == ["Plans of kd", "Plans of otgd"]
    assert [event.step for event in events.Images("Plans of otgd")] == [0, 3]
    assert events.Images("Plans of otgd")[0].width > 400


def test_a_probe_is_of_training_samples_where_criteria_remember_them():
    data = DigitsData(labels_per_class=10, with_index=True)
    probe = probe_of(data, module(crd=losses.crd(num_samples=1000, num_negatives=5)).distiller)
    assert probe.index is not None
    assert torch.equal(data.train[0][probe.index], probe.inputs)
    assert torch.equal(data.train[1][probe.index], probe.labels)
    assert probe_of(data, module().distiller).index is None


def test_a_probe_may_be_of_either_part():
    data = DigitsData(with_index=True)
    for split, images in (("training", data.train[0]), ("validation", data.validation[0])):
        probe = probe_of(data, module().distiller, split, samples=20, per_class=2)
        near = torch.cdist(probe.inputs.flatten(1), images.flatten(1)).amin(1)
        assert near.max() < 0.05 and len(probe.labels) == 20


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(ValueError, match="every needs an integer of at least 1, got 0"):
        SaveSnapshots(tmp_path, every=0)
    with pytest.raises(ValueError, match="most needs an integer of at least 2, got 1"):
        SaveSnapshots(tmp_path, most=1)
    with pytest.raises((ValueError, TypeCheckError)):  # With types checked, it does not get as far as ours.
        SaveSnapshots(tmp_path, split="test")
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    with pytest.raises(ValueError, match="needs? a probe, or a trainer with a data module"):
        SaveSnapshots(tmp_path).on_train_start(trainer, module())
