"""On an accelerator: the same numbers, without a look at values that would make the host wait."""

import pytest
import torch

from graphkd import checks, metrics

WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "_unique2", "unique_dim", "masked_select"}
"""Operations that make the host wait for an accelerator."""

METRICS = {
    "diagonal_mass": lambda x, y, labels: metrics.diagonal_mass((x @ y.mT).exp()),
    "class_purity": lambda x, y, labels: metrics.class_purity((x @ y.mT).exp(), labels),
    "plan_entropy": lambda x, y, labels: metrics.plan_entropy((x @ y.mT).exp()),
    "effective_partners": lambda x, y, labels: metrics.effective_partners((x @ y.mT).exp()),
    "neighbours": lambda x, y, labels: metrics.neighbours(x, 5),
    "neighbour_overlap": lambda x, y, labels: metrics.neighbour_overlap(x, y, 5),
    "most_missed": lambda x, y, labels: metrics.most_missed(x, y, 5, count=7),
    "cka": lambda x, y, labels: metrics.cka(x, y),
    "debiased": lambda x, y, labels: metrics.cka(x, y, debiased=True),
    "layer_cka": lambda x, y, labels: metrics.layer_cka({"x": x, "flat": x * 0}, {"y": y}),
    "correlation_gap": lambda x, y, labels: metrics.correlation_gap(x, y),
}


def inputs():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(20, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, y, torch.tensor([0, 1, 2, 3, -100]).repeat(4)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_never_makes_the_host_wait(name, monkeypatch, count_operations):
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    with count_operations() as operations:
        METRICS[name](*inputs())
    assert operations.counts
    assert not WAITS & operations.counts.keys()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", METRICS)
def test_a_gpu_gives_the_numbers_of_the_cpu_and_does_not_wait(name, monkeypatch):
    given = [x.cuda() for x in inputs()]
    METRICS[name](*given)
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = METRICS[name](*given)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    wanted = METRICS[name](*inputs())
    for one, other in zip(*[x if isinstance(x, tuple) else (x,) for x in (got, wanted)], strict=True):
        torch.testing.assert_close(one.cpu(), other, equal_nan=True)
