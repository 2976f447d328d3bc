"""What differs on an accelerator: the same numbers, and no step that makes the host wait."""

import copy

import pytest
import torch

from graphkd import Distiller, graphs, losses, ot
from graphkd.models import SmallCNN

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def no_waiting():
    """Raise where the host waits for the device."""

    def begin():
        torch.cuda.set_sync_debug_mode("error")

    yield begin
    torch.cuda.set_sync_debug_mode("default")


def features(d, device, dtype=torch.float64, n=48):
    return {
        "feat": torch.randn(n, d, dtype=dtype).to(device).requires_grad_(),
        "logits": 3 * torch.randn(n, 10, dtype=dtype).to(device),
    }


@pytest.mark.parametrize("recipe", [losses.otgd, losses.kd])
def test_a_recipe_gives_the_numbers_of_the_cpu(recipe):
    on_cpu = recipe().double()
    student, teacher = features(12, "cpu"), features(20, "cpu")
    on_cpu(student, teacher)
    on_gpu = copy.deepcopy(on_cpu).cuda()
    moved = [{name: x.detach().cuda().requires_grad_() for name, x in side.items()} for side in (student, teacher)]
    student["logits"].requires_grad_()
    expected, came = on_cpu(student, teacher), on_gpu(*moved)
    torch.testing.assert_close(came.value.cpu(), expected.value, rtol=1e-10, atol=1e-12)
    expected.value.backward()
    came.value.backward()
    name = "logits" if recipe is losses.kd else "feat"
    torch.testing.assert_close(moved[0][name].grad.cpu(), student[name].grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("recipe", [losses.otgd, losses.kd])
def test_a_step_never_waits_for_the_device(recipe, no_waiting):
    criterion = recipe().cuda()
    student, teacher = features(12, "cuda", torch.float32), features(20, "cuda", torch.float32)
    student["logits"].requires_grad_()
    criterion(student, teacher).value.backward()
    torch.cuda.synchronize()
    no_waiting()
    criterion(student, teacher).value.backward()


@pytest.mark.parametrize("options", [{}, {"tol": 1e-6}, {"domain": "scaling", "gradient": "unroll"}])
def test_sinkhorn_agrees_with_the_cpu_and_never_waits(options, no_waiting):
    cost = torch.rand(4, 20, 30, dtype=torch.float64)
    a, b = torch.rand(4, 20, dtype=torch.float64).softmax(-1), torch.rand(4, 30, dtype=torch.float64).softmax(-1)
    expected = ot.sinkhorn(cost, a, b, epsilon=0.05, num_iters=200, **options)
    moved = [x.cuda() for x in (cost, a, b)]
    torch.cuda.synchronize()
    no_waiting()
    came = ot.sinkhorn(*moved, epsilon=0.05, num_iters=200, **options)
    torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(came.plan.cpu(), expected.plan, rtol=1e-9, atol=1e-12)
    assert torch.equal(came.num_iters.cpu(), expected.num_iters)


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


def test_graphs_on_two_devices_are_refused():
    criterion = losses.kd()
    with pytest.raises(ValueError, match="one device"):
        criterion({"logits": torch.zeros(4, 3)}, {"logits": torch.zeros(4, 3, device="cuda")})
