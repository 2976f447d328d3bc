"""Weights for criteria, from how hard each pulls at the student's features."""

import copy
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from graphkd import checks
from graphkd.distiller import Distiller
from graphkd.features import device_of, moved
from graphkd.loss import Criterion
from graphkd.step import Step
from graphkd.typing import UNLABELLED, Real
from graphkd.weights import TASK


def gradient_norms(
    distiller: Distiller, loader: Iterable[Any], num_batches: int = 4, at: str | None = None
) -> dict[str, float]:
    r"""How long the gradient of each part of the loss is at the student's features.

    .. math:: \frac{1}{B} \sum_b \Bigl\| \frac{\partial L(b)}{\partial h_b} \Bigr\|_2

    over B batches with the student's activations h, of the task where it has weight and a batch has labels, of each
    criterion, and of each of its terms as ``otgd/f``; without the weights that the distiller gives them, with those
    inside a criterion. Measured on a copy, in training mode: neither weights, statistics, memories nor random numbers
    move.

    Args:
        distiller: Student, teacher and criteria, as they are at the moment.
        loader: Batches as the distiller takes them, on any device: inputs and labels, perhaps where samples stand in
            the data set.
        num_batches: B, at most; fewer where the loader has fewer.
        at: h, the name of one of the student's features; if omitted, the first on which all depends.

    Raises:
        ValueError: For a loader without batches (inputs, labels), a name that is not there, a teacher that is the
            average of the student and still equal to it, and where nothing among the features is reached by all: then
            name an earlier part of the student too.

    >>> from graphkd import losses
    >>> distiller = Distiller(torch.nn.Linear(3, 4), torch.nn.Linear(3, 4), criteria={"kd": losses.kd()})
    >>> sorted(gradient_norms(distiller, [(torch.randn(6, 3), torch.arange(6) % 4)]))
    ['kd', 'kd/kd', 'task']
    """
    checks.at_least("num_batches", num_batches, 1)
    if not distiller.criteria:
        raise ValueError("needs a distiller with criteria, got none")
    _check_averages(distiller)
    trial = _copied(distiller).train()
    trial.weights = dict.fromkeys(trial.schedules, 1.0) | trial.weights
    trial.weights.update(dict.fromkeys(trial.criteria, 0.0))
    trial.weights[TASK] = float(trial.weights[TASK] > 0)
    found: list[dict[str, Tensor]] = []
    devices = sorted({p.device.index for p in trial.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(0)
        for batch in islice(loader, num_batches):
            found.append(_norms(trial, moved(batch, device_of(trial.student)), at))
    if not found:
        raise ValueError("needs a loader with at least one batch, got none")
    names = dict.fromkeys(name for norms in found for name in norms)
    return {name: float(torch.stack([norms[name] for norms in found if name in norms]).mean()) for name in names}


def suggest_weights(
    distiller: Distiller,
    loader: Iterable[Any],
    target_ratio: Real | Mapping[str, Real] = 1.0,
    num_batches: int = 4,
    at: str | None = None,
    by: Literal["criterion", "term"] = "criterion",
) -> dict[str, float]:
    r"""Weights with which each criterion pulls at the student's features as hard as the student's own task.

    .. math:: w_c = \rho_c \, w_{task} \, \frac{\|\nabla_h L_{task}\|}{\|\nabla_h L_c\|}

    with the mean gradient norms of :func:`gradient_norms`. Where the task has no weight or there are no labels, the
    first criterion stands in its place, with the weight that it has.

    Limits: these are first guesses. Norms say nothing of directions; they are measured where training begins, where
    learned projectors are random and the student's own gradient is at its largest, and a loss that soon vanishes gets
    no more weight for it; a ratio of 1 is a convention, and the best one differs between methods. Start here, then try
    a few times more and less on validation data. Of scheduled weights, those of the epoch that was set last count, or
    one.

    Args:
        distiller: As for :func:`gradient_norms`.
        loader: As there.
        target_ratio: :math:`\rho`, for all criteria or by name.
        num_batches: As there.
        at: As there.
        by: ``criterion`` keeps the shares of terms within each; ``term`` gives factors on terms, as ``otgd/f``, with
            which each of them has the ratio by itself.

    Returns:
        The weights by name, for :class:`~graphkd.Distiller`; the task's is not among them.

    Raises:
        ValueError: As :func:`gradient_norms`, for ratios that are not above zero or of no criterion, and for a
            criterion without a gradient.

    >>> from graphkd import losses
    >>> distiller = Distiller(torch.nn.Linear(3, 4), torch.nn.Linear(3, 4), criteria={"kd": losses.kd()})
    >>> list(suggest_weights(distiller, [(torch.randn(6, 3), torch.arange(6) % 4)]))
    ['kd']
    """
    checks.one_of("by", by, ("criterion", "term"))
    names = list(distiller.criteria)
    ratios = dict(target_ratio) if isinstance(target_ratio, Mapping) else dict.fromkeys(names, target_ratio)
    for name, ratio in ratios.items():
        checks.one_of("target_ratio", name, tuple(names))
        checks.positive("target_ratio", ratio)
    norms = gradient_norms(distiller, loader, num_batches, at)
    own = distiller.weights.get(TASK, 1.0) if TASK in norms else 0.0
    goal = own * norms[TASK] if own > 0 else distiller.weights.get(names[0], 1.0) * norms[names[0]]
    if by == "criterion":
        return {name: _ratio(name, ratios.get(name, 1.0) * goal, norms[name]) for name in names}
    weights = dict.fromkeys(names, 1.0)
    for name in names:
        terms = [key for key in norms if key.startswith(f"{name}/") and key not in names]
        weights |= {term: _ratio(term, ratios.get(name, 1.0) * goal, norms[term]) for term in terms}
    return weights


def _ratio(name: str, goal: float, norm: float) -> float:
    if not (norm > 0 and math.isfinite(goal / norm)):
        raise ValueError(f"needs a gradient of {name!r} at the student's features, got one of length {norm}")
    return goal / norm


def _copied(distiller: Distiller) -> Distiller:
    """A copy to try things on; frozen teachers that nothing moves are the same."""
    teachers = distiller.teachers
    kept = teachers.models.values() if teachers.mode == "eval" else ()
    return copy.deepcopy(distiller, {id(model): model for model in kept})


def _check_averages(distiller: Distiller) -> None:
    """Refuse a teacher that is still the student itself: gradients are rounding errors."""
    for name, model in distiller.teachers.models.items():
        if isinstance(model, AveragedModel):
            pairs = zip(model.module.parameters(), distiller.student.parameters(), strict=True)
            if all(torch.equal(mean, own) for mean, own in pairs):
                raise ValueError(
                    f"gradients need a teacher that is not the student itself, got the average {name!r} before any "
                    "step: measure after some steps, or choose the weights yourself"
                )


def _norms(trial: Distiller, batch: Any, at: str | None) -> dict[str, Tensor]:
    """The length of each value's gradient at one of the student's features."""
    if not isinstance(batch, list):
        raise ValueError(f"needs batches (inputs, labels), perhaps with an index, got {type(batch).__name__}")
    step = trial(*batch)
    features = {name: x for name, x in step.student_features.items() if x.requires_grad}
    if at is not None:
        if at not in features:
            raise ValueError(f"at needs one of the student's features, {', '.join(features)}, got {at!r}")
        features = {at: features[at]}
    values = _values(trial, step)
    if len(batch) > 1 and isinstance(batch[1], Tensor) and bool((batch[1] == UNLABELLED).all()):
        values.pop(TASK, None)
    slopes = {
        name: dict(
            zip(
                features,
                torch.autograd.grad(value, list(features.values()), retain_graph=True, allow_unused=True),
                strict=True,
            )
        )
        for name, value in values.items()
    }
    for feature in features:
        reached = [slope[feature] for name, slope in slopes.items() if name in (TASK, *trial.criteria)]
        if all(slope is not None for slope in reached):
            return {name: _length(slope[feature]) for name, slope in slopes.items()}
    came = "; ".join(
        f"{name}: {', '.join(feature for feature, slope in slopes[name].items() if slope is not None) or 'none'}"
        for name in (TASK, *trial.criteria)
        if name in slopes
    )
    raise ValueError(
        f"needs a feature of the student on which all depends, got {came}: name a module before these among "
        "student_features"
    )


def _length(slope: Tensor | None) -> Tensor:
    return torch.zeros(()) if slope is None else slope.norm().cpu()


def _values(trial: Distiller, step: Step) -> dict[str, Tensor]:
    """The task, each criterion and each term, with their gradients; over all teachers, as these are weighted."""
    values: dict[str, Tensor] = {}
    # Of the loss nothing else is left: in a trial, criteria have weight zero.
    if trial.weights[TASK] > 0:
        values[TASK] = step.loss
    for name, pair in trial.pairs.items():
        criterion = trial.criteria[pair.criterion]
        assert isinstance(criterion, Criterion)
        for key, term in criterion.terms.items():
            own = f"{pair.criterion}/{key}"
            value = trial.weights.get(pair.teacher, 1.0) * term.weight * step.comparisons[f"{name}/{key}"].value
            for each, factor in ((own, 1.0), (pair.criterion, trial.weights.get(own, 1.0))):
                values[each] = values[each] + factor * value if each in values else factor * value
    return values
