"""Fused Gromov-Wasserstein transport between two graphs, and a batch of pairs of graphs."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphkd.benchmark.compare import Effort, Judge, Row, compare, judged_gradients
from graphkd.benchmark.peers import CannotRun, InJax, InTorch, Look, Peer, judge_gradient
from graphkd.benchmark.problems import FAMILIES, Family, fused_objective, gromov_problem
from graphkd.ot.gromov import Solver, fused_gromov
from graphkd.ot.problem import marginal_error

ALPHA = 0.5
SIZES = (32, 64, 128, 256, 512, 1024)
ADJACENCY_SIZES = (128, 256)
ADJACENCY_SEEDS = 5
"""Between adjacencies the conditional gradient takes from a few to hundreds of steps: one problem says little."""
BATCH = 16
BATCH_SIZE = 64
BATCH_FAMILIES: tuple[Family, ...] = ("noisy", "adjacency")

STEP = 0.02
"""Epsilon of proximal steps: with it POT's batch solver comes nearest to the conditional gradient's objective."""
BLUR = 0.005
"""Epsilon where it blurs the solution, as in POT's projected gradient and OTT-JAX: the least with which float32 does
not underflow on most of the problems."""
OUTER, INNER = 20, 50
MOVED = 1e-3
"""POT's batch solver stops where a step moves no more than this share of the mass: with less it is no nearer to the
best objective, and with much more its gradient is off."""
LARGEST = 256
"""Nodes: above, a thousand sweeps in torch take seconds, and where they are unrolled, several GB."""
LARGEST_COMPILED = 512

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Plan = Callable[[], Tensor]


class Shape(NamedTuple):
    """What a peer is told of a problem before it is loaded: its nodes, and how many there are (0: one, no batch)."""

    n: int
    batch: int = 0


def gromov_section(
    effort: Effort, sizes: Sequence[int] | None = None, families: Sequence[Family] = FAMILIES, batch: int = BATCH
) -> Iterator[list[Row]]:
    """Families of pairs of graphs at several sizes, then a batch; a size given is also the batch's."""
    for family in families:
        for n in sizes or (ADJACENCY_SIZES if family == "adjacency" else SIZES):
            for seed in range(ADJACENCY_SEEDS if family == "adjacency" and not sizes else 1):
                inputs = gromov_problem(family, n, seed=seed)
                yield _rows(f"{family}, n = {n}" + (f", seed {seed}" if seed else ""), inputs, Shape(n), effort)
    for family in BATCH_FAMILIES:
        for n in sizes or (BATCH_SIZE,):
            inputs = gromov_problem(family, n, (batch,))
            yield _rows(f"{family}, {batch} of {n}", inputs, Shape(n, batch), effort)


def gromov_peers(shape: Shape) -> list[Peer]:
    """Those who solve a problem of this shape; the first is graphkd."""
    ours: tuple[Solver, ...] = ("auto", "mirror", "conditional")
    entropic = f"{OUTER} x {INNER}, epsilon"
    unrolled = "the gradients of POT's entropic solvers are unrolled"
    early = "POT solve_gromov_batch has a tolerance of 0.001 / n^2; with its own it stops the sooner the larger n is"
    peers = [Peer("graphkd", f"fused_gromov, {solver}", lambda solver=solver: _ours(solver)) for solver in ours]
    peers += [
        Peer("plain torch", f"proximal, {entropic} {STEP}", lambda: _smaller(_plain(), shape)),
        Peer("POT", "conditional gradient", lambda: _pot_conditional(shape), "POT"),
        Peer("POT", f"solve_gromov_batch, {entropic} {STEP}", lambda: _pot_batch(shape), "POT", early),
    ]
    if not shape.batch:
        peers += [
            Peer("POT", f"entropic PGD, {entropic} {BLUR}", lambda: _pot_entropic("PGD", BLUR, shape), "POT", unrolled),
            Peer("POT", f"entropic PPA, {entropic} {STEP}", lambda: _pot_entropic("PPA", STEP, shape), "POT", unrolled),
        ]
    return [*peers, Peer("OTT-JAX", f"{OUTER} x 100, epsilon {BLUR}", lambda: _ott(shape), "ott-jax")]


def _rows(case: str, inputs: Inputs, shape: Shape, effort: Effort) -> list[Row]:
    return compare(case, gromov_peers(shape), inputs, effort, _judge(inputs), _verdicts(Shape(6, shape.batch and 2)))


def _judge(inputs: Inputs) -> Judge:
    cost, student, teacher, a, b = (x.double() for x in inputs)
    shape = Shape(a.shape[-1], a[..., 0].numel() if a.dim() > 1 else 0)
    best = _pot_conditional(shape).on((cost, student, teacher, a, b)).look().plan
    assert best is not None
    reference = fused_objective(best, cost, student, teacher, ALPHA)

    def judge(look: Look) -> dict[str, float]:
        assert look.plan is not None
        return {
            "objective": fused_objective(look.plan, cost, student, teacher, ALPHA) / reference - 1,
            "marginal": float(marginal_error(look.plan, a, b).max()),
        }

    return judge


@lru_cache
def _verdicts(shape: Shape) -> dict[str, str]:
    """On a small problem in float64, whether each peer's gradients are its value's slopes."""
    batch = (shape.batch,) if shape.batch else ()
    inputs = gromov_problem("noisy", shape.n, batch, torch.float64)
    generator = torch.Generator().manual_seed(1)
    directions: dict[str, Tensor] = {}
    for name, x in zip(("cost", "student", "teacher"), inputs, strict=False):
        direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        directions[name] = direction if name == "cost" else direction + direction.mT
    return judged_gradients(gromov_peers(shape), lambda solver: judge_gradient(solver, inputs, directions))


