"""The class cost of a teacher, streamed and kept, against all samples at once."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from graphkd import class_cost as module
from graphkd import kept
from graphkd.class_cost import class_cost
from graphkd.measures import cosine
from graphkd.relations import class_distance, linear_cka, rbf_cka

CLASSES = 3


class Teacher(nn.Module):
    """A small CNN with what must be left alone: batch statistics, dropout, a frozen part."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh())
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.conv(x)).mean((2, 3)))


@pytest.fixture
def teacher() -> Teacher:
    return Teacher().double()


def data(n: int = 41) -> TensorDataset:
    """Classes of 13, 14 and 14 samples that lie in different places, out of order."""
    generator = torch.Generator().manual_seed(0)
    labels = (5 * torch.arange(n) + 1) % CLASSES
    x = torch.randn(n, 1, 4, 5, generator=generator, dtype=torch.float64)
    return TensorDataset(x * (1 + labels).reshape(n, 1, 1, 1) + labels.reshape(n, 1, 1, 1), labels)


def loader(size: int = 6, source: TensorDataset | None = None) -> DataLoader:
    return DataLoader(source or data(), size)


def cost(teacher: nn.Module, batches: Iterable | None = None, **options) -> Tensor:
    return class_cost(teacher, loader() if batches is None else batches, **{"progress": False} | options)


def by_class(features: Tensor, m: int = 13) -> Tensor:
    """All samples at once: each class's first m in the order of the data."""
    labels = data().tensors[1]
    return torch.stack([features[labels == label][:m] for label in range(CLASSES)])


@torch.no_grad()
def logits(teacher: Teacher) -> Tensor:
    modes = [each.training for each in teacher.modules()]
    output = teacher.eval()(data().tensors[0])
    for each, mode in zip(teacher.modules(), modes, strict=True):
        each.training = mode
    return output


@torch.no_grad()
def maps(teacher: Teacher) -> Tensor:
    layer = teacher.conv[1]
    x = (teacher.conv[0](data().tensors[0]) - layer.running_mean.reshape(-1, 1, 1)) / (1 + layer.eps) ** 0.5
    return torch.tanh(x)


@pytest.mark.parametrize("size", [1, 6, 41])
@pytest.mark.parametrize("most", [None, 5])
@pytest.mark.parametrize("relation, similarity", [("linear_cka", linear_cka), ("rbf_cka", lambda x: rbf_cka(x, 0.8))])
def test_streamed_logits_are_related_as_all_at_once(teacher, relation, similarity, most, size):
    wanted = class_distance(similarity(by_class(logits(teacher), most or 13)), 1.0)
    got = cost(teacher, loader(size), relation=relation, samples_per_class=most)
    torch.testing.assert_close(got, wanted, atol=1e-10, rtol=0)
    assert got.max() > 0.01


@pytest.mark.parametrize("most", [None, 5])
def test_centroids_are_means_of_every_class_uncut(teacher, most):
    x, labels = logits(teacher), data().tensors[1]
    means = torch.stack([x[labels == label][:most].mean(0) for label in range(CLASSES)])
    wanted = class_distance(cosine(means, means), 1.0)
    got = cost(teacher, relation="centroids", samples_per_class=most)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


def test_positions_of_maps_are_examples(teacher):
    x = maps(teacher)
    rows = torch.stack([torch.stack([image[:, i, j] for i in range(2) for j in range(3)]) for image in x])
    wanted = class_distance(linear_cka(by_class(rows).flatten(1, 2)), 1.0)
    torch.testing.assert_close(cost(teacher, feature="conv"), wanted, atol=1e-10, rtol=0)
    pooled = by_class(rows.mean(1), 13)
    labels = data().tensors[1]
    means = torch.stack([rows.mean(1)[labels == label].mean(0) for label in range(CLASSES)])
    got = cost(teacher, feature="conv", relation="centroids")
    torch.testing.assert_close(got, class_distance(cosine(means, means), 1.0), atol=1e-10, rtol=0)
    wanted = class_distance(linear_cka(pooled), 1.0)
    torch.testing.assert_close(cost(teacher, feature="fc:input"), wanted, atol=1e-10, rtol=0)


def test_tokens_are_examples():
    x = torch.randn(12, 5, 4)
    labels = torch.arange(12) % 2
    wanted = class_distance(linear_cka(torch.stack([x[labels == k].flatten(0, 1) for k in range(2)])), 1.0)
    got = cost(nn.Identity(), DataLoader(TensorDataset(x, labels), 5), num_classes=2, feature="logits")
    torch.testing.assert_close(got, wanted)


