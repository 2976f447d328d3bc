"""Published losses are settings of the one loss: value and gradient against their formulas, written again here."""

import pytest
import torch
from torch.nn import functional as F
from torch_geometric.data import Data

from graphkd import GraphLoss, graphs
from graphkd.couplings import IPOT, Exact, FusedGromov, Identity, SharedSinkhorn, Sinkhorn
from graphkd.discrepancies import smooth_l1
from graphkd.measures import Fixed, cosine_distance, euclidean, inner, sqeuclidean, zscored_cosine
from graphkd.ot import exact
from graphkd.reductions import PlanGap, TransportCost
from graphkd.relations import Adjacency, Pairwise, by_mean


def draw(*size):
    return torch.randn(*size, dtype=torch.float64)


def assert_same(ours, published, *inputs, rtol=1e-8):
    """In value and in the gradient of every input."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    values = ours(*leaves), published(*leaves)
    torch.testing.assert_close(*values, rtol=rtol, atol=0)
    for actual, expected in zip(*(torch.autograd.grad(value, leaves) for value in values), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=rtol * float(expected.abs().max()))


def cloud(x):
    return graphs.point_cloud(x)


def on_rows(loss, builder=cloud):
    return lambda x, y: loss(builder(x), builder(y))


def test_optimal_transport_graph_distillation():
    def published(student, teacher):
        similarity = F.normalize(teacher, dim=1) @ F.normalize(student, dim=1).T
        plan = ((similarity - similarity.mean()) / similarity.std()).exp()
        for _ in range(3):  # two sweeps and the last normalisation; rows are the teacher's
            plan = plan / plan.sum(1, keepdim=True)
            plan = plan / plan.sum(0, keepdim=True)
        return torch.linalg.matrix_norm(plan - torch.eye(len(plan), dtype=plan.dtype))

    sinkhorn = Sinkhorn(1.0, 3, order="columns_first", gradient="unroll")
    loss = GraphLoss(zscored_cosine, coupling=sinkhorn, reduction=PlanGap())
    assert_same(on_rows(loss), published, draw(7, 4), draw(7, 4))


def test_wasserstein_knowledge_distillation_on_logits():
    cost = draw(6, 6).abs().fill_diagonal_(0)
    labels, temperature, epsilon = torch.tensor([2, 0, 5, 2]), 3.0, 0.4

    def published(student, teacher):
        total = 0
        for s, t, y in zip(student, teacher, labels, strict=True):
            kept = [c for c in range(6) if c != y]
            a, b = (s[kept] / temperature).softmax(0), (t[kept] / temperature).softmax(0)
            part = cost[kept][:, kept]
            kernel, u = (-part / epsilon).exp(), a  # a is where potentials of zero begin
            for _ in range(10):
                v = b / (kernel.T @ u)
                u = a / (kernel @ v)
            total = total + (u.unsqueeze(1) * kernel * v * part).sum()
        return total / len(labels)

    loss = GraphLoss(Fixed(cost), coupling=SharedSinkhorn(epsilon, 10, order="columns_first"))
    nodes = lambda logits: graphs.classes(logits, temperature, labels)  # noqa: E731
    assert_same(on_rows(loss, nodes), published, draw(4, 6), draw(4, 6))


def test_wasserstein_knowledge_distillation_on_features():
    def published(student, teacher):
        gap = 0
        for moment in (lambda x: x.mean((2, 3)), lambda x: (x.var((2, 3)) + 1e-5).sqrt()):
            gap = gap + (moment(student) - moment(teacher)).square().sum() / len(student)
        return gap

    def nodes(maps):
        return cloud(graphs.moments(maps, eps=1e-5).x.squeeze(1))

    assert_same(on_rows(GraphLoss(sqeuclidean), nodes), published, draw(5, 3, 4, 4), draw(5, 3, 6, 2))


def test_the_local_term_of_wasserstein_contrastive_distillation():
    def published(student, teacher):
        cost = 1 - F.normalize(teacher, dim=1) @ F.normalize(student, dim=1).T
        with torch.no_grad():
            n = len(cost)
            kernel, plan, columns = (-cost / 0.5).exp(), torch.ones_like(cost), torch.full_like(cost[0], 1 / n)
            for _ in range(50):
                q = kernel * plan
                rows = 1 / (n * (q @ columns))
                columns = 1 / (n * (q.T @ rows))
                plan = rows.unsqueeze(1) * q * columns
        return (plan * cost).sum()

    loss = GraphLoss(cosine_distance, coupling=IPOT(0.5, 50, order="columns_first"))
    assert_same(on_rows(loss), published, draw(7, 4), draw(7, 4))


def test_representation_transfer_by_optimal_transport():
    def published(student, teacher):
        cost = torch.cdist(student.T, teacher.T)
        return (exact(cost.detach()).plan * cost).sum()

    assert_same(on_rows(GraphLoss(euclidean, coupling=Exact()), graphs.neurons), published, draw(9, 4), draw(9, 6))


def test_fused_gromov_wasserstein_of_nodes_alone_is_the_local_term_of_wasserstein_contrastive_distillation():
    fused = GraphLoss(cosine_distance, Adjacency(), FusedGromov(alpha=0.0), TransportCost(alpha=0.0))
    local = GraphLoss(cosine_distance, coupling=IPOT(0.05, 5000))
    assert_same(on_rows(fused), on_rows(local), draw(6, 4), draw(6, 4), rtol=1e-5)


@pytest.mark.parametrize(
    ("relation", "discrepancy", "published"),
    [
        (Pairwise(inner), None, lambda x: x @ x.T),
        (Pairwise(euclidean, by_mean), smooth_l1, lambda x: torch.cdist(x, x) / F.pdist(x).mean()),
    ],
    ids=["similarity-preserving", "relational"],
)
def test_at_the_identity_the_structure_alone_is_the_relational_family(relation, discrepancy, published):
    reduction = TransportCost(1.0) if discrepancy is None else TransportCost(1.0, discrepancy)
    loss = GraphLoss(relation=relation, coupling=Identity(), reduction=reduction)
    compare = F.mse_loss if discrepancy is None else F.smooth_l1_loss
    # Widths differ: relations need no projector.
    assert_same(on_rows(loss), lambda x, y: compare(published(x), published(y)), draw(6, 3), draw(6, 5))


def test_with_nodes_the_identity_adds_feature_matching():
    loss = GraphLoss(sqeuclidean, Pairwise(inner), Identity(), TransportCost(alpha=0.3))

    def published(x, y):
        return 0.7 * (x - y).square().sum() / len(x) + 0.3 * F.mse_loss(x @ x.T, y @ y.T)

    assert_same(on_rows(loss), published, draw(6, 3), draw(6, 3))


def test_the_identity_is_where_an_optimised_plan_may_start():
    x = draw(6, 3)
    nodes = Data(x=x)
    loss = GraphLoss(sqeuclidean, Pairwise(euclidean), FusedGromov(start="identity"), TransportCost(alpha=0.5))
    assert float(loss(nodes, nodes)) == pytest.approx(0, abs=1e-12)
