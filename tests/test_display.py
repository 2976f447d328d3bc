"""How objects show themselves."""

import base64
import io
import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import nn

from graphkd import display


@dataclass(frozen=True)
class Part:
    size: Any
    rate: float = 1.0
    inner: Any = None
    hidden: int = field(default=0, repr=False)
    names: list = field(default_factory=list)


class Plain:
    pass


class Spoken:
    def __repr__(self):
        return "two\n   lines"


class Layer(nn.Module):
    def __init__(self, said="", **children):
        super().__init__()
        self.said = said
        for name, child in children.items():
            self.add_module(name, child)

    def extra_repr(self):
        return self.said


def some_function():
    pass


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (1.0, "1"),
        (0.25, "0.25"),
        (True, "True"),
        ("rows", "'rows'"),
        (some_function, "some_function"),
        (torch.square, "square"),
        (Plain, "Plain"),
        (Part, "Part"),
        (Plain(), "Plain"),
        (Spoken(), "two lines"),
        (torch.zeros(3, 4), "tensor(3, 4)"),
        (partial(some_function, 2.0, k=some_function), "some_function(2, k=some_function)"),
        (partial(partial(some_function, 1), 2), "some_function(1, 2)"),
        (Part(3), "Part(size=3)"),
        (Part(3, 1), "Part(size=3)"),
        (Part(3, hidden=4), "Part(size=3)"),
        (Part(3, names=[1]), "Part(size=3, names=[1])"),
        (Part(3, 0.5, Part(some_function)), "Part(size=3, rate=0.5, inner=Part(size=some_function))"),
        (Part(torch.zeros(2), inner=torch.ones(2)), "Part(size=tensor(2), inner=tensor(2))"),
        (Layer(), "Layer()"),
        (Layer("a=1,\n b=2", on=nn.Tanh()), "Layer(a=1, b=2, Tanh())"),
        (nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU()), None),
    ],
)
def test_a_part_is_its_name_and_what_is_not_the_default(part, text):
    expected = "Sequential(Linear(in_features=2, out_features=3, bias=False), ReLU())" if text is None else text
    assert display.described(part) == expected


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (42, "Conv2d(3, 4, kernel_size=(1, 1), ...)"),
        (36, "Conv2d(3, 4, ...)"),
        (17, "Conv2d(3, 4, ...)"),
        (16, "Conv2d(3, ...)"),
        (13, "Conv2d(...)"),
        (8, "Conv2..."),
        (2, "..."),
    ],
)
def test_a_line_that_is_too_long_loses_its_last_arguments_first(width, text):
    assert display.described(nn.Conv2d(3, 4, 1), width) == text


def test_a_line_that_fits_exactly_is_whole():
    whole = display.described(nn.Conv2d(3, 4, 1))
    assert display.described(nn.Conv2d(3, 4, 1), len(whole)) == whole
    assert display.described(nn.Conv2d(3, 4, 1), len(whole) - 1) != whole


def test_columns_are_aligned_and_lines_end_with_their_text():
    assert display.aligned([["a", "long", "x"], ["abc", "b", ""]]) == ["a    long  x", "abc  b"]


def test_a_column_is_dropped_only_where_no_row_has_it():
    assert display.without_empty([["a", "b", "c"], ["1", "", ""], ["", "2", ""]]) == [
        ("a", "b"),
        ("1", ""),
        ("", "2"),
    ]


def test_cells_get_as_wide_as_the_line_allows_and_what_was_cut_is_told_once():
    def rows(width):
        return [["name", display.described(nn.Linear(2, 3), width), display.described(nn.ReLU(), width)]] * 2

    assert display.fitted(rows, 80) == ["name  Linear(in_features=2, out_features=3, bias=True)  ReLU()"] * 2
    whole = len(display.fitted(rows, 80)[0])
    assert len(display.fitted(rows, whole)) == 2
    assert display.fitted(rows, whole - 1) == [
        *["name  Linear(in_features=2, out_features=3, ...)  ReLU()"] * 2,
        "  Linear(in_features=2, out_features=3, bias=True)",
    ]


def test_what_was_cut_is_wrapped_within_the_line():
    lines = display.fitted(lambda width: [[display.described(nn.Linear(2, 3), width)]], 30)
    assert lines == ["Linear(in_features=2, ...)", "  Linear(in_features=2,", "    out_features=3, bias=True)"]


def test_names_that_do_not_fit_make_the_line_longer_instead_of_vanishing():
    lines = display.fitted(lambda width: [["n" * 40, display.described(nn.Linear(2, 3), width)]], 30)
    assert lines[0] == f"{'n' * 40}  Linear(...)"


