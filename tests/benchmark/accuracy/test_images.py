"""Settings with classes: what is trained, chosen and measured."""

import dataclasses
from functools import partial

import pytest
import torch

from graphkd.benchmark.accuracy import images
from graphkd.benchmark.accuracy.entries import ALONE, ENTRIES, METHOD, RATIOS
from graphkd.benchmark.accuracy.suites import SUITES, perceptron
from graphkd.models import SmallCNN

FEW = dataclasses.replace(SUITES["digits"]["labels10"], teacher=partial(SmallCNN, 6), epochs=2, teacher_epochs=3)
FLAT = dataclasses.replace(SUITES["digits"]["perceptron"], teacher=partial(SmallCNN, 6), epochs=1, teacher_epochs=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a teacher is that took a few epochs, for all settings."""
    found = tmp_path_factory.mktemp("few")
    teacher = FEW.prepare(found)
    assert 60 < teacher["score"] < 100
    assert teacher["parameters"] == sum(p.numel() for p in SmallCNN(6).parameters())
    return found


def test_a_teacher_is_trained_once(folder, monkeypatch):
    before = (folder / "teacher.pt").read_bytes()
    score = FEW.prepare(folder)["score"]
    assert (folder / "teacher.pt").read_bytes() == before
    assert score == FEW.prepare(folder)["score"]


def test_a_second_run_gives_the_same_numbers_and_another_seed_others(folder):
    entry, trial = ENTRIES["fgw"], {"ratio": 1.0}
    first = FEW.train(entry, trial, 0, folder, final=True)
    torch.manual_seed(5)
    assert FEW.train(entry, trial, 0, folder, final=True) == first
    assert FEW.train(entry, trial, 1, folder, final=True) != first
    assert 0 < first["score"] < 100 and 0 < first["agreement"] < 100 and 0 < first["calibration"] < 100
    assert first["parameters"] == sum(p.numel() for p in SmallCNN(4).parameters())


def test_settings_are_chosen_on_validation_images_and_reported_on_test_images(folder, monkeypatch):
    entry, trial = ENTRIES[ALONE], {}
    assert FEW.train(entry, trial, 0, folder, final=False).keys() == {"score"}
    wrong = torch.zeros(200, dtype=torch.int64)
    data = FEW.data
    spoilt = dataclasses.replace(FEW, data=lambda seed: _with_validation(data(seed), wrong))
    assert spoilt.train(entry, trial, 0, folder, final=True) == FEW.train(entry, trial, 0, folder, final=True)
    assert spoilt.train(entry, trial, 0, folder, final=False) != FEW.train(entry, trial, 0, folder, final=False)


def _with_validation(data, labels):
    data.validation = data.validation[0], labels
    return data


def test_the_rate_is_that_of_the_students_learning(folder):
    entry, trial = ENTRIES["kd"], {"temperature": 4.0}
    still = dataclasses.replace(FEW, rate=1e-9)
    assert still.train(entry, trial, 0, folder, final=True)["score"] < 30
    assert FEW.train(entry, trial, 0, folder, final=True)["score"] > 30


def test_the_flowers_of_students_are_not_the_teachers():
    place = SUITES["synthetic"]["flowers"]
    data = place.data(0)
    assert len(data.train[0]) == place.samples == 3000 and data.num_classes == 100
    images = torch.cat([part[0] for part in (data.train, data.validation, data.test)])
    assert len({image.numpy().tobytes() for image in images}) == 6000
    assert place.teacher_data().data_seed != 0


def test_the_ratio_sets_the_weight_of_the_method_and_no_other(folder):
    entry = ENTRIES["fgw_kd"]
    weights = [FEW.distiller(entry, {"ratio": ratio}, 0, folder).weights for ratio in (1.0, 3.0)]
    assert weights[1][METHOD] == pytest.approx(3 * weights[0][METHOD])
    assert [each["kd"] for each in weights] == [1.0, 1.0]


def test_a_knob_of_another_name_is_an_option(folder):
    heavy = FEW.distiller(ENTRIES["kd_heavy"], {"temperature": 8.0}, 0, folder)
    assert heavy.weights == {"task": 0.1, METHOD: 0.9}
    given, student, teacher = {}, {"logits": torch.randn(5, 10)}, {"logits": torch.randn(5, 10)}
    for temperature in (1.0, 8.0):
        found = FEW.distiller(ENTRIES["kd"], {"temperature": temperature}, 0, folder)
        given[temperature] = float(found.criteria[METHOD](student, teacher).value)
    assert given[1.0] != pytest.approx(given[8.0])


@pytest.mark.parametrize("name", [name for name in ENTRIES if not FEW.refuses(ENTRIES[name])])
def test_every_method_takes_a_step(folder, name):
    distiller, batch = FEW.first_step(ENTRIES[name], FEW.trials(ENTRIES[name])[-1], folder)
    step = distiller(*batch)
    step.loss.backward()
    assert all(value.isfinite() for value in step.logs.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in distiller.student.parameters())


def test_of_a_perceptron_only_those_are_refused_that_read_maps(tmp_path_factory):
    refused = {name for name, entry in ENTRIES.items() if FLAT.refuses(entry) == "needs feature maps of both networks"}
    assert refused == {"fitnet", "attention_transfer", "vid", "nst", "wkd_features"}
    folder = tmp_path_factory.mktemp("flat")
    FLAT.prepare(folder)
    numbers = FLAT.train(ENTRIES["sp"], {"ratio": RATIOS[0]}, 0, folder, final=True)
    assert numbers["parameters"] == sum(p.numel() for p in perceptron().parameters())


def test_a_teacher_is_not_run_while_students_are_trained(folder, monkeypatch):
    seen = []
    step = images.fit

    def fit(module, *options, **named):
        def forbidden(*options):
            assert not module.distiller.training, "the teacher ran"

        module.distiller.teacher.register_forward_hook(forbidden)
        seen.append(module)
        return step(module, *options, **named)

    monkeypatch.setattr(images, "fit", fit)
    FEW.train(ENTRIES["kd"], {"temperature": 4.0}, 0, folder, final=False)
    assert len(seen) == 1


@pytest.mark.parametrize("suite, name", [(suite, name) for suite in SUITES for name in SUITES[suite]])
def test_a_definition_is_plain_and_says_what_it_is(suite, name):
    place = SUITES[suite][name]
    definition = place.definition()
    assert definition["title"] == place.title and definition["epochs"] == place.epochs
    assert place.definition() == definition
