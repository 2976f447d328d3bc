"""Backbones of other libraries distil, with random weights: features of every kind, and those that are suggested."""

from collections import UserDict

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch_geometric.nn import GAT, GCN

from graphkd import Distiller, losses
from graphkd.adaptors import ChannelsFirst, ClsToken, MeanTokens, TokenMap
from graphkd.edges import GivenEdges
from graphkd.features import FeatureExtractor
from graphkd.models import CifarResNet
from graphkd.outline import example_inputs, outline_of

CLASSES, N = 4, 6
LABELS = torch.arange(N) % CLASSES
VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "num_heads": 2, "num_classes": CLASSES, "embed_dim": 16}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def timm_resnet():
    timm = pytest.importorskip("timm")
    block = timm.models.resnet.BasicBlock
    return timm.models.ResNet(block, (1, 1, 1, 1), CLASSES, channels=(8, 8, 8, 16), stem_width=8)


def timm_convnext():
    timm = pytest.importorskip("timm")
    return timm.models.ConvNeXt(num_classes=CLASSES, depths=(1, 1, 1, 1), dims=(8, 8, 8, 16))


def timm_vit():
    return pytest.importorskip("timm").models.VisionTransformer(**VIT)


def timm_swin():
    timm = pytest.importorskip("timm")
    sizes = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2)}
    return timm.models.SwinTransformer(num_classes=CLASSES, **sizes)


def torchvision_resnet():
    torchvision = pytest.importorskip("torchvision")
    return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)


def torchvision_vit():
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=CLASSES)
    # It begins with logits of zero, which teach nothing.
    nn.init.normal_(model.heads.head.weight)
    return model


def transformers_vit():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=CLASSES, **SMALL)
    return transformers.ViTForImageClassification(config)


def bert(kind="BertForSequenceClassification"):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(vocab_size=30, max_position_embeddings=16, num_labels=CLASSES, **SMALL)
    return getattr(transformers, kind)(config)


IMAGE_MODELS = {
    "timm resnet": (timm_resnet, {"feat": "fc:input", "map": "layer3", "logits": "logits"}),
    "timm convnext": (timm_convnext, {"feat": "head.fc:input", "map": "stages.2", "logits": "logits"}),
    "timm vit": (
        timm_vit,
        {"feat": "head:input", "map": TokenMap("norm"), "tokens": "norm", "logits": "logits"},
    ),
    "timm swin": (timm_swin, {"feat": "head.fc:input", "map": ChannelsFirst("layers"), "logits": "logits"}),
    "torchvision resnet": (torchvision_resnet, {"feat": "fc:input", "map": "layer3", "logits": "logits"}),
    "torchvision vit": (
        torchvision_vit,
        {"feat": "heads.head:input", "map": TokenMap("encoder"), "tokens": "encoder", "logits": "logits"},
    ),
    "transformers vit": (
        transformers_vit,
        {
            "feat": "classifier:input",
            "map": TokenMap("vit.layernorm"),
            "tokens": "vit.layernorm",
            "logits": "logits",
        },
    ),
}


def images(model):
    pixels = torch.rand(N, 3, 32, 32)
    return {"pixel_values": pixels} if hasattr(model, "main_input_name") else pixels


def text():
    """Padded to different lengths, in what a tokenizer returns."""
    ids = torch.randint(1, 30, (N, 9))
    mask = (torch.arange(9) < torch.arange(3, 3 + N).unsqueeze(1)).long()
    return UserDict(input_ids=ids * mask, attention_mask=mask)


def first_layer(model):
    layers = nn.Conv2d | nn.Embedding | nn.Linear
    return next(module.weight for module in model.modules() if isinstance(module, layers))


def check(distiller, inputs, labels=LABELS, index=None):
    """Each criterion alone has a gradient that reaches the student's first layer; the teacher stays as it is."""
    teacher, first = distiller.teacher, first_layer(distiller.student)
    before = {name: x.clone() for name, x in teacher.state_dict().items()}
    distiller.train()
    for name in distiller.criteria:
        distiller.weights = {"task": 0.0} | {other: float(other == name) for other in distiller.criteria}
        step = distiller(inputs, labels, index)
        assert step.loss.isfinite() and step.loss > 0, name
        (gradient,) = torch.autograd.grad(step.loss, first)
        assert gradient.isfinite().all() and gradient.abs().sum() > 0, name
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(x, before[name]) for name, x in teacher.state_dict().items())
    return step


QUICK = ("timm vit", "timm swin", "torchvision resnet")


