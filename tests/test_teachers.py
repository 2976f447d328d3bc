"""Teachers: several, averages of the student, and the student itself."""

import copy
import io

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from torch.nn import functional as F

from graphkd import Distiller, losses
from graphkd.teachers import ema

FEAT = {"feat": "1"}


def network(width=4, dropout=0.0):
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.Dropout(dropout), nn.Linear(width, 3))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(9, 6, generator=generator), torch.randint(3, (9,), generator=generator)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def divergence(student, teacher, temperature=2.0):
    student, teacher = (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


# Several.


def two(**options):
    teachers = {"big": network(8), "small": network(5)}
    given = {
        "criteria": {"kd": losses.kd(2.0)},
        "weights": {"task": 0.5, "kd": 3.0, "big": 0.25, "small": 2.0},
    }
    return Distiller(network(), teachers, student_features=FEAT, teacher_features=FEAT, **(given | options))


def test_a_shared_criterion_compares_with_each_teacher_by_its_weight(batch):
    distiller = two().eval()
    step = distiller(*batch)
    logits = {name: model(batch[0]) for name, model in distiller.teachers.models.items()}
    values = {name: divergence(step.output, each) for name, each in logits.items()}
    task = F.cross_entropy(step.output, batch[1])
    torch.testing.assert_close(step.loss, 0.5 * task + 3 * (0.25 * values["big"] + 2 * values["small"]))
    for name, value in values.items():
        torch.testing.assert_close(step.logs[f"{name}/kd"], value.detach())
        torch.testing.assert_close(step.logs[f"{name}/kd/kd"], value.detach())
    torch.testing.assert_close(step.logs["weighted/small/kd"], 6 * values["small"].detach())
    torch.testing.assert_close(step.logs["weighted/small/kd/kd"], 6 * values["small"].detach())
    assert set(step.comparisons) == {"big/kd/kd", "small/kd/kd"}
    assert set(step.teacher_features) == {"big/feat", "big/logits", "small/feat", "small/logits"}


def test_a_criterion_named_after_a_teacher_is_for_that_one(batch):
    criteria = {"big/kd": losses.kd(1.0), "small/otgd": losses.otgd(embed_dim=6, k=3)}
    weights = {"task": 0, "small/otgd": 0.0, "big": 0.5}
    distiller = two(criteria=criteria, weights=weights).eval()
    step = distiller(*batch)
    expected = divergence(step.output, distiller.teachers.models["big"](batch[0]), 1.0)
    torch.testing.assert_close(step.loss, 0.5 * expected)
    assert {name.rsplit("/", 1)[0] for name in step.comparisons} == {"big/kd", "small/otgd"}


def test_own_and_shared_criteria_stand_side_by_side(batch):
    distiller = two(criteria={"big/otgd": losses.otgd(embed_dim=6, k=3), "kd": losses.kd()}, weights={})
    step = distiller(*batch)
    assert {"big/otgd", "big/kd", "small/kd"} <= set(step.logs)
    assert "small/otgd" not in step.logs
    own = {name: value for name, value in step.logs.items() if name in ("task", "big/otgd", "big/kd", "small/kd")}
    torch.testing.assert_close(step.loss.detach(), torch.stack(list(own.values())).sum())


def test_a_factor_on_a_term_holds_for_all_teachers(batch):
    plain = two(weights={})
    torch.manual_seed(0)
    halved = two(weights={"kd/kd": 0.5})
    before, after = plain.eval()(*batch), halved.eval()(*batch)
    for name in ("big/kd", "small/kd"):
        torch.testing.assert_close(after.logs[name], 0.5 * before.logs[name])


def test_a_list_of_teachers_is_named_by_number(batch):
    distiller = Distiller(network(), [network(5), network(7)], criteria={"kd": losses.kd()}, weights={"teacher2": 0.5})
    step = distiller(*batch)
    assert set(step.comparisons) == {"teacher1/kd/kd", "teacher2/kd/kd"}
    torch.testing.assert_close(step.logs["weighted/teacher2/kd"], 0.5 * step.logs["teacher2/kd"])


def test_features_may_differ_by_teacher(batch):
    specs = {"big": {"feat": "1"}, "small": {"feat": "0"}}
    distiller = Distiller(
        network(), {"big": network(8), "small": network(5)}, teacher_features=specs, criteria={"kd": losses.kd()}
    ).eval()
    step = distiller(*batch)
    small = distiller.teachers.models["small"]
    torch.testing.assert_close(step.teacher_features["small/feat"], small[0](batch[0]))
    assert step.teacher_features["big/feat"].shape == (9, 8)


def test_every_teacher_is_frozen_in_eval_mode_and_not_saved(batch):
    distiller = two().train()
    distiller(*batch).loss.backward()
    for model in distiller.teachers.models.values():
        assert not model.training
        assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    state = distiller.state_dict()
    assert not any("teachers" in key for key in state)
    other = two()
    kept = [p.clone() for p in other.teachers.parameters()]
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(kept, other.teachers.parameters(), strict=True))
    assert two(teacher_mode="train").train().teachers.models["big"].training


