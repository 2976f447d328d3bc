"""Implicit gradients, by which plans are differentiated, and Newton's steps, which need the same linear system."""

import pytest
import torch

from graphkd.ot import sinkhorn

READINGS = {
    "value": lambda t, m: t.value.sum(),
    "plan": lambda t, m: (t.plan - m).square().sum(),
    "sharp value": lambda t, m: (t.plan * m).sum(),
    "potentials": lambda t, m: (t.potentials[0] * m.sum(-1)).sum() + (t.potentials[1] * m.sum(-2)).square().sum(),
}


@pytest.mark.parametrize("domain", ["auto", "log", "scaling"])
@pytest.mark.parametrize("order", ["rows_first", "columns_first"])
@pytest.mark.parametrize("reading", READINGS)
def test_gradients_are_the_slopes_of_whatever_is_read(problem, assert_slopes, reading, order, domain):
    target = problem(5, 7, seed=3)[0]

    def loss(cost, a, b):
        transport = sinkhorn(
            cost, a, b, epsilon=0.1, num_iters=3000, tol=1e-14, order=order, domain=domain, gradient="implicit"
        )
        return READINGS[reading](transport, target)

    assert_slopes(loss, problem(5, 7))


def test_gradients_of_wide_problems_and_of_batches_are_slopes(problem, assert_slopes):
    for shape in ((7, 3), (1, 4), (4, 1)):
        cost, a, b = problem(*shape, batch=(2,))

        def loss(cost, a, b):
            transport = sinkhorn(cost, a, b, epsilon=0.2, num_iters=500, gradient="implicit")
            return (transport.plan.sin() * torch.arange(1.0, 3.0)[:, None, None]).sum() + transport.value.sum()

        if 1 in shape:
            leaves = [x.requires_grad_() for x in (cost, a, b)]
            assert all(x.isfinite().all() for x in torch.autograd.grad(loss(*leaves), leaves))
        else:
            assert_slopes(loss, (cost, a, b))


def test_equals_unroll_at_convergence(problem):
    found = []
    for gradient in ("implicit", "unroll"):
        cost = problem(6, 8)[0].requires_grad_()
        transport = sinkhorn(cost, *problem(6, 8)[1:], epsilon=0.1, num_iters=2000, gradient=gradient)
        found.append(torch.autograd.grad(transport.plan.square().sum(), cost)[0])
    torch.testing.assert_close(found[0], found[1], atol=1e-9, rtol=1e-6)


def test_nodes_without_mass_leave_the_others_their_gradients(problem):
    cost, a, b = problem(5, 7)
    a[2], b[[0, 4]] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    rows, columns = a > 0, b > 0
    options = {"epsilon": 0.1, "num_iters": 2000, "gradient": "implicit"}
    leaves = [x.clone().requires_grad_() for x in (cost, a, b)]
    fewer = [x.clone().requires_grad_() for x in (cost[rows][:, columns], a[rows], b[columns])]
    got = torch.autograd.grad(sinkhorn(*leaves, **options).plan.square().sum(), leaves)
    wanted = torch.autograd.grad(sinkhorn(*fewer, **options).plan.square().sum(), fewer)
    torch.testing.assert_close(got[0][rows][:, columns], wanted[0])
    assert not got[0][~rows].any()
    assert all(x.isfinite().all() for x in got)