@pytest.mark.parametrize(
    ("make", "features"),
    [
        pytest.param(*case, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, case in IMAGE_MODELS.items()
    ],
)
def test_backbones_of_images_distil_by_the_features_that_are_suggested(make, features):
    student, teacher = make(), make()
    inputs = images(student)
    assert outline_of(student, inputs).features == features
    criteria = {"otgd": losses.otgd(embed_dim=4, k=2), "kd": losses.kd(), "at": losses.attention_transfer()}
    distiller = Distiller(student, teacher, student_features=features, teacher_features=features, criteria=criteria)
    step = check(distiller, inputs)
    assert step.student_features["feat"].shape[0] == N
    assert step.student_features["map"].dim() == 4


def test_the_suggested_vector_is_what_gives_the_logits():
    model = timm_swin().eval()
    output, features = FeatureExtractor(model, outline_of(model, images(model)).features)(images(model))
    torch.testing.assert_close(model.head.fc(features["feat"]), output)


@pytest.mark.parametrize("amp", [False, True])
def test_a_vision_transformer_teaches_a_convolutional_network(amp):
    student = CifarResNet(1, (4, 4, 4, 8), CLASSES)
    distiller = Distiller(
        student,
        timm_vit(),
        student_features={"feat": "pool", "map": "layer3"},
        teacher_features={"feat": ClsToken("norm"), "map": TokenMap("norm"), "mean": MeanTokens("norm", skip=1)},
        criteria={"rkd": losses.rkd(), "kd": losses.kd(), "at": losses.attention_transfer(size=4)},
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        step = check(distiller, images(student))
    assert step.loss.dtype == torch.float32
    assert step.teacher_features["map"].shape == (N, 16, 4, 4)
    torch.testing.assert_close(
        step.teacher_features["mean"], step.teacher_features["map"].float().mean((2, 3)), atol=0.01, rtol=0.01
    )


def test_text_distils_by_dictionaries_with_means_that_leave_out_padding():
    student, teacher = bert(), bert()
    mean = {"feat": MeanTokens("bert.encoder", mask=":input.attention_mask")}
    with pytest.raises(ValueError, match="from 'bert.encoder'|needs tokens|'last_hidden_state'"):
        FeatureExtractor(student, {"feat": "bert.encoder"}).run(text())
    mean = {"feat": MeanTokens("bert.encoder:output.last_hidden_state", mask=":input.attention_mask")}
    criteria = {"rkd": losses.rkd(), "otgd": losses.otgd(embed_dim=4, k=2), "kd": losses.kd()}
    distiller = Distiller(student, teacher, student_features=mean, teacher_features=mean, criteria=criteria)
    inputs = text()
    step = check(distiller, inputs)
    student.eval()
    first = {name: x[:1, :3] for name, x in inputs.items()}
    alone = FeatureExtractor(student, mean).run(first).features["feat"]
    whole = FeatureExtractor(student, mean).run(inputs).features["feat"]
    torch.testing.assert_close(alone, whole[:1], atol=1e-5, rtol=1e-4)
    assert step.output.logits.shape == (N, CLASSES)


def test_text_models_are_outlined_with_and_without_a_head():
    inputs = text()
    assert outline_of(bert(), inputs).features == {
        "feat": "classifier:input",
        "tokens": "bert.encoder.layer.1",
        "logits": "logits",
    }
    without = outline_of(bert("BertModel"), inputs).features
    assert without == {"feat": ":output.pooler_output", "tokens": "encoder.layer.1"}


def test_examples_are_guessed_for_models_that_say_what_they_take():
    assert example_inputs(transformers_vit())["pixel_values"].shape == (2, 3, 32, 32)
    assert example_inputs(bert())["input_ids"].shape == (2, 16)
    assert example_inputs(timm_swin()).shape == (2, 3, 32, 32)


def test_batches_that_a_loader_gives_as_dictionaries_are_inputs_without_their_labels():
    rows = [{**{name: x[i] for name, x in text().items()}, "labels": LABELS[i]} for i in range(N)]
    distiller = Distiller(bert(), bert(), criteria={"kd": losses.kd()})
    for batch in DataLoader(rows, batch_size=3):
        labels = batch.pop("labels")
        assert distiller(batch, labels).loss.isfinite()


class OnGraph(nn.Module):
    """A graph network with its graph, so that it takes rows."""

    def __init__(self, network, edge_index):
        super().__init__()
        self.network = network
        self.register_buffer("edge_index", edge_index)

    def forward(self, x):
        return self.network(x, self.edge_index)


@pytest.mark.parametrize("network", [GCN, GAT])
def test_a_graph_network_teaches_one_that_needs_no_graph(network):
    edges = torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 0, 3]])
    student = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    own_edges = losses.otgd(embed_dim=4)
    own_edges.student.build = own_edges.teacher.build = GivenEdges(edges)
    distiller = Distiller(
        student,
        OnGraph(network(5, 6, 2, CLASSES), edges),
        student_features={"feat": "2:input"},
        teacher_features={"feat": "network.convs.1:input"},
        criteria={"otgd": own_edges, "rkd": losses.rkd(), "kd": losses.kd()},
    )
    step = check(distiller, torch.randn(N, 5))
    assert all(torch.equal(graph.edge_index, edges) for graph in step.comparisons["otgd/g"].graphs)
