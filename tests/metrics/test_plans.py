"""Numbers of plans against plain loops, with nothing on some rows, columns and whole problems."""

import math

import pytest
import torch
from torch import Tensor

from graphkd.metrics import class_purity, diagonal_mass, effective_partners, plan_entropy

METRICS = [diagonal_mass, lambda plan: class_purity(plan, torch.arange(len(plan))), plan_entropy, effective_partners]


def masses(n: int = 4, m: int = 4, batch: tuple[int, ...] = ()) -> Tensor:
    """A plan with an empty row, an empty column and another hole."""
    plan = torch.rand(*batch, n, m, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plan[..., 1, :] = plan[..., :, 2] = plan[..., 0, 1] = 0
    return plan


def loop_diagonal(plan: Tensor) -> float:
    return sum(float(plan[i, i]) for i in range(len(plan))) / float(plan.sum())


def loop_purity(plan: Tensor, labels: list[int], teacher_labels: list[int]) -> float:
    within = known = 0.0
    for i, y in enumerate(labels):
        for j, z in enumerate(teacher_labels):
            if y != -100 and z != -100:
                known += float(plan[i, j])
                within += float(plan[i, j]) if y == z else 0.0
    return within / known


def loop_entropy(plan: Tensor) -> float:
    shares = [float(mass) / float(plan.sum()) for mass in plan.flatten()]
    return -sum(p * math.log(p) for p in shares if p > 0)


def loop_partners(plan: Tensor) -> list[float]:
    return [math.exp(loop_entropy(row)) if row.sum() > 0 else 0.0 for row in plan]


def test_diagonal_mass_is_the_share_of_the_true_pairs():
    for n in (3, 5):
        assert float(diagonal_mass(masses(n, n))) == pytest.approx(loop_diagonal(masses(n, n)), abs=1e-12)
    assert diagonal_mass(torch.eye(3) / 3) == 1
    assert diagonal_mass(torch.ones(8, 8)) == 1 / 8
    assert diagonal_mass(torch.eye(4).roll(1, 0)) == 0


@pytest.mark.parametrize("n, m", [(4, 4), (5, 3), (3, 6)])
def test_purity_is_the_loop_and_leaves_out_unknown_classes(n, m):
    labels, teacher_labels = [0, 2, 1, -100, 0][:n], [0, 1, -100, 1, 0, 2][:m]
    got = class_purity(masses(n, m), torch.tensor(labels), torch.tensor(teacher_labels))
    assert float(got) == pytest.approx(loop_purity(masses(n, m), labels, teacher_labels), abs=1e-12)
    assert 0 < got < 1


def test_purity_takes_the_students_classes_for_the_teachers():
    labels = torch.tensor([0, 1, 0, -100])
    got = class_purity(masses(), labels)
    assert got == class_purity(masses(), labels, labels)
    assert float(got) == pytest.approx(loop_purity(masses(), labels.tolist(), labels.tolist()), abs=1e-12)


def test_a_class_may_have_the_number_that_an_unsigned_type_reads_as_unknown():
    labels = torch.tensor([156, 1, 156, 0])
    assert class_purity(masses(), labels.to(torch.uint8)) == class_purity(masses(), labels)


def test_two_unknown_nodes_are_not_of_one_class():
    plan = torch.tensor([[1.0, 1.0], [2.0, 8.0]])
    assert class_purity(plan, torch.tensor([0, -100])) == 1
    assert class_purity(plan, torch.tensor([0, -100]), torch.tensor([1, -100])) == 0


@pytest.mark.parametrize("n, m", [(4, 4), (5, 3), (3, 6)])
def test_entropy_and_partners_are_the_loops(n, m):
    plan = masses(n, m)
    assert float(plan_entropy(plan)) == pytest.approx(loop_entropy(plan), abs=1e-12)
    assert effective_partners(plan).tolist() == pytest.approx(loop_partners(plan), abs=1e-12)
    assert effective_partners(plan)[1] == 0
    assert effective_partners(plan.mT)[2] == 0


@pytest.mark.parametrize("n, m", [(1, 1), (6, 6), (4, 7), (300, 500)])
def test_entropy_and_partners_run_from_one_entry_to_an_even_plan(n, m):
    one = torch.zeros(n, m)
    one[-1, 0] = 0.3
    even = torch.full((n, m), 0.25)
    assert plan_entropy(one) == 0
    assert float(plan_entropy(even)) == pytest.approx(math.log(n * m), abs=1e-5)
    assert effective_partners(one).tolist() == [0.0] * (n - 1) + [1.0]
    torch.testing.assert_close(effective_partners(even), torch.full((n,), float(m)), rtol=1e-5, atol=0)
    assert float(plan_entropy(torch.eye(n))) == pytest.approx(math.log(n), abs=1e-5)
    a, b = torch.rand(n, dtype=torch.float64), torch.rand(m, dtype=torch.float64)
    independent = plan_entropy(a.unsqueeze(1) * b) - plan_entropy(a.unsqueeze(1)) - plan_entropy(b.unsqueeze(1))
    assert abs(float(independent)) < 1e-12


def test_every_problem_of_a_batch_has_its_number():
    plan = masses(4, 4, (2, 3))
    labels, other = torch.tensor([0, 1, 0, -100]), torch.tensor([0, 0, 1, 1])
    for metric in (diagonal_mass, plan_entropy, effective_partners, lambda plan: class_purity(plan, labels, other)):
        got = metric(plan)
        assert got.shape[:2] == (2, 3)
        for i in range(2):
            for j in range(3):
                torch.testing.assert_close(got[i, j], metric(plan[i, j]))


@pytest.mark.parametrize("metric", METRICS)
def test_the_total_mass_changes_nothing_and_half_precision_is_raised(metric):
    plan = masses()
    wanted = metric(plan)
    torch.testing.assert_close(metric(1e-20 * plan), wanted)
    single = metric((1e-20 * plan).float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), wanted, atol=1e-6, rtol=1e-6)
    for dtype in (torch.float16, torch.bfloat16):
        got = metric(plan.to(dtype))
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, metric(plan.to(dtype).float()))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(metric(plan.to(dtype)), got)


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_carries_no_gradient(metric):
    plan = masses().requires_grad_()
    assert not metric(plan).requires_grad
    assert torch.equal(metric(plan), metric(plan.detach()))


