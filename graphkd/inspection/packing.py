"""Arrays and pictures as text, small enough for a page."""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from matplotlib.figure import Figure
from matplotlib.image import imsave
from torch import Tensor
from torch.nn import functional as F

TILES = (48, 32, 24)
"""Heights and widths of a picture on the page, at most: the first with which all fit, or the last."""

LARGEST_SPRITE = 750_000
"""Bytes of all pictures; browsers leave out backgrounds of more than two million characters."""

DPI = 100


def text(array: np.ndarray) -> str:
    """The array's bytes, lowest first, in base64."""
    return b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode("ascii")


def once(parts: Sequence[np.ndarray]) -> dict[str, Any]:
    """Arrays of one shape and type as text: the different ones under ``parts``, and which of them comes when.

    >>> once([np.zeros(1, np.uint8), np.ones(1, np.uint8), np.zeros(1, np.uint8)])
    {'parts': ['AA==', 'AQ=='], 'at': [0, 1, 0]}
    """
    texts = [text(part) for part in parts]
    different = list(dict.fromkeys(texts))
    return {"parts": different, "at": [different.index(each) for each in texts]}


def masses(plans: Sequence[np.ndarray]) -> dict[str, Any]:
    r"""Plans in 16 bits a cell, on one scale: :math:`q = 65535 \sqrt{P / \max P}`.

    Of the square root, so that a mass that is small beside the largest is still told to a percent.

    >>> masses([np.eye(2), 2 * np.eye(2)])["scale"]
    2.0
    """
    scale = max(float(plan.max()) for plan in plans) or 1.0
    return {"scale": scale} | once([np.rint(65535 * np.sqrt(plan / scale)).astype(np.uint16) for plan in plans])


def costs(given: Sequence[np.ndarray]) -> dict[str, Any]:
    """Costs in 8 bits a cell, between the smallest and the largest of all; what is not finite counts as the largest.

    >>> costs([np.array([[1.0, 3.0]])])["low"], costs([np.array([[1.0, 3.0]])])["high"]
    (1.0, 3.0)
    """
    known = np.concatenate([cost[np.isfinite(cost)] for cost in given])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    shares = [(np.where(np.isfinite(cost), cost, high) - low) / ((high - low) or 1.0) for cost in given]
    return {"low": low, "high": high} | once([np.rint(255 * share).astype(np.uint8) for share in shares])


def sprite(pictures: Shaped[Tensor, "n c h w"]) -> dict[str, Any]:
    """Pictures of bytes side by side in one PNG, as a data URI, with how many stand in a row and the size of each."""
    for largest in TILES:
        made, png = _sheet(_shrunk(pictures, largest))
        if len(png) <= LARGEST_SPRITE:
            break
    return made | {"uri": data_uri(png)}


def _shrunk(pictures: Tensor, largest: int) -> Tensor:
    height, width = pictures.shape[-2:]
    if max(height, width) <= largest:
        return pictures
    size = [max(1, side * largest // max(height, width)) for side in (height, width)]
    return F.interpolate(pictures.float(), size=size, mode="area").round().to(torch.uint8)


def _sheet(pictures: Tensor) -> tuple[dict[str, Any], bytes]:
    """How the pictures are laid out, and the PNG."""
    n, _, height, width = pictures.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    sheet = np.zeros((rows * columns, height, width, 3), dtype=np.uint8)
    sheet[:n] = pictures.expand(n, 3, height, width).permute(0, 2, 3, 1).numpy()
    sheet = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    file = BytesIO()
    imsave(file, sheet, format="png")
    return {"columns": columns, "rows": rows, "width": width, "height": height}, file.getvalue()


def figure(drawn: Figure) -> str:
    """A figure as a PNG in a data URI, on white."""
    file = BytesIO()
    drawn.savefig(file, format="png", dpi=DPI, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    return data_uri(file.getvalue())


def data_uri(png: bytes) -> str:
    """A PNG as the address of an image.

    >>> data_uri(b"png")
    'data:image/png;base64,cG5n'
    """
    return "data:image/png;base64," + b64encode(png).decode("ascii")
