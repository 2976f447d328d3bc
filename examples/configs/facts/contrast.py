"""Losses that tell samples apart, in the batch or by memories of all samples."""

from facts.networks import IMAGENET_PAIRS, PAIRS, R34_R18, USUAL
from facts.parts import Criterion, Method, Noted

CRD_AUTHORS = "the numbers of CRD's authors (HobbitLong/RepDistiller, b0722bc)"
MDISTILLER = "the numbers of mdistiller's config and its defaults (megvii-research/mdistiller, a08d46f)"
DISTILLERS = "the numbers of the authors' code (giakoumoglou/distillers, 1c0e48d)"
CRD = "CRD (Tian, Krishnan, Isola, ICLR 2020, arXiv:1910.10699)"
WCORD = "WCoRD (Chen, Wang, Gan, Liu, Henao, Carin, CVPR 2021, arXiv:2012.08674)"
BESIDE = "With KD beside it: criterion graphkd.losses.kd with temperature 4, weight 1."
CRITIC = "Open in the paper, and chosen here: the critic, beta and the iterations; see graphkd.losses.wcord."
MEMORIES = "Each of the two memories takes 0.7 GB."
BANK = {"embed_dim": 128, "num_negatives": 16384, "temperature": 0.07, "momentum": 0.5}


def crd(num_samples: int) -> tuple[Criterion]:
    """CRD's criterion."""
    return (Criterion("crd", "crd", {"num_samples": num_samples} | BANK, 0.8),)


def wcord(num_samples: int) -> tuple[Criterion]:
    """WCoRD's criterion."""
    options = {"num_samples": num_samples} | BANK | {"global_weight": 0.8, "local_weight": 0.05}
    return (Criterion("wcord", "wcord", options),)


CIFAR100 = (
    Method("crd", CRD, CRD_AUTHORS, crd(50000), PAIRS, "vector", (BESIDE,), index=True),
    Method(
        folder="wcord",
        paper=WCORD,
        source="weights from the paper, the rest as its base CRD (HobbitLong/RepDistiller, b84f547)",
        criteria=wcord(50000),
        pairs=PAIRS,
        sees="vector",
        notes=(BESIDE, CRITIC),
        index=True,
    ),
    Method(
        folder="hkd",
        paper="HKD (Zhou et al., ICCV 2021, arXiv:2108.05507)",
        source=(
            "the numbers of the authors' code (wyc-ruiker/HKD, df61739), GNN.py, and for the weight "
            "scripts/run_cifar_distill.sh; the pair is one of its table"
        ),
        criteria=(
            Criterion(
                "hkd",
                "hkd",
                {
                    "num_samples": 50000,
                    "embed_dim": 128,
                    "k": Noted(8, "knn"),
                    "num_negatives": Noted(16384, "nce_k"),
                    "temperature": Noted(0.07, "T"),
                    "momentum": Noted(0.9, "of NCEAverage; the option nce_m is not used"),
                    "blend": Noted(0.25, "one minus the momentum of get_smooth"),
                    "own_negatives": True,
                },
                3.0,
            ),
        ),
        pairs={
            ("resnet32x4", "resnet8x4"): {},
            ("resnet32x4", "shufflenet_v2"): {},
            ("vgg13", "mobilenetv2"): {},
            ("ResNet50", "vgg8"): {},
            ("ResNet50", "mobilenetv2"): {},
        },
        sees="vector",
        notes=(
            BESIDE,
            "Negatives are those of the anchor's own network, as in that code; it draws 16384 for each image, here for "
            "each batch.",
        ),
        index=True,
    ),
    Method(
        folder="dcd",
        paper="DCD (Giakoumoglou, Stathaki, 2024, arXiv:2407.11802)",
        source=f"{DISTILLERS}, DCD.py and, for weight and pair, its README.md",
        criteria=(
            Criterion(
                "dcd",
                "dcd",
                {
                    "embed_dim": 128,
                    "consistency": Noted(0.5, "alpha"),
                    "scale": Noted(2.718281828459045, "init_tau 1, its exponential"),
                    "largest_scale": Noted(10.0, "max_tau"),
                },
            ),
        ),
        pairs=PAIRS,
        sees="vector",
        notes=(BESIDE,),
    ),
    Method(
        folder="rrd",
        paper="RRD (Giakoumoglou, Stathaki, 2024, arXiv:2407.12073)",
        source=f"{DISTILLERS}, train_student.py and, for weight and pair, its README.md",
        criteria=(
            Criterion(
                "rrd",
                "rrd",
                {
                    "embed_dim": 128,
                    "queue_size": Noted(16384, "nce_k"),
                    "student_temperature": Noted(0.1, "nce_t_s"),
                    "teacher_temperature": Noted(0.02, "nce_t_t"),
                },
            ),
        ),
        pairs=PAIRS,
        sees="vector",
        notes=(BESIDE,),
    ),
    Method(
        folder="info_nce",
        paper="InfoNCE (van den Oord, Li, Vinyals, 2018, arXiv:1807.03748) between the networks",
        source=(
            "a baseline without published numbers; schedule, width and temperature are those of CRD "
            "(HobbitLong/RepDistiller, b84f547), the weight is that of DCD (giakoumoglou/distillers, 1c0e48d)"
        ),
        criteria=(Criterion("info_nce", "info_nce", {"embed_dim": 128, "temperature": 0.07}),),
        pairs=USUAL,
        sees="vector",
        notes=(BESIDE,),
    ),
    Method(
        folder="otgd",
        paper="OTGD (Li, Liu, Chen, ICONIP 2024)",
        source=(
            "pair and weights of the example in the authors' README (himyl/OTGD, aa6287a), the rest as in OTGD.py and "
            "train_student_otgd.py; we have not seen the paper's tables"
        ),
        criteria=(
            Criterion("kd", "kd", {"temperature": 4.0}),
            Criterion("otgd", "otgd", {"embed_dim": 128, "k": 8, "num_iters": 2, "cross": "figure"}),
        ),
        pairs=USUAL,
        sees="vector",
        notes=(
            "The command of that example names an earlier loss of theirs. The term fg is that of the paper's figure; "
            "cross: code is as released.",
        ),
    ),
)
IMAGENET = (
    Method(
        folder="wcord",
        paper=WCORD,
        source=(
            "the paper has the setup of CRD here, and weights for CIFAR-100 only, which are these; rate, epochs and "
            "batch as mdistiller has them for CRD (megvii-research/mdistiller, a08d46f)"
        ),
        criteria=wcord(1281167),
        pairs={R34_R18: {}},
        sees="vector",
        notes=(f"{BESIDE} {MEMORIES}", CRITIC),
        batch=256,
        index=True,
    ),
    Method(
        "crd", CRD, MDISTILLER, crd(1281167), IMAGENET_PAIRS, "vector", (f"{BESIDE} {MEMORIES}",), batch=256, index=True
    ),
)
