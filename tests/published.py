"""What papers and their code say, as tests of configs hold it against them."""

# The tables of HobbitLong/RepDistiller.
PAIRS = {
    "wrn_40_2_wrn_16_2",
    "wrn_40_2_wrn_40_1",
    "resnet56_resnet20",
    "resnet110_resnet20",
    "resnet110_resnet32",
    "resnet32x4_resnet8x4",
    "vgg13_vgg8",
    "vgg13_mobilenetv2",
    "resnet50_mobilenetv2",
    "resnet50_vgg8",
    "resnet32x4_shufflenet_v1",
    "resnet32x4_shufflenet_v2",
    "wrn_40_2_shufflenet_v1",
}
# Methods of those tables, of WCoRD's and of giakoumoglou/distillers'.
WITH_ALL_PAIRS = "attention_transfer cc crd dcd fitnet kd nst pkt rkd rrd sp vid wcord".split()
# hunto/DIST_KD at 2418f18; the picture of results of wyc-ruiker/HKD.
DIST = {
    "wrn_40_2_wrn_40_1",
    "resnet56_resnet20",
    "resnet32x4_resnet8x4",
    "resnet32x4_shufflenet_v1",
    "resnet32x4_shufflenet_v2",
    "resnet50_mobilenetv2",
}
HKD = {
    "resnet32x4_resnet8x4",
    "resnet32x4_shufflenet_v2",
    "vgg13_mobilenetv2",
    "resnet50_vgg8",
    "resnet50_mobilenetv2",
}
# The configs of megvii-research/mdistiller at e8c5bb3: beta.
DKD = {
    "resnet110_resnet32": 2,
    "resnet56_resnet20": 2,
    "vgg13_vgg8": 6,
    "vgg13_mobilenetv2": 6,
    "wrn_40_2_wrn_16_2": 6,
    "wrn_40_2_wrn_40_1": 6,
    "wrn_40_2_shufflenet_v1": 8,
    "resnet32x4_resnet8x4": 8,
    "resnet32x4_shufflenet_v1": 8,
    "resnet32x4_shufflenet_v2": 8,
    "resnet50_mobilenetv2": 8,
}
# The logs' names in sunshangquan/logit-standardization-KD at f6e5aa5: temperature and weight.
STANDARDIZED = {
    "resnet32x4_resnet8x4": (2, 9),
    "vgg13_vgg8": (3, 9),
    "wrn_40_2_wrn_40_1": (2, 9),
    "wrn_40_2_wrn_16_2": (2, 9),
    "resnet56_resnet20": (2, 9),
    "resnet110_resnet32": (2, 9),
    "resnet110_resnet20": (4, 12),
    "resnet32x4_shufflenet_v2": (2, 9),
    "resnet32x4_wrn_16_2": (3, 9),
    "resnet32x4_wrn_40_2": (3, 9),
    "wrn_40_2_resnet8x4": (2, 9),
    "wrn_40_2_mobilenetv2": (3, 9),
    "vgg13_mobilenetv2": (3, 9),
    "resnet50_mobilenetv2": (3, 1),
}
# As in JiamingLv/WKD at 214cf88: weight and temperature of the transport; weight of the features, ratio of the means'
# term, cells per side; last epoch at full weight; seed.
WKD = {
    "cifar100/wkd_l/resnet32x4_resnet8x4": (600, 8, None, None, None, 150, 42),
    "cifar100/wkd_f/resnet32x4_resnet8x4": (None, None, 0.08, 4, 1, 150, 10),
    "cifar100/wkd_lf/resnet32x4_resnet8x4": (200, 8, 0.08, 8, 1, 150, 10),
    "cifar100/wkd_l/wrn_40_2_shufflenet_v1": (200, 6, None, None, None, 150, 42),
    "cifar100/wkd_f/wrn_40_2_shufflenet_v1": (None, None, 0.3, 3, 4, 150, 10),
    "cifar100/wkd_lf/wrn_40_2_shufflenet_v1": (60, 4, 0.5, 3, 4, 150, 10),
    "imagenet/wkd_l/resnet34_resnet18": (30, 2, None, None, None, 0, 0),
    "imagenet/wkd_f/resnet34_resnet18": (None, None, 0.02, 2, 4, 0, 0),
    "imagenet/wkd_lf/resnet34_resnet18": (10, 2, 1.0, 2, 4, 0, 0),
    "imagenet/wkd_l/resnet50_mobilenetv1": (25, 2, None, None, None, 0, 0),
    "imagenet/wkd_f/resnet50_mobilenetv1": (None, None, 0.005, 2, 4, 30, 0),
    "imagenet/wkd_lf/resnet50_mobilenetv1": (25, 2, 0.005, 2, 4, 0, 0),
}
# Weights of the task and of the method, as in the code that each config names, with the options they belong to.
PUBLISHED = {
    "cifar100/kd": (0.1, 0.9, {"temperature": 4}),
    "cifar100/kd_standardized": (0.1, None, {"standardize": True}),
    "cifar100/dkd": (1, 1, {"temperature": 4, "target_weight": 1}),
    "cifar100/dist": (1, 1, {"temperature": 4, "inter_weight": 2, "intra_weight": 2}),
    "cifar100/fitnet": (1, 100, {"feature": "map"}),
    "cifar100/attention_transfer": (1, 1000, {"p": 2, "parity": True}),
    "cifar100/vid": (1, 1, {"initial_variance": 5, "eps": 1e-5}),
    "cifar100/rkd": (1, 1, {"distance_weight": 25, "angle_weight": 50}),
    "cifar100/sp": (1, 3000, {"feature": "map", "parity": True}),
    "cifar100/pkt": (1, 30000, {"parity": True}),
    "cifar100/irg": (1, 0.005 * 64 / 2, {"edge_weight": 1}),
    "cifar100/ega": (1, 1, {"node_weight": 0.8, "edge_weight": 0.24, "parity": True}),
    "cifar100/hkd": (
        1,
        3,
        {"num_samples": 50000, "k": 8, "num_negatives": 16384, "temperature": 0.07, "momentum": 0.9},
    ),
    "cifar100/dcd": (1, 1, {"embed_dim": 128, "consistency": 0.5}),
    "cifar100/rrd": (1, 1, {"queue_size": 16384, "student_temperature": 0.1, "teacher_temperature": 0.02}),
    "cifar100/nst": (1, 50, {"kernel": "polynomial"}),
    "cifar100/mmd": (1, 1e-4, {"kernel": "linear", "normalize": False}),
    "cifar100/gaussian_w2": (1, 1e-4, {"covariance": "diagonal", "parity": True}),
    "cifar100/kd2m": (1, 1e-4, {"kind": "marginal", "normalize": False}),
    "imagenet/kd": (0.5, 0.5, {"temperature": 1}),
    "imagenet/kd_standardized": (1, 9, {"temperature": 2, "standardize": True}),
    "imagenet/dkd": (1, 1, {"temperature": 1, "target_weight": 1}),
    "imagenet/dist": (1, 1, {"temperature": 1, "inter_weight": 2, "intra_weight": 2}),
    "imagenet/attention_transfer": (1, 1000, {"p": 2, "parity": True}),
}
KAPPA = {
    "cifar100/class_cost/resnet32x4": (1, "layer3"),
    "cifar100/class_cost/wrn_40_2": (1, "block3"),
    "imagenet/class_cost/resnet34": (1, "logits"),
    "imagenet/class_cost/resnet50": (2, "logits"),
}
