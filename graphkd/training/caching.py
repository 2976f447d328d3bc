"""The teacher's part of a run, computed once: a cache of its features, built where it is not there yet."""

from collections.abc import Mapping
from pathlib import Path

import torch
from lightning import LightningDataModule
from torch import nn
from torch.optim.swa_utils import AveragedModel

from graphkd.cache import TeacherCache, build_cache
from graphkd.features import Spec, device_of
from graphkd.teachers import Given, Teachers
from graphkd.training.processes import before_processes


def cached(
    student: nn.Module,
    teachers: Given,
    features: Spec | Mapping[str, Spec] | None,
    data: LightningDataModule,
    folder: Path,
    device: torch.device,
) -> dict[str, TeacherCache]:
    """What each teacher says of the training samples, by its name, from a folder; computed and kept there first.

    Args:
        student: Who learns from them.
        teachers: As a distiller takes them. Of several, each has a folder of its name in the folder.
        features: Which activations, as a distiller takes them.
        data: What the student learns from; its training batches have to say which samples they are.
        folder: Of the cache.
        device: Where teachers run if they have to.

    Raises:
        ValueError: Without a teacher that stays as it is, for data that do not say which samples they are or that are
            augmented anew in every epoch, and for a cache that was made of other things, with what differs.
    """
    seen = Teachers(student, teachers, features)
    if not seen.models or any(isinstance(model, AveragedModel) for model in seen.models.values()):
        raise ValueError("a teacher_cache needs teachers that stay as they are, got none")
    views, loader_of_view = getattr(data, "views", 0), getattr(data, "train_view_dataloader", None)
    if views == 0 or loader_of_view is None:
        raise ValueError(
            "a teacher_cache needs data that say in how many views each sample exists, as those of graphkd.datasets, "
            f"got {type(data).__name__}"
        )
    if not (getattr(data, "with_view", False) or (views == 1 and getattr(data, "with_index", False))):
        raise ValueError(
            f"a teacher_cache needs batches that say which samples they are: {type(data).__name__} with with_view: true"
        )
    before_processes("a teacher cache")
    data.prepare_data()
    data.setup("fit")
    caches: dict[str, TeacherCache] = {}
    for name, model in seen.models.items():
        before = device_of(model)
        own = folder / name if isinstance(teachers, Mapping) else folder
        caches[name] = build_cache(own, model.to(device), loader_of_view, views, features=seen.specs[name])
        model.to(before)
    return caches


def device_for(accelerator: str) -> torch.device:
    """Where a trainer with this accelerator will put a model: the first device of it; ``auto`` takes what there is.

    >>> device_for("cpu")
    device(type='cpu')
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if found is None or accelerator == "cpu" else found
