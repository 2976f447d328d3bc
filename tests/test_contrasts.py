"""Contrasts against loops over samples and nodes."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from graphkd import reductions
from graphkd.contrasts import InfoNCE, NoiseContrast
from graphkd.couplings import Identity, Product, RowSoftmax
from graphkd.graphs import point_cloud
from graphkd.measures import cosine_distance
from graphkd.reductions import PlanNLL


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def contrasted(n: int = 3, m: int = 5, problems: tuple[int, ...] = (), seed: int = 0) -> tuple[Tensor, Data, Data]:
    """A cost, and graphs of n samples and of their n partners and m - n others, some of them negatives, some twice."""
    mass = random(*problems, n, seed=seed) + 0.2
    mass = mass / mass.sum(-1, keepdim=True)
    student = Data(x=random(*problems, n, 1), mass=mass)
    none = torch.zeros(*problems, m - n, dtype=mass.dtype)
    teacher = Data(x=random(*problems, m, 1), mass=torch.cat([mass, none], -1))
    teacher.negatives = (3 * random(*problems, n, m, seed=seed + 1)).floor()
    return 2 * random(*problems, n, m, seed=seed + 2) - 1, student, teacher


def contrast(reduction: InfoNCE | NoiseContrast, cost: Tensor, student: Data, teacher: Data) -> Tensor:
    return reduction(Identity()(cost, None, student.mass, teacher.mass), cost, None, (student, teacher))


# InfoNCE


def info_nce_by_loops(cost: Tensor, student: Data, teacher: Data, temperature: float) -> Tensor:
    value = torch.zeros((), dtype=cost.dtype)
    n, m = cost.shape
    for i in range(n):
        right = (-cost[i, i] / temperature).exp()
        wrong = sum(teacher.negatives[i, j] * (-cost[i, j] / temperature).exp() for j in range(m))
        value = value - student.mass[i] * (right / (right + wrong)).log()
    return value


@pytest.mark.parametrize("temperature", [0.5, 2])
def test_info_nce_equals_plain_loops_with_its_gradient(temperature):
    cost, student, teacher = contrasted(n=4, m=7)
    cost.requires_grad_()
    teacher.negatives[2] = 0
    got, wanted = (
        contrast(InfoNCE(temperature), cost, student, teacher),
        info_nce_by_loops(cost, student, teacher, temperature),
    )
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)
    slopes = [torch.autograd.grad(value, cost)[0] for value in (got, wanted)]
    torch.testing.assert_close(*slopes, atol=1e-12, rtol=1e-12)
    assert not slopes[0][2].any()


def test_info_nce_of_several_problems_is_their_sum():
    cost, student, teacher = contrasted(problems=(3,))
    parts = [
        info_nce_by_loops(
            cost[k], *(Data(**{name: x[k] for name, x in graph.items()}) for graph in (student, teacher)), 0.5
        )
        for k in range(3)
    ]
    torch.testing.assert_close(contrast(InfoNCE(0.5), cost, student, teacher), sum(parts))


def test_info_nce_with_any_coupling_of_partners_is_the_mean_over_its_mass():
    cost, student, teacher = contrasted(n=2, m=3)
    transport = Product()(None, None, student.mass, torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64))
    got = InfoNCE(0.5)(transport, cost, None, (student, teacher))
    wanted = 0
    for i in range(2):
        wrong = sum(float(teacher.negatives[i, j]) * math.exp(-cost[i, j] / 0.5) for j in range(3))
        for p in range(3):
            right = math.exp(-cost[i, p] / 0.5)
            wanted -= float(transport.plan[i, p]) * math.log(right / (right + wrong))
    assert float(got) == pytest.approx(wanted, rel=1e-12)


def test_info_nce_of_all_others_is_the_cross_entropy_of_the_row_softmax():
    x, y = random(5, 3), random(5, 3, seed=1)
    student, teacher = point_cloud(x), point_cloud(y)
    student.mass = teacher.mass = torch.full((5,), 0.2, dtype=torch.float64)
    teacher.negatives = 1 - torch.eye(5)
    cost = cosine_distance(x, y)
    got = contrast(InfoNCE(0.07), cost, student, teacher)
    torch.testing.assert_close(got, F.cross_entropy(-cost / 0.07, torch.arange(5)))
    transport = RowSoftmax(0.07)(cost, None, student.mass, teacher.mass)
    torch.testing.assert_close(got, PlanNLL()(transport, cost, None, (student, teacher)))


def test_info_nce_without_any_negatives_is_zero_with_gradient_zero():
    cost, student, teacher = contrasted()
    cost.requires_grad_()
    teacher.negatives.zero_()
    value = contrast(InfoNCE(), cost, student, teacher)
    value.backward()
    assert value == 0
    assert not cost.grad.any()


def test_info_nce_at_a_low_temperature_stays_in_the_range_and_precision_of_float32():
    cost, student, teacher = contrasted()
    student.mass, teacher.mass = student.mass.float(), teacher.mass.float()
    teacher.negatives[:, :3] = 0
    near = cost.clone()
    near.diagonal().fill_(-3)  # Partners nearer than any other by far: a difference of sums would round to zero.
    for each in (cost, near):
        narrow = each.float().requires_grad_()
        value = contrast(InfoNCE(0.1), narrow, student, teacher)
        wide = contrast(InfoNCE(0.1), each, student, teacher)
        torch.testing.assert_close(value.double(), wide, rtol=1e-4, atol=0)
        value.backward()
        assert narrow.grad.isfinite().all()
    assert 0 < wide < 1e-7
    far = (1e4 * cost).float().requires_grad_()
    value = contrast(InfoNCE(0.001), far, student, teacher)
    value.backward()
    assert value.isfinite()
    assert far.grad.isfinite().all()


def test_nodes_that_are_neither_partner_nor_negative_do_not_count():
    cost, student, teacher = contrasted()
    teacher.negatives[:, 4] = 0
    moved = cost.clone()
    moved[:, 4] = -100
    assert contrast(InfoNCE(), cost, student, teacher) == contrast(InfoNCE(), moved, student, teacher)


def test_info_nce_refuses_what_it_has_no_input_for():
    cost, student, teacher = contrasted()
    transport = Identity()(None, None, student.mass, teacher.mass)
    with pytest.raises(ValueError, match="InfoNCE needs a cost, and a teacher's graph that says which nodes are"):
        InfoNCE()(transport, None, None, (student, teacher))
    del teacher.negatives
    with pytest.raises(ValueError, match="InfoNCE needs a cost, and a teacher's graph that says which nodes are"):
        InfoNCE()(transport, cost, None, (student, teacher))


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_info_nce_refuses_a_temperature_out_of_range(temperature):
    with pytest.raises(ValueError, match="temperature needs a finite number above 0"):
        InfoNCE(temperature)


def test_contrasts_are_reductions_too():
    assert (reductions.InfoNCE, reductions.NoiseContrast) == (InfoNCE, NoiseContrast)
    assert not InfoNCE().reads_plan


# NoiseContrast


def normalizer(cost: Tensor, negatives: Tensor, temperature: float, num_nodes: int) -> Tensor:
    """Z of one problem: the mean of h over partners and negatives is 1 / m."""
    n, m = cost.shape
    total = times = 0
    for i in range(n):
        for j in range(m):
            count = float(i == j) + float(negatives[i, j])
            total, times = total + count * (-cost[i, j].detach() / temperature).exp(), times + count
    return num_nodes * total / times


def contrast_by_loops(
    cost: Tensor, student: Data, teacher: Data, temperature: float, num_nodes: int, logs: bool, z: Tensor | None = None
) -> Tensor:
    """The published objective, with the 1e-7 of the released code in its denominators."""
    if z is None:
        z = normalizer(cost, teacher.negatives, temperature, num_nodes)
    value = torch.zeros((), dtype=cost.dtype)
    n, m = cost.shape
    for i in range(n):
        noise = teacher.negatives[i].sum() / num_nodes
        for j in range(m):
            h = (-cost[i, j] / temperature).exp() / z
            times = teacher.negatives[i, j]
            if logs:
                if i == j:
                    value = value - student.mass[i] * (h / (h + noise + 1e-7)).log()
                if times > 0:
                    value = value - student.mass[i] * times * (noise / (h + noise + 1e-7)).log()
            else:
                critic = h / (h + noise + 1e-7)
                share = times / max(float(teacher.negatives[i].sum()), 1.0)
                value = value + student.mass[i] * (share - float(i == j)) * critic
    return value


@pytest.mark.parametrize("num_nodes", [None, 50])
@pytest.mark.parametrize("temperature", [0.5, 2])
@pytest.mark.parametrize("logs", [True, False])
def test_noise_contrast_equals_plain_loops_with_its_gradient(logs, temperature, num_nodes):
    cost, student, teacher = contrasted()
    cost.requires_grad_()
    got = contrast(NoiseContrast(temperature, num_nodes, logs), cost, student, teacher)
    wanted = contrast_by_loops(cost, student, teacher, temperature, num_nodes or 5, logs)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(got, cost), torch.autograd.grad(wanted, cost), atol=1e-12, rtol=0)


@pytest.mark.parametrize("logs", [True, False])
def test_several_problems_are_summed_each_with_its_own_normalizer(logs):
    cost, student, teacher = contrasted(problems=(2,))
    cost[1] += 1
    cost.requires_grad_()
    reduction = NoiseContrast(0.5, 50, logs, num_problems=2)
    got = contrast(reduction, cost, student, teacher)
    wanted = 0
    for k in range(2):
        one, other = (Data(x=g.x[k], mass=g.mass[k], negatives=g.get("negatives")) for g in (student, teacher))
        other.negatives = teacher.negatives[k]
        wanted = wanted + contrast_by_loops(cost[k], one, other, 0.5, 50, logs)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(got, cost), torch.autograd.grad(wanted, cost), atol=1e-12, rtol=0)
    assert reduction.log_normalizer.shape == (2, 1, 1)
    assert (reduction.log_normalizer[0] - reduction.log_normalizer[1]).abs() > 1


@pytest.mark.parametrize("logs", [True, False])
def test_the_normalizer_is_that_of_the_first_batch_in_training(logs):
    batches = [contrasted(seed=seed) for seed in (0, 10, 20)]
    z = [normalizer(cost, teacher.negatives, 0.5, 50) for cost, _, teacher in batches]
    assert len({round(float(x), 6) for x in z}) == 3
    reduction = NoiseContrast(0.5, 50, logs)

    def holds(batch, used):
        wanted = contrast_by_loops(*batches[batch], 0.5, 50, logs, z[used])
        torch.testing.assert_close(contrast(reduction, *batches[batch]), wanted, atol=1e-12, rtol=0)

    # Before there is one, evaluation takes its own and leaves none behind.
    reduction.eval()
    holds(0, used=0)
    assert reduction.log_normalizer.isnan().all()
    reduction.train()
    holds(1, used=1)
    holds(2, used=1)
    reduction.eval()
    holds(0, used=1)
    reduction.train()
    holds(0, used=1)


def test_the_normalizer_is_saved_and_loaded():
    reduction = NoiseContrast(0.5).double()
    contrast(reduction, *contrasted())
    assert list(reduction.state_dict()) == ["log_normalizer"]
    fresh = NoiseContrast(0.5).double()
    fresh.load_state_dict(reduction.state_dict())
    batch = contrasted(seed=10)
    assert contrast(fresh, *batch) == contrast(reduction, *batch)
    assert contrast(fresh, *batch) != contrast(NoiseContrast(0.5), *batch)


@pytest.mark.parametrize("logs", [True, False])
def test_rows_without_negatives_do_not_disturb_the_others(logs):
    cost, student, teacher = contrasted()
    teacher.negatives[1] = 0
    cost.requires_grad_(), student.mass.requires_grad_()
    got = contrast(NoiseContrast(0.5, 50, logs), cost, student, teacher)
    wanted = contrast_by_loops(cost, student, teacher, 0.5, 50, logs)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)
    gradients = [torch.autograd.grad(x, (cost, student.mass)) for x in (got, wanted)]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)
    # With nobody to tell it from, a sample's partner is found.
    assert gradients[0][0][1].abs().max() < 1e-4


def test_without_any_negatives_there_is_nothing_to_learn():
    cost, student, teacher = contrasted()
    teacher.negatives.zero_()
    cost.requires_grad_()
    value = contrast(NoiseContrast(0.5, 50), cost, student, teacher)
    assert abs(value.item()) < 1e-4
    assert torch.autograd.grad(value, cost)[0].isfinite().all()


def test_the_normalizer_does_not_see_nodes_that_are_neither_partner_nor_negative():
    cost, student, teacher = contrasted()
    teacher.negatives[:, 4] = 0
    batch = cost.float(), Data(x=student.x.float(), mass=student.mass.float()), teacher
    teacher.mass = teacher.mass.float()
    wanted = contrast(NoiseContrast(0.01), *batch)
    # Such as a row of the own class: so much nearer that all others would underflow beside it.
    batch[0][:, 4] = -5
    got = contrast(NoiseContrast(0.01), *batch)
    assert got.isfinite()
    torch.testing.assert_close(got, wanted)


def test_a_low_temperature_stays_in_the_range_of_float32():
    cost, student, teacher = contrasted()
    cost = cost.float().requires_grad_()
    student.mass, teacher.mass = student.mass.float(), teacher.mass.float()
    value = contrast(NoiseContrast(0.01), cost, student, teacher)
    wide = contrast(NoiseContrast(0.01), cost.detach().double(), student, teacher)
    torch.testing.assert_close(value.double(), wide, rtol=1e-4, atol=0)
    assert torch.autograd.grad(value, cost)[0].isfinite().all()


def test_a_partner_that_is_nearer_lowers_the_contrast_and_a_negative_that_is_nearer_raises_it():
    batch = contrasted()
    for logs in (True, False):
        reduction = NoiseContrast(0.5, logs=logs)
        start = contrast(reduction, *batch)
        partner, negative = batch[0].clone(), batch[0].clone()
        partner.diagonal().sub_(0.1)
        negative[:, 3:] -= 0.1
        assert batch[2].negatives[:, 3:].sum() > 0
        assert contrast(reduction, partner, *batch[1:]) < start
        assert contrast(reduction, negative, *batch[1:]) > start


def test_noise_contrast_refuses_what_it_has_no_input_for():
    cost, student, teacher = contrasted()
    transport = Identity()(None, None, student.mass, teacher.mass)
    with pytest.raises(ValueError, match="needs a cost, and a teacher's graph that says which nodes are negatives"):
        NoiseContrast()(transport, None, None, (student, teacher))
    del teacher.negatives
    with pytest.raises(ValueError, match="needs a cost, and a teacher's graph that says which nodes are negatives"):
        NoiseContrast()(transport, cost, None, (student, teacher))


@pytest.mark.parametrize(("problems", "num_problems"), [((), 2), ((2,), 1), ((2,), 3)])
def test_noise_contrast_refuses_another_number_of_problems(problems, num_problems):
    batch = contrasted(problems=problems)
    with pytest.raises(ValueError, match=f"{num_problems} problem"):
        contrast(NoiseContrast(num_problems=num_problems), *batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature needs a finite number above 0, got 0"),
        ({"num_nodes": 0}, "num_nodes needs an integer of at least 1, got 0"),
        ({"num_problems": 0}, "num_problems needs an integer of at least 1, got 0"),
    ],
)
def test_noise_contrast_refuses_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        NoiseContrast(**options)


def test_noise_contrast_is_a_module_that_does_not_read_the_plan_alone():
    assert isinstance(NoiseContrast(), nn.Module)
    assert not NoiseContrast().reads_plan
    assert "temperature=0.07, num_nodes=None, logs=True" in repr(NoiseContrast())
