"""The class graph of a teacher, as a cost between classes: one pass over its data, or a file that remembers one."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from graphkd import checks, kept
from graphkd.cka import class_distance, linear_cka, rbf_cka
from graphkd.features import MODEL_OUTPUT, FeatureExtractor, device_of, model_logits, moved
from graphkd.grouped import ByClass, Centroids, Samples
from graphkd.measures import cosine
from graphkd.precision import no_autocast, raised
from graphkd.typing import Real

RELATIONS = ("linear_cka", "rbf_cka", "centroids", "classifier")

Cost = Float[Tensor, "c c"]


def class_cost(
    teacher: nn.Module,
    loader: Iterable[Any] | None,
    *,
    relation: Literal["linear_cka", "rbf_cka", "centroids", "classifier"] = "linear_cka",
    feature: str = MODEL_OUTPUT,
    num_classes: int | None = None,
    samples_per_class: int | None = None,
    sharpen: Real = 1.0,
    sigma: Real = 0.8,
    path: str | PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Cost:
    r"""What it costs to move probability from one class to another, as a teacher sees the classes.

    .. math:: M_{ij} = 1 - \exp(-\kappa (1 - S_{ij})), \qquad M_{ii} = 0

    with S the relation of classes, and kappa ``sharpen``; :math:`1 - S_{ij}` where that is zero. The ground cost of
    Wasserstein knowledge distillation (WKD).

    Samples are paired by the order in which the loader gives them: sample k of one class with sample k of another. CKA
    cuts every class to the size of the smallest; the log says so where that drops more than a tenth. Of feature maps
    (n c h w) and tokens (n t d) every position is an example, paired with the same position of the other sample. In the
    paper the teacher is related by its logits on ImageNet and by its last feature map on CIFAR-100, on all training
    images as they are for testing.

    The pass runs on the teacher's device, in eval mode, without gradients and without autocast, and ends early once
    every class has ``samples_per_class``. It leaves the teacher, its modes and PyTorch's random state on the CPU as
    they were. For CKA the features stay on that device: classes x samples x positions x d numbers, about three times
    over while they are compared. In a distributed run give every process a loader of all the data.

    Source: Lv, Yang, Li, "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation"
    (NeurIPS 2024), arXiv:2412.08139.

    Args:
        teacher: Any module; its features are those of :class:`~graphkd.features.FeatureExtractor`.
        loader: Batches (inputs, labels), as for training, where inputs are one tensor, a sequence of positional or a
            mapping of keyword arguments. Samples labelled -100 are skipped, and counted in the log. The classifier
            needs none.
        relation: ``linear_cka``, ``rbf_cka``: centred kernel alignment, see :mod:`graphkd.cka`. ``centroids``:
            cosine of the classes' mean features, from running sums. ``classifier``: cosine of the rows of the
            classifier's weight, without a pass; a row of zeros is at cosine zero to all.
        feature: The path of a feature, such as ``layer3``. For the classifier the path of the module with the weight;
            ``logits`` stands for the last ``nn.Linear`` in ``teacher.named_modules()``.
        num_classes: As many as the teacher has logits, if None.
        samples_per_class: Samples of each class that are kept at most, the first ones. All, if None.
        sharpen: Kappa, 1 or 2 in the paper.
        sigma: The width of the RBF kernel, as a share of the median distance.
        path: A file that keeps the result with these options and the fingerprints of teacher and data, see
            :mod:`graphkd.kept` for what those cover. If it is there and all match, it is the result, without a pass.
        overwrite: Compute anew, and replace the file.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: For options out of range; labels out of range; a class without samples; features or weights that are
            not finite or whose relation is not defined (see :mod:`graphkd.cka`); a file that is no class cost, or
            that was made otherwise, with what differs; a path for data that can be looked at only once.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> data = TensorDataset(torch.randn(30, 4), torch.arange(30) % 3)
    >>> cost = class_cost(nn.Linear(4, 3), DataLoader(data, batch_size=8), progress=False)
    >>> cost.shape, cost.diagonal().tolist()
    (torch.Size([3, 3]), [0.0, 0.0, 0.0])
    """
    checks.one_of("relation", relation, RELATIONS)
    checks.not_negative("sharpen", sharpen)
    checks.positive("sigma", sigma)
    for name, value, low in (("num_classes", num_classes, 2), ("samples_per_class", samples_per_class, 1)):
        if value is not None:
            checks.at_least(name, value, low)
    if relation == "classifier":
        loader = samples_per_class = None
    elif loader is None:
        raise ValueError(f"relation {relation!r} needs a loader, got None")
    file = None if path is None else Path(path)
    made_of: dict[str, dict[str, Any]] = {}
    if file is not None:
        made_of["options"] = {
            "relation": relation,
            "feature": feature,
            "samples_per_class": samples_per_class,
            "sharpen": float(sharpen),
            "sigma": float(sigma) if relation == "rbf_cka" else None,
        }
        data = {} if loader is None else kept.data_fingerprint(loader)
        made_of["fingerprint"] = kept.model_fingerprint(teacher) | data
        if file.exists() and not overwrite:
            return _loaded(file, made_of, num_classes).to(device_of(teacher))
    with torch.no_grad():
        if loader is None:
            x = _classifier(teacher, feature, num_classes)
        else:
            store = Centroids if relation == "centroids" else Samples
            x = _pass(teacher, loader, store, samples_per_class, feature, num_classes, progress)
        if relation == "linear_cka":
            similarity = linear_cka(x)
        else:
            similarity = rbf_cka(x, sigma) if relation == "rbf_cka" else cosine(x, x)
        cost = class_distance(similarity, sharpen)
    if file is not None:
        kept.save(file, cost, made_of)
    return cost


def _pass(
    teacher: nn.Module,
    loader: Iterable[Any],
    store: type[Samples] | type[Centroids],
    most: int | None,
    feature: str,
    num_classes: int | None,
    progress: bool,
) -> Tensor:
    """What the teacher makes of the loader's samples, by class; the teacher is left as it was."""
    device, extract = device_of(teacher), FeatureExtractor(teacher, {"feature": feature})
    modes = {module: module.training for module in teacher.modules()}
    seen = None
    teacher.eval()
    try:
        with no_autocast(device), torch.random.fork_rng(devices=[]), _progress(progress) as bars:
            for batch in bars.track(loader, description="class cost"):
                inputs, labels = _parts(batch)
                output, features = extract.run(moved(inputs, device))
                x = _positions(features["feature"], feature)
                seen = seen or ByClass(store(_width(output) if num_classes is None else num_classes), most)
                seen.add(x, labels)
                if seen.full():
                    break
    finally:
        for module, mode in modes.items():
            module.training = mode
    if seen is None:
        raise ValueError("needs a loader with at least one batch, got none")
    return seen.finish()


