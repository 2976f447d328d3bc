"""What holds for every published method: each file in graphkd/losses is found by itself and held to all of this.

A check that a method cannot meet is skipped through ``EXCEPTIONS`` only, with the reason.
"""

import copy
import dataclasses
import importlib
import inspect
import io
import pkgutil
import re

import pytest
import torch
from torch import nn

from graphkd import Criterion, Distiller, losses

RECIPES = sorted(module.name for module in pkgutil.iter_modules(losses.__path__) if not module.name.startswith("_"))

EXCEPTIONS: dict[tuple[str, str], str] = {
    # ("recipe", "test_that_it_cannot_meet"): "why this cannot hold for the method",
    ("hkd", "test_gradient_is_that_of_finite_differences"): "partners follow the batch, but are constants by design",
}

ARGUMENTS = {
    "crd": {"num_samples": 30, "num_negatives": 7},
    "hkd": {"num_samples": 30, "num_negatives": 7},
    "wcord": {"num_samples": 30, "num_negatives": 7},
    "wkd_logits": {"class_cost": 1 - torch.eye(5)},
}
"""What a method cannot do without: all else has a default."""

CLASSES = 5
WIDTHS = {"student": 4, "teacher": 6}
VENUE = r"(NeurIPS|NIPS|ICLR|ICML|CVPR|ICCV|ECCV|WACV|AAAI|IJCAI|ICONIP|TPAMI|TNNLS|TMLR|JMLR|ACL|EMNLP)\D*(19|20)\d\d"


@pytest.fixture(params=RECIPES)
def recipe(request):
    reason = EXCEPTIONS.get((request.param, request.node.originalname))
    if reason is not None:
        pytest.skip(reason)
    return request.param


def build(recipe):
    return getattr(losses, recipe)(**ARGUMENTS.get(recipe, {}))


def draw(n, seed=0, dtype=torch.float32):
    """Features of both networks, and labels of which one is missing."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    student, teacher = (
        {"feat": normal(n, w), "logits": normal(n, CLASSES), "map": normal(n, 3, 2, 2), "tokens": normal(n, 3, 4)}
        for w in WIDTHS.values()
    )
    for side in (student, teacher):
        side["index"] = torch.arange(3, 3 + n)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    labels[-1] = -100
    return student, teacher, labels


def made(recipe, dtype=torch.float32, n=9):
    """A method with its defaults, after a first batch has shown it the widths."""
    torch.manual_seed(0)
    criterion = build(recipe).to(dtype)
    criterion(*draw(n, dtype=dtype))
    return criterion


def output_of(criterion, student, teacher, labels=None):
    """From the same state and the same draws each time, whatever a method remembers."""
    torch.manual_seed(0)
    return copy.deepcopy(criterion)(student, teacher, labels)


def value_and_gradients(criterion, student, teacher, labels):
    """The value, and its gradient for each of the student's features that it depends on smoothly."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in student.items() if x.is_floating_point()}
    value = output_of(criterion, student | leaves, teacher, labels).value
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return value.detach(), {name: g for name, g in zip(leaves, found, strict=True) if g is not None}


class Network(nn.Module):
    """A network that returns its features."""

    def __init__(self, width):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 16), nn.Tanh())
        self.heads = nn.ModuleDict(
            {name: nn.Linear(16, size) for name, size in {"feat": width, "logits": CLASSES}.items()}
            | {"map": nn.Linear(16, 12), "tokens": nn.Linear(16, 12)}
        )

    def forward(self, inputs):
        hidden = self.trunk(inputs)
        features = {name: head(hidden) for name, head in self.heads.items()}
        features["map"] = features["map"].unflatten(1, (3, 2, 2))
        features["tokens"] = features["tokens"].unflatten(1, (3, 4))
        return features


def returned(output):
    return output


def distiller_of(recipe):
    torch.manual_seed(0)
    return Distiller(
        Network(WIDTHS["student"]),
        Network(WIDTHS["teacher"]),
        student_features=returned,
        teacher_features=returned,
        criteria={"it": build(recipe)},
        weights={"task": 0.0},
    )