def test_a_share_of_no_mass_is_nan_in_its_own_problem_only():
    plan = torch.stack([torch.zeros(2, 2), torch.eye(2)])
    for metric in (diagonal_mass, plan_entropy, lambda plan: class_purity(plan, torch.tensor([0, 1]))):
        assert metric(plan).isnan().tolist() == [True, False]
    assert effective_partners(plan).tolist() == [[0, 0], [1, 1]]
    assert class_purity(torch.ones(2, 2), torch.tensor([-100, -100])).isnan()
    assert class_purity(torch.eye(2), torch.tensor([0, -100]), torch.tensor([-100, 0])).isnan()


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_no_plan_is_refused(metric):
    with pytest.raises(ValueError, match="needs masses of at least 0, got -0.5"):
        metric(torch.tensor([[1.0, -0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="plan needs finite values, got 1 NaN or infinite of 4"):
        metric(torch.tensor([[1.0, math.nan], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="plan needs floating-point values, got torch.int64"):
        metric(torch.eye(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"plan of shape \(\*b, n, m\), got shape \(0, 3\)"):
        metric(torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"dense plan, got layout torch.sparse_coo: plan.to_dense\(\)"):
        metric(torch.eye(2).to_sparse())


def test_true_pairs_and_shared_classes_need_as_many_students_as_teachers():
    with pytest.raises(ValueError, match="as many students as teachers, got n=3 and m=2"):
        diagonal_mass(torch.ones(3, 2))
    with pytest.raises(ValueError, match="needs teacher_labels .* got only labels, n=3 and m=2"):
        class_purity(torch.ones(3, 2), torch.tensor([0, 1, 2]))


def test_classes_that_do_not_fit_are_refused():
    plan, labels = torch.ones(3, 2), torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"teacher_labels needs one integer per node, shape \(2,\), got torch.int64"):
        class_purity(plan, labels, labels)
    with pytest.raises(ValueError, match=r"labels needs one integer per node, shape \(3,\), got .* of shape \(3, 1\)"):
        class_purity(plan, labels.unsqueeze(1), labels[:2])
    for wrong in (labels.float(), labels.bool()):
        with pytest.raises(ValueError, match="labels needs one integer per node"):
            class_purity(plan, wrong, labels[:2])
    with pytest.raises(ValueError, match="teacher_labels needs classes from 0 on, or -100 for none, got -1"):
        class_purity(plan, labels, torch.tensor([0, -1]))
