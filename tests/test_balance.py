"""Suggested weights: gradient norms at the student's features, and what makes them comparable."""

import copy

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from torch.nn import functional as F

from graphkd import Criterion, Distiller, GraphEncoder, GraphLoss, Term, losses, suggest_weights
from graphkd.balance import gradient_norms
from graphkd.graphs import samples
from graphkd.measures import sqeuclidean
from graphkd.teachers import ema

FEAT = {"feat": "1"}


def network(width=4):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


def regression(weight=1.0):
    """Two terms on features of one width, the second three times the first."""
    loss = GraphLoss(cost=sqeuclidean)
    encoder = GraphEncoder(samples, normalize=False)
    return Criterion(encoder, copy.deepcopy(encoder), {"one": Term(loss, weight), "three": Term(loss, 3 * weight)})


def made(criteria=None, **options):
    torch.manual_seed(0)
    given = {
        "student_features": FEAT,
        "teacher_features": FEAT,
        "criteria": criteria or {"kd": losses.kd(), "l2": regression()},
    }
    return Distiller(network(), network(), **(given | options))


@pytest.fixture
def loader():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(n, 6, generator=generator), torch.randint(3, (n,), generator=generator)) for n in (9, 7, 8)]


def slopes(distiller, batch):
    """The three gradients at the feature, by hand."""
    inputs, labels = batch
    feat = distiller.student[:2](inputs).detach().requires_grad_()
    logits = distiller.student[2](feat)
    with torch.no_grad():
        other = distiller.teacher[:2](inputs)
        target = (distiller.teacher[2](other) / 4).softmax(-1)
    values = {
        "task": F.cross_entropy(logits, labels),
        "kd": 16 * F.kl_div((logits / 4).log_softmax(-1), target, reduction="batchmean"),
        "l2": 4 * (feat - other).square().sum(1).mean(),
    }
    return {name: torch.autograd.grad(value, feat, retain_graph=True)[0].norm() for name, value in values.items()}


def test_norms_are_means_over_batches_of_those_by_hand(loader):
    distiller = made()
    expected = {
        name: sum(float(slopes(distiller, batch)[name]) for batch in loader[:2]) / 2 for name in ("task", "kd", "l2")
    }
    norms = gradient_norms(distiller, loader, num_batches=2)
    assert {name: norms[name] for name in expected} == pytest.approx(expected)
    assert norms["kd/kd"] == pytest.approx(expected["kd"])
    assert norms["l2/one"] == pytest.approx(expected["l2"] / 4)
    assert norms["l2/three"] == pytest.approx(3 * expected["l2"] / 4)


def test_with_the_suggested_weights_gradients_are_as_long_as_the_tasks(loader):
    distiller = made(weights={"task": 2.0, "kd": 7.0})
    weights = suggest_weights(distiller, loader)
    norms = gradient_norms(distiller, loader)
    assert set(weights) == {"kd", "l2"}
    for name, weight in weights.items():
        assert weight * norms[name] == pytest.approx(2 * norms["task"])
    thrice = suggest_weights(distiller, loader, target_ratio=3.0)
    assert thrice == pytest.approx({name: 3 * weight for name, weight in weights.items()})
    one = suggest_weights(distiller, loader, target_ratio={"kd": 0.5})
    assert one == pytest.approx({"kd": 0.5 * weights["kd"], "l2": weights["l2"]})


def test_by_term_each_has_the_ratio_by_itself(loader):
    distiller = made()
    weights = suggest_weights(distiller, loader, target_ratio={"l2": 2.0}, by="term")
    norms = gradient_norms(distiller, loader)
    assert (weights.pop("kd"), weights.pop("l2")) == (1.0, 1.0)
    assert weights["kd/kd"] * norms["kd"] == pytest.approx(norms["task"])
    for term in ("l2/one", "l2/three"):
        assert weights[term] * norms[term] == pytest.approx(2 * norms["task"])
    made(weights=weights)(*loader[0])


