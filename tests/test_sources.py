"""Sources: parts of what modules return and are given, and what is refused."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn

from graphkd.features import FeatureExtractor
from graphkd.sources import Derived, keys_of, parse, part


class Pair(NamedTuple):
    first: torch.Tensor
    second: dict


class Inner(nn.Module):
    def forward(self, x, *, mask=None, scale=2.0):
        return Pair(x * scale, {"masked": [x, x if mask is None else x * mask]})


class Outer(nn.Module):
    """Passes by name, returns a mapping."""

    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.output = nn.Linear(3, 2)

    def forward(self, x, mask=None, **more):
        pair = self.inner(mask=mask, x=x)
        return OrderedDict(scores=self.output(pair.first), hidden=(pair.first, pair.second["masked"][1]))


@pytest.fixture
def model():
    return Outer()


X, MASK = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("inner:output.0", 2 * X),
        ("inner:output.first", 2 * X),
        ("inner:output.second.masked.1", X * MASK),
        ("inner:output.-1.masked.0", X),
        ("inner:input.mask", MASK),
        ("inner:input.x", X),
        ("inner:input", MASK),
        ("output:input", 2 * X),
        (":output.hidden.0", 2 * X),
        (":output.hidden.-1", X * MASK),
        (":input", X),
        (":input.0", X),
        (":input.x", X),
        (":input.mask", MASK),
    ],
)
@pytest.mark.parametrize("positional", [True, False])
def test_a_part_of_what_a_module_returns_or_is_given_is_a_feature(model, text, expected, positional):
    extract = FeatureExtractor(model, {"part": text})
    features = (extract(X, MASK) if positional else extract(x=X, mask=MASK)).features
    torch.testing.assert_close(features["part"], expected)


def test_inputs_that_forward_takes_by_any_name_are_found(model):
    assert FeatureExtractor(model, {"part": ":input.extra"})(X, extra=MASK).features["part"] is MASK


def test_the_whole_output_of_a_model_is_a_feature():
    model = nn.Linear(3, 2)
    output, features = FeatureExtractor(model, {"feat": ":output"})(X)
    assert features["feat"] is output


def test_the_models_own_output_is_not_its_module_of_that_name(model):
    features = FeatureExtractor(model, {"module": "output", "own": ":output.scores"})(X).features
    assert features["module"] is features["own"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner:output.third", "a part named 'third' for 'inner:output.third', got Pair with parts first, second"),
        ("inner:output.2", "a part named '2' .* got Pair with parts first, second"),
        ("inner:output.second.none", "a part named 'none' .* got dict with parts masked"),
        ("inner:output.first.0", "a part named '0' .* got Tensor with parts none"),
        ("inner:output.first.mean", "a part named 'mean' .* got Tensor"),
        (":output.logits", "a part named 'logits' .* got OrderedDict with parts scores, hidden"),
        (":output.hidden.-3", "a part named '-3' .* got tuple with parts 0, 1"),
        (":input.attention_mask", "a part named 'attention_mask' .* with parts x, mask"),
        (":input.7", "a part named '7' .* with parts 0, 1"),
        ("inner", r"'feat' needs a tensor, got Pair from 'inner': name .* such as 'inner:output.first', or a function"),
        (":output.hidden", "got tuple from ':output.hidden': name .* such as ':output.hidden.0'"),
    ],
)
def test_a_part_that_is_not_there_or_no_tensor_is_refused_with_those_that_are(model, text, message):
    with pytest.raises(ValueError, match=message):
        FeatureExtractor(model, {"feat": text})(X, MASK)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("text", ["inner:out", ":", "inner:", "inner:output.", ":input..x", "inner:outputs.0"])
def test_a_source_that_is_badly_written_is_refused_at_construction(model, text):
    with pytest.raises(ValueError, match=f"needs ':input' or ':output' after a module path, got '{text}'"):
        parse(model, text)


def test_a_wrong_path_is_answered_with_the_command_that_lists_all(model):
    with pytest.raises(ValueError, match="near names: inner.* `graphkd features` lists all"):
        parse(model, "iner:output.0")


def test_what_a_model_overwrites_of_its_input_is_refused():
    model = nn.Sequential(nn.ReLU(inplace=True))
    with pytest.raises(ValueError, match="what ':input' gave was overwritten in place"):
        FeatureExtractor(model, {"feat": ":input"})(torch.randn(3))


def test_a_compiled_models_own_ends_are_seen():
    torch.compiler.reset()
    model = torch.compile(nn.Linear(3, 2), backend="eager")
    output, features = FeatureExtractor(model, {"in": ":input", "named": ":input.input", "out": ":output"})(X)
    assert features["in"] is features["named"] is X
    assert features["out"] is output
    torch.compiler.reset()


@dataclass(frozen=True)
class Sum(Derived):
    sources: tuple[str, ...] = ("inner:output.0", "logits")

    def __call__(self, *found):
        return found[0].sum() + found[1].sum()


def test_a_derived_feature_is_made_of_several_sources_and_of_the_logits():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, x):
            return {"logits": self.inner(x).first + 1}

    features = FeatureExtractor(Model(), {"feat": Sum(), "logits": "logits"})(X).features
    torch.testing.assert_close(features["feat"], 2 * X.sum() + (2 * X + 1).sum())
    torch.testing.assert_close(features["logits"], 2 * X + 1)


def test_a_derived_features_sources_are_checked_at_construction(model):
    with pytest.raises(ValueError, match="needs the path of a module of Outer, got 'nowhere'"):
        FeatureExtractor(model, {"feat": Sum(("nowhere",))})


def test_what_a_derived_feature_refuses_names_the_feature(model):
    class Refusing(Derived):
        sources = ("inner:output.0",)

        def __call__(self, *found):
            raise ValueError("needs something else")

    with pytest.raises(ValueError, match="feature 'tokens': needs something else"):
        FeatureExtractor(model, {"tokens": Refusing()})(X)


def test_parts_of_objects_are_their_attributes():
    class Thing:
        def __init__(self):
            self.a = {"b": [5, 6]}

    assert part("text", Thing(), ["a", "b", "-2"]) == 5
    assert keys_of(Thing()) == ["a"]
    assert keys_of("text") == keys_of(torch.zeros(2)) == []
