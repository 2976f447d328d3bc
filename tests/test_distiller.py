"""The distiller: one loss per step, a teacher that nothing moves, a student that nothing clings to."""

import copy
import io
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from torch.nn import functional as F

from graphkd import Criterion, Distiller, GraphEncoder, GraphLoss, Term, graphs, losses
from graphkd.cache import build_cache
from graphkd.graphs import point_cloud
from graphkd.measures import sqeuclidean
from graphkd.task import labelled_cross_entropy

FEAT = {"feat": "1"}


def network(width):
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 3))


def distiller_of(student, teacher, **kwargs):
    options = {
        "student_features": FEAT,
        "teacher_features": FEAT,
        "criteria": {"otgd": losses.otgd(embed_dim=6, k=3, weights=(1.0, 2.0, 0.5, 3.0)), "kd": losses.kd()},
        "weights": {"task": 0.5, "otgd": 0.25, "kd": 2.0},
    }
    return Distiller(student, teacher, **{**options, **kwargs})


def made(**kwargs):
    torch.manual_seed(0)
    return distiller_of(network(4), network(8), **kwargs)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(9, 6, generator=generator), torch.randint(3, (9,), generator=generator)


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same_state(module, state):
    return all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def reloaded(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


# The step


def test_loss_is_the_weighted_sum_of_task_and_criteria(batch):
    distiller = made().eval()
    step = distiller(*batch)
    x, labels = batch
    student = {"feat": distiller.student[:2](x), "logits": distiller.student(x)}
    teacher = {"feat": distiller.teacher[:2](x), "logits": distiller.teacher(x)}
    task = F.cross_entropy(student["logits"], labels)
    values = {name: criterion(student, teacher, labels).value for name, criterion in distiller.criteria.items()}
    torch.testing.assert_close(step.output, student["logits"])
    torch.testing.assert_close(step.logs["task"], task.detach())
    for name, value in values.items():
        torch.testing.assert_close(step.logs[name], value.detach())
    torch.testing.assert_close(step.loss, 0.5 * task + 0.25 * values["otgd"] + 2.0 * values["kd"])


def test_logs_agree_with_the_loss_and_carry_no_gradient(batch):
    step = made()(*batch)
    logs = step.logs
    assert not any(value.requires_grad for value in logs.values())
    assert all(value.shape == () for value in logs.values())
    torch.testing.assert_close(logs["loss"], step.loss.detach())
    torch.testing.assert_close(logs["loss"], logs["weighted/task"] + logs["weighted/otgd"] + logs["weighted/kd"])
    for name, weight in {"task": 0.5, "otgd": 0.25, "kd": 2.0}.items():
        torch.testing.assert_close(logs[f"weighted/{name}"], weight * logs[name])
    for term, weight in {"f": 1.0, "g": 2.0, "gf": 0.5, "fg": 3.0}.items():
        torch.testing.assert_close(logs[f"weighted/otgd/{term}"], 0.25 * weight * logs[f"otgd/{term}"])
    terms = [logs[f"weighted/otgd/{term}"] for term in ("f", "g", "gf", "fg")]
    torch.testing.assert_close(logs["weighted/otgd"], torch.stack(terms).sum())


def test_logs_and_comparisons_are_named_after_criteria_and_terms(batch):
    step = made()(*batch)
    compared = {"otgd/f", "otgd/g", "otgd/gf", "otgd/fg", "kd/kd"}
    parts = {"task", "otgd", "kd", *compared}
    assert step.comparisons.keys() == compared
    assert step.logs.keys() == (
        {"loss"} | parts | {f"weighted/{part}" for part in parts} | {f"{name}/marginal_error" for name in compared}
    )
    for name in compared:
        torch.testing.assert_close(step.logs[name], step.comparisons[name].value.detach())
        torch.testing.assert_close(step.logs[f"{name}/marginal_error"], step.comparisons[name].marginal_error)


def test_omitted_weights_are_one(batch):
    step = made(weights=None)(*batch)
    torch.testing.assert_close(step.loss.detach(), step.logs["task"] + step.logs["otgd"] + step.logs["kd"])


def test_a_changed_weight_counts_from_the_next_step(batch):
    distiller = made().eval()
    distiller.weights["kd"] = 0.0
    logs = distiller(*batch).logs
    assert logs["weighted/kd"] == 0
    torch.testing.assert_close(logs["loss"], logs["weighted/task"] + logs["weighted/otgd"])


# Schedules and terms


def fading(epoch, epochs):
    return 1 - epoch / epochs


def test_a_schedule_is_the_weight_of_its_epoch(batch):
    distiller = made(weights={"task": 0.5, "kd": fading, "otgd": lambda epoch, epochs: 10.0 * epoch + epochs}).eval()
    for epoch, kd, otgd in ((1, 0.75, 14.0), (3, 0.25, 34.0), (2, 0.5, 24.0)):
        distiller.set_epoch(epoch, 4)
        expected = made(weights={"task": 0.5, "kd": kd, "otgd": otgd}).eval()
        assert distiller.weights == expected.weights
        logs = distiller(*batch).logs
        expected(*batch)
        expected.load_state_dict(distiller.state_dict())
        assert logs == expected(*batch).logs


def test_a_schedule_needs_an_epoch_before_the_first_step(batch):
    distiller = made(weights={"kd": fading, "otgd/f": fading})
    with pytest.raises(
        ValueError, match=r"the schedule of kd, otgd/f needs set_epoch\(epoch, epochs\) before the first"
    ):
        distiller(*batch)
    distiller.set_epoch(1, 2)
    distiller(*batch)


@pytest.mark.parametrize(("epoch", "epochs"), [(0, 3), (4, 3), (1, 0)])
def test_an_epoch_that_is_not_counted_from_one_is_refused(epoch, epochs):
    with pytest.raises(ValueError, match=rf"needs an epoch in 1\.\.{epochs}, counted from 1, got {epoch}"):
        made(weights={"kd": lambda epoch, epochs: 1.0}).set_epoch(epoch, epochs)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_schedule_that_gives_no_weight_is_refused(weight):
    distiller = made(weights={"kd": lambda epoch, epochs: weight})
    with pytest.raises(ValueError, match="the weight of 'kd' in epoch 2 of 3 needs a finite number of at least 0, got"):
        distiller.set_epoch(2, 3)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, reloaded], ids=["copied", "saved"])
