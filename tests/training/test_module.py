"""What a student is measured by: every labelled sample once, whatever the batches and the processes."""

import pytest
import torch
from lightning import Trainer
from processes import run
from torch import nn
from torch.utils.data import DataLoader, Dataset

from graphkd import Distiller, losses, parallel
from graphkd.datasets.sampling import InOrder
from graphkd.training import DistillationModule


class Same(nn.Module):
    """Class 0 for all; inputs by name, an output by name."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": torch.tensor([[1.0, 0.0]]).expand(len(pixels), 2) + self.weight}


class Samples(Dataset):
    """Samples with these labels, and where they stand."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int):
        return {"pixels": torch.zeros(3)}, self.labels[i], i


def measured(labels: list[int], batch_size: int) -> dict[str, float]:
    distiller = Distiller(Same(), Same(), criteria={"kd": losses.kd()})
    loader = DataLoader(Samples(labels), batch_size, sampler=InOrder(len(labels)))
    module = DistillationModule(distiller)
    found = {}
    module.log = lambda name, value, **_: found.update({name: float(value)})  # pyright: ignore[reportAttributeAccessIssue]
    for batch in loader:
        module.test_step(batch, 0)
    module.on_test_epoch_end()
    return found


def test_unlabelled_samples_do_not_count():
    found = measured([0, 1, 0, -100, -100, -100, -100, -100], 4)
    assert found == {"test/accuracy": pytest.approx(2 / 3), "test/agreement": 1.0}


def test_batches_of_different_sizes_count_by_their_samples():
    assert measured([0, 0, 0, 0, 1], 4)["test/accuracy"] == pytest.approx(0.8)


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|many workers)")
def test_lightning_gets_the_shares():
    distiller = Distiller(Same(), Same(), criteria={"kd": losses.kd()})
    loader = DataLoader(Samples([0, 1, 1]), 2, sampler=InOrder(3))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    (found,) = Trainer(**quiet, enable_checkpointing=False).test(DistillationModule(distiller), loader, verbose=False)
    assert found == {"test/accuracy": pytest.approx(1 / 3), "test/agreement": 1.0}


def shares() -> dict[str, float]:
    return measured([0] * 17 + [1] * 16, 4)


def test_several_processes_count_each_sample_once():
    assert run(2, shares) == [{"test/accuracy": pytest.approx(17 / 33), "test/agreement": 1.0}] * 2


def test_memories_are_named_where_ddp_looks():
    distiller = Distiller(Same(), Same(), criteria={"crd": losses.crd(2, 2, num_samples=9)})
    names = DistillationModule(distiller)._ddp_params_and_buffers_to_ignore
    assert names
    assert set(names) <= dict(DistillationModule(distiller).named_buffers()).keys()
    assert parallel.world() == 1
