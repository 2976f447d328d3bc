"""The one loss of two graphs, and the criterion that brings two networks' features to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch_geometric.data import Data

from graphkd import checks, display
from graphkd.couplings import Identity
from graphkd.encoders import Encoder, Remembering, Several, shared
from graphkd.graphs import continued, masses, stacked
from graphkd.precision import no_autocast, raised
from graphkd.reductions import TransportCost
from graphkd.typing import (
    Comparison,
    Coupling,
    CriterionOutput,
    Features,
    Measure,
    Real,
    Reduction,
    Relation,
    Relations,
)

Network = Literal["student", "teacher"]
Networks = tuple[Network, ...]

LINE = 112
"""Width of a criterion's table, so that it fits into 120 columns also inside another module."""

Rows = list[tuple[str, ...]]


@final
class GraphLoss(nn.Module):
    """Compare a student's graph with a teacher's: cost and relation, then coupling, then reduction.

    Args:
        cost: How far a student node is from a teacher node, (n d), (m d) to (n m). None for losses of relations only.
        relation: How the nodes of one graph relate, a graph to (n n). None for losses of nodes only.
        coupling: Who is matched with whom.
        reduction: Which number is minimised.

    Raises:
        ValueError: At construction if the reduction reads the plan but the coupling gives it no gradient, or if there
            is neither a cost nor a relation. At the call for graphs that do not fit together.

    >>> from graphkd import measures
    >>> loss = GraphLoss(cost=measures.sqeuclidean)
    >>> loss(Data(x=torch.zeros(3, 2)), Data(x=torch.ones(3, 2)))
    tensor(2.)
    """

    def __init__(
        self,
        cost: Measure | None = None,
        relation: Relation | None = None,
        coupling: Coupling | None = None,
        reduction: Reduction | None = None,
    ) -> None:
        super().__init__()
        self.cost = cost
        self.relation = relation
        self.coupling = Identity() if coupling is None else coupling
        self.reduction = TransportCost() if reduction is None else reduction
        if cost is None and relation is None:
            raise ValueError("a graph loss needs a cost or a relation, got neither")
        if self.reduction.reads_plan and not self.coupling.differentiates_plan:
            raise ValueError(
                f"{type(self.reduction).__name__} needs a coupling that differentiates its plan, such as "
                f"Sinkhorn(gradient='unroll'): the plan's gradient is the only one it has; got {self.coupling}"
            )

    def forward(self, student: Data, teacher: Data) -> Float[Tensor, ""]:
        """The scalar to be minimised."""
        return self.compare(student, teacher).value

    def compare(self, student: Data, teacher: Data) -> Comparison:
        """The scalar with everything it came from."""
        x, y = checks.nodes("the student's nodes", student), checks.nodes("the teacher's nodes", teacher)
        checks.same_device(student=x, teacher=y)
        if self.cost is not None and x.shape[-1] != y.shape[-1]:
            raise ValueError(
                f"a cost needs student and teacher nodes of one width, got {x.shape[-1]} and {y.shape[-1]}: project "
                "them, or compare relations only"
            )
        if self.cost is not None and x.shape[:-2] != y.shape[:-2]:
            raise ValueError(
                "a cost needs as many problems on both sides, got nodes of shapes "
                f"{tuple(x.shape)} and {tuple(y.shape)}"
            )
        with no_autocast(x.device):
            cost = None if self.cost is None else self.cost(x, y)
            relations = None if self.relation is None else Relations(self.relation(student), self.relation(teacher))
            dtype = _dtype(cost, relations)
            transport = self.coupling(cost, relations, masses(student).to(dtype), masses(teacher).to(dtype))
            value = self.reduction(transport, cost, relations, (student, teacher))
        return Comparison(
            value, transport.plan, cost, relations, transport.marginal_error, transport.converged, (student, teacher)
        )

    def extra_repr(self) -> str:
        """The parts that are not modules."""
        named = {"cost": self.cost, "relation": self.relation, "coupling": self.coupling, "reduction": self.reduction}
        return ", ".join(
            f"{name}={display.described(part)}"
            for name, part in named.items()
            if part is not None and not isinstance(part, nn.Module)
        )


