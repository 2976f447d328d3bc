"""Weights from files: those of RepDistiller, mdistiller, torchvision, timm and Lightning, and plain state dicts."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

NAMED = 3
"""How many names of each kind an error tells."""


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a model's weights from a checkpoint, name by name, without running code of the file.

    The file may hold a state dict, or a dict with one entry that is a state dict: ``model`` as RepDistiller, mdistiller
    and torchvision's scripts have it, ``state_dict`` as timm and Lightning. Other entries, such as the optimiser's, are
    no weights and not read. What all names begin with is dropped where the model lacks it: ``module.`` of a data
    parallel model, ``model.`` of a Lightning module. The rest has to be the model's names and shapes exactly;
    otherwise nothing is loaded.

    One exception: files of PyTorch before 0.4.1 have no ``num_batches_tracked``. If all of them are missing, the
    model keeps its own. Only batch normalisation with ``momentum=None`` reads them.

    Args:
        model: What to load into, on any device.
        path: A file of ``torch.save``.

    Raises:
        ValueError: For a file that is no checkpoint or is cut short, for one that needs pickled classes, for several
            or no state dicts in it, and for names or shapes that are not the model's.
        OSError: For a file that is not there.

    >>> import tempfile
    >>> layer = nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     weights = {"module.weight": torch.tensor([[1.0, 2.0]]), "module.bias": torch.zeros(1)}
    ...     torch.save({"epoch": 240, "model": weights}, Path(folder, "ckpt_epoch_240.pth"))
    ...     load_weights(layer, Path(folder, "ckpt_epoch_240.pth"))
    >>> layer.weight.tolist()
    [[1.0, 2.0]]
    """
    entry, found = _state_dict(path, _read(path))
    own = model.state_dict()
    prefix = _extra_prefix(found, own)
    weights = {name.removeprefix(prefix): value for name, value in found.items()}
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    if counters.keys().isdisjoint(weights):
        weights = counters | weights
    wrong = [
        ("missing", [name for name in own if name not in weights]),
        ("not of the model", [prefix + name for name in weights if name not in own]),
        (
            "of another kind",
            [
                f"{prefix}{name} {_kind(weights[name])} there, {_kind(value)} here"
                for name, value in own.items()
                if name in weights and not _fits(weights[name], value)
            ],
        ),
    ]
    if any(names for _, names in wrong):
        said = "; ".join(f"{what}: {_some(names)}" for what, names in wrong if names)
        raise ValueError(
            f"{path} needs the weights of this {type(model).__name__}, got {len(found)} tensors {entry}, with names "
            f"that begin with {_some(_beginnings(found))}; {said}"
        )
    model.load_state_dict(weights)


def _read(path: str | Path) -> Any:
    with open(path, "rb") as file:
        head = file.read(16)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # What is no checkpoint is read as a pickle all the same, and fails in any way; a cut archive even as an OSError.
    except Exception as error:
        classes = re.findall(r"GLOBAL (\S+)", str(error)) if head.startswith((b"PK", b"\x80")) else []
        if classes:
            raise ValueError(
                f"{path} needs plain tensors and values, got a pickled {classes[0]}, to load which is to run code of "
                "the file. If you trust it, keep its weights alone: "
                "torch.save(torch.load(path, weights_only=False)['model'], other_path)"
            ) from error
        raise ValueError(
            f"{path} needs a whole checkpoint of torch.save, got {os.path.getsize(path)} bytes that begin with "
            f"{head!r}, which torch.load refuses ({type(error).__name__})"
        ) from error


def _state_dict(path: str | Path, content: Any) -> tuple[str, Mapping[str, Tensor]]:
    """The one state dict in what a file holds, with where it was."""
    if _is_state_dict(content):
        return "by name", content
    entries = [name for name, value in content.items() if _is_state_dict(value)] if isinstance(content, dict) else []
    if len(entries) == 1:
        return f"under {entries[0]!r}", content[entries[0]]
    if entries:
        came = f"several: {_some(map(str, entries))}. Keep one of them in a file of its own"
    elif isinstance(content, dict):
        came = f"a dict of {_some(map(str, content)) or 'nothing'}"
    else:
        came = f"a {type(content).__name__}"
    raise ValueError(f"{path} needs a state dict, or a dict with one entry that is one, got {came}")


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(each, Tensor) for name, each in value.items())
    )


def _extra_prefix(found: Iterable[str], own: Iterable[str]) -> str:
    """What all names found begin with, up to a dot, without what all the model's own names begin with."""
    there, here = _shared_beginning(found), _shared_beginning(own)
    return there.removesuffix(here) if there.endswith(here) else ""


def _shared_beginning(names: Iterable[str]) -> str:
    shared = os.path.commonprefix([name.split(".")[:-1] for name in names])
    return "".join(f"{part}." for part in shared)


def _beginnings(names: Collection[str]) -> list[str]:
    shared = _shared_beginning(names)
    return list(dict.fromkeys(shared + name.removeprefix(shared).split(".")[0] for name in names))


def _fits(found: Tensor, own: Tensor) -> bool:
    return found.shape == own.shape and found.is_floating_point() == own.is_floating_point()


def _kind(x: Tensor) -> str:
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"


def _some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
