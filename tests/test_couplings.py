"""Couplings: what each plan is, and what is refused."""

import inspect

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd import measures
from graphkd.couplings import IPOT, Exact, FusedGromov, Identity, RowSoftmax, SharedSinkhorn, Sinkhorn
from graphkd.discrepancies import kl
from graphkd.loss import GraphLoss
from graphkd.ot import Relative, exact, fused_gromov, ipot, shared_sinkhorn, sinkhorn
from graphkd.reductions import PlanGap, PlanNLL, TransportCost
from graphkd.relations import Pairwise
from graphkd.typing import Relations


def problem(n: int = 4, m: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(n, m, generator=generator, dtype=torch.float64)
    a = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1
    b = torch.rand(m, generator=generator, dtype=torch.float64) + 0.1
    return cost, a / a.sum(), b / b.sum()


def test_sinkhorn_hands_every_option_to_the_solver():
    cost, a, b = problem()
    options = dict(
        epsilon=Relative(0.2), num_iters=3, tol=0.2, tol_norm="max", order="columns_first", gradient="unroll"
    )
    for more in (dict(domain="log"), dict(stabilizer=0.1)):
        got, wanted = Sinkhorn(**options, **more)(cost, None, a, b), sinkhorn(cost, a, b, **options, **more)
        assert torch.equal(got.plan, wanted.plan)
        assert got.num_iters == wanted.num_iters
        assert got.converged == wanted.converged


@pytest.mark.parametrize("relaxed", [dict(tau_a=0.7), dict(tau_b=0.3), dict(newton_iters=2, gradient="implicit")])
def test_sinkhorn_hands_on_how_masses_are_held_and_newtons_steps(relaxed):
    cost, a, b = problem()
    got, wanted = Sinkhorn(0.1, **relaxed)(cost, None, a, b), sinkhorn(cost, a, b, epsilon=0.1, **relaxed)
    assert torch.equal(got.plan, wanted.plan)
    assert not torch.equal(got.plan, Sinkhorn(0.1)(cost, None, a, b).plan)


@pytest.mark.parametrize(
    ("coupling", "solve", "options"),
    [
        (IPOT, ipot, dict(beta=0.3, num_iters=4, num_inner=2)),
        (Exact, exact, dict(max_iters=3)),
        (
            FusedGromov,
            fused_gromov,
            dict(alpha=0.3, solver="mirror", num_iters=3, num_inner=2, epsilon=0.2, start="identity", tol=1e-7),
        ),
        (FusedGromov, fused_gromov, dict(loss="kl", semi_relaxed=True)),
    ],
)
def test_others_hand_every_option_to_their_solver_and_hold_the_plan(coupling, solve, options):
    cost, a, _ = problem(6, 6)
    cost.requires_grad_()
    relations = Relations(torch.rand(6, 6, dtype=cost.dtype), torch.rand(6, 6, dtype=cost.dtype))
    between = relations if solve is fused_gromov else ()
    got, wanted = coupling(**options)(cost, relations, a, a), solve(cost, *between, a, a, **options)
    assert torch.equal(got.plan, wanted.plan)
    assert got.num_iters == wanted.num_iters
    assert not got.plan.requires_grad
    assert got.value.requires_grad
    assert not coupling(**options).differentiates_plan


@pytest.mark.parametrize(
    ("coupling", "solve"), [(Sinkhorn, sinkhorn), (IPOT, ipot), (Exact, exact), (FusedGromov, fused_gromov)]
)
def test_couplings_have_their_solvers_defaults(coupling, solve):
    ours, theirs = (inspect.signature(inspect.unwrap(f)).parameters for f in (coupling, solve))
    for name, parameter in ours.items():
        if name != "teacher_first":  # Which graph is the first is said there by the order of the arguments.
            assert parameter.default == theirs[name].default, name


def test_only_an_unrolled_plan_is_differentiable():
    cost, a, b = problem()
    cost.requires_grad_()
    envelope, unroll = Sinkhorn(0.1), Sinkhorn(0.1, gradient="unroll")
    assert not envelope.differentiates_plan
    assert unroll.differentiates_plan
    assert RowSoftmax(0.1).differentiates_plan
    assert not Identity().differentiates_plan
    assert not envelope(cost, None, a, b).plan.requires_grad
    assert envelope(cost, None, a, b).value.requires_grad
    assert unroll(cost, None, a, b).plan.requires_grad


def test_optimised_couplings_ignore_the_pairing():
    cost, a, b = problem()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for coupling in (Sinkhorn(0.1), RowSoftmax(0.1), IPOT(), Exact()):
        plan = coupling(cost, None, a, b).plan
        torch.testing.assert_close(coupling(cost[:, order], None, a, b[order]).plan, plan[:, order])


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_fused_gromov_with_its_own_reduction_is_the_distance_with_its_gradient(alpha):
    coupling = FusedGromov(alpha=alpha, solver="conditional")
    loss = GraphLoss(
        None if alpha == 1 else measures.sqeuclidean,
        None if alpha == 0 else Pairwise(measures.sqeuclidean),
        coupling,
        TransportCost(alpha),
    )
    student = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(6, 3, dtype=torch.float64)
    value = loss(Data(x=student), Data(x=teacher))
    (slope,) = torch.autograd.grad(value, student)
    cost, *relations = (
        (x.unsqueeze(-2) - y).square().sum(-1) for x, y in ((student, teacher), (student, student), (teacher, teacher))
    )
    distance = fused_gromov(cost, *relations, alpha=alpha, solver="conditional").value
    torch.testing.assert_close(value, distance)
    torch.testing.assert_close(slope, torch.autograd.grad(distance, student)[0])


def test_fused_gromov_without_relations_is_refused():
    cost, a, b = problem()
    with pytest.raises(ValueError, match="needs both relations"):
        FusedGromov()(cost, None, a, b)


@pytest.mark.parametrize(
    ("coupling", "options", "message"),
    [
        (IPOT, dict(beta=0.0), "beta needs"),
        (IPOT, dict(num_inner=0), "num_inner needs"),
        (Exact, dict(max_iters=0), "max_iters needs"),
        (FusedGromov, dict(alpha=1.5), "alpha needs"),
        (FusedGromov, dict(num_iters=0), "num_iters needs"),
    ],
)
def test_bad_options_of_others_are_refused_at_construction(coupling, options, message):
    with pytest.raises(ValueError, match=message):
        coupling(**options)


@pytest.mark.parametrize("coupling", [RowSoftmax(0.1), Sinkhorn(0.1), IPOT(), Exact()])
def test_couplings_that_optimise_refuse_a_loss_without_a_cost(coupling):
    _, a, b = problem()
    with pytest.raises(ValueError, match="coupling needs a cost between the two graphs, got a loss without one"):
        coupling(None, None, a, b)


@pytest.mark.parametrize("epsilon", [0, -1.0, float("nan"), float("inf"), True])
def test_bad_epsilons_are_refused_at_construction(epsilon):
    for coupling in (RowSoftmax, Sinkhorn):
        with pytest.raises(ValueError, match=f"epsilon needs a finite number above 0, got {epsilon}"):
            coupling(epsilon)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(num_iters=0), "num_iters needs an integer of at least 1, got 0"),
        (dict(tol=0.0), "tol needs a finite number above 0, got 0.0"),
        (dict(stabilizer=-1.0), "stabilizer needs .* got -1.0"),
        (dict(stabilizer=1e-8, domain="log"), "stabilizer needs .* in domain 'log'"),
    ],
)
def test_bad_options_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        Sinkhorn(epsilon=0.1, **options)