def test_the_classifier_is_related_without_a_pass(teacher):
    wanted = class_distance(cosine(teacher.fc.weight, teacher.fc.weight).detach(), 2.0)
    for options in ({}, {"feature": "fc"}, {"num_classes": CLASSES}):
        got = class_cost(teacher, None, relation="classifier", sharpen=2, **options)
        assert torch.equal(got, wanted)
        assert not got.requires_grad
    small = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(2, 2))
    rows = small[0].weight.flatten(1)
    assert torch.equal(
        class_cost(small, None, relation="classifier", feature="0", sharpen=0),
        class_distance(cosine(rows, rows)).detach(),
    )
    deep = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 6), nn.Softmax(1))
    assert class_cost(deep, None, relation="classifier").shape == (6, 6)
    for feature in ("conv.0", "conv", "nothing"):
        with pytest.raises(ValueError, match=f"a module with a weight \\(classes, d\\), got '{feature}' of Teacher"):
            class_cost(teacher, None, relation="classifier", feature=feature)
    with pytest.raises(ValueError, match="got 'logits' of Identity"):
        class_cost(nn.Identity(), None, relation="classifier")
    with pytest.raises(ValueError, match="the weight of 'fc' needs a row per class, 7, got 3"):
        class_cost(teacher, None, relation="classifier", num_classes=7)
    with torch.no_grad():
        teacher.fc.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="the weight of 'fc' needs finite values"):
        class_cost(teacher, None, relation="classifier")


def test_sharpening_and_width_are_those_asked_for(teacher):
    raw = cost(teacher, relation="rbf_cka", sharpen=0)
    torch.testing.assert_close(cost(teacher, relation="rbf_cka"), 1 - torch.exp(-raw))
    torch.testing.assert_close(cost(teacher, relation="rbf_cka", sharpen=2.5), 1 - torch.exp(-2.5 * raw))
    wanted = class_distance(rbf_cka(by_class(logits(teacher)), 0.3))
    torch.testing.assert_close(cost(teacher, relation="rbf_cka", sharpen=0, sigma=0.3), wanted)


@pytest.mark.parametrize("relation", ["linear_cka", "centroids", "classifier"])
def test_the_cost_is_symmetric_and_free_on_the_diagonal(teacher, relation):
    x, labels = data().tensors
    got = cost(teacher.float(), loader(6, TensorDataset(x.float(), labels)), relation=relation)
    assert got.dtype == torch.float32
    assert torch.equal(got, got.T)
    assert not got.diagonal().any()
    assert (got >= 0).all() and got.sum() > 0


def test_the_teacher_and_the_random_state_are_left_as_they_were(teacher):
    teacher.conv[1].eval()
    teacher.fc.weight.requires_grad_(False)
    teacher.fc.bias.grad = torch.ones(CLASSES, dtype=torch.float64)
    modes = [each.training for each in teacher.modules()]
    assert len(set(modes)) == 2
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    random = torch.get_rng_state()

    def check() -> None:
        assert [each.training for each in teacher.modules()] == modes
        assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())
        assert [name for name, x in teacher.named_parameters() if not x.requires_grad] == ["fc.weight"]
        assert [name for name, x in teacher.named_parameters() if x.grad is not None] == ["fc.bias"]
        assert not any(each._forward_hooks or each._forward_pre_hooks for each in teacher.modules())
        assert torch.equal(torch.get_rng_state(), random)

    got = cost(teacher, DataLoader(data(), 6, shuffle=True))
    assert not got.requires_grad
    check()
    with pytest.raises(ValueError, match="labels need"):
        cost(teacher, [(torch.zeros(2, 1, 4, 5, dtype=torch.float64), torch.tensor([0, 9]))])
    check()


def test_a_training_teacher_is_judged_in_eval_mode_without_autocast(teacher):
    x, labels = data().tensors
    single = TensorDataset(x.float(), labels)
    wanted = cost(teacher.float().eval(), loader(6, single))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cost(teacher.train(), loader(6, single)), wanted)


def test_the_pass_ends_when_every_class_is_full(teacher):
    seen = []

    def batches():
        for batch in loader():
            seen.append(len(batch[1]))
            yield batch

    got = cost(teacher, batches(), samples_per_class=3)
    assert seen == [6, 6]
    torch.testing.assert_close(got, class_distance(linear_cka(by_class(logits(teacher), 3)), 1.0))


