"""Sinkhorn with its rows spread over processes is Sinkhorn in one: plan, value, stopping and gradients."""

from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import run
from sharded_cases import Case, Solved, complaints, dies, large, learned, solved, solved_unseen

from graphkd.ot import Relative, absorbed, sharded_sinkhorn, shards, sinkhorn

WORLDS = (1, 2, 4)

close = partial(torch.testing.assert_close, atol=1e-12, rtol=0)


def drawn(n: int = 13, m: int = 9, dtype: torch.dtype = torch.float64, **options) -> Case:
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(n, m, generator=generator, dtype=dtype)
    a, b = (torch.rand(k, generator=generator, dtype=dtype) + 0.2 for k in (n, m))
    return Case(cost, a / a.sum(), b / b.sum(), {"epsilon": 0.1, "num_iters": 6, **options})


def without_mass(case: Case) -> Case:
    """The last rows, all of a process in four, and a column near to all lack mass."""
    cost, a, b = case.cost.clone(), case.a.clone(), case.b.clone()
    cost[:, 2], cost[9:] = -1, 3
    a[7:], b[2] = 0, 0
    return Case(cost, a / a.sum(), b / b.sum(), case.options)


def uneven(case: Case) -> Case:
    """The first row, all that one of several processes has, is as far from all columns: its own costs are in range."""
    return case._replace(cost=torch.cat([torch.full_like(case.cost[:1], 0.5), case.cost[1:]]))


FLIP = {"order": "columns_first"}
HARD = {"epsilon": 0.002, "num_iters": 20}
NARROW = {"dtype": torch.float32, "epsilon": 0.005, "num_iters": 15}

CASES = {
    "scaling": drawn(),
    "scaling, columns first": drawn(**FLIP),
    "log": drawn(domain="log"),
    "log, columns first": drawn(domain="log", **FLIP),
    "absorbed": drawn(**HARD),
    "absorbed, columns first": drawn(**HARD, **FLIP),
    "absorbed for the sake of some": uneven(drawn(**HARD)),
    "small epsilon in log": drawn(domain="log", **HARD),
    "small epsilon in log, columns first": drawn(domain="log", **HARD, **FLIP),
    "one sweep": drawn(num_iters=1),
    "one sweep, columns first": drawn(num_iters=1, **FLIP),
    "more columns than rows": drawn(8, 31),
    "mass 50": drawn()._replace(a=50 * drawn().a, b=50 * drawn().b),
    "uniform": drawn()._replace(a=None, b=None),
    "uniform rows": drawn()._replace(a=None),
    "relative": drawn(epsilon=Relative(0.3)),
    "relative, constant cost": drawn(epsilon=Relative(0.3))._replace(
        cost=torch.full((13, 9), 0.1, dtype=torch.float64)
    ),
    "without mass": without_mass(drawn()),
    "without mass, columns first": without_mass(drawn(**FLIP)),
    "without mass in log": without_mass(drawn(domain="log")),
    "without mass in log, columns first": without_mass(drawn(domain="log", **FLIP)),
    "without mass, absorbed": without_mass(drawn(**HARD)),
    "tolerance": drawn(tol=1e-3, num_iters=50),
    "tolerance, columns first": drawn(tol=1e-3, num_iters=50, **FLIP),
    "tolerance in log": drawn(tol=1e-3, num_iters=50, domain="log"),
    "tolerance in log, columns first": drawn(tol=1e-3, num_iters=50, domain="log", **FLIP),
    "tolerance, absorbed": drawn(dtype=torch.float32, epsilon=0.02, tol=0.03, num_iters=50),
    "tolerance, absorbed, columns first": drawn(dtype=torch.float32, epsilon=0.02, tol=0.03, num_iters=50, **FLIP),
    "tolerance of mass 50": drawn(tol=1e-3, num_iters=50)._replace(a=50 * drawn().a, b=50 * drawn().b),
    "tolerance not met": drawn(tol=1e-9, num_iters=5),
    "float32": drawn(dtype=torch.float32),
    "float32, absorbed": drawn(**NARROW),
    "float32 in log": drawn(domain="log", **NARROW),
    "half precision": drawn(dtype=torch.bfloat16)._replace(a=None, b=None),
}


@pytest.fixture(scope="module")
def found() -> dict[int, list[dict[str, Solved]]]:
    """What all processes come to in all cases, by the number of processes."""
    return {world: [solved(CASES)] if world == 1 else run(world, solved, CASES) for world in WORLDS}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", CASES)
