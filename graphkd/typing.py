"""The words that every room shares: named features, a transport, a comparison, a criterion's output."""

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch_geometric.data import Data

from graphkd import display

Real = int | float
"""A number. Written out because checkers at run time take ``float`` literally and refuse 1."""

UNLABELLED = -100
"""The label of a sample whose class the student is not told."""

Features = Mapping[str, Tensor]
"""A network's activations on one batch: ``feat`` (n d), ``map`` (n c h w), ``logits`` (n c), ``tokens`` (n t d)."""


BAD_COST, BAD_MASS, UNEQUAL_MASS, BAD_PAIRS = 1, 2, 4, 8
"""The bits of a transport's status."""


class Transport(NamedTuple):
    r"""A coupling of two sets of nodes, and how well it was solved.

    Attributes:
        plan: P (\*b n m), mass moved from student node i to teacher node j; a sparse tensor from solvers on a sparse
            support, the mean over all problems (n m) from solvers that never form each one's.
        value: What the solver minimised (\*b): for entropic solvers :math:`\langle P, M\rangle + \epsilon\,
            \mathrm{KL}(P \,\|\, a b^\top)`, for a fixed coupling :math:`\langle P, M\rangle`, or None where there is no
            cost.
        potentials: (f, g) of shapes (\*b n), (\*b m) with :math:`P_{ij} = a_i b_j \exp((f_i + g_j - M_ij) / \epsilon)`,
            or None where the coupling has none.
        marginal_error: (\*b), :math:`\|P 1 - a\|_1 + \|P^\top 1 - b\|_1`, as a share of the total mass.
        converged: (\*b), whether the marginal error is within the tolerance.
        num_iters: (\*b), sweeps that were run.
        epsilon: The entropic weight that was used, in units of the cost (\*b 1 1); zero for unregularised couplings.
        paired: Whether the plan is the identity coupling by construction.
        status: (\*b), zero for good input. On an accelerator, where a solver does not wait to look at what it was
            given: 1 for costs that are not finite, 2 for masses that are not, are negative or sum to zero, 4 for
            unequal sums, 8 for pairs that are out of range or given twice, or the sum of these. None where the solver
            does not judge.
        linear: :math:`\langle P, M\rangle` (\*b) from solvers that never form each P; elsewhere None.
        carried: (\*b), the share of the mass that a sparse support can carry; None where any pair may be matched.
    """

    plan: Float[Tensor, "... n m"]
    value: Float[Tensor, "*b"] | None
    potentials: tuple[Float[Tensor, "*b n"], Float[Tensor, "*b m"]] | None
    marginal_error: Float[Tensor, "*b"]
    converged: Bool[Tensor, "*b"]
    num_iters: Int[Tensor, "*b"]
    epsilon: Float[Tensor, "..."]
    paired: bool = False
    status: Int[Tensor, "*b"] | None = None
    linear: Float[Tensor, "*b"] | None = None
    carried: Float[Tensor, "*b"] | None = None

    def check(self) -> "Transport":
        """Raise a ValueError for bad input or a result that is not finite; waits for an accelerator.

        On the CPU bad input has already raised. Returns the transport itself.
        """
        words = {
            BAD_COST: "costs need finite values, got NaN or infinite ones",
            BAD_MASS: "masses need finite values of at least 0 with a sum above 0, got others",
            UNEQUAL_MASS: "masses need equal sums, got others",
            BAD_PAIRS: "pairs need nodes in range and to be given once, got others",
        }
        if self.status is not None:
            for bit, message in words.items():
                bad = (self.status & bit).ne(0).flatten().nonzero().flatten().tolist()
                if bad:
                    raise ValueError(f"{message}, in problems {bad} of {self.status.numel()}")
        if not bool(self.marginal_error.isfinite().all()):
            raise ValueError(f"needs a finite plan, got marginal errors {self.marginal_error.tolist()}")
        return self


class Relations(NamedTuple):
    """How the nodes of each graph relate among themselves."""

    student: Float[Tensor, "*b n n"]
    teacher: Float[Tensor, "*b m m"]


class Comparison(NamedTuple):
    """Everything that one loss saw when it compared a student's graph with a teacher's.

    Attributes:
        value: The scalar that is minimised.
        plan: P (n m), rows are student nodes.
        cost: M (n m), or None for losses that compare relations only.
        relations: The two relation matrices, or None for losses that compare nodes only.
        marginal_error: How far the plan is from its marginals, see :class:`Transport`.
        converged: Whether that is within the coupling's tolerance.
        graphs: The student's and the teacher's graph, as they were compared.
    """

    value: Float[Tensor, ""]
    plan: Float[Tensor, "*b n m"]
    cost: Float[Tensor, "*b n m"] | None
    relations: Relations | None
    marginal_error: Float[Tensor, "*b"]
    converged: Bool[Tensor, "*b"]
    graphs: tuple[Data, Data]

    def __repr__(self) -> str:
        return "\n".join(["Comparison(", *(f"  {line}" for line in display.aligned(_facts(self))), ")"])

    def _repr_html_(self) -> str:
        plan, what = self.plan.detach(), "the plan"
        if plan.dim() > 2:
            plan, what = plan.to_dense().flatten(0, -3).mean(0), f"the mean of {plan.shape[:-2].numel()} plans"
        n, m = plan.shape
        text = f"{what}, {n} student rows by {m} teacher columns"
        shrunk = "" if max(n, m) <= display.LARGEST_PICTURE else ", means of blocks"
        note = f"Picture: {what}{shrunk}; rows are student nodes, darker is more mass."
        return display.figure("Comparison", display.table(_facts(self)), display.picture(plan, text), note=note)


