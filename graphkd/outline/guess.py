"""Which of a model's modules an expert would name, guessed from the shapes and the order of what they give."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from graphkd.adaptors import ChannelsFirst, MeanMap, MeanTokens, TokenMap
from graphkd.features import MODEL_OUTPUT, logits_in
from graphkd.outline.visits import Visit
from graphkd.sources import Derived, keys_of, part

EXTRA_TOKENS = 8
"""Tokens beside those of an image's patches, at most: class tokens and registers."""

POOLED = ("pooler_output", "image_embeds", "text_embeds", "last_hidden_state")
"""Parts of the outputs of transformers without logits, the best first."""


class Found(NamedTuple):
    """Where a feature is found, and its shape."""

    source: str | Derived
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """One run of a model.

    Attributes:
        visits: The modules that ran, in the order in which they finished.
        output: Of the model.
        n: How many samples there were.
        image: Rows and columns of what it was given, where that was images.
        mask: Where the mask of tokens was given.
    """

    visits: Sequence[Visit]
    output: Any
    n: int
    image: tuple[int, int] | None
    mask: str | None


def guessed(seen: Seen) -> tuple[dict[str, Found], list[Found]]:
    """The features by name, and the last map of each size."""
    logits, head = _logits(seen)
    maps, tokens = _maps(seen), _tokens(seen, before=head)
    feat = _of_head(head, seen) if head else _of_output(seen)
    if tokens and maps:
        maps = []
    token_map = _as_map(tokens, seen) if tokens else None
    last = token_map or (maps[-1] if maps else None)
    found = {"feat": feat, "map": last, "tokens": tokens, "logits": logits if head else None}
    return {name: each for name, each in found.items() if each is not None}, maps


def _logits(seen: Seen) -> tuple[Found | None, Visit | None]:
    """The logits and the layer that gives them, where there is one."""
    own = logits_in(seen.output)
    if own is not None:
        return Found(MODEL_OUTPUT, tuple(own.shape)), _head(own, seen) or _last_of_shape(own, seen)
    ends = [(found, _head(x, seen)) for found, x in _parts(seen.output)]
    ends = [(found, head) for found, head in ends if head is not None]
    return max(ends, key=lambda end: end[1].finished, default=(None, None))


def _head(logits: Tensor, seen: Seen) -> Visit | None:
    """The layer of which the output is the logits, perhaps in another shape."""
    for visit in reversed(seen.visits):
        gave = visit.output if visit.mixes else None
        if gave is not None and gave.numel() == logits.numel() and _memory(gave) == _memory(logits):
            return visit
    return None


def _last_of_shape(logits: Tensor, seen: Seen) -> Visit | None:
    """The last layer to run, where it gives as many numbers: a log-softmax follows, or a choice of one token's."""
    last = next((visit for visit in reversed(seen.visits) if visit.mixes), None)
    gave = None if last is None else last.output
    if gave is None or gave.dim() < 2 or logits.dim() != 2:
        return None
    return last if (gave.shape[0], gave.shape[-1]) == tuple(logits.shape) else None


def _of_head(head: Visit, seen: Seen) -> Found | None:
    """One vector per sample, of what the last layer is given."""
    x = head.input
    return None if x is None else _pooled(f"{head.path}:input", x, seen)


def _of_output(seen: Seen) -> Found | None:
    """One vector per sample, of what a model without logits returns."""
    if isinstance(seen.output, Tensor):
        return _pooled(":output", seen.output, seen)
    parts = {str(found.source).rpartition(".")[2]: (found, x) for found, x in _parts(seen.output)}
    vectors = [name for name, (_, x) in parts.items() if x.dim() == 2]
    chosen = next((name for name in (*POOLED, *vectors, *parts) if name in parts), None)
    return None if chosen is None else _pooled(str(parts[chosen][0].source), parts[chosen][1], seen)


def _pooled(source: str, x: Tensor, seen: Seen) -> Found | None:
    if x.dim() < 2 or x.shape[0] != seen.n or not x.is_floating_point():
        return None
    if x.shape[2:].numel() == 1:
        return Found(source, tuple(x.shape))
    if x.dim() == 3:
        return Found(MeanTokens(source, seen.mask), (seen.n, x.shape[-1]))
    return Found(MeanMap(source), (seen.n, x.shape[1])) if x.dim() == 4 else None


def _maps(seen: Seen) -> list[Found]:
    """The last stage's map of each size, the largest map first: of one size, that with the most parameters behind."""
    if seen.image is None:
        return []
    inside_tokens = {visit.path for visit in seen.visits if _sequence(visit.output, seen)}
    best: dict[tuple[int, int], tuple[int, Found]] = {}
    for visit in seen.visits:
        found, size = _map(visit, seen.image, seen.n)
        if found is None or _within(visit.path, inside_tokens):
            continue
        behind = sum(parameter.numel() for parameter in visit.module.parameters())
        if size not in best or behind >= best[size][0]:
            best[size] = behind, found
    return [found for _, (_, found) in sorted(best.items(), key=lambda each: -math.prod(each[0]))]


def _map(visit: Visit, image: tuple[int, int], n: int) -> tuple[Found | None, tuple[int, int]]:
    """What a module gives as maps with channels first, and their rows and columns; the image tells which axes."""
    x = visit.output
    if x is None or x.dim() != 4 or x.shape[0] != n:
        return None, (0, 0)
    for source, (h, w), c in (
        (visit.path, x.shape[2:], x.shape[1]),
        (ChannelsFirst(visit.path), x.shape[1:3], x.shape[3]),
    ):
        # Sizes are rounded at each stage, so that sides are in proportion up to one row or column.
        fits = h <= image[0] and w <= image[1] and abs(h * image[1] - w * image[0]) <= max(image)
        if fits and h * w > 1:
            return Found(source, (n, c, h, w)), (h, w)
    return None, (0, 0)


def _tokens(seen: Seen, before: Visit | None) -> Found | None:
    """The last sequence that a module gives, apart from the logits and from what is inside of stages of maps."""
    inside_maps = {visit.path for visit in seen.visits if visit.output is not None and visit.output.dim() == 4}
    for visit in reversed(seen.visits if before is None else seen.visits[: seen.visits.index(before)]):
        if _sequence(visit.output, seen) and not _within(visit.path, inside_maps):
            assert visit.output is not None
            return Found(visit.path, tuple(visit.output.shape))
    return None


def _sequence(x: Tensor | None, seen: Seen) -> bool:
    return x is not None and x.dim() == 3 and x.shape[0] == seen.n and min(x.shape[1:]) > 1


def _as_map(tokens: Found, seen: Seen) -> Found | None:
    """The map that tokens are, where they are the patches of an image behind a few others."""
    n, t, d = tokens.shape
    if seen.image is None:
        return None
    for skip in range(min(t, EXTRA_TOKENS + 1)):
        side = math.isqrt(t - skip)
        if side > 1 and side**2 == t - skip and seen.image[0] == seen.image[1]:
            return Found(TokenMap(str(tokens.source), skip), (n, d, side, side))
    return None


def _parts(output: Any) -> list[tuple[Found, Tensor]]:
    """The tensors among the parts of an output, with where they are found."""
    named = {f":output.{key}": part(":output", output, [key]) for key in keys_of(output)}
    return [
        (Found(source, tuple(x.shape)), x)
        for source, x in named.items()
        if isinstance(x, Tensor) and x.is_floating_point() and x.dim() > 1
    ]


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _within(path: str, others: set[str]) -> bool:
    """Whether a module is inside of one of others."""
    return any(path[:i] in others for i, letter in enumerate(path) if letter == ".")
