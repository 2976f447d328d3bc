"""Builders against brute force over all pairs, and what they promise about gradients, waiting and bad input."""

import networkx
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.nn import TAGConv
from torch_geometric.utils import to_networkx

from graphkd import checks
from graphkd.graphs import (
    classes,
    continued,
    knn_graph,
    masses,
    neurons,
    point_cloud,
    similarity_graph,
    stacked,
    threshold_graph,
)
from graphkd.measures import cosine, euclidean, inner, sqeuclidean

BUILDERS = {
    "knn": lambda x, **options: knn_graph(x, 2, **options),
    "similarity": similarity_graph,
    "threshold": lambda x, **options: threshold_graph(x, 0.1, **options),
    "cloud": point_cloud,
}


@pytest.fixture(autouse=True)
def forget_what_was_logged() -> None:
    checks.log_once.cache_clear()


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def edges(graph) -> list[tuple[int, int]]:
    """(source, centre) of every edge."""
    return [tuple(edge) for edge in graph.edge_index.T.tolist()]


def nearest(x: Tensor, k: int, loop: bool, farness) -> set[tuple[int, int]]:
    """Brute force: for each centre, all others sorted by distance."""
    joined = set()
    for centre in range(len(x)):
        others = [other for other in range(len(x)) if other != centre]
        others.sort(key=lambda other: float(farness(x[centre], x[other])))
        chosen = [centre, *others[: k - 1]] if loop else others[:k]
        joined |= {(source, centre) for source in chosen}
    return joined


def minus_cosine(x: Tensor, y: Tensor) -> Tensor:
    return -(x @ y) / (x.norm() * y.norm())


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize(
    "measure, farness",
    [
        (cosine, minus_cosine),
        (inner, lambda x, y: -(x @ y)),
        (sqeuclidean, lambda x, y: (x - y).square().sum()),
        (euclidean, lambda x, y: (x - y).norm()),
    ],
)
@pytest.mark.parametrize("k", [1, 3])
def test_knn_graph_equals_brute_force(k, measure, farness, loop):
    x = rows(9, 4)
    graph = knn_graph(x, k, measure=measure, loop=loop)
    assert len(edges(graph)) == 9 * k
    assert set(edges(graph)) == nearest(x, k, loop, farness)
    assert graph.x is x or torch.equal(graph.x, x)
    assert graph.edge_weight is None


@pytest.mark.parametrize("loop", [False, True])
def test_knn_graph_of_too_few_nodes_joins_all_and_logs_so_once(caplog, loop):
    x = rows(4, 3)
    for _ in range(3):
        graph = knn_graph(x, 8, loop=loop)
    assert set(edges(graph)) == {(i, j) for i in range(4) for j in range(4) if loop or i != j}
    (record,) = caplog.records
    assert record.message == f"knn_graph: 4 nodes have only {3 + loop} neighbours each, so k=8 became {3 + loop}"


def test_knn_graph_with_as_many_neighbours_as_there_are_logs_nothing(caplog):
    knn_graph(rows(4, 3), 3)
    knn_graph(rows(4, 3), 4, loop=True)
    assert not caplog.records


def test_knn_graph_of_one_node():
    assert edges(knn_graph(rows(1, 3), 2)) == []
    assert edges(knn_graph(rows(1, 3), 2, loop=True)) == [(0, 0)]


@pytest.mark.parametrize("measure", [cosine, euclidean, inner])
def test_each_node_is_its_own_first_neighbour_even_among_copies_and_longer_rows(measure):
    x = torch.tensor([[1.0, 2.0]]).repeat(5, 1)
    x[4] *= 3
    graph = knn_graph(x, 2, measure=measure, loop=True)
    by_centre = graph.edge_index.reshape(2, 5, 2)
    assert by_centre[0, :, 0].tolist() == by_centre[1, :, 0].tolist() == list(range(5))
    assert (by_centre[0, :, 1] != by_centre[1, :, 1]).all()
    assert all(source != centre for source, centre in edges(knn_graph(x, 2, measure=measure)))


@pytest.mark.parametrize("loop", [False, True])
def test_symmetric_graph_is_the_undirected_union(loop):
    x = rows(12, 3)
    directed = knn_graph(x, 3, loop=loop)
    graph = knn_graph(x, 3, loop=loop, symmetric=True)
    union = to_networkx(directed).to_undirected(reciprocal=False)
    both = {(u, v) for u, v in union.edges} | {(v, u) for u, v in union.edges}
    assert set(edges(graph)) == both
    assert len(edges(graph)) == len(both)
    assert set(edges(graph)) > set(edges(directed))
    assert networkx.is_directed(to_networkx(graph))
    assert graph.is_undirected()


