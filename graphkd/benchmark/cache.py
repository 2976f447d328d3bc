"""What a pass over a teacher's features costs: running the teacher, or reading its cache."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from graphkd import checks
from graphkd.benchmark.table import print_table
from graphkd.benchmark.timing import Timing, paired_ratio, time_together
from graphkd.cache import build_cache
from graphkd.features import FeatureExtractor
from graphkd.models import CifarResNet, SmallCNN

TEACHER = "teacher"


class Case(NamedTuple):
    """A teacher, the shape of its images, and by name the features that caches keep beside its logits."""

    teacher: nn.Module
    shape: tuple[int, int, int]
    caches: dict[str, dict[str, str]]


def benchmark_cache(
    samples: int = 128,
    batch_size: int = 64,
    rounds: int = 3,
    device: str = "cpu",
    threads: int | None = None,
    out: str | None = None,
) -> dict[str, dict[str, Timing]]:
    """Time a pass over the samples: through a teacher, and from float16 caches of it in a shuffled order.

    All that is timed of one teacher alternates in this process. The files have been read before, as from the second
    epoch on. A ratio is the median over rounds of teacher over cache, with its quartiles.

    Args:
        samples: Random images; a pass takes each once.
        batch_size: How many at a time.
        rounds: How often each pass is timed.
        device: Where the teacher runs, and where the features are brought.
        threads: Threads of torch on the CPU; its own choice if omitted.
        out: A JSON file to write as well.
    """
    checks.at_least("samples", samples, 1)
    checks.at_least("batch_size", batch_size, 1)
    checks.at_least("rounds", rounds, 1)
    if threads is not None:
        torch.set_num_threads(threads)
    timings = {
        name: _timings(case, samples, batch_size, rounds, torch.device(device)) for name, case in _cases().items()
    }
    where = f"{device}, {torch.get_num_threads()} threads" if device == "cpu" else device
    columns = ("what", "ms a pass", "quartiles", "teacher / this", "quartiles")
    title = f"a pass over {samples} samples, batch {batch_size}, {rounds} rounds, {where}"
    print_table(title, columns, [_row(name, what, each) for name, each in timings.items() for what in each])
    if out is not None:
        seconds = {name: {what: one._asdict() for what, one in each.items()} for name, each in timings.items()}
        setting = {"samples": samples, "batch_size": batch_size, "device": device, "torch": torch.__version__}
        Path(out).write_text(json.dumps({"setting": setting, "seconds": seconds}, indent=1))
    return timings


def _cases() -> dict[str, Case]:
    resnet = CifarResNet(5, (32, 64, 128, 256))
    pooled, maps = "cache of pooled features and logits", "cache of the last maps too"
    return {
        "ResNet-32x4": Case(resnet, (3, 32, 32), {pooled: {"feat": "pool"}, maps: {"feat": "pool", "map": "layer3"}}),
        "CNN for digits": Case(SmallCNN(), (1, 8, 8), {pooled: {"feat": "pool"}}),
    }


def _timings(case: Case, samples: int, batch_size: int, rounds: int, device: torch.device) -> dict[str, Timing]:
    teacher = case.teacher.to(device).eval()
    images = torch.rand(samples, *case.shape, generator=torch.Generator().manual_seed(0))
    batches = [each.to(device) for each in images.split(batch_size)]
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(1)).split(batch_size)
    index = torch.arange(samples)
    loader = DataLoader(TensorDataset(images, torch.zeros(samples), index), batch_size)
    with TemporaryDirectory() as folder:
        functions = {TEACHER: _teacher_pass(teacher, max(case.caches.values(), key=len), batches)}
        for number, (name, features) in enumerate(case.caches.items()):
            place = Path(folder, str(number))
            cache = build_cache(place, teacher, lambda view: loader, 1, features=features, progress=False)
            functions[name] = lambda cache=cache: [cache.read(each, 0, device=device) for each in order]
        return time_together(functions, rounds, device)


def _teacher_pass(teacher: nn.Module, features: Mapping[str, str], batches: list[Tensor]) -> Callable[[], object]:
    extract = FeatureExtractor(teacher, features)

    @torch.no_grad()
    def run() -> None:
        for each in batches:
            extract.run(each)

    return run


def _row(name: str, what: str, timings: Mapping[str, Timing]) -> list[str]:
    timing = timings[what]
    ratio = paired_ratio(timings[TEACHER], timing)
    return [
        f"{name}: {what}",
        _short(1e3 * timing.median),
        f"{_short(1e3 * timing.low)} .. {_short(1e3 * timing.high)}",
        _short(ratio.median),
        f"{_short(ratio.low)} .. {_short(ratio.high)}",
    ]


def _short(x: float) -> str:
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"
