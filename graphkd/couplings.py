"""Couplings: who is matched with whom. Frozen values, called with a cost, relations and masses.

Student first: rows of a plan are student nodes.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from graphkd import checks
from graphkd.closed_form import Affinity as Affinity
from graphkd.closed_form import Identity as Identity
from graphkd.closed_form import Product as Product
from graphkd.closed_form import RowSoftmax as RowSoftmax
from graphkd.closed_form import needed
from graphkd.ot.domains import DomainName
from graphkd.ot.exact import exact
from graphkd.ot.gromov import LossName, Solver, fused_gromov
from graphkd.ot.gromov import Options as GromovOptions
from graphkd.ot.ipot import ipot
from graphkd.ot.problem import Norm, Relative
from graphkd.ot.shared import shared_sinkhorn
from graphkd.ot.sinkhorn import Gradient, Options, Order, sinkhorn
from graphkd.typing import Real, Relations, Transport


@dataclass(frozen=True)
class Sinkhorn:
    """Entropic transport with both masses kept; the arguments are those of :func:`graphkd.ot.sinkhorn`.

    With ``gradient="envelope"`` the plan is a constant: right for :class:`~graphkd.reductions.TransportCost`, refused
    for reductions that read the plan. ``"implicit"`` differentiates the plan at convergence, ``"unroll"`` the sweeps
    that were run.

    Optimised couplings ignore the pairing of student and teacher samples: shuffling the teacher's batch permutes the
    plan and leaves a transport cost unchanged.

    >>> Sinkhorn(epsilon=0.1)(torch.zeros(2, 3), None, torch.ones(2) / 2, torch.ones(3) / 3).plan.shape
    torch.Size([2, 3])
    """

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

    def __post_init__(self) -> None:
        Options(**vars(self)).check()

    @property
    def differentiates_plan(self) -> bool:
        """Whether gradients flow through the plan."""
        return self.gradient != "envelope"

    def __call__(self, cost: Tensor | None, relations: Relations | None, a: Tensor, b: Tensor) -> Transport:
        """Couple by Sinkhorn's algorithm on the cost."""
        transport = sinkhorn(needed(cost, "Sinkhorn"), a, b, **vars(self))
        return transport if self.differentiates_plan else _held(transport)


@dataclass(frozen=True)
class SharedSinkhorn:
    r"""Entropic transport of many pairs of masses (n c) under one cost (c c), as between class probabilities.

    For :class:`~graphkd.reductions.TransportCost`: :math:`\langle P, M\rangle` of each pair, differentiated through the
    sweeps that were run; neither costs nor plans of single pairs are formed, and the plan is the mean of all. The
    pairing of samples is used: each has a problem of its own.

    Args:
        epsilon: As for :func:`graphkd.ot.shared_sinkhorn`, as are all but the last.
        num_iters: Sweeps, at most.
        tol: Marginal error to stop at.
        order: Which masses are updated first; the others are exact at the end.
        domain: ``auto``, ``scaling`` or ``log``.
        stabilizer: Added to both denominators, for parity with released code.
        start: ``potentials`` of zero, or row ``scalings`` of one over the number of nodes with mass, for parity with
            released code: the sweeps that follow differ until they have converged.

    >>> masses = torch.tensor([[0.2, 0.8], [0.5, 0.5]])
    >>> transport = SharedSinkhorn(epsilon=0.05)(1 - torch.eye(2), None, masses, masses.flip(0))
    >>> transport.linear.round(decimals=2)
    tensor([0.3000, 0.3000])
    """

    epsilon: Real | Relative
    num_iters: int = 50
    tol: Real | None = None
    order: Order = "rows_first"
    domain: DomainName = "auto"
    stabilizer: Real = 0.0
    start: Literal["potentials", "scalings"] = "potentials"

    # What has a gradient is the cost of each plan; the mean of the plans is a constant.
    differentiates_plan = False

    def __post_init__(self) -> None:
        checks.one_of("start", self.start, ("potentials", "scalings"))
        if self.start == "scalings" and isinstance(self.epsilon, Relative):
            raise ValueError(f"start='scalings' needs epsilon in units of the cost, got {self.epsilon}")
        if self.start == "scalings" and self.order != "columns_first":
            raise ValueError(
                "start='scalings' sets the rows' scalings, which the first half-sweep would overwrite: needs "
                f"order='columns_first', got {self.order!r}"
            )
        Options(**self._options()).check()

    def __call__(self, cost: Tensor | None, relations: Relations | None, a: Tensor, b: Tensor) -> Transport:
        """Couple each line of a with that of b."""
        warm_start = None
        if self.start == "scalings":
            assert not isinstance(self.epsilon, Relative)
            present = a > 0
            weight = torch.where(present, present.sum(-1, keepdim=True) * a, 1.0)
            warm_start = -self.epsilon * weight.log(), torch.zeros_like(b)
        cost = needed(cost, "SharedSinkhorn")
        transport = shared_sinkhorn(cost, a, b, warm_start=warm_start, **self._options())
        error = transport.marginal_error
        if self.tol is None and checks.can_look(error) and float(error.max()) > 0.1:
            checks.log_once(
                f"after {self.num_iters} sweeps a marginal is off by more than 10 % of the mass: give more, or a tol"
            )
        return transport

    def _options(self) -> dict[str, Any]:
        options = {name: value for name, value in vars(self).items() if name != "start"}
        return {**options, "gradient": "unroll"}