def test_a_copy_has_schedules_of_its_own(batch, duplicate):
    distiller = made(weights={"kd": fading})
    distiller.set_epoch(1, 4)
    copied = duplicate(distiller)
    copied.set_epoch(3, 4)
    assert (distiller.weights["kd"], copied.weights["kd"]) == (0.75, 0.25)


def test_a_terms_factor_multiplies_its_weight_inside_the_criterion(batch):
    options = {"embed_dim": 6, "k": 3}
    factors = made(
        criteria={"otgd": losses.otgd(**options, weights=(1.0, 2.0, 0.5, 3.0))},
        weights={"otgd": 0.5, "otgd/g": lambda epoch, epochs: epoch / epochs, "otgd/fg": 3},
    ).eval()
    factors.set_epoch(1, 4)
    expected = made(
        criteria={"otgd": losses.otgd(**options, weights=(1.0, 0.5, 0.5, 9.0))}, weights={"otgd": 0.5}
    ).eval()
    for distiller in (factors, expected):
        distiller(*batch)
    expected.load_state_dict(factors.state_dict())
    steps = [distiller(*batch) for distiller in (factors, expected)]
    assert steps[0].logs.keys() == steps[1].logs.keys()
    for name, value in steps[1].logs.items():
        torch.testing.assert_close(steps[0].logs[name], value)
    assert steps[1].logs["weighted/otgd/fg"] > 0
    for step in steps:
        step.loss.backward()
    came, wanted = ([p.grad for p in distiller.learnable_parameters()] for distiller in (factors, expected))
    torch.testing.assert_close(came, wanted)


def test_criteria_and_terms_of_one_name_are_refused():
    with pytest.raises(ValueError, match="no criterion can be named 'kd/kd': that is a term of 'kd'"):
        made(criteria={"kd": losses.kd(), "kd/kd": losses.kd()}, weights=None)


def rooted(x, y):
    """A distance whose gradient at zero is NaN."""
    return (x.unsqueeze(-2) - y.unsqueeze(-3)).pow(2).sum(-1).sqrt()


def spoiling():
    """A criterion whose gradient is NaN in its projectors and in the student, beside one whose gradient is not."""
    parts = [nn.Linear(4, 2), nn.Linear(8, 2)]
    for part in parts:
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    terms = {"rooted": Term(GraphLoss(rooted)), "squared": Term(GraphLoss(sqeuclidean), 3.0)}
    return Criterion(*(GraphEncoder(cloud, part) for part in parts), terms)