def _parts(batch: Any) -> tuple[Any, Tensor]:
    """Inputs and labels of a batch."""
    if not (isinstance(batch, Sequence) and len(batch) >= 2 and isinstance(batch[1], Tensor)):
        raise ValueError(f"needs batches (inputs, labels) with a tensor of labels, got {type(batch).__name__}")
    return batch[0], batch[1]


def _positions(x: Shaped[Tensor, "n ..."], feature: str) -> Float[Tensor, "n p d"]:
    """Vectors (n d), tokens (n p d) and maps (n d h w) as p examples of each sample."""
    checks.floating(f"feature {feature!r}", x)
    if x.dim() not in (2, 3, 4):
        raise ValueError(f"feature {feature!r} needs shape (n, d), (n, t, d) or (n, c, h, w), got {tuple(x.shape)}")
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise ValueError(f"feature {feature!r} needs finite values, got {bad} NaN or infinite of {x.numel()}")
    return raised(x.unsqueeze(1) if x.dim() == 2 else x if x.dim() == 3 else x.flatten(2).mT)


def _width(output: Any) -> int:
    """As many classes as the teacher's output has logits."""
    logits = model_logits(output)
    if logits.dim() != 2:
        raise ValueError(f"needs num_classes where the model's output is not logits (n, c), got {tuple(logits.shape)}")
    return logits.shape[1]


def _classifier(teacher: nn.Module, feature: str, num_classes: int | None) -> Float[Tensor, "c d"]:
    """The classifier's weight, one row per class."""
    modules = dict(teacher.named_modules())
    if feature == MODEL_OUTPUT:
        feature = next((name for name, module in reversed(modules.items()) if isinstance(module, nn.Linear)), feature)
    weight = getattr(modules.get(feature), "weight", None)
    if not (isinstance(weight, Tensor) and weight.dim() >= 2 and weight.shape[2:].numel() == 1):
        raise ValueError(
            f"relation 'classifier' needs the path of a module with a weight (classes, d), got {feature!r} of "
            f"{type(teacher).__name__}"
        )
    if num_classes not in (None, len(weight)):
        raise ValueError(f"the weight of {feature!r} needs a row per class, {num_classes}, got {len(weight)}")
    weight = raised(weight.detach().flatten(1))
    if not bool(torch.isfinite(weight).all()):
        raise ValueError(f"the weight of {feature!r} needs finite values, got NaN or infinite ones")
    return weight


def _loaded(file: Path, made_of: Mapping[str, Mapping[str, Any]], num_classes: int | None) -> Cost:
    try:
        cost = kept.load(file, made_of)
    except ValueError as error:
        raise ValueError(f"{error}. Choose another path, or overwrite=True to replace the file") from error
    if num_classes not in (None, len(cost)):
        raise ValueError(
            f"{file} needs a cost of {num_classes} classes, got one of {len(cost)}; overwrite=True replaces it"
        )
    return cost


def _progress(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, disable=not shown)
