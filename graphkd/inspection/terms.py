"""What a page tells of one term: its plan at every step, its batch graphs, and its numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd import metrics
from graphkd.inspection import packing
from graphkd.inspection.sides import Side, paired, sides
from graphkd.typing import Comparison
from graphkd.viz import graph_layout

EDGES_PER_NODE = 8
"""Edges of a graph on the page, at most, for each node."""

WAYS = ("student to teacher", "teacher to student")

PAIR = "Share of the mass that joins a node with itself"
CLASS = "Share of the mass between nodes of known class that stays within the class"
ENTROPY = "Of the plan, in nats: the larger, the wider the mass is spread"
PARTNERS = "How many teacher nodes a student node is matched with, mean over the student's nodes"

Unit = Literal["number", "share", "claim"]
"""How a number is told: as it is, in percent, or as yes and no."""


class Term(NamedTuple):
    """One choice on the page: a comparison at every step, and which way if it compares both ways."""

    name: str
    comparisons: list[Comparison]
    way: int | None

    def plan(self, at: int) -> Tensor:
        """The plan at a step, dense."""
        return self.own(self.comparisons[at].plan.to_dense(), 3)

    def cost(self, at: int) -> Tensor | None:
        """The cost at a step, if it is one matrix of the plan's shape."""
        cost = self.comparisons[at].cost
        chosen = None if cost is None else self.own(cost.to_dense(), 3)
        return chosen if chosen is not None and chosen.shape == self.plan(at).shape else None

    def own(self, x: Tensor, dims: int = 1) -> Tensor:
        """What of a tensor is of this way, if it has an axis for both ways: so many dimensions at least."""
        return x if self.way is None or x.dim() < dims else x[self.way]


def choices(comparisons: Sequence[Mapping[str, Comparison]]) -> list[Term]:
    """Each term as a choice, or as two where it compares both ways.

    Raises:
        ValueError: For steps that differ in their terms or in the shapes of the plans.
    """
    found = []
    for name in comparisons[0]:
        if any(name not in each for each in comparisons) or any(
            len(each) != len(comparisons[0]) for each in comparisons
        ):
            came = " and ".join(sorted({", ".join(each) for each in comparisons}))
            raise ValueError(f"needs snapshots of the same terms, got {came}")
        seen = [each[name] for each in comparisons]
        shapes = {tuple(each.plan.shape) for each in seen}
        if len(shapes) > 1:
            raise ValueError(f"needs plans of {name!r} of one shape at all steps, got {sorted(shapes)}")
        (shape,) = shapes
        if len(shape) == 3 and shape[0] == 2:
            found += [Term(f"{name}, {way}", seen, i) for i, way in enumerate(WAYS)]
        else:
            found.append(Term(name, seen, None))
    return found


def term(choice: Term, labels: Tensor) -> dict[str, Any]:
    """Everything about one choice, as JSON takes it."""
    steps = range(len(choice.comparisons))
    *batch, n, m = choice.plan(0).shape
    said: dict[str, Any] = {"name": choice.name, "plan": None, "graphs": None}
    if batch or n * m == 1:
        what = (
            "this term compares nodes one by one"
            if n * m == 1
            else f"this term has {int(np.prod(batch))} plans of {n} by {m}, one for each of its problems"
        )
        return said | {
            "note": f"There is no plan to draw: {what}.",
            "measures": [_value(choice), *_solved(choice)],
        }
    one, other = sides(choice.comparisons[0].graphs, labels, n, m)
    problems = choice.comparisons[0].marginal_error.numel()
    networks = ("teacher", "student") if choice.way == 1 else ("student", "teacher")
    plans = [_masses(choice.plan(at)) for at in steps]
    shown = [plan[np.ix_(one.shown, other.shown)] for plan in plans]
    costs = [
        cost.double().numpy()[np.ix_(one.shown, other.shown)] for at in steps if (cost := choice.cost(at)) is not None
    ]
    return said | {
        "note": _note(choice, problems, [choice.plan(at) for at in steps]),
        "rows": _said(one, n, networks[0]),
        "columns": _said(other, m, networks[1]),
        "paired": paired(one, other),
        "plan": packing.masses(shown),
        "mass": [[float(f"{mass:.5g}") for mass in plan.sum(1)[one.shown]] for plan in plans],
        "cost": packing.costs(costs) if len(costs) == len(plans) else None,
        "graphs": _graphs(choice, one, other) if paired(one, other) and n == m and choice.way is None else None,
        "measures": [_value(choice), *_spread(choice, one, other), *_solved(choice)],
    }


def _note(choice: Term, problems: int, plans: Sequence[Tensor]) -> str:
    """What one has to know to read the plan."""
    if any(bool((plan < 0).any()) for plan in plans):
        return "These are similarities, not masses: no mass is kept, and what is below zero is white."
    return f"The plan is the mean of {problems} problems." if problems > 1 and choice.way is None else ""


def series(name: str, values: Sequence[float], unit: Unit, what: str) -> dict[str, Any]:
    """A number at every step; one that is not finite becomes None, which JSON has.

    >>> series("value", [1.0, float("nan")], "number", "Of the term")["values"]
    [1.0, None]
    """
    rounded = [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]
    return {"name": name, "values": rounded, "unit": unit, "what": what}


