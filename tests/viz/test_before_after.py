import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from torch_geometric.data import Data

from graphkd.metrics import class_purity, diagonal_mass
from graphkd.typing import Comparison
from graphkd.viz import plot_before_after, plot_plan


def comparison(plan):
    graph, zero = Data(x=torch.zeros(2, 1)), torch.zeros(())
    return Comparison(zero, plan, None, None, zero, torch.ones((), dtype=torch.bool), (graph, graph))


def plan(n, m, seed=0, power=1):
    p = torch.rand(n, m, generator=torch.Generator().manual_seed(seed)) ** power
    return p / p.sum()


def cells(ax):
    return np.asarray(ax.images[0].get_array())


def colour_bars(axes):
    return [child for ax in axes for child in ax.child_axes if child.get_ylabel() == "mass of a cell"]


def test_each_comparison_has_a_panel_that_is_its_plan_in_one_order():
    plans, labels = {"f": plan(4, 4), "g": plan(4, 4, 1)}, [1, 0, 1, 0]
    axes = plot_before_after(
        {name: comparison(p) for name, p in plans.items()}, labels=labels, class_names=["cat", "dog"]
    )
    assert [ax.get_title().splitlines()[0] for ax in axes] == ["f", "g"]
    for ax, p in zip(axes, plans.values(), strict=True):
        assert np.array_equal(cells(ax), cells(plot_plan(p, labels=labels)))
        assert [tick.get_text() for tick in ax.get_yticklabels()] == ["cat", "dog"]
    assert len({id(ax.figure) for ax in axes}) == 1


def test_all_panels_have_one_scale_and_one_bar():
    first, second = plan(4, 4), plan(4, 4, 1, power=4)
    axes = plot_before_after({"f": comparison(first), "g": comparison(second)})
    most = max(float(first.max()), float(second.max()))
    assert [ax.images[0].get_clim() for ax in axes] == [(0, pytest.approx(most))] * 2
    assert len(colour_bars(axes)) == 1
    (bar,) = colour_bars(axes[1:])
    assert bar.get_ylim() == (0, pytest.approx(most))
    rows = max(float(p.sum(1).max()) for p in (first, second))
    columns = max(float(p.sum(0).max()) for p in (first, second))
    for right, top in (ax.child_axes[:2] for ax in axes):
        assert right.get_xlim() == (0, pytest.approx(rows)) and top.get_ylim() == (0, pytest.approx(columns))


def test_titles_tell_the_mass_on_the_true_pairs_and_within_the_classes():
    p, labels = plan(6, 6, power=3), torch.tensor([0, 1, 0, 1, -100, 2])
    (ax,) = plot_before_after({"g": comparison(p)}, labels=labels)
    pairs, classes = float(diagonal_mass(p)), float(class_purity(p, labels))
    assert round(100 * pairs) != round(100 * classes)
    assert ax.get_title() == f"g\ntrue pair {100 * pairs:.0f} %, same class {100 * classes:.0f} %"


def test_what_is_not_known_is_not_told():
    assert plot_before_after({"g": comparison(torch.eye(2))})[0].get_title() == "g\ntrue pair 100 %"
    assert plot_before_after({"g": comparison(torch.ones(2, 3))})[0].get_title() == "g"
    axes = plot_before_after({"g": comparison(torch.ones(2, 4))}, labels=[0, 1], teacher_labels=[0, 1, 1, 1])
    assert axes[0].get_title() == "g\nsame class 50 %"
    nobody = plot_before_after({"g": comparison(torch.eye(2))}, labels=[-100, -100])
    assert nobody[0].get_title() == "g\ntrue pair 100 %"


def test_given_axes_are_drawn_on_and_pyplot_stays_as_it_was():
    before = pyplot.get_fignums()
    given = tuple(Figure(layout="constrained").subplots(1, 2))
    seen = comparison(plan(3, 3))
    axes = plot_before_after({"f": seen, "g": seen}, ax=given)
    assert axes == list(given) and all(len(ax.images) == 1 for ax in given)
    plot_before_after({"f": seen})
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 2), (5, 2, 3)])
def test_panels_stand_in_rows_of_three(count, rows, columns):
    axes = plot_before_after({str(i): comparison(plan(3, 3)) for i in range(count)})
    assert len(axes) == count == len(axes[0].figure.axes)
    assert axes[0].get_subplotspec().get_gridspec().get_geometry() == (rows, columns)
    assert [ax.get_subplotspec().num1 for ax in axes] == list(range(count))


def test_sparse_plans_and_large_ones_are_drawn():
    i = torch.arange(2000)
    p = torch.sparse_coo_tensor(torch.stack([i, i]), torch.full((2000,), 1 / 2000), check_invariants=True)
    (ax,) = plot_before_after({"g": comparison(p)}, labels=i % 10)
    assert ax.get_title() == "g\ntrue pair 100 %, same class 100 %"
    assert "means of blocks" in ax.get_xlabel()


def test_what_does_not_fit_is_refused():
    seen = comparison(plan(3, 3))
    with pytest.raises(ValueError, match="plans of one shape to compare, got no comparisons"):
        plot_before_after({})
    with pytest.raises(ValueError, match=r"one shape to compare, got f \(3, 3\), g \(3, 4\)"):
        plot_before_after({"f": seen, "g": comparison(plan(3, 4))})
    with pytest.raises(ValueError, match=r"one plan of shape \(n, m\), got shape \(2, 3, 3\)"):
        plot_before_after({"f": comparison(torch.rand(2, 3, 3))})
    with pytest.raises(ValueError, match="one axes per comparison, 2, got 1"):
        plot_before_after({"f": seen, "g": seen}, ax=[Figure().add_subplot()])
    with pytest.raises(ValueError, match="labels needs one integer per node"):
        plot_before_after({"f": seen}, labels=[0, 1])
