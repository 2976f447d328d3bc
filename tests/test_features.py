"""The feature extractor: what it returns, what it refuses, and that it leaves nothing behind."""

import copy
import gc
import io
import weakref
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from graphkd.features import FeatureExtractor, classes_of, logits_in, model_logits, pick, vectors


class Split(nn.Module):
    def forward(self, x):
        return x[:, :2], x[:, 2:]


class Residual(nn.Module):
    """A model with a part of each awkward kind."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.block = nn.Sequential(OrderedDict(linear=nn.Linear(4, 4), act=nn.ReLU(inplace=True)))
        self.shared = nn.Linear(4, 4)
        self.split = Split()
        self.unused = nn.Linear(4, 4)
        self.head = nn.Linear(2, 5)

    def forward(self, x, shift=0.0, fail=False):
        x = self.block(self.stem(x + shift))
        if fail:
            raise RuntimeError("inside the model")
        left, _ = self.split(self.shared(self.shared(x)))
        return self.head(left)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Residual()


@pytest.fixture
def x():
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def hooks_on(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def logits_of(output):
    return output.logits


def first_token(output):
    return output.hidden_states[-1][:, 0]


def test_paths_give_a_modules_output_or_its_first_input(model, x):
    extract = FeatureExtractor(
        model, {"stem": "stem", "same": "stem:output", "before": "head:input", "in": "stem:input"}
    )
    output, features = extract(x)
    torch.testing.assert_close(output, model(x))
    torch.testing.assert_close(features["stem"], model.stem(x))
    torch.testing.assert_close(model.head(features["before"]), output)
    assert features["same"] is features["stem"]
    torch.testing.assert_close(features["in"], x)
    assert list(features) == ["stem", "same", "before", "in"]


def test_logits_are_the_models_own_output(model, x):
    output, features = FeatureExtractor(model, {"logits": "logits", "again": "logits"})(x)
    assert features["logits"] is features["again"] is output


def test_a_function_of_the_output_gives_a_feature(model, x):
    output, features = FeatureExtractor(model, {"double": lambda output: 2 * output, "stem": "stem"})(x)
    torch.testing.assert_close(features["double"], 2 * output)
    torch.testing.assert_close(features["stem"], model.stem(x))


def test_one_function_gives_all_features(model, x):
    output, features = FeatureExtractor(model, lambda output: {"logits": output, "half": output / 2})(x)
    assert features.keys() == {"logits", "half"}
    torch.testing.assert_close(features["half"], output / 2)


def test_an_empty_spec_gives_the_output_alone(model, x):
    output, features = FeatureExtractor(model, {})(x)
    torch.testing.assert_close(output, model(x))
    assert features == {}


def test_outputs_with_logits_are_read_as_transformers_write_them(x):
    class Transformer(nn.Module):
        def forward(self, x):
            return SimpleNamespace(logits=x.sum(-1, keepdim=True), hidden_states=(x[:, None], 2 * x[:, None]))

    _, features = FeatureExtractor(Transformer(), {"logits": "logits", "feat": first_token, "same": logits_of})(x)
    torch.testing.assert_close(features["logits"], x.sum(-1, keepdim=True))
    torch.testing.assert_close(features["feat"], 2 * x)
    assert features["same"] is features["logits"]


def test_arguments_pass_through(model, x):
    _, features = FeatureExtractor(model, {"in": "stem:input"})(x, shift=2.0)
    torch.testing.assert_close(features["in"], x + 2)


def test_a_wrong_path_is_refused_at_construction_with_near_names(model):
    with pytest.raises(ValueError, match=r"module of Residual, got 'blok.linear'; near names: .*block\.linear"):
        FeatureExtractor(model, {"feat": "blok.linear"})


@pytest.mark.parametrize("path", ["", "xyzzy"])
def test_a_path_like_no_other_is_answered_with_names_too(model, path):
    with pytest.raises(ValueError, match="needs the path of a module of Residual, got .* near names: .*stem"):
        FeatureExtractor(model, {"feat": path})


def test_an_unknown_end_is_refused_at_construction(model):
    with pytest.raises(ValueError, match="needs ':input' or ':output' after a module path, got 'stem:grad'"):
        FeatureExtractor(model, {"feat": "stem:grad"})


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("unused", "'feat' needs a module that runs once per forward, got 0 runs of 'unused'"),
        ("shared", "'feat' needs a module that runs once per forward, got 2 runs of 'shared'"),
        ("split", "'feat' needs a tensor, got tuple from 'split': name a module inside it"),
        ("block.linear", "'feat': what 'block.linear' gave was overwritten in place"),
        ("block.act:input", "'feat': what 'block.act:input' gave was overwritten in place"),
    ],
    ids=["unused", "twice", "tuple", "overwritten output", "overwritten input"],
)
@pytest.mark.parametrize("autograd", [True, False])
def test_a_module_that_gives_no_sound_feature_is_refused(model, x, path, match, autograd):
    extract = FeatureExtractor(model, {"feat": path})
    with torch.set_grad_enabled(autograd), pytest.raises(ValueError, match=match):
        extract(x)
    assert hooks_on(model) == 0


def test_the_inplace_activation_itself_is_a_sound_feature(model, x):
    _, features = FeatureExtractor(model, {"feat": "block.act"})(x)
    torch.testing.assert_close(features["feat"], model.block(model.stem(x)))


def test_what_is_no_tensor_is_refused(model, x):
    with pytest.raises(ValueError, match="'pair' needs a tensor, got tuple from its function"):
        FeatureExtractor(model, {"pair": lambda output: (output, output)})(x)
    with pytest.raises(ValueError, match="'pair' needs a tensor, got list from the function"):
        FeatureExtractor(model, lambda output: {"pair": [output]})(x)
    with pytest.raises(ValueError, match="returns features by name, got Tensor"):
        FeatureExtractor(model, lambda output: output)(x)


def test_logits_are_found_in_what_a_model_returns():
    logits = torch.zeros(2, 3)
    for output in (logits, SimpleNamespace(logits=logits), {"logits": logits, "feat": None}):
        assert model_logits(output) is logits
    for output in ({"feat": logits}, SimpleNamespace(logits=None), {"logits": None}, (logits,), None):
        assert logits_in(output) is None


def test_an_output_without_logits_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"got tuple: name a function of the output as the feature 'logits'"):
        model_logits((torch.zeros(2, 3), torch.zeros(2, 3)))


def test_hooks_are_in_place_only_while_the_model_runs(model, x):
    seen = []
    model.head.register_forward_pre_hook(lambda module, args: seen.append(hooks_on(model)))
    extract = FeatureExtractor(model, {"a": "stem", "b": "head:input"})
    assert hooks_on(model) == 1
    extract(x)
    assert seen == [3]
    assert hooks_on(model) == 1


def test_hooks_are_gone_after_an_exception_inside_the_model(model, x):
    extract = FeatureExtractor(model, {"a": "stem", "b": "head:input"})
    with pytest.raises(RuntimeError, match="inside the model"):
        extract(x, fail=True)
    assert hooks_on(model) == 0
    assert extract(x).features.keys() == {"a", "b"}


def test_no_activation_outlives_the_call_that_made_it(model, x):
    extract = FeatureExtractor(model, {"feat": "stem"})
    kept = weakref.ref(extract(x).features["feat"])
    gc.collect()
    assert kept() is None


def test_features_after_eval_are_those_of_the_latest_call(x):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))
    extract = FeatureExtractor(model, {"feat": "1"})
    trained = extract(x).features["feat"]
    model.eval()
    with torch.no_grad():
        tested = extract(x + 1).features["feat"]
    torch.testing.assert_close(tested, model[0](x + 1).detach())
    assert not tested.requires_grad
    assert trained.requires_grad


def test_two_calls_in_one_step_give_independent_features(model, x):
    extract = FeatureExtractor(model, {"feat": "stem"})
    first, second = x.clone().requires_grad_(), (x + 1).requires_grad_()
    a, b = extract(first).features["feat"], extract(second).features["feat"]
    torch.testing.assert_close(a, model.stem(first))
    torch.testing.assert_close(b, model.stem(second))
    a.sum().backward()
    assert second.grad is None
    torch.testing.assert_close(first.grad, model.stem.weight.sum(0).expand(6, 3))
    b.sum().backward()
    torch.testing.assert_close(second.grad, first.grad)


def test_a_used_model_can_be_copied_and_saved(model, x):
    extract = FeatureExtractor(model, {"feat": "stem"})
    expected = extract(x).features["feat"]
    file = io.BytesIO()
    torch.save(model, file)
    assert b"graphkd" not in file.getvalue()
    file.seek(0)
    for copied in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        torch.testing.assert_close(FeatureExtractor(copied, {"feat": "stem"})(x).features["feat"], expected)
        assert hooks_on(copied) == 0


def test_a_copied_extractor_runs_its_own_model(model, x):
    extract = FeatureExtractor(model, {"feat": "stem"})
    expected = extract(x).features["feat"]
    copied = copy.deepcopy(extract)
    nn.init.zeros_(copied.model.stem.weight)
    torch.testing.assert_close(extract(x).features["feat"], expected)
    torch.testing.assert_close(copied(x).features["feat"], copied.model.stem.bias.expand(6, 4))


def test_a_mapping_given_as_spec_may_change_later(model, x):
    spec = {"feat": "stem"}
    extract = FeatureExtractor(model, spec)
    spec["more"] = "head"
    assert extract(x).features.keys() == {"feat"}


def test_repr_names_the_model_and_the_features(model):
    assert repr(FeatureExtractor(model, {"feat": "stem"})) == "FeatureExtractor(Residual, {'feat': 'stem'})"


@pytest.fixture
def compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("path", ["0", "_orig_mod.0", "1:input"])
def test_a_path_inside_a_compiled_model_is_refused_with_the_reason(compiler, path):
    compiled = torch.compile(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), backend="eager")
    with pytest.raises(ValueError, match=r"the model was compiled by torch\.compile.*without hooks"):
        FeatureExtractor(compiled, {"feat": path})


def test_a_path_inside_a_model_compiled_in_place_is_refused(compiler):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    model.compile(backend="eager")
    with pytest.raises(ValueError, match=r"the model was compiled by torch\.compile"):
        FeatureExtractor(model, {"feat": "0"})


def test_a_path_inside_a_compiled_part_is_refused_and_the_part_itself_is_not(compiler, x):
    part = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    model = nn.Sequential(OrderedDict(part=torch.compile(part, backend="eager"), head=nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=r"cannot see 'part.0': part was compiled by torch\.compile"):
        FeatureExtractor(model, {"feat": "part.0"})
    torch.testing.assert_close(FeatureExtractor(model, {"feat": "part"})(x).features["feat"], part(x))


def test_a_compiled_model_gives_its_output_and_functions_of_it(compiler, x):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    extract = FeatureExtractor(torch.compile(model, backend="eager"), {"logits": "logits", "sum": torch.sum})
    _, features = extract(x)
    torch.testing.assert_close(features["logits"], model(x))
    torch.testing.assert_close(features["sum"], model(x).sum())
    assert features["logits"].requires_grad


def test_pick_names_what_is_missing_and_what_is_there():
    with pytest.raises(KeyError, match=r"needs a feature named 'map', got \['feat', 'logits'\]"):
        pick({"logits": torch.zeros(1), "feat": torch.zeros(1)}, "map")


def test_vectors_drop_empty_axes_only():
    assert vectors({"feat": torch.zeros(2, 5, 1, 1)}, "feat").shape == (2, 5)
    assert vectors({"feat": torch.zeros(2, 5)}, "feat").shape == (2, 5)
    for shape in [(2, 5, 2, 2), (2, 5, 1, 3), (2,), ()]:
        with pytest.raises(ValueError, match=r"'feat' needs one vector per sample, shape \(n, d\), got"):
            vectors({"feat": torch.zeros(shape)}, "feat")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_vectors_refuse_integers(dtype):
    with pytest.raises(ValueError, match=f"'feat' needs floating-point values, got {dtype}"):
        vectors({"feat": torch.ones(2, 5, dtype=dtype)}, "feat")


def test_classes_are_those_of_hard_or_soft_labels_or_unknown():
    logits = torch.zeros(3, 4)
    soft = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1.0, 0, 0, 0], [0, 0.6, 0.4, 0]])
    assert classes_of({"labels": torch.tensor([3, -100, 0])}, logits).tolist() == [3, -100, 0]
    assert classes_of({"labels": soft}, logits).tolist() == [3, 0, 1]
    assert classes_of({"logits": logits}, logits).tolist() == [-100, -100, -100]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 4]), "numbers from 0 to 3, or -100 for none, got 4"),
        (torch.tensor([0, 1]), "one integer per sample"),
        (torch.rand(3, 5), r"soft labels need the shape of the logits, \(3, 4\), got \(3, 5\)"),
        (torch.rand(3), r"soft labels need the shape of the logits, \(3, 4\), got \(3,\)"),
    ],
)
def test_labels_that_are_no_class_of_the_logits_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        classes_of({"labels": labels}, torch.zeros(3, 4))
