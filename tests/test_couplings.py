"""Couplings: what each plan is, and what is refused."""

import inspect

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd import measures
from graphkd.couplings import IPOT, Exact, FusedGromov, Identity, RowSoftmax, Sinkhorn
from graphkd.loss import GraphLoss
from graphkd.ot import Relative, exact, fused_gromov, ipot, sinkhorn
from graphkd.reductions import TransportCost
from graphkd.relations import Pairwise
from graphkd.typing import Relations


def problem(n: int = 4, m: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(n, m, generator=generator, dtype=torch.float64)
    a = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1
    b = torch.rand(m, generator=generator, dtype=torch.float64) + 0.1
    return cost, a / a.sum(), b / b.sum()


def test_identity_moves_each_mass_to_its_own_partner():
    cost, a, _ = problem(4, 4)
    transport = Identity()(cost, None, a, a)
    assert torch.equal(transport.plan, torch.diag(a))
    torch.testing.assert_close(transport.value, (cost.diagonal() * a).sum())
    assert transport.paired
    assert transport.potentials is None
    assert transport.marginal_error == 0
    assert bool(transport.converged)
    assert transport.epsilon == 0


def test_identity_needs_no_cost():
    _, a, _ = problem(4, 4)
    assert Identity()(None, None, a, a).value is None


def test_identity_reports_masses_that_do_not_fit():
    _, a, b = problem(4, 4)
    transport = Identity()(None, None, a, b)
    torch.testing.assert_close(transport.marginal_error, (a - b).abs().sum())
    assert not bool(transport.converged)


def test_identity_refuses_sets_of_two_sizes():
    cost, a, b = problem(4, 6)
    with pytest.raises(ValueError, match="needs as many student as teacher nodes, got 4 and 6"):
        Identity()(cost, None, a, b)


def test_row_softmax_equals_a_loop_in_plan_and_gradient():
    cost, a, b = problem()
    cost.requires_grad_()
    wanted = []
    for i in range(4):
        weight = [b[j] * (-cost[i, j] / 0.3).exp() for j in range(6)]
        wanted.append(torch.stack([a[i] * w / sum(weight) for w in weight]))
    wanted = torch.stack(wanted)
    transport = RowSoftmax(0.3)(cost, None, a, b)
    torch.testing.assert_close(transport.plan, wanted)
    torch.testing.assert_close(transport.plan.sum(-1), a)
    gradients = [torch.autograd.grad(plan.square().sum(), cost)[0] for plan in (transport.plan, wanted)]
    torch.testing.assert_close(*gradients)
    assert not transport.paired
    assert bool(transport.converged)


def test_row_softmax_is_what_its_potentials_say():
    cost, a, b = problem()
    transport = RowSoftmax(0.3)(cost, None, a, b)
    f, g = transport.potentials
    torch.testing.assert_close(a[:, None] * b * ((f[:, None] + g - cost) / 0.3).exp(), transport.plan)
    assert transport.epsilon.item() == pytest.approx(0.3)


def test_row_softmax_minimises_its_value():
    cost, a, b = problem()
    transport = RowSoftmax(0.3)(cost, None, a, b)

    def objective(plan: Tensor) -> Tensor:
        return (plan * cost).sum() + 0.3 * (plan * (plan / (a[:, None] * b)).log()).sum()

    torch.testing.assert_close(objective(transport.plan), transport.value)
    other = a[:, None] * (transport.plan + 0.01).softmax(-1)
    assert objective(other) > transport.value


@pytest.mark.parametrize("cost", [torch.tensor([[0.0, 10.0], [5.0, 10.0]]), torch.tensor([[900.0, 10.0], [5.0, 0.0]])])
def test_row_softmax_survives_a_node_without_mass_and_a_tiny_epsilon(cost):
    cost = cost.requires_grad_()
    transport = RowSoftmax(0.01)(cost, None, torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]))
    assert transport.plan.tolist() == [[0.0, 0.5], [0.0, 0.5]]
    (gradient,) = torch.autograd.grad(transport.plan.square().sum() + transport.value, cost)
    assert torch.isfinite(gradient).all()


def test_row_softmax_couples_batches_one_by_one():
    cost, a, b = problem()
    batched = RowSoftmax(0.3)(torch.stack([cost, cost + cost.square()]), None, a, b)
    torch.testing.assert_close(batched.plan[0], RowSoftmax(0.3)(cost, None, a, b).plan)
    assert batched.value.shape == batched.converged.shape == (2,)


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
