"""Snapshots: what a student's criteria compare, on the same few samples at several moments of its training."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Data

from graphkd import kept, metrics
from graphkd.distiller import Distiller
from graphkd.probe import Probe
from graphkd.typing import Comparison, Relations

LARGEST_PICTURE = 64
"""Height and width of a sample's picture, at most."""


class Snapshot(NamedTuple):
    """A student beside its teacher at one moment of its training. All tensors are on the CPU, without gradient.

    Attributes:
        step: How many steps the optimiser had taken.
        epoch: How many epochs were complete.
        comparisons: Each term's comparison, by names such as ``otgd/f``.
        logs: The numbers of the :class:`~graphkd.distiller.Step`, by name.
        student: Those of the student's features that are one row per sample (n d), by name.
        teacher: The same of the teacher.
        cka: Centred kernel alignment, without bias, of each of the student's features with each of the teacher's (s t).
        layers: The names of the student's and of the teacher's features, as in the rows and columns of ``cka``.
        labels: The class of each sample (n), -100 where it has none.
        pictures: Where the inputs are images, small ones (n c h w) of bytes.
        class_names: The name of class c at place c, where the data says it.
    """

    step: int
    epoch: int
    comparisons: dict[str, Comparison]
    logs: dict[str, float]
    student: dict[str, Tensor]
    teacher: dict[str, Tensor]
    cka: Float[Tensor, "s t"]
    layers: tuple[list[str], list[str]]
    labels: Shaped[Tensor, " n"]
    pictures: Shaped[Tensor, "n c h w"] | None
    class_names: list[str] | None


def take(distiller: Distiller, probe: Probe, *, step: int = 0, epoch: int = 0) -> Snapshot:
    """Compare student and teacher on a probe, in eval mode and without a trace: neither modes nor random numbers move.

    Args:
        distiller: With criteria and a teacher.
        probe: The samples, where the distiller is.
        step: How many steps the optimiser has taken.
        epoch: How many epochs are complete.

    Raises:
        ValueError: For a distiller without criteria.
        KeyError: For criteria that need an index, and a probe without.

    >>> from graphkd import losses
    >>> student, teacher = torch.nn.Linear(3, 6), torch.nn.Linear(3, 6)
    >>> distiller = Distiller(student, teacher, criteria={"kd": losses.kd()})
    >>> snapshot = take(distiller, Probe(torch.randn(6, 3), torch.arange(6)))
    >>> list(snapshot.comparisons), snapshot.layers
    (['kd/kd'], (['logits'], ['logits']))
    """
    if not distiller.criteria:
        raise ValueError("a snapshot needs a distiller with criteria, got none")
    modes = {module: module.training for module in distiller.modules()}
    devices = sorted({p.device.index for p in distiller.parameters() if p.device.type == "cuda"})
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            torch.manual_seed(0)
            seen = distiller.eval()(probe.inputs, probe.labels, probe.index)
    finally:
        for module, mode in modes.items():
            module.training = mode
    student, teacher = seen.student_features, seen.teacher_features
    return Snapshot(
        step=step,
        epoch=epoch,
        comparisons={name: _from_plain(_kept(_plain(each))) for name, each in seen.comparisons.items()},
        logs={name: float(value) for name, value in seen.logs.items()},
        student=_rows(student),
        teacher=_rows(teacher),
        cka=metrics.layer_cka(student, teacher).cpu(),
        layers=(list(student), list(teacher)),
        labels=probe.labels.cpu(),
        pictures=_pictures(probe.inputs),
        class_names=probe.class_names,
    )


def common_feature(snapshot: Snapshot) -> tuple[str, str] | None:
    """The names, for student and teacher, of a feature that both have: ``feat``, or the first; of the first teacher.

    >>> from graphkd import losses
    >>> student, teacher = torch.nn.Linear(3, 6), torch.nn.Linear(3, 6)
    >>> distiller = Distiller(student, {"big": teacher, "small": teacher}, criteria={"kd": losses.kd()})
    >>> common_feature(take(distiller, Probe(torch.randn(6, 3), torch.arange(6))))
    ('logits', 'big/logits')
    """
    found = [
        (name, theirs) for name in snapshot.student for theirs in snapshot.teacher if theirs.rpartition("/")[2] == name
    ]
    return next((pair for pair in found if pair[0] == "feat"), found[0] if found else None)


def path_of(folder: Path, step: int) -> Path:
    """Where the snapshot of a step is.

    >>> path_of(Path("run"), 160).name
    'step000000160.pt'
    """
    return folder / f"step{step:09d}.pt"


def save(folder: Path, snapshot: Snapshot) -> Path:
    """Write a snapshot into a folder, whole or not at all."""
    path = path_of(folder, snapshot.step)
    plain = snapshot._asdict() | {"comparisons": {name: _plain(each) for name, each in snapshot.comparisons.items()}}
    kept.write(path, plain)
    return path


def saved(folder: Path) -> list[Path]:
    """The snapshots in a folder, by step.

    >>> saved(Path("nowhere"))
    []
    """
    return sorted(path for path in folder.glob("step*.pt") if re.fullmatch(r"step\d{9,}", path.stem))


def load(path: Path) -> Snapshot:
    """Read a snapshot.

    Raises:
        ValueError: For a file that is none.
    """
    content = kept.read(path)
    if not (isinstance(content, dict) and set(content) == set(Snapshot._fields)):
        raise ValueError(f"{path} needs to be a snapshot of graphkd, got something else")
    content["comparisons"] = {name: _from_plain(each) for name, each in content["comparisons"].items()}
    return Snapshot(**content)


def load_all(folder: Path) -> list[Snapshot]:
    """Read the snapshots in a folder, by step."""
    return [load(path) for path in saved(folder)]


def _plain(comparison: Comparison) -> dict[str, Any]:
    relations = comparison.relations
    return comparison._asdict() | {
        "relations": None if relations is None else tuple(relations),
        "graphs": [graph.to_dict() for graph in comparison.graphs],
    }


def _from_plain(plain: dict[str, Any]) -> Comparison:
    relations = plain["relations"]
    plain["relations"] = None if relations is None else Relations(*relations)
    plain["graphs"] = tuple(Data.from_dict(graph) for graph in plain["graphs"])
    return Comparison(**plain)


def _kept(value: Any) -> Any:
    """Tensors on the CPU, each without what it is a part of, in nested plain values."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value
    if isinstance(value, Mapping):
        return {name: _kept(each) for name, each in value.items()}
    return [_kept(each) for each in value] if isinstance(value, (list, tuple)) else value


def _rows(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: _kept(x) for name, x in features.items() if x.dim() == 2}


def _pictures(inputs: Any) -> Tensor | None:
    """Images as bytes, each channel from the darkest to the brightest of all."""
    if not isinstance(inputs, Tensor) or inputs.dim() != 4 or inputs.shape[1] not in (1, 3):
        return None
    images = inputs.detach().float().cpu()
    largest = max(images.shape[-2:])
    if largest > LARGEST_PICTURE:
        size = [max(1, side * LARGEST_PICTURE // largest) for side in images.shape[-2:]]
        images = F.interpolate(images, size=size, mode="area")
    low, high = (images.amin((0, 2, 3), keepdim=True), images.amax((0, 2, 3), keepdim=True))
    return ((images - low) / (high - low).clamp_min(1e-12) * 255).round().to(torch.uint8)