def test_several_teachers_agree_by_their_mean_probabilities(batch):
    distiller = two()
    expected = sum(model(batch[0]).softmax(-1) for model in distiller.teachers.models.values()) / 2
    torch.testing.assert_close(distiller.teachers.probabilities(batch[0]), expected.detach())
    assert Distiller(network()).teachers.probabilities(batch[0]) is None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"teacher": {"a.b": network()}}, "names without dot and slash, got 'a.b'"),
        ({"teacher": {"a/b": network()}}, "names without dot and slash, got 'a/b'"),
        ({"teacher": {"": network()}}, "names without dot and slash, got ''"),
        ({"teacher": {"kd": network()}}, "no criterion can be named 'kd': that is a teacher"),
        ({"teacher": {"task": network()}}, "no criterion or teacher can be named 'task'"),
        (
            {"criteria": {"bog/kd": losses.kd()}},
            "'bog/kd' needs one of the teachers before the slash, big, small, got 'bog'",
        ),
        ({"weights": {"huge": 1.0}}, "weights needs names among task, kd, big, small, got 'huge'"),
        ({"weights": {"big": -1.0}}, "the weight of 'big' needs a finite number of at least 0, got -1.0"),
        ({"teacher_features": {"big": {}, "feat": "1"}}, "needs names among big, small, got 'feat'"),
        ({"criteria": {"kd": losses.kd(), "big/kd": losses.kd()}}, "needs one criterion for each name, got two"),
        ({"criteria": {"big/kd": losses.kd(), "kd": losses.kd()}}, "needs one criterion for each name, got two"),
        ({"criteria": {"crd": losses.crd(num_samples=9)}}, "crd has a memory and needs a teacher of its own.*big/crd"),
        ({"criteria": {"rrd": losses.rrd()}}, "rrd has a memory and needs a teacher of its own.*big/rrd"),
    ],
)
def test_what_does_not_fit_is_refused(options, match):
    given = {"teacher": {"big": network(8), "small": network(5)}, "criteria": {"kd": losses.kd()}}
    with pytest.raises(ValueError, match=match):
        Distiller(network(), **(given | options))


@pytest.mark.parametrize("teacher", ["ema", {"big": nn.Linear}, [nn.Linear]])
def test_what_is_no_teacher_is_refused(teacher):
    with pytest.raises((ValueError, TypeCheckError), match="needs a module|Actual value"):
        Distiller(network(), teacher, criteria={"kd": losses.kd()})


def test_a_memory_of_one_of_several_teachers_is_taken(batch):
    criterion = losses.crd(num_samples=9, num_negatives=4)
    distiller = Distiller(
        network(),
        {"big": network(8), "small": network(5)},
        student_features=FEAT,
        teacher_features=FEAT,
        criteria={"big/crd": criterion},
    )
    assert distiller(*batch, torch.arange(9)).logs["big/crd"].isfinite()


def test_a_memory_may_not_be_shared_under_two_names():
    criterion = losses.crd(num_samples=9, num_negatives=4)
    with pytest.raises(ValueError, match="small/crd has a memory and needs a teacher of its own"):
        Distiller(
            network(), {"big": network(), "small": network()}, criteria={"big/crd": criterion, "small/crd": criterion}
        )


