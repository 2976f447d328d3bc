"""Instance relationship graphs against their definition, written again with plain loops."""

import pytest
import torch
from jaxtyping import TypeCheckError
from structured import assert_like_loops, size

from graphkd.losses import irg

REFUSED = (ValueError, TypeCheckError)
PAIRS = [("early", "middle"), ("middle", "late")]
TERMS = ["vertex", "edge"] + [f"{part}_transformation_{i}" for i in (1, 2) for part in ("vertex", "edge")]


def draw(n=6):
    def network(width, stage, scale):
        widths = {"feat": width, "logits": 4, "early": stage, "middle": stage, "late": stage}
        return {name: scale * torch.randn(n, d, dtype=torch.float64) for name, d in widths.items()}

    return network(3, 2, 1.0), network(5, 7, 3.0)


def square(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def edges_by_loops(x):
    n = len(x)
    apart = [[square(x[i], x[k]) for k in range(n)] for i in range(n)]
    largest = max(max(row) for row in apart)
    return [[value / largest for value in row] for row in apart]


def moves_by_loops(before, after):
    far = [square(a, b) for a, b in zip(after, before, strict=True)]
    return [value / max(far) for value in far]


def changes_by_loops(before, after):
    one, other = edges_by_loops(before), edges_by_loops(after)
    return [[(b - a) ** 2 for a, b in zip(*rows, strict=True)] for rows in zip(one, other, strict=True)]


def mean_gap(s, t):
    n = len(s)
    return sum(square(s[i], t[i]) for i in range(n)) / n**2


def irg_by_loops(weights):
    def value(student, teacher):
        n, c = student["logits"].shape
        both = (student, teacher)
        terms = {
            "vertex": sum(map(square, student["logits"], teacher["logits"])) / n / c,
            "edge": mean_gap(*(edges_by_loops(side["feat"]) for side in both)),
        }
        for i, (first, last) in enumerate(PAIRS, 1):
            moves = [moves_by_loops(side[first], side[last]) for side in both]
            terms[f"vertex_transformation_{i}"] = square(*moves) / n
            changes = [changes_by_loops(side[first], side[last]) for side in both]
            terms[f"edge_transformation_{i}"] = mean_gap(*changes)
        return sum(weights[name.rstrip("_12")] * term for name, term in terms.items() if name.rstrip("_12") in weights)

    return value


@pytest.mark.parametrize("alone", [None, "vertex", "edge", "vertex_transformation", "edge_transformation"])
def test_it_is_the_squared_difference_of_vertices_edges_and_their_changes(alone):
    kinds = ["vertex", "edge", "vertex_transformation", "edge_transformation"]
    weights = {kind: 0.5 + i if alone in (None, kind) else 0 for i, kind in enumerate(kinds)}
    criterion = irg(layers=PAIRS, **{f"{kind}_weight": weight for kind, weight in weights.items()})
    expected = TERMS if alone is None else [name for name in TERMS if name.rstrip("_12") == alone]
    assert list(criterion.terms) == expected
    assert_like_loops(criterion, *draw(), irg_by_loops(weights))


def test_by_default_edges_do_not_change_and_all_else_weighs_one():
    assert_like_loops(irg(), *draw(), irg_by_loops({"vertex": 1, "edge": 1}))
    weights = {"vertex": 1, "edge": 1, "vertex_transformation": 1}
    assert_like_loops(irg(layers=PAIRS), *draw(), irg_by_loops(weights))


def test_half_the_batch_is_the_released_number():
    student, teacher = draw()
    output = irg(layers=PAIRS)(student, teacher)
    n = 6
    s, t = (edges_by_loops(side["feat"]) for side in (student, teacher))
    released = sum(square(s[i], t[i]) for i in range(n)) / (2 * n)
    assert float(n / 2 * output.terms["edge"]) == pytest.approx(float(released))
    released = square(*(moves_by_loops(side["early"], side["middle"]) for side in (student, teacher))) / 2
    assert float(n / 2 * output.terms["vertex_transformation_1"]) == pytest.approx(float(released))


def test_vertices_may_be_another_feature():
    student, teacher = draw()
    same = {**teacher, "feat": torch.randn(6, 3, dtype=torch.float64)}
    criterion = irg(vertices="feat", edge_weight=0)
    expected = sum(map(square, student["feat"], same["feat"])) / 18
    torch.testing.assert_close(criterion(student, same).value, expected)


def test_maps_are_averaged_over_their_positions():
    student, teacher = draw()
    maps = [{name: x[:, :, None, None] + torch.randn(6, 1, 2, 3) for name, x in side.items()} for side in draw()]
    pooled = [{name: x.mean((2, 3)) for name, x in side.items()} for side in maps]
    criterion = irg(layers=PAIRS, edge_transformation_weight=1)
    torch.testing.assert_close(criterion(*maps).value, criterion(*pooled).value)


def test_the_gradient_passes_the_largest_distance():
    x = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64, requires_grad=True)
    teacher = {"feat": torch.tensor([[0.0], [2.0], [3.0]], dtype=torch.float64)}
    (gradient,) = torch.autograd.grad(irg(vertex_weight=0)({"feat": x}, teacher).value, x)
    # Edges do not change when all samples move, or when all distances grow.
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-12)
    assert float((gradient * x.detach()).sum()) == pytest.approx(0, abs=1e-12)
    assert float(gradient.abs().max()) > 0.01


def test_layers_that_are_equal_have_a_finite_gradient():
    student, teacher = draw()
    student["middle"] = student["early"].clone()
    leaves = {name: x.requires_grad_() for name, x in student.items()}
    output = irg(layers=PAIRS, edge_transformation_weight=1)(leaves, teacher)
    output.value.backward()
    assert all(x.grad.isfinite().all() for x in leaves.values())


def test_the_pairing_counts():
    student, _ = draw()
    output = irg(layers=PAIRS, edge_transformation_weight=1)(student, {k: x.flip(0) for k, x in student.items()})
    assert all(value > 1e-3 for value in output.terms.values())


def test_its_size_does_not_grow_with_the_batch():
    sizes = [size(irg(vertex_weight=0), n, 1024) for n in (16, 64, 256)]
    assert max(sizes) < 1.3 * min(sizes)


@pytest.mark.parametrize(
    "arguments",
    [
        {"vertex_weight": -1.0},
        {"edge_weight": float("nan")},
        {"vertex_weight": 0, "edge_weight": 0},
        {"layers": [("early",)]},
        {"layers": ["ab"]},
        {"layers": [("a", "b", "c")]},
        {"layers": [("a", "b")], "edge_transformation_weight": -1},
    ],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(REFUSED):
        irg(**arguments)


def test_widths_that_do_not_fit_are_refused_with_what_to_do():
    student, teacher = draw()
    with pytest.raises(ValueError, match="one width"):
        irg(vertices="feat")(student, teacher)
    criterion = irg(layers=[("early", "feat")])
    with pytest.raises(ValueError, match="'early' of 2 and 'feat' of 3.*vertex_transformation_weight to 0"):
        criterion(student, teacher)
    changes = irg(layers=[("early", "feat")], vertex_transformation_weight=0, edge_transformation_weight=1)
    assert list(changes(student, teacher).terms) == ["vertex", "edge", "edge_transformation_1"]
