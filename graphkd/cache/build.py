"""Run a frozen teacher once over all samples in all views, and keep what it says in files."""

import contextlib
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn

from graphkd.cache.fingerprint import LoaderOfView, inputs_and_index, look, made_of
from graphkd.cache.store import TeacherCache, description
from graphkd.cache.writing import Files, locked, published
from graphkd.features import FeatureExtractor, Spec, device_of, moved
from graphkd.precision import no_autocast
from graphkd.teachers import with_logits


def build_cache(
    folder: str | PathLike[str],
    teacher: nn.Module,
    loader_of_view: LoaderOfView,
    views: int | None,
    *,
    features: Spec | None = None,
    dtype: str = "float16",
    overwrite: bool = False,
    progress: bool = True,
) -> TeacherCache:
    """A frozen teacher's features of every sample in every view, from one pass per view, or from a folder with them.

    The folder is whole or not there: it is written beside its place, and renamed when everything is on the disk. What a
    killed process leaves behind is removed by the next one. Of several processes that build the same folder one does;
    the others wait and take what it made.

    The passes run on the teacher's device, in eval mode, without gradients and without autocast, and leave its modes
    and PyTorch's random state on the CPU as they were. Features stored as float32 are the teacher's own, up to the last
    digits that depend on which samples share a batch; float16 keeps three digits.

    Args:
        folder: Where to keep it.
        teacher: Any module. It has to stay as it is.
        loader_of_view: From a view, counted from 0, to batches (inputs, labels, index, ...) of every training sample
            once, in any order; where the samples stand runs from 0 to their number less one.
        views: How many there are: 1 without augmentation. None stands for data that are augmented anew in every epoch,
            and is refused.
        features: Which activations, as in :class:`~graphkd.features.FeatureExtractor`; ``logits`` is added where the
            model's output has them.
        dtype: ``float16``, or ``float32`` for twice the space.
        overwrite: Build anew and replace what is there.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: For data without a number of views, or that differ when they are drawn twice; an index that is
            repeated, missing or out of range; features that are not finite, exceed float16, or change their shape; a
            folder of something else; a cache made of other things, with what differs; too small a disk.
        OSError: For files that cannot be written.

    >>> import tempfile
    >>> batches = [(torch.rand(3, 2), torch.zeros(3), torch.arange(3))]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     build_cache(f"{folder}/cache", nn.Linear(2, 4), lambda view: batches, 1, progress=False)
    TeacherCache(3 samples in 1 views as float16: logits (4,))
    """
    where = Path(folder).resolve()
    made = made_of(teacher, loader_of_view, views, features=features, dtype=dtype)
    where.parent.mkdir(parents=True, exist_ok=True)
    with locked(where):
        if where.exists() and not (where.is_dir() and not any(where.iterdir())):
            if not overwrite:
                return _opened(where, made)
            description(where)  # what is no cache is not removed
        number, samples = made["data"]["views"], made["data"]["samples"]
        _check_repeats(loader_of_view, number)
        extract = FeatureExtractor(teacher, features or {})
        with published(where) as part, _at_rest(teacher):
            files = Files(part, number, samples, dtype)
            for view in range(number):
                shown = f"teacher cache, view {view + 1} of {number}"
                batches = track(loader_of_view(view), description=shown, disable=not progress)
                seen = torch.zeros(samples, dtype=torch.bool)
                for batch in batches:
                    index = _new(inputs_and_index(batch)[1].cpu(), seen, view)
                    files.write(view, index, _features(extract, batch))
                _check_complete(seen, view)
            files.finish(made)
        return TeacherCache(where, made)


def _opened(folder: Path, made: dict) -> TeacherCache:
    try:
        return TeacherCache(folder, made)
    except ValueError as error:
        raise ValueError(f"{error}. Choose another folder, or overwrite=True to replace a cache") from error


def _check_repeats(loader_of_view: LoaderOfView, views: int) -> None:
    """Draw a few samples twice, from different random numbers."""
    for view in range(views):
        if look(loader_of_view(view), seed=0) != look(loader_of_view(view), seed=1):
            raise ValueError(
                f"a teacher cache needs the same inputs whenever view {view} is drawn, got others the second time: the "
                "augmentation depends on more than the sample and the view"
            )


@contextlib.contextmanager
def _at_rest(teacher: nn.Module) -> Iterator[None]:
    """The teacher in eval mode, without gradients and autocast; then modes and random numbers are as before."""
    modes = {module: module.training for module in teacher.modules()}
    teacher.eval()
    try:
        with torch.no_grad(), no_autocast(device_of(teacher)), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _features(extract: FeatureExtractor, batch: object) -> dict[str, Tensor]:
    """What the teacher makes of a batch, on the CPU."""
    inputs, _ = inputs_and_index(batch)
    result = extract.run(moved(inputs, device_of(extract.model)))
    return {name: x.cpu() for name, x in with_logits(result.output, result.features).items()}


def _new(index: Tensor, seen: Tensor, view: int) -> Tensor:
    """The index of a batch, marked as seen, if no sample was before."""
    if index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(f"a teacher cache needs integers as the index, got {index.dtype}")
    wrong = index[(index < 0) | (index >= len(seen))].tolist()
    if wrong:
        raise ValueError(f"view {view} needs an index from 0 to {len(seen) - 1}, got {wrong[0]}")
    index = index.long()
    values, counts = index.unique(return_counts=True)
    again = torch.cat([index[seen[index]], values[counts > 1]])
    if len(again):
        raise ValueError(f"view {view} needs each sample once, got sample {int(again[0])} again")
    seen[index] = True
    return index


def _check_complete(seen: Tensor, view: int) -> None:
    missing = (~seen).nonzero().flatten().tolist()
    if missing:
        raise ValueError(
            f"view {view} needs each of {len(seen)} samples once, got none for {len(missing)} of them, such as sample "
            f"{missing[0]}"
        )