@pytest.mark.parametrize("recipe", [losses.otgd, losses.info_nce, losses.ega])
def test_what_learns_says_that_teachers_of_different_widths_cannot_share_it(batch, recipe):
    distiller = two(criteria={"it": recipe()}, weights={})
    with pytest.raises(ValueError, match="'it' learns, and its teachers big, small may differ in width.*big/it"):
        distiller(*batch)


def test_an_error_of_one_teachers_criterion_is_as_it_was(batch):
    distiller = two(criteria={"big/sp": losses.sp()}, weights={})
    with pytest.raises(KeyError, match="criterion 'big/sp' needs a feature named 'map'"):
        distiller(*batch)


def test_a_teacher_that_nothing_asks_for_does_not_run(batch):
    small = network(5)
    small.register_forward_hook(lambda *_: pytest.fail("it ran"))
    step = Distiller(network(), {"big": network(8), "small": small}, criteria={"big/kd": losses.kd()})(*batch)
    assert set(step.teacher_features) == {"logits"}


def test_features_by_name_are_taken_of_one_teacher_too(batch):
    distiller = Distiller(
        network(), {"big": network(8)}, teacher_features={"big": FEAT}, criteria={"big/kd": losses.kd()}
    )
    assert distiller(*batch).teacher_features["feat"].shape == (9, 8)


def test_one_of_several_teachers_is_not_the_teacher():
    with pytest.raises(ValueError, match="needs one teacher to speak of it, got big, small"):
        _ = two().teacher
    only = network()
    assert Distiller(network(), {"big": only}).teacher is only
    assert Distiller(network()).teacher is None


# Averages of the student.


