"""Fused Gromov-Wasserstein transport: plans that match nodes by what they are and by how they relate."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from graphkd import checks
from graphkd.ot.fused.conditional import conditional_gradient
from graphkd.ot.fused.gradient import FusedEnvelope
from graphkd.ot.fused.inputs import Start, prepare_fused, start_plan
from graphkd.ot.fused.lowrank import LowRank, parts
from graphkd.ot.fused.mirror import Mirror
from graphkd.ot.fused.objective import Found, Objective
from graphkd.ot.fused.structure import LOSSES, LossName
from graphkd.ot.gradients import NoGradient, centred
from graphkd.ot.problem import Relative, marginal_error
from graphkd.precision import no_autocast
from graphkd.typing import Real, Transport

Solver = Literal["auto", "mirror", "conditional"]

ZIGZAG_NODES, ZIGZAG_SHARE = 128, 0.15
"""From how many nodes on, and up to what share of entries that are not zero, conditional takes many small steps."""


def fused_gromov(
    cost: Shaped[Tensor, "*c n m"] | None,
    student_relation: Tensor | LowRank | None,
    teacher_relation: Tensor | LowRank | None,
    a: Shaped[Tensor, "..."] | None = None,
    b: Shaped[Tensor, "..."] | None = None,
    *,
    alpha: Real = 0.5,
    loss: LossName = "square",
    solver: Solver = "auto",
    num_iters: int | None = None,
    num_inner: int = 5,
    epsilon: Real | Relative = Relative(0.3),  # noqa: B008 # it is frozen
    semi_relaxed: bool = False,
    start: Start = "product",
    tol: Real | None = None,
) -> Transport:
    r"""Transport that keeps costs small and relations alike, between masses a and b.

    .. math::
        \min_{P \ge 0,\; P 1 = a,\; P^\top 1 = b} (1 - \alpha) \langle P, M\rangle
        + \alpha \sum_{ijkl} L(C_{ik}, D_{jl})\, P_{ij} P_{kl}

    with L the square :math:`(s - t)^2` or, for relations of at least 0, KL :math:`s \log(s / t) - s + t`. The objective
    is not convex: what is found is a local minimum, and where it depends on the start.

    Value and gradients belong to a plan with exactly the masses asked for. By the envelope theorem, at a minimum,
    dM = (1 - alpha) P, dC and dD are the derivatives at a fixed plan, and da, db the centred potentials of the
    linearised problem :math:`\min_T \langle G, T\rangle` with G the objective's derivative at P. The plan has no
    gradient, and a loss that reads it is refused. Half precision is raised to float32, under autocast too.

    Args:
        cost: M, finite. Leading axes are independent problems. May be None where alpha is 1.
        student_relation: C (\*b n n), also asymmetric, or its :class:`LowRank` factors, which make large problems cheap
            where the loss is the square. Ignored, and may be None, where alpha is 0.
        teacher_relation: D (\*b m m), likewise.
        a: Mass of the rows (n) or (\*b n); uniform, summing to one, by default.
        b: Mass of the columns, with the same sum as ``a``; uniform by default.
        alpha: The weight of the structure: 0 is plain transport, 1 is Gromov-Wasserstein.
        loss: L.
        solver: ``conditional`` goes to a vertex of the linearised problem in every step, found by a network simplex on
            the CPU. Where relations are distances it needs two or three steps. ``mirror`` takes proximal steps by few
            Sinkhorn sweeps: its work is fixed, it is batched, and an accelerator never waits. ``auto`` is conditional
            on the CPU, except for relations that are mostly zeros, of 128 nodes or more or in a batch, where its steps
            zigzag; there and elsewhere it is mirror.
        num_iters: Steps, at most: by default 12 of mirror, 50 of conditional. On kNN adjacency of 64 to 256 nodes 12
            steps of mirror end 0.1 to 0.7 % above conditional, 20 within 0.3 %.
        num_inner: Sinkhorn sweeps in each step of mirror.
        epsilon: How far a step of mirror may go: the weight of its divergence from the last plan, in units of the
            linearised cost, or a share of that cost's standard deviation after its rows' and columns' means are taken
            out; doubled after every step that led uphill. It slows the descent down; it does not blur the solution.
        semi_relaxed: Keep the mass of the rows only. Then b is where the start puts the columns' mass, and has no
            gradient; a column that starts without mass gets none from mirror.
        start: The plan to start from: the product of the masses; for equal masses the identity, diag(a); or a plan.
        tol: Stop mirror when a step moves no more than this share of the mass. None takes all steps. On an accelerator
            a finished problem is frozen and the loop goes on. Conditional stops when no vertex promises a gain.

    Returns:
        A transport whose ``value`` is the objective, ``potentials`` the f, g above, ``epsilon`` the weight that the
        last step used (zero for conditional), ``converged`` whether steps have become small, by ``tol`` or 1e-3.

    Raises:
        ValueError: For options out of range, and for costs, relations, masses or starts with wrong shapes, dtypes,
            devices or (on the CPU, where looking is free) values.

    >>> path = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    >>> order = torch.tensor([1, 0, 2])
    >>> ends = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> transport = fused_gromov(ends, path, path[order][:, order], alpha=0.5)
    >>> 3 * transport.plan.detach()
    tensor([[0., 1., 0.],
            [1., 0., 0.],
            [0., 0., 1.]])

    Source: Peyré, Cuturi, Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices", ICML 2016; Vayer,
    Chapel, Flamary, Tavenard, Courty, "Optimal transport for structured data with application on graphs", ICML 2019,
    arXiv:1805.09114; proximal steps: Xu, Luo, Zha, Carin, "Gromov-Wasserstein learning for graph matching and node
    embedding", ICML 2019, arXiv:1901.06003; one mass kept: Vincent-Cuaz, Flamary, Corneli, Vayer, Courty,
    "Semi-relaxed Gromov-Wasserstein divergence", ICLR 2022, arXiv:2110.02753.
    """
    options = Options(alpha, loss, solver, num_iters, num_inner, epsilon, semi_relaxed, tol)
    options.check()
    problem, structure = prepare_fused(
        cost, student_relation, teacher_relation, a, b, alpha=alpha, loss=loss, semi_relaxed=semi_relaxed
    )
    first = start_plan(start, problem, semi_relaxed)
    with torch.no_grad(), no_autocast(problem.cost.device):
        cost, a, b = (x.detach() for x in problem[:3])
        objective = Objective.of(cost, structure.detached(), alpha, a, b, semi_relaxed)
        relations = {"student_relation": parts(structure.student)[0], "teacher_relation": parts(structure.teacher)[0]}
        checks.in_range(objective.constant, cost=cost, **relations)
        found = _solve(objective, first, options)
        plan, potentials = found.plan, (found.f, found.g)
        value = objective.value(plan, found.slope)
        error = marginal_error(plan, a, plan.sum(-2) if semi_relaxed else b)
    if tol is not None and checks.can_look(plan) and not bool(found.converged.all()):
        checks.log_once("fused Gromov-Wasserstein's steps ended before the tolerance was met: see Transport.converged")
    slopes = centred(found.f), None if semi_relaxed else centred(found.g)
    leaves = problem.cost, problem.a, problem.b, *parts(structure.student), *parts(structure.teacher)
    value = FusedEnvelope.apply(alpha, structure.loss, value, plan, slopes, *leaves)
    if not torch.compiler.is_compiling():
        plan = NoGradient.apply("use its value", plan, *(x for x in leaves if x is not None))
    return Transport(
        plan=plan,
        value=value,
        potentials=potentials,
        marginal_error=error,
        converged=found.converged,
        num_iters=found.num_iters,
        epsilon=found.epsilon,
        status=problem.status,
    )


class Options(NamedTuple):
    """The options of :func:`fused_gromov`."""

    alpha: Real = 0.5
    loss: LossName = "square"
    solver: Solver = "auto"
    num_iters: int | None = None
    num_inner: int = 5
    epsilon: Real | Relative = Relative(0.3)
    semi_relaxed: bool = False
    tol: Real | None = None

    def check(self) -> None:
        """Raise a ValueError for options that could not be run with; needs no data."""
        checks.share("alpha", self.alpha)
        checks.one_of("loss", self.loss, tuple(LOSSES))
        checks.one_of("solver", self.solver, ("auto", "mirror", "conditional"))
        if self.num_iters is not None:
            checks.at_least("num_iters", self.num_iters, 1)
        checks.at_least("num_inner", self.num_inner, 1)
        if not isinstance(self.epsilon, Relative):
            checks.positive("epsilon", self.epsilon)
        if self.tol is not None:
            checks.positive("tol", self.tol)


def _solve(objective: Objective, start: Tensor | None, options: Options) -> Found:
    conditional = options.solver == "conditional" or (options.solver == "auto" and _suits_conditional(objective))
    if conditional:
        return conditional_gradient(objective, start, options.num_iters or 50)
    return Mirror(objective, options.epsilon, options.num_inner).run(start, options.num_iters or 12, options.tol)


def _suits_conditional(objective: Objective) -> bool:
    """Whether conditional is the faster one: on the CPU, and not where its steps would zigzag between sparse graphs."""
    if not checks.can_look(objective.linear):
        return False
    # One problem after the other: a batch of them is slow from fewer nodes on.
    if objective.alpha == 0 or (objective.a.dim() == 1 and min(objective.linear.shape) < ZIGZAG_NODES):
        return True
    relations = objective.structure.student, objective.structure.teacher
    return not any(isinstance(x, Tensor) and int(x.count_nonzero()) < ZIGZAG_SHARE * x.numel() for x in relations)
