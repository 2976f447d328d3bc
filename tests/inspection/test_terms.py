from base64 import b64decode

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from graphkd import metrics
from graphkd.inspection.terms import EDGES_PER_NODE, choices, term

LABELS = torch.tensor([1, 0, 1, 0])
ORDER = [1, 3, 0, 2]


def words(text):
    return np.frombuffer(b64decode(text), dtype="<u2")


def plan_of(said, at=0):
    shape = len(said["rows"]["index"]), len(said["columns"]["index"])
    packed = said["plan"]
    return packed["scale"] * (words(packed["parts"][packed["at"][at]]) / 65535.0).reshape(shape) ** 2


def measures(said):
    return {each["name"]: each["values"] for each in said["measures"]}


def one(make, plan, labels=LABELS, **rest):
    (choice,) = choices([{"a": make.compared(plan, **rest)}])
    return term(choice, labels)


def test_rows_and_columns_of_the_plan_come_in_the_order_of_the_page(make):
    plan = torch.arange(1.0, 17).view(4, 4) / 136
    said = one(make, plan)
    assert said["rows"]["index"] == said["columns"]["index"] == ORDER
    assert said["rows"]["classes"] == [0, 0, 1, 1]
    np.testing.assert_allclose(plan_of(said), plan[ORDER][:, ORDER], rtol=1e-3)
    np.testing.assert_allclose(said["mass"][0], plan.sum(1)[ORDER], rtol=1e-4)
    assert (said["rows"]["network"], said["columns"]["network"]) == ("student", "teacher")


def test_a_plan_that_is_not_square_keeps_students_as_rows(make):
    plan = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    said = one(make, plan, graphs=(Data(node="neuron"), Data(node="neuron")))
    np.testing.assert_allclose(plan_of(said), plan, rtol=1e-3)
    assert said["mass"] == [[6, 15]]
    assert not said["paired"] and said["graphs"] is None
    assert "mass on the true pair" not in measures(said)


def test_a_sparse_plan_is_drawn_as_a_dense_one(make):
    assert plan_of(one(make, torch.eye(4).to_sparse())).tolist() == np.eye(4).tolist()


def test_the_cost_comes_in_the_same_order(make):
    cost = torch.arange(16.0).view(4, 4)
    packed = one(make, torch.eye(4), cost=cost)["cost"]
    read = (
        packed["low"] + (packed["high"] - packed["low"]) * np.frombuffer(b64decode(packed["parts"][0]), np.uint8) / 255
    )
    np.testing.assert_allclose(read.reshape(4, 4), cost[ORDER][:, ORDER], atol=15 / 510)
    assert one(make, torch.eye(4), cost=torch.ones(2, 4, 4))["cost"] is None


def test_both_ways_are_two_choices_with_their_own_plan_and_networks(make):
    plan = torch.stack([torch.eye(4), torch.ones(4, 4)])
    seen = make.compared(plan)._replace(marginal_error=torch.tensor([0.1, 0.2]))
    first, second = choices([{"crd/contrast": seen}])
    assert first.name == "crd/contrast, student to teacher"
    assert second.name == "crd/contrast, teacher to student"
    assert plan_of(term(first, LABELS)).tolist() == np.eye(4).tolist()
    there = term(second, LABELS)
    assert (there["rows"]["network"], there["columns"]["network"]) == ("teacher", "student")
    assert measures(there)["marginal error"] == [pytest.approx(0.2)]
    assert measures(there)["converged"] == [1]
    assert there["note"] == ""


@pytest.mark.parametrize("plan", [torch.ones(3, 1, 1), torch.ones(3, 4, 4), torch.ones(1, 1)])
def test_a_term_without_a_single_plan_says_so_and_has_numbers(make, plan):
    said = one(make, plan)
    assert said["plan"] is None
    assert "no plan to draw" in said["note"]
    assert list(measures(said)) == ["value", "marginal error", "converged"]


def test_the_share_of_problems_that_converged_is_told(make):
    seen = make.compared(torch.ones(4, 2, 2))._replace(converged=torch.tensor([True, False, True, True]))
    (choice,) = choices([{"a": seen}])
    (told,) = (each for each in term(choice, LABELS)["measures"] if each["name"] == "converged")
    assert told["values"] == [0.75] and told["unit"] == "share"


def test_a_mean_over_problems_is_called_one(make):
    seen = make.compared(torch.eye(4))._replace(marginal_error=torch.zeros(7), converged=torch.ones(7) > 0)
    assert term(choices([{"a": seen}])[0], LABELS)["note"] == "The plan is the mean of 7 problems."


def test_numbers_are_those_of_the_whole_plan(make):
    plan = torch.rand(4, 4)
    told = measures(one(make, plan))
    assert told["mass on the true pair"] == [pytest.approx(float(metrics.diagonal_mass(plan)), rel=1e-4)]
    assert told["mass within the class"] == [pytest.approx(float(metrics.class_purity(plan, LABELS)), rel=1e-4)]
    assert told["entropy"] == [pytest.approx(float(metrics.plan_entropy(plan)), rel=1e-4)]
    assert told["effective partners"] == [pytest.approx(float(metrics.effective_partners(plan).mean()), rel=1e-4)]
    assert told["marginal error"] == [0.25]


