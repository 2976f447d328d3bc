import itertools
import json
import os
import sys

import pytest
import torch

from graphkd.benchmark import gromov, linear, ot, shared
from graphkd.benchmark.budget import SOLVED, STEP, step_section
from graphkd.benchmark.compare import Effort, Row, compare, fastest, judged_gradients, quiet
from graphkd.benchmark.entropic import Settings, batch_peers, one_problem_peers, tolerance_peers
from graphkd.benchmark.floor import floor
from graphkd.benchmark.peers import CannotRun, InTorch, Peer, judge_gradient
from graphkd.benchmark.pinning import pinned
from graphkd.benchmark.problems import (
    entropic_objective,
    entropic_optimum,
    fused_objective,
    gromov_problem,
    linear_problem,
)
from graphkd.benchmark.report import milliseconds, number, print_case, print_summary
from graphkd.benchmark.timing import Timing, summary
from graphkd.cli import main

ONCE = Effort(1, 1)


@pytest.fixture(scope="module", autouse=True)
def judged_anew():
    """Verdicts of gradients are kept; those of these tests are of fewer sweeps than others would want."""
    for verdicts in (linear._verdicts, gromov._verdicts):
        verdicts.cache_clear()
    yield
    for verdicts in (linear._verdicts, gromov._verdicts):
        verdicts.cache_clear()