def gradients(distiller, batch):
    distiller.zero_grad()
    step = distiller.eval()(*batch)
    step.loss.backward()
    return step.logs, [p.grad for p in distiller.learnable_parameters()]


@pytest.mark.parametrize("scheduled", ["it", "it/rooted"])
def test_what_has_weight_zero_is_logged_and_has_gradient_zero(batch, scheduled):
    distiller = made(criteria={"it": spoiling()}, weights={scheduled: fading})
    distiller.set_epoch(1, 2)
    _, spoilt = gradients(distiller, batch)
    assert any(gradient.isnan().any() for gradient in spoilt)
    distiller.set_epoch(2, 2)
    logs, came = gradients(distiller, batch)
    assert {"it", "it/rooted", "it/squared", "weighted/it", "weighted/it/rooted"} <= logs.keys()
    assert logs["weighted/it/rooted"] == 0
    alone = Distiller(distiller.student)
    _, wanted = gradients(alone, batch)
    torch.testing.assert_close(came[: len(wanted)], wanted)
    assert all((gradient == 0).all() for gradient in came[len(wanted) :])


@pytest.mark.parametrize("labelled", [True, False])
def test_a_step_in_which_all_weights_are_zero_moves_nothing(batch, labelled):
    distiller = made(criteria={"it": spoiling()}, weights={"task": fading, "it": fading})
    distiller.set_epoch(5, 5)
    x, labels = batch
    logs, came = gradients(distiller, (x, labels if labelled else None))
    assert logs["loss"] == 0
    assert ("task" in logs) == labelled
    assert len(came) == 10
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in came)


def test_double_precision_stays_double(batch):
    distiller = made(task_loss=labelled_cross_entropy).double().eval()
    x, labels = batch
    step = distiller(x.double(), labels)
    assert {value.dtype for value in (step.loss, *step.logs.values())} == {torch.float64}
    expected = F.cross_entropy(distiller.student(x.double()), labels)
    torch.testing.assert_close(step.logs["task"], expected.detach(), rtol=1e-12, atol=0)


def test_under_autocast_the_loss_is_in_float32(batch):
    distiller = made().eval()
    expected = distiller(*batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        step = distiller(*batch)
    assert step.output.dtype == torch.bfloat16
    assert step.loss.dtype == torch.float32
    # Only the networks ran in bfloat16, which keeps 8 bits.
    torch.testing.assert_close(step.loss, expected, rtol=0.05, atol=0)
    step.loss.backward()
    assert all(p.grad.isfinite().all() for p in distiller.student.parameters())


# The task


def test_a_sample_without_label_is_left_out_of_the_task(batch):
    distiller, (x, labels) = made().eval(), batch
    some = torch.where(torch.arange(9) < 4, labels, -100)
    logs = distiller(x, some).logs
    torch.testing.assert_close(logs["task"], F.cross_entropy(distiller.student(x)[:4], labels[:4]).detach())
    assert logs["kd"] == distiller(x, labels).logs["kd"]


def test_a_batch_without_any_label_costs_nothing_in_the_task(batch):
    x, _ = batch
    step = made()(x, torch.full((9,), -100))
    step.loss.backward()
    assert step.logs["task"] == 0
    assert step.loss.isfinite()


def test_missing_labels_are_refused_where_the_task_has_weight(batch):
    with pytest.raises(ValueError, match=r"the task has weight 0\.5 and needs labels, got none"):
        made()(batch[0])


def test_without_labels_a_task_of_no_weight_is_left_out(batch):
    step = made(weights={"task": 0})(batch[0])
    assert "task" not in step.logs
    torch.testing.assert_close(step.loss.detach(), step.logs["otgd"] + step.logs["kd"])


def test_a_task_that_is_left_out_gives_its_head_no_gradient(batch):
    encoders = (GraphEncoder(cloud, nn.Linear(width, 2)) for width in (4, 8))
    criterion = Criterion(*encoders, {"it": Term(GraphLoss(sqeuclidean))})
    distiller = made(criteria={"it": criterion}, weights={"task": 0})
    distiller(batch[0]).loss.backward()
    assert distiller.student[0].weight.grad.abs().max() > 0
    assert distiller.student[4].weight.grad is None


def test_another_task_loss_takes_logits_and_labels(batch):
    distiller = made(task_loss=F.multi_margin_loss).eval()
    x, labels = batch
    expected = F.multi_margin_loss(distiller.student(x), labels)
    torch.testing.assert_close(distiller(x, labels).logs["task"], expected.detach())


class Tupled(nn.Module):
    """A model that returns a pair without names."""

    def __init__(self, width):
        super().__init__()
        self.body, self.head = nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, x):
        feat = self.body(x)
        return feat, self.head(feat)


