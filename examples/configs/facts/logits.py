"""KD, KD standardised, DKD and DIST: losses on logits."""

from facts.networks import IMAGENET_PAIRS, PAIRS, R34_R18, R50_MV1
from facts.parts import Criterion, Method, Scheduled

MDISTILLER = "the numbers of mdistiller's config and its defaults (megvii-research/mdistiller, a08d46f)"
KD = "KD (Hinton, Vinyals, Dean, NIPS workshop 2014, arXiv:1503.02531)"
STANDARDIZED = "KD with logits standardised (Sun et al., CVPR 2024, arXiv:2403.01427)"
DKD = "DKD (Zhao et al., CVPR 2022, arXiv:2203.08679)"
DIST = "DIST (Huang et al., NeurIPS 2022, arXiv:2205.10536)"
STANDARDIZED_KD = Criterion("kd", "kd", {"temperature": 2.0, "standardize": True}, 9.0)

CIFAR100 = (
    Method(
        folder="kd",
        paper=KD,
        source="the numbers of CRD's authors (HobbitLong/RepDistiller, b0722bc; those of mdistiller are the same)",
        criteria=(Criterion("kd", "kd", {"temperature": 4.0}, 0.9),),
        pairs=PAIRS,
        task=0.1,
    ),
    Method(
        folder="kd_standardized",
        paper=STANDARDIZED,
        source=(
            "the authors' temperature and weight for this pair, by the name of its log in their table "
            "(sunshangquan/logit-standardization-KD, f6e5aa5)"
        ),
        criteria=(STANDARDIZED_KD,),
        pairs={
            ("wrn_40_2", "wrn_16_2"): {},
            ("wrn_40_2", "wrn_40_1"): {},
            ("wrn_40_2", "resnet8x4"): {},
            ("wrn_40_2", "mobilenetv2"): {"temperature": 3.0},
            ("resnet56", "resnet20"): {},
            ("resnet110", "resnet20"): {"temperature": 4.0, "weight": 12.0},
            ("resnet110", "resnet32"): {},
            ("resnet32x4", "resnet8x4"): {},
            ("resnet32x4", "wrn_16_2"): {"temperature": 3.0},
            ("resnet32x4", "wrn_40_2"): {"temperature": 3.0},
            ("resnet32x4", "shufflenet_v2"): {},
            ("vgg13", "vgg8"): {"temperature": 3.0},
            ("vgg13", "mobilenetv2"): {"temperature": 3.0},
            ("ResNet50", "mobilenetv2"): {"temperature": 3.0, "weight": 1.0},
        },
        task=0.1,
    ),
    Method(
        folder="dkd",
        paper=DKD,
        source="the numbers of the authors' config and its defaults (megvii-research/mdistiller, e8c5bb3)",
        criteria=(
            Criterion(
                "dkd",
                "dkd",
                {"temperature": 4.0, "target_weight": 1.0, "nontarget_weight": 8.0},
                Scheduled("LinearWarmup", {"weight": 1.0, "epochs": 20}),
            ),
        ),
        pairs={
            ("wrn_40_2", "wrn_16_2"): {"nontarget_weight": 6.0},
            ("wrn_40_2", "wrn_40_1"): {"nontarget_weight": 6.0},
            ("wrn_40_2", "shufflenet_v1"): {},
            ("resnet56", "resnet20"): {"nontarget_weight": 2.0},
            ("resnet110", "resnet32"): {"nontarget_weight": 2.0},
            ("resnet32x4", "resnet8x4"): {},
            ("resnet32x4", "shufflenet_v1"): {},
            ("resnet32x4", "shufflenet_v2"): {},
            ("vgg13", "vgg8"): {"nontarget_weight": 6.0},
            ("vgg13", "mobilenetv2"): {"nontarget_weight": 6.0},
            ("ResNet50", "mobilenetv2"): {},
        },
    ),
    Method(
        folder="dist",
        paper=DIST,
        source=(
            "a pair of the authors' table (hunto/DIST_KD, 2418f18); temperature and weights as reported for CIFAR-100, "
            "in the setting of CRD's authors; not checked against released configs"
        ),
        criteria=(Criterion("dist", "dist", {"temperature": 4.0, "inter_weight": 2.0, "intra_weight": 2.0}),),
        pairs={
            ("wrn_40_2", "wrn_40_1"): {},
            ("resnet56", "resnet20"): {},
            ("resnet32x4", "resnet8x4"): {},
            ("resnet32x4", "shufflenet_v1"): {},
            ("resnet32x4", "shufflenet_v2"): {},
            ("ResNet50", "mobilenetv2"): {},
        },
    ),
)
IMAGENET = (
    Method(
        folder="kd",
        paper=KD,
        source=MDISTILLER,
        criteria=(Criterion("kd", "kd", {"temperature": 1.0}, 0.5),),
        pairs=IMAGENET_PAIRS,
        task=0.5,
        batch=512,
    ),
    Method(
        folder="kd_standardized",
        paper=STANDARDIZED,
        source="the numbers of the authors' command and config (sunshangquan/logit-standardization-KD, f6e5aa5)",
        criteria=(STANDARDIZED_KD,),
        pairs={R34_R18: {}},
        batch=512,
    ),
    Method(
        folder="dkd",
        paper=DKD,
        source=f"{MDISTILLER}, whose warm-up of one epoch is none",
        criteria=(Criterion("dkd", "dkd", {"temperature": 1.0, "target_weight": 1.0, "nontarget_weight": 0.5}),),
        pairs={R34_R18: {}, R50_MV1: {"nontarget_weight": 2.0}},
        batch=512,
    ),
    Method(
        folder="dist",
        paper=DIST,
        source=(
            "a pair of the authors' table (hunto/DIST_KD, 2418f18); temperature, weights and schedule as in mmrazor's "
            "config for ResNet-34 to ResNet-18 (open-mmlab/mmrazor, 0606d1a); not checked against the authors' own"
        ),
        criteria=(Criterion("dist", "dist", {"temperature": 1.0, "inter_weight": 2.0, "intra_weight": 2.0}),),
        pairs={
            **IMAGENET_PAIRS,
            ("resnet50", "resnet18"): {},
            ("resnet101", "resnet18"): {},
            ("resnet152", "resnet18"): {},
            ("resnet50", "resnet34"): {},
            ("resnet101", "resnet34"): {},
            ("resnet152", "resnet34"): {},
        },
        batch=256,
    ),
)
