"""The networks and schedules of papers, and which networks are paired."""

from facts.parts import Network, Setting


def _cifar(name: str, title: str, stages: str, rows: tuple[int, ...], rate: float = 0.05) -> dict[str, Network]:
    return {name: Network(title, f"graphkd.models.{name}", tuple(stages.split()), rows, rate=rate)}


def _torchvision(name: str, title: str) -> dict[str, Network]:
    stages = tuple(f"layer{i}" for i in range(1, 5))
    return {name: Network(title, f"torchvision.models.{name}", stages, (56, 28, 14, 7), "fc:input", rate=0.1)}


# The last map of each stage is what RepDistiller's training loop compares, feat[1:-1], and mdistiller's feats[1:]: of
# WRN before the next normalisation, of MobileNetV2 and the ShuffleNets before the last convolution.
LAYERS, BLOCKS = "layer1 layer2 layer3", "block1 block2 block3"
CIFAR100 = Setting(
    folder="cifar100",
    title="CIFAR-100",
    data="graphkd.datasets.CIFAR100Data",
    data_options={},
    workers=4,
    networks={
        **_cifar("resnet20", "ResNet-20", LAYERS, (32, 16, 8)),
        **_cifar("resnet32", "ResNet-32", LAYERS, (32, 16, 8)),
        **_cifar("resnet56", "ResNet-56", LAYERS, (32, 16, 8)),
        **_cifar("resnet110", "ResNet-110", LAYERS, (32, 16, 8)),
        **_cifar("resnet8x4", "ResNet-8x4", LAYERS, (32, 16, 8)),
        **_cifar("resnet32x4", "ResNet-32x4", LAYERS, (32, 16, 8)),
        **_cifar("wrn_16_2", "WRN-16-2", BLOCKS, (32, 16, 8)),
        **_cifar("wrn_40_1", "WRN-40-1", BLOCKS, (32, 16, 8)),
        **_cifar("wrn_40_2", "WRN-40-2", BLOCKS, (32, 16, 8)),
        **_cifar("vgg8", "VGG-8", f"{BLOCKS} block4", (16, 8, 4, 4)),
        **_cifar("vgg13", "VGG-13", f"{BLOCKS} block4", (16, 8, 4, 4)),
        **_cifar("ResNet50", "ResNet-50", f"{LAYERS} layer4", (32, 16, 8, 4)),
        **_cifar("mobilenetv2", "MobileNetV2", "blocks.1 blocks.2 blocks.4 blocks.6", (16, 8, 4, 2), 0.01),
        **_cifar("shufflenet_v1", "ShuffleNetV1", LAYERS, (16, 8, 4), 0.01),
        **_cifar("shufflenet_v2", "ShuffleNetV2", LAYERS, (16, 8, 4), 0.01),
    },
    trained=("wrn_40_2", "resnet56", "resnet110", "resnet32x4", "vgg13", "ResNet50"),
    teachers="as cifar100/teacher makes it, or of mdistiller's cifar_teachers.tar",
    epochs=240,
    steps=[150, 180, 210],
    weight_decay=5e-4,
    short_epochs=20,
)
IMAGENET = Setting(
    folder="imagenet",
    title="ImageNet",
    data="graphkd.datasets.ImageNetData",
    data_options={"folder": "data/imagenet"},
    workers=16,
    networks={
        **_torchvision("resnet18", "ResNet-18"),
        **_torchvision("resnet34", "ResNet-34"),
        **_torchvision("resnet50", "ResNet-50"),
        **_torchvision("resnet101", "ResNet-101"),
        **_torchvision("resnet152", "ResNet-152"),
        "mobilenetv1": Network(
            "MobileNetV1",
            "timm.models.mobilenetv1_100",
            ("blocks.2", "blocks.3", "blocks.4"),
            (28, 14, 7),
            "global_pool",
            rate=0.1,
            options={"act_layer": "relu"},
        ),
    },
    trained=(),
    teachers="the state_dict of torchvision's, with weights IMAGENET1K_V1",
    epochs=100,
    steps=[30, 60, 90],
    weight_decay=1e-4,
    short_epochs=20,
)
SETTINGS = (CIFAR100, IMAGENET)

# The tables of HobbitLong/RepDistiller.
PAIRS = {
    ("wrn_40_2", "wrn_16_2"): {},
    ("wrn_40_2", "wrn_40_1"): {},
    ("resnet56", "resnet20"): {},
    ("resnet110", "resnet20"): {},
    ("resnet110", "resnet32"): {},
    ("resnet32x4", "resnet8x4"): {},
    ("vgg13", "vgg8"): {},
    ("vgg13", "mobilenetv2"): {},
    ("ResNet50", "mobilenetv2"): {},
    ("ResNet50", "vgg8"): {},
    ("resnet32x4", "shufflenet_v1"): {},
    ("resnet32x4", "shufflenet_v2"): {},
    ("wrn_40_2", "shufflenet_v1"): {},
}
USUAL = {("resnet32x4", "resnet8x4"): {}}
R34_R18, R50_MV1 = ("resnet34", "resnet18"), ("resnet50", "mobilenetv1")
IMAGENET_PAIRS = {R34_R18: {}, R50_MV1: {}}
