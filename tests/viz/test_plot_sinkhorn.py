import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from graphkd.ot import marginal_errors
from graphkd.viz import palette, plot_sinkhorn
from graphkd.viz.inputs import axes_or_new


def curves(ax):
    """The curves' points by label."""
    return {
        line.get_label(): np.asarray(line.get_xydata()).tolist()
        for line in ax.lines
        if not line.get_label().startswith("_")
    }


def marks(ax, gid):
    return [np.asarray(line.get_xydata()).tolist() for line in ax.lines if line.get_gid() == gid]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_curve_is_the_error_by_sweep_on_logarithmic_axes():
    ax = plot_sinkhorn({"a": [0.5, 0.1, 0.02], "b": torch.tensor([0.4, 0.3])}, title="errors")
    found = curves(ax)
    assert found["a"] == [[1, 0.5], [2, 0.1], [3, 0.02]]
    assert np.allclose(found["b"], [[1, 0.4], [2, 0.3]])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("sweep", "marginal error", "errors")
    assert legend(ax) == ["a", "b"] and ax.get_legend().get_title().get_text() == ""
    assert not marks(ax, "met") and not marks(ax, "zero")


def test_a_curve_is_labelled_with_where_it_meets_the_tolerance():
    ax = plot_sinkhorn({"a": [0.5, 0.1, 0.02, 0.3], "b": [0.05, 0.01], "c": [0.9, 0.8], "d": [0.2]}, tol=0.1)
    assert legend(ax) == ["a: after 2 sweeps", "b: after 1 sweep", "c: not in 2 sweeps", "d: not in 1 sweep"]
    assert ax.get_legend().get_title().get_text() == "within the tolerance of 0.1"
    assert marks(ax, "met") == [[[2, 0.1]], [[1, 0.05]]]
    level = [line for line in ax.lines if line.get_linestyle() == ":" and line.get_label().startswith("_")]
    assert [list(line.get_ydata()) for line in level] == [[0.1, 0.1]]


def test_the_trace_of_a_solver_is_drawn():
    trace = marginal_errors(torch.rand(5, 6, generator=torch.Generator().manual_seed(0)), epsilon=0.1, num_iters=12)
    ax = plot_sinkhorn({"epsilon 0.1": trace})
    assert np.allclose(np.array(curves(ax)["epsilon 0.1"])[:, 1], trace.numpy())


def test_a_curve_ends_at_its_first_zero_which_stands_at_the_foot():
    ax = plot_sinkhorn({"a": [0.5, 0.1, 0.0, 0.0], "b": [0.5, 0.4]}, tol=0.01)
    assert curves(ax)["a: after 3 sweeps"] == [[1, 0.5], [2, 0.1]]
    assert marks(ax, "zero") == [[[3, ax.get_ylim()[0]]]]
    assert not marks(ax, "met")
    assert ax.get_ylabel() == "marginal error (triangle: zero)"
    assert 0 < ax.get_ylim()[0] < 0.01


@pytest.mark.parametrize("tol", [None, 1e-3])
def test_only_zeros_are_drawn(tol):
    ax = plot_sinkhorn({"a": [0.0, 0.0]}, tol=tol)
    assert len(marks(ax, "zero")) == 1
    ax.figure.draw_without_rendering()


def test_errors_that_are_not_finite_are_gaps_and_what_stands_alone_is_a_dot():
    ax = plot_sinkhorn({"a": [0.3, float("nan"), 0.2, 0.1, float("inf"), 0.05]})
    assert np.isnan(np.array(curves(ax)["a"])[:, 1]).tolist() == [False, True, False, False, True, False]
    assert marks(ax, "alone") == [[[1, 0.3], [6, 0.05]]]


def test_a_single_sweep_is_a_dot():
    assert marks(plot_sinkhorn({"a": [0.3]}), "alone") == [[[1, 0.3]]]


def test_nothing_is_cut_off():
    ax = plot_sinkhorn({"a": [1.9, 1e-16], "b": np.geomspace(1, 1e-3, 1000).tolist()}, tol=1e-18)
    low, high = ax.get_ylim()
    assert low < 1e-18 and high > 1.9
    assert ax.get_xlim()[0] < 1 and ax.get_xlim()[1] > 1000


def test_few_sweeps_are_numbered_one_by_one():
    ax = plot_sinkhorn({"a": [0.5, 0.4, 0.3]})
    ax.figure.draw_without_rendering()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "3"]
    assert "100" in [t.get_text() for t in plot_sinkhorn({"a": [0.5] * 200}).get_xticklabels()]


def test_eleven_curves_differ_by_colour_or_line():
    ax = plot_sinkhorn({str(i): [0.5, 0.1 + i] for i in range(12)})
    looks = {(to_hex(line.get_color()), line.get_linestyle()) for line in ax.lines}
    assert len(looks) == 12
    assert to_hex(ax.lines[0].get_color()).upper() == palette.COLOURS[0]


def test_long_names_stand_below_each_other():
    long = plot_sinkhorn({"a very long name of a curve, too long for two columns": [0.1], "b": [0.2]})
    short = plot_sinkhorn({"a": [0.1], "b": [0.2]})
    assert (long.get_legend()._ncols, short.get_legend()._ncols) == (1, 2)


def test_the_legend_does_not_cover_the_label_of_small_axes():
    ax = plot_sinkhorn({"a": [0.5, 0.1]}, tol=0.01, ax=axes_or_new(None, 3, 2))
    ax.figure.draw_without_rendering()
    assert not ax.get_legend().get_window_extent().overlaps(ax.xaxis.label.get_window_extent())


def test_given_axes_are_drawn_on():
    ax = axes_or_new(None, 3, 3)
    assert plot_sinkhorn({"a": [0.5]}, ax=ax) is ax


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least one curve, got none"):
        plot_sinkhorn({})
    with pytest.raises(
        ValueError, match=r"curve 'a' needs one error of at least 0 per sweep, \(t,\), got shape \(0,\)"
    ):
        plot_sinkhorn({"a": []})
    with pytest.raises(ValueError, match=r"curve 'a' needs .* got shape \(2,\) from -0.1"):
        plot_sinkhorn({"a": [0.1, -0.1]})
    with pytest.raises(ValueError, match="tol needs a finite number above 0, got 0"):
        plot_sinkhorn({"a": [0.1]}, tol=0)
