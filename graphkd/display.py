"""How objects show themselves: parts in few words, aligned columns, and small self-contained HTML for notebooks."""

import base64
import html
import itertools
import re
import struct
import textwrap
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

LARGEST_PICTURE = 64
"""Rows and columns of a picture, at most."""

SHADES = ((255, 255, 255), (107, 174, 214), (8, 48, 107))
NOT_FINITE = (213, 94, 0)
"""Colours of a picture, evenly apart from zero to the largest entry, and of what is not a number."""

BETWEEN_ARGUMENTS = re.compile(r", (?![^()]*\))")
"""A comma that is not inside of brackets."""

LONG = 10_000
"""Width of a line that holds any part."""

CELL = "text-align:left;vertical-align:top;padding:0.15em 0.8em 0.15em 0"
"""Notebooks have a style of their own for tables, so that every cell needs its own."""

NOT_WRAPPED = 32
"""Length of a text up to which its cell is one line."""


def described(part: object, width: int = LONG) -> str:
    """A part of a loss in one line: its name and those arguments that are not the defaults.

    Functions are named, ``functools.partial`` shows what is bound, modules show what ``extra_repr`` says and their
    parts, tensors their shape. Where the line is longer than ``width``, the last arguments are left out, then cut.

    >>> described(partial(torch.softmax, dim=1)), described(nn.Linear(2, 3), width=26)
    ('softmax(dim=1)', 'Linear(in_features=2, ...)')
    """
    name, arguments = _call(part)
    if arguments is None:
        return _cut(name, width)
    full = f"{name}({', '.join(arguments)})"
    for kept in range(len(arguments), -1, -1):
        if len(full) <= width:
            break
        full = f"{name}({', '.join([*arguments[:kept], '...'])})"
    return _cut(full, width)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with aligned columns, two spaces apart.

    >>> aligned([["a", "bc"], ["def", "g"]])
    ['a    bc', 'def  g']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def without_empty(rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """A header and its rows, without the columns that are empty below the header.

    >>> without_empty([["a", "b", "c"], ["1", "", "2"]])
    [('a', 'c'), ('1', '2')]
    """
    kept = [i for i, (_, *cells) in enumerate(zip(*rows, strict=True)) if any(cells)]
    return [tuple(row[i] for i in kept) for row in rows]


def fitted(rows: Callable[[int], Sequence[Sequence[str]]], width: int, narrowest: int = 12) -> list[str]:
    """Aligned rows, their cells as wide as lines of ``width`` allow, and below them the cells that were cut in full.

    Args:
        rows: From how wide a part may be to the rows.
        width: Of a line.
        narrowest: How wide a part may always be, even if lines then get longer.

    >>> for line in fitted(lambda cell: [[described(nn.Linear(2, 3), cell), "b"]], width=50):
    ...     print(line)
    Linear(in_features=2, out_features=3, ...)  b
      Linear(in_features=2, out_features=3, bias=True)
    """
    cell = width
    while max(map(len, aligned(rows(cell)))) > width and cell > narrowest:
        cell -= 1
    lines = aligned(rows(cell))
    cells = zip(itertools.chain(*rows(cell)), itertools.chain(*rows(LONG)), strict=True)
    cut = dict.fromkeys(full for short, full in cells if short != full)
    for full in cut:
        lines += textwrap.wrap(full, width, initial_indent="  ", subsequent_indent="    ")
    return lines


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """An HTML table; all text is escaped.

    >>> table([["a<b"]]).count("a&lt;b")
    1
    """
    lines = ["".join(_cell("th", text) for text in header)] if header else []
    lines += [_cell("th", first) + "".join(_cell("td", text) for text in rest) for first, *rest in rows]
    return f'<table style="margin:0.4em 0">{"".join(f"<tr>{line}</tr>" for line in lines)}</table>'


def block_means(matrix: Tensor, most: int = LARGEST_PICTURE) -> Tensor:
    """A matrix (n m), dense or sparse, as at most ``most`` rows and columns (r c), each the mean of neighbours.

    >>> block_means(torch.tensor([[1.0, 3.0], [5.0, 7.0]]), most=1)
    tensor([[4.]], dtype=torch.float64)
    """
    n, m = matrix.shape
    matrix = matrix.detach().cpu()
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    rows, columns = _blocks(n, most), _blocks(m, most)
    r, c = min(n, most), min(m, most)
    if matrix.layout == torch.strided:
        sums = matrix.new_zeros(r, m).index_add_(0, rows, matrix)
        sums = sums.new_zeros(r, c).index_add_(1, columns, sums)
    else:
        entries = matrix.coalesce()
        at = rows[entries.indices()[0]] * c + columns[entries.indices()[1]]
        sums = entries.values().new_zeros(r * c).index_add_(0, at, entries.values()).reshape(r, c)
    return sums.double() / (rows.bincount().unsqueeze(1) * columns.bincount())


def picture(matrix: Tensor, text: str) -> str:
    """A matrix (n m) of masses as a small HTML image, at most 64 x 64, shaded by the square root of block means.

    White is zero, the darkest blue the largest; an orange block is not finite.

    Args:
        matrix: Dense or sparse, anywhere.
        text: What it is, for those who cannot see it.

    >>> picture(torch.eye(2), "a plan").startswith('<img alt="a plan" src="data:image/png;base64,')
    True
    """
    cells = block_means(matrix)
    finite = cells.isfinite()
    masses = torch.where(finite, cells, 0.0).clamp_min(0)
    height = (masses / masses.max().clamp_min(torch.finfo(torch.float64).tiny)).sqrt() * (len(SHADES) - 1)
    below = height.floor().clamp_max(len(SHADES) - 2)
    shades = torch.tensor(SHADES, dtype=torch.float64)
    colours = torch.lerp(shades[below.long()], shades[below.long() + 1], (height - below).unsqueeze(-1))
    colours[~finite] = torch.tensor(NOT_FINITE, dtype=torch.float64)
    r, c = cells.shape
    scale = max(1, min(24, 160 // max(r, c)))
    source = base64.b64encode(_png(colours.round().to(torch.uint8))).decode()
    return (
        f'<img alt="{html.escape(text)}" src="data:image/png;base64,{source}" width="{c * scale}" '
        f'height="{r * scale}" style="image-rendering:pixelated;border:1px solid #808080;margin:0.4em 0">'
    )


def figure(title: str, *parts: str, note: str = "") -> str:
    """HTML parts side by side under a title, with a note below; title and note are escaped.

    >>> figure("It", table([["a", "b"]])).startswith("<div><strong>It</strong>")
    True
    """
    below = f"<div>{html.escape(note)}</div>" if note else ""
    style = "display:flex;flex-wrap:wrap;overflow-x:auto;column-gap:1.5em;align-items:center"
    beside = "".join(f"<div>{part}</div>" for part in parts)
    return f'<div><strong>{html.escape(title)}</strong><div style="{style}">{beside}</div>{below}</div>'


def _cell(tag: str, text: str) -> str:
    wrapping = ";white-space:nowrap" if len(text) <= NOT_WRAPPED else ""
    return f'<{tag} style="{CELL}{wrapping}">{html.escape(text)}</{tag}>'


def _call(part: Any) -> tuple[str, list[str] | None]:
    """What a part is called, and the arguments to be shown behind it; None where it has no arguments at all."""
    if isinstance(part, partial):
        bound = [*map(described, part.args), *(f"{key}={described(value)}" for key, value in part.keywords.items())]
        return described(part.func), bound
    if isinstance(part, Tensor):
        return "tensor", [str(size) for size in part.shape]
    if isinstance(part, float):
        return repr(part).removesuffix(".0"), None
    if isinstance(name := getattr(part, "__name__", None), str):
        return name, None
    if is_dataclass(part) and not isinstance(part, type):
        return type(part).__name__, list(_changed(part))
    if isinstance(part, nn.Module) and type(part).__repr__ is nn.Module.__repr__:
        said = BETWEEN_ARGUMENTS.split(_words(part.extra_repr()))
        return type(part).__name__, [*filter(None, said), *map(described, part.children())]
    return type(part).__name__ if type(part).__repr__ is object.__repr__ else _words(repr(part)), None


def _changed(part: Any) -> Iterator[str]:
    """A dataclass's arguments that are not the defaults."""
    for field in fields(part):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        value = described(getattr(part, field.name))
        if field.repr and (default is MISSING or value != described(default)):
            yield f"{field.name}={value}"


def _words(text: str) -> str:
    """In one line."""
    return " ".join(text.split())


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 3, 0)]}..."


def _blocks(n: int, most: int) -> Tensor:
    """To which of at most ``most`` blocks of neighbours each of n nodes belongs."""
    return torch.arange(n) * min(n, most) // n


def _png(pixels: Tensor) -> bytes:
    """A picture (r c 3) of bytes as a PNG file."""
    r, c, _ = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(row.flatten().tolist()) for row in pixels)
    header = struct.pack(">IIBBBBB", c, r, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
