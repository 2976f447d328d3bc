"""Look into a run, one that kept snapshots or one that did not."""

from pathlib import Path

import yaml
from jsonargparse import ArgumentParser
from lightning import LightningDataModule

from graphkd import kept, snapshots
from graphkd.distiller import Distiller
from graphkd.inspection import write_page
from graphkd.snapshots import Snapshot
from graphkd.training.fit import infer_widths
from graphkd.training.folder import CONFIG, HISTORY, LAST, PAGE, WEIGHTS, read_weights
from graphkd.training.history import History
from graphkd.training.module import DistillationModule
from graphkd.training.teacher import prepared
from graphkd.training.train import train
from graphkd.training.watch import FOLDER, Split, probe_of

PARTS = ("student_features", "teacher_features", "criteria", "weights")
"""What a distiller is made of beside its networks, as a config names it."""


def inspect(
    run: str,
    out: str | None = None,
    data: LightningDataModule | None = None,
    split: Split = "auto",
    samples: int = 100,
    per_class: int = 10,
) -> Path:
    """Show what a run compared, over its training, as one page that needs nothing else.

    A folder with snapshots (``graphkd train --plots``, or :class:`~graphkd.training.SaveSnapshots`) is shown as it is,
    whatever ``split``, ``samples`` and ``per_class`` say; name its checkpoint to look at other samples. Of a
    checkpoint, of a run without snapshots, and where other data are named, networks and criteria are built from the
    run's config, the weights are loaded, and one snapshot is taken, on the CPU.

    Args:
        run: A run's folder, a folder of snapshots, or a checkpoint inside a run's folder.
        out: The page; ``inspect.html`` in the folder if omitted.
        data: What student and teacher look at; the run's own data if omitted.
        split: The part of it: ``validation``, ``training``, or ``auto``, which is the training samples where criteria
            have a memory of them, else the validation samples.
        samples: How many, at least four.
        per_class: How many of a class.

    Returns:
        Where the page is.

    Raises:
        ValueError: For a folder with neither snapshots nor a run, for a run whose teacher's weights are gone, and for
            weights that do not fit.
    """
    place = Path(run)
    if not place.exists():
        raise ValueError(f"needs a run's folder, a folder of snapshots or a checkpoint, got {run}, which is not there")
    folder = place if place.is_dir() else place.parent
    seen = []
    if place.is_dir() and data is None:
        seen = snapshots.load_all(folder / FOLDER) or snapshots.load_all(folder)
    if not seen:
        seen = [_look(folder, folder / LAST if place.is_dir() else place, data, split, samples, per_class)]
    page = folder / PAGE if out is None else Path(out)
    page.parent.mkdir(parents=True, exist_ok=True)
    curves = History.read(folder / HISTORY).curves if (folder / HISTORY).exists() else None
    return write_page(seen, page, title=f"Run {folder.resolve().name}", curves=curves)


def _look(
    folder: Path, checkpoint: Path, data: LightningDataModule | None, split: Split, samples: int, per_class: int
) -> Snapshot:
    """Build what a run trained, load a checkpoint, and compare once."""
    config = folder / CONFIG
    missing = [str(path) for path in (config, checkpoint) if not path.exists()]
    if missing:
        raise ValueError(f"needs snapshots, or a run's config and checkpoint, got no {' and no '.join(missing)}")
    if "student" not in yaml.safe_load(config.read_text()):
        raise ValueError(
            f"needs a run of graphkd train, which compares two networks, got one of another command: {folder}"
        )
    parser = ArgumentParser()
    parser.add_function_arguments(train, skip={"resume"}, fail_untyped=False)
    settings = parser.instantiate(parser.parse_path(config))
    teacher = prepared(
        settings.student, settings.teacher, settings.teacher_checkpoint, None, 0, settings.ema_decay, settings.seed, {}
    )
    distiller = Distiller(settings.student, teacher, **{name: settings[name] for name in PARTS})
    if settings.auto_weights is not None:
        distiller.weights.update(read_weights(folder / WEIGHTS))
    own: LightningDataModule = settings.data
    for each in {own, data or own}:
        each.prepare_data()
        each.setup("fit")
    module = DistillationModule(distiller, seed=settings.seed)
    infer_widths(module, own, settings.epochs)
    content = kept.read(checkpoint)
    if not (isinstance(content, dict) and "state_dict" in content and "loops" in content):
        raise ValueError(f"{checkpoint} needs to be a checkpoint of graphkd train, got something else")
    try:
        module.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"{checkpoint} needs weights that fit {config}, got others: {error}") from error
    epoch = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    distiller.set_epoch(max(epoch, 1), settings.epochs)
    probe = probe_of(data or own, distiller, split, samples, per_class)
    return snapshots.take(distiller, probe, step=content["global_step"], epoch=epoch)
