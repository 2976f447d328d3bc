from pathlib import Path

import pytest
import torch
from torch import nn

from graphkd import Distiller, losses
from graphkd.class_cost import class_cost
from graphkd.datasets import DigitsData
from graphkd.demo import METHODS
from graphkd.models import SmallCNN
from graphkd.probe import Probe, choose
from graphkd.snapshots import load, save, saved, take

FEATURES = {"feat": "pool", "map": "body"}


def distiller(**criteria):
    torch.manual_seed(0)
    return Distiller(SmallCNN(4), SmallCNN(6), student_features=FEATURES, teacher_features=FEATURES, criteria=criteria)


def probe(n=12, index=False):
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(n) // 3
    return Probe(torch.randn(n, 1, 8, 8, generator=generator), labels, torch.arange(n) if index else None)


def flat(value):
    """All tensors in nested tuples, mappings and graphs."""
    if isinstance(value, torch.Tensor):
        return [value]
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, dict):
        value = list(value.values())
    return [each for part in value for each in flat(part)] if isinstance(value, (list, tuple)) else []


def test_a_snapshot_is_what_the_distiller_compares_in_eval_mode():
    both = distiller(otgd=losses.otgd(), kd=losses.kd()).eval()
    p = probe()
    step = both(p.inputs, p.labels)
    seen = take(both, p, step=7, epoch=2)
    assert (seen.step, seen.epoch) == (7, 2)
    assert list(seen.comparisons) == ["otgd/f", "otgd/g", "otgd/gf", "otgd/fg", "kd/kd"]
    for name, comparison in seen.comparisons.items():
        for mine, theirs in zip(flat(comparison), flat(step.comparisons[name]), strict=True):
            assert torch.equal(mine, theirs)
            assert not mine.requires_grad
    assert seen.logs == {name: float(value) for name, value in step.logs.items()}
    assert seen.layers == (["feat", "map", "logits"], ["feat", "map", "logits"])
    assert seen.cka.shape == (3, 3)
    assert {name: x.shape for name, x in seen.student.items()} == {"feat": (12, 16), "logits": (12, 10)}
    assert torch.equal(seen.teacher["logits"], step.teacher_features["logits"])


def test_taking_a_snapshot_leaves_no_trace():
    memory = distiller(crd=losses.crd(num_samples=12, num_negatives=5))
    p = probe(index=True)
    memory(p.inputs, p.labels, p.index)
    memory.train()
    memory.student.eval()
    before = {name: value.clone() for name, value in memory.state_dict().items()}
    state = torch.get_rng_state()
    first = take(memory, p)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in memory.state_dict().items())
    assert memory.training and not memory.student.training and not memory.student.pool.training
    assert memory.criteria["crd"].student.training
    torch.rand(5)
    second = take(memory, p)
    assert all(torch.equal(a, b) for a, b in zip(flat(first.comparisons), flat(second.comparisons), strict=True))


def test_modes_are_put_back_where_a_criterion_fails():
    memory = distiller(crd=losses.crd(num_samples=12, num_negatives=5))
    with pytest.raises(KeyError, match="index"):
        take(memory, probe())
    assert memory.training and memory.student.training


@pytest.mark.parametrize("method", sorted(METHODS))
def test_snapshots_of_every_method_are_read_as_they_were_written(method, tmp_path):
    data = DigitsData(with_index=True)
    teacher = SmallCNN(6)
    both = Distiller(
        SmallCNN(4),
        teacher,
        student_features=FEATURES,
        teacher_features=FEATURES,
        criteria=METHODS[method].criteria(teacher),
    )
    snapshot = take(both, choose(data.train_dataloader(), samples=20, per_class=2), step=3, epoch=1)
    path = save(tmp_path / "new", snapshot)
    again = load(path)
    assert again._replace(comparisons={}, student={}, teacher={}, cka=None, labels=None, pictures=None) == (
        snapshot._replace(comparisons={}, student={}, teacher={}, cka=None, labels=None, pictures=None)
    )
    assert list(again.comparisons) == list(snapshot.comparisons)
    ours, theirs = flat(tuple(snapshot)), flat(tuple(again))
    assert len(ours) == len(theirs) > 8
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    for name, comparison in again.comparisons.items():
        assert type(comparison) is type(snapshot.comparisons[name])
        assert [g.get("node") for g in comparison.graphs] == [g.get("node") for g in snapshot.comparisons[name].graphs]