class Bodied(Tupled):
    """A model that returns features and no logits at all."""

    def forward(self, x):
        return (super().forward(x)[0],)


class Named(Tupled):
    """A model that returns as transformers do, with arguments by name."""

    def forward(self, pixels, shift=0.0):
        feat, logits = super().forward(pixels + shift)
        return SimpleNamespace(logits=logits, pooled=feat)


def by_position(output):
    return {"feat": output[0], "logits": output[1]}


def first(output):
    return output[0]


def second(output):
    return output[1]


def pooled(output):
    return output.pooled


@pytest.mark.parametrize("spec", [by_position, {"feat": first, "logits": second}], ids=["one", "each"])
def test_the_task_takes_the_logits_that_a_function_finds(batch, spec):
    distiller = distiller_of(Tupled(4), Tupled(8), student_features=spec, teacher_features=by_position)
    x, labels = batch
    expected = F.cross_entropy(distiller.student(x)[1], labels)
    torch.testing.assert_close(distiller(x, labels).logs["task"], expected.detach())


def test_the_task_takes_the_models_own_logits_where_criteria_take_others(batch):
    spec = {"feat": pooled, "logits": lambda output: 2 * output.logits}
    distiller = distiller_of(Named(4), Named(8), student_features=spec, teacher_features={"feat": pooled})
    x, labels = batch
    logits = distiller.student(x).logits
    logs = distiller(x, labels).logs
    torch.testing.assert_close(logs["task"], F.cross_entropy(logits, labels).detach())
    kd = losses.kd()({"logits": 2 * logits}, {"logits": distiller.teacher(x).logits}).value
    torch.testing.assert_close(logs["kd"], kd.detach())


def cloud(features):
    return point_cloud(features["feat"])


def test_a_model_without_logits_is_fine_where_the_task_has_no_weight(batch):
    criterion = Criterion(
        GraphEncoder(cloud, nn.Linear(4, 2)), GraphEncoder(cloud, nn.Linear(8, 2)), {"it": Term(GraphLoss(sqeuclidean))}
    )
    options = {"student_features": {"feat": first}, "teacher_features": {"feat": first}, "criteria": {"it": criterion}}
    step = distiller_of(Bodied(4), Bodied(8), **options, weights={"task": 0})(*batch)
    assert step.logs.keys() == {"loss", "it", "it/it", "it/it/marginal_error", "weighted/it", "weighted/it/it"}
    with pytest.raises(ValueError, match="got tuple: name a function of the output as the feature 'logits'"):
        distiller_of(Bodied(4), Bodied(8), **options, weights=None)(*batch)


# What goes in


def test_inputs_may_be_a_tensor_a_sequence_or_a_mapping(batch):
    spec = {"feat": pooled}
    distiller = distiller_of(Named(4), Named(8), student_features=spec, teacher_features=spec)
    x, labels = batch
    expected = distiller(x + 1, labels).loss
    for inputs in ((x, 1.0), [x, 1.0], {"pixels": x, "shift": 1.0}):
        torch.testing.assert_close(distiller(inputs, labels).loss, expected)


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"weights": {"crd": 1.0}}, "weights needs names among task, otgd, kd, got 'crd'"),
        ({"weights": {"otgd/h": 1.0}}, "weights needs names among otgd/f, otgd/g, otgd/gf, otgd/fg, got 'otgd/h'"),
        ({"weights": {"otgd/f": -1.0}}, "the weight of 'otgd/f' needs a finite number of at least 0, got -1.0"),
        ({"weights": {"task/f": 1.0}}, "weights needs names among task, otgd, kd, got 'task/f'"),
        ({"weights": {"kd": -1.0}}, "the weight of 'kd' needs a finite number of at least 0, got -1.0"),
        ({"weights": {"task": float("nan")}}, "the weight of 'task' needs .* got nan"),
        ({"weights": {"otgd": float("inf")}}, "the weight of 'otgd' needs .* got inf"),
        ({"criteria": {"task": losses.kd()}, "weights": None}, "no criterion or teacher can be named 'task'"),
        ({"criteria": {"loss": losses.kd()}, "weights": None}, "no criterion or teacher can be named 'loss'"),
        ({"criteria": {}, "weights": {"task": 0.0}}, "needs something to minimise, got no criterion and weight 0"),
        ({"student_features": {"feat": "7"}}, "needs the path of a module of Sequential, got '7'"),
        ({"teacher_features": {"feat": "head"}}, "needs the path of a module of Sequential, got 'head'"),
    ],
)
def test_options_that_do_not_fit_are_refused_at_construction(option, match):
    with pytest.raises(ValueError, match=match):
        made(**option)


