"""Each check raises a ValueError that says what was needed and what came."""

import inspect

import pytest
import torch
from torch_geometric.data import Data

from graphkd import checks


@pytest.fixture(autouse=True)
def forget_what_was_logged() -> None:
    checks.log_once.cache_clear()


def refuses(check, *arguments, message):
    # As users have it, without the run-time type checks of the tests.
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(check)(*arguments)


@pytest.mark.parametrize("value", [1, 0.5, 1e-30])
def test_positive_takes_finite_numbers_above_zero(value):
    checks.positive("epsilon", value)


@pytest.mark.parametrize("value", [0, 0.0, -1, float("nan"), float("inf"), True, "0.1", None, torch.tensor(1.0)])
def test_positive_refuses_all_else(value):
    refuses(checks.positive, "epsilon", value, message="epsilon needs a finite number above 0, got ")


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_at_least_refuses_smaller_numbers_and_what_is_no_integer(value):
    checks.at_least("k", 1, 1)
    refuses(checks.at_least, "k", value, 1, message=f"k needs an integer of at least 1, got {value!r}")


def test_one_of_names_the_known_words():
    checks.one_of("order", "rows", ("rows", "columns"))
    refuses(checks.one_of, "order", "row", ("rows", "columns"), message="order needs one of rows, columns, got 'row'")


@pytest.mark.parametrize(
    "x, message",
    [
        ([[1.0]], "x needs a tensor, got list"),
        (torch.ones(2, 2, dtype=torch.int64), "x needs floating-point values, got torch.int64"),
        (torch.ones(3), r"x needs rows of shape \(n, d\), got shape \(3,\)"),
        (torch.ones(0, 3), r"x needs at least one row and one column, got shape \(0, 3\)"),
        (torch.ones(3, 0), r"x needs at least one row and one column, got shape \(3, 0\)"),
        (torch.tensor([[1.0, torch.nan], [torch.inf, 0.0]]), r"x needs finite values, got 2 NaN or infinite of 4"),
    ],
)
def test_rows_refuses_what_is_no_matrix_of_finite_numbers(x, message):
    refuses(checks.rows, "x", x, message=message)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rows_takes_any_floating_precision_and_leading_axes(dtype):
    checks.rows("x", torch.ones(2, 3, 4, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_finite_values_may_overflow_their_sum(dtype):
    x = torch.full((4, 4), torch.finfo(dtype).max, dtype=dtype)
    assert x.sum().isinf()
    checks.rows("x", x)
    x[0, 0], x[0, 1] = torch.inf, -torch.inf
    refuses(checks.rows, "x", x, message="x needs finite values, got 2 NaN or infinite of 16")


def test_nodes_are_the_checked_attributes_of_a_graph():
    x = torch.ones(3, 2)
    assert checks.nodes("the graph", Data(x=x)) is x
    refuses(checks.nodes, "the graph", Data(num_nodes=3), message="the graph needs a graph with attributes x, got Data")
    refuses(checks.nodes, "the graph", Data(x=0 / torch.zeros(3, 2)), message="the graph needs finite values, got 6")


def test_values_off_the_host_are_not_read():
    x = torch.ones(2, 2, device="meta")
    assert not checks.can_look(x)
    assert checks.can_look(torch.ones(1))
    # Reading a value of a meta tensor would raise.
    checks.rows("x", x)


def test_same_device_names_the_culprit():
    here, there = torch.ones(1), torch.ones(1, device="meta")
    checks.same_device(x=here, y=None, z=here)
    with pytest.raises(ValueError, match="needs all tensors on one device, got x on cpu, y on meta"):
        checks.same_device(x=here, y=there)


def test_a_message_is_logged_the_first_time_only(caplog):
    for _ in range(3):
        checks.log_once("one")
        checks.log_once("two")
    assert [record.message for record in caplog.records] == ["one", "two"]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


@pytest.mark.parametrize("value", [0, 0.0, 1e-30, 3])
def test_not_negative_takes_finite_numbers_and_zero(value):
    checks.not_negative("eps", value)


@pytest.mark.parametrize("value", [-1, -1e-30, float("nan"), float("inf"), True, "0", None])
def test_not_negative_refuses_all_else(value):
    refuses(checks.not_negative, "eps", value, message="eps needs a finite number of at least 0, got ")


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_class_labels_are_classes_of_the_logits_or_none(dtype):
    checks.class_labels(torch.tensor([0, 2, -100, 1], dtype=dtype), torch.zeros(4, 3))


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0, 1], "labels needs a tensor, got list"),
        (torch.zeros(2), r"one integer per sample, \(2,\), got torch.float32 of shape \(2,\)"),
        (torch.zeros(2, dtype=torch.bool), "one integer per sample, .* got torch.bool"),
        (torch.zeros(3, dtype=torch.int64), r"one integer per sample, \(2,\), got torch.int64 of shape \(3,\)"),
        (torch.zeros(2, 3, dtype=torch.int64), r"one integer per sample, \(2,\), got .* of shape \(2, 3\)"),
        (torch.tensor([1, 3]), "labels need numbers from 0 to 2, or -100 for none, got 3"),
        (torch.tensor([-1, 0]), "labels need numbers from 0 to 2, or -100 for none, got -1"),
        (torch.tensor([-100, -99]), "got -99"),
    ],
)
def test_class_labels_refuses_what_is_no_class_per_sample(labels, message):
    refuses(checks.class_labels, labels, torch.zeros(2, 3), message=message)


def test_class_labels_off_the_host_are_not_read():
    labels = torch.full((2,), 7, device="meta")
    checks.class_labels(labels, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="got torch.int64 of shape"):
        checks.class_labels(labels, torch.zeros(3, 3))


def test_maps_takes_any_floating_precision():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        checks.maps("map", torch.ones(2, 3, 4, 5, dtype=dtype))


@pytest.mark.parametrize(
    "x, message",
    [
        ([[[[1.0]]]], "map needs a tensor, got list"),
        (torch.ones(2, 3, 4, 5, dtype=torch.int64), "map needs floating-point values, got torch.int64"),
        (torch.ones(2, 3, 4), r"map needs feature maps \(n, c, h, w\), got shape \(2, 3, 4\)"),
        (torch.ones(2, 3, 4, 5, 6), r"map needs feature maps \(n, c, h, w\), got shape \(2, 3, 4, 5, 6\)"),
        (torch.ones(2, 3, 0, 5), r"map needs feature maps \(n, c, h, w\), got shape \(2, 3, 0, 5\)"),
        (torch.full((1, 1, 2, 2), torch.nan), "map needs finite values, got 4 NaN or infinite of 4"),
    ],
)
def test_maps_refuses_what_is_no_finite_feature_map(x, message):
    refuses(checks.maps, "map", x, message=message)
