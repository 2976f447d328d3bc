"""Sinkhorn's algorithm for entropic optimal transport, batched and differentiable."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from graphkd import checks
from graphkd.ot.absorbed import Absorbed
from graphkd.ot.domains import DomainName
from graphkd.ot.dual import slopes_of, value_of
from graphkd.ot.gradients import Envelope, Implicit, NoGradient, PlanOf, Unroll, centred
from graphkd.ot.newton import newton
from graphkd.ot.problem import Norm, Problem, Relative, errors, expands, prepare, resolve
from graphkd.ot.sweeps import choose, sweep
from graphkd.precision import no_autocast
from graphkd.typing import Real, Transport

Order = Literal["rows_first", "columns_first"]
Gradient = Literal["envelope", "implicit", "unroll"]


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
    domain: DomainName = "auto",
    gradient: Gradient = "envelope",
    tau_a: Real = 1,
    tau_b: Real = 1,
    newton_iters: int = 0,
    stabilizer: Real = 0.0,
    warm_start: tuple[Tensor, Tensor] | None = None,
) -> Transport:
    r"""Entropic optimal transport between masses a and b.

    .. math::
        \min_{P \ge 0} \langle P, M\rangle + \epsilon \, \mathrm{KL}(P \,\|\, a b^\top)
        + \rho_a \mathrm{KL}(P 1 \,\|\, a) + \rho_b \mathrm{KL}(P^\top 1 \,\|\, b),
        \qquad P_{ij} = a_i b_j \exp((f_i + g_j - M_{ij}) / \epsilon)

    with :math:`\tau = \rho / (\rho + \epsilon)`: 1 keeps a side's masses, 0 leaves them free. By alternating updates, a
    sweep being one of each,

    .. math::
        f_i = -\tau_a \epsilon \log \sum_j b_j \exp((g_j - M_{ij}) / \epsilon), \qquad
        g_j = -\tau_b \epsilon \log \sum_i a_i \exp((f_i - M_{ij}) / \epsilon).

    After finitely many sweeps only the marginal updated last is exact. Potentials and gradients are finite where a
    mass is zero, so that graphs of different sizes are padded with nodes without mass (any finite cost will do there).
    Half-precision input is raised to float32; under autocast the solver stays in float32.

    Args:
        cost: M, finite. Leading axes are independent problems.
        a: Mass of the rows (n) or (\*b n); uniform, summing to one, by default.
        b: Mass of the columns, with the same sum as ``a`` unless a side is relaxed; uniform by default.
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
            underflows where the cost spans many epsilon. ``auto`` takes what is fastest and safe: on the CPU scaling,
            with the potentials absorbed in the kernel where epsilon is small, elsewhere log.
        gradient: ``envelope`` differentiates the value only, exactly at convergence, at no cost: dM = P, da = f,
            db = g; a loss that reads the plan raises (under ``torch.compile``, where nothing can be raised, the plan
            is a constant). ``implicit`` differentiates value, plan and potentials by the equations that hold at
            convergence, at the price of one linear system in the columns. ``unroll`` is the derivative of the sweeps
            that were run, converged or not. The last two know potentials up to a constant moved from one side to the
            other; ``implicit`` returns those with :math:`\langle g, b\rangle = 0`.
        tau_a: How firmly the row masses are held, in [0, 1].
        tau_b: How firmly the column masses are held, in [0, 1].
        newton_iters: Newton steps, at most, after the sweeps: a few replace hundreds of sweeps at small epsilon. Each
            solves a linear system in the columns, in float64; both masses must be kept. A last sweep follows.
        stabilizer: Added to both denominators of the scaling iteration, as some published loops do. It loses mass, so
            it is for reproducing them only.
        warm_start: Potentials (f, g) to start from; only the one that is not updated first is used. Zero by default.
            ``unroll`` differentiates them as well.

    Returns:
        A transport whose ``value`` is the minimum above, from the dual; with both masses kept it leaves out
        :math:`\epsilon (s^2 - s)`, which the mass s alone decides. With relaxed sides ``marginal_error`` counts the
        sides that are kept, and by how much of the mass the last sweep moved.

    Raises:
        ValueError: For options out of range, and for costs or masses with wrong shapes, dtypes, devices or (on the
            CPU, where looking is free) non-finite entries, negative masses, or unequal sums. On an accelerator
            the result's ``status`` tells, and :meth:`Transport.check` raises.

    >>> transport = sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.1)
    >>> transport.plan.detach().round(decimals=3)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])

    Source: Cuturi, "Sinkhorn Distances", NeurIPS 2013, arXiv:1306.0895; relaxed masses: Chizat, Peyré, Schmitzer,
    Vialard, "Scaling algorithms for unbalanced optimal transport problems", Math. Comp. 2018, arXiv:1607.05816;
    implicit gradient: Luise et al., NeurIPS 2018, arXiv:1805.11897, and Eisenberger et al., CVPR 2022; Newton: Brauer,
    Clason, Lorenz, Wirth, "A Sinkhorn-Newton method for entropic optimal transport", arXiv:1710.06635.
    """
    options = Options(
        epsilon, num_iters, tol, tol_norm, order, domain, gradient, tau_a, tau_b, newton_iters, stabilizer
    )
    options.check()
    problem = prepare(cost, a, b, equal=options.balanced)
    return solve(problem, resolve(epsilon, problem.cost), options, warm_start)


class Options(NamedTuple):
    """The options of :func:`sinkhorn`."""

    epsilon: Real | Relative
    num_iters: int = 50
    tol: Real | None = None
    tol_norm: Norm = "l1"
    order: Order = "rows_first"
    domain: DomainName = "auto"
    gradient: Gradient = "envelope"
    tau_a: Real = 1
    tau_b: Real = 1
    newton_iters: int = 0
    stabilizer: Real = 0.0

    @property
    def balanced(self) -> bool:
        """Whether both masses are kept."""
        return self.tau_a == self.tau_b == 1

    def flipped(self) -> "Options":
        """The same for rows and columns exchanged."""
        return self._replace(tau_a=self.tau_b, tau_b=self.tau_a)

    def check(self) -> None:
        """Raise a ValueError for options that could not be run with; needs no data."""
        if not isinstance(self.epsilon, Relative):
            checks.positive("epsilon", self.epsilon)
        checks.at_least("num_iters", self.num_iters, 1)
        checks.at_least("newton_iters", self.newton_iters, 0)
        if self.tol is not None:
            checks.positive("tol", self.tol)
        checks.one_of("tol_norm", self.tol_norm, ("l1", "max"))
        checks.one_of("order", self.order, ("rows_first", "columns_first"))
        checks.one_of("domain", self.domain, ("auto", "scaling", "log"))
        checks.one_of("gradient", self.gradient, ("envelope", "implicit", "unroll"))
        for name, tau in (("tau_a", self.tau_a), ("tau_b", self.tau_b)):
            checks.share(name, tau)
        if not 0 <= self.stabilizer < float("inf") or (self.stabilizer > 0 and self.domain == "log"):
            raise ValueError(
                f"stabilizer needs a finite number of at least 0, and the scaling domain where it is above 0; "
                f"got {self.stabilizer!r} in domain {self.domain!r}"
            )
        if self.stabilizer and self.gradient == "implicit":
            raise ValueError("an implicit gradient needs masses that are kept, got a stabilizer, which loses some")
        if self.newton_iters and not (self.balanced and not self.stabilizer and self.gradient != "unroll"):
            raise ValueError(
                "newton_iters needs both masses kept, no stabilizer and a gradient other than unroll; got "
                f"tau_a={self.tau_a}, tau_b={self.tau_b}, stabilizer={self.stabilizer}, gradient={self.gradient!r}"
            )


def solve(
    problem: Problem, epsilon: Tensor, options: Options, warm_start: tuple[Tensor, Tensor] | None = None
) -> Transport:
    """Run Sinkhorn on a checked problem."""
    cost, a, b, status = problem
    flip = options.order == "columns_first"
    if flip:
        cost, a, b = cost.mT, b, a
        options = options.flipped()
    g = start(warm_start, flip, b, centred_=options.balanced and not options.stabilizer)
    with no_autocast(cost.device):
        f, g, plan, value, residual, num_iters = _differentiable(cost, a, b, g, epsilon, options)
        sums = _marginals(plan.detach(), a, b, options)
        error = errors(*sums, a, b)
        worst = errors(*sums, a, b, "max") if options.tol_norm == "max" else error
    if not options.balanced:
        error, worst = error + residual, worst + residual
    converged = worst <= (1e-3 if options.tol is None else options.tol)
    tell(converged, sums[0], a, options)
    return Transport(
        plan=plan.mT if flip else plan,
        value=value,
        potentials=(g, f) if flip else (f, g),
        marginal_error=error,
        converged=converged,
        num_iters=num_iters,
        epsilon=epsilon,
        status=status,
    )


def tell(converged: Tensor, rows: Tensor, a: Tensor, options: Options) -> None:
    """Log once, where looking is free, what a plan that did not converge lacks."""
    if not checks.can_look(converged) or converged.numpy().all():
        return
    if options.balanced and (abs(rows.sum(-1) / a.detach().sum(-1) - 1) > 1e-2).numpy().any():
        checks.log_once("a transport plan lost or gained more than 1 % of its mass: see Transport.marginal_error")
    elif options.tol is not None:
        checks.log_once("Sinkhorn's sweeps ended before the tolerance was met: see Transport.converged")


def start(warm_start: tuple[Tensor, Tensor] | None, flip: bool, b: Tensor, centred_: bool) -> Tensor | None:
    """The potential of the side that is updated second."""
    if warm_start is None:
        return None
    g = warm_start[0 if flip else 1]
    if not expands(g.shape, b.shape):
        raise ValueError(
            f"warm_start needs potentials of shape {tuple(b.shape)} on the side updated second, got {tuple(g.shape)}"
        )
    checks.finite("warm_start", g)
    g = g.to(b)
    # A constant moves freely between f and g where both masses are kept; a large one would overflow when scaling.
    return (centred(g) if centred_ else g).expand_as(b)


def _differentiable(
    cost: Tensor, a: Tensor, b: Tensor, initial: Tensor | None, epsilon: Tensor, options: Options
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Potentials, plan and value with the gradient that was asked for; the residual and the number of sweeps."""
    unroll = options.gradient == "unroll" and torch.is_grad_enabled()
    traced = torch.compiler.is_compiling()
    tau_a, tau_b = options.tau_a, options.tau_b
    with torch.set_grad_enabled(unroll and traced):
        kernel = choose(options.domain, cost, a, b, epsilon, tau_a, tau_b, options.stabilizer, keeps_history=unroll)
        run = sweep(
            kernel,
            kernel.enter(initial),
            b,
            options.num_iters,
            options.tol,
            options.tol_norm,
            keep_history=unroll and not traced,
            keep_residual=not options.balanced,
        )
        f, g = kernel.potentials(run.left, run.right)
        plan, num_iters = kernel.plan(run.left, run.right), run.num_iters
        if options.newton_iters:
            f, g, plan, steps = newton(cost, a, b, f, g, epsilon, options.newton_iters, options.tol)
            num_iters = num_iters + steps
    if options.gradient == "envelope":
        with torch.no_grad():
            value = value_of(a, b, f, g, plan, epsilon, tau_a, tau_b)
        if torch.is_grad_enabled():
            slopes = slopes_of(cost, a, b, f, g, epsilon, tau_a, tau_b)
            value = Envelope.apply(cost, a, b, *slopes, plan, value)
            # A compiler traces every backward it meets, and would trip over the refusal: there the plan is a constant.
            plan = plan if traced else NoGradient.apply("use gradient='implicit' or 'unroll'", plan, cost, a, b)
        return f, g, plan, value, run.residual, num_iters
    if options.gradient == "implicit":
        f, g = Implicit.apply(cost, a, b, f, g, epsilon, tau_a, tau_b)
        if options.balanced:
            shift = (g * b).sum(-1, keepdim=True) / b.sum(-1, keepdim=True)
            f, g = f + shift, g - shift
    elif unroll and not traced:
        assert not isinstance(kernel, Absorbed)
        f, g = Unroll.apply(cost, a, b, initial, kernel, run)
    if not traced or options.gradient == "implicit":
        plan = PlanOf.apply(cost, a, b, f, g, epsilon, plan)
    return f, g, plan, value_of(a, b, f, g, plan, epsilon, tau_a, tau_b), run.residual, num_iters


def _marginals(plan: Tensor, a: Tensor, b: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """The plan's sums; of a relaxed side the masses themselves, which nothing holds the plan to."""
    return plan.sum(-1) if options.tau_a == 1 else a, plan.sum(-2) if options.tau_b == 1 else b