def test_almost_separate_groups_have_finite_gradients(problem):
    cost = torch.ones(6, 6, dtype=torch.float32)
    cost[:3, :3] = cost[3:, 3:] = 0
    cost.requires_grad_()
    transport = sinkhorn(cost, epsilon=0.01, num_iters=50, gradient="implicit")
    (gradient,) = torch.autograd.grad((transport.plan * cost).sum() + transport.potentials[1][0], cost)
    assert gradient.isfinite().all()
    # Within a group all entries are alike, and so is what they do to the transport cost.
    torch.testing.assert_close(gradient.sum(), torch.tensor(1.0), atol=1.0, rtol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_agrees_with_the_implicit_gradient_of_ott(problem):
    jax = pytest.importorskip("jax")
    geometry = pytest.importorskip("ott.geometry.geometry")
    linear = pytest.importorskip("ott.problems.linear.linear_problem")
    solvers = pytest.importorskip("ott.solvers.linear.sinkhorn")
    inputs = problem(6, 8)
    target = problem(6, 8, seed=3)[0]
    with jax.enable_x64(True):
        solver = solvers.Sinkhorn(threshold=1e-12, max_iterations=20_000)

        def loss(cost, a, b):
            plan = solver(linear.LinearProblem(geometry.Geometry(cost, epsilon=0.05), a, b)).matrix
            return ((plan - target.numpy()) ** 2).sum()

        theirs = jax.grad(loss, argnums=(0, 1, 2))(*(jax.numpy.asarray(x.numpy()) for x in inputs))
        wanted = [torch.tensor(x.tolist(), dtype=torch.float64) for x in theirs]
    leaves = [x.requires_grad_() for x in inputs]
    plan = sinkhorn(*leaves, epsilon=0.05, num_iters=20_000, tol=1e-13, gradient="implicit").plan
    got = torch.autograd.grad((plan - target).square().sum(), leaves)
    torch.testing.assert_close(got[0], wanted[0], atol=1e-7, rtol=1e-5)
    for mine, other in zip(got[1:], wanted[1:], strict=True):
        # Slopes along masses are known up to a constant, since their sum is kept.
        torch.testing.assert_close(mine - mine.mean(), other - other.mean(), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_newton_needs_tens_of_steps_where_sweeps_need_thousands(problem, dtype):
    cost, a, b = problem(30, 40, dtype=dtype)
    options = {"epsilon": 0.002, "tol": 1e-5}
    swept = sinkhorn(cost, a, b, num_iters=20_000, **options)
    transport = sinkhorn(cost, a, b, num_iters=10, newton_iters=50, **options)
    assert int(swept.num_iters) > 20 * int(transport.num_iters)
    assert transport.converged
    assert float(transport.value) == pytest.approx(float(swept.value), rel=1e-4)


@pytest.mark.parametrize("order", ["rows_first", "columns_first"])
@pytest.mark.parametrize("gradient", ["envelope", "implicit"])
def test_gradients_after_newton_are_slopes(problem, assert_slopes, gradient, order):
    def value(cost, a, b):
        options = {"num_iters": 5, "newton_iters": 60, "tol": 1e-13, "gradient": gradient, "order": order}
        return sinkhorn(cost, a, b, epsilon=0.01, **options).value

    assert_slopes(value, problem(6, 8), step=1e-6)


def test_newton_solves_each_problem_of_a_batch_as_if_alone(problem):
    cost, a, b = problem(6, 8, batch=(3,))
    scale = torch.tensor([1.0, 0.1, 0.02], dtype=torch.float64)[:, None, None]
    options = {"epsilon": 0.01, "num_iters": 3, "newton_iters": 40, "tol": 1e-10}
    together = sinkhorn(scale * cost, a, b, **options)
    assert together.converged.all()
    assert len(set(together.num_iters.tolist())) > 1
    for k in range(3):
        alone = sinkhorn(scale[k] * cost[k], a[k], b[k], **options)
        torch.testing.assert_close(together.plan[k], alone.plan, atol=1e-9, rtol=0)
        assert together.num_iters[k] == alone.num_iters


def test_newton_leaves_a_solved_problem_alone(problem):
    cost, a, b = problem(6, 8)
    transport = sinkhorn(cost, a, b, epsilon=0.5, num_iters=100, newton_iters=10, tol=1e-8)
    assert transport.num_iters == sinkhorn(cost, a, b, epsilon=0.5, num_iters=100, tol=1e-8).num_iters


def test_newton_stands_nodes_without_mass(problem):
    cost, a, b = problem(6, 8)
    a[0], b[[1, 2]] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    transport = sinkhorn(cost, a, b, epsilon=0.005, num_iters=5, newton_iters=60, tol=1e-8)
    assert transport.converged
    assert all(x.isfinite().all() for x in transport.potentials)


@pytest.mark.parametrize(
    "options",
    [{"tau_a": 0.5}, {"stabilizer": 1e-8}, {"gradient": "unroll"}, {"newton_iters": -1}],
    ids=str,
)
def test_newton_where_it_has_no_meaning_is_refused(problem, options):
    with pytest.raises(ValueError, match="newton_iters needs"):
        sinkhorn(*problem(3, 3), epsilon=0.1, **{"newton_iters": 3, **options})


def test_implicit_gradients_of_lossy_sweeps_are_refused(problem):
    with pytest.raises(ValueError, match="an implicit gradient needs masses that are kept"):
        sinkhorn(*problem(3, 3), epsilon=0.1, gradient="implicit", stabilizer=1e-8)