def test_recipes_are_found():
    assert {"kd", "otgd"} <= set(RECIPES)
    assert ARGUMENTS.keys() <= set(RECIPES)


def test_every_exception_names_a_recipe_and_a_check_and_gives_a_reason():
    checks = {
        name
        for name, check in globals().items()
        if name.startswith("test_") and "recipe" in inspect.signature(check).parameters
    }
    for (recipe, check), reason in EXCEPTIONS.items():
        assert recipe in RECIPES
        assert check in checks
        assert len(reason.split()) >= 4


def test_module_holds_a_function_of_its_own_name_that_the_package_exports(recipe):
    module = importlib.import_module(f"graphkd.losses.{recipe}")
    function = getattr(module, recipe, None)
    assert inspect.isfunction(function), f"graphkd/losses/{recipe}.py needs a function {recipe}"
    assert getattr(losses, recipe) is function, f"graphkd/losses/__init__.py needs to export {recipe}"


def test_with_its_defaults_it_is_a_criterion(recipe):
    assert type(build(recipe)) is Criterion


def test_docstrings_cite_the_paper_and_say_what_the_pairing_is(recipe):
    function = getattr(losses, recipe)
    module = inspect.getdoc(importlib.import_module(f"graphkd.losses.{recipe}")) or ""
    text = inspect.getdoc(function) or ""
    assert re.search(rf"arXiv:\d{{4}}\.\d{{4,5}}|{VENUE}", module + text), "needs arXiv:0000.00000, or venue and year"
    assert re.search(r"Pairing: (used|ignored)", text), "needs 'Pairing: used' or 'Pairing: ignored'"
    assert "Needs:" in text, "needs 'Needs:' with the features that it reads"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_is_a_finite_scalar_of_the_features_dtype(recipe, dtype):
    output = output_of(made(recipe, dtype), *draw(9, dtype=dtype))
    for value in (output.value, *output.terms.values()):
        assert value.shape == ()
        assert value.dtype == dtype
        assert value.isfinite()


def test_value_is_the_weighted_sum_of_its_terms(recipe):
    criterion = made(recipe, torch.float64)
    criterion.terms = {
        name: dataclasses.replace(term, weight=0.5 + i) for i, (name, term) in enumerate(criterion.terms.items())
    }
    output = output_of(criterion, *draw(9, dtype=torch.float64))
    expected = sum((0.5 + i) * value for i, value in enumerate(output.terms.values()))
    torch.testing.assert_close(output.value, expected)
    assert list(output.terms) == list(output.comparisons) == list(criterion.terms)
    assert all(value is output.comparisons[name].value for name, value in output.terms.items())


def test_gradient_reaches_the_student_and_the_learned_parts_but_never_the_teacher(recipe):
    distiller = distiller_of(recipe)
    student, teacher = distiller.student, distiller.teacher
    distiller(torch.randn(9, 8), torch.arange(9) % CLASSES, index=torch.arange(9)).loss.backward()
    assert all(p.grad.isfinite().all() for p in student.parameters() if p.grad is not None)
    assert all(p.grad.abs().max() > 0 for p in student.trunk.parameters())
    learned = [p for p in distiller.criteria.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned)
    assert all(p.grad.abs().max() > 0 for p in learned)
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_a_joint_permutation_of_the_batch_changes_nothing(recipe):
    criterion = made(recipe, torch.float64)
    student, teacher, labels = draw(9, dtype=torch.float64)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    value, gradients = value_and_gradients(criterion, student, teacher, labels)
    moved, moved_gradients = value_and_gradients(
        criterion, *({name: x[order] for name, x in side.items()} for side in (student, teacher)), labels[order]
    )
    torch.testing.assert_close(moved, value)
    torch.testing.assert_close(moved_gradients, {name: g[order] for name, g in gradients.items()})