def test_an_unknown_teacher_mode_is_refused():
    with pytest.raises((ValueError, TypeCheckError)):  # With shape checks on, it does not get as far as ours.
        made(teacher_mode="frozen")


def test_a_missing_feature_is_named_with_those_that_are_there(batch):
    with pytest.raises(KeyError, match=r"needs a feature named 'feat', got \['labels', 'logits', 'pool'\]"):
        made(student_features={"pool": "1"})(*batch)


def test_a_network_that_gives_nan_is_refused(batch):
    distiller = made()
    nn.init.constant_(distiller.student[1].weight, torch.nan)
    with pytest.raises(ValueError, match="needs finite values, got"):
        distiller(*batch)


def test_labels_of_another_batch_size_are_refused(batch):
    x, labels = batch
    with pytest.raises(ValueError, match=r"batch.size"):
        made()(x, labels[:5])


# The teacher


@pytest.mark.parametrize("mode", [True, False])
def test_the_teacher_stays_in_eval_mode_whatever_train_is_called(mode):
    distiller = made()
    assert not distiller.teacher.training
    parent = nn.ModuleDict({"distiller": distiller})
    for call in (distiller.train, parent.train):
        call(mode)
        assert {module.training for module in distiller.teacher.modules()} == {False}
        assert {module.training for module in distiller.student.modules()} == {mode}
        assert {module.training for module in distiller.criteria.modules()} == {mode}
    assert distiller.train(mode) is distiller


