"""Encoders: hop 0 is the projected graph, hop i is after the i-th convolution."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize
from torch_geometric.nn import GATConv, GCNConv, GraphConv, SAGEConv

from graphkd.encoders import GraphEncoder, Remembering, Several, shared
from graphkd.graphs import classes, knn_graph, masses, neurons, point_cloud, samples, similarity_graph
from graphkd.memory import MemoryBank


def joined(features):
    return knn_graph(features["feat"], k=3)


def weighted(features):
    return similarity_graph(features["feat"])


def heavy(features):
    return point_cloud(features["feat"], mass=features["mass"])


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return {"feat": torch.randn(7, 5, generator=generator)}


def test_without_parts_the_only_hop_is_the_builders_graph(features):
    (graph,) = GraphEncoder(joined, normalize=False)(features)
    assert torch.equal(graph.x, features["feat"])
    assert torch.equal(graph.edge_index, joined(features).edge_index)


def test_every_hop_is_the_equation(features):
    torch.manual_seed(0)
    embed, convs = nn.Linear(5, 4), [GraphConv(4, 6), SAGEConv(6, 3)]
    hops = GraphEncoder(joined, embed, convs)(features)
    x = normalize(embed(features["feat"]))
    expected = [x]
    for conv in convs:
        x = normalize(conv(x, joined(features).edge_index))
        expected.append(x)
    assert len(hops) == 3
    for hop, nodes in zip(hops, expected, strict=True):
        torch.testing.assert_close(hop.x, nodes)
        assert torch.equal(hop.edge_index, joined(features).edge_index)


def test_nodes_keep_their_length_without_normalisation(features):
    torch.manual_seed(0)
    embed, conv = nn.Linear(5, 4), GraphConv(4, 6)
    before, after = GraphEncoder(joined, embed, [conv], normalize=False)(features)
    torch.testing.assert_close(before.x, embed(features["feat"]))
    torch.testing.assert_close(after.x, conv(before.x, before.edge_index))


def test_masses_stay_at_every_hop(features):
    mass = torch.arange(1.0, 8.0) / 28
    hops = GraphEncoder(heavy, nn.Linear(5, 4), [GraphConv(4, 4)])({**features, "mass": mass})
    assert all(torch.equal(hop.mass, mass) for hop in hops)


def test_edge_weights_reach_the_convolution(features):
    torch.manual_seed(0)
    conv = GraphConv(5, 4)
    _, after = GraphEncoder(weighted, convs=[conv], normalize=False)({"feat": normalize(features["feat"])})
    graph = weighted({"feat": normalize(features["feat"])})
    torch.testing.assert_close(after.x, conv(graph.x, graph.edge_index, edge_weight=graph.edge_weight))
    assert not torch.allclose(after.x, conv(graph.x, graph.edge_index))


@pytest.mark.parametrize("conv", [SAGEConv, GATConv])
def test_a_convolution_that_would_drop_edge_weights_is_refused(features, conv):
    with pytest.raises(ValueError, match=f"takes edge_weight, got {conv.__name__}"):
        GraphEncoder(weighted, convs=[conv(5, 4)])(features)


def test_labels_become_y_at_every_hop_and_are_optional(features):
    encoder = GraphEncoder(joined, convs=[GCNConv(5, 4)])
    labels = torch.arange(7)
    assert all(torch.equal(hop.y, labels) for hop in encoder(features, labels))
    assert all(hop.y is None for hop in encoder(features))


def test_a_graph_that_the_builder_keeps_is_left_as_it_is(features):
    kept = joined(features)
    before = copy.copy(kept)
    encoder = GraphEncoder(lambda _: kept, nn.Linear(5, 4), [GCNConv(4, 4)])
    encoder(features, torch.arange(7))
    assert kept.keys() == before.keys()
    assert kept.x is before.x
    assert encoder(features)[0].y is None


def test_a_zero_row_stays_zero_with_a_finite_gradient():
    x = torch.eye(4)
    x[2] = 0
    x.requires_grad_()
    (graph,) = GraphEncoder(joined)({"feat": x})
    graph.x.sum().backward()
    assert torch.equal(graph.x[2], torch.zeros(4))
    assert x.grad.isfinite().all()


def test_gradient_reaches_features_projector_and_convolution(features):
    torch.manual_seed(0)
    encoder = GraphEncoder(joined, nn.Linear(5, 4), [GraphConv(4, 4)])
    features["feat"].requires_grad_()
    encoder(features)[1].x[:, 0].sum().backward()
    assert features["feat"].grad.abs().max() > 0
    assert all(p.grad.abs().max() > 0 for p in encoder.parameters())


def test_a_lazy_projector_reads_the_width_off_the_first_batch(features):
    encoder = GraphEncoder(joined, nn.LazyLinear(4))
    encoder(features)
    assert encoder.embed.weight.shape == (4, 5)


def test_repr_names_the_builder_and_the_learned_parts():
    text = repr(GraphEncoder(joined, nn.Linear(5, 4), [GCNConv(4, 3)], normalize=False))
    for part in ("joined", "normalize=False", "in_features=5", "GCNConv(4, 3)"):
        assert part in text


def by_label(features):
    """Nodes of which the first attribute is the label."""
    return point_cloud(torch.cat([features["labels"].unsqueeze(1).float(), features["feat"]], 1))


class Learned(nn.Module):
    """A builder that learns."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(5, 3)

    def forward(self, features):
        return point_cloud(self.map(features["feat"]))


