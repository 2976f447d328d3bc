"""Adaptors: tokens and maps of any layout become the features that criteria ask for.

Each names where its tensor is found, as a :class:`~graphkd.features.FeatureExtractor` does, and stands in its place:
``{"feat": ClsToken("norm"), "map": ChannelsFirst("layers.3")}``. What is given half precision and sums, sums in
float32.
"""

import math
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from graphkd import checks
from graphkd.precision import raised
from graphkd.sources import Derived


@dataclass(frozen=True)
class ClsToken(Derived):
    """One token of each sequence as the sample's vector: (n t d) to (n d).

    Args:
        source: Where the tokens are, such as ``"norm"`` or ``":output.last_hidden_state"``.
        index: Which one; -1 is the last.

    >>> import torch
    >>> ClsToken("norm")(torch.zeros(2, 5, 3)).shape
    torch.Size([2, 3])
    """

    source: str
    index: int = 0

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the tokens are."""
        return (self.source,)

    def __call__(self, *found: Tensor) -> Tensor:
        """The token."""
        tokens = _shaped(self, found[0], "tokens (n, t, d)", 3)
        if not -tokens.shape[1] <= self.index < tokens.shape[1]:
            raise ValueError(f"{self} needs a token of that index, got {tokens.shape[1]} tokens")
        return tokens[:, self.index]


@dataclass(frozen=True)
class MeanTokens(Derived):
    r"""The mean of each sequence's tokens as the sample's vector: (n t d) to (n d).

    .. math:: x_i = \sum_t m_{it} x_{it} / \sum_t m_{it}

    Args:
        source: Where the tokens are.
        mask: Where m is, (n t) with 1 or True for tokens that count: of padded text ``":input.attention_mask"``. All
            count, if omitted. A sequence of which none does gets zeros.
        skip: How many tokens at the start never count: 1 leaves out a class token.

    >>> import torch
    >>> tokens, mask = torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]])
    >>> MeanTokens("norm", mask=":input.attention_mask")(tokens, mask)
    tensor([[2.]])
    """

    source: str
    mask: str | None = None
    skip: int = 0

    def __post_init__(self) -> None:
        checks.at_least("skip", self.skip, 0)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the tokens are, then the mask."""
        return (self.source,) if self.mask is None else (self.source, self.mask)

    def __call__(self, *found: Tensor) -> Tensor:
        """The mean."""
        tokens, *masks = found
        tokens = raised(_shaped(self, tokens, f"tokens (n, t, d), t > {self.skip}", 3))
        if tokens.shape[1] <= self.skip:
            raise ValueError(f"{self} needs tokens (n, t, d), t > {self.skip}, got shape {tuple(tokens.shape)}")
        if not masks:
            return tokens[:, self.skip :].mean(1)
        if masks[0].shape != tokens.shape[:2]:
            raise ValueError(
                f"{self} needs a mask of one number per token, {tuple(tokens.shape[:2])}, got {tuple(masks[0].shape)}"
            )
        return _masked_mean(tokens[:, self.skip :], masks[0][:, self.skip :])


@dataclass(frozen=True)
class TokenMap(Derived):
    """The tokens of an image's patches as a feature map, row by row: (n t d) to (n d h w).

    Args:
        source: Where the tokens are.
        skip: How many tokens at the start are no patches: 1 for a class token, 0 without.
        size: Rows and columns h, w; a square, if omitted.

    >>> import torch
    >>> TokenMap("norm")(torch.zeros(2, 17, 3)).shape
    torch.Size([2, 3, 4, 4])
    """

    source: str
    skip: int = 1
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        checks.at_least("skip", self.skip, 0)
        for side in self.size or ():
            checks.at_least("size", side, 1)

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the tokens are."""
        return (self.source,)

    def __call__(self, *found: Tensor) -> Tensor:
        """The map."""
        tokens = _shaped(self, found[0], "tokens (n, t, d)", 3)
        side = math.isqrt(max(tokens.shape[1] - self.skip, 0))
        h, w = self.size or (side, side)
        if h * w < 1 or h * w != tokens.shape[1] - self.skip:
            needed = "a square number" if self.size is None else f"{h} x {w}"
            raise ValueError(
                f"{self} needs {needed} of patches behind {self.skip} tokens, got {tokens.shape[1]} in all"
            )
        return tokens[:, self.skip :].mT.unflatten(-1, (h, w))


@dataclass(frozen=True)
class ChannelsFirst(Derived):
    """Maps that have their channels last, as a Swin's: (n h w c) to (n c h w).

    >>> import torch
    >>> ChannelsFirst("layers.3")(torch.zeros(2, 7, 7, 3)).shape
    torch.Size([2, 3, 7, 7])
    """

    source: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the maps are."""
        return (self.source,)

    def __call__(self, *found: Tensor) -> Tensor:
        """The maps, channels first."""
        return _shaped(self, found[0], "maps (n, h, w, c)", 4).movedim(-1, 1)


@dataclass(frozen=True)
class MeanMap(Derived):
    """The mean of a feature map over its positions as the sample's vector: (n c h w) to (n c).

    Args:
        source: Where the maps are.
        channels_last: Whether they are (n h w c).

    >>> import torch
    >>> MeanMap("layer3")(torch.zeros(2, 5, 7, 7)).shape
    torch.Size([2, 5])
    """

    source: str
    channels_last: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the maps are."""
        return (self.source,)

    def __call__(self, *found: Tensor) -> Tensor:
        """The mean."""
        maps = _shaped(self, found[0], "maps (n, h, w, c)" if self.channels_last else "maps (n, c, h, w)", 4)
        return raised(maps).mean((1, 2) if self.channels_last else (2, 3))


def _masked_mean(
    tokens: Float[Tensor, "n t d"], mask: Bool[Tensor, "n t"] | Int[Tensor, "n t"] | Float[Tensor, "n t"]
) -> Float[Tensor, "n d"]:
    counts = mask.to(tokens.dtype).unsqueeze(-1)
    # What does not count may be NaN, as what some networks give for padding.
    kept = tokens.masked_fill(counts == 0, 0.0)
    return (kept * counts).sum(1) / counts.sum(1).clamp_min(1)


def _shaped(adaptor: Derived, x: Tensor, needed: str, dims: int) -> Shaped[Tensor, "..."]:
    if x.dim() != dims:
        raise ValueError(f"{adaptor} needs {needed}, got shape {tuple(x.shape)}")
    return x
