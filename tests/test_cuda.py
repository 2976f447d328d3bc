"""What differs on an accelerator: the same numbers, and no step that makes the host wait."""

import copy

import pytest
import torch

from graphkd import Distiller, checks, graphs, losses, ot
from graphkd.datasets import DigitsData
from graphkd.models import SmallCNN
from graphkd.training.finite import FiniteLosses
from graphkd.training.folder import LAST
from graphkd.training.run import run

WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "_unique2", "unique_dim", "masked_select")
"""Operations that make the host wait for an accelerator."""

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def no_waiting():
    """Raise where the host waits for the device."""

    def begin():
        torch.cuda.set_sync_debug_mode("error")

    yield begin
    torch.cuda.set_sync_debug_mode("default")


RECIPES = {
    "kd": losses.kd,
    "otgd": losses.otgd,
    "wkd_logits": lambda: losses.wkd_logits(1 - torch.eye(10), tol=None),
    "wkd_logits_parity": lambda: losses.wkd_logits(1 - torch.eye(10), parity=True),
    "wkd_features": lambda: losses.wkd_features(grid=2),
    "crd": lambda: losses.crd(num_samples=100, num_negatives=20),
    "wcord": lambda: losses.wcord(num_samples=100, num_negatives=20),
    "wcord_batch": lambda: losses.wcord(negatives="batch"),
    "rtot": lambda: losses.rtot(coupling="sinkhorn"),
    "plan_matching": losses.plan_matching,
    # On the CPU an optimised plan comes from another solver.
    "fgw": lambda: losses.fgw(anchor=None, num_layers=1),
    "kd_standardized": lambda: losses.kd(standardize=True),
    "dkd": losses.dkd,
    "dist": losses.dist,
    "fitnet": losses.fitnet,
    "attention_transfer": lambda: losses.attention_transfer(size=2),
    "vid": losses.vid,
    "rkd": losses.rkd,
    "rkd_few_vertices": lambda: losses.rkd(num_vertices=7),
    "sp": losses.sp,
    "pkt": losses.pkt,
    "cc": losses.cc,
    "irg": lambda: losses.irg(layers=[("feat", "feat")], edge_transformation_weight=1.0),
    "ega": losses.ega,
    "hkd": lambda: losses.hkd(num_samples=100, num_negatives=20),
    "dcd": losses.dcd,
    "info_nce": lambda: losses.info_nce(same_class=False),
    "rrd": lambda: losses.rrd(queue_size=100),
    "mmd": losses.mmd,
    "nst": losses.nst,
    "gaussian_w2": losses.gaussian_w2,
    "kd2m": lambda: losses.kd2m(coupling="sinkhorn"),
    "kd2m_conditional": lambda: losses.kd2m(kind="conditional", coupling="sinkhorn"),
}


def batch(width, n=48, dtype=torch.float64):
    """All that a recipe may need, with the same negatives wherever it runs."""
    return {
        "feat": torch.randn(n, width, dtype=dtype),
        "logits": 3 * torch.randn(n, 10, dtype=dtype),
        "map": torch.randn(n, 3, 4, 4, dtype=dtype),
        "index": torch.arange(n) + 5,
        "negatives": torch.arange(n * 20).reshape(n, 20) % 100,
    }


def leaves(side, device):
    return {
        name: x.detach().to(device).requires_grad_() if x.is_floating_point() else x.to(device)
        for name, x in side.items()
    }


@cuda
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_the_numbers_of_the_cpu(name):
    on_cpu = RECIPES[name]().double()
    student, teacher = batch(12), batch(20)
    labels = torch.arange(48) % 10
    on_cpu(student, teacher, labels)
    on_gpu = copy.deepcopy(on_cpu).cuda()
    sides = {device: [leaves(side, device) for side in (student, teacher)] for device in ("cpu", "cuda")}
    expected, came = on_cpu(*sides["cpu"], labels), on_gpu(*sides["cuda"], labels.cuda())
    torch.testing.assert_close(came.value.cpu(), expected.value, rtol=1e-9, atol=1e-12)
    expected.value.backward()
    came.value.backward()
    for feature, x in sides["cpu"][0].items():
        if x.is_floating_point() and x.grad is not None:
            torch.testing.assert_close(sides["cuda"][0][feature].grad.cpu(), x.grad, rtol=1e-7, atol=1e-11)


