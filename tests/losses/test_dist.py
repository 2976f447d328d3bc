"""Distillation from a stronger teacher against its definition, written again with plain loops."""

import pytest
import torch

from graphkd.losses import dist


def draw(n=6, classes=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    student, teacher = 2 * torch.randn(2, n, classes, generator=generator, dtype=torch.float64)
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


def run(criterion, student, teacher):
    return criterion({"logits": student}, {"logits": teacher})


def pearson(x, y):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    both = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return both / (sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y)) ** 0.5


def by_loops(student, teacher, temperature):
    tables = []
    for logits in (student, teacher):
        weights = [[(z / temperature).exp() for z in row] for row in logits]
        tables.append([[w / sum(row) for w in row] for row in weights])
    ours, theirs = tables
    inter = [1 - pearson(s, t) for s, t in zip(ours, theirs, strict=True)]
    columns = [list(zip(*table, strict=True)) for table in tables]
    intra = [1 - pearson(s, t) for s, t in zip(*columns, strict=True)]
    return sum(inter) / len(inter), sum(intra) / len(intra)


@pytest.mark.parametrize("temperature", [1, 4.0])
@pytest.mark.parametrize(("n", "classes"), [(6, 4), (3, 7)])
def test_terms_and_their_gradients_are_those_of_the_definition(temperature, n, classes):
    student, teacher = draw(n, classes)
    output = run(dist(temperature, 2.0, 0.5), student, teacher)
    expected = by_loops(student, teacher, temperature)
    for name, wanted in zip(("inter", "intra"), expected, strict=True):
        torch.testing.assert_close(output.terms[name], wanted, rtol=1e-10, atol=0)
        gradients = [torch.autograd.grad(x, student, retain_graph=True)[0] for x in (output.terms[name], wanted)]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
    wanted = temperature**2 * (2 * expected[0] + 0.5 * expected[1])
    torch.testing.assert_close(output.value, wanted, rtol=1e-10, atol=0)


def test_all_weights_and_the_temperature_are_one_unless_told():
    student, teacher = draw()
    torch.testing.assert_close(run(dist(), student, teacher).value, sum(by_loops(student, teacher, 1)))


def test_samples_and_classes_of_one_probability_up_to_scale_cost_nothing():
    probability = torch.rand(5, 3, dtype=torch.float64).softmax(-1)
    flatter = (probability + 1) / 4
    output = run(dist(), probability.log(), flatter.log())
    assert all(abs(float(term)) < 1e-12 for term in output.terms.values())


def test_the_value_does_not_grow_with_the_batch():
    student, teacher = draw()
    torch.testing.assert_close(
        run(dist(), student.repeat(9, 1), teacher.repeat(9, 1)).value, run(dist(), student, teacher).value
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_and_columns_without_spread_correlate_with_nothing_and_have_a_finite_gradient(dtype):
    _, teacher = draw(dtype=dtype)
    # Probabilities of a third are not binary fractions: their mean is rounded.
    student = torch.tensor([[0.1, 0.1, 0.1, -9.0]], dtype=dtype).repeat(6, 1)
    flat = torch.full((6, 4), 0.3, dtype=dtype)
    for logits, one in ((student, "intra"), (flat, "inter"), (flat, "intra")):
        logits = logits.clone().requires_grad_()
        output = run(dist(), logits, teacher)
        assert float(output.terms[one].detach()) == pytest.approx(1, abs=1e-6)
        (gradient,) = torch.autograd.grad(output.value, logits)
        assert gradient.isfinite().all()


def test_the_second_graph_has_classes_as_nodes():
    student, teacher = draw()
    graphs = run(dist(), student, teacher).comparisons["intra"].graphs
    assert all(graph.x.shape == (4, 6) for graph in graphs)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"inter_weight": -1.0}, {"intra_weight": float("inf")}])
def test_options_out_of_range_are_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} needs a finite number"):
        dist(**options)
