"""KD2M against its definition: all permutations are tried, since with equal masses the best plan is one of them."""

from itertools import permutations

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from graphkd.losses import kd2m

REFUSED = (ValueError, TypeCheckError)  # With shape checks on, a word outside a Literal does not get as far as ours.
KINDS = ["marginal", "conditional", "joint"]
LABELS = torch.tensor([1, 0, 1, -100, 0, 1])


def draw(n=6, widths=(3, 3), seed=2):
    """Features and logits; classes are 3, as features may be."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "feat": torch.randn(n, d, generator=generator, dtype=torch.float64),
            "logits": 2 * torch.randn(n, 4, generator=generator, dtype=torch.float64),
        }
        for d in widths
    ]


def unit_by_loops(row):
    return row / sum(a**2 for a in row).sqrt()


def probabilities_by_loops(row):
    total = sum(z.exp() for z in row)
    return [z.exp() / total for z in row]


def squared(x, y):
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def kd2m_by_permutations(student, teacher, kind, labels=None, label_weight=1.0, normalize=True):
    """The smallest mean cost over the permutations that are allowed."""
    n = len(student["feat"])
    x, y = ([unit_by_loops(row) if normalize else row for row in side["feat"]] for side in (student, teacher))
    cost = [[squared(a, b) for b in y] for a in x]
    if kind == "joint":
        p, q = ([probabilities_by_loops(row) for row in side["logits"]] for side in (student, teacher))
        cost = [[cost[i][j] + label_weight * squared(p[i], q[j]) for j in range(n)] for i in range(n)]
    allowed = permutations(range(n))
    if kind == "conditional":
        allowed = (order for order in allowed if all(labels[i] == labels[j] for i, j in enumerate(order)))
    numbers = [[entry.item() for entry in row] for row in cost]
    best = min(allowed, key=lambda order: sum(numbers[i][j] for i, j in enumerate(order)))
    return sum(cost[i][j] for i, j in enumerate(best)) / n


def leaves(side):
    return {name: x.clone().requires_grad_() for name, x in side.items()}


def slopes(value, side):
    found = torch.autograd.grad(value, list(side.values()), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(side.values(), found, strict=True)]


@pytest.mark.parametrize("seed", [2, 4])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("kind", "label_weight"), [*((kind, 1) for kind in KINDS), ("joint", 0.3), ("joint", 5.0)])
def test_value_and_gradient_are_those_of_the_best_permutation(kind, label_weight, normalize, seed):
    student, teacher = draw(seed=seed)
    student = leaves(student)
    criterion = kd2m(kind=kind, label_weight=label_weight, normalize=normalize, projector=None)
    output = criterion(student, teacher, LABELS)
    wanted = kd2m_by_permutations(student, teacher, kind, LABELS, label_weight, normalize)
    torch.testing.assert_close(output.value, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.terms["transport"], wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slopes(output.value, student), slopes(wanted, student), rtol=1e-10, atol=1e-12)


def test_the_three_kinds_differ_and_their_best_plans_too():
    student, teacher = draw()
    outputs = [kd2m(kind=kind, projector=None)(student, teacher, LABELS) for kind in KINDS]
    marginal, conditional, joint = (float(output.value) for output in outputs)
    assert marginal < conditional
    assert marginal < joint
    plans = [output.comparisons["transport"].plan for output in outputs]
    assert not any(torch.equal(one, other) for one, other in zip(plans, [*plans[1:], plans[0]], strict=True))


def test_its_defaults_are_joint_with_features_of_length_one_behind_a_linear_map():
    student, teacher = draw(widths=(3, 5))
    criterion = kd2m().double()
    value = criterion(student, teacher).value
    weight, bias = (p.detach() for p in criterion.parameters())
    assert weight.shape == (5, 3)
    projected = student | {"feat": student["feat"] @ weight.T + bias}
    torch.testing.assert_close(value, kd2m_by_permutations(projected, teacher, "joint"), rtol=1e-10, atol=1e-12)


def test_a_conditional_distance_is_that_of_each_class_weighted_with_its_share():
    student, teacher = draw()
    value = kd2m(kind="conditional", projector=None)(student, teacher, LABELS).value
    wanted = 0
    for label in (0, 1, -100):
        own = LABELS == label
        ours, theirs = ({"feat": side["feat"][own]} for side in (student, teacher))
        alone = kd2m(kind="marginal", projector=None)(ours, theirs).value
        wanted = wanted + own.sum() / len(LABELS) * alone
    torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize("coupling", ["exact", "sinkhorn"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_no_mass_leaves_its_class(scale, dtype, coupling):
    # Each class's rows are where the other class's are at the teacher: staying costs the most there is.
    student = {"feat": scale * torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]], dtype=dtype)}
    teacher = {"feat": -student["feat"]}
    labels = torch.tensor([0, 0, 1, 1])
    options = {"normalize": False, "epsilon": 0.05 * scale**2}
    criterion = kd2m(kind="conditional", coupling=coupling, projector=None, **options)
    plan = criterion(student, teacher, labels).comparisons["transport"].plan
    assert plan[:2, 2:].sum() + plan[2:, :2].sum() < 1e-30
    assert float(plan.sum()) == pytest.approx(1, abs=1e-5)


def test_large_class_numbers_cost_no_digits():
    student, teacher = draw()
    labels = torch.where(LABELS == 1, 20_000, LABELS)
    criterion = kd2m(kind="conditional", projector=None)
    single = ({name: x.float() for name, x in side.items()} for side in (student, teacher))
    wanted = criterion(student, teacher, labels).value
    assert float(criterion(*single, labels).value) == pytest.approx(float(wanted), rel=1e-5)
    torch.testing.assert_close(criterion(student, teacher, LABELS).value, wanted)


def test_without_labels_the_conditional_distance_is_the_marginal_one():
    student, teacher = draw()
    conditional, marginal = (kd2m(kind=kind, projector=None) for kind in ("conditional", "marginal"))
    wanted = marginal(student, teacher).value
    for labels in (None, torch.full((6,), -100), torch.full((6,), 2)):
        torch.testing.assert_close(conditional(student, teacher, labels).value, wanted)


def test_of_soft_labels_the_most_likely_class_counts():
    student, teacher = draw()
    soft = torch.nn.functional.one_hot(LABELS.clamp_min(0), 3) * 0.8 + 0.1
    criterion = kd2m(kind="conditional", projector=None)
    wanted = criterion(student, teacher, LABELS.clamp_min(0)).value
    torch.testing.assert_close(criterion(student, teacher, soft.double()).value, wanted)


def test_labels_change_the_conditional_distance_alone():
    student, teacher = draw()
    for kind in KINDS:
        criterion = kd2m(kind=kind, projector=None)
        values = [criterion(student, teacher, labels).value for labels in (LABELS, LABELS.flip(0), None)]
        assert (len({round(float(value), 9) for value in values}) > 1) == (kind == "conditional")


@pytest.mark.parametrize("kind", KINDS)
def test_the_pairing_is_ignored_and_equal_networks_are_at_distance_zero(kind):
    student, teacher = draw()
    order = torch.tensor([2, 4, 5, 3, 1, 0])  # within the classes, which keeps the labels
    assert torch.equal(LABELS[order], LABELS)
    moved = {name: x[order] for name, x in teacher.items()}
    criterion = kd2m(kind=kind, projector=None)
    value = criterion(student, teacher, LABELS).value
    assert value > 0.1
    torch.testing.assert_close(criterion(student, moved, LABELS).value, value)
    shuffled = {name: x[order] for name, x in student.items()}
    assert criterion(student, shuffled, LABELS).value.abs() < 1e-12


def test_an_entropic_plan_comes_near_the_exact_one_as_epsilon_falls():
    student, teacher = draw()
    exact = float(kd2m(projector=None)(student, teacher).value)
    values = [
        float(kd2m(projector=None, coupling="sinkhorn", epsilon=e, num_iters=500)(student, teacher).value)
        for e in (1.0, 0.1, 0.01)
    ]
    assert values[0] > values[1] > exact - 1e-6
    assert values[2] == pytest.approx(exact, rel=1e-3)
    few = kd2m(projector=None, coupling="sinkhorn", epsilon=0.01, num_iters=1)(student, teacher)
    assert few.comparisons["transport"].marginal_error > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_does_not_change_with_the_batch_nor_the_width(kind):
    def value(n, width):
        generator = torch.Generator().manual_seed(n)
        labels = torch.arange(n) % 2
        # Two classes far apart and little noise: more samples do not find much nearer partners.
        sides = []
        for centres in torch.randn(2, 2, width, generator=torch.Generator().manual_seed(0)):
            noise = torch.randn(n, width, generator=generator)
            sides.append({"feat": centres[labels] + 0.3 * noise, "logits": 5 * torch.eye(2)[labels]})
        return float(kd2m(kind=kind, projector=None)(*sides, labels).value)

    values = [value(n, width) for n in (16, 64, 256) for width in (64, 1024)]
    assert max(values) < 1.3 * min(values)


def test_a_projector_of_ones_own_is_used_on_the_student_alone():
    student, teacher = draw(widths=(3, 5))
    own = nn.Linear(3, 5).double()
    value = kd2m(projector=own)(student, teacher).value
    projected = student | {"feat": own(student["feat"])}
    torch.testing.assert_close(value, kd2m(projector=None)(projected, teacher).value)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "both"},
        {"coupling": "identity"},
        {"label_weight": -1.0},
        {"projector": "conv1x1"},
        {"student_dim": 0},
        {"epsilon": 0, "coupling": "sinkhorn"},
        {"num_iters": 0, "coupling": "sinkhorn"},
    ],
)
def test_bad_options_are_refused_at_construction(options):
    with pytest.raises(REFUSED):
        kd2m(**options)


def test_what_a_kind_needs_is_asked_for():
    student, teacher = ({"feat": side["feat"]} for side in draw())
    with pytest.raises(KeyError, match="logits"):
        kd2m(kind="joint", projector=None)(student, teacher)
    assert kd2m(kind="marginal", projector=None)(student, teacher).value > 0
    student, teacher = draw(widths=(3, 5))
    with pytest.raises(ValueError, match="one width"):
        kd2m(kind="marginal", projector=None)(student, teacher)


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.01])
def test_an_entropic_plan_keeps_to_classes_however_near_samples_are(scale):
    base = torch.randn(1, 16)
    labels = torch.arange(32) % 4
    student, teacher = ({"feat": base + scale * torch.randn(32, 16)} for _ in range(2))
    criterion = kd2m(kind="conditional", coupling="sinkhorn", projector=None)
    plan = criterion(student, teacher, labels).comparisons["transport"].plan
    within = labels[:, None] == labels
    assert float(plan[~within].sum()) < 1e-6
    assert float(plan[within].sum()) == pytest.approx(1, abs=1e-5)