@pytest.fixture
def torch_only(monkeypatch):
    """Few sweeps, and no JAX, which takes seconds to compile what is run once: as if it were not installed."""
    for name in ("jax", "ott", "ott.geometry", "ott.solvers.linear", "ott.problems.linear"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(linear, "floor", lambda entries: floor(entries, repeats=1, large=2**16))
    for name, sweeps in (("SWEEPS", 50), ("MOST_SWEEPS", 160), ("JUDGED_SWEEPS", 60)):
        monkeypatch.setattr(linear, name, sweeps)
    for name in ("OUTER", "INNER"):
        monkeypatch.setattr(gromov, name, 8)


def named(rows):
    return {row.name: row for row in rows}


def cubic(slope=3.0, detached=False):
    """A solver of a scalar problem, whose gradient is 3 x^2 if all is well."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, incoming):
            (x,) = ctx.saved_tensors
            return incoming * slope * x**2

    return InTorch(lambda x: ((x.detach() if detached else Wrong.apply(x)).sum(), lambda: None))


@pytest.mark.parametrize(
    ("solver", "verdict"),
    [(cubic(), "right"), (cubic(6.0), "x × 2.00"), (cubic(-3.0), "x × -1.00"), (cubic(detached=True), "none to x")],
)
def test_a_wrong_gradient_is_named(solver, verdict):
    inputs, direction = [torch.ones(3, dtype=torch.float64)], {"x": torch.arange(3.0) + 1}
    assert judge_gradient(solver, inputs, direction) == verdict
    assert judged_gradients([Peer("a", "b", lambda: solver)], lambda s: judge_gradient(s, inputs, direction)) == {
        "a b": verdict
    }


def test_a_gradient_that_is_not_finite_is_named():
    broken = Peer("a", "b", lambda: InTorch(lambda x: ((x - x).sqrt().sum(), lambda: None)))
    (row,) = compare("case", [broken], [torch.ones(2)], ONCE, lambda look: {}, {"a b": "right"})
    assert row.gradient == "not finite"


def test_what_cannot_be_run_is_a_row_and_ends_nothing():
    def lacks():
        import no_such_package

        return no_such_package

    def refuses():
        raise CannotRun("too large")

    def breaks(x):
        raise RuntimeError("broken inside")

    peers = [
        Peer("a", "lacks", lacks, "no-such-package"),
        Peer("b", "refuses", refuses),
        Peer("c", "breaks", lambda: InTorch(breaks)),
        Peer("d", "runs", cubic),
    ]
    rows = compare("case", peers, [torch.ones(2)], ONCE, lambda look: {"value": look.value})
    assert [row.failed for row in rows] == [
        "not installed: pip install no-such-package",
        "too large",
        "RuntimeError: broken inside",
        "",
    ]
    assert [row.both is None for row in rows] == [True, True, True, False]
    assert rows[3].both_ratio.rounds == [1.0]
    assert rows[3].accuracy == {"value": 2.0}


def test_fastest_is_the_fastest_that_is_right():
    def row(call, seconds, library="a", **more):
        return Row("case", library, call, both=summary([seconds]), **({"gradient": "right"} | more))

    rows = [
        row("wrong gradient", 1.0, gradient="cost × 2.00"),
        row("other problem", 1.0, same_problem=False),
        row("unsolved", 1.0, accuracy={"objective": 0.0, "marginal": 0.3}),
        row("not a number", 1.0, accuracy={"objective": float("nan")}),
        row("right", 3.0, accuracy={"objective": -1e-3, "marginal": 1e-6}),
        row("slower", 4.0),
        row("other library", 1.0, library="b"),
    ]
    found, wrong = fastest(rows, "a"), fastest(rows[:2], "a")
    assert found is not None and found.call == "right"
    assert wrong is not None and wrong.call == "wrong gradient"
    assert fastest(rows[1:4], "a") is None


def test_optimum_is_where_the_objective_is_least():
    cost, a, b = linear_problem(5, dtype=torch.float64)
    best = entropic_optimum(cost, a, b, 0.1)
    found = named(one_problem_peers(Settings(0.1, 300)))["graphkd sinkhorn"].load().on((cost, a, b)).look()
    assert entropic_objective(found.plan, cost, a, b, 0.1) == pytest.approx(best, rel=1e-12)
    assert found.value == pytest.approx(best, rel=1e-12)
    assert entropic_objective(a[:, None] * b, cost, a, b, 0.1) > best + 1e-3


def test_fused_objective_is_its_definition():
    cost, student, teacher, a, b = gromov_problem("independent", 4, dtype=torch.float64)
    plan = a[:, None] * b
    nodes = itertools.product(range(4), repeat=4)
    expected = sum(plan[i, j] * plan[k, m] * (student[i, k] - teacher[j, m]) ** 2 for i, j, k, m in nodes)
    expected = 0.3 * expected + 0.7 * (plan * cost).sum()
    assert fused_objective(plan, cost, student, teacher, 0.3) == pytest.approx(float(expected))


def test_sinkhorn_section_has_every_library_and_the_floors(torch_only):
    (rows,) = linear.sinkhorn_section(ONCE, sizes=(6,))
    found = named(rows)
    assert [row.name for row in rows if row.library != "floor"] == [
        peer.name for peer in one_problem_peers(Settings(1.0, 1))
    ]
    assert found["POT solve, envelope"].gradient == found["graphkd sinkhorn"].gradient == "right"
    assert found["GeomLoss solve"].gradient.startswith("cost × ")
    assert found["OTT-JAX lse"].failed == "not installed: pip install ott-jax"
    for name in ("graphkd sinkhorn", "plain torch unrolled", "POT solve, autodiff", "POT sinkhorn2, autodiff"):
        assert abs(found[name].accuracy["objective"]) < 1e-4, name
        assert found[name].accuracy["marginal"] < 1e-4, name
    assert found["POT emd2 (exact)"].accuracy == {}
    floors = [row for row in rows if row.library == "floor"]
    assert len(floors) == 3
    assert all(0 < row.forward.median and row.forward_ratio.median < 1 for row in floors)


def test_tolerance_is_met_by_those_with_a_rule(torch_only):
    (rows,) = linear.tolerance_section(ONCE, sizes=(6,))
    found = named(rows)
    for name in ("graphkd sinkhorn", "plain torch envelope"):
        assert found[name].accuracy["marginal"] < 2 * linear.TOLERANCE
    geomloss = found["GeomLoss solve, iterations found before"]
    assert "has no rule to stop by" in geomloss.failed
    assert geomloss.gradient.startswith("cost × ")


def test_iterations_that_suffice_are_found_for_geomloss():
    inputs = linear_problem(6)
    peer = named(tolerance_peers(Settings(0.2, 640, 0.01), inputs))["GeomLoss solve, iterations found before"]
    look = peer.load().on(inputs).look()
    assert (look.plan.sum(1) - inputs[1]).abs().sum() + (look.plan.sum(0) - inputs[2]).abs().sum() <= 0.01


def test_batch_section_says_which_gradients_lack(torch_only):
    (rows,) = linear.batch_section(ONCE, sizes=(5,), problems=2)
    found = named(rows)
    assert {peer.name for peer in batch_peers(Settings(1.0, 1))} < set(found)
    assert found["POT solve_batch, envelope"].gradient == "none to a, b"
    assert found["POT solve_batch, autodiff"].gradient == "right"
    assert found["GeomLoss solve_batch"].gradient.startswith("cost × ")


def test_shared_cost_is_the_same_formulation_as_a_cost_per_sample():
    (rows,) = shared.shared_section(ONCE, sizes=(3,))
    found = named(rows)
    for name in (
        "graphkd shared_sinkhorn, unroll",
        "plain torch a cost per sample",
        "POT solve_batch, a cost per sample",
    ):
        assert found[name].accuracy["value error"] < 1e-12, name
        assert found[name].accuracy["gradient error"] < 1e-12, name
    assert not found["graphkd shared_sinkhorn, envelope"].same_problem


@pytest.mark.slow
def test_peak_memory_grows_with_a_cost_per_sample_only():
    rows = named(shared.memory_rows(32, 300))
    assert not any(row.failed for row in rows.values())
    ours = rows["graphkd shared_sinkhorn, unroll"].accuracy["peak MB"]
    published = rows["plain torch a cost per sample"].accuracy["peak MB"]
    assert published > 4 * 32 * 299 * 299 / 2**20
    assert ours < published / 4


def test_gromov_section_has_families_and_a_batch(torch_only, monkeypatch):
    monkeypatch.setattr(gromov, "BATCH_FAMILIES", ("noisy",))
    cases = list(gromov.gromov_section(ONCE, sizes=(5,), families=("matched",), batch=2))
    assert [rows[0].case for rows in cases] == ["matched, n = 5", "noisy, 2 of 5"]
    for rows in cases:
        assert [row.name for row in rows[:3]] == [
            f"graphkd fused_gromov, {solver}" for solver in ("auto", "mirror", "conditional")
        ]
        found = named(rows)
        assert found["POT conditional gradient"].accuracy["objective"] == pytest.approx(0, abs=1e-5)
        assert found["graphkd fused_gromov, conditional"].accuracy["marginal"] < 1e-5
        assert found["graphkd fused_gromov, conditional"].gradient == "right"
        assert found["POT conditional gradient"].gradient == "right"
        (ott,) = [row for row in rows if row.library == "OTT-JAX"]
        assert ott.failed == "not installed: pip install ott-jax"


def test_large_problems_are_left_to_those_who_can_solve_them():
    peers = gromov.gromov_peers(gromov.Shape(1024))
    refused = []
    for peer in peers:
        try:
            with quiet():
                peer.load()
        except CannotRun as reason:
            refused.append(f"{peer.library}: {reason}")
    assert "POT: not run above n = 256" in refused
    assert "OTT-JAX: not run above n = 512" in refused
    assert not any("conditional" in line for line in refused)
    assert not any(line.startswith("graphkd") for line in refused)


@pytest.mark.parametrize("before", [None, "cuda"])
def test_threads_and_cores_are_as_before_when_pinning_ends(monkeypatch, before):
    if before is None:
        monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    else:
        monkeypatch.setenv("JAX_PLATFORMS", before)
    state = torch.get_num_threads(), os.sched_getaffinity(0)
    with pytest.raises(RuntimeError), pinned(1):
        assert (torch.get_num_threads(), len(os.sched_getaffinity(0))) == (1, 1)
        assert os.environ["JAX_PLATFORMS"] == "cpu"
        raise RuntimeError
    assert (torch.get_num_threads(), os.sched_getaffinity(0)) == state
    assert os.environ.get("JAX_PLATFORMS") == before


def test_step_section_is_a_share_of_the_students_step():
    (rows,) = step_section(ONCE, sizes=(4,))
    found = {row.call: row for row in rows}
    together = [f"all with FGW, {how}" for how in SOLVED]
    assert {STEP, *together} < set(found)
    assert found[STEP].both_ratio.median == 1
    share = found[together[0]].both_ratio.median
    assert share == pytest.approx(found[together[0]].both.median / found[STEP].both.median)


def test_tables_show_every_column(capsys):
    timing = Timing(0.002, 0.001, 0.003, [0.001, 0.003])
    ours = Row("n = 4", "graphkd", "solve", timing, timing, summary([1.0]), summary([1.0]), {"marginal": 1e-6}, "right")
    wrong = Row("n = 4", "POT", "fast", timing, timing, summary([2.0]), summary([2.0]), {}, "cost × 2.00")
    slow = Row("n = 4", "POT", "slow", timing, timing, summary([5.0]), summary([5.0]), {}, "right")
    absent = Row("n = 4", "GeomLoss", "solve", failed="not installed: pip install geomloss")
    print_case("sinkhorn", [ours, wrong, slow, absent])
    printed = capsys.readouterr().out
    for word in ("sinkhorn: n = 4", "2 (1 .. 3)", "marginal", "1.0e-06", "cost × 2.00", "pip install geomloss"):
        assert word in printed
    print_summary("sinkhorn", [ours, wrong, slow, absent])
    printed = capsys.readouterr().out
    assert "5 (slow)" in printed
    assert "GeomLoss" not in printed
    print_summary("sinkhorn", [ours, wrong])
    assert "2 (fast: cost × 2.00)" in capsys.readouterr().out


def test_json_and_plot_hold_what_the_tables_show(capsys, tmp_path):
    out = tmp_path / "ot.json"
    options = ["--sizes", "5", "--rounds", "2", "--seconds", "1", "--out", str(out)]
    assert main(["benchmark", "ot", "--sections", "shared", "step", *options]) == 0
    printed = capsys.readouterr().out
    written = json.loads(out.read_text())
    assert set(written["sections"]) == {"shared", "step"}
    assert written["setting"]["rounds"] == 2
    assert written["setting"]["versions"]["torch"] == torch.__version__.split("+")[0]
    for row in written["sections"]["shared"]:
        assert f"{row['library']} {row['call']}" in printed
        for error in row["accuracy"].values():
            assert number(error) in printed
        if row["both"]:
            assert milliseconds(Timing(**row["both"])) in printed
            assert len(row["both"]["rounds"]) == 2
    assert out.with_suffix(".png").stat().st_size > 1000


@pytest.mark.parametrize(
    "options",
    [
        ["--sections", "unknown"],
        ["--sizes", "1"],
        ["--rounds", "0"],
        ["--seconds", "0"],
        ["--threads", "0"],
        ["--out", "/no/such/folder/ot.json"],
        ["--out", "ot.png"],
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(capsys, options):
    assert main(["benchmark", "ot", *options]) == 2
    assert "got" in capsys.readouterr().err


def test_ott_is_right_and_as_accurate():
    peers = [peer for peer in one_problem_peers(Settings(0.1, 100)) if peer.name in ("graphkd sinkhorn", "OTT-JAX lse")]
    inputs = linear_problem(6, dtype=torch.float64)
    direction = torch.randn(6, 6, dtype=torch.float64)
    with quiet():
        ours, ott = (peer.load() for peer in peers)
    assert judge_gradient(ott, inputs, {"cost": direction}) == "right"
    expected, found = ours.on(inputs).look(), ott.on(inputs).look()
    torch.testing.assert_close(found.plan, expected.plan, rtol=1e-6, atol=1e-9)
    for theirs, own in zip(found.gradients[1:], expected.gradients[1:], strict=True):
        torch.testing.assert_close(theirs - theirs.mean(), own - own.mean(), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_every_library_runs_in_every_section(tmp_path):
    rows = ot.benchmark_ot(sizes=[8], rounds=1, seconds=1, out=str(tmp_path / "ot.json"))
    assert list(rows) == list(ot.SECTIONS)
    failed = {row.name: row.failed for found in rows.values() for row in found if row.failed}
    assert set(failed) <= {"GeomLoss solve, iterations found before"}
    assert {"GeomLoss", "OTT-JAX", "POT", "graphkd", "plain torch", "floor"} == {
        row.library for found in rows.values() for row in found
    }