def _masses(plan: Tensor) -> np.ndarray:
    """A plan to draw: masses that are not finite, or negative, are none."""
    return np.nan_to_num(plan.double().numpy(), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)


def _said(side: Side, count: int, network: str) -> dict[str, Any]:
    return {
        "network": network,
        "kind": side.kind,
        "index": side.shown.tolist(),
        "classes": side.classes[side.shown].tolist(),
        "own": side.own,
        "count": count,
    }


def _value(choice: Term) -> dict[str, Any]:
    what = "What the term adds to the loss, before its weight" + (
        ", both ways together" if choice.way is not None else ""
    )
    return series("value", [float(each.value) for each in choice.comparisons], "number", what)


def _solved(choice: Term) -> list[dict[str, Any]]:
    """How well the plans were solved."""
    errors = [float(choice.own(each.marginal_error).max()) for each in choice.comparisons]
    converged = [choice.own(each.converged).float() for each in choice.comparisons]
    shares = [float(each.mean()) for each in converged]
    return [
        series("marginal error", errors, "number", "How far the plan is from its marginals, as a share of the mass"),
        series("converged", shares, "share", "Share of the problems in which that is within tolerance")
        if converged[0].numel() > 1
        else series("converged", shares, "claim", "Whether that is within tolerance"),
    ]


def _spread(choice: Term, one: Side, other: Side) -> list[dict[str, Any]]:
    """Where the mass of the plans is, and how widely it is spread."""
    plans = [choice.plan(at) for at in range(len(choice.comparisons))]
    # What is not a plan any more, because the run diverged, has no such numbers.
    good = [plan if _masses(plan).sum() > 0 and bool((plan.isfinite() & (plan >= 0)).all()) else None for plan in plans]

    def along(name: str, measured: Callable[[Tensor], Tensor], unit: Unit, what: str) -> dict[str, Any]:
        return series(name, [float("nan") if plan is None else float(measured(plan)) for plan in good], unit, what)

    found = []
    if paired(one, other):
        own = slice(None, one.own)
        found.append(
            along("mass on the true pair", lambda plan: plan[own, own].diagonal().sum() / plan.sum(), "share", PAIR)
        )
    labels, teacher = torch.from_numpy(one.classes), torch.from_numpy(other.classes)
    if one.kind == other.kind == "sample" and bool((labels >= 0).any()):
        found.append(
            along("mass within the class", lambda plan: metrics.class_purity(plan, labels, teacher), "share", CLASS)
        )
    return [
        *found,
        along("entropy", metrics.plan_entropy, "number", ENTROPY),
        along("effective partners", lambda plan: metrics.effective_partners(plan).mean(), "number", PARTNERS),
    ]


def _graphs(choice: Term, one: Side, other: Side) -> dict[str, Any] | None:
    """Edges of both graphs at every step and places of the nodes, or None where there are no edges."""
    pairs = [
        [_pairs(graph, side.shown) for graph, side in zip(each.graphs, (one, other), strict=True)]
        for each in choice.comparisons
    ]
    if not any(len(part) for both in pairs for part in both):
        return None
    n = len(other.shown)
    return {
        "places": _places(pairs[-1][1], n),
        "student": packing.once([both[0].astype(np.uint16) for both in pairs]),
        "teacher": packing.once([both[1].astype(np.uint16) for both in pairs]),
        "fewer": max(len(part) for both in pairs for part in both) == EDGES_PER_NODE * n,
    }


def _pairs(graph: Data, shown: np.ndarray) -> np.ndarray:
    """Pairs of shown nodes that an edge joins, i n + j with i < j in the order shown; the heaviest of many."""
    n, count = len(shown), int(shown.max()) + 1
    if graph.edge_index is None or graph.edge_index.numel() == 0:
        return np.empty(0, dtype=np.int64)
    ends, weight = graph.edge_index.numpy(), graph.get("edge_weight")
    place = np.full(max(count, int(ends.max()) + 1), -1)
    place[shown] = np.arange(n)
    low, high = np.sort(place[ends], axis=0)
    kept = (low >= 0) & (low < high)
    strength = np.zeros(ends.shape[1]) if weight is None else weight.double().flatten().numpy()
    order = np.argsort(-strength[kept], kind="stable")
    codes = (low * n + high)[kept][order]
    _, first = np.unique(codes, return_index=True)
    return np.sort(codes[np.sort(first)[: EDGES_PER_NODE * n]])


def _places(pairs: np.ndarray, n: int) -> list[list[float]]:
    """Where the nodes stand, in a square of side one."""
    joined = Data(x=torch.zeros(n, 1), edge_index=torch.from_numpy(np.stack([pairs // n, pairs % n])))
    at = graph_layout(joined)
    places = np.stack([at[i] for i in range(n)])
    low, high = places.min(0), places.max(0)
    spread = np.where(high > low, high - low, 1.0)
    return np.round((places - low) / spread, 4).tolist()
