import numpy as np
import pytest
import torch
from matplotlib import pyplot
from torch_geometric.data import Data

from graphkd.metrics import class_purity, diagonal_mass
from graphkd.typing import Comparison
from graphkd.viz import inputs


def comparison(plan):
    graph = Data(x=torch.zeros(2, 1))
    zero = torch.zeros(())
    return Comparison(zero, plan, None, None, zero, torch.ones((), dtype=torch.bool), (graph, graph))


def test_a_comparison_and_its_plan_read_the_same():
    plan = torch.rand(3, 5, requires_grad=True)
    assert np.array_equal(inputs.plan_matrix(comparison(plan)), inputs.plan_matrix(plan))
    assert np.array_equal(inputs.plan_matrix(plan), plan.detach().double().numpy())


def test_half_precision_plans_are_read():
    assert inputs.plan_matrix(torch.eye(2, dtype=torch.bfloat16)).dtype == np.float64


@pytest.mark.parametrize(
    ("plan", "came"),
    [
        (torch.rand(2, 3, 3), r"one plan of shape \(n, m\), got shape \(2, 3, 3\)"),
        (torch.rand(0, 3), r"got shape \(0, 3\)"),
        (torch.tensor([[1.0, torch.nan], [torch.inf, -1.0]]), "got 3 negative, NaN or infinite of 4"),
        (torch.zeros(2, 2), "got only zeros"),
    ],
)
def test_a_plan_that_is_none_is_refused(plan, came):
    with pytest.raises(ValueError, match=came):
        inputs.plan_matrix(plan)


def test_sparse_plans_are_read_without_being_filled():
    plan = torch.sparse_coo_tensor([[0, 0], [1, 1]], [0.25, 0.5], (2, 3), check_invariants=True)
    read = inputs.read_plan(plan)
    assert read.is_sparse and read.is_coalesced()
    assert read.values().tolist() == [0.75]
    assert inputs.plan_matrix(plan).tolist() == [[0, 0.75, 0], [0, 0, 0]]


@pytest.mark.parametrize("bad", [[1.0, -1.0], [1.0, torch.nan], [torch.inf, 1.0]])
def test_sparse_plans_that_are_none_are_refused(bad):
    plan = torch.sparse_coo_tensor([[0, 1], [1, 1]], bad, (2, 3), check_invariants=True)
    with pytest.raises(ValueError, match="got 1 negative, NaN or infinite of 2"):
        inputs.read_plan(plan)


def test_a_sparse_plan_without_entries_is_refused():
    with pytest.raises(ValueError, match="got only zeros"):
        inputs.read_plan(torch.zeros(2, 3).to_sparse())


@pytest.fixture(params=["dense", "sparse", "in parts"])
def as_read(request, monkeypatch):
    """A plan as the figures read it: in one part, as a list, and a few rows at a time."""
    if request.param == "in parts":
        monkeypatch.setattr(inputs, "MOST_CELLS_AT_ONCE", 30)
    return lambda plan: inputs.read_plan(plan.to_sparse() if request.param == "sparse" else plan)