@pytest.mark.parametrize("build", [BUILDERS["knn"], similarity_graph, BUILDERS["threshold"]])
def test_nearness_may_be_measured_on_other_rows_than_the_nodes(build):
    x, on = rows(8, 3), rows(8, 5).flip(0)
    graph, keyed = build(x, on=on), build(on)
    assert torch.equal(graph.x, x)
    assert torch.equal(graph.edge_index, keyed.edge_index)
    if keyed.edge_weight is not None:
        assert torch.equal(graph.edge_weight, keyed.edge_weight)
        assert not torch.allclose(graph.edge_weight, build(x).edge_weight)
    else:
        assert not torch.equal(graph.edge_index, build(x).edge_index)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_batch_is_its_graphs_side_by_side(name):
    x = rows(3, 6, 4)
    batch = BUILDERS[name](x)
    assert isinstance(batch, Batch)
    assert batch.num_graphs == 3
    for i in range(3):
        single, member = BUILDERS[name](x[i]), batch.get_example(i)
        assert torch.equal(member.x, x[i])
        assert torch.equal(member.edge_index, single.edge_index)
        assert (member.edge_weight is None) == (single.edge_weight is None)
        if single.edge_weight is not None:
            torch.testing.assert_close(member.edge_weight, single.edge_weight)


def test_a_batch_of_symmetric_graphs_measured_on_other_rows():
    x, on = rows(3, 6, 4), rows(3, 6, 2)
    batch = knn_graph(x, 2, on=on, symmetric=True)
    for i in range(3):
        assert torch.equal(batch.get_example(i).edge_index, knn_graph(x[i], 2, on=on[i], symmetric=True).edge_index)


@pytest.mark.parametrize("build", [BUILDERS["knn"], BUILDERS["threshold"]])
def test_topology_has_no_gradient_and_nodes_keep_theirs(build):
    x, on = rows(6, 4).requires_grad_(), rows(6, 2).requires_grad_()
    graph = build(x, on=on)
    graph.x.square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())
    assert on.grad is None
    assert not graph.edge_index.requires_grad


@pytest.mark.parametrize("build", [knn_graph, threshold_graph])
def test_nothing_is_recorded_for_a_gradient_that_topology_does_not_have(build):
    recorded = []

    def measure(x: Tensor, y: Tensor) -> Tensor:
        recorded.append(x.requires_grad or y.requires_grad)
        return sqeuclidean(x, y)

    build(rows(6, 4).requires_grad_(), 2, measure=measure)
    assert recorded == [False]


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("measure", [cosine, sqeuclidean])
def test_similarity_weights_are_the_dense_measure_with_its_gradient(measure, loop):
    x = rows(5, 3).double().requires_grad_()
    graph = similarity_graph(x, measure=measure, loop=loop)
    assert edges(graph) == [(j, i) for i in range(5) for j in range(5) if loop or i != j]
    dense = measure(x, x)
    wanted = torch.stack([dense[i, j] for j, i in edges(graph)])
    torch.testing.assert_close(graph.edge_weight, wanted, atol=1e-12, rtol=0)
    scale = torch.linspace(-1, 2, len(wanted), dtype=x.dtype)
    (gradient,) = torch.autograd.grad((scale * graph.edge_weight).sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad((scale * wanted).sum(), x)[0], atol=1e-12, rtol=0)


def test_similarity_weight_is_measured_from_the_centre():
    def difference(x: Tensor, y: Tensor) -> Tensor:
        return x - y.T

    graph = similarity_graph(torch.tensor([[0.0], [1.0], [5.0]]), measure=difference)
    weight = dict(zip(edges(graph), graph.edge_weight.tolist(), strict=True))
    assert weight[(2, 0)] == -5
    assert weight[(0, 2)] == 5


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize(
    "measure, threshold, near",
    [
        (cosine, 0.2, lambda x, y: -minus_cosine(x, y) > 0.2),
        (inner, -0.5, lambda x, y: x @ y > -0.5),
        (euclidean, 1.8, lambda x, y: (x - y).norm() < 1.8),
    ],
)
def test_threshold_graph_equals_brute_force_for_similarities_and_distances(measure, threshold, near, loop):
    x = rows(8, 3)
    graph = threshold_graph(x, threshold, measure=measure, loop=loop)
    wanted = {
        (source, centre)
        for source in range(8)
        for centre in range(8)
        if (loop if source == centre else near(x[source], x[centre]))
    }
    assert set(edges(graph)) == wanted
    assert len(edges(graph)) == len(wanted)
    assert 8 < len(wanted) < 56


