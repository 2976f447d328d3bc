"""Feature maps of two networks: brought to one size, or refused."""

import copy
import io

import pytest
import torch
from torch import Tensor

from graphkd import Criterion, GraphLoss, Term, measures
from graphkd.encoders import GraphEncoder
from graphkd.graphs import positions
from graphkd.maps import check_named, same_size, sized


def build(features):
    return positions(features["map"])


def criterion(*names: str) -> Criterion:
    encoders = GraphEncoder(build), GraphEncoder(build)
    made = Criterion(*encoders, {"it": Term(GraphLoss(measures.sqeuclidean))})
    same_size(made, *names)
    return made


def averaged(maps: Tensor, size: int) -> Tensor:
    """Window by window, from floor(i h / size) to ceil((i + 1) h / size)."""
    n, channels, h, w = maps.shape
    found = torch.zeros(n, channels, size, size, dtype=maps.dtype)
    for i in range(size):
        for j in range(size):
            rows = slice(i * h // size, -(-(i + 1) * h // size))
            columns = slice(j * w // size, -(-(j + 1) * w // size))
            found[:, :, i, j] = maps[:, :, rows, columns].mean((2, 3))
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_maps_are_averaged_to_a_size(size):
    maps = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(sized({"other": maps}, "other", size), averaged(maps, size))


def test_maps_stay_as_they_are_without_a_size_but_in_float32_at_least():
    maps = torch.randn(2, 3, 5, 7)
    assert sized({"map": maps}) is maps
    assert sized({"map": maps.half()}, size=2).dtype == torch.float32


def test_what_is_no_map_is_refused_by_name():
    with pytest.raises(ValueError, match="feature 'low' needs feature maps"):
        sized({"low": torch.zeros(2, 3)}, "low")
    with pytest.raises(KeyError, match="needs a feature named 'low'"):
        sized({"map": torch.zeros(2, 3, 4, 4)}, "low")


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("copied", ["as it is", "deepcopy", "saved"])
def test_a_criterion_refuses_maps_of_two_sizes(by_name, copied):
    made = criterion("map")
    if copied == "deepcopy":
        made = copy.deepcopy(made)
    if copied == "saved":
        file = io.BytesIO()
        torch.save(made, file)
        file.seek(0)
        made = torch.load(file, weights_only=False)
    sides = {"student_features": {"map": torch.ones(2, 3, 4, 4)}, "teacher_features": {"map": torch.ones(2, 3, 2, 8)}}
    with pytest.raises(ValueError, match="maps 'map' of one size, got 4 x 4 and 2 x 8: give a `size` to average both"):
        made(**sides) if by_name else made(*sides.values())
    sides["teacher_features"] = {"map": torch.ones(2, 3, 4, 4)}
    assert (made(**sides) if by_name else made(*sides.values())).value == 0


def test_only_the_named_maps_are_looked_at():
    student = {"map": torch.ones(2, 3, 4, 4), "low": torch.ones(2, 3, 8, 8), "feat": torch.ones(2, 3)}
    teacher = {"map": torch.ones(2, 3, 4, 4), "low": torch.ones(2, 3, 4, 4), "feat": torch.ones(2, 3)}
    assert criterion("map", "feat", "nowhere")(student, teacher).value == 0
    with pytest.raises(ValueError, match="maps 'low' of one size, got 8 x 8 and 4 x 4"):
        criterion("map", "low")(student, teacher)


@pytest.mark.parametrize("names", [(), "map", ("map", "map"), ("body.0",)])
def test_names_that_cannot_name_terms_are_refused(names):
    with pytest.raises(ValueError, match="maps needs a sequence of different names without dots"):
        check_named(names, None)


@pytest.mark.parametrize("names", [("map",), ["low", "map"]])
def test_names_and_sizes_that_fit_pass(names):
    check_named(names, None)
    check_named(names, 1)
    with pytest.raises(ValueError, match="size needs an integer of at least 1, got 0"):
        check_named(names, 0)
