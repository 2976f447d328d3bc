"""WKD-F against the authors' values (tests/golden), and against loops."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from published_values import golden_files, load
from torch import nn

from graphkd.losses import wkd_features
from graphkd.ot import gaussian
from graphkd.projectors import MapProjector

FILES = [path for path in golden_files("wkdf_*.npz") if "proj" not in path.stem]
PROJECTED = golden_files("wkdf_proj_*.npz")
REFUSED = (ValueError, TypeCheckError)


def published(golden, projector=None):
    return wkd_features(
        grid=int(golden["spatial_grid"]),
        mean_ratio=float(golden["mean_cov_ratio"]),
        projector=projector,
        eps=float(golden["eps"]),
    )


def run(criterion, golden, dtype):
    student = golden["feat_student"].to(dtype).requires_grad_()
    output = criterion({"map": student}, {"map": golden["feat_teacher"].to(dtype)})
    value = float(golden["feat_weight"]) * output.value
    value.backward()
    return output, value, student.grad


def test_all_golden_files_are_here():
    assert [path.stem[5:7] for path in FILES] == ["01", "03", "04", "07", "08"]
    assert [path.stem[10:12] for path in PROJECTED] == ["01", "02", "05"]


@pytest.mark.parametrize(("dtype", "bits", "on_value", "on_gradient"),
                         [(torch.float64, "f64", 1e-10, 1e-10), (torch.float32, "f32", 2e-6, 1e-5)])  # fmt: skip
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_value_terms_and_gradient_are_the_authors(path, dtype, bits, on_value, on_gradient, assert_golden):
    golden = load(path)
    output, value, gradient = run(published(golden), golden, dtype)
    assert_golden(output.terms["mean"], golden[f"mean_loss_{bits}"], on_value)
    assert_golden(output.terms["covariance"], golden[f"cov_loss_{bits}"], on_value)
    assert_golden(value, golden[f"loss_{bits}"], on_value)
    assert_golden(gradient, golden[f"grad_student_{bits}"], on_gradient)


@pytest.mark.parametrize("path", [path for path in FILES if "grid" in path.stem and "grid1" not in path.stem])
def test_cells_are_the_authors(path):
    golden = load(path)
    output, _, _ = run(published(golden), golden, torch.float64)
    for graph, side in zip(output.comparisons["mean"].graphs, ("student", "teacher"), strict=True):
        n, channels = golden[f"feat_{side}"].shape[:2]
        halves = graph.x.reshape(n, -1, 2, channels).permute(2, 0, 3, 1)
        for half, name in zip(halves, ("mean", "std"), strict=True):
            expected = golden[f"{side}_{name}_f64"].flatten(2)
            torch.testing.assert_close(half.detach(), expected, rtol=1e-10, atol=1e-12)


def strided(golden):
    """What the released code has for a teacher's map of half the size."""
    channels = golden["feat_student"].shape[1], golden["feat_teacher"].shape[1]
    return nn.Sequential(nn.Conv2d(*channels, 3, stride=2, padding=1), nn.BatchNorm2d(channels[1]), nn.ReLU())


def projector_of(golden):
    """The projector of a golden file, and its modules' names there."""
    if golden["feat_student"].shape[2:] != golden["feat_teacher"].shape[2:]:
        return strided(golden), {"0": "conv", "1": "bn"}
    channels = golden["feat_student"].shape[1], golden["feat_teacher"].shape[1]
    projector = MapProjector(golden["kind"], *channels, int(golden["c_hidden"]))
    if golden["kind"] == "conv1x1":
        return projector, {"convs.0": "conv", "norm": "bn"}
    return projector, {"convs.0": "conv1", "convs.1": "conv2", "convs.2": "conv3", "norm": "bn"}


@pytest.mark.parametrize("path", PROJECTED, ids=lambda path: path.stem)
def test_projected_maps_value_and_every_gradient_are_the_authors(path, assert_golden):
    golden = load(path)
    projector, names = projector_of(golden)
    projector = projector.double()
    with torch.no_grad():
        for name, value in projector.state_dict().items():
            module, entry = name.rsplit(".", 1)
            value.copy_(golden[f"param.{names[module]}.{entry}"])
    output, value, gradient = run(published(golden, projector), golden, torch.float64)
    assert_golden(output.terms["mean"], golden["mean_loss_f64"])
    assert_golden(output.terms["covariance"], golden["cov_loss_f64"])
    assert_golden(value, golden["loss_f64"])
    assert_golden(gradient, golden["grad_student_f64"])
    scale = max(float(golden[f"grad.{name}.weight"].abs().max()) for name in names.values())
    for name, parameter in projector.named_parameters():
        module, entry = name.rsplit(".", 1)
        expected = golden[f"grad.{names[module]}.{entry}"]
        # A bias in front of batch normalisation has a gradient of rounding errors.
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-11 * scale)
    batches = int(projector.state_dict()[f"{[*names][-1]}.num_batches_tracked"])
    assert batches == int(golden["param.bn.num_batches_tracked"]) + 1