def _facts(seen: Comparison) -> list[tuple[str, str]]:
    """What there is to know of a comparison at a glance; waits for an accelerator."""
    student, teacher = seen.graphs
    relations = "none" if seen.relations is None else " and ".join(_shape(each) for each in seen.relations)
    error = float(seen.marginal_error.detach().max())
    return [
        ("value", f"{float(seen.value.detach()):.6g}"),
        ("plan", f"{_shape(seen.plan)}{_on_diagonal(seen.plan.detach())}"),
        ("cost", "none" if seen.cost is None else _shape(seen.cost)),
        ("relations", relations),
        ("marginals", f"off by {error:.2g} of the mass, {_how_many(seen.converged)}"),
        ("student", _graph(student)),
        ("teacher", _graph(teacher)),
    ]


def _shape(x: Tensor) -> str:
    """The shape of a matrix, or how many there are and their shape."""
    *batch, n, m = x.shape
    return f"{n} x {m}" if not batch else f"{math.prod(batch)} of {n} x {m}"


def _on_diagonal(plan: Tensor) -> str:
    """Which share of the mass joins node i with node i, where both sides have as many nodes."""
    n, m = plan.shape[-2:]
    if n != m:
        return ""
    if plan.layout == torch.strided:
        paired, total = plan.diagonal(dim1=-2, dim2=-1).sum(), plan.sum()
    else:
        entries = plan.coalesce()
        rows, columns = entries.indices()[-2:]
        paired, total = entries.values()[rows == columns].sum(), entries.values().sum()
    if float(total) == 0:
        return ", no mass"
    return f", {100 * float(paired / total):.1f} % of the mass on the diagonal"


def _how_many(converged: Tensor) -> str:
    count, total = int(converged.sum()), converged.numel()
    if total > 1:
        return f"{count} of {total} problems converged"
    return "converged" if count else "not converged"


def _graph(graph: Data) -> str:
    edges = f"{graph.num_edges or 'no'} edges"
    if graph.x is None:
        return f"{graph.num_nodes} nodes, {edges}"
    *batch, n, width = graph.x.shape
    return f"{f'{math.prod(batch)} of ' if batch else ''}{n} nodes, width {width}, {edges}"


class CriterionOutput(NamedTuple):
    """What a criterion returns.

    Attributes:
        value: The weighted sum of the terms, to be minimised.
        terms: Each term's unweighted scalar by name.
        comparisons: Each term's :class:`Comparison` by name.
    """

    value: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]
    comparisons: dict[str, Comparison]


@runtime_checkable
class Schedule(Protocol):
    """A weight that changes from epoch to epoch; see :mod:`graphkd.training.schedules`, or write a function."""

    def __call__(self, epoch: int, epochs: int, /) -> float:
        """The weight in an epoch, counted from 1, of a total number of epochs."""
        ...


@runtime_checkable
class Measure(Protocol):
    """A pairwise measure: how far (or how alike) row i of x and row j of y are."""

    def __call__(self, x: Tensor, y: Tensor, /) -> Tensor:
        """Map (*b n d), (*b m d) to (*b n m)."""
        ...


@runtime_checkable
class Relation(Protocol):
    """How the nodes of one graph relate: a graph to its (n n) matrix."""

    def __call__(self, graph: Data, /) -> Tensor:
        """Map a graph of n nodes to (n n)."""
        ...


@runtime_checkable
class Discrepancy(Protocol):
    """An elementwise comparison of a student's relation with a teacher's."""

    def __call__(self, student: Tensor, teacher: Tensor, /) -> Tensor:
        """Map two tensors of one shape to a third of that shape."""
        ...


@runtime_checkable
class Coupling(Protocol):
    """Who is matched with whom.

    ``differentiates_plan`` says whether gradients flow through the plan itself; reductions that read the plan need it.
    """

    @property
    def differentiates_plan(self) -> bool:
        """Whether the plan carries a gradient."""
        ...

    def __call__(self, cost: Tensor | None, relations: Relations | None, a: Tensor, b: Tensor, /) -> Transport:
        """Couple student masses a (n) with teacher masses b (m)."""
        ...


@runtime_checkable
class Reduction(Protocol):
    """Which number is minimised.

    ``reads_plan`` says whether its only gradient is the plan's.
    """

    @property
    def reads_plan(self) -> bool:
        """Whether the value depends on the student through the plan alone."""
        ...

    def __call__(
        self, transport: Transport, cost: Tensor | None, relations: Relations | None, graphs: tuple[Data, Data], /
    ) -> Tensor:
        """Reduce a transport to a scalar."""
        ...
