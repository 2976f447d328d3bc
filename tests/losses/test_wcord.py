"""WCoRD: its local term against the first author's solver (tests/golden), its global term against loops."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from published_values import golden_files, load

from graphkd.losses import wcord

FILES = [path for path in golden_files("ipot_*.npz") if "rect" not in path.stem]
REFUSED = (ValueError, TypeCheckError)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_local_term_is_that_of_the_first_authors_solver(path, assert_golden):
    golden = load(path)
    criterion = wcord(global_weight=0, beta=float(golden["beta"]), local_weight=1.0)
    student = golden["h_student"].double().requires_grad_()
    output = criterion({"feat": student}, {"feat": golden["h_teacher"].double()})
    (gradient,) = torch.autograd.grad(output.value, student)
    assert list(output.terms) == ["local"]
    assert_golden(output.value, golden["loss_50_f64"], 1e-8)
    # The published cosine adds 1e-12 to norms, and the file has a row that is nearly zero.
    assert_golden(gradient, golden["grad_student_50_f64"], 1e-7)
    assert_golden(output.comparisons["local"].plan, golden["plan_50"].T, 1e-8)
    assert float(output.comparisons["local"].plan.sum()) == pytest.approx(1, rel=1e-4)


def batch(n=5, widths=(4, 6)):
    return [{"feat": torch.randn(n, width, dtype=torch.float64), "index": torch.arange(n) + 2} for width in widths]


def critic(anchors, rows, partners, negatives, temperature, nodes):
    """h / (h + c) of every pair that counts, on plain numbers."""
    h = {(i, j): math.exp(float(anchors[i] @ rows[j]) / temperature) for i, j in [*partners, *negatives]}
    z = nodes * sum(h.values()) / len(h)
    per_row = {i: sum(row == i for row, _ in negatives) / nodes for i in range(len(anchors))}
    return {(i, j): value / z / (value / z + per_row[i] + 1e-7) for (i, j), value in h.items()}


def test_in_the_batch_the_global_term_is_incongruent_minus_congruent_pairs_from_both_sides():
    student, teacher = batch()
    labels = torch.tensor([0, 1, 0, -100, -100])
    criterion = wcord(4, 6, negatives="batch", embed_dim=3, temperature=0.5).double()
    output = criterion(student, teacher, labels)
    first, second = output.comparisons["global"].graphs
    partners = [(i, i) for i in range(5)]
    negatives = [(i, j) for i in range(5) for j in range(5) if i != j and {i, j} != {0, 2}]
    total = 0.0
    for anchors, rows in zip(first.x.detach(), second.x.detach(), strict=True):
        g = critic(anchors, rows, partners, negatives, 0.5, 5)
        for i in range(5):
            own = [pair for pair in negatives if pair[0] == i]
            total += sum(g[pair] for pair in own) / len(own) / 5 - g[i, i] / 5
    assert float(output.terms["global"].detach()) == pytest.approx(total, rel=1e-10)
    torch.testing.assert_close(first.x[0], second.x[1])
    torch.testing.assert_close(first.x[1], second.x[0])
    torch.testing.assert_close(output.value, 0.8 * output.terms["global"] + 0.05 * output.terms["local"])


def test_from_the_bank_the_global_term_has_negatives_of_the_other_networks_memory():
    student, teacher = batch()
    wrong = torch.randint(12, (5, 7))
    for side in (student, teacher):
        side["negatives"] = wrong
    criterion = wcord(4, 6, num_samples=12, embed_dim=3, temperature=0.5).double()
    memories = [network.bank.rows.clone() for network in (criterion.teacher, criterion.student)]
    output = criterion(student, teacher)
    total = 0.0
    anchored = output.comparisons["global"].graphs[0].x.detach()
    for anchors, rows in zip(anchored, memories, strict=True):
        partners = [(i, int(student["index"][i])) for i in range(5)]
        g_sum = 0.0
        h = lambda i, j, anchors=anchors, rows=rows: math.exp(float(anchors[i] @ rows[j]) / 0.5)  # noqa: E731
        pairs = partners + [(i, int(j)) for i in range(5) for j in wrong[i]]
        z = 12 * sum(h(*pair) for pair in pairs) / len(pairs)
        g_sum += sum(h(i, int(j)) / z / (h(i, int(j)) / z + 7 / 12 + 1e-7) for i in range(5) for j in wrong[i]) / 7
        g_sum -= sum(h(*pair) / z / (h(*pair) / z + 7 / 12 + 1e-7) for pair in partners)
        total += g_sum / 5
    assert float(output.terms["global"].detach()) == pytest.approx(total, rel=1e-10)


def test_the_critic_is_lipschitz_after_some_steps():
    student, teacher = batch()
    criterion = wcord(4, 6, negatives="batch", embed_dim=3).double()
    for _ in range(30):
        criterion(student, teacher)
    for encoder, width in ((criterion.eval().student, 4), (criterion.teacher, 6)):
        matrix = (encoder.embed(torch.eye(width, dtype=torch.float64)) - encoder.embed.bias).detach()
        assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1, rel=1e-3)


def test_weights_of_zero_leave_a_term_out():
    student, teacher = batch()
    assert list(wcord(4, 6, negatives="batch", local_weight=0)(student_of(student), teacher_of(teacher)).terms) == [
        "global"
    ]
    local = wcord(4, 6, global_weight=0)
    assert list(local(student_of(student), teacher_of(teacher)).terms) == ["local"]
    assert local.teacher.embed is None  # What is learned on one side only cannot collapse.
    assert wcord(6, 6, global_weight=0).student.embed is None
    with pytest.raises(ValueError, match="needs a term"):
        wcord(global_weight=0, local_weight=0)


def student_of(side):
    return {"feat": side["feat"].float()}


teacher_of = student_of


def test_sinkhorn_is_another_solver_of_the_same_term():
    student, teacher = batch(n=9, widths=(6, 6))
    near = wcord(global_weight=0, local_weight=1, solver="sinkhorn", beta=0.01, num_iters=5000)(student, teacher).value
    exact = wcord(global_weight=0, local_weight=1, num_iters=5000)(student, teacher).value
    torch.testing.assert_close(near, exact, rtol=1e-2, atol=0)


def test_the_local_term_ignores_the_pairing_and_the_global_one_uses_it():
    student, teacher = batch(n=8)
    criterion = wcord(4, 6, negatives="batch", embed_dim=3).double().eval()
    shuffled = {name: x[torch.randperm(8)] for name, x in teacher.items()}
    right, wrong = criterion(student, teacher).terms, criterion(student, shuffled).terms
    torch.testing.assert_close(right["local"], wrong["local"])
    assert not torch.isclose(right["global"], wrong["global"], rtol=1e-3)


def test_a_bank_needs_the_size_of_the_data_set():
    with pytest.raises(ValueError, match="num_samples"):
        wcord()


@pytest.mark.parametrize(
    "arguments",
    [{"negatives": "queue"}, {"solver": "newton"}, {"beta": 0.0}, {"num_iters": 0}, {"global_weight": float("inf")}],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(REFUSED):
        wcord(**{"num_samples": 5, **arguments})