@cuda
@pytest.mark.parametrize("name", [*RECIPES, "fgw_optimised"])
def test_a_step_never_waits_for_the_device(name, no_waiting):
    criterion = (losses.fgw() if name == "fgw_optimised" else RECIPES[name]()).cuda()
    student, teacher = (leaves(batch(width, dtype=torch.float32), "cuda") for width in (12, 20))
    labels = torch.arange(48, device="cuda") % 10
    criterion(student, teacher, labels).value.backward()
    torch.cuda.synchronize()
    no_waiting()
    criterion(student, teacher, labels).value.backward()


@pytest.mark.parametrize("name", [*RECIPES, "fgw_optimised"])
def test_a_step_does_not_look_where_looking_is_not_free(name, monkeypatch, count_operations):
    criterion = losses.fgw() if name == "fgw_optimised" else RECIPES[name]()
    student, teacher = (leaves(batch(width, dtype=torch.float32), "cpu") for width in (12, 20))
    labels = torch.arange(48) % 10
    criterion(student, teacher, labels).value.backward()
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    with count_operations() as operations:
        criterion(student, teacher, labels).value.backward()
    assert not any(operations.counts[waiting] for waiting in WAITS), operations.counts


def relations(cost):
    """Two relations of the sizes of a batch of costs."""
    return [x @ x.mT for x in (cost, cost.mT)]


