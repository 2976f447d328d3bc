"""Sinkhorn's algorithm for many pairs of marginals that share one cost, as between class probabilities."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from graphkd import checks
from graphkd.ot.domains import SPREAD, DomainName, Scaling
from graphkd.ot.dual import value_of
from graphkd.ot.gradients import Gradients, NoGradient, Unroll, centred, once
from graphkd.ot.problem import Norm, Problem, Relative, errors, prepare, resolve
from graphkd.ot.sinkhorn import Gradient, Options, Order, solve, start, tell
from graphkd.ot.sweeps import Sweeps, sweep
from graphkd.precision import no_autocast, raised
from graphkd.typing import Real, Transport

CHUNK = 2**22
"""How many entries of plans are formed at a time where the products of matrices would underflow."""


def shared_sinkhorn(
    cost: Float[Tensor, "n m"],
    a: Float[Tensor, "*a n"] | None = None,
    b: Float[Tensor, "*b m"] | None = None,
    *,
    epsilon: Real | Relative,
    num_iters: int = 50,
    tol: Real | None = None,
    tol_norm: Norm = "l1",
    order: Order = "rows_first",
    domain: DomainName = "auto",
    gradient: Gradient = "envelope",
    stabilizer: Real = 0.0,
    warm_start: tuple[Tensor, Tensor] | None = None,
) -> Transport:
    r"""Entropic transport of N pairs of marginals under one cost, in matrix products.

    What :func:`sinkhorn` computes for the cost repeated N times,

    .. math::
        \min_{P_s 1 = a_s,\; P_s^\top 1 = b_s} \langle P_s, M\rangle + \epsilon \, \mathrm{KL}(P_s \,\|\, a_s b_s^\top),
        \qquad s = 1 \dots N,

    but a half-sweep is one product of an (N n) with an (n m) matrix, and neither N costs nor N plans are ever formed.
    Leaving a class out of one pair is giving it zero mass there.

    Args:
        cost: M (n m).
        a: Masses of the rows (N n), a pair in each line, or (n) for all; uniform by default.
        b: Masses of the columns (N m) or (m), with the same sum in each line; uniform by default.
        epsilon: As for :func:`sinkhorn`.
        num_iters: Sweeps, at most.
        tol: As for :func:`sinkhorn`.
        tol_norm: As for :func:`sinkhorn`.
        order: Whether rows or columns are updated first.
        domain: As for :func:`sinkhorn`; ``auto`` computes in float64 where float32 would underflow, and beyond that in
            the log domain, some pairs at a time. On an accelerator it is float64: a cost that spans more than 300
            epsilon needs ``log`` there.
        gradient: ``envelope`` differentiates ``value``, ``unroll`` also ``linear`` and the potentials, through the
            sweeps that were run, with two vectors per sweep and pair in memory.
        stabilizer: As for :func:`sinkhorn`.
        warm_start: As for :func:`sinkhorn`.

    Returns:
        A transport with ``value`` and ``linear`` of shape (N), and as ``plan`` (n m) the mean of all plans, without
        gradient.

    Raises:
        ValueError: As :func:`sinkhorn` does.

    >>> cost = 1 - torch.eye(3)
    >>> student, teacher = torch.tensor([[0.2, 0.8, 0.0]]), torch.tensor([[0.5, 0.5, 0.0]])
    >>> shared_sinkhorn(cost, student, teacher, epsilon=0.02).linear.round(decimals=3)
    tensor([0.3000])

    Source: Cuturi, "Sinkhorn Distances", NeurIPS 2013, arXiv:1306.0895, on many histograms with one kernel.
    """
    options = Options(epsilon, num_iters, tol, tol_norm, order, domain, gradient, stabilizer=stabilizer)
    options.check()
    if gradient == "implicit":
        raise ValueError("shared_sinkhorn needs gradient envelope or unroll, got 'implicit', which is for single plans")
    checks.tensor(cost=cost)
    checks.same_device(cost=cost, a=a, b=b)
    if cost.dim() != 2:
        raise ValueError(f"shared_sinkhorn needs one cost (n, m) for all pairs, got shape {tuple(cost.shape)}")
    for name, masses in (("a", a), ("b", b)):
        if masses is not None and masses.dim() > 2:
            raise ValueError(f"{name} needs masses of shape (N, size) or (size), got {tuple(masses.shape)}")
    # A leading axis of one makes the batch; what is computed with is the one cost, without its N copies.
    checked = prepare(cost.unsqueeze(0), a, b)
    problem = checked._replace(cost=raised(cost))
    scale = resolve(epsilon, problem.cost)
    flip = order == "columns_first"
    if flip:
        problem = problem._replace(cost=problem.cost.mT, a=problem.b, b=problem.a)
    g = start(warm_start, flip, problem.b, centred_=not stabilizer)
    with no_autocast(cost.device):
        transport = _in_precision(problem, scale, options._replace(order="rows_first"), g)
    if gradient == "envelope":
        leaves = problem.cost, problem.a, problem.b
        transport = transport._replace(linear=NoGradient.apply("use gradient='unroll'", transport.linear, *leaves))
    if flip and transport.potentials is not None:
        transport = transport._replace(plan=transport.plan.mT, potentials=transport.potentials[::-1])
    return transport._replace(epsilon=scale)


def _in_precision(problem: Problem, epsilon: Tensor, options: Options, g: Tensor | None) -> Transport:
    """Solve where the kernel does not underflow: as given, in float64, or in the log domain."""
    cost = problem.cost
    if options.domain == "scaling" or options.stabilizer:
        return _by_products(problem, epsilon, options, g)
    if options.domain == "log":
        return _by_chunks(problem, epsilon, options, g)
    if checks.can_look(cost):
        spread = float((cost.detach().amax() - cost.detach().amin()) / epsilon)
        if spread < SPREAD[cost.dtype]:
            return _by_products(problem, epsilon, options, g)
        if spread >= SPREAD[torch.float64]:
            return _by_chunks(problem, epsilon, options, g)
    wide = Problem(cost.double(), problem.a.double(), problem.b.double(), problem.status)
    return _narrowed(_by_products(wide, epsilon.double(), options, None if g is None else g.double()), cost.dtype)


def _by_products(problem: Problem, epsilon: Tensor, options: Options, initial: Tensor | None) -> Transport:
    """All pairs at once, in the scaling domain."""
    cost, a, b, status = problem
    unroll = options.gradient == "unroll" and torch.is_grad_enabled()
    with torch.no_grad():
        offset = None if options.stabilizer else cost.amin(-1)
        kernel = Scaling(cost, a, b, epsilon, (offset, None), stabilizer=options.stabilizer, shared=True)
        run = sweep(kernel, kernel.enter(initial), b, options.num_iters, options.tol, options.tol_norm, unroll)
        f, g = kernel.potentials(run.left, run.right)
        u, v = kernel.scaled_rows(run.left), kernel.scaled_columns(run.right)
        sums = kernel.tensor(u * kernel.times(v)), kernel.tensor(v * kernel.times_t(u))
        error = errors(*sums, a, b)
        worst = errors(*sums, a, b, "max") if options.tol_norm == "max" else error
        plan = kernel.plan(run.left, run.right)
    if unroll:
        f, g = Unroll.apply(cost, a, b, initial, kernel, run)
    value = value_of(a, b, f, g, plan, epsilon, 1, 1)
    linear = Linear.apply(cost, a, b, f, g, kernel, run)
    if not unroll:
        value = SharedEnvelope.apply(cost, a, b, f, g, kernel, run, value.detach())
    converged = worst <= (1e-3 if options.tol is None else options.tol)
    tell(converged, sums[0], a, options)
    return Transport(plan, value, (f, g), error, converged, run.num_iters, epsilon, status=status, linear=linear)


def _by_chunks(problem: Problem, epsilon: Tensor, options: Options, initial: Tensor | None) -> Transport:
    """Some pairs at a time, each with a plan of its own that is formed again for the gradient."""
    cost, a, b, status = problem

    def solved(cost: Tensor, a: Tensor, b: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        costs = cost.expand(len(a), *cost.shape)
        transport = solve(Problem(costs, a, b, status[: len(a)]), epsilon, options, (torch.zeros_like(a), g))
        f, g = transport.potentials or (a, b)
        plan = transport.plan if options.gradient == "unroll" else transport.plan.detach()
        linear = (plan * cost).sum((-2, -1))
        assert transport.value is not None
        mean = plan.detach().sum(0) / status.numel()
        return mean, transport.value, f, g, transport.marginal_error, transport.converged, transport.num_iters, linear

    size = max(1, CHUNK // cost.numel())
    initial = torch.zeros_like(b) if initial is None else initial
    chunks = zip(*(torch.split(x, size) for x in (a, b, initial)), strict=True)
    parts = [checkpoint(solved, cost, *chunk, use_reentrant=False) for chunk in chunks]
    plans, *others = zip(*parts, strict=True)
    value, f, g, error, converged, num_iters, linear = (torch.cat(other) for other in others)
    plan = torch.stack(plans).sum(0)
    return Transport(plan, value, (f, g), error, converged, num_iters, epsilon, status=status, linear=linear)


class SharedEnvelope(torch.autograd.Function):
    """The values' gradient at the solution; for the cost the sum of all plans, by one product."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, kernel: Scaling, run: Sweeps, value: Tensor
    ) -> Tensor:
        ctx.save_for_backward(f, g)
        ctx.solved = kernel, run
        return value.view_as(value)

    @staticmethod
    @once
    def backward(ctx: Any, grad_value: Tensor) -> Gradients:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        f, g = ctx.saved_tensors
        kernel, run = ctx.solved
        scale = grad_value.unsqueeze(-1)
        grad_cost = None
        if ctx.needs_input_grad[0]:
            u, v = _factors(kernel, run)
            grad_cost = ((u * scale).mT @ v).mul_(kernel.tensor(kernel.kernel))
        return grad_cost, scale * centred(f), scale * centred(g), *[None] * 5