def test_all_text_of_a_table_is_escaped():
    text = display.table([["<a>", '<b> & "c"']], header=["<h>", "x"])
    assert re.findall("&lt;[abh]&gt;", text) == ["&lt;h&gt;", "&lt;a&gt;", "&lt;b&gt;"]
    assert "&amp; &quot;c&quot;" in text
    assert text.count("<tr>") == 2 and text.count("<th ") == 3 and text.count("<td ") == 1


def test_only_short_cells_refuse_to_wrap():
    text = display.table([["short", "long " * 20]])
    assert text.count("white-space:nowrap") == 1
    assert text.index("white-space:nowrap") < text.index("short")


def test_titles_and_notes_are_escaped_and_parts_are_not():
    text = display.figure("<t>", "<i>part</i>", note="<n>")
    assert "&lt;t&gt;" in text and "&lt;n&gt;" in text and "<i>part</i>" in text
    assert "<div></div>" not in display.figure("t", "part")


# Pictures


def pixels(image):
    source = re.search('src="data:image/png;base64,([^"]+)"', image)[1]
    return (matplotlib.image.imread(io.BytesIO(base64.b64decode(source)), "png") * 255).round().astype(int)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("n", "m"), [(2, 3), (7, 100), (65, 64), (130, 1)])
def test_block_means_are_those_of_neighbours(sparse, n, m):
    matrix = torch.rand(n, m, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix[matrix < 0.3] = 0
    r, c = min(n, 10), min(m, 10)
    rows = [[i for i in range(n) if i * r // n == block] for block in range(r)]
    columns = [[j for j in range(m) if j * c // m == block] for block in range(c)]
    expected = torch.stack([torch.stack([matrix[i][:, j].mean() for j in columns]) for i in rows])
    given = matrix.to_sparse() if sparse else matrix
    torch.testing.assert_close(display.block_means(given, most=10), expected)


def test_block_means_leave_a_half_precision_matrix_with_gradient_as_it_is():
    matrix = torch.full((3, 3), 0.1, dtype=torch.bfloat16, requires_grad=True)
    means = display.block_means(matrix, most=1)
    assert not means.requires_grad
    torch.testing.assert_close(means, torch.full((1, 1), float(matrix[0, 0].detach()), dtype=torch.float64))


def test_a_picture_is_white_at_zero_dark_at_the_largest_and_follows_the_square_root():
    shown = pixels(display.picture(torch.tensor([[0.0, 0.25, 1.0], [0.0625, 0.0, 0.0]]), "it"))
    assert shown.shape[:2] == (2, 3)
    assert shown[0, 0].tolist()[:3] == [255, 255, 255]
    assert shown[0, 1].tolist()[:3] == [107, 174, 214]
    assert shown[0, 2].tolist()[:3] == [8, 48, 107]
    assert shown[1, 0].tolist()[:3] == [181, 214, 234]


def test_a_picture_marks_what_is_not_finite():
    shown = pixels(display.picture(torch.tensor([[torch.nan, 1.0], [torch.inf, 0.0]]), "it"))
    assert shown[:, 0, :3].tolist() == [[213, 94, 0]] * 2
    assert shown[:, 1, :3].tolist() == [[8, 48, 107], [255, 255, 255]]


def test_a_picture_of_nothing_is_white():
    assert (pixels(display.picture(torch.zeros(2, 2), "it")) == 255).all()


@pytest.mark.parametrize(
    ("n", "m", "shape", "size"),
    [
        (2, 2, (2, 2), (48, 48)),
        (64, 3, (64, 3), (128, 6)),
        (1000, 65, (64, 64), (128, 128)),
        (9, 16, (9, 16), (90, 160)),
    ],
)
def test_a_picture_has_at_most_64_rows_and_is_scaled_by_whole_numbers(n, m, shape, size):
    image = display.picture(torch.ones(n, m), "it")
    assert pixels(image).shape[:2] == shape
    assert f'width="{size[1]}" height="{size[0]}"' in image
    assert "image-rendering:pixelated" in image


def test_a_picture_says_what_it_is():
    assert 'alt="a &quot;plan&quot;"' in display.picture(torch.eye(2), 'a "plan"')


def test_a_picture_has_the_rows_of_the_matrix():
    matrix = torch.zeros(3, 5)
    matrix[2, 0] = 1
    dark = np.argwhere(pixels(display.picture(matrix, "it"))[..., 0] < 128)
    assert dark.tolist() == [[2, 0]]