@dataclass(frozen=True)
class IPOT:
    """Transport without regularisation, by proximal steps; the arguments are those of :func:`graphkd.ot.ipot`.

    The plan is a constant: right for :class:`~graphkd.reductions.TransportCost`, refused for reductions that read the
    plan. The pairing of student and teacher samples is ignored.

    >>> IPOT()(torch.eye(2), None, torch.ones(2) / 2, torch.ones(2) / 2).plan.round(decimals=2)
    tensor([[0.0000, 0.5000],
            [0.5000, 0.0000]])
    """

    beta: Real = 0.5
    num_iters: int = 50
    num_inner: int = 1
    order: Order = "rows_first"

    differentiates_plan = False

    def __post_init__(self) -> None:
        checks.positive("beta", self.beta)
        checks.at_least("num_iters", self.num_iters, 1)
        checks.at_least("num_inner", self.num_inner, 1)
        checks.one_of("order", self.order, ("rows_first", "columns_first"))

    def __call__(self, cost: Tensor | None, relations: Relations | None, a: Tensor, b: Tensor) -> Transport:
        """Couple by proximal steps on the cost."""
        return _held(ipot(needed(cost, "IPOT"), a, b, **vars(self)))


@dataclass(frozen=True)
class Exact:
    """Transport without regularisation, by the network simplex; the arguments are those of :func:`graphkd.ot.exact`.

    The plan is a constant: right for :class:`~graphkd.reductions.TransportCost`, refused for reductions that read the
    plan. The pairing of student and teacher samples is ignored. Runs on the CPU, so that an accelerator waits.

    >>> Exact()(torch.eye(2), None, torch.ones(2) / 2, torch.ones(2) / 2).plan
    tensor([[0.0000, 0.5000],
            [0.5000, 0.0000]])
    """

    max_iters: int = 1_000_000

    differentiates_plan = False

    def __post_init__(self) -> None:
        checks.at_least("max_iters", self.max_iters, 1)

    def __call__(self, cost: Tensor | None, relations: Relations | None, a: Tensor, b: Tensor) -> Transport:
        """Couple at least cost."""
        return _held(exact(needed(cost, "exact"), a, b, **vars(self)))


@dataclass(frozen=True)
class FusedGromov:
    r"""Transport that keeps costs small and relations alike; arguments are those of :func:`graphkd.ot.fused_gromov`.

    With ``TransportCost(alpha)`` of the same alpha as reduction, the loss is the fused Gromov-Wasserstein distance with
    its gradient: the plan is a constant, and reductions that read it are refused. The pairing of student and teacher
    samples is ignored, except that ``start="identity"`` begins at it.

    With ``loss="kl"`` the student's relation is the first, :math:`s \log(s / t) - s + t`; with ``teacher_first`` the
    teacher's, :math:`t \log(t / s) - t + s`, which is the discrepancy :data:`~graphkd.discrepancies.kl`.

    >>> path = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    >>> masses = torch.ones(3) / 3
    >>> FusedGromov(alpha=1, start="identity")(None, Relations(path, path), masses, masses).plan
    tensor([[0.3333, 0.0000, 0.0000],
            [0.0000, 0.3333, 0.0000],
            [0.0000, 0.0000, 0.3333]])
    """

    alpha: Real = 0.5
    loss: LossName = "square"
    solver: Solver = "auto"
    num_iters: int | None = None
    num_inner: int = 5
    epsilon: Real | Relative = Relative(0.3)
    semi_relaxed: bool = False
    start: Literal["product", "identity"] = "product"
    tol: Real | None = None
    teacher_first: bool = False

    differentiates_plan = False

    def __post_init__(self) -> None:
        options = self._options()
        checks.one_of("start", options.pop("start"), ("product", "identity"))
        GromovOptions(**options).check()
        if self.teacher_first and self.semi_relaxed:
            raise ValueError("semi_relaxed keeps the student's masses, and needs teacher_first=False, got True")

    def __call__(self, cost: Tensor | None, relations: Relations | None, a: Tensor, b: Tensor) -> Transport:
        """Couple by fused Gromov-Wasserstein transport."""
        student, teacher = (None, None) if relations is None else relations
        if not self.teacher_first:
            return _held(fused_gromov(cost, student, teacher, a, b, **self._options()))
        turned = fused_gromov(None if cost is None else cost.mT, teacher, student, b, a, **self._options())
        assert turned.potentials is not None
        return _held(turned._replace(plan=turned.plan.mT, potentials=turned.potentials[::-1]))

    def _options(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "teacher_first"}


def _held(transport: Transport) -> Transport:
    """The same with the plan as a constant."""
    return transport._replace(plan=transport.plan.detach())
