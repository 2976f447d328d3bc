import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from torch_geometric.data import Data

from graphkd.graphs import point_cloud
from graphkd.loss import GraphLoss
from graphkd.measures import sqeuclidean
from graphkd.viz import plot_plan
from graphkd.viz.inputs import axes_or_new


def cells(ax):
    (image,) = ax.images
    return np.asarray(image.get_array())


def plan(n, m, seed=0):
    p = torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return p / p.sum()


def names(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


def blocks(ax):
    return [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in ax.patches if isinstance(p, Rectangle)]


def test_plan_without_labels_is_shown_as_given():
    p = plan(4, 6).requires_grad_()
    ax = plot_plan(p, title="P")
    assert np.array_equal(cells(ax), p.detach().numpy())
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("teacher nodes", "student nodes", "P")
    assert blocks(ax) == []


def test_a_plan_of_two_nodes_has_a_tick_per_node():
    ax = plot_plan(plan(2, 2))
    for ticks, (low, high) in ((ax.get_xticks(), ax.get_xlim()), (ax.get_yticks(), ax.get_ylim()[::-1])):
        assert [tick for tick in ticks if low <= tick <= high] == [0, 1]


def test_plan_rows_are_sorted_by_class():
    p, labels = plan(5, 5), [2, 0, -100, 2, 0]
    order = [1, 4, 0, 3, 2]
    ax = plot_plan(p, labels=labels)
    assert np.array_equal(cells(ax), p.numpy()[np.ix_(order, order)])
    assert names(ax.yaxis) == names(ax.xaxis) == ["0", "2", "unlabelled"]
    assert ax.get_yticks().tolist() == [0.5, 2.5, 4]


def test_rows_are_students_and_columns_teachers():
    p = plan(3, 5)
    ax = plot_plan(p, labels=[1, 0, 1], teacher_labels=[1, 1, 0, 2, 0], class_names=["cat", "dog", "eel"])
    assert np.array_equal(cells(ax), p.numpy()[np.ix_([1, 0, 2], [2, 4, 0, 1, 3])])
    assert names(ax.yaxis) == ["cat", "dog"]
    assert names(ax.xaxis) == ["cat", "dog", "eel"]
    assert ax.images[0].get_extent() == [-0.5, 4.5, 2.5, -0.5]


def test_equally_many_students_and_teachers_may_differ_in_class():
    p = plan(3, 3)
    ax = plot_plan(p, labels=[0, 1, 0], teacher_labels=[1, 0, 0])
    assert np.array_equal(cells(ax), p.numpy()[np.ix_([0, 2, 1], [1, 2, 0])])
    assert blocks(ax) == [(-0.5, -0.5, 2, 2), (1.5, 1.5, 1, 1)]


def test_the_masses_of_a_class_on_itself_are_outlined():
    ax = plot_plan(plan(3, 5), labels=[1, 0, 1], teacher_labels=[1, 1, 0, 2, 0])
    assert blocks(ax) == [(-0.5, -0.5, 2, 1), (1.5, 0.5, 2, 2)]


def test_unlabelled_nodes_are_not_a_class():
    assert len(blocks(plot_plan(plan(3, 3), labels=[-100, 0, -100]))) == 1


@pytest.mark.parametrize("n", [2, 48, 300])
def test_lines_beside_the_true_pairs_leave_their_cells_free(n):
    ax = plot_plan(plan(n, n), labels=torch.arange(n) % 3)
    assert len(ax.lines) == 2
    below, above = (line.get_ydata() - line.get_xdata() for line in ax.lines)
    assert np.allclose(below, -above)
    assert (above >= 1).all()
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["between the lines: same sample"]


def test_rings_mark_the_true_pairs_where_the_sides_are_sorted_differently():
    ax = plot_plan(plan(3, 3), labels=[0, 1, 2], teacher_labels=[1, 2, 0])
    (rings,) = ax.collections
    # student i stands in row i; teachers 2, 0, 1 stand in columns 0, 1, 2
    assert sorted(rings.get_offsets().tolist()) == [[0, 2], [1, 0], [2, 1]]
    assert not ax.lines


def test_no_pairing_is_marked_between_different_numbers_of_nodes():
    ax = plot_plan(plan(3, 4))
    assert not ax.lines and not ax.collections and ax.get_legend() is None


def test_masses_start_at_zero_and_the_bar_names_them():
    ax = plot_plan(plan(4, 4) + 1)
    assert ax.images[0].get_clim() == (0, float((plan(4, 4) + 1).max()))
    assert ax.child_axes[-1].get_ylabel() == "mass of a cell"


def bars(ax):
    """The masses along the right and the top, with the places where each bar starts."""
    return [side.patches[0].get_data() for side in ax.child_axes[:2]]


@pytest.mark.parametrize("sparse", [False, True])
def test_bars_beside_the_plan_are_the_masses_of_its_nodes(sparse):
    p, labels, teacher_labels = plan(3, 5), [1, 0, 1], [1, 1, 0, 2, 0]
    ax = plot_plan(p.to_sparse() if sparse else p, labels=labels, teacher_labels=teacher_labels)
    student, teacher = bars(ax)
    assert np.allclose(student.values, p.sum(1)[[1, 0, 2]]) and np.allclose(teacher.values, p.sum(0)[[2, 4, 0, 1, 3]])
    assert student.edges.tolist() == [-0.5, 0.5, 1.5, 2.5] and teacher.edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5]