def moments_by_loops(maps, grid, eps):
    """Means and deviations of each cell, (n, g g, c), on plain numbers."""
    n, channels, height, width = maps.shape
    means, deviations = torch.zeros(2, n, grid * grid, channels, dtype=torch.float64)
    for i in range(n):
        for cell in range(grid * grid):
            row, column = divmod(cell, grid)
            rows = range(row * height // grid, math.ceil((row + 1) * height / grid))
            columns = range(column * width // grid, math.ceil((column + 1) * width / grid))
            for c in range(channels):
                values = [float(maps[i, c, r, k]) for r in rows for k in columns]
                mean = sum(values) / len(values)
                means[i, cell, c] = mean
                variance = sum((x - mean) ** 2 for x in values) / (len(values) - 1)
                deviations[i, cell, c] = math.sqrt(variance + eps)
    return means, deviations


@pytest.mark.parametrize("grid", [1, 2, 3])
def test_terms_are_summed_over_channels_and_averaged_over_cells_and_maps(grid):
    student, teacher = torch.randn(3, 4, 5, 7, dtype=torch.float64), torch.randn(3, 4, 8, 6, dtype=torch.float64)
    output = wkd_features(grid=grid, projector=None, mean_ratio=3.0)({"map": student}, {"map": teacher})
    sides = zip(moments_by_loops(student, grid, 1e-5), moments_by_loops(teacher, grid, 1e-5), strict=True)
    expected = [float((s - t).square().sum()) / (3 * grid**2) for s, t in sides]
    assert [float(value) for value in output.terms.values()] == pytest.approx(expected, rel=1e-10)
    assert float(output.value) == pytest.approx(3 * expected[0] + expected[1], rel=1e-10)


@pytest.mark.parametrize("grid", [1, 2, 3])
def test_full_covariances_are_compared_by_their_bures_distance(grid):
    student, teacher = torch.randn(2, 3, 7, 5, dtype=torch.float64), torch.randn(2, 3, 6, 8, dtype=torch.float64)
    full = wkd_features(grid=grid, projector=None, covariance="full")({"map": student}, {"map": teacher})
    diagonal = wkd_features(grid=grid, projector=None)({"map": student}, {"map": teacher})
    torch.testing.assert_close(full.terms["mean"], diagonal.terms["mean"])
    total = 0.0
    for i in range(2):
        for row in range(grid):
            for column in range(grid):
                cells = []
                for maps in (student, teacher):
                    h, w = maps.shape[2:]
                    rows = slice(row * h // grid, math.ceil((row + 1) * h / grid))
                    columns = slice(column * w // grid, math.ceil((column + 1) * w / grid))
                    cells.append(maps[i, :, rows, columns].flatten(1).T)
                total += float(gaussian(*cells, covariance="full", unbiased=True, eps=1e-5).covariance)
    assert float(full.terms["covariance"]) == pytest.approx(total / (2 * grid**2), rel=1e-9)
    assert full.terms["covariance"] > diagonal.terms["covariance"]


def test_full_covariances_have_the_gradient_of_finite_differences():
    criterion = wkd_features(grid=2, projector=None, covariance="full").double()
    teacher = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    student = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: criterion({"map": x}, {"map": teacher}).value, student, fast_mode=True)


@pytest.mark.parametrize("projector", ["conv1x1", "bottleneck"])
@pytest.mark.parametrize("known", [(3, 5), (None, 5), (3, None), (None, None)])
def test_channels_that_are_not_given_are_read_off_the_first_batch(projector, known):
    criterion = wkd_features(*known, projector=projector)
    student, teacher = {"map": torch.randn(4, 3, 6, 6)}, {"map": torch.randn(4, 5, 4, 4)}
    assert criterion(student_features=student, teacher_features=teacher).value.isfinite()
    assert criterion.student.build.projector(student["map"]).shape == (4, 5, 6, 6)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize(("size", "grid"), [((1, 1), 1), ((4, 4), 4), ((1, 5), 5), ((3, 3), 3)])
def test_cells_of_one_position_are_refused_with_the_reason(covariance, size, grid):
    maps = {"map": torch.randn(2, 3, *size)}
    with pytest.raises(ValueError, match="at least two positions, since one has no deviation"):
        wkd_features(grid=grid, projector=None, covariance=covariance)(maps, maps)


def test_channels_that_differ_are_refused():
    with pytest.raises(ValueError, match="one width"):
        wkd_features(projector=None)({"map": torch.randn(2, 3, 4, 4)}, {"map": torch.randn(2, 5, 4, 4)})


def test_features_that_are_no_maps_are_refused():
    for projector in ("conv1x1", None):
        with pytest.raises(ValueError, match=r"needs? feature maps \(n, c, h, w\)"):
            wkd_features(projector=projector)({"map": torch.randn(2, 3)}, {"map": torch.randn(2, 3, 4, 4)})


@pytest.mark.parametrize(
    "arguments",
    [
        {"grid": 0},
        {"mean_ratio": 0.0},
        {"projector": "conv3x3"},
        {"covariance": "low_rank"},
        {"eps": -1.0},
        {"student_channels": 0},
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments):
    with pytest.raises(REFUSED):
        wkd_features(**arguments)
