"""Conditional gradient: steps towards the vertex that minimises the linearised objective, found by a simplex."""

import numpy as np
import torch
from torch import Tensor

from graphkd.ot.exact import Solution, linear_program, still_optimal
from graphkd.ot.fused.objective import Found, Objective


def conditional_gradient(objective: Objective, start: Tensor | None, num_iters: int) -> Found:
    """Descend on the CPU, one problem of a batch after the other, until no vertex promises a gain."""
    batch = objective.linear.shape[:-2]
    if not batch:
        return _descend(objective, start, num_iters)
    found = [
        _descend(objective[index], None if start is None else start[index], num_iters) for index in np.ndindex(*batch)
    ]
    stacked = (torch.stack(tensors) for tensors in zip(*found, strict=True))
    return Found(*(x.reshape(batch + x.shape[1:]) for x in stacked))


def _descend(objective: Objective, start: Tensor | None, num_iters: int) -> Found:
    plan, crossed = objective.start(start)
    alpha, size = objective.alpha, float(((objective.constant.abs() + objective.alpha * crossed.abs()) * plan).sum())
    negligible = size * max(1e-9, 4 * torch.finfo(plan.dtype).eps)
    vertex: Solution | None = None
    count, stalled, converged = 0, False, False
    while True:
        slope = objective.slope(plan, crossed)
        solution = _next_vertex(objective, slope, vertex, negligible)
        target = torch.from_numpy(solution.plan).to(plan)  # pyright: ignore
        way = target - plan
        first = float((slope * way).sum())
        converged = stalled or -first <= negligible
        if converged or count == num_iters:
            break
        # Along the way the objective is quadratic: value + first t + second t^2.
        turn = objective.crossed.of_vertex(target).sub_(crossed)
        second = -alpha / 2 * float((turn * way).sum())
        if objective.semi_relaxed:
            columns = way.sum(-2)
            second += alpha / 2 * float((columns * objective.structure.columns(columns)).sum())
        step = min(1.0, -first / (2 * second)) if second > 0 else 1.0
        plan = target if step == 1 else torch.add(plan, way, alpha=step)
        crossed = crossed.add_(turn, alpha=step)
        vertex = solution if step == 1 else None
        # Then only the potentials of the last plan are wanting.
        stalled = -(first + second * step) * step <= negligible
        count += 1
    f, g = (torch.from_numpy(x).to(plan) for x in (solution.f, solution.g))  # pyright: ignore
    done, steps = (torch.tensor(x, device=plan.device) for x in (converged, count))
    return Found(plan, slope, f, g, done, steps, plan.new_zeros(1, 1))


def _next_vertex(objective: Objective, slope: Tensor, vertex: Solution | None, negligible: float) -> Solution:
    """The vertex with the smallest slope, often the one that the descent has just come to."""
    cost, a, b = (x.double().cpu().numpy() for x in (slope, objective.a, objective.b))
    if not objective.semi_relaxed:
        proof = None if vertex is None else still_optimal(vertex, cost, a, b, negligible / a.sum())
        return linear_program(cost, a, b) if proof is None else proof
    nearest, rows = cost.argmin(-1), np.arange(len(a))
    plan = np.zeros_like(cost)
    plan[rows, nearest] = a
    f = cost[rows, nearest]
    return Solution(plan, f, np.zeros_like(b), (f * a).sum(), np.bool_(True))
