"""Relations against plain loops, value and gradient."""

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd.couplings import Sinkhorn
from graphkd.graphs import knn_graph, point_cloud, similarity_graph
from graphkd.measures import cosine, euclidean, sqeuclidean
from graphkd.relations import Adjacency, Angle, Pairwise, SelfPlan, by_mean


def nodes(n: int = 5, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()


def one_cosine(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y) / (x.norm() * y.norm())


@pytest.mark.parametrize(
    "measure, pair", [(cosine, one_cosine), (sqeuclidean, lambda x, y: (x - y).square().sum())], ids=["cos", "sq"]
)
def test_pairwise_equals_a_loop_in_value_and_gradient(measure, pair):
    x = nodes()
    wanted = torch.stack([torch.stack([pair(row, other) for other in x]) for row in x])
    got = Pairwise(measure)(Data(x=x))
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    weight = torch.linspace(-1, 2, 25, dtype=x.dtype).reshape(5, 5)
    (gradient,) = torch.autograd.grad((weight * got).sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad((weight * wanted).sum(), x)[0], atol=1e-12, rtol=0)


def test_pairwise_is_cosine_unless_told():
    graph = Data(x=nodes())
    assert torch.equal(Pairwise()(graph), cosine(graph.x, graph.x))


def test_normalised_distances_are_those_of_a_loop_over_pairs_apart():
    x = nodes().detach()
    apart = [(x[i] - x[j]).norm() for i in range(5) for j in range(5) if i != j]
    mean = sum(apart) / 20
    got = Pairwise(euclidean, by_mean)(Data(x=x))
    for i in range(5):
        for j in range(5):
            wanted = 0.0 if i == j else float((x[i] - x[j]).norm() / mean)
            assert float(got[i, j]) == pytest.approx(wanted, abs=1e-12)


def test_normalised_distances_do_not_count_the_diagonal_in_float32():
    x = torch.randn(64, 512) + 1
    got = Pairwise(euclidean, by_mean)(Data(x=x))
    wanted = Pairwise(euclidean, by_mean)(Data(x=x.double()))
    torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=0)


def test_normalised_distances_do_not_depend_on_scale():
    x = nodes().detach()
    relation = Pairwise(euclidean, by_mean)
    torch.testing.assert_close(relation(Data(x=x)), relation(Data(x=7 * x)))


