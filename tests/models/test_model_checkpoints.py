import argparse
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from graphkd.models import CifarResNet, load_weights


def network(num_classes: int = 3) -> CifarResNet:
    return CifarResNet(1, (2, 2, 4, 4), num_classes)


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict unlike that of a new network, with counters of batches."""
    torch.manual_seed(seed)
    return {
        name: torch.randn_like(value) if value.is_floating_point() else torch.tensor(17)
        for name, value in network().state_dict().items()
    }


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + name: value for name, value in state.items()}


SGD = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9).state_dict()
LAYOUTS = {
    "RepDistiller": lambda state: {"epoch": 240, "model": state, "accuracy": torch.tensor(79.4), "optimizer": SGD},
    "mdistiller, student_best": lambda state: {"model": state},
    "torchvision": lambda state: {"model": state, "optimizer": SGD, "lr_scheduler": {"last_epoch": 3}, "epoch": 3},
    "timm": lambda state: {"epoch": 9, "arch": "resnet8", "state_dict": state, "version": 2, "metric": 71.5},
    "data parallel": lambda state: {"state_dict": prefixed("module.", state)},
    "Lightning": lambda state: {
        "state_dict": prefixed("model.", state),
        "callbacks": {},
        "optimizer_states": [SGD],
        "hyper_parameters": {"lr": 0.1},
        "pytorch-lightning_version": "2.6.0",
    },
    "compiled, in a module": lambda state: {"state_dict": prefixed("net._orig_mod.", state)},
    "plain": lambda state: state,
    "plain, with versions": lambda state: OrderedDict(state),
    "plain, data parallel": lambda state: prefixed("module.", state),
}


def same(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in own)


def refused(tmp_path: Path, content: object, match: str, model: nn.Module | None = None) -> None:
    """Loading the content raises a ValueError that matches and names the file, and changes nothing."""
    file = tmp_path / "weights.pth"
    torch.save(content, file)
    model = network() if model is None else model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=match) as caught:
        load_weights(model, file)
    assert str(caught.value).startswith(f"{file} needs ")
    assert same(model, before)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before PyTorch 1.6"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_read(tmp_path, layout, zipped):
    state, model = weights(), network()
    torch.save(LAYOUTS[layout](state), tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    load_weights(model, tmp_path / "a.pth")
    assert same(model, state)


def test_a_path_may_be_a_word(tmp_path):
    state, model = weights(), network()
    torch.save(state, tmp_path / "a.pth")
    load_weights(model, str(tmp_path / "a.pth"))
    assert same(model, state)


def test_files_without_counters_leave_those_of_the_model(tmp_path):
    state, model = weights(), network()
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    torch.save({"model": {name: state[name] for name in state.keys() - counters}}, tmp_path / "old.pth")
    for name in counters:
        model.get_buffer(name).fill_(5)
    load_weights(model, tmp_path / "old.pth")
    assert same(model, state | {name: torch.tensor(5) for name in counters})


def test_one_counter_that_is_missing_among_others_is_an_error(tmp_path):
    state = weights()
    del state["bn1.num_batches_tracked"]
    refused(tmp_path, state, r"missing: bn1\.num_batches_tracked$")


def test_names_that_the_model_has_as_well_are_kept(tmp_path):
    wrapped, other = nn.Sequential(network()), weights()
    torch.save(prefixed("module.0.", other), tmp_path / "a.pth")
    load_weights(wrapped, tmp_path / "a.pth")
    assert same(wrapped, prefixed("0.", other))


def test_weights_for_a_part_of_the_model_are_refused(tmp_path):
    refused(tmp_path, weights(), r"missing: 0\.conv1\.weight, .*; not of the model: conv1", nn.Sequential(network()))


def test_half_precision_becomes_the_model_s(tmp_path):
    state, model = weights(), network()
    torch.save(
        {name: value.half() if value.is_floating_point() else value for name, value in state.items()}, tmp_path / "a"
    )
    load_weights(model, tmp_path / "a")
    assert model.fc.weight.dtype == torch.float32
    torch.testing.assert_close(model.fc.weight.detach(), state["fc.weight"], rtol=1e-3, atol=1e-3)


def test_missing_and_unknown_names_are_told_from_both_sides(tmp_path):
    state = weights()
    state["head.weight"], state["head.bias"] = state.pop("fc.weight"), state.pop("fc.bias")
    tensors = len(state)
    refused(
        tmp_path,
        {"model": prefixed("module.", state)},
        rf"the weights of this CifarResNet, got {tensors} tensors under 'model', with names that begin with "
        r"module\.conv1, module\.bn1, module\.layer1 and 3 more; missing: fc\.weight, fc\.bias; "
        r"not of the model: module\.head\.weight, module\.head\.bias$",
    )


def test_only_the_first_few_names_are_told(tmp_path):
    refused(tmp_path, {"fc.weight": torch.zeros(3, 4)}, r"missing: conv1\.weight, bn1\.weight, bn1\.bias and \d+ more")


def test_another_number_of_classes_is_told_with_both_shapes(tmp_path):
    refused(
        tmp_path,
        weights(),
        r"of another kind: fc\.weight \(3, 4\) float32 there, \(9, 4\) float32 here, fc\.bias \(3,\) float32 there, ",
        network(9),
    )


def test_integers_for_weights_are_refused(tmp_path):
    refused(
        tmp_path,
        weights() | {"fc.bias": torch.ones(3, dtype=torch.int8)},
        r"fc\.bias \(3,\) int8 there, \(3,\) float32",
    )


def test_the_states_of_mdistillers_student_and_teacher_together_are_refused(tmp_path):
    both = prefixed("module.student.", weights()) | prefixed("module.teacher.", weights())
    refused(tmp_path, {"epoch": 1, "model": both}, r"begin with module\.student, module\.teacher; missing")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"state_dict": weights(), "state_dict_ema": weights(1)}, "got several: state_dict, state_dict_ema. Keep one"),
        ({"epoch": 3, "optimizer": SGD}, "got a dict of epoch, optimizer"),
        ({"model": {}}, "got a dict of model"),
        ({}, "got a dict of nothing"),
        ({"fc.weight": 3}, "got a dict of fc.weight"),
        (torch.zeros(3), "got a Tensor"),
        ([torch.zeros(3)], "got a list"),
    ],
)
def test_what_is_not_one_state_dict_is_refused(tmp_path, content, match):
    refused(tmp_path, content, re.escape(match))


@pytest.mark.parametrize("zipped", [True, False])
def test_files_that_need_classes_are_refused_with_a_way_out(tmp_path, zipped):
    content = {"model": weights(), "opt": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "last.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"got a pickled argparse\.Namespace, .* keep its weights alone"):
        load_weights(network(), tmp_path / "last.pth")


def test_whole_models_are_refused(tmp_path):
    refused(tmp_path, network(), r"got a pickled graphkd\.models\.resnet\.CifarResNet")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 10, 0.5, 0.99])
def test_files_cut_short_are_refused(tmp_path, zipped, kept):
    torch.save({"model": weights()}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    content = (tmp_path / "a.pth").read_bytes()
    left = kept if isinstance(kept, int) else int(kept * len(content))
    (tmp_path / "a.pth").write_bytes(content[:left])
    model, before = network(), network().state_dict()
    model.load_state_dict(before)
    with pytest.raises(ValueError, match=rf"a\.pth needs a whole checkpoint of torch\.save, got {left} bytes"):
        load_weights(model, tmp_path / "a.pth")
    assert same(model, before)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
        b"corrupt\nfile\n.",
        b"\x80\x02}q\x00.",
        bytes(range(256)),
    ],
)
def test_other_files_are_refused_with_their_first_bytes(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"got {len(content)} bytes that begin with {content[:16]!r}")):
        load_weights(network(), tmp_path / "a.pth")


def test_a_corrupt_archive_is_refused(tmp_path):
    torch.save({"model": weights()}, tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    content[100:300] = bytes(200)
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pth needs a whole checkpoint of torch\.save"):
        load_weights(network(), tmp_path / "a.pth")


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_weights(network(), tmp_path / "none.pth")
