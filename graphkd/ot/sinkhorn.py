"""Sinkhorn's algorithm for entropic optimal transport, batched and differentiable."""

from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from graphkd import checks
from graphkd.ot.domains import Domain, Log, Scaling, in_domain
from graphkd.ot.envelope import Envelope, NoGradient
from graphkd.ot.problem import Norm, Relative, errors, prepare, resolve
from graphkd.typing import Real, Transport

Order = Literal["rows_first", "columns_first"]
Gradient = Literal["envelope", "unroll"]


def sinkhorn(
    cost: Shaped[Tensor, "*c n m"],
    a: Shaped[Tensor, "..."] | None = None,
    b: Shaped[Tensor, "..."] | None = None,
    *,
    epsilon: Real | Relative,
    num_iters: int = 50,
    tol: Real | None = None,
    tol_norm: Norm = "l1",
    order: Order = "rows_first",
    domain: Domain = "auto",
    gradient: Gradient = "envelope",
    stabilizer: Real = 0.0,
    warm_start: tuple[Tensor, Tensor] | None = None,
) -> Transport:
    r"""Entropic optimal transport between masses a and b.

    .. math::
        \min_{P \ge 0,\; P 1 = a,\; P^\top 1 = b} \langle P, M\rangle + \epsilon \, \mathrm{KL}(P \,\|\, a b^\top),
        \qquad P_{ij} = a_i b_j \exp((f_i + g_j - M_{ij}) / \epsilon)

    by alternating updates, a sweep being one of each,

    .. math::
        f_i = -\epsilon \log \sum_j b_j \exp((g_j - M_{ij}) / \epsilon), \qquad
        g_j = -\epsilon \log \sum_i a_i \exp((f_i - M_{ij}) / \epsilon).

    After finitely many sweeps only the marginal updated last is exact. Potentials and gradients are finite where a
    mass is zero. Half-precision input is raised to float32; under autocast the solver stays in float32.

    Args:
        cost: M, finite. Leading axes are independent problems.
        a: Mass of the rows (n) or (\*b n); uniform, summing to one, by default.
        b: Mass of the columns, with the same sum as ``a``; uniform by default.
        epsilon: Entropic weight in units of the cost, or :class:`Relative` to the cost's standard deviation. The
            number that was used is in the result.
        num_iters: Sweeps, at most.
        tol: Stop when, after the first half of a sweep, the other marginal is off by no more than this; that sweep is
            completed. None runs all sweeps. On an accelerator a finished problem is frozen and the loop goes on, so
            that the host never waits.
        tol_norm: What ``tol`` bounds: ``l1``, the summed error as a share of the mass (independent of n), or ``max``,
            the largest error of a single node.
        order: Whether rows or columns are updated first.
        domain: ``log`` is stable at any epsilon. ``scaling`` needs one matrix-vector product per half-sweep but
            underflows where the cost spans many epsilon. ``auto`` takes scaling where that is safe and the cost lies
            on the CPU, else log.
        gradient: ``envelope`` differentiates the value only, exactly at convergence, at no cost: dM = P, da = f,
            db = g; asking it for the gradient of the plan raises (under ``torch.compile``, where nothing can be raised,
            the plan is a constant). ``unroll`` is the derivative of the sweeps that were run, for value, plan and
            potentials.
        stabilizer: Added to both denominators of the scaling iteration, as some published loops do. It loses mass, so
            it is for reproducing them only.
        warm_start: Potentials (f, g) to start from; only the one that is not updated first is used. Zero by default.

    Raises:
        ValueError: For options out of range, and for costs or masses with wrong shapes, dtypes, devices or (on the
            CPU, where looking is free) non-finite entries, negative masses, or unequal sums.

    >>> transport = sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.1)
    >>> transport.plan.detach().round(decimals=3)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])

    Source: Cuturi, "Sinkhorn Distances", NeurIPS 2013, arXiv:1306.0895.
    """
    check_options(epsilon, num_iters, tol, tol_norm, order, domain, gradient, stabilizer)
    cost, a, b, status = prepare(cost, a, b)
    flip = order == "columns_first"
    if flip:
        cost, a, b = cost.mT, b, a
    g = _start(warm_start, flip, b, centred=not stabilizer)
    with (
        torch.autocast(cost.device.type, enabled=False),
        torch.set_grad_enabled(torch.is_grad_enabled() and gradient == "unroll"),
    ):
        scale = resolve(epsilon, cost)
        kernel = in_domain(domain, cost, a, b, scale, stabilizer)
        left, right, num_sweeps = _sweep(kernel, kernel.enter(g), b, num_iters, tol, tol_norm)
        f, g = kernel.potentials(left, right)
        plan = kernel.plan(left, right)
        value = (f * a).sum(-1) + (g * b).sum(-1)
    if gradient == "envelope":
        value = Envelope.apply(cost, a, b, f, g, plan, value)
        # A compiler traces every backward it meets, and would trip over the refusal: there the plan is a constant.
        plan = plan if torch.compiler.is_compiling() else NoGradient.apply(cost, a, b, plan)
    error, worst = errors(plan.sum(-1), plan.sum(-2), a, b)
    return Transport(
        plan=plan.mT if flip else plan,
        value=value,
        potentials=(g, f) if flip else (f, g),
        marginal_error=error,
        converged=(worst if tol_norm == "max" else error) <= (1e-3 if tol is None else tol),
        num_iters=num_sweeps,
        epsilon=scale,
        status=status,
    )


