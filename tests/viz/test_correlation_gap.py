import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from graphkd.metrics import correlation_gap
from graphkd.viz import plot_correlation_gap
from graphkd.viz.inputs import axes_or_new


def logits(n, c, seed=0):
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed))


def cells(ax):
    (image,) = ax.images
    return np.asarray(image.get_array())


def names(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


def test_a_cell_is_the_gap_between_two_correlations():
    student, teacher = logits(20, 5).requires_grad_(), logits(20, 5, seed=1)
    wanted = np.abs(np.corrcoef(student.detach().numpy().T) - np.corrcoef(teacher.numpy().T))
    ax = plot_correlation_gap(student, teacher, title="gap")
    assert np.allclose(cells(ax), wanted, atol=1e-5)
    assert ax.images[0].get_clim() == pytest.approx((0, wanted.max()), abs=1e-5)
    assert ax.images[0].get_extent() == [-0.5, 4.5, 4.5, -0.5]
    assert (ax.get_ylabel(), ax.get_title()) == ("class", "gap")
    (bar,) = ax.child_axes
    assert bar.get_ylabel() == "|corr(student) - corr(teacher)|"


def test_the_label_says_mean_over_pairs_and_maximum():
    student, teacher = logits(20, 3), logits(20, 3, seed=1)
    gap = correlation_gap(student, teacher)
    first, second = sorted(divmod(int(gap.argmax()), 3))
    mean = float(gap[0, 1] + gap[0, 2] + gap[1, 2]) / 3
    ax = plot_correlation_gap(student, teacher, class_names=["cat", "dog", "eel"])
    pair = " and ".join(["cat", "dog", "eel"][i] for i in (first, second))
    assert ax.get_xlabel() == f"class\nmean gap {mean:.3f}, maximum {float(gap.max()):.3f}\nbetween {pair}"
    assert f"between {first} and {second}" in plot_correlation_gap(student, teacher).get_xlabel()


def test_networks_that_agree_have_no_gap():
    ax = plot_correlation_gap(logits(9, 4), 3 * logits(9, 4) + 1)
    assert np.allclose(cells(ax), 0, atol=1e-5)
    ax = plot_correlation_gap(logits(9, 4), logits(9, 4))
    assert ax.get_xlabel() == "class\nmean gap 0.000, maximum 0.000"
    assert ax.images[0].get_clim() == (0, 1)


def test_classes_are_named_on_both_axes():
    ax = plot_correlation_gap(logits(9, 3), logits(9, 3, seed=1), class_names=["cat", "dog", "eel"])
    assert names(ax.xaxis) == names(ax.yaxis) == ["cat", "dog", "eel"]
    assert ax.get_xticks().tolist() == ax.get_yticks().tolist() == [0, 1, 2]


@pytest.mark.parametrize(("longest", "rotation", "size"), [(2, 0, 8), (3, 90, 8), (12, 90, 8), (13, 90, 6)])
def test_long_names_are_turned_and_small(longest, rotation, size):
    ax = plot_correlation_gap(logits(9, 3), logits(9, 3), class_names=["a", "b", "c" * longest])
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {rotation}
    assert {label.get_rotation() for label in ax.get_yticklabels()} == {0}
    assert {label.get_fontsize() for axis in (ax.xaxis, ax.yaxis) for label in axis.get_ticklabels()} == {size}


def test_classes_without_names_are_numbered():
    ax = plot_correlation_gap(logits(9, 2), logits(9, 2, seed=1))
    ax.figure.draw_without_rendering()
    ticks = ax.get_xticks()
    assert np.array_equal(ticks, ticks.round()) and np.array_equal(ticks, ax.get_yticks())
    assert ax.get_xticklabels()[0].get_rotation() == 0


def test_a_larger_gap_is_darker_and_cells_have_edges():
    image = plot_correlation_gap(logits(9, 4), logits(9, 4, seed=1)).images[0]
    brightness = image.cmap(np.linspace(0, 1, 11))[:, :3].sum(1)
    assert (np.diff(brightness) < 0).all()
    assert image.get_interpolation() == "nearest"


def test_names_that_would_overlap_are_left_out():
    ax = plot_correlation_gap(logits(9, 100), logits(9, 100, seed=1), class_names=[f"class {i}" for i in range(100)])
    assert 10 < len(names(ax.xaxis)) <= 24
    assert all(f"class {place:.0f}" == name for place, name in zip(ax.get_xticks(), names(ax.xaxis), strict=True))


@pytest.mark.parametrize(
    ("c", "shape", "said"), [(511, 511, ""), (512, 512, ""), (513, 512, " (means of blocks of up to 2 classes)")]
)
def test_many_classes_are_averaged_in_blocks_and_say_so(c, shape, said):
    student, teacher = logits(5, c), logits(5, c, seed=1)
    gap = correlation_gap(student, teacher)
    ax = plot_correlation_gap(student, teacher)
    assert cells(ax).shape == (shape, shape)
    assert ax.get_ylabel() == f"class{said}"
    assert ax.get_xlabel().startswith(f"class{said}\nmean gap {float(gap.sum()) / (c * (c - 1)):.3f}, maximum")
    assert f"maximum {float(gap.max()):.3f}" in ax.get_xlabel()
    assert ax.images[0].get_extent() == [-0.5, c - 0.5, c - 0.5, -0.5]


def test_block_means_are_means():
    student, teacher = logits(5, 1024), logits(5, 1024, seed=1)
    wanted = correlation_gap(student, teacher).numpy().reshape(512, 2, 512, 2).mean((1, 3))
    ax = plot_correlation_gap(student, teacher)
    assert np.allclose(cells(ax), wanted, atol=1e-6)
    assert ax.images[0].get_clim() == pytest.approx((0, wanted.max()), abs=1e-6)
    assert ax.get_ylabel().endswith("up to 2 classes)")
    assert plot_correlation_gap(logits(3, 1025), logits(3, 1025)).get_ylabel().endswith("up to 3 classes)")


def test_two_classes_are_drawn():
    assert cells(plot_correlation_gap(logits(3, 2), logits(3, 2, seed=1))).shape == (2, 2)


def test_given_axes_are_drawn_on():
    ax = axes_or_new(None, 3, 3)
    assert plot_correlation_gap(logits(3, 2), logits(3, 2), ax=ax) is ax


def test_what_does_not_fit_is_refused():
    with pytest.raises((ValueError, TypeCheckError)):  # With shape checks on, it does not get as far as the metric's.
        plot_correlation_gap(logits(4, 3), logits(5, 3))
    with pytest.raises(ValueError, match=r"at least two classes, got shape \(3, 1\)"):
        plot_correlation_gap(logits(3, 1), logits(3, 1))
    with pytest.raises(ValueError, match="name for class 2, got 2 names"):
        plot_correlation_gap(logits(3, 3), logits(3, 3), class_names=["cat", "dog"])
    with pytest.raises(ValueError, match="name for class 99, got 99 names"):
        plot_correlation_gap(logits(3, 100), logits(3, 100), class_names=["cat"] * 99)