def test_by_mean_averages_positive_entries_only():
    relation = torch.tensor([[0.0, 2.0], [6.0, -4.0]], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(by_mean(relation), relation / 4)
    apart = torch.tensor([[0.5, 2.0], [6.0, 3.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(by_mean, apart)


def test_by_mean_of_nothing_is_nothing_with_a_finite_gradient():
    relation = torch.zeros(3, 3, requires_grad=True)
    got = by_mean(relation)
    assert got.abs().sum() == 0
    (100 * (got - 1).square()).sum().backward()
    assert torch.isfinite(relation.grad).all()
    assert relation.grad.abs().max() < 1e4


@pytest.mark.parametrize("measure", [euclidean, cosine])
def test_collapsed_nodes_have_a_finite_gradient(measure):
    x = torch.zeros(4, 3, requires_grad=True)
    (Pairwise(measure, by_mean)(Data(x=x)) - 1).square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_adjacency_has_centres_in_rows_and_sources_in_columns():
    graph = knn_graph(nodes(6).detach(), 2)
    dense = Adjacency()(graph)
    edges = {tuple(edge) for edge in graph.edge_index.T.tolist()}
    for i in range(6):
        for k in range(6):
            assert dense[i, k] == float((k, i) in edges)
    assert dense.sum(1).tolist() == [2.0] * 6
    assert dense.sum(0).tolist() != [2.0] * 6


def test_adjacency_of_a_weighted_graph_is_the_measure_with_its_gradient():
    x = nodes()
    got = Adjacency()(similarity_graph(x, loop=True))
    torch.testing.assert_close(got, cosine(x, x), atol=1e-12, rtol=0)
    weight = torch.linspace(-1, 2, 25, dtype=x.dtype).reshape(5, 5)
    (gradient,) = torch.autograd.grad((weight * got).sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad((weight * cosine(x, x)).sum(), x)[0], atol=1e-12, rtol=0)


def test_adjacency_without_edges_is_zero_and_keeps_nodes_that_nothing_joins():
    assert Adjacency()(point_cloud(torch.ones(3, 2))).tolist() == [[0.0] * 3] * 3
    graph = Data(x=torch.ones(4, 1), edge_index=torch.tensor([[1], [0]]))
    assert Adjacency()(graph).shape == (4, 4)


def test_adjacency_is_in_the_precision_of_the_nodes_but_never_half():
    for dtype, wanted in [(torch.float16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2]:
        x = torch.randn(4, 3).to(dtype)
        assert Adjacency()(similarity_graph(x)).dtype == wanted
        assert Adjacency()(knn_graph(x, 2)).dtype == wanted


def test_relations_refuse_graphs_that_lack_what_they_read():
    with pytest.raises(ValueError, match="an adjacency needs edges, got Data"):
        Adjacency()(Data(x=torch.ones(3, 2)))
    for relation in (Adjacency(), Pairwise()):
        with pytest.raises(ValueError, match="nodes needs a graph with attributes x, got Data"):
            relation(Data(num_nodes=3, edge_index=torch.zeros(2, 0, dtype=torch.int64)))


def test_another_attribute_of_the_nodes_can_be_measured():
    graph = Data(x=torch.zeros(3, 1), feat=torch.randn(3, 4))
    torch.testing.assert_close(Pairwise(cosine, on="feat")(graph), cosine(graph.feat, graph.feat))
    with pytest.raises(ValueError, match="attributes feat"):
        Pairwise(cosine, on="feat")(Data(x=torch.zeros(3, 1)))


@pytest.mark.parametrize("uniform", [True, False])
def test_a_self_plan_is_the_density_of_the_graphs_transport_onto_itself(uniform):
    x = torch.randn(5, 3, dtype=torch.float64)
    mass = torch.full((5,), 0.2, dtype=torch.float64) if uniform else torch.rand(5, dtype=torch.float64).softmax(0)
    graph = Data(x=x) if uniform else Data(x=x, mass=mass)
    density = SelfPlan(Pairwise(sqeuclidean), Sinkhorn(0.7, 30, gradient="unroll"))(graph)
    kernel = (-torch.cdist(x, x).square() / 0.7).exp()
    v = mass
    for _ in range(30):
        u = mass / (kernel @ v)
        v = mass / (kernel.T @ u)
    torch.testing.assert_close(density, u.unsqueeze(1) * kernel * v / (mass.unsqueeze(1) * mass))
    assert float((density * mass.unsqueeze(1) * mass).sum()) == pytest.approx(1)


def test_a_self_plan_ignores_nodes_without_mass_and_has_a_finite_gradient():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    graph = Data(x=x, mass=torch.tensor([0.5, 0.0, 0.2, 0.3], dtype=torch.float64))
    relation = SelfPlan(Pairwise(sqeuclidean), Sinkhorn(0.7, 30, gradient="unroll"))
    density = relation(graph)
    kept = [0, 2, 3]
    alone = relation(Data(x=x[kept], mass=graph.mass[kept]))
    torch.testing.assert_close(density[kept][:, kept], alone)
    assert (density[1] == 0).all()
    (gradient,) = torch.autograd.grad(density.square().sum(), x)
    assert gradient.isfinite().all()
    assert (gradient[kept] != 0).any()


def test_a_self_plan_needs_a_coupling_whose_plan_has_a_gradient():
    with pytest.raises(ValueError, match="differentiates its plan"):
        SelfPlan(Pairwise(cosine), Sinkhorn(0.1))


def angle_by_loops(x: Tensor, i: int, j: int, k: int) -> Tensor:
    one, other = x[j] - x[i], x[k] - x[i]
    return one_cosine(one, other) if one.norm() > 0 and other.norm() > 0 else x.new_zeros(())


@pytest.mark.parametrize(
    ("num_vertices", "vertices"), [(None, range(5)), (2, [0, 2]), (4, [0, 1, 2, 3]), (9, range(5))]
)
def test_angles_equal_a_loop_in_value_and_gradient(num_vertices, vertices):
    x = nodes()
    got = Angle(num_vertices)(Data(x=x))
    wanted = torch.stack(
        [torch.stack([torch.stack([angle_by_loops(x, i, j, k) for k in range(5)]) for j in range(5)]) for i in vertices]
    )
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    weight = torch.linspace(-1, 2, got.numel(), dtype=x.dtype).reshape(got.shape)
    (gradient,) = torch.autograd.grad((weight * got).sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad((weight * wanted).sum(), x)[0], atol=1e-11, rtol=0)


def test_angles_with_a_sample_that_coincides_are_zero_with_a_finite_gradient():
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [4.0, 6.0], [1.0, 3.0]], requires_grad=True)
    got = Angle()(Data(x=x))
    assert (got[0, 1] == 0).all() and (got[0, :, 1] == 0).all() and (got[1, 0] == 0).all()
    assert float(got[0, 2, 3].detach()) == pytest.approx(0.8)
    got.sum().backward()
    assert x.grad.isfinite().all()


def test_angles_stay_exact_far_from_the_origin_in_float32():
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    wanted = Angle()(Data(x=x.double()))
    torch.testing.assert_close(Angle()(Data(x=x + 50)).double(), wanted, atol=1e-4, rtol=0)
    assert float(Angle()(Data(x=x)).abs().max()) < 1 + 1e-5


def test_angles_hold_no_differences_of_all_pairs(count_operations):
    n, d, v = 40, 300, 3
    with count_operations() as operations:
        Angle(v)(Data(x=torch.randn(n, d)))
    assert operations.largest == n * d
    with count_operations() as operations:
        Angle()(Data(x=torch.randn(n, d)))
    assert operations.largest == n**3


def test_angles_refuse_what_is_not_one_graph():
    with pytest.raises(ValueError, match=r"\(n, d\), got shape \(2, 3, 4\)"):
        Angle()(Data(x=torch.zeros(2, 3, 4)))
    with pytest.raises(ValueError, match="num_vertices"):
        Angle(0)