def test_samples_without_a_label_are_skipped_and_counted(teacher, caplog):
    wanted = cost(teacher)
    x, y = data().tensors
    noise = torch.randn(20, 1, 4, 5, dtype=torch.float64)
    mixed = TensorDataset(
        torch.cat([noise, x, noise]), torch.cat([torch.full((20,), -100), y, torch.full((20,), -100)])
    )
    torch.testing.assert_close(cost(teacher, loader(7, mixed)), wanted)
    assert "class cost: skipped 40 samples without a label" in caplog.text


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor, scale: Tensor):
        return type("Output", (), {"logits": self.fc(x * scale)})()


def test_inputs_may_be_sequences_or_named_and_batches_carry_more():
    teacher = Named()
    x, y = torch.randn(15, 4), torch.arange(15) % CLASSES
    wanted = class_distance(linear_cka(torch.stack([teacher.fc(2 * x[y == k]) for k in range(CLASSES)])), 1.0).detach()
    two = torch.tensor(2.0)
    for inputs in ((x, two), [x, two], {"scale": two, "x": x}):
        torch.testing.assert_close(cost(teacher, [(inputs, y)]), wanted)
        torch.testing.assert_close(cost(teacher, [[inputs, y, torch.arange(15)]]), wanted)


@pytest.mark.parametrize("relation", ["linear_cka", "rbf_cka", "centroids", "classifier"])
def test_a_kept_cost_comes_back_without_a_pass(teacher, relation, tmp_path, monkeypatch):
    path = str(tmp_path / "new" / "cost.pt")
    wanted = cost(teacher, relation=relation, path=path, num_classes=CLASSES)
    monkeypatch.setattr(Teacher, "forward", lambda *args: pytest.fail("ran"))
    monkeypatch.setattr(module, "class_distance", lambda *args: pytest.fail("computed"))
    for classes in (None, CLASSES):
        assert torch.equal(cost(teacher, relation=relation, path=path, num_classes=classes), wanted)
    with pytest.raises(ValueError, match="needs a cost of 4 classes, got one of 3"):
        cost(teacher, relation=relation, path=path, num_classes=4)


@pytest.mark.parametrize(
    "differs, options",
    [
        ("options 'sharpen': 1.0 there, 2.0 here", {"sharpen": 2}),
        ("options 'relation': 'rbf_cka' there, 'linear_cka' here", {"relation": "linear_cka"}),
        ("options 'sigma': 0.8 there, 0.4 here", {"sigma": 0.4}),
        ("options 'feature': 'logits' there, 'conv' here", {"feature": "conv"}),
        ("options 'samples_per_class': None there, 4 here", {"samples_per_class": 4}),
        ("fingerprint 'samples': 41 there, 40 here", {"batches": loader(6, data(40))}),
        ("fingerprint 'samplers'", {"batches": DataLoader(data(), 6, shuffle=True)}),
    ],
)
def test_a_cost_made_otherwise_is_refused_unless_it_may_be_replaced(teacher, differs, options, tmp_path):
    path = tmp_path / "cost.pt"
    kept_cost = cost(teacher, relation="rbf_cka", path=path)
    asked = {"relation": "rbf_cka", "path": path} | options
    with pytest.raises(ValueError, match=differs) as error:
        cost(teacher, **asked)
    assert "overwrite=True" in str(error.value)
    assert torch.equal(cost(teacher, relation="rbf_cka", path=path), kept_cost)
    torch.manual_seed(1)
    replaced = cost(teacher, **asked, overwrite=True)
    assert torch.equal(cost(teacher, **asked), replaced)


def test_another_teacher_is_told_from_the_first(teacher, tmp_path):
    path = tmp_path / "cost.pt"
    cost(teacher, path=path)
    teacher.conv[1].running_mean += 1
    with pytest.raises(ValueError, match="fingerprint 'weights'"):
        cost(teacher, path=path)


def test_options_that_a_relation_does_not_read_do_not_matter(teacher, tmp_path):
    path = tmp_path / "cost.pt"
    cost(teacher, relation="classifier", path=path)
    class_cost(teacher, None, relation="classifier", path=path, samples_per_class=3, sigma=2.0)
    path = tmp_path / "other.pt"
    cost(teacher, path=path)
    cost(teacher, path=path, sigma=2.0)


def test_overwriting_computes_anew(teacher, tmp_path):
    path = tmp_path / "cost.pt"
    wanted = cost(teacher, path=path)
    options = torch.load(path, weights_only=True)
    kept.save(path, torch.zeros(CLASSES, CLASSES), {name: options[name] for name in ("options", "fingerprint")})
    assert not cost(teacher, path=path).any()
    assert torch.equal(cost(teacher, path=path, overwrite=True), wanted)
    assert torch.equal(cost(teacher, path=path), wanted)