def test_without_a_task_the_first_criterion_is_what_others_are_measured_by(loader):
    distiller = made(weights={"task": 0.0, "kd": 5.0})
    norms, weights = gradient_norms(distiller, loader), suggest_weights(distiller, loader)
    assert "task" not in norms
    assert weights["kd"] == pytest.approx(5.0)
    assert weights["l2"] * norms["l2"] == pytest.approx(5 * norms["kd"])


def test_batches_without_labels_are_no_task(loader):
    unlabelled = [(inputs, torch.full_like(labels, -100)) for inputs, labels in loader]
    norms = gradient_norms(made(), [loader[0], *unlabelled])
    assert norms["task"] == pytest.approx(gradient_norms(made(), loader[:1])["task"])
    weights = suggest_weights(made(), unlabelled)
    assert weights["kd"] == pytest.approx(1.0)
    assert weights["l2"] > 0


def test_an_average_that_is_still_the_student_is_refused(loader):
    student = network()
    distiller = Distiller(student, ema(student), criteria={"kd": losses.kd()})
    with pytest.raises(ValueError, match="a teacher that is not the student itself, got the average 'teacher' before"):
        suggest_weights(distiller, loader)
    with torch.no_grad():
        student[0].weight.mul_(2)
    assert suggest_weights(distiller, loader)["kd"] > 0


@pytest.mark.parametrize("batch", [torch.zeros(5, 6), {"inputs": torch.zeros(5, 6)}])
def test_batches_that_are_no_inputs_and_labels_are_refused(batch):
    with pytest.raises(ValueError, match=r"needs batches \(inputs, labels\), perhaps with an index, got"):
        suggest_weights(made(), [batch])


def test_labels_are_not_needed_where_the_task_has_no_weight():
    weights = suggest_weights(made(weights={"task": 0.0}), [(torch.randn(5, 6),)])
    assert set(weights) == {"kd", "l2"}


def test_the_first_feature_that_all_reach_is_taken_unless_one_is_named(loader):
    both = {"late": "2", "feat": "1", "early": "0"}
    distiller = made(student_features=both)
    plain = gradient_norms(made(), loader)
    assert gradient_norms(distiller, loader) == pytest.approx(plain)
    early = gradient_norms(distiller, loader, at="early")
    assert early["l2"] < plain["l2"]
    with pytest.raises(ValueError, match=r"needs a feature .* got task: late; kd: late; l2: none"):
        gradient_norms(distiller, loader, at="late")
    with pytest.raises(ValueError, match="at needs one of the student's features, late, feat, early, logits, got 'x'"):
        gradient_norms(distiller, loader, at="x")


class Forked(nn.Module):
    """Logits that do not depend on what is named as the feature."""

    def __init__(self):
        super().__init__()
        self.feat, self.head = nn.Linear(6, 4), nn.Linear(6, 3)

    def forward(self, inputs):
        self.feat(inputs)
        return self.head(inputs)


def test_where_nothing_is_reached_by_all_it_says_what_is(loader):
    criteria = {"otgd": losses.otgd(embed_dim=4, k=2), "kd": losses.kd()}
    spec = {"feat": "feat"}
    distiller = Distiller(Forked(), Forked(), student_features=spec, teacher_features=spec, criteria=criteria)
    with pytest.raises(ValueError, match="got task: logits; otgd: feat; kd: logits: name a module before"):
        gradient_norms(distiller, loader)


def test_all_teachers_count_as_they_are_weighted(loader):
    torch.manual_seed(0)
    teachers = {"a": network(), "b": network()}
    distiller = Distiller(network(), teachers, criteria={"kd": losses.kd()}, weights={"a": 0.5, "b": 2.0})
    inputs = loader[0][0]
    logits = distiller.student(inputs).detach().requires_grad_()
    values = [
        losses.kd()({"logits": logits}, {"logits": teacher(inputs).detach()}).value for teacher in teachers.values()
    ]
    (slope,) = torch.autograd.grad(0.5 * values[0] + 2 * values[1], logits)
    assert gradient_norms(distiller, loader[:1])["kd"] == pytest.approx(float(slope.norm()))


