"""Losses of several processes are those of one with the whole batch, in value and in every gradient."""

import pytest
import torch
from processes import run
from test_contract import CLASSES, RECIPES, WIDTHS, Network, build, returned
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from graphkd import Distiller, losses, parallel

OPTIONS = {"wcord_batch": lambda: losses.wcord(negatives="batch", embed_dim=8)}
FEW = ["otgd", "fgw", "rkd", "sp", "wkd_logits", "wkd_features", "wcord_batch", "crd", "rrd"]
ALL = [*RECIPES, *OPTIONS]
STEPS = 3


class Part(Network):
    """A network with something that this loss does not need, as many have."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.unused = nn.Linear(2, 2)


def distiller_of(name: str, n: int) -> Distiller:
    criterion = OPTIONS[name]() if name in OPTIONS else build(name)
    networks = Part(WIDTHS["student"]), Part(WIDTHS["teacher"])
    features = {"student_features": returned, "teacher_features": returned}
    distiller = Distiller(*networks, **features, criteria={"it": criterion}, weights={"task": 0.5}).double()
    distiller.eval()
    distiller(*batch(0, n))
    return distiller.train()


def batch(step: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(n, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    labels[::4] = -100
    return inputs, labels, torch.randperm(30, generator=generator)[:n]


def trained(name: str, sizes: list[int]) -> tuple[list[float], dict[str, Tensor], dict[str, Tensor]]:
    """Losses of some steps, the last one's gradients, and what is remembered; of this process's share."""
    rank, world = parallel.rank(), parallel.world()
    torch.manual_seed(rank)
    distiller = distiller_of(name, sum(sizes))
    model = distiller if world == 1 else DistributedDataParallel(distiller)
    optimizer = torch.optim.SGD(distiller.learnable_parameters(), lr=0.1)
    start = sum(sizes[:rank])
    rows = slice(start, start + sizes[rank]) if world > 1 else slice(None)
    values = []
    for step in range(STEPS):
        torch.manual_seed(100 * step + rank)
        optimizer.zero_grad()
        loss = model(*(x[rows] for x in batch(step, sum(sizes)))).loss
        loss.backward()
        values.append(float(loss.detach()))
        if step < STEPS - 1:
            optimizer.step()
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in distiller.named_parameters()
        if p.requires_grad
    }
    return values, gradients, {name: x.clone() for name, x in distiller.criteria.named_buffers()}


def all_trained(names: list[str], sizes: list[int]) -> dict:
    return {name: trained(name, sizes) for name in names}


def check(names: list[str], sizes: list[int]) -> None:
    found = run(len(sizes), all_trained, names, sizes)
    for name in names:
        values, gradients, buffers = trained(name, sizes)
        assert gradients.keys() >= {"student.trunk.0.weight", "student.heads.feat.weight"}
        for there, theirs, remembered in (each[name] for each in found):
            assert there == pytest.approx(values, rel=1e-9, abs=1e-12), name
            assert theirs.keys() == gradients.keys()
            for part in ("student.", "criteria."):
                close(flat(gradients, part), flat(theirs, part), f"{name}, {part}")
            for key, x in buffers.items():
                torch.testing.assert_close(remembered[key], x, msg=f"{name}: {key}")


def flat(gradients: dict[str, Tensor], part: str) -> Tensor:
    return torch.cat([torch.zeros(1), *(g.flatten() for key, g in gradients.items() if key.startswith(part))])


def close(expected: Tensor, found: Tensor, what: str) -> None:
    norms = expected.norm(), found.norm()
    if norms[0] == 0:
        assert norms[1] == 0, what
        return
    assert expected @ found / (norms[0] * norms[1]) > 0.999999, what
    assert float(norms[1] / norms[0]) == pytest.approx(1, abs=1e-5), what


@pytest.mark.parametrize("sizes", [[6, 6], [7, 4]], ids=str)
def test_two_processes_have_the_gradients_of_one(sizes: list[int]):
    check(FEW, sizes)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[5, 5], [8, 3], [3, 3, 3, 3], [4, 2, 4, 1]], ids=str)
def test_every_method_has_the_gradients_of_one_process(sizes: list[int]):
    check(ALL, sizes)


def halves() -> tuple[Tensor, Tensor]:
    x = torch.full((2 + parallel.rank(), 3), float(parallel.rank()), requires_grad=True)
    (whole,) = parallel.gathered({"feat": x})
    (whole["feat"].square().sum() * (1 + parallel.rank())).backward()
    return whole["feat"].detach(), x.grad


def test_gathered_rows_send_their_gradients_home():
    (whole, first), (same, second) = run(2, halves)
    assert torch.equal(whole, torch.tensor([0.0, 0, 1, 1, 1]).unsqueeze(1).expand(5, 3))
    assert torch.equal(whole, same)
    assert torch.equal(first, torch.zeros(2, 3))
    # Twice the value from this process, once from the other: (1 + 2) * 2 x.
    assert torch.equal(second, torch.full((3, 3), 6.0))


def answers() -> list:
    own = torch.arange(3) + parallel.rank()
    return [
        parallel.world(),
        parallel.rank(),
        parallel.alike(own),
        parallel.alike(own[: 1 + parallel.rank()]),
        parallel.alike(torch.ones(2)),
        parallel.agreed(own).tolist(),
    ]


def test_processes_agree():
    assert run(2, answers) == [[2, rank, False, False, True, [0, 1, 2]] for rank in range(2)]


def alone(name: str) -> str:
    criterion = build(name)
    torch.manual_seed(dist.get_rank())
    features = [torch.randn(4, width) for width in WIDTHS.values()]
    index = torch.arange(4) + 4 * dist.get_rank()
    sides = [{"feat": x, "logits": torch.randn(4, CLASSES), "index": index} for x in features]
    try:
        criterion(*sides)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ["crd", "hkd", "rrd"])
def test_a_memory_refuses_the_batch_of_one_process(name: str):
    for said in run(2, alone, name):
        assert "needs their batches gathered" in said


def uneven() -> str:
    try:
        parallel.gathered({"feat": torch.zeros(2, 3)}, {"logits": torch.zeros(3, 3)})
    except ValueError as error:
        return str(error)
    return ""


def test_features_of_different_lengths_are_refused():
    assert run(2, uneven) == ["gathering over processes needs one number of rows, got 2, 3"] * 2


def evaluated() -> list[int]:
    distiller = distiller_of("kd", 4).eval()
    step = distiller(*batch(0, 3 + parallel.rank()))
    trained = distiller.train()(*batch(0, 3 + parallel.rank()))
    return [len(step.student_features["feat"]), len(trained.student_features["feat"])]


def test_in_eval_mode_each_process_has_its_own_batch():
    assert run(2, evaluated) == [[3, 7], [4, 7]]


def test_one_process_is_left_alone():
    x = torch.zeros(2, 3, requires_grad=True)
    (found,) = parallel.gathered({"feat": x})
    assert found["feat"] is x
    assert parallel.alike(x)
    assert parallel.agreed(x) is x
