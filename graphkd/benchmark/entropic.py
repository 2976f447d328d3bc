"""Each library's entropic transport, called as its documentation has it where that gives right gradients."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from graphkd.benchmark.peers import CannotRun, InJax, InTorch, Peer, Solver
from graphkd.ot.problem import marginal_error
from graphkd.ot.sinkhorn import sinkhorn
from graphkd.typing import Real

Plan = Callable[[], Tensor]

HALVED = "GeomLoss updates both sides at once, by half, while epsilon falls to its value"
SHARP = "POT sinkhorn2 returns and differentiates <P, M>, without the entropy"
NO_ENTROPY = "POT emd2 solves another problem, without entropy"


@dataclass(frozen=True)
class Settings:
    """What every solver is asked for: an epsilon, and sweeps, or a tolerance by its own rule."""

    epsilon: float
    num_iters: int
    tol: Real | None = None


def one_problem_peers(settings: Settings) -> list[Peer]:
    """Those who solve one problem; the first is graphkd."""
    return [
        Peer("graphkd", "sinkhorn", lambda: _ours(settings)),
        Peer("plain torch", "envelope", lambda: _plain(settings, envelope=True)),
        Peer("plain torch", "unrolled", lambda: _plain(settings, envelope=False)),
        Peer("POT", "solve, envelope", lambda: _pot_solve(settings, "envelope"), "POT"),
        Peer("POT", "solve, autodiff", lambda: _pot_solve(settings, "autodiff"), "POT"),
        Peer("POT", "sinkhorn2, autodiff", lambda: _pot_sinkhorn2(settings), "POT", SHARP),
        Peer("GeomLoss", "solve", lambda: _geomloss(settings, "solve"), "geomloss", HALVED),
        Peer("OTT-JAX", "lse", lambda: _ott(settings, lse=True), "ott-jax"),
        Peer("OTT-JAX", "kernel", lambda: _ott(settings, lse=False), "ott-jax"),
        Peer("POT", "emd2 (exact)", _pot_emd2, "POT", NO_ENTROPY, same_problem=False),
    ]


def batch_peers(settings: Settings) -> list[Peer]:
    """Those who solve many problems at once; the first is graphkd."""
    return [
        Peer("graphkd", "sinkhorn", lambda: _ours(settings)),
        Peer("plain torch", "envelope", lambda: _plain(settings, envelope=True)),
        Peer("plain torch", "unrolled", lambda: _plain(settings, envelope=False)),
        Peer("POT", "solve_batch, envelope", lambda: _pot_solve_batch(settings, "log_sinkhorn", "envelope"), "POT"),
        Peer("POT", "solve_batch, autodiff", lambda: _pot_solve_batch(settings, "log_sinkhorn", "autodiff"), "POT"),
        Peer("POT", "solve_batch, exp, envelope", lambda: _pot_solve_batch(settings, "sinkhorn", "envelope"), "POT"),
        Peer("POT", "solve_batch, exp, autodiff", lambda: _pot_solve_batch(settings, "sinkhorn", "autodiff"), "POT"),
        Peer("GeomLoss", "solve_batch", lambda: _geomloss(settings, "solve_batch"), "geomloss", HALVED),
        Peer("OTT-JAX", "vmap, lse", lambda: _ott(settings, lse=True, batched=True), "ott-jax"),
        Peer("OTT-JAX", "vmap, kernel", lambda: _ott(settings, lse=False, batched=True), "ott-jax"),
    ]


def tolerance_peers(settings: Settings, inputs: tuple[Tensor, Tensor, Tensor]) -> list[Peer]:
    """Those who solve one problem until their own rule says that the tolerance is met.

    GeomLoss has no rule (the tolerance that it takes is not used): it is given the iterations that suffice, found
    before the measurement.
    """
    return [
        replace(peer, call="solve, iterations found before", load=lambda: _geomloss_that_meets(settings, inputs))
        if peer.library == "GeomLoss"
        else peer
        for peer in one_problem_peers(settings)
    ]


def _ours(settings: Settings) -> InTorch:
    def solve(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Plan]:
        found = sinkhorn(cost, a, b, epsilon=settings.epsilon, num_iters=settings.num_iters, tol=settings.tol)
        assert found.value is not None
        return found.value, lambda: found.plan

    return InTorch(solve)


def _plain(settings: Settings, envelope: bool) -> InTorch:
    """What anyone writes first: alternating log-sum-exps, and autograd; or the gradient of the dual at its maximum."""
    epsilon = settings.epsilon

    def sweeps(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        kernel, log_a, log_b = -cost / epsilon, a.log(), b.log()
        u, v = torch.zeros_like(a), torch.zeros_like(b)
        for done in range(settings.num_iters):
            u = -(kernel + (log_b + v).unsqueeze(-2)).logsumexp(-1)
            if settings.tol is not None and done % 10 == 9:
                columns = (kernel + (log_a + u).unsqueeze(-1) + (log_b + v).unsqueeze(-2)).exp().sum(-2)
                if float((columns - b).abs().sum(-1).max()) <= settings.tol:
                    break
            v = -(kernel + (log_a + u).unsqueeze(-1)).logsumexp(-2)
        return epsilon * u, epsilon * v

    def solve(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Plan]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not envelope):
            f, g = sweeps(cost, a, b)

        def plan() -> Tensor:
            exponent = (f.unsqueeze(-1) + g.unsqueeze(-2) - cost) / epsilon
            return a.unsqueeze(-1) * b.unsqueeze(-2) * exponent.exp()

        value = (f * a).sum(-1) + (g * b).sum(-1)
        return value - epsilon * (plan().sum((-2, -1)) - 1) if envelope else value, plan

    return InTorch(solve)


def _pot_solve(settings: Settings, grad: str) -> InTorch:
    import ot

    call: Any = ot.solve
    options: dict[str, Any] = {"max_iter": settings.num_iters, "tol": settings.tol or 0.0, "grad": grad}

    def solve(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Plan]:
        # With the default reg_type, KL, the envelope's gradients to the masses are wrong.
        found = call(cost, a, b, reg=settings.epsilon, reg_type="entropy", **options)
        return found.value, lambda: found.plan

    return InTorch(solve)


def _pot_sinkhorn2(settings: Settings) -> InTorch:
    import ot

    value: Any = ot.sinkhorn2
    plan: Any = ot.sinkhorn
    options: dict[str, Any] = {
        "reg": settings.epsilon,
        "numItermax": settings.num_iters,
        "stopThr": settings.tol or 0.0,
    }

    def solve(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Plan]:
        return value(a, b, cost, **options), lambda: plan(a, b, cost, **options)

    return InTorch(solve)


def _pot_emd2() -> InTorch:
    import ot

    value: Any = ot.emd2
    plan: Any = ot.emd

    def solve(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Plan]:
        return value(a, b, cost), lambda: plan(a, b, cost)

    return InTorch(solve)


def _pot_solve_batch(settings: Settings, method: str, grad: str) -> InTorch:
    import ot

    call: Any = ot.solve_batch
    options: dict[str, Any] = {
        "max_iter": settings.num_iters,
        "tol": settings.tol or 0.0,
        "method": method,
        "grad": grad,
    }

    def solve(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Plan]:
        found = call(cost, settings.epsilon, a, b, **options)
        return found.value, lambda: found.plan

    return InTorch(solve)


def _geomloss(settings: Settings, name: str) -> InTorch:
    import geomloss.ot

    call: Any = getattr(geomloss.ot, name)

    def solve(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Plan]:
        found = call(cost, a=a, b=b, reg=settings.epsilon, max_iter=settings.num_iters)
        return found.value, lambda: found.plan

    return InTorch(solve)


def _geomloss_that_meets(settings: Settings, inputs: tuple[Tensor, Tensor, Tensor]) -> Solver:
    _, a, b = inputs
    num_iters, error = 10, float("inf")
    while num_iters <= settings.num_iters:
        solver = _geomloss(replace(settings, num_iters=num_iters), "solve")
        plan = solver.on(inputs).look().plan
        assert plan is not None
        error = float(marginal_error(plan, a, b))
        if settings.tol is None or error <= settings.tol:
            return solver
        num_iters *= 2
    raise CannotRun(f"has no rule to stop by; after {num_iters // 2} iterations its marginal error is {error:.1e}")


def _ott(settings: Settings, lse: bool, batched: bool = False) -> InJax:
    import jax
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn as ott_sinkhorn

    stop: dict[str, Any] = {"threshold": settings.tol}
    if settings.tol is None:
        stop = {"min_iterations": settings.num_iters, "inner_iterations": settings.num_iters}
    solver = ott_sinkhorn.Sinkhorn(lse_mode=lse, max_iterations=settings.num_iters, **stop)

    def solve(cost: Any, a: Any, b: Any) -> tuple[Any, Any]:
        found = solver(linear_problem.LinearProblem(geometry.Geometry(cost, epsilon=settings.epsilon), a, b))
        return found.reg_ot_cost, found.matrix

    return InJax(jax.vmap(solve) if batched else solve, differentiated=3)
