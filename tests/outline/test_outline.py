"""The outline of a model: what it lists and suggests, and that it leaves the model as it is."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch_geometric.nn import GAT, GCN

from graphkd.adaptors import ChannelsFirst, MeanMap, MeanTokens, TokenMap
from graphkd.cli import main
from graphkd.features import FeatureExtractor
from graphkd.models import SmallCNN
from graphkd.outline import example_inputs, example_text, outline_of


def suggested(model, inputs):
    """What is suggested, after a look that extraction gives what was said."""
    outline = outline_of(model, inputs)
    found = FeatureExtractor(model.eval(), outline.features).run(inputs).features
    assert {name: tuple(x.shape) for name, x in found.items()} == outline.shapes
    return outline.features


def hooks_on(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


class Part(nn.Module):
    """A layer, and what is done with it without a module."""

    def __init__(self, run, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.run = run

    def forward(self, x, **more):
        return self.run(self, x, **more)


def conv(c=4, stride=2):
    return nn.Conv2d(3, c, 3, stride, padding=1)


IMAGES, ROWS, TEXT = torch.randn(2, 3, 16, 16), torch.randn(5, 3), torch.randn(2, 7, 3)


def test_a_small_network_is_listed_with_shapes_and_marks():
    outline = outline_of(SmallCNN(2), torch.randn(4, 1, 8, 8))
    rows = {row.path: row for row in outline.rows}
    assert list(rows)[:3] == ["body", "body.0", "body.0.0"]
    assert rows["body"][1:] == ("Sequential", "(4, 8, 4, 4)", "<- map")
    assert rows["pool"].shape == "(4, 8)"
    assert rows["fc"].note == "<- feat is its input"
    assert outline.features == {"feat": "fc:input", "map": "body", "logits": "logits"}
    assert outline.maps == ["body.0", "body"]
    printed = str(outline).splitlines()
    assert printed[:2] == ["input   (4, 1, 8, 8)", "output  (4, 10)"]
    assert "  feat    'fc:input'  (4, 8)" in printed
    assert printed[-1] == "maps of each size: 'body.0', 'body'"


def test_a_table_of_few_levels_keeps_what_is_suggested():
    model = nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(3, 4)), nn.Linear(4, 2)))
    text = outline_of(model, ROWS).table(depth=1)
    assert [line.split()[0] for line in text.splitlines()[4:6]] == ["0", "0.1"]
    assert "and 2 modules further down" in text
    assert "further down" not in outline_of(model, ROWS).table()


def test_flaws_are_named():
    shared = nn.Linear(3, 3)
    model = Part(
        lambda self, x: self.head(self.act(self.first(self.shared(self.shared(x))))),
        shared=shared,
        first=nn.Linear(3, 4),
        act=nn.ReLU(inplace=True),
        head=nn.Linear(4, 2),
        idle=nn.Linear(1, 1),
        more=nn.ModuleList([nn.Tanh()]),
    )
    notes = {row.path: row.note for row in outline_of(model, ROWS).rows}
    assert notes == {
        "shared": "runs 2 times",
        "first": "overwritten in place",
        "act": "",
        "head": "<- feat is its input",
        "idle": "not called",
        "more.0": "not called",
    }


HEADS = {
    "linear": (lambda self, x: self.head(x), nn.Linear(3, 2), "head:input"),
    "log-softmax": (lambda self, x: self.head(x).log_softmax(-1), nn.Linear(3, 2), "head:input"),
    "one token": (
        lambda self, x: self.head(x[:, None].repeat(1, 3, 1))[:, 0],
        nn.Linear(3, 2),
        MeanTokens("head:input"),
    ),
    "each token": (
        lambda self, x: self.head(x[:, None].repeat(1, 3, 1)).sum(1),
        nn.Linear(3, 2),
        MeanTokens("head:input"),
    ),
    "convolution": (lambda self, x: self.head(x[..., None, None]).flatten(1), nn.Conv2d(3, 2, 1), "head:input"),
    "wrapped": (lambda self, x: self.head(x), nn.Sequential(nn.Dropout(), nn.Linear(3, 2)), "head.1:input"),
    "none": (lambda self, x: self.head(x), nn.Tanh(), ":output"),
}


@pytest.mark.parametrize(("run", "head", "expected"), HEADS.values(), ids=HEADS)
def test_feat_is_what_the_last_layer_is_given(run, head, expected):
    assert suggested(Part(run, head=head), ROWS)["feat"] == expected


def test_a_head_that_is_given_maps_wants_them_averaged():
    model = Part(lambda self, x: self.head(self.stem(x)), stem=conv(), head=nn.Conv2d(4, 2, 1))
    assert suggested(model, IMAGES)["feat"] == MeanMap("head:input")


def test_a_model_that_returns_features_is_its_own_feat():
    assert suggested(Part(lambda self, x: self.stem(x).mean((2, 3)), stem=conv()), IMAGES)["feat"] == ":output"
    assert suggested(conv_only := Part(lambda self, x: self.act(self.stem(x)), stem=conv(), act=nn.Tanh()), IMAGES)[
        "feat"
    ] == MeanMap(":output")
    assert suggested(conv_only, IMAGES)["map"] == "stem"


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda self, x: {"scores": self.head(x), "hidden": x}, {"feat": "head:input", "logits": ":output.scores"}),
        (lambda self, x: (x, self.head(x)), {"feat": "head:input", "logits": ":output.1"}),
        (lambda self, x: {"logits": self.head(x), "x": x}, {"feat": "head:input", "logits": "logits"}),
        (lambda self, x: SimpleNamespace(logits=self.head(x)), {"feat": "head:input", "logits": "logits"}),
        (lambda self, x: {"rows": x.tanh(), "pooler_output": self.head(x).tanh()}, {"feat": ":output.pooler_output"}),
        (lambda self, x: {"number": x.sum(), "rows": self.head(x).tanh()}, {"feat": ":output.rows"}),
    ],
)
def test_odd_outputs_are_looked_into(run, expected):
    assert suggested(Part(run, head=nn.Linear(3, 2)), ROWS) == expected


def test_tokens_are_the_last_sequence_before_the_head_and_masks_are_used():
    model = Part(
        lambda self, x, attention_mask: self.head(self.norm(self.block(x))),
        block=nn.Linear(3, 4),
        norm=nn.LayerNorm(4),
        head=nn.Linear(4, 9),
    )
    inputs = {"x": TEXT, "attention_mask": torch.ones(2, 7)}
    pooled = MeanTokens("head:input", ":input.attention_mask")
    assert suggested(model, inputs) == {"feat": pooled, "tokens": "norm", "logits": "logits"}


@pytest.mark.parametrize(("extra", "expected"), [(0, 0), (1, 1), (5, 5)])
def test_patches_are_a_map_behind_a_few_tokens(extra, expected):
    def run(self, x):
        patches = self.patch(x).flatten(2).mT
        return self.head(self.norm(torch.cat([torch.zeros(2, extra, 4), patches], 1)).mean(1))

    model = Part(run, patch=nn.Conv2d(3, 4, 4, 4), norm=nn.LayerNorm(4), head=nn.Linear(4, 2))
    features = suggested(model, IMAGES)
    assert features["tokens"] == "norm"
    assert features["map"] == TokenMap("norm", expected)


def test_maps_with_channels_last_are_turned():
    def run(self, x):
        return self.head(self.stage(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))

    model = Part(run, stem=conv(), stage=nn.Linear(4, 40), head=nn.Linear(40, 2))
    assert suggested(model, IMAGES)["map"] == ChannelsFirst("stage")
    wide = torch.randn(2, 3, 8, 16)
    assert suggested(model, wide)["map"] == ChannelsFirst("stage")
    assert suggested(Part(lambda self, x: self.stem(x), stem=conv()), wide)["map"] == "stem"


def test_of_each_size_the_stage_with_the_most_parameters_is_the_map():
    model = Part(
        lambda self, x: self.head(self.two(self.norm(self.one(self.stem(x)))).mean((2, 3))),
        stem=conv(),
        one=nn.Conv2d(4, 4, 3, padding=1),
        norm=nn.BatchNorm2d(4),
        two=nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 5, 1)),
        head=nn.Linear(5, 2),
    )
    assert outline_of(model, IMAGES).maps == ["one", "two"]
    assert suggested(model, IMAGES)["map"] == "two"


@pytest.mark.parametrize("network", [GCN, GAT])
def test_a_graph_network_gives_what_its_last_convolution_is_given(network):
    inputs = (torch.randn(4, 5), torch.tensor([[0, 1, 2], [1, 2, 0]]))
    assert suggested(network(5, 8, 2, 3), inputs) == {"feat": "convs.1:input", "logits": "logits"}


def test_the_model_is_left_as_it_is():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[2].eval()
    noisy = Part(lambda self, x: self.inner(x + torch.rand_like(x)), inner=model)
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append((model[1].training, torch.is_grad_enabled())))
    before = {name: x.clone() for name, x in noisy.state_dict().items()}
    state = torch.get_rng_state()
    outline_of(noisy, ROWS)
    assert seen == [(False, False)]
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model] == [True, True, False, True]
    assert hooks_on(noisy) == 1
    assert all(torch.equal(x, before[name]) for name, x in noisy.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in noisy.parameters())


def test_the_model_is_left_as_it_is_where_it_fails():
    model = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(RuntimeError):
        outline_of(model, torch.zeros(2, 9))
    assert hooks_on(model) == 0
    assert model.training


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (nn.LazyLinear(3), ROWS, "has seen its first batch"),
        (nn.Linear(3, 2), ["text"], "needs inputs with a tensor, got list"),
        (torch.compile(nn.Linear(3, 2), backend="eager"), ROWS, r"from before torch\.compile"),
    ],
)
def test_what_cannot_be_outlined_is_refused(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        outline_of(model, inputs)


def test_examples_are_guessed_from_what_a_model_says_or_its_first_layer():
    assert example_inputs(nn.Sequential(nn.Tanh(), nn.Linear(5, 2))).shape == (2, 5)
    assert example_inputs(SmallCNN(2, in_channels=3)).shape == (2, 3, 224, 224)
    assert example_inputs(nn.Sequential(nn.Conv2d(1, 2, 5), nn.Flatten(), nn.Linear(2 * 24 * 24, 3))).shape == (
        2,
        1,
        28,
        28,
    )
    assert example_inputs(nn.Embedding(9, 2)).shape == (2, 16)
    told = nn.Conv2d(3, 4, 3)
    told.pretrained_cfg = {"input_size": (3, 9, 7)}
    assert example_inputs(told).shape == (2, 3, 9, 7)


def test_text_comes_by_name_for_models_of_transformers():
    model = nn.Embedding(9, 2)
    model.main_input_name = "input_ids"
    assert {name: tuple(x.shape) for name, x in example_text(model, 4).items()} == {
        "input_ids": (2, 4),
        "attention_mask": (2, 4),
    }


@pytest.mark.parametrize("model", [nn.Tanh(), Part(lambda self, x, y: x, layer=nn.Linear(3, 2))])
def test_what_cannot_be_guessed_is_asked_for(model):
    with pytest.raises(ValueError, match=f"needs an example of what {type(model).__name__} takes, and could not guess"):
        example_inputs(model)


def test_the_command_lists_a_model_built_from_its_import_path(capsys):
    assert (
        main(["features", "graphkd.models.SmallCNN", "--model.width", "3", "--input", "4,1,8,8", "--depth", "1"]) == 0
    )
    printed = capsys.readouterr().out
    assert "  feat    'fc:input'  (4, 12)" in printed
    assert "modules further down" in printed
    assert main(["features", "graphkd.models.SmallCNN", "--input", "4,1,8,8"]) == 0
    assert "body.0.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "4,x"], "input needs sizes above 0 with commas between, such as 2,3,32,32, got '4,x'"),
        (["--input", "0"], "input needs sizes above 0"),
        (["--input", "2,1", "--tokens", "4"], "needs either an input or tokens, got input 2,1 and tokens 4"),
        (["--tokens", "0"], "tokens needs an integer of at least 1, got 0"),
        (["--depth", "0"], "depth needs an integer of at least 1, got 0"),
    ],
)
def test_a_mistake_is_one_line(capsys, options, message):
    assert main(["features", "graphkd.models.SmallCNN", *options]) == 2
    assert f"graphkd: error: {message}" in capsys.readouterr().err


def test_an_input_that_the_model_does_not_take_is_one_line(capsys):
    assert main(["features", "graphkd.models.SmallCNN", "--input", "2,3"]) == 2
    error = capsys.readouterr().err
    assert "graphkd: error: SmallCNN does not take inputs of shape 2,3" in error