def test_the_teacher_follows_train_if_asked_and_keeps_its_statistics_running(batch):
    distiller = made(teacher_mode="train")
    before = state_of(distiller.teacher)
    assert distiller.teacher.training
    distiller(*batch).loss.backward()
    changed = {name for name, value in distiller.teacher.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert all(p.grad is None for p in distiller.teacher.parameters())
    assert not distiller.eval().teacher.training
    assert distiller.train().teacher.training


def test_training_moves_the_student_and_the_projectors_and_never_the_teacher(batch):
    distiller = made()
    optimiser = torch.optim.SGD(distiller.learnable_parameters(), lr=0.1)
    distiller(*batch)
    before = {part: state_of(getattr(distiller, part)) for part in ("student", "teacher", "criteria")}
    for _ in range(2):
        optimiser.zero_grad()
        distiller(*batch).loss.backward()
        optimiser.step()
    assert same_state(distiller.teacher, before["teacher"])
    assert all(p.grad is None and not p.requires_grad for p in distiller.teacher.parameters())
    for part in ("student", "criteria"):
        for name, parameter in getattr(distiller, part).named_parameters():
            assert not torch.equal(parameter, before[part][name]), f"{part}.{name}"


def test_the_teacher_gets_no_gradient_even_where_it_is_unfrozen(batch):
    distiller = made()
    distiller.teacher.requires_grad_(True)
    distiller(*batch).loss.backward()
    assert all(p.grad is None for p in distiller.teacher.parameters())


def test_a_teacher_that_shares_trainable_parameters_with_the_student_is_refused():
    student = network(4)
    with pytest.raises(ValueError, match=r"needs teacher_features that name other parts of it .*deepcopy"):
        Distiller(student, student)
    with pytest.raises(ValueError, match=r"got 6 trainable ones of the student, such as '0\.0\.weight'.*deepcopy"):
        Distiller(nn.Sequential(student), student)
    teacher = nn.Sequential(*network(4)[:4], student[4])
    with pytest.raises(ValueError, match=r"got 2 trainable ones of the student, such as '4\.weight'"):
        Distiller(student, teacher)
    student[4].requires_grad_(False)
    assert len(Distiller(student, teacher).learnable_parameters()) == 4


def test_learnable_parameters_are_the_students_and_the_criterias():
    distiller = made()
    distiller.student[0].weight.requires_grad_(False)
    found = {id(p) for p in distiller.learnable_parameters()}
    wanted = [*distiller.student.parameters(), *distiller.criteria.parameters()]
    assert found == {id(p) for p in wanted} - {id(distiller.student[0].weight)}
    assert len(distiller.learnable_parameters()) == len(wanted) - 1


def test_without_a_teacher_it_is_the_task_alone(batch):
    distiller = Distiller(network(4)).eval()
    step = distiller(*batch)
    x, labels = batch
    torch.testing.assert_close(step.loss, F.cross_entropy(distiller.student(x), labels))
    assert step.logs.keys() == {"loss", "task", "weighted/task"}
    assert step.comparisons == {}
    distiller.load_state_dict(distiller.train().state_dict())
    with pytest.raises(ValueError, match="criteria need a teacher, got none for kd"):
        Distiller(network(4), criteria={"kd": losses.kd()})


# State, copies, files


def test_state_leaves_the_teacher_out_and_keeps_its_projector(batch):
    distiller = made()
    distiller(*batch)
    keys = distiller.state_dict().keys()
    assert {key.split(".")[0] for key in keys} == {"student", "criteria"}
    assert {"student.0.weight", "criteria.otgd.student.embed.weight", "criteria.otgd.teacher.embed.weight"} <= keys
    assert {key.removeprefix("student.") for key in keys if key.startswith("student.")} == (
        distiller.student.state_dict().keys()
    )


@pytest.mark.parametrize("nested", [False, True])
def test_state_loads_strictly_and_leaves_the_teacher_as_it_is(batch, nested):
    source, target = made(), made()
    source(*batch)
    target(*batch)
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    teacher = state_of(target.teacher)
    a, b = (nn.ModuleDict({"part": d, "more": nn.Linear(2, 2)}) if nested else d for d in (source, target))
    state = a.state_dict()
    assert not any(key.startswith(("teacher.", "part.teacher.")) for key in state)
    b.load_state_dict(state, strict=True)
    assert same_state(target.student, source.student.state_dict())
    assert same_state(target.criteria, source.criteria.state_dict())
    assert same_state(target.teacher, teacher)
    assert not same_state(target.teacher, source.teacher.state_dict())


def test_a_key_that_is_missing_or_unknown_still_fails_to_load():
    state = made().state_dict()
    del state["student.0.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*student\.0\.weight"):
        made().load_state_dict(state)
    state = {**made().state_dict(), "student.9.weight": torch.zeros(1)}
    with pytest.raises(RuntimeError, match=r"Unexpected key.*student\.9\.weight"):
        made().load_state_dict(state)


def test_the_student_alone_is_saved_without_a_trace(batch):
    distiller = made()
    distiller(*batch).loss.backward()
    files = {}
    for name, thing in {"student": distiller.student, "teacher": distiller.teacher, "all": distiller}.items():
        file = io.BytesIO()
        torch.save(thing, file)
        files[name] = b"graphkd" in file.getvalue()
    assert files == {"student": False, "teacher": False, "all": True}


@pytest.mark.parametrize("duplicate", [copy.deepcopy, reloaded], ids=["copied", "saved"])
def test_a_used_distiller_can_be_copied_and_the_copy_is_independent(batch, duplicate):
    distiller = made().eval()
    expected = distiller(*batch).loss
    copied = duplicate(distiller)
    torch.testing.assert_close(copied(*batch).loss, expected, rtol=0, atol=0)
    before = state_of(distiller)
    optimiser = torch.optim.SGD(copied.learnable_parameters(), lr=0.1)
    copied.train()(*batch).loss.backward()
    optimiser.step()
    assert all(p.grad is None for p in distiller.parameters())
    assert same_state(distiller, before)
    assert not torch.equal(copied.eval()(*batch).loss, expected)
    torch.testing.assert_close(distiller(*batch).loss, expected, rtol=0, atol=0)
    assert not copied.train().teacher.training
    assert not any(key.startswith("teacher.") for key in copied.state_dict())


def test_the_models_are_left_without_hooks(batch):
    distiller = made()
    distiller(*batch)
    for module in (*distiller.student.modules(), *distiller.teacher.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


# Whole models


def test_a_resnet_of_torchvision_is_distilled_by_path():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    student, teacher = models.resnet18(num_classes=5), models.resnet18(num_classes=5)
    distiller = Distiller(
        student,
        teacher,
        student_features={"feat": "avgpool"},
        teacher_features={"feat": "avgpool"},
        criteria={"otgd": losses.otgd(k=3)},
    )
    before = {name: state_of(model) for name, model in {"student": student, "teacher": teacher}.items()}
    optimiser = torch.optim.SGD(distiller.learnable_parameters(), lr=0.01)
    x, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 5
    for _ in range(2):
        optimiser.zero_grad()
        step = distiller(x, labels)
        step.loss.backward()
        optimiser.step()
        assert step.loss.isfinite()
        assert step.comparisons["otgd/f"].graphs[0].x.shape == (6, 128)
    assert same_state(teacher, before["teacher"])
    assert not torch.equal(student.conv1.weight, before["student"]["conv1.weight"])
    with pytest.raises(ValueError, match="'feat': what 'bn1' gave was overwritten in place"):
        Distiller(student, teacher, student_features={"feat": "bn1"})(x, labels)


def test_a_compiled_student_works_with_its_logits(batch):
    torch.compiler.reset()
    torch.manual_seed(0)
    student, teacher = network(4).eval(), network(8)
    compiled = torch.compile(student, backend="eager")
    kwargs = {"criteria": {"kd": losses.kd()}, "weights": None, "student_features": {}, "teacher_features": {}}
    distiller = distiller_of(compiled, teacher, **kwargs).eval()
    step = distiller(*batch)
    step.loss.backward()
    torch.testing.assert_close(step.loss, distiller_of(student, teacher, **kwargs).eval()(*batch).loss)
    assert student[0].weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match=r"the model was compiled by torch\.compile"):
        distiller_of(compiled, teacher)
    torch.compiler.reset()


def test_an_index_of_samples_is_a_feature_of_both_networks():
    inputs, labels, index = torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), torch.tensor([7, 2, 9, 0])
    distiller = Distiller(
        nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)),
        nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 2)),
        student_features={"feat": "0"},
        teacher_features={"feat": "0"},
        criteria={"crd": losses.crd(5, 6, num_samples=10, num_negatives=4)},
    )
    before = [
        network.bank.rows.clone() for network in (distiller.criteria["crd"].student, distiller.criteria["crd"].teacher)
    ]
    distiller(inputs, labels, index).loss.backward()
    for rows, network in zip(before, ("student", "teacher"), strict=True):
        changed = (getattr(distiller.criteria["crd"], network).bank.rows != rows).any(1).nonzero().squeeze(1)
        assert sorted(changed.tolist()) == sorted(index.tolist())
    with pytest.raises(KeyError, match="index"):
        distiller(inputs, labels)


