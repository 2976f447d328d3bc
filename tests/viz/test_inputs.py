import numpy as np
import pytest
import torch
from matplotlib import pyplot
from torch_geometric.data import Data

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