def test_rows_of_all_processes_are_those_of_one(found, name: str, world: int):
    cost, a, b, options = CASES[name]
    leaves = [None if x is None else x.clone().requires_grad_() for x in (cost, a, b)]
    whole = sinkhorn(*leaves, **options)
    whole.value.backward()
    parts = [each[name] for each in found[world]]
    # Of the terms in the exponents, 1 / epsilon in size, float32 keeps seven digits.
    near = partial(close, atol=1e-12 if cost.dtype == torch.float64 else 1e-6 if options["epsilon"] == 0.1 else 1e-4)
    mass = 1 if a is None else float(a.sum())
    near(torch.cat([each.plan for each in parts]) / mass, whole.plan.detach() / mass)
    near(torch.cat([each.potentials[0] for each in parts]), whole.potentials[0])
    times = sum(range(1, world + 1))
    for k, leaf in enumerate(leaves[:2]):
        if leaf is not None:
            rounded = 2**-6 if leaf.dtype == torch.bfloat16 else 0
            near(torch.cat([each.gradients[k] for each in parts]) / mass, times * leaf.grad / mass, rtol=rounded)
    for rank, each in enumerate(parts):
        near(each.value / mass, whole.value.detach() / mass)
        near(each.potentials[1], whole.potentials[1])
        near(each.marginal_error, whole.marginal_error)
        near(each.epsilon, whole.epsilon)
        assert each.value == parts[0].value and each.marginal_error == parts[0].marginal_error
        assert each.num_iters == whole.num_iters
        assert each.converged == whole.converged
        if b is not None:
            near(each.gradients[2], (rank + 1) * leaves[2].grad)


def test_cases_stop_where_they_are_meant_to(found):
    for name, case in CASES.items():
        count = int(found[4][0][name].num_iters)
        if name.startswith("tolerance") and name != "tolerance not met":
            assert 2 < count < case.options["num_iters"]
        else:
            assert count == case.options["num_iters"]


def test_kernel_is_renewed_as_often_as_in_one_process(monkeypatch):
    made = Counter()

    def counted(kind: type) -> type:
        class Counted(kind):
            def __init__(self, *given, **named) -> None:
                made[kind.__name__] += 1
                super().__init__(*given, **named)

        return Counted

    monkeypatch.setattr(absorbed, "Scaling", counted(absorbed.Scaling))
    monkeypatch.setattr(shards, "ShardedScaling", counted(shards.ShardedScaling))
    cost, a, b, options = CASES["absorbed"]
    sinkhorn(cost, a, b, **options)
    sharded_sinkhorn(cost, a, b, **options)
    assert made == {"Scaling": 2, "ShardedScaling": 2}


@pytest.mark.parametrize("which", ["a", "b"])
def test_masses_learn_where_the_cost_is_given(which: str):
    grads = []
    for solve in (sinkhorn, sharded_sinkhorn):
        cost, a, b, options = drawn()
        learns = {"a": a, "b": b}[which].requires_grad_()
        solve(cost, a, b, **options).value.backward()
        grads.append(learns.grad)
    close(*grads)


@pytest.mark.parametrize("name", ["tolerance in log", "tolerance in log, columns first"])
def test_problem_whose_numbers_cannot_be_looked_at_is_frozen_when_done(found, unseen, name: str):
    for each, wanted in zip(unseen, found[2], strict=True):
        assert each[name].num_iters == wanted[name].num_iters
        close(each[name].plan, wanted[name].plan)


@pytest.fixture(scope="module")
def unseen() -> list[dict[str, Solved]]:
    return run(
        2, solved_unseen, {name: CASES[name] for name in ("tolerance in log", "tolerance in log, columns first")}
    )


def test_four_processes_have_rows_of_their_own_number(found):
    assert [len(each["scaling"].plan) for each in found[4]] == [1, 3, 4, 5]


@pytest.mark.parametrize("world", [2, 4])
def test_training_with_averaged_gradients_is_that_of_one_process(world: int):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(11, d, generator=generator, dtype=torch.float64) for d in (3, 4))
    wanted = learned(x, y)
    assert all(float(each.abs().max()) > 1e-3 for name, each in wanted.items() if name != "mass.bias")
    for each in run(world, learned, x, y):
        close(each, wanted, atol=1e-10)


def spoilt(**changes) -> Case:
    return drawn(3, 4)._replace(**changes)