@pytest.mark.parametrize("name", ["tol_norm", "order", "domain", "gradient"])
def test_unknown_words_are_refused_at_construction(name):
    # The run-time type checks of the tests know the words as well, and come first where they are on.
    with pytest.raises((ValueError, TypeError), match=f"{name} needs one of .* got 'other'|Type-check error"):
        Sinkhorn(epsilon=0.1, **{name: "other"})


# SharedSinkhorn


def pairs(n: int = 5, m: int = 6, size: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """One cost, and pairs of masses, of which each lacks another node."""
    cost = problem(n, m)[0]
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(size, n, generator=generator, dtype=torch.float64) + 0.2
    b = torch.rand(size, m, generator=generator, dtype=torch.float64) + 0.2
    for k in range(size):
        a[k, k % n], b[k, (2 * k) % m] = 0, 0
    return cost, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)


def cloud(mass: Tensor) -> Data:
    """A graph of which only the masses are known."""
    return Data(x=mass.new_zeros(mass.shape[-1], 1), mass=mass)


def assert_same_slopes(ours, theirs, a: Tensor, b: Tensor) -> None:
    """Masses have gradients up to a constant over the nodes with mass; elsewhere gradients are the same."""
    (cost, *masses), (wanted, *others) = ours, theirs
    torch.testing.assert_close(cost, wanted, atol=1e-10, rtol=0)
    for mass, slope, other in zip((a, b), masses, others, strict=True):
        present = mass.detach() > 0
        gap = torch.where(present, slope - other, 0.0)
        mean = gap.sum(-1, keepdim=True) / present.sum(-1, keepdim=True)
        assert torch.where(present, gap - mean, 0.0).abs().max() < 1e-10
        assert slope.isfinite().all()
        assert slope.abs().max() > 1e-3


