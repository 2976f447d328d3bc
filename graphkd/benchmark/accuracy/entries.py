"""The methods of the benchmark: each as its recipe, beside the task alone, with as many trials as any other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from graphkd import losses
from graphkd.loss import Criterion

Maps = Literal["never", "if there are any", "always"]

METHOD = "method"
"""What the criterion is called whose weight is searched."""

RATIO = "ratio"
"""The knob of every method that has no other: how hard it pulls at the student's features, relative to the task, where
training begins (:func:`graphkd.suggest_weights`). So methods of any scale are searched alike."""

RATIOS = (0.03, 0.3, 3.0, 30.0)


class Given(NamedTuple):
    """What a recipe may need to know of what it is used on.

    Attributes:
        samples: Training samples.
        maps: Names of feature maps.
        class_cost: What it costs to move from class to class, as the teacher sees them.
    """

    samples: int
    maps: tuple[str, ...]
    class_cost: Callable[[], Tensor]


ANY = Given(samples=1, maps=("map",), class_cost=lambda: 1 - torch.eye(2))
"""Something to build criteria on that are only looked at."""


@dataclass(frozen=True)
class Entry:
    """A line of the benchmark.

    Attributes:
        title: What it is called.
        kind: ``alone``, ``logits``, ``features``, ``relations``, ``contrast``, ``transport`` or ``ours``.
        criteria: Builds the criteria, with the knob's value where the knob is an option.
        knob: What is searched.
        values: Its values.
        weights: Of the task and of criteria, where they are not searched.
        maps: Whether it reads feature maps: ``never``, ``if there are any``, or ``always``, and then only where there
            are some.
        classes: Whether it makes no sense without classes.
        same_width: Whether it needs features of one width in both networks.
    """

    title: str
    kind: str
    criteria: Callable[..., dict[str, Criterion]]
    knob: str = RATIO
    values: tuple[Any, ...] = RATIOS
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    maps: Maps = "never"
    classes: bool = False
    same_width: bool = False

    def built(self, given: Given, trial: Mapping[str, Any]) -> dict[str, Criterion]:
        """The criteria of a trial, whose value is an option of the recipe unless it is a ratio."""
        return self.criteria(given, **{name: value for name, value in trial.items() if name != RATIO})

    def example(self, given: Given) -> dict[str, Criterion]:
        """The criteria with the knob's first value."""
        return self.built(given, {self.knob: self.values[0]} if self.values else {})

    def definition(self) -> dict[str, Any]:
        """What numbers depend on beside the knob's value, as plain values."""
        criteria = {name: repr(criterion) for name, criterion in self.example(ANY).items()}
        return {"knob": self.knob, "weights": dict(self.weights), "criteria": criteria}


def _recipe(title: str, kind: str, recipe: Callable[..., Criterion], maps: Maps = "never") -> Entry:
    """A recipe with its defaults."""
    return Entry(title, kind, lambda given: {METHOD: recipe()}, maps=maps)


def _with_memory(title: str, kind: str, recipe: Callable[..., Criterion], **options: Any) -> Entry:
    def criteria(given: Given) -> dict[str, Criterion]:
        return {METHOD: recipe(num_samples=given.samples, **options)}

    return Entry(title, kind, criteria)


def _of_maps(title: str, recipe: Callable[..., Criterion]) -> Entry:
    def criteria(given: Given) -> dict[str, Criterion]:
        return {METHOD: recipe(maps=list(given.maps))}

    return Entry(title, "features", criteria, maps="always")


def _cosine(given: Given) -> dict[str, Criterion]:
    """Of vectors of length one, half the squared distance is one minus the cosine; the recipe's is a mean."""
    return {METHOD: losses.fitnet(feature="feat", regressor=nn.Identity())}


def _sp(given: Given) -> dict[str, Criterion]:
    return {METHOD: losses.sp(feature="map" if given.maps else "feat")}


def _kd(title: str, weights: Mapping[str, float], temperatures: tuple[float, ...], **options: Any) -> Entry:
    def criteria(given: Given, temperature: float) -> dict[str, Criterion]:
        return {METHOD: losses.kd(temperature=temperature, **options)}

    return Entry(title, "logits", criteria, "temperature", temperatures, weights, classes=True)