def test_edges_run_from_neighbour_to_centre():
    x = torch.tensor([[0.0], [1.0], [10.0]])
    # 2 has a neighbour and is nobody's.
    assert edges(knn_graph(x, 1, measure=euclidean)) == [(1, 0), (0, 1), (1, 2)]


def test_masses_are_uniform_unless_given():
    x = rows(4, 3)
    assert "mass" not in point_cloud(x)
    assert masses(point_cloud(x)).tolist() == [0.25] * 4
    assert masses(knn_graph(x, 1)).tolist() == [0.25] * 4
    mass = torch.tensor([0.1, 0.2, 0.3, 0.4], requires_grad=True)
    assert torch.equal(masses(point_cloud(x, mass)), mass)
    assert masses(point_cloud(x, mass)).requires_grad
    assert point_cloud(x, mass).edge_index.shape == (2, 0)


def test_masses_of_a_graph_without_attributes_are_refused():
    with pytest.raises(ValueError, match="masses need node attributes x, got Data"):
        masses(Data(num_nodes=3))


def test_masses_follow_the_nodes_of_a_batch():
    mass = torch.tensor([[0.5, 0.5], [0.1, 0.9]])
    batch = point_cloud(rows(2, 2, 3), mass)
    assert masses(batch.get_example(1)).tolist() == mass[1].tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_uniform_masses_sum_to_one_in_any_precision(dtype):
    # Rounded to half precision, 1/100 and 1/60 would sum to totals that transport refuses as unequal.
    for n in (60, 100):
        mass = masses(point_cloud(torch.zeros(n, 2, dtype=dtype)))
        assert mass.dtype == torch.promote_types(dtype, torch.float32)
        assert mass.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_nodes_stay_as_they_are(name, dtype):
    x = rows(6, 4).to(dtype)
    graph = BUILDERS[name](x)
    assert graph.x.dtype == dtype
    assert torch.equal(graph.edge_index, BUILDERS[name](x.float()).edge_index)
    assert graph.edge_weight is None or graph.edge_weight.dtype == torch.float32


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize(
    "x, message",
    [
        (torch.ones(4, 2, dtype=torch.int64), "x needs floating-point values, got torch.int64"),
        (torch.tensor([[1.0], [torch.nan]]), r"x needs finite values, got 1 NaN or infinite of 2 \(shape \(2, 1\)\)"),
        (torch.tensor([[1.0], [torch.inf]]), "x needs finite values, got 1"),
        (torch.ones(0, 2), r"x needs at least one row and one column, got shape \(0, 2\)"),
        (torch.ones(2, 0), r"x needs at least one row and one column, got shape \(2, 0\)"),
        (torch.ones(2, 2, 3, 4), r"x needs rows \(n, d\), or \(b, n, d\) for b graphs, got shape \(2, 2, 3, 4\)"),
    ],
)
def test_bad_rows_are_refused(name, x, message):
    with pytest.raises(ValueError, match=message):
        BUILDERS[name](x)


@pytest.mark.parametrize("build", [BUILDERS["knn"], similarity_graph, BUILDERS["threshold"]])
def test_bad_rows_to_measure_on_are_refused(build):
    x = rows(4, 3)
    with pytest.raises(ValueError, match="on needs floating-point values, got torch.int64"):
        build(x, on=torch.ones(4, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="on needs finite values"):
        build(x, on=torch.full((4, 2), torch.nan))
    with pytest.raises(ValueError, match="needs all tensors on one device, got x on cpu, on on meta"):
        build(x, on=torch.ones(4, 2, device="meta"))


def test_rows_to_measure_on_must_be_as_many_as_the_nodes():
    # The run-time type checks of the tests see this first where they are on.
    with pytest.raises(
        (ValueError, TypeError), match=r"on needs one row per node, \(4,\), got \(3,\)|Type-check error"
    ):
        knn_graph(rows(4, 3), 1, on=rows(3, 3))


@pytest.mark.parametrize("k", [0, -1, True])
def test_bad_numbers_of_neighbours_are_refused(k):
    with pytest.raises(ValueError, match=f"k needs an integer of at least 1, got {k}"):
        knn_graph(rows(4, 3), k)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), -float("inf")])
def test_bad_thresholds_are_refused(threshold):
    with pytest.raises(ValueError, match=f"threshold needs a finite number, got {threshold}"):
        threshold_graph(rows(4, 3), threshold)