@pytest.mark.parametrize("domain", ["auto", "log"])
@pytest.mark.parametrize("order", ["rows_first", "columns_first"])
@pytest.mark.parametrize("num_iters", [1, 8])
def test_a_shared_cost_is_what_each_pair_pays_alone_with_its_gradients(num_iters, order, domain):
    cost, a, b = leaves = [x.requires_grad_() for x in pairs()]
    options = dict(epsilon=0.1, num_iters=num_iters, order=order, domain=domain)
    transport = SharedSinkhorn(**options)(cost, None, a, b)
    ours = TransportCost()(transport, cost, None, (cloud(a), cloud(b)))
    single = Sinkhorn(**options, gradient="unroll")
    paid, plans = [], []
    for k in range(7):
        plan = single(cost, None, a[k], b[k])
        paid.append(TransportCost()(plan, cost, None, (cloud(a[k]), cloud(b[k]))))
        plans.append(plan.plan.detach())
    torch.testing.assert_close(transport.linear, torch.stack(paid), atol=1e-12, rtol=0)
    torch.testing.assert_close(ours, sum(paid) / 7, atol=1e-12, rtol=0)
    torch.testing.assert_close(transport.plan.detach(), sum(plans) / 7, atol=1e-12, rtol=0)
    slopes = [torch.autograd.grad(value, leaves) for value in (ours, sum(paid) / 7)]
    assert_same_slopes(*slopes, a, b)


@pytest.mark.parametrize("domain", ["auto", "scaling"])
@pytest.mark.parametrize("stabilizer", [0.0, 1e-8, 0.3])
@pytest.mark.parametrize("num_iters", [1, 2, 10])
def test_from_scalings_the_sweeps_are_the_published_iteration(num_iters, stabilizer, domain):
    cost, a, b = leaves = [x.requires_grad_() for x in pairs()]
    coupling = SharedSinkhorn(
        0.3, num_iters, order="columns_first", domain=domain, stabilizer=stabilizer, start="scalings"
    )
    transport = coupling(cost, None, a, b)
    paid, plans = [], []
    kernel = (-cost / 0.3).exp()
    for k in range(7):
        present = [i for i in range(5) if a[k, i] > 0]
        u = torch.stack([cost.new_tensor(1 / len(present) if i in present else 0.0) for i in range(5)])
        for _ in range(num_iters):
            v = torch.stack([b[k, j] / (sum(kernel[i, j] * u[i] for i in range(5)) + stabilizer) for j in range(6)])
            u = torch.stack([a[k, i] / (sum(kernel[i, j] * v[j] for j in range(6)) + stabilizer) for i in range(5)])
        plan = u[:, None] * kernel * v
        plans.append(plan.detach())
        paid.append((plan * cost).sum())
    torch.testing.assert_close(transport.linear, torch.stack(paid), atol=1e-12, rtol=0)
    torch.testing.assert_close(transport.plan.detach(), sum(plans) / 7, atol=1e-12, rtol=0)
    slopes = [torch.autograd.grad(value.mean(), leaves) for value in (transport.linear, torch.stack(paid))]
    assert_same_slopes(*slopes, a, b)
    if stabilizer:
        # A sum that is not kept leaves no constant open: here gradients are the very same.
        for ours, theirs, mass in zip(slopes[0][1:], slopes[1][1:], (a, b), strict=True):
            torch.testing.assert_close(ours[mass > 0], theirs[mass > 0], atol=1e-10, rtol=0)


def test_a_start_from_scalings_differs_until_the_sweeps_have_converged():
    cost, a, b = pairs()

    def paid(num_iters, start):
        return SharedSinkhorn(0.3, num_iters, order="columns_first", start=start)(cost, None, a, b).linear

    assert (paid(1, "scalings") - paid(1, "potentials")).abs().min() > 1e-5
    torch.testing.assert_close(paid(300, "scalings"), paid(300, "potentials"))


def test_scalings_of_rows_need_an_order_that_starts_with_the_columns():
    # Rows that are updated first forget where they started.
    with pytest.raises(ValueError, match="scalings.*columns_first"):
        SharedSinkhorn(0.1, start="scalings", order="rows_first")