@pytest.mark.parametrize("encoder", [GraphEncoder(by_label, normalize=False), Several(by_label)])
def test_labels_reach_the_builder_as_a_feature_without_changing_the_callers(features, encoder):
    labels = torch.arange(7) * 10
    (graph,) = encoder(features, labels)
    assert graph.x[:, 0].tolist() == labels.tolist()
    assert torch.equal(graph.x[:, 1:], features["feat"])
    assert torch.equal(graph.y, labels)
    assert list(features) == ["feat"]


@pytest.mark.parametrize("encoder", [GraphEncoder(by_label, normalize=False), Several(by_label)])
def test_without_labels_the_builder_gets_none(features, encoder):
    with pytest.raises(KeyError, match="labels"):
        encoder(features)


@pytest.mark.parametrize("encoder", [lambda build: GraphEncoder(build, normalize=False), Several])
def test_a_builder_that_learns_is_a_part_of_its_encoder(features, encoder):
    build = Learned()
    model = encoder(build)
    (graph,) = model(features)
    torch.testing.assert_close(graph.x, build.map(features["feat"]))
    assert {id(p) for p in model.parameters()} == {id(p) for p in build.parameters()}


def test_the_last_hop_is_that_of_the_last_convolution():
    assert GraphEncoder(joined).last_hop == 0
    assert GraphEncoder(joined, convs=[GraphConv(5, 4), GraphConv(4, 4)]).last_hop == 2


# Several


def test_several_graphs_are_those_of_the_builders_in_their_order(features):
    features["mass"] = torch.arange(1.0, 8.0) / 28
    encoder = Several(joined, heavy, weighted)
    graphs = encoder(features)
    assert encoder.last_hop == 2
    for graph, build in zip(graphs, (joined, heavy, weighted), strict=True):
        wanted = build(features)
        assert torch.equal(graph.x, features["feat"])
        assert torch.equal(graph.edge_index, wanted.edge_index)
        assert graph.y is None
    assert torch.equal(graphs[1].mass, features["mass"])
    assert torch.equal(graphs[2].edge_weight, weighted(features).edge_weight)


def test_labels_become_y_of_every_one_and_what_a_builder_keeps_is_left_as_it_is(features):
    kept, labels = joined(features), torch.arange(7)
    encoder = Several(lambda _: kept, heavy)
    graphs = encoder({**features, "mass": torch.ones(7)}, labels)
    assert all(torch.equal(graph.y, labels) for graph in graphs)
    assert kept.y is None


def test_several_needs_a_builder():
    with pytest.raises(ValueError, match="at least one"):
        Several()


# Remembering


def remembering(num_negatives=6, convs=(), width=3, blend=None):
    torch.manual_seed(0)
    bank = MemoryBank(num_samples=20, dim=width, momentum=0.3)
    return Remembering(GraphEncoder(joined, nn.Linear(5, width), convs), bank, num_negatives, blend)


@pytest.fixture
def placed(features):
    """Features of seven samples that stand at these places of the data set."""
    return {**features, "index": torch.tensor([4, 19, 0, 7, 3, 11, 12])}


def test_behind_the_hops_comes_what_was_remembered_of_the_batch(placed):
    encoder = remembering(convs=[GraphConv(3, 4)])
    rows = encoder.bank.rows.clone()
    wanted = encoder.encoder(placed)
    *hops, remembered = encoder(placed)
    assert encoder.last_hop == 2
    assert len(hops) == 2
    for hop, expected in zip(hops, wanted, strict=True):
        assert torch.equal(hop.x, expected.x)
    # As it was before this batch.
    assert torch.equal(remembered.x[:7], rows[placed["index"]])
    assert remembered.x.shape == (13, 3)
    torch.testing.assert_close(masses(remembered), torch.tensor([1 / 7] * 7 + [0.0] * 6))
    assert remembered.negatives.shape == (7, 13)


def test_other_rows_are_drawn_in_every_call(placed):
    encoder = remembering(num_negatives=50).eval()
    first, second = (encoder(placed)[-1] for _ in range(2))
    assert torch.equal(first.x[:7], second.x[:7])
    assert not torch.equal(first.x, second.x)
    torch.manual_seed(5)
    third = encoder(placed)[-1]
    torch.manual_seed(5)
    assert torch.equal(encoder(placed)[-1].x, third.x)