class Linear(torch.autograd.Function):
    """<P, M> of every pair from the factors of P = diag(u) K diag(v), and its derivatives by potentials and masses."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, kernel: Scaling, run: Sweeps
    ) -> Tensor:
        u, v = _factors(kernel, run)
        paid = kernel.tensor(kernel.kernel) * cost
        ctx.save_for_backward(paid)
        ctx.solved = kernel, run
        return (u * (v @ paid.mT)).sum(-1)

    @staticmethod
    @once
    def backward(ctx: Any, grad_linear: Tensor) -> Gradients:  # noqa: D102 # pyright: ignore[reportIncompatibleMethodOverride]
        (paid,) = ctx.saved_tensors
        kernel, run = ctx.solved
        u, v = _factors(kernel, run)
        epsilon = kernel.epsilon.squeeze(-1)
        scale = grad_linear.unsqueeze(-1)
        per_row, per_column = scale * (v @ paid.mT), scale * (u @ paid)
        grad_cost = None
        if ctx.needs_input_grad[0]:
            grad_cost = ((u * scale).mT @ v).mul_(kernel.tensor(kernel.kernel) - paid / kernel.epsilon)
        return (
            grad_cost,
            per_row / kernel.tensor(run.left),
            per_column / kernel.tensor(run.right),
            per_row * u / epsilon,
            per_column * v / epsilon,
            None,
            None,
        )


def _factors(kernel: Scaling, run: Sweeps) -> tuple[Tensor, Tensor]:
    return kernel.tensor(kernel.scaled_rows(run.left)), kernel.tensor(kernel.scaled_columns(run.right))


def _narrowed(transport: Transport, dtype: torch.dtype) -> Transport:
    """All floating-point parts in another precision."""
    plan, value, potentials, error, *_ = transport
    assert value is not None and potentials is not None and transport.linear is not None
    return transport._replace(
        plan=plan.to(dtype),
        value=value.to(dtype),
        potentials=(potentials[0].to(dtype), potentials[1].to(dtype)),
        marginal_error=error.to(dtype),
        linear=transport.linear.to(dtype),
    )