def _dtype(cost: Tensor | None, relations: Relations | None) -> torch.dtype:
    if cost is not None:
        return cost.dtype
    assert relations is not None
    return relations.student.dtype


TERM = ("term", "weight", "hops", "cost", "relation", "coupling", "reduction")


@dataclass(frozen=True)
class Term:
    """One loss inside a criterion: which graphs it compares, and its weight.

    Args:
        loss: The loss.
        weight: Its share in the criterion's value.
        student: Hop of the graph on the student's side; 0 is before message passing, i after the i-th convolution.
        teacher: Hop of the graph on the teacher's side.
        networks: Which network each side's graph comes from; a term may compare a network with itself.
        both_ways: Whether the networks are also exchanged, as a second problem of one batch: nodes (2 n d).
        own_negatives: Whether the nodes behind the partners on the teacher's side, its negatives, come from the same
            hop of the network of the student's side instead: positives of the other network, negatives of one's own.
    """

    loss: GraphLoss
    weight: Real = 1.0
    student: int = 0
    teacher: int = 0
    networks: tuple[Network, Network] = ("student", "teacher")
    both_ways: bool = False
    own_negatives: bool = False

    def __post_init__(self) -> None:
        if not -float("inf") < self.weight < float("inf"):
            raise ValueError(f"the weight of a term needs a finite number, got {self.weight!r}")
        for network in self.networks:
            checks.one_of("networks", network, ("student", "teacher"))

    def __repr__(self) -> str:
        shown = zip(TERM, self.row("", display.LONG), strict=True)
        return f"Term({', '.join(f'{name} {cell}' for name, cell in shown if cell)})"

    def row(self, name: str, width: int) -> tuple[str, ...]:
        """The term in a table: a cell for each of ``TERM``, its parts in at most so many characters."""
        one, other = self.networks
        parts = (self.loss.cost, self.loss.relation, self.loss.coupling, self.loss.reduction)
        return (
            name,
            display.described(self.weight),
            f"{one} {self.student} / {other} {self.teacher}{', both ways' if self.both_ways else ''}"
            f"{', own negatives' if self.own_negatives else ''}",
            *("" if part is None else display.described(part, width) for part in parts),
        )

    def sides(self, hops: Mapping[Network, Sequence[Data]]) -> tuple[Data, Data]:
        """The two graphs that are compared."""
        one, other = self.networks
        forth = self._problem(hops[one], hops[other])
        if not self.both_ways:
            return forth
        back = self._problem(hops[other], hops[one])
        return stacked(forth[0], back[0]), stacked(forth[1], back[1])

    def reached(self) -> tuple[Networks, Networks]:
        """The networks whose hop on the student's side is needed, and those of the teacher's side."""
        one, other = self.networks
        return (self.networks if self.both_ways else (one,)), (
            self.networks if self.both_ways or self.own_negatives else (other,)
        )

    def _problem(self, own: Sequence[Data], its: Sequence[Data]) -> tuple[Data, Data]:
        """The graphs that are compared one way."""
        student, teacher = own[self.student], its[self.teacher]
        if self.own_negatives:
            teacher = continued(teacher, own[self.teacher], checks.nodes("the student's nodes", student).shape[-2])
        return student, teacher