def test_mass_on_what_is_remembered_of_others_is_no_true_pair(make):
    plan = torch.cat([torch.eye(4), torch.eye(4)], 1)
    said = one(make, plan, graphs=(Data(), Data(node="remembered")))
    assert measures(said)["mass on the true pair"] == [0.5]
    assert measures(said)["mass within the class"] == [1]
    assert said["columns"]["own"] == 4 and said["columns"]["count"] == 8


def test_without_labels_there_is_no_mass_within_a_class(make):
    assert "mass within the class" not in measures(one(make, torch.eye(4), labels=torch.full((4,), -100)))


def test_a_plan_that_is_not_finite_is_drawn_empty_and_has_no_numbers(make):
    seen = [{"a": make.compared(plan)} for plan in (torch.eye(4), torch.full((4, 4), torch.nan))]
    said = term(choices(seen)[0], LABELS)
    assert plan_of(said, 1).sum() == 0
    assert measures(said)["entropy"][1] is None and measures(said)["entropy"][0] is not None


def test_edges_are_pairs_of_places_on_the_page(make):
    graphs = Data(edge_index=torch.tensor([[0, 2, 1], [2, 0, 1]])), Data(edge_index=torch.tensor([[3], [1]]))
    said = one(make, torch.eye(4), graphs=graphs)["graphs"]
    # Samples 0 and 2 stand at places 2 and 3, samples 1 and 3 at 0 and 1; the loop is left out.
    assert words(said["student"]["parts"][0]).tolist() == [2 * 4 + 3]
    assert words(said["teacher"]["parts"][0]).tolist() == [0 * 4 + 1]
    assert len(said["places"]) == 4
    assert np.min(said["places"]) == 0 and np.max(said["places"]) == 1
    assert not said["fewer"]


def test_places_follow_the_teachers_edges_at_the_last_step(make):
    near = Data(edge_index=torch.tensor([[0, 1], [2, 3]]))
    far = Data(edge_index=torch.tensor([[0, 1], [1, 2]]))
    seen = [{"a": make.compared(torch.eye(4), graphs=(far, teacher))} for teacher in (far, near)]
    at = np.array(term(choices(seen)[0], LABELS)["graphs"]["places"])
    assert np.linalg.norm(at[2] - at[3]) < np.linalg.norm(at[2] - at[0])


def test_graphs_without_edges_are_none(make):
    assert one(make, torch.eye(4), graphs=(Data(), Data(edge_index=torch.empty(2, 0).long())))["graphs"] is None


def test_of_many_edges_the_heaviest_are_kept(make):
    n = 40
    ends = torch.cartesian_prod(torch.arange(n), torch.arange(n)).T
    graph = Data(edge_index=ends, edge_weight=-(ends[0] - ends[1]).abs().float())
    said = one(make, torch.eye(n), torch.zeros(n).long(), graphs=(graph, graph))["graphs"]
    codes = words(said["student"]["parts"][0]).astype(int)
    assert len(codes) == len(set(codes.tolist())) == EDGES_PER_NODE * n and said["fewer"]
    assert (codes % n - codes // n).max() == 10
    assert {i * n + i + 1 for i in range(n - 1)} <= set(codes.tolist())


def test_steps_with_other_terms_or_shapes_are_refused(make):
    seen = make.compared(torch.eye(4))
    with pytest.raises(ValueError, match="needs snapshots of the same terms, got a and a, b"):
        choices([{"a": seen}, {"a": seen, "b": seen}])
    with pytest.raises(ValueError, match=r"plans of 'a' of one shape at all steps, got \[\(3, 3\), \(4, 4\)\]"):
        choices([{"a": seen}, {"a": make.compared(torch.eye(3))}])


def test_graphs_that_hold_both_ways_at_once_are_not_drawn(make):
    seen = make.compared(torch.ones(2, 4, 4), graphs=(make.chain(4), make.chain(4)))
    assert [term(choice, LABELS)["graphs"] for choice in choices([{"a": seen}])] == [None, None]
    assert one(make, torch.ones(4, 4), graphs=(make.chain(4), make.chain(4)))["graphs"] is not None


def test_similarities_that_are_read_as_a_plan_are_called_so(make):
    plan = torch.eye(4) / 4
    assert one(make, plan)["note"] == ""
    plan[0, 1] = -0.1
    assert one(make, plan)["note"].startswith("These are similarities, not masses")


def test_terms_that_compare_nodes_one_by_one_have_no_plan_to_draw(make):
    (choice,) = choices([{"a": make.compared(torch.ones(6, 1, 1))}])
    said = term(choice, LABELS)
    assert said["plan"] is None
    assert said["note"] == "There is no plan to draw: this term compares nodes one by one."
