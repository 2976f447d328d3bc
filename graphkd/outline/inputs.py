"""Example inputs: what a model says of itself, or its first layers tell."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from graphkd.features import device_of
from graphkd.outline.visits import arguments, as_it_is

SIDES = (224, 32, 28, 8)
"""Images that are tried, of so many rows and columns."""

TOKENS = 16
"""Length of text that is tried."""


def example_inputs(model: nn.Module) -> Any:
    """Inputs that a model takes: two images, texts or rows, as its configuration (timm, transformers) or layers tell.

    Raises:
        ValueError: If nothing that was tried fits.

    >>> example_inputs(nn.Linear(3, 2)).shape
    torch.Size([2, 3])
    """
    refused = "it has neither a convolution, an embedding nor a linear layer to tell"
    for inputs in _guesses(model):
        args, kwargs = arguments(inputs)
        try:
            with as_it_is(model):
                model(*args, **kwargs)
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, AttributeError) as error:
            refused = " ".join(str(error).split())
        else:
            return inputs
    raise ValueError(f"needs an example of what {type(model).__name__} takes, and could not guess one: {refused}")


def example_text(model: nn.Module, length: int) -> Any:
    """Two texts of so many tokens: ids with their mask, by name, for models of transformers; else the ids alone.

    >>> example_text(nn.Embedding(9, 2), 4).shape
    torch.Size([2, 4])
    """
    ids = torch.ones(2, length, dtype=torch.int64, device=device_of(model))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)} if hasattr(model, "main_input_name") else ids


def example_rows(model: nn.Module, shape: Sequence[int]) -> Any:
    """A batch of a shape, as images by name for models of transformers.

    >>> example_rows(nn.Linear(3, 2), [4, 3]).shape
    torch.Size([4, 3])
    """
    batch = torch.zeros(*shape, device=device_of(model))
    return {"pixel_values": batch} if _takes_images(model) else batch


def _guesses(model: nn.Module) -> Iterator[Any]:
    """What to try, the likeliest first."""
    told, config = getattr(model, "pretrained_cfg", None), getattr(model, "config", None)
    if isinstance(told, dict) and "input_size" in told:
        yield example_rows(model, [2, *told["input_size"]])
    side = getattr(config, "image_size", None)
    if isinstance(side, int):
        yield example_rows(model, [2, getattr(config, "num_channels", 3), side, side])
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Embedding | nn.Linear)), None)
    if isinstance(first, nn.Conv2d):
        for side in SIDES:
            yield example_rows(model, [2, first.in_channels, side, side])
    if isinstance(first, nn.Embedding):
        yield example_text(model, TOKENS)
    if isinstance(first, nn.Linear):
        yield example_rows(model, [2, first.in_features])


def _takes_images(model: nn.Module) -> bool:
    return getattr(model, "main_input_name", None) == "pixel_values"
