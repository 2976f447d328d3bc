"""The loss of two graphs, and the criterion that brings features to it."""

import copy
import html
from functools import partial

import pytest
import torch
from jaxtyping import TypeCheckError
from test_contract import RECIPES, build
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GraphConv

from graphkd import Criterion, GraphEncoder, GraphLoss, Term, losses
from graphkd.couplings import Identity, RowSoftmax, Sinkhorn
from graphkd.encoders import Several
from graphkd.features import vectors
from graphkd.graphs import knn_graph, point_cloud
from graphkd.measures import cosine, cosine_distance, sqeuclidean
from graphkd.reductions import PlanGap, PlanNLL, TransportCost
from graphkd.relations import Pairwise

PLAN_READERS = [PlanGap(), PlanNLL()]
REFUSED = (ValueError, TypeCheckError)  # With shape checks on, a word outside a Literal does not get as far as ours.


def rows(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def cloud(features):
    return point_cloud(vectors(features, "feat"))


def joined(features):
    return knn_graph(vectors(features, "feat"), k=3)


def paired(build=cloud, **kwargs):
    """A criterion of one plain term on ``feat``."""
    loss = GraphLoss(cost=sqeuclidean)
    return Criterion(
        GraphEncoder(build, normalize=False), GraphEncoder(build, normalize=False), {"it": Term(loss, **kwargs)}
    )


# GraphLoss


def test_a_loss_with_neither_cost_nor_relation_is_refused():
    with pytest.raises(ValueError, match="needs a cost or a relation, got neither"):
        GraphLoss(reduction=TransportCost())


@pytest.mark.parametrize("reduction", PLAN_READERS, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("coupling", [Identity(), Sinkhorn(0.1), None], ids=["Identity", "envelope", "omitted"])
def test_a_reduction_of_the_plan_needs_a_coupling_that_differentiates_it(reduction, coupling):
    with pytest.raises(ValueError, match=rf"{type(reduction).__name__} needs a coupling that differentiates its plan"):
        GraphLoss(cost=cosine_distance, coupling=coupling, reduction=reduction)


@pytest.mark.parametrize("reduction", PLAN_READERS, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("coupling", [RowSoftmax(0.1), Sinkhorn(0.1, gradient="unroll")], ids=["softmax", "unroll"])
def test_a_reduction_of_the_plan_moves_the_student_through_it(reduction, coupling):
    x = rows(5, 3).requires_grad_()
    GraphLoss(cost=cosine_distance, coupling=coupling, reduction=reduction)(
        Data(x=x), Data(x=rows(5, 3, seed=1))
    ).backward()
    assert x.grad.abs().max() > 0


def test_by_default_paired_nodes_are_compared_by_their_mean_cost():
    x, y = rows(5, 3), rows(5, 3, seed=1)
    torch.testing.assert_close(GraphLoss(cost=sqeuclidean)(Data(x=x), Data(x=y)), (x - y).square().sum(-1).mean())


def test_masses_of_a_graph_weigh_its_nodes():
    x, y, mass = rows(5, 3), rows(5, 3, seed=1), torch.tensor([0.5, 0.2, 0.1, 0.1, 0.1], dtype=torch.float64)
    value = GraphLoss(cost=sqeuclidean)(point_cloud(x, mass), point_cloud(y, mass))
    torch.testing.assert_close(value, (mass * (x - y).square().sum(-1)).sum())


def test_compare_returns_everything_that_the_value_came_from():
    student, teacher = Data(x=rows(5, 3)), Data(x=rows(7, 3, seed=1))
    relation = Pairwise(cosine)
    loss = GraphLoss(sqeuclidean, relation, Sinkhorn(1.0, num_iters=200), TransportCost(alpha=0.25))
    seen = loss.compare(student, teacher)
    torch.testing.assert_close(seen.cost, sqeuclidean(student.x, teacher.x))
    torch.testing.assert_close(seen.relations.student, relation(student))
    torch.testing.assert_close(seen.relations.teacher, relation(teacher))
    assert seen.plan.shape == (5, 7)
    torch.testing.assert_close(seen.plan.sum(1), torch.full((5,), 0.2, dtype=torch.float64))
    torch.testing.assert_close(seen.plan.sum(0), torch.full((7,), 1 / 7, dtype=torch.float64))
    c, d, p = seen.relations.student, seen.relations.teacher, seen.plan
    structure = sum(
        (c[i, k] - d[j, m]) ** 2 * p[i, j] * p[k, m]
        for i in range(5)
        for k in range(5)
        for j in range(7)
        for m in range(7)
    )
    torch.testing.assert_close(seen.value, 0.75 * (p * seen.cost).sum() + 0.25 * structure)
    assert float(seen.marginal_error) < 1e-6
    assert bool(seen.converged)
    assert seen.graphs == (student, teacher)
    assert loss(student, teacher) == seen.value


def test_an_unfinished_coupling_is_reported():
    seen = GraphLoss(sqeuclidean, coupling=Sinkhorn(0.05, num_iters=1)).compare(
        Data(x=rows(5, 3)), Data(x=rows(7, 3, seed=1))
    )
    assert not bool(seen.converged)
    assert float(seen.marginal_error) > 1e-3


def test_parts_that_a_loss_lacks_are_none():
    nodes = GraphLoss(cost=sqeuclidean).compare(Data(x=rows(4, 3)), Data(x=rows(4, 3)))
    relations = GraphLoss(relation=Pairwise(cosine), reduction=TransportCost(alpha=1.0)).compare(
        Data(x=rows(4, 3)), Data(x=rows(4, 5))
    )
    assert nodes.relations is None and nodes.cost is not None
    assert relations.cost is None and relations.relations is not None


def test_a_loss_of_relations_only_takes_nodes_of_different_widths():
    x, y = rows(4, 3), rows(4, 5)
    value = GraphLoss(relation=Pairwise(cosine), reduction=TransportCost(alpha=1.0))(Data(x=x), Data(x=y))
    torch.testing.assert_close(value, (cosine(x, x) - cosine(y, y)).square().mean())


def test_a_cost_of_nodes_of_different_widths_is_refused_with_both():
    with pytest.raises(ValueError, match="one width, got 3 and 5: project them, or compare relations only"):
        GraphLoss(cost=sqeuclidean)(Data(x=rows(4, 3)), Data(x=rows(4, 5)))


def test_a_learned_cost_is_a_part_of_the_loss():
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.map = nn.Linear(3, 2)

        def forward(self, x, y):
            return sqeuclidean(self.map(x), self.map(y))

    loss = GraphLoss(cost=Critic())
    loss(Data(x=rows(4, 3, dtype=torch.float32)), Data(x=rows(4, 3, seed=1, dtype=torch.float32))).backward()
    assert [name for name, _ in loss.named_parameters()] == ["cost.map.weight", "cost.map.bias"]
    assert loss.cost.map.weight.grad.abs().max() > 0


def test_graph_loss_computes_in_float32_under_autocast():
    student, teacher = Data(x=rows(4, 3, dtype=torch.float32)), Data(x=rows(4, 3, 1, dtype=torch.float32))
    loss = GraphLoss(relation=Pairwise(cosine), reduction=TransportCost(alpha=1.0))
    expected = loss(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert value == expected


def test_repr_names_the_parts():
    text = repr(GraphLoss(cosine_distance, coupling=Sinkhorn(0.05), reduction=TransportCost(alpha=0)))
    assert "cost=cosine_distance" in text
    assert "coupling=Sinkhorn(epsilon=0.05" in text
    assert "reduction=TransportCost()" in text
    assert "relation" not in text


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (torch.zeros(0, 3), r"the student's nodes needs at least one row and one column, got shape \(0, 3\)"),
        (torch.full((4, 3), torch.nan), "the student's nodes needs finite values, got 12 NaN or infinite of 12"),
        (torch.ones(4, 3, dtype=torch.int64), "the student's nodes needs floating-point values, got torch.int64"),
        (torch.ones(4), r"the student's nodes needs rows of shape \(n, d\), got shape \(4,\)"),
        (torch.ones(4, 3, device="meta"), "one device, got student on meta, teacher on cpu"),
    ],
    ids=["empty", "nan", "integers", "flat", "meta"],
)
def test_graphs_without_sound_nodes_are_refused(x, match):
    with pytest.raises(ValueError, match=match):
        GraphLoss(cost=sqeuclidean)(Data(x=x), Data(x=torch.ones(4, 3)))


def test_the_teachers_nodes_are_checked_too():
    with pytest.raises(ValueError, match="the teacher's nodes needs finite values, got 1 NaN or infinite of 12"):
        y = torch.ones(4, 3)
        y[1, 2] = torch.inf
        GraphLoss(cost=sqeuclidean)(Data(x=torch.ones(4, 3)), Data(x=y))


def test_the_identity_needs_as_many_nodes_on_both_sides():
    with pytest.raises(ValueError, match="as many student as teacher nodes, got 4 and 5"):
        GraphLoss(cost=sqeuclidean)(Data(x=rows(4, 3)), Data(x=rows(5, 3)))


# Criterion


def crossed(**terms):
    """Two layers on the student's side, one on the teacher's."""
    torch.manual_seed(0)
    return Criterion(
        GraphEncoder(joined, nn.Linear(4, 3), [GraphConv(3, 3), GraphConv(3, 3)]),
        GraphEncoder(joined, nn.Linear(5, 3), [GraphConv(3, 3)]),
        terms,
    )


def test_terms_compare_the_hops_that_they_name():
    loss = GraphLoss(cost=sqeuclidean)
    criterion = crossed(
        start=Term(loss),
        cross=Term(loss, student=2, teacher=1),
        own=Term(loss, student=2, teacher=0, networks=("student", "student")),
        other=Term(loss, student=0, teacher=1, networks=("teacher", "teacher")),
    )
    student, teacher = {"feat": rows(6, 4, 0, torch.float32)}, {"feat": rows(6, 5, 1, torch.float32)}
    output = criterion(student, teacher)
    s, t = criterion.student(student), criterion.teacher(teacher)
    for name, graphs in {
        "start": (s[0], t[0]),
        "cross": (s[2], t[1]),
        "own": (s[2], s[0]),
        "other": (t[0], t[1]),
    }.items():
        torch.testing.assert_close(output.terms[name], loss(*graphs))
        torch.testing.assert_close(
            [graph.x for graph in output.comparisons[name].graphs], [graph.x for graph in graphs]
        )


def test_value_is_the_weighted_sum_and_terms_are_not_weighted():
    loss = GraphLoss(cost=sqeuclidean)
    student, teacher = {"feat": rows(6, 4, 0, torch.float32)}, {"feat": rows(6, 5, 1, torch.float32)}
    output = crossed(a=Term(loss, 2.0), b=Term(loss, 0.5, student=1), c=Term(loss, 0, student=2))(student, teacher)
    plain = crossed(a=Term(loss), b=Term(loss, student=1), c=Term(loss, student=2))(student, teacher)
    torch.testing.assert_close(output.terms, plain.terms)
    torch.testing.assert_close(output.value, 2 * plain.terms["a"] + 0.5 * plain.terms["b"])


def test_a_criterion_without_terms_is_refused():
    with pytest.raises(ValueError, match="needs at least one term, got none"):
        crossed()


@pytest.mark.parametrize(
    ("term", "match"),
    [
        ({"student": 3}, r"term 'x' needs a student hop in 0\.\.2, got 3"),
        ({"teacher": 2}, r"term 'x' needs a teacher hop in 0\.\.1, got 2"),
        ({"student": -1}, r"term 'x' needs a student hop in 0\.\.2, got -1"),
        ({"student": 2, "networks": ("teacher", "teacher")}, r"term 'x' needs a student hop in 0\.\.1, got 2"),
    ],
)
def test_a_hop_that_does_not_exist_is_refused_at_construction(term, match):
    with pytest.raises(ValueError, match=match):
        crossed(x=Term(GraphLoss(cost=sqeuclidean), **term))


# Both ways


def test_both_ways_are_two_problems_of_which_the_second_exchanges_the_networks():
    student, teacher = ([point_cloud(rows(4, 3, 10 * side + hop)) for hop in range(3)] for side in range(2))
    term = Term(GraphLoss(cost=sqeuclidean), student=1, teacher=2, both_ways=True)
    left, right = term.sides({"student": student, "teacher": teacher})
    assert torch.equal(left.x, torch.stack([student[1].x, teacher[1].x]))
    assert torch.equal(right.x, torch.stack([teacher[2].x, student[2].x]))
    plain = Term(GraphLoss(cost=sqeuclidean), student=1, teacher=2).sides({"student": student, "teacher": teacher})
    assert plain == (student[1], teacher[2])
    turned = Term(GraphLoss(cost=sqeuclidean), student=1, teacher=2, networks=("teacher", "student"), both_ways=True)
    left, right = turned.sides({"student": student, "teacher": teacher})
    assert torch.equal(left.x, torch.stack([teacher[1].x, student[1].x]))
    assert torch.equal(right.x, torch.stack([student[2].x, teacher[2].x]))


@pytest.mark.parametrize("coupling", [Identity(), Sinkhorn(0.5)], ids=["Identity", "Sinkhorn"])
def test_a_criterion_with_a_term_both_ways_is_the_mean_of_its_two_directions(coupling):
    loss = GraphLoss(cost=sqeuclidean, coupling=coupling)
    criterion = crossed(
        both=Term(loss, student=1, teacher=0, both_ways=True),
        there=Term(loss, student=1, teacher=0),
        back=Term(loss, student=1, teacher=0, networks=("teacher", "student")),
    )
    student, teacher = {"feat": rows(6, 4, 0, torch.float32)}, {"feat": rows(6, 5, 1, torch.float32)}
    labels = torch.arange(6)
    output = criterion(student, teacher, labels)
    both, there, back = output.terms.values()
    torch.testing.assert_close(both, (there + back) / 2)
    assert not torch.allclose(there, back)
    wanted = list(criterion.parameters())
    slopes = [torch.autograd.grad(x, wanted, retain_graph=True, allow_unused=True) for x in (both, (there + back) / 2)]
    for ours, theirs in zip(*slopes, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    seen = output.comparisons["both"]
    assert seen.plan.shape == seen.cost.shape == (2, 6, 6)
    assert seen.converged.shape == (2,)
    assert all(torch.equal(graph.y, labels) for graph in seen.graphs)


def test_a_term_both_ways_needs_nodes_of_one_width():
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(4, 5\)|3 and 5"):
        paired(both_ways=True)({"feat": rows(4, 3)}, {"feat": rows(4, 5)})


@pytest.mark.parametrize(
    "term",
    [
        {"student": 3},
        {"student": 2},
        {"teacher": 2},
        {"student": 2, "networks": ("teacher", "student")},
        {"teacher": 2, "networks": ("teacher", "student")},
        {"teacher": -1},
    ],
)
def test_a_term_both_ways_needs_its_hops_of_both_networks(term):
    # The student has hops 0 to 2, the teacher 0 and 1.
    with pytest.raises(ValueError, match=r"term 'x' needs a (student|teacher) hop in 0\.\.[12], got"):
        crossed(x=Term(GraphLoss(cost=sqeuclidean), both_ways=True, **term))


def remembered(n, m, seed):
    """A graph of n partners and m others, each the negative of all samples."""
    graph = point_cloud(rows(n + m, 3, seed), torch.cat([torch.full((n,), 1 / n), torch.zeros(m)]))
    graph.negatives = torch.cat([torch.zeros(n, n), torch.full((n, m), float(seed))], 1)
    return graph


def test_own_negatives_are_of_the_network_of_the_students_side_and_partners_are_not():
    student, teacher = ([point_cloud(rows(4, 3, 10 * side)), remembered(4, 5, side + 1)] for side in range(2))
    hops = {"student": student, "teacher": teacher}
    term = Term(GraphLoss(cost=sqeuclidean), student=0, teacher=1, own_negatives=True)
    left, right = term.sides(hops)
    assert left is student[0]
    assert torch.equal(right.x, torch.cat([teacher[1].x[:4], student[1].x[4:]]))
    assert right.negatives[:, 4:].unique().tolist() == [1.0]
    both = Term(GraphLoss(cost=sqeuclidean), student=0, teacher=1, own_negatives=True, both_ways=True)
    left, right = both.sides(hops)
    assert torch.equal(left.x, torch.stack([student[0].x, teacher[0].x]))
    assert torch.equal(right.x[0], torch.cat([teacher[1].x[:4], student[1].x[4:]]))
    assert torch.equal(right.x[1], torch.cat([student[1].x[:4], teacher[1].x[4:]]))
    assert [each[:, 4:].unique().tolist() for each in right.negatives] == [[1.0], [2.0]]
    assert ", both ways, own negatives, cost" in repr(both)


def test_own_negatives_need_the_teachers_hop_of_both_networks():
    # The student has hops 0 to 2, the teacher 0 and 1.
    crossed(x=Term(GraphLoss(cost=sqeuclidean), student=2, teacher=1, own_negatives=True))
    crossed(x=Term(GraphLoss(cost=sqeuclidean), networks=("teacher", "student"), teacher=2))
    with pytest.raises(ValueError, match=r"term 'x' needs a teacher hop in 0\.\.1, got 2"):
        crossed(x=Term(GraphLoss(cost=sqeuclidean), networks=("teacher", "student"), teacher=2, own_negatives=True))


def test_a_term_may_compare_the_last_of_several_graphs_and_no_further():
    loss = GraphLoss(cost=sqeuclidean)
    several = Several(cloud, joined)
    Criterion(several, several, {"x": Term(loss, student=1, teacher=1)})
    with pytest.raises(ValueError, match=r"term 'x' needs a student hop in 0\.\.1, got 2"):
        Criterion(several, several, {"x": Term(loss, student=2, teacher=1)})


def test_learned_parts_are_the_encoders():
    names = {name.split(".")[0] for name, _ in crossed(x=Term(GraphLoss(cost=sqeuclidean))).named_parameters()}
    assert names == {"student", "teacher"}


def test_labels_are_on_the_compared_graphs():
    labels = torch.tensor([0, 1, -100, 1])
    features = {"feat": rows(4, 3)}
    for graph in paired()(features, features, labels).comparisons["it"].graphs:
        assert torch.equal(graph.y, labels)
    for graph in paired()(features, features).comparisons["it"].graphs:
        assert graph.y is None


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_raised(half):
    student, teacher = {"feat": rows(4, 3).to(half)}, {"feat": rows(4, 3, seed=1, dtype=torch.float32)}
    value = paired()(student, teacher).value
    assert value.dtype == torch.float32
    assert value == paired()({"feat": student["feat"].float()}, teacher).value


def test_learned_parts_compute_in_float32_under_autocast():
    criterion = crossed(x=Term(GraphLoss(cost=sqeuclidean), student=2, teacher=1))
    student, teacher = {"feat": rows(6, 4, 0, torch.float32)}, {"feat": rows(6, 5, 1, torch.float32)}
    expected = criterion(student, teacher).value
    with torch.autocast("cpu", torch.bfloat16):
        assert criterion(student, teacher).value == expected


GOOD = rows(4, 3, dtype=torch.float32)
BAD_FEATURES = {
    "other batch": ({"feat": rows(5, 3)}, "one batch size .* got student feat: 5, teacher feat: 4"),
    "none": ({}, "needs at least one student feature, got none"),
    "nan": ({"feat": torch.full((4, 3), torch.nan)}, "finite values, got 12 NaN or infinite of 12"),
    "inf": ({"feat": torch.full((4, 3), -torch.inf)}, "finite values, got 12 NaN or infinite of 12"),
    "integers": ({"feat": torch.ones(4, 3, dtype=torch.int64)}, "'feat' needs floating-point values, got torch.int64"),
    "meta": ({"feat": torch.ones(4, 3, device="meta")}, "one device, got student feat on meta, teacher feat on cpu"),
    "map": ({"feat": torch.ones(4, 3, 2, 2)}, r"'feat' needs one vector per sample.* got \(4, 3, 2, 2\)"),
    "scalar": ({"feat": torch.ones(())}, "one batch size .* got student feat: 0, teacher feat: 4"),
    "unused of another batch": ({"feat": GOOD, "map": torch.ones(3, 1)}, "student map: 3, teacher feat: 4"),
}


@pytest.mark.parametrize(("features", "match"), BAD_FEATURES.values(), ids=BAD_FEATURES)
def test_features_that_do_not_fit_are_refused(features, match):
    with pytest.raises(ValueError, match=match):
        paired()(features, {"feat": GOOD})


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="needs a batch of at least one sample, got an empty one"):
        paired()({"feat": torch.zeros(0, 3)}, {"feat": torch.zeros(0, 3)})


def test_labels_of_another_batch_size_or_device_are_refused():
    with pytest.raises(ValueError, match="teacher feat: 4, labels: 5"):
        paired()({"feat": GOOD}, {"feat": GOOD}, torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="one device, got .*labels on meta"):
        paired()({"feat": GOOD}, {"feat": GOOD}, torch.zeros(4, dtype=torch.int64, device="meta"))


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_feature_that_is_not_there_is_named_with_those_that_are(side):
    student, teacher = {"feat": GOOD}, {"feat": GOOD}
    {"student": student, "teacher": teacher}[side].clear()
    {"student": student, "teacher": teacher}[side].update({"pool": GOOD, "map": GOOD})
    with pytest.raises(KeyError, match=r"needs a feature named 'feat', got \['map', 'pool'\]"):
        paired()(student, teacher)


def test_widths_that_differ_without_a_projector_are_refused_with_both():
    with pytest.raises(ValueError, match="one width, got 3 and 5"):
        paired()({"feat": rows(4, 3)}, {"feat": rows(4, 5)})


@pytest.mark.parametrize("k", [0, -1])
def test_a_builder_without_neighbours_is_refused(k):
    build = partial(_neighbours, k=k)
    with pytest.raises(ValueError, match=f"k needs an integer of at least 1, got {k}"):
        paired(build)({"feat": GOOD}, {"feat": GOOD})


def _neighbours(features, k):
    return knn_graph(vectors(features, "feat"), k)


@pytest.mark.parametrize("coupling", [Sinkhorn, RowSoftmax])
@pytest.mark.parametrize("epsilon", [0, -0.5, float("nan"), float("inf")])
def test_an_epsilon_that_is_not_above_zero_is_refused_at_construction(coupling, epsilon):
    with pytest.raises(ValueError, match=f"epsilon needs a finite number above 0, got {epsilon}"):
        coupling(epsilon)


@pytest.mark.parametrize("name", ["feat", "logits"])
def test_a_recipe_refuses_values_that_are_not_finite_wherever_it_reads_them(name):
    student = {"feat": rows(4, 3), "logits": rows(4, 5)}
    student[name][2, 1] = torch.nan
    criterion = losses.otgd(3, 3, k=2).double()
    with pytest.raises(ValueError, match="needs finite values, got"):
        criterion(student, {"feat": rows(4, 3), "logits": rows(4, 5)})


def test_a_network_that_does_not_exist_is_refused():
    with pytest.raises(REFUSED):
        Term(GraphLoss(cost=sqeuclidean), networks=("student", "oracle"))


def test_a_cost_between_unequally_many_problems_is_refused():
    loss = GraphLoss(cost=sqeuclidean)
    with pytest.raises(
        ValueError, match=r"as many problems on both sides, got nodes of shapes \(4, 3, 2\) and \(5, 3, 2\)"
    ):
        loss(Data(x=torch.zeros(4, 3, 2)), Data(x=torch.zeros(5, 3, 2)))


# How they show themselves


def shown(criterion):
    """The lines between ``Criterion(`` and the closing bracket."""
    first, *lines, last = repr(criterion).splitlines()
    assert (first, last) == ("Criterion(", ")")
    assert all(line.startswith("  ") for line in lines)
    return [line[2:] for line in lines]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_shows_its_encoders_and_terms_within_120_columns(recipe):
    criterion = build(recipe)
    lines = shown(criterion)
    assert max(map(len, lines)) <= 112
    assert lines[0].startswith("encoder  nodes")
    heads = [line.split()[0] for line in lines if line.strip()]
    assert heads[1:3] == ["student", "teacher"]
    assert set(criterion.terms) <= set(heads[heads.index("term") + 1 :])
    assert lines[-1].startswith("learned parameters: ")
    for text in (repr(criterion), criterion._repr_html_()):
        assert " at 0x" not in text and "functools" not in text and "object" not in text


@pytest.mark.parametrize("recipe", RECIPES)
def test_html_of_every_recipe_has_the_cells_of_its_terms(recipe):
    criterion = build(recipe)
    text = criterion._repr_html_()
    for name, term in criterion.terms.items():
        for cell in filter(None, term.row(name, 1000)):
            assert f">{html.escape(cell)}</t" in text
    assert html.escape(shown(criterion)[-1]) in text
    assert text.count("<table") == text.count("</table>") == 2


def test_a_criterion_shows_builders_projectors_convolutions_and_terms():
    student = GraphEncoder(partial(knn_graph, k=3), nn.Linear(5, 4), [GraphConv(4, 4), GraphConv(4, 4)])
    teacher = GraphEncoder(cloud, nn.Linear(6, 4, bias=False), [], normalize=False)
    near = GraphLoss(sqeuclidean, coupling=Sinkhorn(0.05))
    alike = GraphLoss(relation=Pairwise(cosine), reduction=TransportCost(alpha=1))
    terms = {"near": Term(near, 0.5, student=2), "alike": Term(alike, networks=("teacher", "teacher"))}
    assert shown(Criterion(student, teacher, terms)) == [
        "encoder  nodes           embed                       convs                             rows",
        "student  knn_graph(k=3)  Linear(in_features=5, ...)  GraphConv(4, 4), GraphConv(4, 4)  unit length",
        "teacher  cloud           Linear(in_features=6, ...)",
        "  Linear(in_features=5, out_features=4, bias=True)",
        "  Linear(in_features=6, out_features=4, bias=False)",
        "term   weight  hops                   cost         relation    coupling                reduction",
        "near   0.5     student 2 / teacher 0  sqeuclidean              Sinkhorn(epsilon=0.05)  TransportCost()",
        "alike  1       teacher 0 / teacher 0               Pairwise()  Identity()              TransportCost(alpha=1)",
        "learned parameters: 120",
    ]


def test_a_criterion_shows_several_graphs_memories_and_exchanged_networks():
    several = Criterion(Several(cloud, partial(knn_graph, k=3)), Several(cloud), {"it": Term(GraphLoss(sqeuclidean))})
    assert "student  hop 0 cloud, hop 1 knn_graph(k=3)" in shown(several)
    assert "teacher  hop 0 cloud" in shown(several)
    lines = shown(losses.crd(4, 6, num_samples=3000, num_negatives=1700, embed_dim=12))
    assert lines[0].split() == ["encoder", "nodes", "embed", "rows", "memory"]
    assert lines[1].endswith("unit length  3,000 x 12, 1,700 negatives")
    assert "student 0 / teacher 1, both ways" in repr(losses.crd(num_samples=3, num_negatives=1))


def test_only_what_is_learned_is_counted():
    criterion = paired(student=0)
    assert shown(criterion)[-1] == "learned parameters: 0"
    criterion.student.embed = nn.Linear(3, 5)
    criterion.teacher.embed = nn.Linear(3, 5).requires_grad_(False)
    assert shown(criterion)[-1] == "learned parameters: 20"
    criterion.student.embed = nn.Linear(300, 5)
    criterion.teacher.embed = nn.LazyLinear(5)
    assert shown(criterion)[-1] == "learned parameters: 1,505, not counting 2 tensors that wait for a first batch"


def test_a_criterion_is_indented_within_another_module():
    criterion = losses.otgd(4, 6)
    nested = repr(nn.ModuleDict({"it": criterion})).splitlines()
    assert nested[1] == "  (it): Criterion("
    assert nested[2:-2] == [f"    {line}" for line in shown(criterion)]
    assert nested[-2:] == ["  )", ")"]


def test_a_copy_shows_the_same():
    criterion = losses.fgw()
    assert repr(copy.deepcopy(criterion)) == repr(criterion)


def test_html_of_a_criterion_is_escaped():
    text = paired(weight=2)._repr_html_()
    criterion = Criterion(GraphEncoder(lambda f: f), GraphEncoder(cloud), {"<b>": Term(GraphLoss(sqeuclidean))})
    assert "&lt;b&gt;" in criterion._repr_html_() and "&lt;lambda&gt;" in criterion._repr_html_()
    assert "<b>" not in criterion._repr_html_() and "<lambda>" not in criterion._repr_html_()
    assert text.startswith("<div><strong>Criterion</strong>")


def test_a_term_shows_itself_in_one_line():
    term = Term(GraphLoss(sqeuclidean), 0.5, student=1, teacher=2, both_ways=True)
    assert repr(term) == (
        "Term(weight 0.5, hops student 1 / teacher 2, both ways, cost sqeuclidean, coupling Identity(), "
        "reduction TransportCost())"
    )


def test_a_loss_names_functions_and_what_is_not_the_default():
    loss = GraphLoss(sqeuclidean, Pairwise(cosine, on="feat"), Sinkhorn(1.0, 3), TransportCost(0.25))
    assert repr(loss) == (
        "GraphLoss(cost=sqeuclidean, relation=Pairwise(on='feat'), coupling=Sinkhorn(epsilon=1, num_iters=3), "
        "reduction=TransportCost(alpha=0.25))"
    )