GOOD = spoilt()
WRONG = {
    # What one process is given, and what all are told.
    "more columns": (drawn(3, 5), "processes need to agree about m, got [4, 5]"),
    "epsilon": (drawn(3, 4, epsilon=0.2), "processes need to agree about epsilon, got [0.1, 0.2]"),
    "a relative epsilon": (drawn(3, 4, epsilon=Relative(0.1)), "epsilon, got [0.1, Relative(share=0.1)]"),
    "sweeps": (drawn(3, 4, num_iters=7), "num_iters, got [6, 7]"),
    "tolerance": (drawn(3, 4, tol=0.1), "tol, got [None, 0.1]"),
    "order": (drawn(3, 4, **FLIP), "order, got ['rows_first', 'columns_first']"),
    "domain": (drawn(3, 4, domain="log"), "domain, got ['auto', 'log']"),
    "dtype": (drawn(3, 4, torch.float32), "the dtype, got [torch.float64, torch.float32]"),
    "missing a": (spoilt(a=None), "a_rows being given, got [True, False]"),
    "gradient": (spoilt(cost=GOOD.cost.clone().requires_grad_()), "gradients, got [[], ['cost_rows']]"),
    "other b": (spoilt(b=GOOD.b.flip(0)), "agree about b, got sums or centres of"),
    "more mass in a": (spoilt(a=2 * GOOD.a), "a and b need equal sums, got 1.5 for the rows of all processes and 1"),
    "NaN": (spoilt(cost=GOOD.cost.log().sqrt()), "in process 1 of 2: cost_rows needs finite values, got 12 NaN"),
    "infinite a": (spoilt(a=GOOD.a / 0), "in process 1 of 2: a_rows needs masses of at least 0 with a finite sum"),
    "negative a": (spoilt(a=-GOOD.a), "in process 1 of 2: a_rows needs masses of at least 0"),
    "NaN in b": (spoilt(b=GOOD.b.log().sqrt()), "in process 1 of 2: b needs masses of at least 0"),
    "no mass in b": (spoilt(b=0 * GOOD.b), "processes need to agree about b, got sums or centres of [1.0, 0.0]"),
    "no rows": (spoilt(cost=GOOD.cost[:0]), "in process 1 of 2: cost_rows needs at least one row"),
    "a too short": (spoilt(a=GOOD.a[1:]), "a_rows needs 3 masses for cost rows of shape (3, 4), got (2,)"),
    "b too short": (spoilt(b=GOOD.b[1:]), "b needs 4 masses for cost rows of shape (3, 4), got (3,)"),
    "several costs": (spoilt(cost=GOOD.cost[None]), "one cost (n, m), got shape (1, 3, 4)"),
    "integers": (spoilt(cost=GOOD.cost.long()), "cost_rows needs floating-point values, got torch.int64"),
    "no epsilon": (drawn(3, 4, epsilon=0), "epsilon needs a finite number above 0, got 0"),
    "nothing": (spoilt(cost=None), "cost_rows needs a tensor, got NoneType"),
}


@pytest.fixture(scope="module")
def said() -> list[dict[str, str]]:
    halves = GOOD._replace(a=GOOD.a / 2)
    calls = {}
    for name, (other, _) in WRONG.items():
        own = other._replace(a=other.a / 2 if other.a is not None else None)
        calls[name] = (halves, 1, own)
    nothing = GOOD._replace(a=0 * GOOD.a)
    return run(2, complaints, {**calls, "no mass": (nothing, 1, nothing), "good": (halves, 1, halves)})


@pytest.mark.parametrize("name", WRONG)
def test_what_one_process_is_given_wrongly_is_refused_in_all(said, name: str):
    assert WRONG[name][1] in said[0][name]
    assert said[0][name] == said[1][name]


def test_rows_without_any_mass_are_refused(said):
    assert "sum above 0 over all processes" in said[0]["no mass"]


def test_processes_go_on_after_what_they_refused(said):
    assert [each["good"] for each in said] == ["nothing", "nothing"]


def test_one_process_alone_says_what_is_wrong_without_its_number():
    with pytest.raises(ValueError, match=r"^cost_rows needs finite values, got 1 NaN"):
        sharded_sinkhorn(torch.tensor([[0.0, torch.nan]]), epsilon=0.1)


def test_loss_that_reads_the_plan_is_refused():
    plan = sharded_sinkhorn(torch.rand(3, 4, requires_grad=True), epsilon=0.1).plan
    with pytest.raises(ValueError, match="use the transport's value"):
        plan.square().sum().backward()


def test_sweeps_that_did_not_suffice_are_logged(caplog):
    sharded_sinkhorn(torch.rand(8, 9), epsilon=0.01, num_iters=2, tol=1e-6)
    assert "before the tolerance was met" in caplog.text


def test_costs_leave_a_constant_without_gradient_where_none_is_asked_for():
    assert not sharded_sinkhorn(torch.rand(3, 4), epsilon=0.1).value.requires_grad
    with torch.no_grad():
        assert not sharded_sinkhorn(torch.rand(3, 4, requires_grad=True), epsilon=0.1).value.requires_grad


def test_processes_do_not_wait_for_ever_for_one_that_died():
    with pytest.raises(AssertionError, match=r"(?s)process 0: .*RuntimeError.*process 1: ended without a word"):
        run(2, dies, timeout=5)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux counts a process's peak anew")
def test_four_processes_need_less_than_a_third_of_the_memory_of_one(tmp_path):
    ((whole, value),) = run(1, large, str(tmp_path))
    shards = run(4, large, str(tmp_path))
    plan = torch.load(tmp_path / "plan0of1.pt")
    rows = torch.cat([torch.load(tmp_path / f"plan{rank}of4.pt") for rank in range(4)])
    assert float((rows - plan).abs().sum()) < 1e-5
    assert float((rows / plan - 1).abs().max()) < 1e-4
    assert all(abs(each / value - 1) < 1e-5 for _, each in shards)
    assert max(taken for taken, _ in shards) < whole / 3