def in_pairs(cost, a, b):
    """The first problem on a list of all pairs."""
    n, m = cost.shape[-2:]
    pairs = torch.stack([torch.arange(n * m, device=cost.device) // m, torch.arange(n * m, device=cost.device) % m])
    return ot.sparse_sinkhorn(pairs, cost[0].flatten(), a[0], b[0], epsilon=0.05, num_iters=50)


SOLVERS = {
    "sinkhorn": lambda *x: ot.sinkhorn(*x, epsilon=0.05, num_iters=200),
    "tolerance": lambda *x: ot.sinkhorn(*x, epsilon=0.05, num_iters=200, tol=1e-6),
    "scaling, unroll": lambda *x: ot.sinkhorn(*x, epsilon=0.05, domain="scaling", gradient="unroll"),
    "implicit": lambda *x: ot.sinkhorn(*x, epsilon=0.05, num_iters=500, gradient="implicit"),
    "Newton": lambda *x: ot.sinkhorn(*x, epsilon=0.02, num_iters=10, newton_iters=40),
    "relaxed": lambda *x: ot.sinkhorn(*x, epsilon=0.05, num_iters=200, tau_a=0.7, tau_b=0.8),
    "shared": lambda c, a, b: ot.shared_sinkhorn(c[0], a, b, epsilon=0.05),
    "shared, unroll": lambda c, a, b: ot.shared_sinkhorn(c[0], a, b, epsilon=0.05, gradient="unroll"),
    "divergence": lambda c, a, b: ot.sinkhorn_divergence(c, c @ c.mT, c.mT @ c, a, b, epsilon=1.0),
    "ipot": ot.ipot,
    "fused": lambda c, a, b: ot.fused_gromov(c, *relations(c), a, b, solver="mirror"),
    "sparse": in_pairs,
}


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_give_the_same_and_never_wait_where_looking_is_not_free(monkeypatch, count_operations, name):
    inputs = [torch.rand(4, 20, 30), torch.rand(4, 20).softmax(-1), torch.rand(4, 30).softmax(-1)]
    inputs = [x.double().requires_grad_() for x in inputs]
    expected = SOLVERS[name](*inputs)
    wanted = torch.autograd.grad(expected.value.sum(), inputs)
    monkeypatch.setattr(checks, "can_look", lambda tensor: False)
    with count_operations() as operations:
        came = SOLVERS[name](*inputs)
        slopes = torch.autograd.grad(came.value.sum(), inputs)
    assert not any(operations.counts[name] for name in WAITS), operations.counts
    torch.testing.assert_close(came.value, expected.value, rtol=1e-9, atol=1e-12)
    assert torch.equal(came.num_iters, expected.num_iters)
    for slope, wanted_slope in zip(slopes, wanted, strict=True):
        torch.testing.assert_close(slope, wanted_slope, rtol=1e-6, atol=1e-9)
    assert came.status.eq(0).all()


@cuda
@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_agree_with_the_cpu_and_never_wait(name, no_waiting):
    inputs = [torch.rand(4, 20, 30), torch.rand(4, 20).softmax(-1), torch.rand(4, 30).softmax(-1)]
    inputs = [x.double().requires_grad_() for x in inputs]
    moved = [x.detach().cuda().requires_grad_() for x in inputs]
    SOLVERS[name](*moved).value.sum().backward()
    torch.cuda.synchronize()
    no_waiting()
    came = SOLVERS[name](*moved)
    slopes = torch.autograd.grad(came.value.sum(), moved)
    torch.cuda.set_sync_debug_mode("default")
    expected = SOLVERS[name](*inputs)
    torch.testing.assert_close(came.value.cpu(), expected.value, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(came.num_iters.cpu(), expected.num_iters)
    for slope, wanted in zip(slopes, torch.autograd.grad(expected.value.sum(), inputs), strict=True):
        # Along masses that keep their sum.
        slope, wanted = (x if x.dim() == 3 else x - x.mean(-1, keepdim=True) for x in (slope.cpu(), wanted))
        torch.testing.assert_close(slope, wanted, rtol=1e-4, atol=1e-6)
    assert came.check().status.eq(0).all()


@cuda
def test_what_was_bad_is_in_the_status():
    cost = torch.rand(3, 4, 5)
    cost[1, 0, 0] = torch.nan
    transport = ot.sinkhorn(cost.cuda(), epsilon=0.1)
    assert transport.status.tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="costs need finite values"):
        transport.check()


@cuda
def test_builders_agree_with_the_cpu_and_never_wait(no_waiting):
    x = torch.randn(40, 8, dtype=torch.float64)
    moved = x.cuda()
    builders = [
        lambda x: graphs.knn_graph(x, 5),
        lambda x: graphs.knn_graph(x, 5, loop=True),
        lambda x: graphs.similarity_graph(x),
        lambda x: graphs.point_cloud(x),
    ]
    expected = [build(x) for build in builders]
    torch.cuda.synchronize()
    no_waiting()
    came = [build(moved) for build in builders]
    torch.cuda.set_sync_debug_mode("default")
    for there, here in zip(came, expected, strict=True):
        assert torch.equal(there.edge_index.cpu(), here.edge_index)


@cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_distiller_trains_under_autocast(dtype):
    student, teacher = SmallCNN(4).cuda(), SmallCNN(8).cuda()
    spec = {"feat": "pool"}
    criteria = {"otgd": losses.otgd(), "kd": losses.kd()}
    distiller = Distiller(student, teacher, student_features=spec, teacher_features=spec, criteria=criteria).cuda()
    with torch.autocast("cuda", dtype=dtype):
        step = distiller(torch.randn(32, 1, 8, 8, device="cuda"), torch.randint(0, 10, (32,), device="cuda"))
    assert step.loss.dtype == torch.float32
    step.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in student.parameters())


@cuda
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_a_run_in_half_precision_learns_and_never_keeps_what_is_not_finite(precision, tmp_path):
    spec = {"feat": "pool"}
    criteria = {"otgd": losses.otgd(), "kd": losses.kd()}
    distiller = Distiller(SmallCNN(8), SmallCNN(16), student_features=spec, teacher_features=spec, criteria=criteria)
    options = {"accelerator": "gpu", "precision": precision, "enable_progress_bar": False}
    _, history = run(distiller, DigitsData(), epochs=3, seed=0, folder=tmp_path, checkpoint_every=5, **options)
    assert history.curves["train/task"][-1] < history.curves["train/task"][0]
    content = torch.load(tmp_path / LAST, weights_only=True)
    assert all(torch.isfinite(value).all() for value in content["state_dict"].values())
    assert ("MixedPrecision" in content) == (precision == "16-mixed")


@cuda
def test_a_step_is_looked_at_while_the_next_one_runs_and_nobody_waits_for_the_device(no_waiting):
    seen, good, bad = FiniteLosses(), torch.ones((), device="cuda"), torch.full((), torch.nan, device="cuda")
    torch.cuda.synchronize()
    no_waiting()
    seen.watch(good, {"loss": good}, [], epoch=1, step=0)
    seen.watch(bad, {"loss": bad}, [], epoch=1, step=1)
    torch.cuda.set_sync_debug_mode("default")
    with pytest.raises(ValueError, match="got nan at step 1"):
        seen.watch(good, {"loss": good}, [], epoch=1, step=2)


@cuda
def test_graphs_on_two_devices_are_refused():
    criterion = losses.kd()
    with pytest.raises(ValueError, match="one device"):
        criterion({"logits": torch.zeros(4, 3)}, {"logits": torch.zeros(4, 3, device="cuda")})
