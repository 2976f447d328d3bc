import pytest
import torch

from graphkd.ot import Relative, marginal_errors, sinkhorn

CASES = {
    "few epsilon": {"epsilon": 0.1},
    "absorbed potentials": {"epsilon": 0.001},
    "log": {"epsilon": 0.05, "domain": "log"},
    "scaling": {"epsilon": 0.05, "domain": "scaling"},
    "columns first": {"epsilon": 0.05, "order": "columns_first"},
    "columns first, absorbed": {"epsilon": 0.001, "order": "columns_first"},
    "relative": {"epsilon": Relative(0.1)},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_every_entry_is_the_error_of_solving_with_so_many_sweeps(problem, options, dtype):
    cost, a, b = problem(6, 9, dtype=dtype)
    found = marginal_errors(cost, a, b, num_iters=25, **options)
    solved = [sinkhorn(cost, a, b, num_iters=t, **options).marginal_error for t in range(1, 26)]
    assert found.dtype == dtype
    assert torch.equal(found, torch.stack(solved))
    assert (found[1:] < found[:-1]).any()


@pytest.mark.parametrize("domain", ["auto", "log"])
def test_each_problem_of_a_batch_has_its_own_errors(problem, domain):
    cost, a, b = problem(4, 5, batch=(3, 2))
    found = marginal_errors(cost, a, b, epsilon=0.1, num_iters=7, domain=domain)
    assert found.shape == (7, 3, 2)
    for t in (1, 7):
        wanted = sinkhorn(cost, a, b, epsilon=0.1, num_iters=t, domain=domain).marginal_error
        assert torch.equal(found[t - 1], wanted)


def test_masses_are_uniform_by_default(problem):
    cost, *_ = problem(4, 5)
    uniform = [torch.full((k,), 1 / k, dtype=cost.dtype) for k in (4, 5)]
    assert torch.equal(marginal_errors(cost, epsilon=0.1), marginal_errors(cost, *uniform, epsilon=0.1))
    assert len(marginal_errors(cost, epsilon=0.1)) == 100


def test_the_error_is_a_share_of_the_mass(problem):
    cost, a, b = problem(4, 5)
    once = marginal_errors(cost, a, b, epsilon=0.1, num_iters=3)
    torch.testing.assert_close(marginal_errors(cost, 10 * a, 10 * b, epsilon=0.1, num_iters=3), once)


def test_errors_carry_no_gradient(problem):
    cost, a, b = (x.requires_grad_() for x in problem(4, 5))
    for epsilon in (0.1, 0.001):
        assert not marginal_errors(cost, a, b, epsilon=epsilon, num_iters=3).requires_grad


def test_autocast_changes_nothing(problem):
    cost, a, b = problem(4, 5, dtype=torch.float32)
    for domain in ("log", "auto"):
        wanted = marginal_errors(cost, a, b, epsilon=0.05, num_iters=5, domain=domain)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(marginal_errors(cost, a, b, epsilon=0.05, num_iters=5, domain=domain), wanted)
    half = marginal_errors(cost.half(), epsilon=0.05, num_iters=5)
    assert half.dtype == torch.float32


def test_what_does_not_fit_is_refused(problem):
    cost, a, b = problem(4, 5)
    with pytest.raises(ValueError, match="num_iters needs an integer of at least 1, got 0"):
        marginal_errors(cost, epsilon=0.1, num_iters=0)
    with pytest.raises(ValueError, match="epsilon needs a finite number above 0, got -1"):
        marginal_errors(cost, epsilon=-1)
    with pytest.raises(ValueError, match="a and b need equal sums"):
        marginal_errors(cost, a, 2 * b, epsilon=0.1)
