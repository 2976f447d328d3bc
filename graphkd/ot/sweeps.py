"""Sinkhorn's loop: half-sweeps, in the domain that suits the problem, until enough of them were run."""

from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from graphkd import checks
from graphkd.ot.absorbed import Absorbed
from graphkd.ot.domains import SPREAD, Array, DomainName, Log, Scaling
from graphkd.ot.problem import Norm
from graphkd.typing import Real

Domain = Log | Scaling | Absorbed

State = tuple[Array, Array, Tensor | None]
"""The rows, the columns, and which problems took the sweep that led here (None: all of them)."""


class Sweeps(NamedTuple):
    """What a run of the loop left behind.

    Attributes:
        left: The last state of the rows.
        right: The last state of the columns.
        residual: Per problem, by how much the columns were off before the last half-sweep, where that was looked at.
        num_iters: Sweeps per problem.
        start: The state of the columns at the start.
        history: The states after every sweep, where they were asked for.
    """

    left: Array
    right: Array
    residual: Tensor
    num_iters: Tensor
    start: Array
    history: list[State]


def sweep(
    domain: Domain,
    right: Array,
    mass: Tensor,
    num_iters: int,
    tol: Real | None,
    tol_norm: Norm,
    keep_history: bool = False,
    keep_residual: bool = False,
) -> Sweeps:
    """Run the sweeps; a problem that met the tolerance is frozen, and on the CPU the loop ends when all have.

    Args:
        domain: Where the half-sweeps run.
        right: The state of the columns to start from.
        mass: Mass of the columns (*b m).
        num_iters: Sweeps, at most.
        tol: When a problem is done, or None to run all sweeps.
        tol_norm: What the tolerance bounds.
        keep_history: Whether to keep all states.
        keep_residual: Whether to look at the last sweep's residual also where no tolerance asks for it.
    """
    looking = checks.can_look(mass)
    share = torch.ones_like(mass[..., 0]) if tol_norm == "max" else mass.sum(-1)
    count = torch.zeros_like(share, dtype=torch.int64)
    start, left, residual = right, right, share
    active: Tensor | None = None
    history: list[State] = []
    if tol is None:
        count = count + num_iters
        if not (keep_history or keep_residual):
            left, right = domain.advance(right, num_iters)
            return Sweeps(left, right, residual, count, start, [])
    for _ in range(num_iters):
        before, previous = right, (left, right, residual)
        left = domain.rows(right)
        right = domain.columns(left)
        if tol is not None or keep_residual:
            residual = _summary(domain.excess(before, right), share, tol_norm)
        if active is not None:
            left, right, residual = (
                _where(active, *pair) for pair in zip((left, right, residual), previous, strict=True)
            )
        if keep_history:
            history.append((left, right, active))
        if tol is not None:
            count = count + (1 if active is None else active)
            unfinished = residual > tol
            if looking and not unfinished.any():
                break
            # A frozen problem keeps its residual, so it stays finished.
            active = None if looking and unfinished.all() else _tensor(unfinished)
        left, right = domain.settle(left, right, before)
    return Sweeps(left, right, _tensor(residual), count, start, history)


def _summary(excess: Array, share: Tensor, norm: Norm) -> Array:
    """One number per problem of what was off at each node, of the same kind as ``excess``."""
    if isinstance(excess, Tensor):
        return excess.amax(-1) if norm == "max" else excess.sum(-1) / share
    return np.asarray(excess.max(-1) if norm == "max" else excess.sum(-1) / share.numpy())


def _where(active: Tensor, new: Array, old: Array) -> Array:
    """The new state of active problems, the old of others."""
    if new.ndim > active.ndim:
        active = active.unsqueeze(-1)
    if isinstance(new, Tensor):
        return torch.where(active, new, _tensor(old))
    return cast(Array, np.where(active.numpy(), new, old))


def _tensor(x: Array) -> Tensor:
    return x if isinstance(x, Tensor) else torch.from_numpy(x)  # pyright: ignore[reportUnknownMemberType]


def choose(
    name: DomainName,
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: Tensor,
    tau_a: Real,
    tau_b: Real,
    stabilizer: Real,
    keeps_history: bool,
) -> Domain:
    """The problem in a domain; ``auto`` takes the fastest that is safe for this cost on this device."""
    # A compiler differentiates the sweeps itself, which the kernel, made in place, does not allow.
    if name == "log" or (keeps_history and not stabilizer and torch.compiler.is_compiling()):
        return Log(cost, a, b, epsilon, tau_a, tau_b)
    plain = stabilizer > 0 or tau_a != 1 or tau_b != 1
    if name == "auto" and not stabilizer:
        if not checks.can_look(cost):
            return Log(cost, a, b, epsilon, tau_a, tau_b)
        # Offsets take out what all entries of a row have in common; without them the whole cost has to be in range.
        entries = cost.numpy()
        low, high = entries.min((-2, -1)), entries.max((-2, -1))
        reach = abs(entries).max((-2, -1)) if plain else high - low
        if not (reach < SPREAD[cost.dtype] * epsilon.numpy()[..., 0, 0]).all():
            if plain or keeps_history:
                return Log(cost, a, b, epsilon, tau_a, tau_b)
            return Absorbed(cost, a, b, epsilon)
    if plain:
        return Scaling(cost, a, b, epsilon, (None, None), tau_a, tau_b, stabilizer)
    return Scaling(cost, a, b, epsilon, (cost.amin(-1), None))