def test_training_brings_hop_0_of_the_batch_up_to_date_and_nothing_else(placed):
    encoder = remembering(convs=[GraphConv(3, 3)])
    before = encoder.bank.rows.clone()
    x = encoder(placed)[0].x.detach()
    for i, place in enumerate(placed["index"].tolist()):
        torch.testing.assert_close(encoder.bank.rows[place], normalize(0.3 * before[place] + 0.7 * x[i], dim=0))
    left = [k for k in range(20) if k not in placed["index"].tolist()]
    assert torch.equal(encoder.bank.rows[left], before[left])
    assert (encoder.bank.labels == -100).all()


def test_outside_of_training_nothing_is_remembered(placed):
    encoder = remembering().eval()
    before = encoder.bank.rows.clone()
    encoder(placed, torch.arange(7))
    assert torch.equal(encoder.bank.rows, before)
    assert (encoder.bank.labels == -100).all()


def test_labels_are_remembered_and_keep_a_sample_from_its_own_class(placed):
    encoder, labels = remembering(num_negatives=200), torch.tensor([0, 1, 2, 0, 1, -100, 0])
    first = encoder(placed, labels)
    assert all(torch.equal(hop.y, labels) for hop in first[:-1])
    assert encoder.bank.labels[placed["index"]].tolist() == labels.tolist()
    rows, known = encoder.bank.rows.clone(), encoder.bank.labels.clone()
    remembered = encoder(placed, labels)[-1]
    for j, row in enumerate(remembered.x[7:]):
        (drawn,) = (rows == row).all(1).nonzero().flatten().tolist()
        for i, place in enumerate(placed["index"].tolist()):
            same = labels[i] != -100 and labels[i] == known[drawn]
            assert remembered.negatives[i, 7 + j] == float(drawn != place and not same)


def test_given_negatives_take_the_place_of_a_draw(placed):
    encoder = remembering().eval()
    negatives = torch.randint(20, (7, 4))
    remembered = encoder({**placed, "negatives": negatives})[-1]
    assert torch.equal(remembered.x, torch.cat([encoder.bank.rows[placed["index"]], encoder.bank.rows]))
    for i in range(7):
        counts = torch.bincount(negatives[i], minlength=20)
        assert remembered.negatives[i].tolist() == [0.0] * 7 + counts.tolist()


def test_no_gradient_enters_the_memory_and_one_leaves_by_the_hops(placed):
    encoder = remembering()
    placed["feat"].requires_grad_()
    for _ in range(2):
        hop, remembered = encoder(placed)
        assert not remembered.x.requires_grad
        assert not encoder.bank.rows.requires_grad
        # The update in between must not touch what the backward pass needs.
        (hop.x @ remembered.x.T).sum().backward()
    assert placed["feat"].grad.abs().max() > 0
    assert {name for name, _ in encoder.named_parameters()} == {"encoder.embed.weight", "encoder.embed.bias"}


@pytest.mark.parametrize("training", [True, False])
def test_a_blended_graph_has_partners_between_the_remembered_and_the_last_hop(placed, training):
    encoder = remembering(convs=[GraphConv(3, 3), GraphConv(3, 3)], blend=0.25).train(training)
    rows = encoder.bank.rows.clone()
    *hops, remembered, blended = encoder(placed)
    assert len(hops) == 3
    assert encoder.last_hop == 4
    for i, place in enumerate(placed["index"].tolist()):
        wanted = 0.75 * rows[place] + 0.25 * hops[-1].x[i].detach()
        torch.testing.assert_close(blended.x[i], wanted / wanted.norm())
    assert torch.equal(blended.x[7:], remembered.x[7:])
    assert torch.equal(blended.negatives, remembered.negatives)
    assert torch.equal(masses(blended), masses(remembered))
    assert blended.node == "remembered"
    assert not blended.x.requires_grad
    assert torch.equal(remembered.x[:7], rows[placed["index"]])


def test_a_memory_blends_only_rows_of_its_own_width(placed):
    with pytest.raises(ValueError, match=r"memory of width 3 can only be blended with such rows, got \(7, 4\)"):
        remembering(convs=[GraphConv(3, 4)], blend=0.25)(placed)


@pytest.mark.parametrize("blend", [-0.1, 1.5])
def test_a_blend_is_a_share(blend):
    with pytest.raises(ValueError, match=r"blend needs a number in \[0, 1\]"):
        remembering(blend=blend)