def _smaller(solver: InTorch, shape: Shape) -> InTorch:
    """The solver, where it can be run at this size."""
    if shape.n > LARGEST:
        raise CannotRun(f"not run above n = {LARGEST}")
    return solver


def _ours(solver: Solver) -> InTorch:
    def solve(cost: Tensor, student: Tensor, teacher: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Plan]:
        found = fused_gromov(cost, student, teacher, a, b, alpha=ALPHA, solver=solver)
        assert found.value is not None
        return found.value, lambda: found.plan

    return InTorch(solve, differentiated=3)


def _plain() -> InTorch:
    """Proximal steps in twenty lines: sweeps of log-sum-exps inside, the gradient at the last plan."""

    def solve(cost: Tensor, student: Tensor, teacher: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Plan]:
        log_a, log_b = a.log().unsqueeze(-1), b.log().unsqueeze(-2)

        def quadratic(plan: Tensor) -> Tensor:
            own = student.square() @ a.unsqueeze(-1) + (teacher.square() @ b.unsqueeze(-1)).mT
            return own - 2 * student @ plan @ teacher.mT

        with torch.no_grad():
            log_plan = log_a + log_b
            for _ in range(OUTER):
                linear = (1 - ALPHA) * cost + 2 * ALPHA * quadratic(log_plan.exp())
                kernel = log_plan - linear / STEP
                v = torch.zeros_like(log_b)
                for _ in range(INNER):
                    u = log_a - (kernel + v).logsumexp(-1, keepdim=True)
                    v = log_b - (kernel + u).logsumexp(-2, keepdim=True)
                log_plan = kernel + u + v
            plan = log_plan.exp()
        return (plan * ((1 - ALPHA) * cost + ALPHA * quadratic(plan))).sum((-2, -1)), lambda: plan

    return InTorch(solve, differentiated=3)


def _pot_conditional(shape: Shape) -> InTorch:
    """POT's conditional gradient, which is for one problem: a batch is a loop."""
    import ot

    call: Any = ot.gromov.fused_gromov_wasserstein2

    def one(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        value, log = call(*inputs, symmetric=True, alpha=ALPHA, log=True)
        return value, log["T"]

    def solve(*inputs: Tensor) -> tuple[Tensor, Plan]:
        if not shape.batch:
            value, plan = one(*inputs)
            return value, lambda: plan
        values, plans = zip(*(one(*each) for each in zip(*inputs, strict=True)), strict=True)
        return torch.stack(values), lambda: torch.stack(plans)

    return InTorch(solve, differentiated=3)


def _pot_entropic(solver: str, epsilon: float, shape: Shape) -> InTorch:
    import ot

    call: Any = ot.gromov.entropic_fused_gromov_wasserstein2
    options: dict[str, Any] = {"max_iter": OUTER, "numItermax": INNER, "tol": 1e-9, "warmstart": True}

    def solve(*inputs: Tensor) -> tuple[Tensor, Plan]:
        value, log = call(*inputs, epsilon=epsilon, symmetric=True, alpha=ALPHA, solver=solver, log=True, **options)
        return value, lambda: log["T"]

    return _smaller(InTorch(solve, differentiated=3), shape)


def _pot_batch(shape: Shape) -> InTorch:
    import ot

    call: Any = ot.solve_gromov_batch
    # POT's tolerance is on the mean change of the plan's entries, which shrinks with n: this one does not.
    options: dict[str, Any] = {"max_iter": OUTER, "max_iter_inner": INNER, "tol": MOVED / shape.n**2}

    def solve(*inputs: Tensor) -> tuple[Tensor, Plan]:
        cost, student, teacher, a, b = inputs if shape.batch else (x.unsqueeze(0) for x in inputs)
        found = call(
            student,
            teacher,
            reg=STEP,
            a=a,
            b=b,
            M=cost,
            alpha=ALPHA,
            symmetric=True,
            grad="envelope",
            tol_inner=MOVED,
            **options,
        )
        return found.value, lambda: found.plan if shape.batch else found.plan[0]

    return _smaller(InTorch(solve, differentiated=3), shape)


def _ott(shape: Shape) -> InJax:
    import jax
    from ott.geometry import geometry
    from ott.problems.quadratic import quadratic_problem
    from ott.solvers.linear import sinkhorn
    from ott.solvers.quadratic import gromov_wasserstein

    if shape.n > LARGEST_COMPILED:
        raise CannotRun(f"not run above n = {LARGEST_COMPILED}")
    solver = gromov_wasserstein.GromovWasserstein(
        sinkhorn.Sinkhorn(max_iterations=100, threshold=1e-6),
        epsilon=BLUR,
        warm_start=True,
        min_iterations=5,
        max_iterations=OUTER,
        threshold=1e-4,
    )

    def solve(cost: Any, student: Any, teacher: Any, a: Any, b: Any) -> tuple[Any, Any]:
        graphs = geometry.Geometry(student), geometry.Geometry(teacher), geometry.Geometry(cost)
        problem = quadratic_problem.QuadraticProblem(*graphs, fused_penalty=(1 - ALPHA) / ALPHA, a=a, b=b)
        found = solver(problem)
        return found.reg_gw_cost, found.matrix

    return InJax(jax.vmap(solve) if shape.batch else solve, differentiated=3)
