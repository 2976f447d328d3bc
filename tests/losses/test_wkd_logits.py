"""WKD-L against the authors' values (tests/golden), the exact transport, and loops."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from published_values import golden_files, load

from graphkd import checks
from graphkd.losses import wkd_logits
from graphkd.ot import exact

FILES = golden_files("wkdl_*.npz")
REFUSED = (ValueError, TypeCheckError)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request):
    return load(request.param)


def published(golden, dtype):
    cost = golden["cost_matrix"]
    if cost.dim() == 3:
        assert (cost == cost[0]).all()
        cost = cost[0]
    return wkd_logits(
        cost.to(dtype),
        temperature=float(golden["temperature"]),
        epsilon=float(golden["sinkhorn_lambda"]),
        num_iters=int(golden["sinkhorn_iter"]),
        transport_weight=float(golden["gamma"]),
        separate_target=bool(golden["separation"]),
        parity=True,
    )


def run(criterion, golden, dtype):
    student = golden["logits_student"].to(dtype).requires_grad_()
    output = criterion({"logits": student}, {"logits": golden["logits_teacher"].to(dtype)}, golden.get("target"))
    (gradient,) = torch.autograd.grad(output.value, student)
    return output, gradient


def draw(n=5, classes=7, seed=0, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = spread * torch.randn(2, n, classes, generator=generator, dtype=torch.float64)
    points = torch.randn(classes, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=generator)
    return {"logits": student}, {"logits": teacher}, labels, torch.cdist(points, points)


def test_all_golden_files_are_here():
    assert [path.stem[5:7] for path in FILES] == ["01", "04", "05", "06", "08", "10", "12", "13", "14"]


def test_value_terms_and_gradient_are_the_authors(golden, assert_golden):
    output, gradient = run(published(golden, torch.float64), golden, torch.float64)
    assert_golden(output.value, golden["loss_f64"])
    assert_golden(gradient, golden["grad_student_f64"])
    if bool(golden["separation"]):
        assert_golden(output.terms["target"], golden["loss_target_f64"])
        # The file has it as a difference of two larger numbers.
        assert_golden(output.terms["transport"], golden["wd_f64"], 1e-9 if golden["wd_f64"] > 1e-6 else 1e-6)


def test_value_and_gradient_are_the_authors_in_single_precision(golden, assert_golden):
    output, gradient = run(published(golden, torch.float32), golden, torch.float32)
    assert output.value.dtype == torch.float32
    assert_golden(output.value, golden["loss_f32"], 2e-6)
    assert_golden(gradient, golden["grad_student_f32"], 1e-5)


@pytest.mark.parametrize(("epsilon", "sweeps"), [(0.002, 10), (0.01, 10), (0.05, 200), (25.0, 30)])
def test_parity_is_the_released_iteration_also_where_it_loses_its_mass(epsilon, sweeps, assert_golden):
    student, teacher, labels, cost = draw(n=4, classes=8)
    cost = 0.3 + 0.6 * cost / cost.max()
    cost.fill_diagonal_(0)

    def released(logits):
        total = 0
        for s, t, y in zip(logits, teacher["logits"], labels, strict=True):
            kept = [c for c in range(8) if c != y]
            a, b = (s[kept] / 4).softmax(0), (t[kept] / 4).softmax(0)
            part = cost[kept][:, kept] + 1e-8
            kernel, u = (-part / epsilon).exp(), torch.full_like(a, 1 / 7)
            for _ in range(sweeps):
                v = b / (kernel.T @ u + 1e-8)
                u = a / (kernel @ v + 1e-8)
            total = total + (u.unsqueeze(1) * kernel * v * part).sum()
        return total / 4

    x = student["logits"].requires_grad_()
    criterion = wkd_logits(cost, epsilon=epsilon, num_iters=sweeps, parity=True)
    value, expected = criterion({"logits": x}, teacher, labels).terms["transport"], released(x)
    assert_golden(value, expected.detach())
    slopes = [torch.autograd.grad(number, x)[0] for number in (value, expected)]
    assert_golden(*slopes)


def test_the_mean_plan_is_that_of_the_authors_plans(golden):
    if "flow_f64" not in golden:
        pytest.skip("the file has no plans")
    output, _ = run(published(golden, torch.float64), golden, torch.float64)
    n, classes = golden["logits_student"].shape
    mean = torch.zeros(classes, classes, dtype=torch.float64)
    labels = golden.get("target")
    for i in range(n):
        kept = list(range(classes))
        if bool(golden["separation"]):
            kept.remove(int(labels[i] if labels.dim() == 1 else labels[i].argmax()))
        rows = torch.tensor(kept)
        mean[rows[:, None], rows] += golden["flow_f64"][i] / n
    torch.testing.assert_close(output.comparisons["transport"].plan, mean, rtol=1e-10, atol=1e-14)


def test_the_default_is_the_published_loss_as_sweeps_converge():
    student, teacher, labels, cost = draw()
    many = {"num_iters": 3000, "epsilon": 0.3}
    ours = wkd_logits(cost, tol=None, **many)(student, teacher, labels)
    theirs = wkd_logits(cost, parity=True, **many)(student, teacher, labels)
    torch.testing.assert_close(ours.terms["transport"], theirs.terms["transport"], rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.terms["target"], theirs.terms["target"], rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [1e-3, 1e-2, 1.0, 1e3])
def test_the_default_is_finite_at_any_epsilon_and_keeps_the_students_mass(epsilon, dtype):
    student, teacher, labels, cost = draw(spread=8.0)
    x = student["logits"].to(dtype).requires_grad_()
    criterion = wkd_logits(cost.to(dtype), epsilon=epsilon)
    output = criterion({"logits": x}, {"logits": teacher["logits"].to(dtype)}, labels)
    (gradient,) = torch.autograd.grad(output.value, x)
    assert output.value.isfinite() and gradient.isfinite().all()
    mass = output.comparisons["transport"].graphs[0].mass.mean(0)
    torch.testing.assert_close(output.comparisons["transport"].plan.sum(1), mass.detach(), rtol=1e-4, atol=1e-5)


def test_at_a_small_epsilon_it_tends_to_exact_transport():
    student, teacher, labels, cost = draw()
    criterion = wkd_logits(cost, epsilon=0.002 * float(cost.max()), num_iters=20000, tol=1e-4)
    output = criterion(student, teacher, labels).comparisons["transport"]
    masses = [graph.mass for graph in output.graphs]
    solved = [exact(cost, a, b).value for a, b in zip(*masses, strict=True)]
    assert output.converged.all()
    torch.testing.assert_close(output.value, torch.stack(solved).mean(), rtol=0.01, atol=0)


def test_with_a_tolerance_sweeps_go_on_until_it_is_met():
    student, teacher, labels, cost = draw(n=30, classes=10)
    few = wkd_logits(cost, epsilon=0.3, tol=None)(student, teacher, labels).comparisons["transport"]
    more = wkd_logits(cost, epsilon=0.3, tol=0.01)(student, teacher, labels).comparisons["transport"]
    assert few.marginal_error.max() > 0.02
    assert more.marginal_error.max() <= 0.01
    assert more.converged.all()


def test_masses_that_are_far_off_are_told_once(caplog):
    checks.log_once.cache_clear()
    student, teacher, labels, cost = draw()
    for _ in range(2):
        wkd_logits(cost, epsilon=0.01)(student, teacher, labels)
    assert [record.message for record in caplog.records] == [
        "after 10 sweeps a marginal is off by more than 10 % of the mass: give more, or a tol"
    ]
    caplog.clear()
    wkd_logits(cost, epsilon=10.0)(student, teacher, labels)
    assert not caplog.records


def test_the_target_term_is_the_teachers_probability_times_the_students_surprise():
    student, teacher, labels, cost = draw()
    total = 0.0
    for s, t, y in zip(student["logits"], teacher["logits"], labels, strict=True):
        p_s = math.exp(s[y]) / sum(math.exp(z) for z in s)
        p_t = math.exp(t[y]) / sum(math.exp(z) for z in t)
        total -= p_t * math.log(p_s) / len(labels)
    assert float(wkd_logits(cost)(student, teacher, labels).terms["target"]) == pytest.approx(total, rel=1e-12)


def test_samples_without_a_label_have_no_target_and_transport_all_classes():
    student, teacher, labels, cost = draw()
    criterion = wkd_logits(cost)
    unlabelled = torch.tensor([0, 3])
    some = labels.clone()
    some[unlabelled] = -100
    output = criterion(student, teacher, some)
    known = (some != -100).nonzero().squeeze(1)
    part = criterion({"logits": student["logits"][known]}, {"logits": teacher["logits"][known]}, labels[known])
    torch.testing.assert_close(output.terms["target"], part.terms["target"])
    masses = output.comparisons["transport"].graphs[0].mass
    assert (masses[unlabelled] > 0).all()
    assert (masses[known].gather(1, labels[known].unsqueeze(1)) == 0).all()
    together = wkd_logits(cost, separate_target=False)(student, teacher, labels)
    assert list(together.terms) == ["transport"]
    weighted = wkd_logits(cost, separate_target=False, transport_weight=30.0)(student, teacher, labels)
    torch.testing.assert_close(weighted.value, 30 * together.terms["transport"])
    none = criterion(student, teacher)
    torch.testing.assert_close(none.terms["transport"], together.terms["transport"])
    assert none.terms["target"] == 0
    assert none.comparisons["target"].marginal_error == 0


def test_two_classes_leave_nothing_to_transport():
    student, teacher = torch.randn(2, 3, 2, dtype=torch.float64)
    student.requires_grad_()
    output = wkd_logits(1 - torch.eye(2))({"logits": student}, {"logits": teacher}, torch.tensor([0, 1, 1]))
    assert output.terms["transport"] == 0
    (gradient,) = torch.autograd.grad(output.terms["transport"], student)
    assert (gradient == 0).all()


def test_a_class_cost_moves_and_is_saved_with_the_criterion():
    criterion = wkd_logits(1 - torch.eye(3)).double()
    (cost,) = criterion.state_dict().values()
    torch.testing.assert_close(cost, 1 - torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 2, 3, 7]), "0 to 6"),
        (torch.tensor([0, 1, -1, 3, 4]), "0 to 6"),
        (torch.zeros(5, 3, dtype=torch.float64), "soft labels"),
        (torch.zeros(5, 3, dtype=torch.int64), "one integer per sample"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    student, teacher, _, cost = draw()
    with pytest.raises(ValueError, match=message):
        wkd_logits(cost)(student, teacher, labels)


@pytest.mark.parametrize(
    "arguments",
    [
        {"class_cost": torch.zeros(3, 4)},
        {"class_cost": torch.zeros(1, 1)},
        {"class_cost": torch.zeros(2, 3, 3)},
        {"class_cost": torch.full((3, 3), torch.nan)},
        {"temperature": 0.0},
        {"epsilon": -1.0},
        {"num_iters": 0},
        {"tol": 0.0},
        {"transport_weight": float("nan")},
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments):
    with pytest.raises(REFUSED):
        wkd_logits(**{"class_cost": 1 - torch.eye(3), **arguments})


def test_logits_of_another_number_of_classes_are_refused():
    student, teacher, labels, _ = draw()
    with pytest.raises(ValueError, match="needs as many nodes"):
        wkd_logits(1 - torch.eye(4))(student, teacher, labels.clamp_max(3))
