import os
import warnings
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Some releases of PyTorch Geometric warn when they are imported. graphkd keeps that quiet, but a test may come first.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch_geometric  # noqa: F401

os.environ["MPLBACKEND"] = "Agg"

# The tests' tensors are small: two threads take three times as long. Processes that tests start do as this one, since
# the last bits of a result depend on the number of threads.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Operations(TorchDispatchMode):
    """Counts the operations that a device would run, and the entries of their largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and func.overloadpacket.__name__ != "expand":
            self.largest = max(self.largest, result.numel())
        return result


@pytest.fixture
def count_operations() -> type[Operations]:
    """Used as ``with count_operations() as operations:``, then ``operations.counts``."""
    return Operations


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs torch-scatter where there is none; fail instead where GRAPHKD_REQUIRE_SCATTER is set."""
    if item.get_closest_marker("scatter") is None:
        return
    try:
        import torch_scatter  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        reason = f"torch-scatter cannot be imported ({error}); `make scatter` compiles it"
        if os.environ.get("GRAPHKD_REQUIRE_SCATTER"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