def check_options(
    epsilon: Real | Relative,
    num_iters: int,
    tol: Real | None,
    tol_norm: str,
    order: str,
    domain: str,
    gradient: str,
    stabilizer: Real,
) -> None:
    """Raise a ValueError for options that :func:`sinkhorn` could not run with; needs no data."""
    if not isinstance(epsilon, Relative):
        checks.positive("epsilon", epsilon)
    checks.at_least("num_iters", num_iters, 1)
    if tol is not None:
        checks.positive("tol", tol)
    checks.one_of("tol_norm", tol_norm, ("l1", "max"))
    checks.one_of("order", order, ("rows_first", "columns_first"))
    checks.one_of("domain", domain, ("auto", "scaling", "log"))
    checks.one_of("gradient", gradient, ("envelope", "unroll"))
    if not 0 <= stabilizer < float("inf") or (stabilizer > 0 and domain == "log"):
        raise ValueError(
            f"stabilizer needs a finite number of at least 0, and the scaling domain where it is above 0; "
            f"got {stabilizer!r} in domain {domain!r}"
        )


def _start(warm_start: tuple[Tensor, Tensor] | None, flip: bool, b: Tensor, centred: bool) -> Tensor:
    """The potential of the side that is updated second."""
    if warm_start is None:
        return torch.zeros_like(b)
    g = warm_start[0 if flip else 1]
    if g.shape[-1] != b.shape[-1]:
        raise ValueError(f"warm_start needs {b.shape[-1]} potentials on the side updated second, got {tuple(g.shape)}")
    g = g.detach().to(b)
    # A constant moves freely between f and g, unless a stabilizer holds it; a large one would overflow when scaling.
    return (g - g.mean(-1, keepdim=True) if centred else g).expand_as(b)


def _sweep(
    kernel: Log | Scaling, right: Tensor, b: Tensor, num_iters: int, tol: Real | None, tol_norm: Norm
) -> tuple[Tensor, Tensor, Int[Tensor, "*b"]]:
    """Run the sweeps; a problem that met the tolerance is frozen, and on the CPU the loop ends when all have."""
    left = kernel.rows(right)
    right, before = kernel.columns(left), right
    count = torch.ones(b.shape[:-1], dtype=torch.int64, device=b.device)
    if tol is None:
        for _ in range(num_iters - 1):
            left = kernel.rows(right)
            right = kernel.columns(left)
        return left, right, count * num_iters
    active = _error(b * kernel.ratio(before, right), b, tol_norm) > tol
    for _ in range(num_iters - 1):
        if checks.can_look(active) and not bool(active.any()):
            break
        new_left = kernel.rows(right)
        new_right = kernel.columns(new_left)
        still = active & (_error(b * kernel.ratio(right, new_right), b, tol_norm) > tol)
        left = torch.where(active.unsqueeze(-1), new_left, left)
        right = torch.where(active.unsqueeze(-1), new_right, right)
        count, active = count + active, still
    return left, right, count


def _error(sums: Float[Tensor, "*b n"], mass: Float[Tensor, "*b n"], norm: Norm) -> Float[Tensor, "*b"]:
    gap = (sums.detach() - mass.detach()).abs()
    return gap.amax(-1) if norm == "max" else gap.sum(-1) / mass.detach().sum(-1)