def test_factors_on_terms_count_within_a_criterion(loader):
    norms = gradient_norms(made(weights={"l2/three": 0.5, "l2": 7.0}), loader)
    assert norms["l2"] == pytest.approx(norms["l2/one"] + 0.5 * norms["l2/three"])


def test_nothing_of_the_distiller_moves(loader):
    student = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    criteria = {
        "crd": losses.crd(num_samples=20, num_negatives=5, embed_dim=4),
        "otgd": losses.otgd(4, 4, embed_dim=4, k=2),
    }
    distiller = made(criteria | {"lazy": losses.otgd(embed_dim=4, k=2)}, weights={"crd": 0.5})
    distiller = Distiller(
        student, distiller.teacher, student_features=FEAT, teacher_features=FEAT, criteria=criteria
    ).eval()
    indexed = [(*batch, torch.arange(len(batch[1]))) for batch in loader]
    with torch.no_grad():
        distiller(*indexed[0])
    before = copy.deepcopy(distiller.state_dict())
    state, frozen = torch.get_rng_state(), copy.deepcopy(distiller.teacher.state_dict())
    first = suggest_weights(distiller, indexed)
    assert suggest_weights(distiller, indexed) == first
    assert torch.equal(torch.get_rng_state(), state)
    for kept, now in ((before, distiller.state_dict()), (frozen, distiller.teacher.state_dict())):
        torch.testing.assert_close(dict(now), dict(kept), rtol=0, atol=0, equal_nan=True)
    assert not distiller.training
    assert all(p.grad is None for p in distiller.parameters())
    assert distiller.weights == {"task": 1.0, "crd": 1.0, "otgd": 1.0}


def test_widths_that_are_not_known_stay_unknown(loader):
    distiller = made({"otgd": losses.otgd(embed_dim=4, k=2)})
    assert suggest_weights(distiller, loader)["otgd"] > 0
    assert any(nn.parameter.is_lazy(p) for p in distiller.parameters())


def test_scheduled_weights_need_no_epoch(loader):
    distiller = made(weights={"kd": lambda epoch, epochs: 1.0})
    assert suggest_weights(distiller, loader) == pytest.approx(suggest_weights(made(), loader))
    tasks = made(weights={"task": lambda epoch, epochs: 2.0})
    tasks.set_epoch(1, 4)
    expected = suggest_weights(made(weights={"task": 2.0}), loader)
    assert suggest_weights(tasks, loader) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_batches": 0}, "num_batches needs an integer of at least 1, got 0"),
        ({"target_ratio": 0.0}, "target_ratio needs a finite number above 0, got 0.0"),
        ({"target_ratio": {"crd": 1.0}}, "target_ratio needs one of kd, l2, got 'crd'"),
        ({"by": "batch"}, "by needs one of criterion, term, got 'batch'|Actual value: 'batch'"),
        ({"loader": []}, "needs a loader with at least one batch, got none"),
    ],
)
def test_bad_options_are_refused(loader, options, match):
    with pytest.raises((ValueError, TypeCheckError), match=match):
        suggest_weights(made(), **({"loader": loader} | options))


def test_a_distiller_without_criteria_is_refused(loader):
    with pytest.raises(ValueError, match="needs a distiller with criteria, got none"):
        gradient_norms(Distiller(network()), loader)


def test_a_criterion_without_a_gradient_is_named(loader):
    student = network()
    same = copy.deepcopy(student)
    distiller = Distiller(student, same, student_features=FEAT, teacher_features=FEAT, criteria={"l2": regression()})
    with pytest.raises(ValueError, match="needs a gradient of 'l2' at the student's features, got one of length 0.0"):
        suggest_weights(distiller, loader)