def test_a_file_is_not_larger_than_what_it_holds(tmp_path):
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 5000)

        def forward(self, x):
            return self.layer(x)[:, :10]

    seen = take(
        Distiller(First(), First(), criteria={"kd": losses.kd()}), Probe(torch.randn(12, 3), torch.arange(12) % 10)
    )
    assert save(tmp_path, seen).stat().st_size < 60_000


def test_pictures_are_the_images_as_bytes():
    images = torch.linspace(-2, 3, 4 * 64).reshape(4, 1, 8, 8)
    pictures = take(distiller(kd=losses.kd()), Probe(images, torch.arange(4))).pictures
    assert pictures.dtype == torch.uint8 and pictures.shape == (4, 1, 8, 8)
    expected = ((images + 2) / 5 * 255).round()
    assert torch.equal(pictures.float(), expected)


def test_large_pictures_are_made_smaller_and_each_channel_keeps_its_range():
    both = Distiller(
        nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        criteria={"kd": losses.kd()},
    )
    images = torch.randn(5, 3, 100, 200) * torch.tensor([1.0, 10.0, 0.1]).reshape(3, 1, 1)
    pictures = take(both, Probe(images, torch.arange(5))).pictures
    assert pictures.shape == (5, 3, 32, 64)
    assert pictures.amin((0, 2, 3)).tolist() == [0, 0, 0]
    assert pictures.amax((0, 2, 3)).tolist() == [255, 255, 255]


def test_inputs_that_are_no_images_have_no_pictures():
    linear = Distiller(nn.Linear(3, 5), nn.Linear(3, 5), criteria={"kd": losses.kd()})
    assert take(linear, Probe(torch.randn(6, 3), torch.arange(6) % 5)).pictures is None


def test_a_layer_that_is_constant_has_no_alignment():
    dead = distiller(kd=losses.kd())
    nn.init.zeros_(dead.student.head.weight if hasattr(dead.student, "head") else dead.student.fc.weight)
    seen = take(dead, probe())
    assert seen.cka.isnan().any(1).tolist() == [False, False, True]


def test_the_files_of_a_folder_come_by_step(tmp_path):
    both = distiller(kd=losses.kd())
    for step in (200, 3, 1_000_000_000):
        save(tmp_path, take(both, probe(), step=step))
    (tmp_path / "step1.pt").touch()
    (tmp_path / "last.ckpt").touch()
    assert [load(path).step for path in saved(tmp_path)] == [3, 200, 1_000_000_000]
    assert saved(tmp_path / "nowhere") == []


def test_what_is_no_snapshot_is_refused(tmp_path):
    path = Path(tmp_path, "step000000001.pt")
    torch.save({"plan": torch.eye(2)}, path)
    with pytest.raises(ValueError, match="needs to be a snapshot of graphkd"):
        load(path)
    path.write_text("words")
    with pytest.raises(ValueError, match="needs to be a snapshot of graphkd"):
        load(path)
    with pytest.raises(ValueError, match="distiller with criteria, got none"):
        take(Distiller(nn.Linear(2, 2)), Probe(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)))


def test_class_costs_and_names_are_kept(tmp_path):
    data = DigitsData()
    teacher = SmallCNN(4)
    cost = class_cost(teacher, data.train_dataloader(), feature="pool", progress=False)
    both = Distiller(SmallCNN(4), teacher, criteria={"wkd": losses.wkd_logits(cost)})
    p = choose(data.val_dataloader(), 20, 2)._replace(class_names=[f"digit {i}" for i in range(10)])
    again = load(save(tmp_path, take(both, p)))
    assert again.class_names == [f"digit {i}" for i in range(10)]
    assert torch.equal(again.comparisons["wkd/transport"].cost, cost)
    assert again.comparisons["wkd/transport"].graphs[0].node == "class"