@final
class Criterion(nn.Module):
    """From the features of two networks to a value: an encoder each, and terms that compare hops of their graphs.

    Args:
        student: Encoder of the student's features; see :mod:`graphkd.encoders`.
        teacher: Encoder of the teacher's features.
        terms: The losses by name. The value is the sum of weight times term.

    Everything is computed in float32 at least, also under autocast, and what is learned stays in it when the criterion
    is moved to half precision.

    Raises:
        ValueError: At construction for a criterion without terms or a term whose hop does not exist. At the call for
            features of different batch sizes or devices, and for what its encoders and losses refuse.
        KeyError: At the call if a feature that an encoder needs is not there.
    """

    def __init__(self, student: Encoder, teacher: Encoder, terms: Mapping[str, Term]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("a criterion needs at least one term, got none")
        self.student = student
        self.teacher = teacher
        self.terms = dict(terms)
        self.losses = nn.ModuleDict({name: term.loss for name, term in terms.items()})
        for name, term in self.terms.items():
            for side, networks, hop in zip(
                ("student", "teacher"), term.reached(), (term.student, term.teacher), strict=True
            ):
                most = min(getattr(self, network).last_hop for network in networks)
                if not 0 <= hop <= most:
                    raise ValueError(f"term {name!r} needs a {side} hop in 0..{most}, got {hop}")

    def forward(
        self, student_features: Features, teacher_features: Features, labels: Tensor | None = None
    ) -> CriterionOutput:
        """Compare one batch as both networks see it; row i is the same sample on both sides."""
        _check_batch(student_features, teacher_features, labels)
        with no_autocast(_device(student_features)):
            hops: dict[Network, Sequence[Data]] = {
                "student": self.student(shared(student_features), labels),
                "teacher": self.teacher(shared(teacher_features), labels),
            }
            comparisons = {name: term.loss.compare(*term.sides(hops)) for name, term in self.terms.items()}
        terms = {name: comparison.value for name, comparison in comparisons.items()}
        value = torch.stack([term.weight * terms[name] for name, term in self.terms.items()]).sum()
        return CriterionOutput(value, terms, comparisons)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Criterion":
        """Move as any module does, but stay in float32 at least."""
        return super()._apply(lambda tensor: raised(fn(tensor)), recurse)

    def __repr__(self) -> str:
        lines = [line for rows in (self._encoders, self._terms) for line in display.fitted(rows, LINE)]
        inside = "".join(f"  {line}\n" for line in [*lines, self._learned()])
        return f"Criterion(\n{inside})"

    def _repr_html_(self) -> str:
        (encoders, *networks), (header, *terms) = self._encoders(display.LONG), self._terms(display.LONG)
        tables = display.table(networks, encoders) + display.table(terms, header)
        return display.figure("Criterion", tables, note=self._learned())

    def _encoders(self, width: int) -> Rows:
        header = ("encoder", "nodes", "embed", "convs", "rows", "memory")
        sides = (("student", self.student), ("teacher", self.teacher))
        return display.without_empty([header, *((name, *_encoder(side, width)) for name, side in sides)])

    def _terms(self, width: int) -> Rows:
        return display.without_empty([TERM, *(term.row(name, width) for name, term in self.terms.items())])

    def _learned(self) -> str:
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        sized = sum(parameter.numel() for parameter in learned if not is_lazy(parameter))
        lazy = sum(map(is_lazy, learned))
        later = f", not counting {lazy} tensors that wait for a first batch" if lazy else ""
        return f"learned parameters: {sized:,}{later}"


def _encoder(encoder: Encoder, width: int) -> tuple[str, ...]:
    """Its nodes, embed, convs, rows and memory, in words."""
    if isinstance(encoder, Several):
        builds = [f"hop {i} {display.described(build, width)}" for i, build in enumerate(encoder.builds)]
        return ", ".join(builds), "", "", "", ""
    if isinstance(encoder, Remembering):
        bank, *shown = encoder.bank, *_encoder(encoder.encoder, width)
        size, dim = bank.rows.shape
        return *shown[:-1], f"{size:,} x {dim}, {encoder.num_negatives:,} negatives"
    return (
        display.described(encoder.build, width),
        "" if encoder.embed is None else display.described(encoder.embed, width),
        ", ".join(display.described(conv, width) for conv in encoder.convs),
        "unit length" if encoder.normalize else "",
        "",
    )


def _device(features: Features) -> torch.device:
    return next(iter(features.values())).device


def _check_batch(student: Features, teacher: Features, labels: Tensor | None) -> None:
    for side, features in (("student", student), ("teacher", teacher)):
        if not features:
            raise ValueError(f"needs at least one {side} feature, got none")
    named = {f"student {name}": x for name, x in student.items()} | {
        f"teacher {name}": x for name, x in teacher.items()
    }
    if labels is not None:
        named["labels"] = labels
    checks.same_device(**named)
    sizes = {name: x.shape[0] if x.dim() else 0 for name, x in named.items()}
    if len(set(sizes.values())) > 1:
        came = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise ValueError(f"needs one batch size for all features and labels, got {came}")
    if 0 in sizes.values():
        raise ValueError("needs a batch of at least one sample, got an empty one")