def test_a_path_needs_data_that_can_be_looked_at_twice(teacher, tmp_path):
    with pytest.raises(ValueError, match="a fingerprint needs data with a length and an index"):
        cost(teacher, iter(loader()), path=tmp_path / "cost.pt")
    cost(teacher, iter(loader()))


@pytest.mark.parametrize(
    "message, options",
    [
        ("relation needs one of linear_cka, rbf_cka, centroids, classifier", {"relation": "cosine"}),
        ("sharpen needs a finite number of at least 0", {"sharpen": -1.0}),
        ("sigma needs a finite number above 0", {"sigma": 0.0}),
        ("num_classes needs an integer of at least 2", {"num_classes": 1}),
        ("samples_per_class needs an integer of at least 1", {"samples_per_class": 0}),
        ("needs the path of a module of Teacher, got 'layer3'", {"feature": "layer3"}),
        ("labels need numbers from 0 to 1, or -100 for none, got 2", {"num_classes": 2}),
        ("needs samples of every class, got none of 2 of 5: 3, 4", {"num_classes": 5}),
        ("needs at least 3 samples per class, got 2", {"samples_per_class": 2}),
        ("needs a loader with at least one batch", {"batches": []}),
        (r"needs batches \(inputs, labels\) with a tensor of labels, got Tensor", {"batches": [torch.zeros(2)]}),
        (
            r"needs batches \(inputs, labels\) with a tensor of labels, got list",
            {"batches": [[torch.zeros(2), [1, 2]]]},
        ),
    ],
)
def test_what_cannot_be_done_is_said(teacher, message, options):
    with pytest.raises(ValueError, match=message):
        # Words that the annotations do not allow are refused by the checker of types in tests.
        unchecked(class_cost)(teacher, options.pop("batches", loader()), progress=False, **options)


def unchecked(function: Callable) -> Callable:
    """A function without the checker of types that tests put around it."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def test_a_relation_of_features_needs_a_loader(teacher):
    with pytest.raises(ValueError, match="relation 'centroids' needs a loader, got None"):
        class_cost(teacher, None, relation="centroids")


def test_features_that_are_not_finite_or_of_odd_shape_are_refused(teacher):
    broken = data()
    broken.tensors[0][40, 0, 0, 0] = torch.nan
    for relation in ("linear_cka", "centroids"):
        with pytest.raises(ValueError, match=r"feature 'logits' needs finite values, got \d+ NaN or infinite of 15"):
            cost(teacher, loader(6, broken), relation=relation)
    x, y = torch.zeros(4, 2, 2, 2, 2), torch.arange(4) % 2
    with pytest.raises(ValueError, match=r"needs shape \(n, d\), \(n, t, d\) or \(n, c, h, w\), got \(4, 2, 2, 2, 2\)"):
        cost(nn.Identity(), [(x, y)], num_classes=2)
    with pytest.raises(ValueError, match="feature 'logits' needs floating-point values"):
        cost(nn.Identity(), [(y.reshape(2, 2), y[:2])], num_classes=2)
    with pytest.raises(ValueError, match="needs num_classes where the model's output is not logits"):
        cost(nn.Identity(), [(x[..., 0, 0], y)])


def test_a_bar_is_shown_unless_it_is_switched_off(teacher, capsys):
    cost(teacher)
    assert capsys.readouterr().out.strip() == ""
    cost(teacher, progress=True)
    assert "class cost" in (shown := capsys.readouterr().out) and "7/7" in shown


def test_half_precision_features_are_compared_in_single():
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    got = cost(nn.Identity(), [(x.half(), y)], num_classes=3)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, cost(nn.Identity(), [(x, y)], num_classes=3), atol=1e-3, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("relation", ["linear_cka", "rbf_cka", "centroids", "classifier"])
def test_the_cost_is_made_where_the_teacher_lives(teacher, relation, tmp_path):
    wanted = cost(teacher, relation=relation, feature="logits")
    got = cost(teacher.cuda(), relation=relation, path=tmp_path / "cost.pt")
    torch.testing.assert_close(got.cpu(), wanted, atol=1e-9, rtol=0)
    again = cost(teacher, relation=relation, path=tmp_path / "cost.pt")
    assert got.is_cuda and again.is_cuda and torch.equal(again, got)
