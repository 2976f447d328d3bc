"""WKD-L, WKD-F and both, and the class costs that WKD-L needs."""

from collections.abc import Mapping
from typing import Any

from facts.networks import R34_R18, R50_MV1
from facts.parts import ClassCost, Criterion, Method, Noted, Scheduled

WKD = "(Lv, Yang, Li, NeurIPS 2024, arXiv:2412.08139)"


def constant_then_cosine(weight: float, decay_from: int) -> Scheduled:
    """The schedule of WKD's weights."""
    return Scheduled("ConstantThenCosine", {"weight": weight, "decay_from": decay_from})


def wkd_l(class_cost: str, temperature: float, weight: float, decay_from: int) -> Criterion:
    """WKD-L's criterion."""
    options = {
        "class_cost": class_cost,
        "temperature": temperature,
        "epsilon": 0.05,
        "num_iters": 10,
        "parity": Noted(True, "sweeps as in the released code; without it they go on until the masses are met"),
    }
    return Criterion("wkd", "wkd_logits", options, terms={"wkd/transport": constant_then_cosine(weight, decay_from)})


def wkd_f(
    grid: int, mean_ratio: float, projector: str | Mapping[str, Any], weight: float, decay_from: int
) -> Criterion:
    """WKD-F's criterion."""
    options = {"grid": grid, "mean_ratio": mean_ratio, "projector": projector}
    return Criterion("wkd_features", "wkd_features", options, constant_then_cosine(weight, decay_from))


def wkd(pair: tuple[str, str], criteria: tuple[Criterion, ...], seed: int, batch: int, *notes: str) -> Method:
    """A config of WKD's authors."""
    names = {"wkd_logits": "WKD-L", "wkd_features": "WKD-F"}
    with_maps = criteria[-1].recipe == "wkd_features"
    return Method(
        folder={1: "wkd_f" if with_maps else "wkd_l", 2: "wkd_lf"}[len(criteria)],
        paper=f"{' and '.join(names[each.recipe] for each in criteria)} {WKD}",
        source="the numbers of the authors' config and its defaults (JiamingLv/WKD, 214cf88)",
        criteria=criteria,
        pairs={pair: {}},
        sees="last" if with_maps else "nothing",
        notes=(
            "The authors train in mixed precision (--trainer.precision 16-mixed) and report the best epoch on the test "
            "images.",
            *notes,
        ),
        batch=batch,
        nesterov=batch == 64,
        seed=seed,
    )


R8X4, SHV1 = ("resnet32x4", "resnet8x4"), ("wrn_40_2", "shufflenet_v1")
R8X4_COST, SHV1_COST = (f"runs/cifar100/class_cost/{pair[0]}.pt" for pair in (R8X4, SHV1))
R18_COST, MV1_COST = (f"runs/imagenet/class_cost/{pair[0]}.pt" for pair in (R34_R18, R50_MV1))
UPSAMPLING = {
    "class_path": "torch.nn.LazyConvTranspose2d",
    "init_args": {"out_channels": 128, "kernel_size": 4, "stride": 2, "padding": 1},
}
UPSAMPLED = (
    "The student's map is half as large as the teacher's: the projector is a transposed convolution, as in the "
    "authors' code, but without the batch normalisation and ReLU that follow it there."
)
DEFAULTS = (
    "Grid, projector and the start of the decay are not in the authors' config: they are the defaults of its code."
)
SLIP = (
    "The weight of the features, 1.0, is 50 times that of WKD-F alone (0.02). It looks like a slip of the config, "
    "which cannot be verified from here: the paper's value may be another."
)


CIFAR100 = (
    wkd(R8X4, (wkd_l(R8X4_COST, 8.0, 600.0, 150),), 42, 64, "The weight was 800 before the authors' commit 3829f2f."),
    wkd(R8X4, (wkd_f(1, 4.0, "conv1x1", 0.08, 150),), 10, 64),
    wkd(R8X4, (wkd_l(R8X4_COST, 8.0, 200.0, 150), wkd_f(1, 8.0, "conv1x1", 0.08, 150)), 10, 64),
    wkd(SHV1, (wkd_l(SHV1_COST, 6.0, 200.0, 150),), 42, 64),
    wkd(SHV1, (wkd_f(4, 3.0, UPSAMPLING, 0.3, 150),), 10, 64, UPSAMPLED),
    wkd(SHV1, (wkd_l(SHV1_COST, 4.0, 60.0, 150), wkd_f(4, 3.0, UPSAMPLING, 0.5, 150)), 10, 64, UPSAMPLED),
)
IMAGENET = (
    wkd(R34_R18, (wkd_l(R18_COST, 2.0, 30.0, 0),), 0, 256),
    wkd(R34_R18, (wkd_f(4, 2.0, "bottleneck", 0.02, 0),), 0, 256, DEFAULTS),
    wkd(R34_R18, (wkd_l(R18_COST, 2.0, 10.0, 0), wkd_f(4, 2.0, "bottleneck", 1.0, 0)), 0, 256, f"{SLIP} {DEFAULTS}"),
    wkd(R50_MV1, (wkd_l(MV1_COST, 2.0, 25.0, 0),), 0, 256),
    wkd(
        R50_MV1,
        (wkd_f(4, 2.0, "bottleneck", 0.005, 30),),
        0,
        256,
        "Grid and projector are not in the authors' config: they are the defaults of its code.",
    ),
    wkd(
        R50_MV1,
        (wkd_l(MV1_COST, 2.0, 25.0, 0), wkd_f(4, 2.0, "bottleneck", 0.005, 0)),
        0,
        256,
        f"WKD-F alone decays from epoch 30, this from the start. {DEFAULTS}",
    ),
)

OF_WKD = f"WKD-L {WKD}, as in the authors' code (JiamingLv/WKD, 214cf88)"
PAIRED = "Classes are compared sample by sample, in the order of the batches, which is not the authors'."
CLASS_COSTS = {
    "cifar100": (
        ClassCost("resnet32x4", OF_WKD, Noted("layer3", "the last feature map"), 1.0, (PAIRED,)),
        ClassCost("wrn_40_2", OF_WKD, Noted("block3", "the last feature map"), 1.0, (PAIRED,)),
    ),
    "imagenet": (
        ClassCost("resnet34", OF_WKD, "logits", 1.0, (PAIRED,)),
        ClassCost("resnet50", OF_WKD, "logits", 2.0, (PAIRED,)),
    ),
}