def test_masses_must_be_one_per_row():
    with pytest.raises((ValueError, TypeError), match=r"mass needs one number per row, \(4,\), got|Type-check error"):
        point_cloud(rows(4, 3), torch.ones(3))


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("build", [BUILDERS["knn"], similarity_graph])
def test_host_never_waits_for_a_graph_of_fixed_size(monkeypatch, count_operations, build, loop):
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    x, on = rows(7, 4).requires_grad_(), rows(7, 3).requires_grad_()
    with count_operations() as operations:
        graph = build(x, on=on, loop=loop)
        if graph.edge_weight is not None:
            graph.edge_weight.sum().backward()
    assert operations.counts["_local_scalar_dense"] == operations.counts["nonzero"] == 0
    assert operations.counts["arange"] > 0


def test_symmetric_and_threshold_graphs_wait_once(monkeypatch, count_operations):
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    for build in (lambda x: knn_graph(x, 2, symmetric=True), BUILDERS["threshold"]):
        with count_operations() as operations:
            build(rows(7, 4))
        assert operations.counts["nonzero"] == 1
        assert operations.counts["_local_scalar_dense"] == 0


def test_a_convolution_averages_the_neighbours_of_a_centre():
    x = rows(7, 4)
    graph = knn_graph(x, 3, loop=True)
    conv = TAGConv(4, 5, K=1)
    mean = torch.stack([x[[s for s, c in edges(graph) if c == centre]].mean(0) for centre in range(7)])
    wanted = conv.lins[0](x) + conv.lins[1](mean) + conv.bias
    torch.testing.assert_close(conv(graph.x, graph.edge_index), wanted, atol=1e-6, rtol=0)


# Classes


def test_each_sample_spreads_its_mass_over_all_classes_but_its_own():
    logits = rows(5, 4).double().requires_grad_()
    labels = torch.tensor([2, -100, 0, 3, 3])
    graph = classes(logits, 2.5, labels)
    wanted = []
    for sample, label in zip(logits, labels.tolist(), strict=True):
        weight = [torch.zeros_like(z) if c == label else (z / 2.5).exp() for c, z in enumerate(sample)]
        wanted.append(torch.stack([w / sum(weight) for w in weight]))
    wanted = torch.stack(wanted)
    torch.testing.assert_close(graph.mass, wanted)
    assert [graph.mass[i, c].item() for i, c in ((0, 2), (2, 0), (3, 3), (4, 3))] == [0.0] * 4
    scale = torch.linspace(-1, 2, 20, dtype=torch.float64).reshape(5, 4)
    gradients = [torch.autograd.grad((scale * mass).sum(), logits)[0] for mass in (graph.mass, wanted)]
    torch.testing.assert_close(*gradients)


def test_classes_are_one_graph_without_edges_whose_nodes_are_the_mean_masses():
    graph = classes(rows(5, 4), labels=torch.tensor([2, 1, 0, 3, 3]))
    assert graph.edge_index.shape == (2, 0)
    assert masses(graph) is graph.mass
    torch.testing.assert_close(graph.x, (sum(graph.mass) / 5).unsqueeze(-1))


def test_without_labels_classes_have_the_softmax_as_mass():
    logits = rows(5, 4)
    torch.testing.assert_close(classes(logits).mass, logits.softmax(-1))
    torch.testing.assert_close(classes(logits, 4).mass, (logits / 4).softmax(-1))