def trained(distiller, batch, steps):
    optimizer = torch.optim.SGD(distiller.learnable_parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        distiller(*batch).loss.backward()
        optimizer.step()
        distiller.update_teachers()


def test_an_average_of_the_student_follows_it(batch):
    student = network()
    distiller = Distiller(student, ema(student, 0.9), criteria={"kd": losses.kd()})
    average = student[0].weight.detach().clone()
    for _ in range(3):
        trained(distiller, batch, 1)
        average = 0.9 * average + 0.1 * student[0].weight.detach()
    torch.testing.assert_close(distiller.teacher.module[0].weight, average)
    assert not torch.allclose(average, student[0].weight)


def test_batch_statistics_are_averaged_with_the_weights(batch):
    student = network()
    distiller = Distiller(student, ema(student, 0.5), criteria={"kd": losses.kd()})
    trained(distiller, batch, 1)
    assert float(student[1].running_mean.abs().max()) > 0
    # It began at zero.
    torch.testing.assert_close(distiller.teacher.module[1].running_mean, 0.5 * student[1].running_mean)
    assert int(distiller.teacher.module[1].num_batches_tracked) == 1


def test_an_average_has_the_students_paths_and_no_gradient(batch):
    student = network()
    distiller = Distiller(student, ema(student), teacher_features=FEAT, criteria={"kd": losses.kd()})
    step = distiller.train()(*batch)
    step.loss.backward()
    assert step.teacher_features["feat"].shape == (9, 4)
    assert not distiller.teacher.module.training
    assert all(p.grad is None for p in distiller.teacher.parameters())
    assert len(distiller.learnable_parameters()) == len(list(student.parameters()))


def test_an_average_is_saved_and_loaded(batch):
    student = network()
    distiller = Distiller(student, {"mean": ema(student, 0.5), "big": network(8)}, criteria={"kd": losses.kd()})
    trained(distiller, batch, 3)
    file = io.BytesIO()
    torch.save(distiller.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert {key.split(".")[2] for key in state if key.startswith("teachers.")} == {"mean"}
    fresh = network()
    other = Distiller(fresh, {"mean": ema(fresh, 0.5), "big": network(8)}, criteria={"kd": losses.kd()})
    other.load_state_dict(state)
    assert int(other.teachers.models["mean"].n_averaged) == 1 + 3
    torch.testing.assert_close(
        other.teachers.models["mean"].state_dict(), distiller.teachers.models["mean"].state_dict()
    )


def test_a_distiller_with_an_average_can_be_pickled(batch):
    student = network()
    distiller = Distiller(student, ema(student, 0.5), criteria={"kd": losses.kd()})
    file = io.BytesIO()
    torch.save(distiller, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for each in (distiller, loaded):
        torch.manual_seed(0)
        trained(each, batch, 2)
    torch.testing.assert_close(loaded.state_dict(), distiller.state_dict())


def test_other_teachers_stay_as_they_are(batch):
    distiller = Distiller(network(), network(8), criteria={"kd": losses.kd()})
    before = copy.deepcopy(distiller.teacher.state_dict())
    trained(distiller, batch, 2)
    after = distiller.teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_decay_of_an_average_is_a_share():
    with pytest.raises(ValueError, match=r"decay needs a number in \[0, 1\], got 1.5"):
        ema(network(), 1.5)


# The student itself.


class Counted(nn.Module):
    """Two heads, one behind the first layer and one behind the second, and how often it ran."""

    def __init__(self):
        super().__init__()
        self.shallow, self.deep = nn.Linear(6, 5), nn.Linear(5, 5)
        self.early, self.head = nn.Linear(5, 3), nn.Linear(5, 3)
        self.runs = 0

    def forward(self, inputs):
        self.runs += 1
        hidden = self.shallow(inputs).relu()
        self.early(hidden)
        return self.head(self.deep(hidden).relu())


def test_the_deeper_part_teaches_the_shallower_in_one_forward(batch):
    student = Counted()
    distiller = Distiller(
        student,
        student,
        student_features={"logits": "early", "feat": "shallow"},
        teacher_features={"feat": "deep"},
        criteria={"kd": losses.kd(2.0)},
        weights={"task": 0.0},
    )
    step = distiller(*batch)
    assert student.runs == 1
    early = student.early(student.shallow(batch[0]).relu())
    torch.testing.assert_close(step.loss, divergence(early, step.output))
    step.loss.backward()
    # The teacher's side is a constant: nothing beyond the early head learns from it.
    assert student.early.weight.grad.abs().max() > 0
    assert student.shallow.weight.grad.abs().max() > 0
    for part in (student.deep, student.head):
        assert part.weight.grad is None or part.weight.grad.abs().max() == 0
    assert all(p.requires_grad for p in student.parameters())
    assert set(step.student_features) == {"logits", "feat"}
    assert set(step.teacher_features) == {"logits", "feat"}
    assert not step.teacher_features["feat"].requires_grad


def test_the_task_of_a_student_that_teaches_itself_is_its_own_output(batch):
    student = Counted()
    distiller = Distiller(
        student,
        student,
        student_features={"logits": "early"},
        teacher_features={"feat": "deep"},
        criteria={"kd": losses.kd()},
        weights={"kd": 0.0},
    )
    step = distiller(*batch)
    torch.testing.assert_close(step.loss, F.cross_entropy(student(batch[0]), batch[1]))
    assert not torch.equal(step.student_features["logits"], step.output)


@pytest.mark.parametrize(
    ("student_features", "teacher_features", "match"),
    [
        (FEAT, FEAT, "name other parts of it than student_features"),
        (FEAT, None, "name other parts of it than student_features"),
        (lambda output: {"feat": output}, FEAT, "needs student_features by name"),
        (FEAT, lambda output: {"feat": output}, "needs teacher_features by name"),
    ],
)
def test_a_student_that_teaches_itself_says_what_teaches(student_features, teacher_features, match):
    student = network()
    with pytest.raises(ValueError, match=match):
        Distiller(
            student,
            student,
            student_features=student_features,
            teacher_features=teacher_features,
            criteria={"kd": losses.kd()},
        )


def test_a_copy_of_a_student_that_teaches_itself_is_whole(batch):
    student = Counted()
    distiller = Distiller(
        student,
        student,
        student_features={"logits": "early"},
        teacher_features={"feat": "deep"},
        criteria={"kd": losses.kd()},
    )
    copied = copy.deepcopy(distiller)
    assert copied.teacher is copied.student
    torch.testing.assert_close(copied(*batch).loss, distiller(*batch).loss)
    assert distiller.state_dict().keys() == copied.state_dict().keys()
    assert not any(key.startswith("teachers") for key in distiller.state_dict())
