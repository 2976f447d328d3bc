import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from graphkd.viz import plot_history
from graphkd.viz.inputs import axes_or_new


def bands(ax):
    return [c for c in ax.collections if isinstance(c, PolyCollection)]


def test_the_line_is_the_mean_of_the_runs_from_epoch_one():
    ax = plot_history({"otgd": [[0.2, 0.4, 0.9], [0.4, 0.8, 0.7], [0.9, 0.6, 0.8]]})
    (line,) = ax.lines
    assert line.get_xdata().tolist() == [1, 2, 3]
    assert np.allclose(line.get_ydata(), [0.5, 0.6, 0.8])


def test_the_band_is_one_unbiased_standard_deviation():
    ax = plot_history({"otgd": [[0.0, 1.0], [2.0, 1.0]]})
    (band,) = bands(ax)
    outline = band.get_paths()[0].vertices
    at_first = outline[outline[:, 0] == 1][:, 1]
    assert np.isclose(at_first.min(), 1 - 2**0.5) and np.isclose(at_first.max(), 1 + 2**0.5)
    assert np.allclose(outline[outline[:, 0] == 2][:, 1], 1)


def test_a_single_run_has_no_band_and_the_legend_counts_runs():
    ax = plot_history({"kd": [[1, 2]], "otgd": [[1, 2], [2, 3]]})
    assert len(bands(ax)) == 1
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["kd (1 run)", "otgd (2 runs)"]
    assert ax.get_legend().get_title().get_text() == "mean ± one standard deviation"
    assert plot_history({"kd": [[1, 2]]}).get_legend().get_title().get_text() == ""


def test_curves_differ_in_colour_and_in_line_style():
    ax = plot_history({str(i): [[0, i]] for i in range(4)})
    assert len({line.get_color() for line in ax.lines}) == 4
    assert len({line.get_linestyle() for line in ax.lines}) == 4


def test_the_legend_of_many_curves_stands_beside_them():
    few, many = (plot_history({str(i): [[0, i]] for i in range(n)}) for n in (4, 5))
    for ax, beside in ((few, False), (many, True)):
        ax.figure.draw_without_rendering()
        assert (ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1) == beside


def test_a_diverged_epoch_is_a_gap():
    ax = plot_history({"a": [[1.0, float("inf"), 3.0], [1.0, 2.0, 3.0]], "b": [[1.0, float("nan"), 2.0]]})
    for line in ax.lines:
        assert np.isnan(line.get_ydata()).tolist() == [False, True, False]


def test_a_single_epoch_is_a_visible_point():
    (line,) = plot_history({"a": [[0.5]]}).lines
    assert line.get_marker() == "o"


def test_names_of_axes_and_title_are_those_given():
    ax = axes_or_new(None, 3, 3)
    assert plot_history({"a": [[1, 2]]}, ax=ax, ylabel="accuracy", xlabel="step", title="run") is ax
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("step", "accuracy", "run")
    assert plot_history({"a": [[1, 2]]}).get_xlabel() == "epoch"


@pytest.mark.parametrize(
    ("curves", "came"),
    [
        ({}, "at least one curve"),
        ({"a": []}, r"curve 'a' .* got lengths \[\]"),
        ({"a": [[]]}, r"got lengths \[0\]"),
        ({"a": [[1, 2], [1]]}, r"got lengths \[2, 1\]"),
    ],
)
def test_curves_without_numbers_or_with_uneven_runs_are_refused(curves, came):
    with pytest.raises(ValueError, match=came):
        plot_history(curves)