def test_a_step_hands_on_what_the_criteria_saw():
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    distiller = Distiller(student, teacher, criteria={"kd": losses.kd()})
    x = torch.randn(5, 4)
    step = distiller(x, torch.tensor([0, 1, 2, 0, 1]), torch.arange(5))
    assert list(step.student_features) == list(step.teacher_features) == ["logits"]
    assert torch.equal(step.student_features["logits"], student(x))
    assert torch.equal(step.teacher_features["logits"], teacher(x))
    assert Distiller(student)(x, torch.tensor([0, 1, 2, 0, 1])).teacher_features == {}


def test_criteria_share_features_and_graphs(batch, monkeypatch):
    built = Counter()

    def counted(name, function):
        def run(*arguments, **named):
            built[name] += 1
            return function(*arguments, **named)

        return run

    monkeypatch.setattr(sys.modules["graphkd.losses.otgd"], "knn_graph", counted("knn_graph", graphs.knn_graph))
    monkeypatch.setattr("graphkd.graphs.point_cloud", counted("point_cloud", graphs.point_cloud))
    student, teacher = network(4), network(8)
    for name, model in (("student", student), ("teacher", teacher)):
        model.register_forward_hook(lambda *_, name=name: built.update([name]))
    criteria = {
        "otgd": losses.otgd(embed_dim=6, k=3),
        "otgd_deep": losses.otgd(embed_dim=5, k=3, num_layers=2),
        "kd": losses.kd(),
        "kd_soft": losses.kd(8.0),
        "rkd": losses.rkd(),
        "pkt": losses.pkt(),
    }
    distiller = distiller_of(student, teacher, criteria=criteria, weights={})
    step = distiller(*batch)
    assert (built["student"], built["teacher"]) == (1, 1)
    assert built["knn_graph"] == 2
    # The logits of KD, twice, and the features of RKD and PKT: each once for student and teacher.
    assert built["point_cloud"] == 4
    distiller.eval()
    with torch.no_grad():
        step = distiller(*batch)
        for name, criterion in criteria.items():
            alone = criterion(step.student_features, step.teacher_features, batch[1])
            torch.testing.assert_close(step.logs[name], alone.value)


