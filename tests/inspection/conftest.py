import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd.snapshots import Snapshot
from graphkd.typing import Comparison

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chain(n: int, shift: int = 1) -> Data:
    """A graph that joins each node with the one that stands so many places further."""
    ends = torch.arange(n)
    return Data(x=torch.zeros(n, 2), edge_index=torch.stack([ends, (ends + shift) % n]))


def compared(plan: Tensor, cost: Tensor | None = None, graphs: tuple[Data, Data] | None = None) -> Comparison:
    """A comparison with a plan of one's own."""
    problems = plan.shape[:-2]
    n, m = plan.shape[-2:]
    cloud = (Data(x=torch.zeros(n, 2)), Data(x=torch.zeros(m, 2)))
    return Comparison(
        value=plan.double().nan_to_num().square().sum().float(),
        plan=plan,
        cost=cost,
        relations=None,
        marginal_error=torch.full(problems, 0.25),
        converged=torch.ones(problems, dtype=torch.bool),
        graphs=graphs or cloud,
    )


def snapshot(
    comparisons: dict[str, Comparison],
    labels: Tensor,
    *,
    step: int = 0,
    pictures: Tensor | None = None,
    class_names: list[str] | None = None,
    student: dict[str, Tensor] | None = None,
    teacher: dict[str, Tensor] | None = None,
) -> Snapshot:
    """A snapshot of samples with such labels."""
    rows = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(len(labels)))
    return Snapshot(
        step=step,
        epoch=step // 10,
        comparisons=comparisons,
        logs={},
        student={"feat": rows + 0.1 * step} if student is None else student,
        teacher={"feat": rows} if teacher is None else teacher,
        cka=torch.tensor([[0.25, 1.0]]),
        layers=(["feat"], ["feat", "map"]),
        labels=labels,
        pictures=pictures,
        class_names=class_names,
    )


@pytest.fixture
def make() -> SimpleNamespace:
    """The builders above, as ``make.snapshot`` and so on."""
    return SimpleNamespace(chain=chain, compared=compared, snapshot=snapshot)


@pytest.fixture
def run() -> list[Snapshot]:
    """Three steps on twelve samples of three classes, which do not come sorted."""
    labels = torch.arange(12) % 3
    n, made = len(labels), []
    for step in (0, 10, 20):
        generator = torch.Generator().manual_seed(step)
        plan = torch.rand(n, n, generator=generator) + (labels[:, None] == labels) + step / 10 * torch.eye(n)
        plan = plan / plan.sum(1, keepdim=True) / n
        cost = 2 + torch.rand(n, n, generator=generator)
        both = torch.rand(2, n, 40, generator=generator)
        remembered = Data(x=torch.zeros(2, 40, 2), node="remembered")
        classes = Data(x=torch.zeros(3, 1), node="class")
        made.append(
            snapshot(
                {
                    "otgd/g": compared(plan, cost, (chain(n, 1 + step // 10), chain(n, 2))),
                    "kd/kd": compared(torch.eye(n) / n, cost),
                    "crd/contrast": compared(both / both.sum((1, 2), keepdim=True), None, (Data(), remembered)),
                    "wkd_logits/transport": compared(torch.eye(3) / 3, 1 - torch.eye(3), (classes, classes)),
                    "wkd_features/mean": compared(torch.ones(n, 1, 1)),
                    "rtot/neurons": compared(torch.ones(4, 7) / 28, None, (Data(node="neuron"), Data(node="neuron"))),
                },
                labels,
                step=step,
                pictures=(torch.arange(12).view(-1, 1, 1, 1) * 20 + torch.arange(16).view(1, 1, 4, 4)).byte(),
                class_names=["cat", "dog", "<script>alert(1)</script>"],
            )
        )
    return made


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's path."""
    return executable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a browser where there is none; fail instead where GRAPHKD_REQUIRE_BROWSER is set."""
    if item.get_closest_marker("browser") is None:
        return
    try:
        executable()
    except (ImportError, OSError) as error:
        reason = f"no browser ({error}); `playwright install chromium` gets one"
        if os.environ.get("GRAPHKD_REQUIRE_BROWSER"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def executable() -> str:
    """The browser: one that is installed, else Playwright's own."""
    from playwright.sync_api import sync_playwright

    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        with sync_playwright() as playwright:
            found = playwright.chromium.executable_path
    if not Path(found).exists():
        raise OSError(f"needs one of {', '.join(NAMES)} or Playwright's own at {found}")
    return found
