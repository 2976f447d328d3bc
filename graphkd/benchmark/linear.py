"""Entropic transport between two sets of nodes: one problem, and a batch of them."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from graphkd.benchmark.compare import Effort, Judge, Row, compare, fixed_rows, judged_gradients
from graphkd.benchmark.entropic import Settings, batch_peers, one_problem_peers, tolerance_peers
from graphkd.benchmark.floor import floor
from graphkd.benchmark.peers import Look, Peer, judge_gradient
from graphkd.benchmark.problems import entropic_objective, entropic_optimum, linear_problem, spread
from graphkd.ot.problem import marginal_error

SIZES = (32, 64, 128, 256, 512, 1024)
SHARE = 0.05
"""Epsilon as a share of the cost's range."""
SWEEPS = 100
MOST_SWEEPS = 2560
"""Of a solver that is to reach a tolerance."""
TOLERANCE = 1e-6
JUDGED_SWEEPS = 500
"""Of a solver whose gradient is judged: all but GeomLoss have converged long before."""

Inputs = tuple[Tensor, Tensor, Tensor]


def sinkhorn_section(effort: Effort, sizes: Sequence[int] = SIZES) -> Iterator[list[Row]]:
    """One problem at several sizes, with the number of sweeps given."""
    for n in sizes:
        yield _with_floor(n * n, _sweeps(f"n = {n}", linear_problem(n), one_problem_peers, effort, ()))


def tolerance_section(effort: Effort, sizes: Sequence[int] = SIZES) -> Iterator[list[Row]]:
    """One problem at several sizes, each library until its own rule says that the tolerance is met."""
    verdicts = _verdicts(one_problem_peers, ())
    for n in sizes:
        inputs = linear_problem(n)
        settings = Settings(SHARE * spread(inputs[0]), MOST_SWEEPS, TOLERANCE)
        peers = tolerance_peers(settings, inputs)
        # GeomLoss bears another name here, and its gradient is as it was.
        judged = {peer.name: next(verdicts[name] for name in verdicts if peer.name.startswith(name)) for peer in peers}
        yield compare(f"n = {n}", peers, inputs, effort, _judge(inputs, settings.epsilon), judged)


def batch_section(effort: Effort, sizes: Sequence[int] = (100,), problems: int = 64) -> Iterator[list[Row]]:
    """Many problems at once."""
    for n in sizes:
        inputs = linear_problem(n, (problems,))
        found = _sweeps(f"{problems} of {n} x {n}", inputs, batch_peers, effort, (3,))
        yield _with_floor(problems * n * n, found)


def _sweeps(
    case: str, inputs: Inputs, peers: Callable[[Settings], list[Peer]], effort: Effort, judged: tuple[int, ...]
) -> list[Row]:
    """What each takes for so many sweeps; gradients are judged on a batch of the shape ``judged``."""
    settings = Settings(SHARE * spread(inputs[0]), SWEEPS)
    return compare(case, peers(settings), inputs, effort, _judge(inputs, settings.epsilon), _verdicts(peers, judged))


def _with_floor(entries: int, rows: list[Row]) -> list[Row]:
    """The rows, and what as many sweeps take that read each entry once, or take one exponential of each."""
    least = floor(entries)
    seconds = {
        "one read, cached": SWEEPS * least.cached,
        "one read, main memory": SWEEPS * least.memory,
        "one exp per entry": SWEEPS * least.exp,
    }
    return rows + fixed_rows(rows[0].case, "floor", seconds, rows[0])


def _judge(inputs: Inputs, epsilon: float) -> Judge:
    optimum = entropic_optimum(*inputs, epsilon)
    cost, a, b = (x.double() for x in inputs)

    def judge(look: Look) -> dict[str, float]:
        assert look.plan is not None
        return {
            "objective": entropic_objective(look.plan, cost, a, b, epsilon) / optimum - 1,
            "marginal": float(marginal_error(look.plan, a, b).max()),
        }

    return judge


@lru_cache
def _verdicts(peers: Callable[[Settings], list[Peer]], batch: tuple[int, ...]) -> dict[str, str]:
    """On a small problem, converged in float64, whether each peer's gradient is its value's slope."""
    inputs = linear_problem(6, batch, torch.float64)
    generator = torch.Generator().manual_seed(1)
    directions: dict[str, Tensor] = {}
    for name, x in zip(("cost", "a", "b"), inputs, strict=True):
        direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        # Masses move along equal sums; and in proportion, so that none becomes negative.
        directions[name] = direction if name == "cost" else x * (direction - (x * direction).sum(-1, keepdim=True))
    settings = Settings(0.1, JUDGED_SWEEPS)
    return judged_gradients(peers(settings), lambda solver: judge_gradient(solver, inputs, directions))
