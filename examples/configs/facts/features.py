"""Losses on feature maps, and on what relates the vectors of a batch."""

from facts.networks import PAIRS, R34_R18, R50_MV1, USUAL
from facts.parts import Criterion, Method

CRD_AUTHORS = "the numbers of CRD's authors (HobbitLong/RepDistiller, b0722bc)"
MDISTILLER = "the numbers of mdistiller's config and its defaults (megvii-research/mdistiller, a08d46f)"
AT = "AT (Zagoruyko, Komodakis, ICLR 2017, arXiv:1612.03928)"
ATTENTION = Criterion("attention", "attention_transfer", {"p": 2, "parity": True}, 1000.0)
ATTENTION_NOTE = "The weight belongs to a mean over positions: parity."
KDDM = (
    "The weight is that of the authors' code (eddardd/kddm, --coef), where it belongs to a ResNet-34 and a ResNet-18, "
    "batches of 128 and 15 epochs. Pair, batch, rate and epochs here are those of CRD's table, which the paper lacks."
)

CIFAR100 = (
    Method(
        folder="fitnet",
        paper="FitNet (Romero et al., ICLR 2015, arXiv:1412.6550)",
        source=CRD_AUTHORS,
        criteria=(Criterion("fitnet", "fitnet", {"feature": "map"}, 100.0),),
        pairs=PAIRS,
        sees="hint",
        notes=("Hints are the second stage, and in one run with the task.",),
    ),
    Method("attention_transfer", AT, CRD_AUTHORS, (ATTENTION,), PAIRS, "stages", (ATTENTION_NOTE,)),
    Method(
        folder="vid",
        paper="VID (Ahn et al., CVPR 2019, arXiv:1904.05835)",
        source=CRD_AUTHORS,
        criteria=(Criterion("vid", "vid", {"initial_variance": 5.0, "eps": 0.00001}),),
        pairs=PAIRS,
        sees="stages",
    ),
    Method(
        folder="nst",
        paper="NST (Huang, Wang, arXiv:1707.01219)",
        source=CRD_AUTHORS,
        criteria=(Criterion("nst", "nst", {"kernel": "polynomial"}, 50.0),),
        pairs=PAIRS,
        sees="stages",
        notes=("Weight 50 on the sum over the last maps of all stages.",),
    ),
    Method(
        folder="sp",
        paper="SP (Tung, Mori, ICCV 2019, arXiv:1907.09682)",
        source=CRD_AUTHORS,
        criteria=(Criterion("sp", "sp", {"feature": "map", "parity": True}, 3000.0),),
        pairs=PAIRS,
        sees="last",
    ),
    Method(
        folder="pkt",
        paper="PKT (Passalis, Tefas, ECCV 2018, arXiv:1803.10837)",
        source=CRD_AUTHORS,
        criteria=(Criterion("pkt", "pkt", {"parity": True}, 30000.0),),
        pairs=PAIRS,
        sees="vector",
    ),
    Method(
        folder="rkd",
        paper="RKD (Park, Kim, Lu, Cho, CVPR 2019, arXiv:1904.05068)",
        source=CRD_AUTHORS,
        criteria=(Criterion("rkd", "rkd", {"distance_weight": 25.0, "angle_weight": 50.0}),),
        pairs=PAIRS,
        sees="vector",
    ),
    Method(
        folder="cc",
        paper="CC (Peng et al., ICCV 2019, arXiv:1904.01802)",
        source="the kernel is the paper's, with its gamma and order, the weight is not",
        criteria=(Criterion("cc", "cc", {"gamma": 0.4, "order": 2}, 100.0),),
        pairs=PAIRS,
        sees="vector",
        notes=(
            "We have not seen the paper's weight: this is that of a re-implementation of the kernel for ResNet-110 to "
            "ResNet-20 on CIFAR-10 (AberHu/Knowledge-Distillation-Zoo). The pair is one of RepDistiller's table, whose "
            "CC is another loss.",
        ),
    ),
    Method(
        folder="irg",
        paper="IRG (Liu et al., CVPR 2019)",
        source="the weight of the authors' networks for CIFAR-10 (yufanLIU/IRG, IRG.prototxt), which is not this pair",
        criteria=(Criterion("irg", "irg", {"vertex_weight": 0, "edge_weight": 1.0}, 0.16),),
        pairs=USUAL,
        sees="vector",
        notes=(
            "There edges of the pooled layer, without vertices, have 0.005 on half the squared distance over the batch "
            "of 64, which is 0.16 on the mean square. ResNet-8x4 has no two blocks of one width whose change could be "
            "compared. The schedule is that of the CIFAR-100 benchmarks (HobbitLong/RepDistiller).",
        ),
    ),
    Method(
        folder="ega",
        paper="EGA (Ma, Chen, Akata, BMVC 2022, arXiv:2211.13264)",
        source="the weights of the authors' script (yccm/EGA, train_student.py), where the teacher is CLIP",
        criteria=(
            Criterion("ega", "ega", {"node_weight": 0.8, "edge_weight": 0.24, "projector": None, "parity": True}),
        ),
        pairs=USUAL,
        sees="vector",
        notes=(
            "Both networks' classifiers stand on 256 features, as many as the joint space there, so nothing is "
            "projected.",
        ),
    ),
    Method(
        folder="mmd",
        paper="MMD (Gretton et al., JMLR 2012) with a linear kernel on raw features, both of width 256",
        source="as in KD2M (Montesuma, GSI 2025, arXiv:2504.01757)",
        criteria=(Criterion("mmd", "mmd", {"kernel": "linear", "normalize": False, "projector": None}, 1e-4),),
        pairs=USUAL,
        sees="vector",
        notes=(KDDM,),
    ),
    Method(
        folder="gaussian_w2",
        paper="Gaussian W2, diagonal, on raw features, both of width 256",
        source="as in KD2M (Montesuma, GSI 2025, arXiv:2504.01757)",
        criteria=(
            Criterion(
                "gaussian_w2", "gaussian_w2", {"covariance": "diagonal", "projector": None, "parity": True}, 1e-4
            ),
        ),
        pairs=USUAL,
        sees="vector",
        notes=(KDDM,),
    ),
    Method(
        folder="kd2m",
        paper="KD2M (Montesuma, GSI 2025, arXiv:2504.01757)",
        source="the distance of raw features, both of width 256, without labels",
        criteria=(Criterion("kd2m", "kd2m", {"kind": "marginal", "normalize": False, "projector": None}, 1e-4),),
        pairs=USUAL,
        sees="vector",
        notes=(KDDM,),
    ),
)
IMAGENET = (
    Method("attention_transfer", AT, MDISTILLER, (ATTENTION,), {R34_R18: {}}, "stages", (ATTENTION_NOTE,), batch=512),
    Method(
        folder="attention_transfer",
        paper=AT,
        source=MDISTILLER,
        criteria=(ATTENTION,),
        pairs={R50_MV1: {}},
        sees="stages",
        notes=(
            ATTENTION_NOTE,
            "The student's three maps are compared with the teacher's first three of four, as in that code, though "
            "they are of its last three sizes.",
        ),
        batch=512,
    ),
)