def _dkd(given: Given, nontarget_weight: float) -> dict[str, Criterion]:
    return {METHOD: losses.dkd(nontarget_weight=nontarget_weight)}


def _beside_kd(recipe: Callable[..., Criterion], given: Given) -> dict[str, Criterion]:
    return {"kd": losses.kd(), METHOD: recipe()}


def _wkd_logits(given: Given, transport_weight: float) -> dict[str, Criterion]:
    return {METHOD: losses.wkd_logits(given.class_cost(), transport_weight=transport_weight, tol=0.01)}


ALONE = "alone"

ENTRIES: dict[str, Entry] = {
    ALONE: Entry("student alone", "alone", lambda given: {}, values=()),
    "kd": _kd("KD, CE 1, KD 1", {METHOD: 1.0}, (1.0, 2.0, 4.0, 8.0)),
    "kd_heavy": _kd("KD, CE .1, KD .9", {"task": 0.1, METHOD: 0.9}, (1.0, 2.0, 4.0, 8.0)),
    "kd_standardized": _kd("KD, standardised logits", {METHOD: 9.0}, (1.0, 2.0, 3.0, 4.0), standardize=True),
    "dkd": Entry("DKD", "logits", _dkd, "nontarget_weight", (1.0, 2.0, 4.0, 8.0), {METHOD: 1.0}, classes=True),
    "dist": Entry("DIST", "logits", lambda given: {METHOD: losses.dist()}, classes=True),
    "cosine": Entry("cosine", "features", _cosine, same_width=True),
    "fitnet": _recipe("FitNet", "features", partial(losses.fitnet, feature="map"), "always"),
    "fitnet_feat": _recipe("FitNet, after pooling", "features", partial(losses.fitnet, feature="feat")),
    "attention_transfer": _of_maps("AT", losses.attention_transfer),
    "vid": _recipe("VID", "features", losses.vid, "always"),
    "nst": _recipe("NST", "features", losses.nst, "always"),
    "rkd": _recipe("RKD", "relations", losses.rkd),
    "sp": Entry("SP", "relations", _sp, maps="if there are any"),
    "pkt": _recipe("PKT", "relations", losses.pkt),
    "cc": _recipe("CC", "relations", losses.cc),
    "irg": _recipe("IRG", "relations", losses.irg),
    "ega": _recipe("EGA", "relations", losses.ega),
    "crd": _with_memory("CRD", "contrast", losses.crd, num_negatives=512),
    "hkd": _with_memory("HKD", "contrast", losses.hkd, num_negatives=512),
    "dcd": _recipe("DCD", "contrast", losses.dcd),
    "info_nce": _recipe("InfoNCE", "contrast", losses.info_nce),
    "rrd": _recipe("RRD", "contrast", partial(losses.rrd, queue_size=512)),
    "mmd": _recipe("MMD", "transport", losses.mmd),
    "gaussian_w2": _recipe("Gaussian W2", "transport", losses.gaussian_w2),
    "kd2m": _recipe("KD2M", "transport", losses.kd2m),
    "rtot": _recipe("RTOT", "transport", losses.rtot),
    "wkd_logits": Entry(
        "WKD-L", "transport", _wkd_logits, "transport_weight", (10.0, 30.0, 100.0, 300.0), {METHOD: 1.0}, classes=True
    ),
    "wkd_features": _recipe("WKD-F", "transport", losses.wkd_features, "always"),
    "wcord": _with_memory("WCoRD", "transport", losses.wcord, num_negatives=512),
    "otgd": _recipe("OTGD", "transport", losses.otgd),
    "otgd_kd": Entry("OTGD and KD", "transport", partial(_beside_kd, losses.otgd), weights={"kd": 1.0}, classes=True),
    "plan_matching": _recipe("plan matching", "ours", losses.plan_matching),
    "fgw": _recipe("FGW", "ours", losses.fgw),
    "fgw_kd": Entry("FGW and KD", "ours", partial(_beside_kd, losses.fgw), weights={"kd": 1.0}, classes=True),
}
"""Methods by name."""