def test_shared_sinkhorn_hands_every_option_to_the_solver():
    cost, a, b = pairs()
    options = dict(epsilon=0.1, num_iters=200, tol=1e-3, order="columns_first")
    for more in (dict(domain="log"), dict(domain="scaling"), dict(stabilizer=0.1), dict(epsilon=Relative(0.2))):
        got = SharedSinkhorn(**{**options, **more})(cost, None, a, b)
        wanted = shared_sinkhorn(cost, a, b, gradient="unroll", **{**options, **more})
        assert torch.equal(got.linear, wanted.linear)
        assert got.num_iters.tolist() == wanted.num_iters.tolist()
        assert torch.equal(got.converged, wanted.converged)
        assert torch.equal(got.epsilon, wanted.epsilon)


def test_shared_sinkhorn_has_its_solvers_defaults():
    ours, theirs = (inspect.signature(inspect.unwrap(f)).parameters for f in (SharedSinkhorn, shared_sinkhorn))
    assert {name for name, p in ours.items() if name != "start" and p.default != theirs[name].default} == set()
    assert ours["start"].default == "potentials"


@pytest.mark.parametrize("reduction", [PlanGap, PlanNLL])
def test_a_mean_of_plans_has_no_gradient_for_a_reduction_that_reads_it(reduction):
    cost, a, b = pairs()
    coupling = SharedSinkhorn(0.1)
    assert coupling(cost.requires_grad_(), None, a, b).plan.requires_grad == coupling.differentiates_plan
    with pytest.raises(ValueError, match="needs a coupling that differentiates its plan"):
        GraphLoss(measures.Fixed(cost), coupling=coupling, reduction=reduction())


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(epsilon=0), "epsilon needs a finite number above 0, got 0"),
        (dict(num_iters=0), "num_iters needs an integer of at least 1, got 0"),
        (dict(tol=0.0), "tol needs a finite number above 0, got 0.0"),
        (dict(stabilizer=-1.0), "stabilizer needs .* got -1.0"),
        (dict(stabilizer=1e-8, domain="log"), "stabilizer needs .* in domain 'log'"),
        (
            dict(epsilon=Relative(0.1), start="scalings", order="columns_first"),
            r"start='scalings' needs epsilon in units of the cost, got Relative\(share=0.1\)",
        ),
    ],
)
def test_bad_options_of_a_shared_cost_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        SharedSinkhorn(**{"epsilon": 0.1, **options})


@pytest.mark.parametrize("name", ["order", "domain", "start"])
def test_unknown_words_for_a_shared_cost_are_refused_at_construction(name):
    with pytest.raises((ValueError, TypeError), match=f"{name} needs one of .* got 'other'|Type-check error"):
        SharedSinkhorn(epsilon=0.1, **{name: "other"})


def test_shared_sinkhorn_refuses_what_it_cannot_couple():
    cost, a, b = pairs()
    with pytest.raises(ValueError, match="coupling needs a cost between the two graphs, got a loss without one"):
        SharedSinkhorn(0.1)(None, None, a, b)
    for start in ("potentials", "scalings"):
        coupling = SharedSinkhorn(0.1, order="columns_first", start=start)
        with pytest.raises(ValueError, match="broadcast"):
            coupling(cost, None, a, b[:4])
        # The run-time type checks of the tests see this first where they are on.
        with pytest.raises((ValueError, TypeError), match="a needs 5 masses|Type-check error"):
            coupling(cost, None, b, b)


def test_with_the_teacher_first_the_kl_loss_is_the_discrepancy_of_that_name():
    n, m = 5, 4
    student, teacher = (torch.rand(k, k, dtype=torch.float64) + 0.1 for k in (n, m))
    relations = Relations(student + student.T, teacher + teacher.T)
    cost = torch.rand(n, m, dtype=torch.float64)
    a, b = torch.full((n,), 1 / n, dtype=torch.float64), torch.full((m,), 1 / m, dtype=torch.float64)
    values = {}
    for first in (False, True):
        transport = FusedGromov(0.6, loss="kl", teacher_first=first)(cost, relations, a, b)
        torch.testing.assert_close(transport.plan.sum(1), a)
        torch.testing.assert_close(transport.plan.sum(0), b)
        assert [x.shape[-1] for x in transport.potentials] == [n, m]
        reduction = TransportCost(0.6, kl)
        graphs = (Data(x=torch.zeros(n, 1)), Data(x=torch.zeros(m, 1)))
        values[first] = float(transport.value), float(reduction(transport, cost, relations, graphs))
    assert values[True][0] == pytest.approx(values[True][1], rel=1e-9)
    assert values[False][0] != pytest.approx(values[False][1], rel=1e-3)


def test_with_the_teacher_first_the_students_masses_alone_cannot_be_kept():
    with pytest.raises(ValueError, match="semi_relaxed"):
        FusedGromov(semi_relaxed=True, teacher_first=True)
