"""Encoders: hop 0 is the projected graph, hop i is after the i-th convolution."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize
from torch_geometric.nn import GATConv, GCNConv, GraphConv, SAGEConv

from graphkd.encoders import GraphEncoder
from graphkd.graphs import knn_graph, point_cloud, similarity_graph


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