def test_a_memory_needs_to_know_where_samples_stand(features):
    with pytest.raises(KeyError, match=r"needs a feature named 'index', got \['feat'\]"):
        remembering()(features)
    with pytest.raises(ValueError, match="a memory of 20 samples needs .* got 5 to 20"):
        remembering()({**features, "index": torch.tensor([5, 6, 7, 8, 9, 10, 20])})


def test_a_memory_needs_a_negative():
    with pytest.raises(ValueError, match="num_negatives needs an integer of at least 1, got 0"):
        remembering(num_negatives=0)


def test_a_memory_is_saved_with_its_encoder(placed):
    encoder, fresh = remembering(), remembering()
    encoder(placed, torch.arange(7))
    fresh.load_state_dict(encoder.state_dict())
    assert torch.equal(fresh.bank.rows, encoder.bank.rows)
    assert torch.equal(fresh.bank.labels, encoder.bank.labels)


def test_a_memory_takes_the_most_likely_class_of_soft_labels():
    features = {"feat": torch.randn(4, 3), "index": torch.tensor([3, 0, 5, 1])}
    soft = torch.rand(4, 6)
    hard = soft.argmax(1)
    found = []
    for labels in (soft, hard):
        torch.manual_seed(1)
        encoder = Remembering(GraphEncoder(samples), MemoryBank(8, 3), 20)
        encoder(features, labels)
        torch.manual_seed(2)
        found.append(encoder(features, labels)[-1].negatives)
        assert encoder.bank.labels[features["index"]].tolist() == hard.tolist()
    assert torch.equal(*found)


def test_labels_are_only_of_nodes_that_are_samples():
    labels = torch.tensor([1, 0, 1])
    features = {"feat": torch.randn(3, 3), "logits": torch.randn(3, 4)}
    builds = (
        lambda f: point_cloud(f["feat"]),
        lambda f: neurons(f["feat"]),
        lambda f: classes(f["logits"]),
    )
    of_samples, of_neurons, of_classes = Several(*builds)(features, labels)
    assert torch.equal(of_samples.y, labels) and of_samples.get("node") is None
    assert of_neurons.y is None and of_neurons.node == "neuron"
    assert of_classes.y.tolist() == [0, 1, 2, 3] and of_classes.node == "class"


# What is built once for all criteria.


class Counting:
    """A builder that counts its calls by what it was asked for."""

    def __init__(self):
        self.calls = []

    def __call__(self, features, name="feat", k=1):
        self.calls.append((name, k))
        return point_cloud(features[name])


def test_equal_builders_run_once_for_all_that_share_features():
    build = Counting()
    features = shared({"feat": torch.randn(4, 3), "logits": torch.randn(4, 2)})
    for again in (build, partial(build), partial(build, name="feat"), partial(build, k=2), partial(build, k=2)):
        GraphEncoder(again)(features)
    Several(partial(build, name="logits"), partial(build, name="logits"))(features)
    assert build.calls == [("feat", 1), ("feat", 1), ("feat", 1), ("feat", 2), ("logits", 1)]
    GraphEncoder(partial(build, k=2))({"feat": torch.randn(4, 3)})
    assert build.calls[-1] == ("feat", 2)
    assert len(build.calls) == 6


def test_other_labels_are_another_graph():
    build = Counting()
    features, labels = shared({"feat": torch.randn(4, 3)}), torch.arange(4)
    for given in (None, labels, labels, labels.clone()):
        (graph,) = GraphEncoder(build)(features, given)
        assert graph.y is given
    assert len(build.calls) == 3


def test_builders_whose_arguments_have_no_hash_are_run_each_time_by_themselves():
    calls = []

    def build(features, names):
        calls.append(names)
        return point_cloud(features[names[0]])

    features = shared({"feat": torch.randn(4, 3)})
    one, other = partial(build, names=["feat"]), partial(build, names=["feat"])
    for each in (one, one, other):
        GraphEncoder(each)(features)
    assert len(calls) == 2


def test_learned_builders_are_equal_only_to_themselves():
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, features):
            return point_cloud(self.linear(features["feat"]))

    features = shared({"feat": torch.randn(4, 3)})
    first, second = (GraphEncoder(Learned())(features)[0].x for _ in range(2))
    assert not torch.equal(first, second)


def test_a_shared_graph_is_not_changed_by_those_that_use_it():
    features = shared({"feat": torch.randn(4, 3)})
    (plain,) = GraphEncoder(samples, normalize=False)(features)
    (embedded,) = GraphEncoder(samples, nn.Linear(3, 2))(features)
    (again,) = GraphEncoder(samples, normalize=False)(features)
    assert embedded.x.shape == (4, 2)
    assert torch.equal(plain.x, again.x)
    assert torch.equal(again.x, features["feat"])


def test_half_precision_is_raised_once():
    features = shared({"feat": torch.randn(4, 3).bfloat16()})
    assert features["feat"].dtype == torch.float32
    assert shared(features) is features