def cached(tmp_path, teacher, inputs, views=1):
    def loader(view):
        return [(inputs[i : i + 4] + view, None, torch.arange(i, i + 4)) for i in range(0, len(inputs), 4)]

    return build_cache(
        tmp_path / "cache", teacher, loader, views, features={"feat": "0"}, dtype="float32", progress=False
    )


def test_a_cache_stands_for_the_teacher_in_training(tmp_path):
    teacher, inputs = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)), torch.randn(8, 5)
    cache = cached(tmp_path, teacher, inputs, views=2)
    options = {
        "student_features": {"feat": "0"},
        "teacher_features": {"feat": "0"},
        "criteria": {"rkd": losses.rkd(), "kd": losses.kd()},
        "weights": {"task": 0.0},
    }
    student = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    ran = []
    teacher.register_forward_hook(lambda *_: ran.append(1))
    index, views = torch.tensor([6, 1, 3]), torch.tensor([1, 0, 1])
    seen = inputs[index] + views.unsqueeze(1)
    without, within = Distiller(student, teacher, **options), Distiller(student, teacher, cache=cache, **options)
    expected = without(seen, None, index)
    assert len(ran) == 1
    step = within(seen, None, index, views)
    assert len(ran) == 1
    torch.testing.assert_close(step.loss, expected.loss)
    torch.testing.assert_close(step.teacher_features, expected.teacher_features)
    within.eval()(seen)
    assert len(ran) == 2


def test_a_cache_needs_the_place_and_the_view_of_samples(tmp_path):
    teacher, inputs = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)), torch.randn(8, 5)
    cache = cached(tmp_path, teacher, inputs, views=2)
    student, features = nn.Linear(5, 3), {"feat": "0"}
    distiller = Distiller(student, teacher, teacher_features=features, criteria={"kd": losses.kd()}, cache=cache)
    labels, index = torch.tensor([0, 1]), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="where samples stand in the data set, got no index"):
        distiller(inputs[:2], labels)
    with pytest.raises(ValueError, match="of 2 views needs to know which of them a batch is, got no view"):
        distiller(inputs[:2], labels, index)
    with pytest.raises(ValueError, match="view needs numbers from 0 to 1, got 2"):
        distiller(inputs[:2], labels, index, 2)


def test_a_cache_of_another_teacher_is_refused(tmp_path):
    teacher, inputs = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)), torch.randn(8, 5)
    cache = cached(tmp_path, teacher, inputs)
    options = {"criteria": {"kd": losses.kd()}, "cache": cache}
    with pytest.raises(ValueError, match="made of the same"):
        other = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3))
        Distiller(nn.Linear(5, 3), other, teacher_features={"feat": "0"}, **options)
    with pytest.raises(ValueError, match="made of the same"):
        Distiller(nn.Linear(5, 3), teacher, **options)
    with pytest.raises(ValueError, match="a teacher beside the student, a, b, got one of 'c'"):
        given = {"a": teacher, "b": nn.Linear(5, 3)}
        Distiller(nn.Linear(5, 3), given, criteria={"kd": losses.kd()}, cache={"c": cache})


def test_one_of_several_teachers_may_have_a_cache(tmp_path):
    inputs, index = torch.randn(8, 5), torch.tensor([6, 1, 3])
    teachers = {"a": nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)), "b": nn.Linear(5, 3)}
    cache = cached(tmp_path, teachers["a"], inputs)
    options = {"teacher_features": {"a": {"feat": "0"}}, "criteria": {"kd": losses.kd()}, "weights": {"task": 0.0}}
    student = nn.Linear(5, 3)
    expected = Distiller(student, teachers, **options)(inputs[index], None, index)
    step = Distiller(student, teachers, cache={"a": cache}, **options)(inputs[index], None, index)
    torch.testing.assert_close(step.loss, expected.loss)
    assert step.teacher_features.keys() == expected.teacher_features.keys()
