"""Variants of one method: what each of its parts is worth, by the protocol of the benchmark."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor
from torch_geometric.data import Data

from graphkd import losses
from graphkd.benchmark.accuracy.entries import ENTRIES, METHOD, Entry, Given
from graphkd.couplings import FusedGromov, Sinkhorn
from graphkd.features import vectors
from graphkd.loss import Criterion, GraphLoss
from graphkd.losses.otgd import batch_graph
from graphkd.measures import cosine, cosine_distance, euclidean, zscored_cosine
from graphkd.reductions import PlanGap, PlanNLL, TransportCost
from graphkd.relations import Pairwise, SelfPlan, by_mean
from graphkd.typing import Features, Relation

Change = Callable[[Criterion], Criterion]


def _variant(title: str, kind: str, recipe: Callable[..., Criterion], change: Change | None, **options: Any) -> Entry:
    def criteria(given: Given) -> dict[str, Criterion]:
        criterion = recipe(**options)
        return {METHOD: criterion if change is None else change(criterion)}

    return Entry(title, kind, criteria)


def _with_parts(criterion: Criterion, **parts: Any) -> Criterion:
    """The same graphs, compared by other parts in all terms."""

    def changed(loss: GraphLoss) -> GraphLoss:
        names = ("cost", "relation", "coupling", "reduction")
        return GraphLoss(**{name: getattr(loss, name) for name in names} | parts)

    terms = {name: replace(term, loss=changed(term.loss)) for name, term in criterion.terms.items()}
    return Criterion(criterion.student, criterion.teacher, terms)


def _otgd(title: str, change: Change | None = None, **options: Any) -> Entry:
    return _variant(title, "transport", losses.otgd, change, **options)


def _fgw(title: str, change: Change | None = None, **options: Any) -> Entry:
    return _variant(title, "ours", losses.fgw, change, **options)


def _plain_cosine(criterion: Criterion, epsilon: float) -> Criterion:
    coupling = Sinkhorn(epsilon, 3, tol_norm="max", order="columns_first", gradient="unroll")
    return _with_parts(criterion, cost=cosine_distance, coupling=coupling)


def _relation(criterion: Criterion, relation: Relation) -> Criterion:
    """Another structure, which need not be positive."""
    coupling = FusedGromov(0.5, start="identity", teacher_first=True)
    return _with_parts(criterion, relation=relation, coupling=coupling, reduction=TransportCost(0.5))


def _zscored_plans(criterion: Criterion) -> Criterion:
    """The measure of OTGD's plans in each network's own."""
    relation = SelfPlan(Pairwise(zscored_cosine, on="feat"), Sinkhorn(0.5, 10, gradient="unroll"))
    return _with_parts(criterion, relation=relation)


def _class_aware(criterion: Criterion) -> Criterion:
    criterion.teacher.build = partial(_with_classes, k=8)  # pyright: ignore[reportArgumentType]
    return _with_parts(criterion, reduction=PlanGap(target=same_class))


def _with_classes(features: Features, k: int) -> Data:
    graph = batch_graph(features, k)
    graph.classes = vectors(features, "logits").argmax(-1)
    return graph


def same_class(graph: Data) -> Tensor:
    """A plan that shares each row's mass among all samples of which the teacher says the same class.

    >>> import torch
    >>> same_class(Data(x=torch.zeros(3, 1), classes=torch.tensor([4, 2, 4])))
    tensor([[0.1667, 0.0000, 0.1667],
            [0.0000, 0.3333, 0.0000],
            [0.1667, 0.0000, 0.1667]])
    """
    same = (graph.classes[:, None] == graph.classes).float()
    return same / same.sum(1, keepdim=True) / len(same)


DISTANCES = Pairwise(euclidean, by_mean, on="feat")
"""Between features, in units of their mean."""

ABLATIONS: dict[str, dict[str, Entry]] = {
    "otgd": {
        "otgd": ENTRIES["otgd"],
        "otgd:f": _otgd("before the GNN alone", weights=(1, 0, 0, 0)),
        "otgd:g": _otgd("after the GNN alone", weights=(0, 1, 0, 0)),
        "otgd:f,g": _otgd("before and after", weights=(1, 1, 0, 0)),
        "otgd:gf,fg": _otgd("across alone", weights=(0, 0, 1, 1)),
        "otgd:code": _otgd("across as in the code", cross="code"),
        "otgd:1": _otgd("1 iteration", num_iters=1),
        "otgd:10": _otgd("10 iterations", num_iters=10),
        "otgd:50": _otgd("50 iterations", num_iters=50),
        "otgd:epsilon=.3": _otgd("epsilon .3", epsilon=0.3),
        "otgd:epsilon=.1": _otgd("epsilon .1", epsilon=0.1),
        "otgd:gcn": _otgd("GCN", conv="gcn"),
        "otgd:sage": _otgd("SAGE", conv="sage"),
        "otgd:gat": _otgd("GAT", conv="gat"),
        "otgd:2 layers": _otgd("two layers", num_layers=2),
        "otgd:3 layers": _otgd("three layers", num_layers=3),
        "otgd:k=4": _otgd("4 neighbours", k=4),
        "otgd:k=16": _otgd("16 neighbours", k=16),
        "otgd:plain 1": _otgd("no z-score, epsilon 1", partial(_plain_cosine, epsilon=1.0)),
        "otgd:plain .1": _otgd("no z-score, epsilon .1", partial(_plain_cosine, epsilon=0.1)),
        "otgd:nll": _otgd("log-likelihood", partial(_with_parts, reduction=PlanNLL())),
        "otgd:classes": _otgd("classes as the target", _class_aware),
    },
    "fgw": {
        "fgw": ENTRIES["fgw"],
        "fgw:alpha=0": _fgw("nodes alone", alpha=0.0),
        "fgw:alpha=.25": _fgw("alpha .25", alpha=0.25),
        "fgw:alpha=.75": _fgw("alpha .75", alpha=0.75),
        "fgw:alpha=1": _fgw("structure alone", alpha=1.0),
        "fgw:free": _fgw("no anchor, from the product", anchor=0),
        "fgw:identity": _fgw("the identity as the plan", anchor=None),
        "fgw:anchor=.5": _fgw("anchor .5", anchor=0.5),
        "fgw:anchor=8": _fgw("anchor 8", anchor=8.0),
        "fgw:epsilon=.1": _fgw("epsilon .1", epsilon=0.1),
        "fgw:epsilon=.5": _fgw("epsilon .5", epsilon=0.5),
        "fgw:epsilon=1": _fgw("epsilon 1", epsilon=1.0),
        "fgw:z-scored plans": _fgw("plans of z-scores as structure", _zscored_plans),
        "fgw:cosine": _fgw("cosines as structure", partial(_relation, relation=Pairwise(cosine, on="feat"))),
        "fgw:z-score": _fgw("z-scores as structure", partial(_relation, relation=Pairwise(zscored_cosine, on="feat"))),
        "fgw:distance": _fgw("distances as structure", partial(_relation, relation=DISTANCES)),
        "fgw:1 layer": _fgw("one layer", num_layers=1),
        "fgw:2 layers": _fgw("two layers", num_layers=2),
    },
}
"""Variants of methods; the first of each is the method itself, which the others are compared with."""

VARIANTS = {name: entry for group in ABLATIONS.values() for name, entry in group.items()}

EVERY = ENTRIES | VARIANTS
"""All lines that there can be, by name."""
