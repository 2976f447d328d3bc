"""With torch-scatter installed, PyTorch Geometric uses it, and nothing that graphkd computes changes."""

import pytest
import torch
import torch_geometric
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv
from torch_geometric.utils import segment

from graphkd import losses

pytestmark = pytest.mark.scatter

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class SegmentMax(nn.Module):
    """On the CPU, PyTorch Geometric leaves only sorted segments to torch-scatter, which otgd's layers do not use."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out_width)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index[:, edge_index[1].argsort(stable=True)]
        ends = target.bincount(minlength=len(x)).cumsum(0)
        # The sum with x shows a wrong scale, which the encoder's normalisation would hide.
        return x + segment(self.linear(x)[source], nn.functional.pad(ends, (1, 0)), reduce="max")


def max_sage(width: int, out_width: int) -> nn.Module:
    return SAGEConv(width, out_width, aggr="max")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of torch-scatter's functions, as PyTorch Geometric calls them."""
    import torch_scatter

    names: list[str] = []

    def record(name: str) -> None:
        function = getattr(torch_scatter, name)

        def recorded(*args, **kwargs):
            names.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(torch_scatter, name, recorded)

    for name in ("scatter", "segment_csr"):
        record(name)
    return names


def otgd_value_and_gradients(conv, device: str) -> list[Tensor]:
    torch.manual_seed(0)
    criterion = losses.otgd(7, 9, embed_dim=8, k=4, conv=conv).to(device, torch.float64)
    generator = torch.Generator().manual_seed(1)

    def features(width: int) -> dict[str, Tensor]:
        shapes = {"feat": (11, width), "logits": (11, 5)}
        return {
            name: torch.randn(shape, generator=generator, dtype=torch.float64).to(device)
            for name, shape in shapes.items()
        }

    student, teacher = features(7), features(9)
    student["feat"].requires_grad_()
    value = criterion(student, teacher).value
    return [value, *torch.autograd.grad(value, [student["feat"], *criterion.parameters()])]


def test_pyg_found_torch_scatter():
    assert torch_geometric.typing.WITH_TORCH_SCATTER


@pytest.mark.parametrize("device", DEVICES)
def test_pyg_reduces_segments_with_torch_scatter(calls: list[str], device: str):
    x = torch.randn(5, 2, device=device)
    segment(x, torch.tensor([0, 2, 5], device=device), reduce="sum")
    assert calls == ["segment_csr"]


@pytest.mark.filterwarnings("ignore:The usage of `scatter")  # on the GPU, PyG recommends torch-scatter
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("conv", ["tag", "gcn", "sage", "gat", max_sage, SegmentMax])
def test_otgd_is_the_same_without_torch_scatter(monkeypatch: pytest.MonkeyPatch, calls: list[str], conv, device: str):
    with_scatter = otgd_value_and_gradients(conv, device)
    if conv is SegmentMax or (conv is max_sage and device == "cuda"):
        assert calls, "this case is here because torch-scatter computes it"
    calls.clear()
    monkeypatch.setattr(torch_geometric.typing, "WITH_TORCH_SCATTER", False)
    without = otgd_value_and_gradients(conv, device)
    assert not calls
    assert with_scatter[1].abs().max() > 0
    torch.testing.assert_close(with_scatter, without)