def test_bars_stand_beside_their_rows_and_columns_and_start_at_zero():
    ax = plot_plan(plan(3, 5))
    right, top, bar = ax.child_axes
    assert right.get_ylim() == ax.get_ylim() and top.get_xlim() == ax.get_xlim()
    assert right.get_xlim() == (0, pytest.approx(float(plan(3, 5).sum(1).max())))
    assert top.get_ylim() == (0, pytest.approx(float(plan(3, 5).sum(0).max())))
    assert [right.patches[0].orientation, top.patches[0].orientation] == ["horizontal", "vertical"]
    assert right.get_xlabel() == top.get_ylabel() == "mass of\na node"
    ax.figure.draw_without_rendering()
    picture, right, top, bar = (each.get_window_extent() for each in (ax, right, top, bar))
    assert picture.x1 < right.x0 < right.x1 < bar.x0 and picture.y1 < top.y0


def test_bars_of_blocks_are_means_over_their_nodes():
    p = plan(1024, 3)
    student, teacher = bars(plot_plan(p))
    assert np.allclose(student.values, p.sum(1).reshape(512, 2).mean(1))
    assert student.edges.tolist() == [*np.arange(0, 1025, 2) - 0.5]
    assert np.allclose(teacher.values, p.sum(0))
    assert np.allclose(bars(plot_plan(p.T))[1].values, student.values)


def test_sparse_plans_are_drawn_like_dense_ones():
    p = plan(6, 6) * (plan(6, 6) > 0.03)
    assert np.allclose(
        cells(plot_plan(p.to_sparse(), labels=[0, 1, 0, 1, 2, 2])), cells(plot_plan(p, labels=[0, 1, 0, 1, 2, 2]))
    )


def test_a_sparse_plan_of_ten_thousand_nodes_is_drawn():
    i = torch.arange(10_000)
    p = torch.sparse_coo_tensor(torch.stack([i, i]), torch.full((10_000,), 1e-4), check_invariants=True)
    ax = plot_plan(p, labels=i)
    assert cells(ax).shape == (500, 500)
    assert np.allclose(cells(ax), np.eye(500) * 1e-4 / 20)
    assert np.allclose(bars(ax)[0].values, 1e-4)
    assert "means of blocks of up to 20 nodes" in ax.get_xlabel()


def test_classes_smaller_than_a_block_have_no_outline():
    labels = torch.cat([torch.arange(600), torch.full((600,), 600)])
    assert blocks(plot_plan(plan(1200, 1200), labels=labels)) == [(599.5, 599.5, 600, 600)]


def test_ticks_of_many_nodes_do_not_overlap():
    ax = plot_plan(torch.eye(10_000).to_sparse())
    ax.figure.draw_without_rendering()
    extents = [tick.get_window_extent() for tick in ax.get_xticklabels() if tick.get_text()]
    assert all(left.x1 < right.x0 for left, right in zip(extents, extents[1:], strict=False))


@pytest.mark.parametrize(("n", "m", "shape", "size"), [(512, 3, (512, 3), 1), (513, 700, (257, 350), 2)])
def test_large_plans_are_averaged_in_blocks_and_say_so(n, m, shape, size):
    p = plan(n, m)
    ax = plot_plan(p)
    assert cells(ax).shape == shape
    assert ("means of blocks of up to 2 nodes" in ax.get_xlabel()) == (size == 2)
    assert ("means of blocks of up to 2 nodes" in ax.get_ylabel()) == (size == 2)
    assert ax.images[0].get_extent() == [-0.5, m - 0.5, n - 0.5, -0.5]


def test_block_means_are_means_of_the_sorted_plan():
    p, labels = plan(1024, 1024), torch.arange(1024) % 2
    order = np.r_[0:1024:2, 1:1024:2]
    expected = p.numpy()[np.ix_(order, order)].reshape(512, 2, 512, 2).mean((1, 3))
    assert np.allclose(cells(plot_plan(p, labels=labels)), expected)


def test_blocks_of_unequal_size_are_means_too():
    ones = plot_plan(torch.ones(515, 2))
    assert np.allclose(cells(ones), 1)


def test_names_that_would_overlap_are_left_out():
    ax = plot_plan(plan(100, 100), labels=list(range(100)))
    assert 10 < len(names(ax.xaxis)) <= 25
    assert len(blocks(ax)) == 100


def test_a_comparison_is_drawn():
    comparison = GraphLoss(cost=sqeuclidean).compare(
        point_cloud(torch.rand(4, 2, requires_grad=True)), Data(x=torch.rand(4, 2))
    )
    assert np.allclose(cells(plot_plan(comparison)), np.eye(4) / 4)


def test_given_axes_are_drawn_on():
    ax = axes_or_new(None, 3, 3)
    assert plot_plan(plan(2, 2), ax=ax) is ax


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"one plan of shape \(n, m\)"):
        plot_plan(torch.rand(2, 3, 3))
    with pytest.raises(ValueError, match="got 1 negative"):
        plot_plan(torch.tensor([[1.0, -1.0]]))
    with pytest.raises(ValueError, match="teacher_labels"):
        plot_plan(plan(2, 3), labels=[0, 1])
    with pytest.raises(ValueError, match="name for class 1, got 1 names"):
        plot_plan(plan(2, 2), labels=[0, 1], class_names=["cat"])
