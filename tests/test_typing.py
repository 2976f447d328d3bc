"""How a comparison shows itself."""

import re

import pytest
import torch
from torch_geometric.data import Data

from graphkd import GraphLoss
from graphkd.couplings import Sinkhorn
from graphkd.graphs import knn_graph, point_cloud, stacked
from graphkd.measures import cosine, sqeuclidean
from graphkd.relations import Pairwise
from graphkd.typing import Comparison


def rows(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def shown(seen):
    """The lines of a comparison's text as {name: what}."""
    first, *lines, last = repr(seen).splitlines()
    assert (first, last) == ("Comparison(", ")")
    return dict(re.split(" +", line.strip(), maxsplit=1) for line in lines)


def of_plan(plan, **kwargs):
    """A comparison that holds a plan."""
    batch = plan.shape[:-2]
    graphs = (Data(x=torch.zeros(2, 1)), Data(x=torch.zeros(2, 1)))
    fields = {"marginal_error": torch.zeros(batch), "converged": torch.ones(batch, dtype=torch.bool)}
    return Comparison(torch.ones(()), plan, None, None, **(fields | kwargs), graphs=graphs)


def test_text_says_in_a_few_lines_what_was_compared():
    student, teacher = knn_graph(rows(4, 3), k=2), point_cloud(rows(5, 3, seed=1))
    seen = GraphLoss(sqeuclidean, Pairwise(cosine), Sinkhorn(1.0, num_iters=200)).compare(student, teacher)
    told = shown(seen)
    assert list(told) == ["value", "plan", "cost", "relations", "marginals", "student", "teacher"]
    assert float(told["value"]) == pytest.approx(float(seen.value), rel=1e-5)
    assert told["plan"] == told["cost"] == "4 x 5"
    assert told["relations"] == "4 x 4 and 5 x 5"
    assert re.fullmatch("off by [0-9.e-]+ of the mass, converged", told["marginals"])
    assert told["student"] == "4 nodes, width 3, 8 edges"
    assert told["teacher"] == "5 nodes, width 3, no edges"
    bare = shown(seen._replace(cost=None, relations=None))
    assert bare["cost"] == bare["relations"] == "none"


@pytest.mark.parametrize("sparse", [False, True])
def test_mass_on_the_diagonal_is_a_share_of_all_mass(sparse):
    plan = torch.tensor([[0.25, 0.5], [0.75, 0.5]])
    assert shown(of_plan(plan.to_sparse() if sparse else plan))["plan"] == "2 x 2, 37.5 % of the mass on the diagonal"
    empty = torch.zeros(2, 2)
    assert shown(of_plan(empty.to_sparse() if sparse else empty))["plan"] == "2 x 2, no mass"
    assert shown(of_plan(torch.ones(2, 3)))["plan"] == "2 x 3"


@pytest.mark.parametrize("sparse", [False, True])
def test_several_problems_are_counted(sparse):
    plan = torch.stack([torch.eye(3) / 3, torch.ones(3, 3) / 9])
    seen = of_plan(
        plan.to_sparse() if sparse else plan,
        marginal_error=torch.tensor([0.001, 0.25]),
        converged=torch.tensor([True, False]),
    )
    told = shown(seen)
    assert told["plan"] == "2 of 3 x 3, 66.7 % of the mass on the diagonal"
    assert told["marginals"] == "off by 0.25 of the mass, 1 of 2 problems converged"
    both = stacked(point_cloud(rows(3, 2)), point_cloud(rows(3, 2, seed=1)))
    assert shown(seen._replace(graphs=(both, both)))["teacher"] == "2 of 3 nodes, width 2, no edges"


def test_one_problem_that_did_not_converge_is_told():
    told = shown(of_plan(torch.eye(2), converged=torch.tensor(False), marginal_error=torch.tensor(0.03)))
    assert told["marginals"] == "off by 0.03 of the mass, not converged"


def test_graphs_without_attributes_are_told_by_their_nodes():
    bare = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=3)
    assert shown(of_plan(torch.eye(2))._replace(graphs=(bare, bare)))["student"] == "3 nodes, 2 edges"


def test_text_and_picture_come_without_warnings_where_there_are_gradients():
    x = rows(4, 3).requires_grad_()
    seen = GraphLoss(sqeuclidean, coupling=Sinkhorn(1.0, gradient="unroll")).compare(Data(x=x), Data(x=rows(4, 3)))
    assert seen.plan.requires_grad
    assert "value" in repr(seen)
    assert "data:image/png" in seen._repr_html_()


def test_html_has_the_same_facts_and_the_plan():
    seen = of_plan(torch.eye(2) / 2)
    text = seen._repr_html_()
    for name, what in shown(seen).items():
        assert f">{name}</th>" in text and f">{what}</td>" in text
    assert 'alt="the plan, 2 student rows by 2 teacher columns"' in text
    assert "Picture: the plan; rows are student nodes" in text


def test_html_of_a_large_plan_says_that_it_is_shrunk():
    assert "means of blocks" in of_plan(torch.ones(2, 65))._repr_html_()
    assert "means of blocks" in of_plan(torch.ones(65, 2))._repr_html_()
    assert "means of blocks" not in of_plan(torch.ones(64, 64))._repr_html_()


@pytest.mark.parametrize("sparse", [False, True])
def test_html_of_several_problems_shows_their_mean_and_says_so(sparse):
    plans = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]).expand(3, 2, 1, 3)
    text = of_plan(plans.to_sparse() if sparse else plans)._repr_html_()
    assert "the mean of 6 plans, 1 student rows by 3 teacher columns" in text
    mean = of_plan(torch.tensor([[0.5, 0.5, 0.0]]))._repr_html_()
    assert re.search('src="[^"]+"', text)[0] == re.search('src="[^"]+"', mean)[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_a_comparison_on_an_accelerator_shows_itself():
    here = of_plan(torch.eye(3) / 3)
    there = here._replace(
        **{name: getattr(here, name).cuda() for name in ("value", "plan", "marginal_error", "converged")}
    )
    assert repr(there) == repr(here)
    assert there._repr_html_() == here._repr_html_()
