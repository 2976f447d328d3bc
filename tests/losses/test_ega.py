"""Embedding graph alignment against its definition, written again with plain loops."""

import pytest
import torch
from jaxtyping import TypeCheckError
from structured import assert_like_loops, class_structured
from torch import nn

from graphkd.losses import ega

REFUSED = (ValueError, TypeCheckError)


def draw(n=6, widths=(4, 4)):
    # An offset of each row, which a correlation does not see but a cosine does.
    return [{"feat": torch.randn(n, d, dtype=torch.float64) + torch.arange(n).unsqueeze(1)} for d in widths]


def correlation_by_loops(a, b):
    a, b = a - sum(a) / len(a), b - sum(b) / len(b)
    return (a @ b) / (a @ a).sqrt() / (b @ b).sqrt()


def ega_by_loops(node_weight, edge_weight, divisor, project=lambda x: x):
    def value(student, teacher):
        s, t = project(student["feat"]), teacher["feat"]
        n = len(s)
        pairs = [(i, k) for i in range(n) for k in range(n)]
        node = sum((correlation_by_loops(s[i], t[k]) - float(i == k)) ** 2 for i, k in pairs).sqrt()
        edge = sum((correlation_by_loops(s[i], s[k]) - correlation_by_loops(t[i], t[k])) ** 2 for i, k in pairs).sqrt()
        return (node_weight * node + edge_weight * edge) / divisor(n)

    return value


@pytest.mark.parametrize(("node_weight", "edge_weight"), [(0.8, 0.24), (2, 0), (0, 1)])
def test_it_is_the_root_of_the_mean_squares(node_weight, edge_weight):
    criterion = ega(node_weight=node_weight, edge_weight=edge_weight, projector=None)
    assert_like_loops(criterion, *draw(), ega_by_loops(node_weight, edge_weight, lambda n: n))


def test_the_weights_are_those_of_the_paper_unless_told():
    assert_like_loops(ega(projector=None), *draw(), ega_by_loops(1, 0.3, lambda n: n))


def test_parity_is_the_frobenius_norms():
    assert_like_loops(ega(projector=None, parity=True), *draw(), ega_by_loops(1, 0.3, lambda n: 1))


def test_the_student_is_projected_to_the_teachers_width():
    student, teacher = draw(widths=(3, 5))
    criterion = ega().double()
    criterion(student, teacher)
    (weight, bias) = criterion.parameters()
    assert weight.shape == (5, 3)
    assert_like_loops(criterion, student, teacher, ega_by_loops(1, 0.3, lambda n: n, lambda x: x @ weight.T + bias))


def test_widths_may_be_given_and_a_projector_of_your_own():
    student, teacher = draw(widths=(3, 5))
    assert [p.shape for p in ega(3, 5).parameters()] == [(5, 3), (5,)]
    own = nn.Linear(3, 5, bias=False, dtype=torch.float64)
    assert_like_loops(
        ega(projector=own), student, teacher, ega_by_loops(1, 0.3, lambda n: n, lambda x: x @ own.weight.T)
    )
    assert [parameter is own.weight for parameter in ega(projector=own).parameters()] == [True]


def test_a_weight_of_zero_leaves_the_term_out():
    assert list(ega(edge_weight=0).terms) == ["node"]
    assert list(ega(node_weight=0).terms) == ["edge"]


def test_shifting_and_scaling_embeddings_changes_nothing():
    student, teacher = draw()
    moved = {"feat": 3 * teacher["feat"] + torch.randn(6, 1, dtype=torch.float64)}
    criterion = ega(projector=None)
    torch.testing.assert_close(criterion(student, moved).value, criterion(student, teacher).value)


def test_the_pairing_counts():
    student, _ = draw()
    same = {"feat": torch.eye(6, dtype=torch.float64)}
    terms = ega(projector=None)(same, same).terms
    # Six orthogonal rows correlate by -1/5 without their mean.
    assert float(terms["node"]) == pytest.approx((30 / 25) ** 0.5 / 6)
    assert float(terms["edge"]) == 0
    shuffled = ega(projector=None)(same, {"feat": same["feat"].flip(0)}).terms
    assert shuffled["node"] > 0.3
    assert ega(projector=None)(student, {"feat": student["feat"].flip(0)}).terms["edge"] > 0.1


def test_equal_networks_have_a_finite_gradient():
    student, _ = draw()
    x = student["feat"].requires_grad_()
    (gradient,) = torch.autograd.grad(ega(projector=None, node_weight=0)({"feat": x}, {"feat": x.detach()}).value, x)
    assert (gradient == 0).all()


def test_its_size_hardly_changes_with_the_batch_and_the_published_one_grows():
    def sizes(n, parity):
        found = {"node": 0.0, "edge": 0.0}
        for seed in range(5):
            _, teacher = class_structured(n, 64, seed)
            noise = torch.randn(n, 64, generator=torch.Generator().manual_seed(seed))
            output = ega(projector=None, parity=parity)({"feat": teacher["feat"] + 0.5 * noise}, teacher)
            found = {name: size + float(output.terms[name]) / 5 for name, size in found.items()}
        return found

    ours, published = ({n: sizes(n, parity) for n in (16, 64, 256)} for parity in (False, True))
    for n in (16, 256):
        for name in ("node", "edge"):
            assert ours[n][name] == pytest.approx(ours[64][name], rel=0.15)
            assert published[n][name] / published[64][name] == pytest.approx(n / 64, rel=0.15)


@pytest.mark.parametrize(
    "arguments",
    [{"node_weight": -1.0}, {"edge_weight": float("nan")}, {"node_weight": 0, "edge_weight": 0}]
    + [{"projector": "mlp"}, {"student_dim": 0}, {"teacher_dim": 0}],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(REFUSED):
        ega(**arguments)


def test_unequal_widths_without_a_projector_are_refused():
    with pytest.raises(ValueError, match="one width"):
        ega(projector=None)(*draw(widths=(3, 5)))