def random_plan(n, m):
    plan = torch.rand(n, m, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return plan * (plan > 0.3)


def test_masses_between_groups_are_sums_of_the_plan(as_read):
    plan = random_plan(17, 11)
    rows, columns = np.arange(17) * 5 % 4 - 1, np.arange(11) * 3 % 5 - 1
    sums = inputs.group_sums(as_read(plan), rows, columns, (3, 6))
    for i in range(3):
        for j in range(6):
            assert np.isclose(sums[i, j], float(plan[rows == i][:, columns == j].sum()))
    assert (sums[:, 4:] == 0).all() and (sums[:, :4] > 0).all()


def test_single_nodes_are_groups_too(as_read):
    plan = random_plan(7, 9)
    assert np.array_equal(inputs.group_sums(as_read(plan), np.arange(7), np.arange(9), (7, 9)), plan.numpy())
    turned = inputs.group_sums(as_read(plan), np.arange(7), np.arange(9)[::-1].copy(), (7, 9))
    assert np.array_equal(turned, plan.numpy()[:, ::-1])


def test_mass_on_the_own_class_is_found_row_by_row(as_read):
    plan = random_plan(7, 9)
    student, teacher = np.array([0, 1, 2, -100, 1, 0, 7]), np.array([0, 1, 1, 2, 2, -100, 0, 3, -100])
    expected = [float(plan[i, teacher == c].sum()) if c >= 0 else 0 for i, c in enumerate(student)]
    assert np.allclose(inputs.matched_mass(as_read(plan), student, teacher), expected)


def test_shares_of_a_plan_are_those_of_the_metrics(as_read):
    plan = random_plan(9, 9)
    labels = torch.tensor([0, 1, 2, -100, 1, 0, 2, 1, 1])
    total, pairs = inputs.mass_shares(as_read(plan), None)
    assert np.isclose(total, float(plan.sum())) and pairs[0] == 0
    assert np.isclose(pairs[1], float(diagonal_mass(plan))) and np.isclose(pairs[1] + pairs[-1], 1)
    total, classes = inputs.mass_shares(as_read(plan), (labels.numpy(), labels.numpy()))
    assert np.isclose(total, float(plan.sum())) and np.isclose(sum(classes.values()), 1)
    assert np.isclose(classes[1] / (classes[1] + classes[-1]), float(class_purity(plan, labels)))
    known = labels >= 0
    assert np.isclose(1 - classes[0], float(plan[known][:, known].sum() / plan.sum()))


def test_mass_is_right_within_a_group_and_unknown_where_either_node_has_none():
    student, teacher = np.array([0, 1, -100]), np.array([1, -100, 0])
    assert inputs.verdicts(student, teacher).tolist() == [-1, 0, 0]
    assert inputs.verdicts(student[:, None], teacher).tolist() == [[-1, 0, 1], [1, 0, -1], [0, 0, 0]]
    nobody = np.array([-100, -100])
    assert inputs.verdicts(nobody, nobody).tolist() == [0, 0]


def test_without_classes_samples_belong_together_if_they_are_pairs():
    classes = np.array([1, 0]), np.array([0, 0, 1])
    assert inputs.groups_of(classes, 2, 3) is classes
    student, teacher = inputs.groups_of(None, 3, 3)
    assert np.array_equal(inputs.verdicts(student[:, None], teacher), 2 * np.eye(3) - 1)
    student, teacher = inputs.groups_of(None, 2, 3)
    assert (len(student), len(teacher)) == (2, 3)
    assert (inputs.verdicts(student[:, None], teacher) == 0).all()


def test_there_are_no_shares_where_nobody_knows(as_read):
    total, shares = inputs.mass_shares(as_read(random_plan(4, 5)), None)
    assert np.isclose(total, float(random_plan(4, 5).sum())) and shares == {}
    nobody = np.full(4, -100), np.arange(5)
    total, shares = inputs.mass_shares(as_read(random_plan(4, 5)), nobody)
    assert np.isclose(total, float(random_plan(4, 5).sum())) and shares == {}


def test_shares_do_not_depend_on_the_sum_of_the_plan(as_read):
    (_, one), (total, seven) = (inputs.mass_shares(as_read(s * random_plan(5, 5)), None) for s in (1, 7))
    assert np.isclose(total, 7 * float(random_plan(5, 5).sum()))
    assert np.allclose(list(one.values()), list(seven.values()))


@pytest.mark.parametrize(
    ("labels", "came"),
    [
        ([0, 1], r"shape \(3,\), got shape \(2,\)"),
        (torch.zeros(3), "float32"),
        (torch.zeros(3, 1, dtype=torch.int64), r"shape \(3, 1\)"),
        ([0, -1, 2], "or -100 for none, got -1"),
    ],
)
def test_labels_that_are_not_a_class_per_node_are_refused(labels, came):
    with pytest.raises(ValueError, match=came):
        inputs.node_classes("labels", labels, 3)


def test_teachers_have_the_students_classes_unless_told():
    student, teacher = inputs.both_classes([3, 1], None, 2, 2)
    assert student.tolist() == teacher.tolist() == [3, 1]
    student, teacher = inputs.both_classes(torch.tensor([3, 1]), [0, 1, 2], 2, 3)
    assert (student.tolist(), teacher.tolist()) == ([3, 1], [0, 1, 2])
    assert inputs.both_classes(None, None, 2, 3) is None


def test_labels_of_one_side_are_not_enough_for_two_sizes():
    with pytest.raises(ValueError, match="teacher_labels.*n=2 and m=3"):
        inputs.both_classes([0, 1], None, 2, 3)
    with pytest.raises(ValueError, match="labels of the student"):
        inputs.both_classes(None, [0, 1, 1], 2, 3)


def test_order_by_class_is_stable_and_puts_unlabelled_nodes_last():
    assert inputs.by_class(np.array([2, -100, 0, 2, 0])).tolist() == [2, 4, 0, 3, 1]


def test_spans_cover_all_nodes():
    assert inputs.class_spans(np.array([0, 0, 1, 4, 4, -100])) == [(0, 0, 2), (1, 2, 3), (4, 3, 5), (-100, 5, 6)]


def test_a_class_beyond_the_names_is_refused():
    with pytest.raises(ValueError, match="name for class 2, got 2 names"):
        inputs.class_name(2, ["cat", "dog"])


def test_new_axes_stay_out_of_pyplot():
    before = pyplot.get_fignums()
    assert inputs.axes_or_new(None, 3, 2).figure.get_size_inches().tolist() == [3, 2]
    assert pyplot.get_fignums() == before


def test_given_axes_are_returned():
    ax = inputs.axes_or_new(None, 3, 2)
    assert inputs.axes_or_new(ax, 9, 9) is ax