def test_gradient_is_that_of_finite_differences(recipe):
    criterion = made(recipe, torch.float64)
    student, teacher, labels = draw(9, dtype=torch.float64)
    value, gradients = value_and_gradients(criterion, student, teacher, labels)
    smooth = list(gradients)

    def function(*inputs):
        return output_of(criterion, {**student, **dict(zip(smooth, inputs, strict=True))}, teacher, labels).value

    inputs = [student[name].clone().requires_grad_() for name in smooth]
    assert torch.autograd.gradcheck(function, inputs, rtol=1e-4, fast_mode=True)
    # What gets no gradient is unused, or only chooses neighbours: a small step must then change nothing.
    unused = [name for name, x in student.items() if x.is_floating_point() and name not in smooth]
    for name in unused:
        assert output_of(criterion, {**student, name: student[name] + 1e-7}, teacher, labels).value == value


@pytest.mark.parametrize("rows", ["one repeated", "all alike", "two zero"])
def test_unusual_rows_give_a_finite_value_and_gradient(recipe, rows):
    student, teacher, labels = draw(9)
    for side in (student, teacher):
        for x in (x for x in side.values() if x.is_floating_point()):
            if rows == "one repeated":
                x[3] = x[7]
            elif rows == "all alike":
                x[:] = x[:1].clone()
            else:
                x[2:4] = 0
    value, gradients = value_and_gradients(made(recipe), student, teacher, labels)
    assert value.isfinite()
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("n", [2, 3])
def test_a_short_last_batch_works(recipe, n):
    value, gradients = value_and_gradients(made(recipe), *draw(n))
    assert value.isfinite()
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_under_autocast_it_computes_in_float32(recipe):
    criterion = made(recipe)
    student, teacher, labels = draw(9)
    half = {name: x.bfloat16() if x.is_floating_point() else x for name, x in student.items()}
    full = {name: x.float() if x.is_floating_point() else x for name, x in half.items()}
    expected = output_of(criterion, full, teacher, labels).value
    with torch.autocast("cpu", torch.bfloat16):
        value, gradients = value_and_gradients(criterion, half, teacher, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected.detach())
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_moved_to_half_precision_it_stays_in_float32(recipe):
    distiller = distiller_of(recipe).to(torch.bfloat16)
    student = distiller.student
    step = distiller(torch.randn(9, 8).bfloat16(), torch.arange(9) % CLASSES, index=torch.arange(9))
    assert step.loss.dtype == torch.float32
    assert step.loss.isfinite()
    step.loss.backward()
    assert all(p.grad.isfinite().all() for p in student.parameters() if p.grad is not None)
    assert {p.dtype for p in student.parameters()} == {torch.bfloat16}
    held = [*distiller.criteria.parameters(), *distiller.criteria.buffers()]
    assert not any(x.dtype == torch.bfloat16 for x in held)


def test_labels_may_be_given_or_omitted(recipe):
    criterion = made(recipe)
    student, teacher, labels = draw(9)
    for given in (labels, torch.full_like(labels, -100), None):
        value, gradients = value_and_gradients(criterion, student, teacher, given)
        assert value.isfinite()
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_inputs_are_left_as_they_are(recipe):
    criterion = made(recipe)
    given, same = draw(9), draw(9)
    output_of(criterion, *given)
    torch.testing.assert_close(given, same, rtol=0, atol=0)


def test_a_copy_is_equal_and_independent(recipe):
    criterion = made(recipe)
    copied = copy.deepcopy(criterion)
    expected = output_of(criterion, *draw(9)).value
    assert output_of(copied, *draw(9)).value == expected
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert output_of(criterion, *draw(9)).value == expected
    if list(copied.parameters()):
        assert output_of(copied, *draw(9)).value != expected


def test_a_copy_may_be_made_before_the_first_batch(recipe):
    torch.manual_seed(0)
    output = output_of(copy.deepcopy(build(recipe)), *draw(9))
    assert output.value.isfinite()


def test_a_saved_criterion_loads_equal(recipe):
    criterion = made(recipe)
    file = io.BytesIO()
    torch.save(criterion, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert output_of(loaded, *draw(9)).value == output_of(criterion, *draw(9)).value


def test_a_state_loads_into_a_fresh_criterion(recipe):
    criterion = made(recipe)
    torch.manual_seed(1)
    fresh = build(recipe)
    fresh.load_state_dict(criterion.state_dict())
    assert output_of(fresh, *draw(9)).value == output_of(criterion, *draw(9)).value