def test_masses_of_classes_survive_far_logits_and_two_classes():
    logits = torch.tensor([[1e4, -2e4, -3e4], [0.0, 1e4, 0.0]], requires_grad=True)
    mass = classes(logits, 0.1, torch.tensor([0, -100])).mass
    assert mass.tolist() == [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    assert torch.autograd.grad(mass.square().sum(), logits)[0].isfinite().all()
    assert classes(rows(3, 2), labels=torch.tensor([0, 1, 1])).mass.tolist() == [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masses_of_classes_are_in_float32_at_least(dtype):
    logits = rows(5, 4).to(dtype)
    mass = classes(logits, 3.0).mass
    assert mass.dtype == torch.float32
    torch.testing.assert_close(mass, classes(logits.float(), 3.0).mass, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("logits", "options", "message"),
    [
        (torch.zeros(3, 1), {}, r"needs logits of at least two classes, got shape \(3, 1\)"),
        (torch.zeros(0, 3), {}, "logits needs at least one row and one column"),
        (torch.full((3, 2), torch.nan), {}, "logits needs finite values, got 6"),
        (torch.zeros(3, 2), {"temperature": 0}, "temperature needs a finite number above 0, got 0"),
        (torch.zeros(3, 2), {"labels": torch.tensor([0, 1, 2])}, "labels need numbers from 0 to 1, .* got 2"),
        (torch.zeros(3, 2), {"labels": torch.tensor([0, -1, 1])}, "labels need numbers from 0 to 1, .* got -1"),
    ],
)
def test_classes_refuse_what_has_no_probabilities(logits, options, message):
    with pytest.raises(ValueError, match=message):
        classes(logits, **options)


# Neurons and cells


def test_a_neuron_is_a_node_with_its_responses_to_all_samples():
    x = rows(5, 3).requires_grad_()
    graph = neurons(x)
    assert graph.x.shape == (3, 5)
    for j in range(3):
        assert graph.x[j].tolist() == [x[i, j].item() for i in range(5)]
    assert graph.edge_index.shape == (2, 0)
    assert masses(graph).tolist() == [pytest.approx(1 / 3)] * 3
    assert torch.equal(torch.autograd.grad(graph.x[1].sum(), x)[0], torch.tensor([[0.0, 1.0, 0.0]] * 5))


def test_stacked_graphs_are_a_batch_of_problems():
    mass = torch.tensor([0.5, 0.2, 0.2, 0.1])
    first, second = point_cloud(rows(4, 3), mass), knn_graph(rows(4, 3).flip(0), 2)
    batch = stacked(first, second)
    assert torch.equal(batch.x, torch.stack([first.x, second.x]))
    assert torch.equal(masses(batch), torch.stack([mass, torch.full((4,), 0.25)]))
    assert batch.edge_index.shape == (2, 0)
    assert "negatives" not in batch
    assert batch.y is None
    assert stacked(first, second, first).x.shape == (3, 4, 3)


def test_negatives_labels_and_gradients_are_stacked_too():
    leaves = [(rows(4, 3).requires_grad_(), torch.rand(4, requires_grad=True)) for _ in range(2)]
    graphs = [point_cloud(x, mass) for x, mass in leaves]
    for k, graph in enumerate(graphs):
        graph.negatives = torch.arange(12.0).reshape(3, 4) + k
        graph.y = torch.tensor([1, 0, 2])
    batch = stacked(*graphs)
    assert torch.equal(batch.negatives, torch.stack([graphs[0].negatives, graphs[0].negatives + 1]))
    assert batch.y.tolist() == [1, 0, 2]
    (batch.x.sum() + 2 * batch.mass.sum()).backward()
    for x, mass in leaves:
        assert (x.grad == 1).all()
        assert (mass.grad == 2).all()


@pytest.mark.parametrize(("n", "d"), [(4, 2), (5, 3)])
def test_graphs_of_two_sizes_cannot_be_stacked(n, d):
    with pytest.raises(ValueError, match=rf"\(4, 3\).* \({n}, {d}\)"):
        stacked(point_cloud(rows(4, 3)), point_cloud(rows(n, d)))


def test_a_graph_is_continued_by_what_is_behind_in_another():
    partners, others = point_cloud(rows(5, 3), torch.tensor([0.6, 0.4, 0.0, 0.0, 0.0])), point_cloud(rows(7, 3).flip(0))
    others.mass = torch.tensor([0.1, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0])
    partners.negatives, others.negatives = torch.rand(2, 5), torch.rand(2, 7)
    partners.node, partners.y = "remembered", torch.tensor([4, 5])
    joined = continued(partners, others, 2)
    assert torch.equal(joined.x, torch.cat([partners.x[:2], others.x[2:]]))
    assert masses(joined).tolist() == pytest.approx([0.6, 0.4, 0, 0, 0, 0, 0])
    assert torch.equal(joined.negatives, torch.cat([partners.negatives[:, :2], others.negatives[:, 2:]], 1))
    assert (joined.node, joined.y.tolist()) == ("remembered", [4, 5])
    assert partners.x.shape == (5, 3) and others.x.shape == (7, 3)
    assert "negatives" not in continued(point_cloud(rows(5, 3)), others, 2)


@pytest.mark.parametrize(("n", "shape"), [(3, (2, 3)), (2, (4, 2))])
def test_a_graph_too_small_or_of_another_width_cannot_continue_one(n, shape):
    with pytest.raises(
        ValueError, match=rf"at least {n} nodes of one width .* \(4, 3\) and \({shape[0]}, {shape[1]}\)"
    ):
        continued(point_cloud(rows(4, 3)), point_cloud(rows(*shape)), n)
