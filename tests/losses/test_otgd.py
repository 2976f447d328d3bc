"""Optimal transport graph distillation against the authors' values (tests/golden), and against loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from torch_geometric.nn import GATConv, GCNConv, GraphConv, SAGEConv, TAGConv

from graphkd.losses import otgd

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("otgd_*.npz"))
SIDES = {"s": "student", "t": "teacher"}
REFUSED = (ValueError, TypeCheckError)  # With shape checks on, a word outside a Literal does not get as far as ours.


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request):
    return {name: torch.as_tensor(value) for name, value in np.load(request.param).items()}


def published(golden, cross):
    """The criterion of a golden file, with its parameters."""
    criterion = otgd(
        golden["f_s"].shape[1],
        golden["f_t"].shape[1],
        embed_dim=golden["emb_s"].shape[1],
        k=int(golden["k"]),
        epsilon=1 / float(golden["gamma"]),
        num_iters=int(golden["iters"]),
        tol=float(golden["eps"]),
        weights=tuple(golden["weights_e_g_ge_eg"].tolist()),
        cross=cross,
    ).double()
    with torch.no_grad():
        for side, network in SIDES.items():
            encoder = getattr(criterion, network)
            weight, neighbours = golden[f"param.gnn_{side}.conv1.lin.weight"].chunk(2, dim=1)
            encoder.embed.weight.copy_(golden[f"param.embed_{side}.linear.weight"])
            encoder.embed.bias.copy_(golden[f"param.embed_{side}.linear.bias"])
            encoder.convs[0].lins[0].weight.copy_(weight)
            encoder.convs[0].lins[1].weight.copy_(neighbours)
            encoder.convs[0].bias.copy_(golden[f"param.gnn_{side}.conv1.lin.bias"])
    return criterion


def gradients_by_their_names(criterion):
    found = {}
    for side, network in SIDES.items():
        encoder = getattr(criterion, network)
        conv = encoder.convs[0]
        found[f"grad.embed_{side}.linear.weight"] = encoder.embed.weight.grad
        found[f"grad.embed_{side}.linear.bias"] = encoder.embed.bias.grad
        found[f"grad.gnn_{side}.conv1.lin.weight"] = torch.cat([lin.weight.grad for lin in conv.lins], dim=1)
        found[f"grad.gnn_{side}.conv1.lin.bias"] = conv.bias.grad
    return found


def run(criterion, golden):
    features = [{"feat": golden[f"f_{side}"], "logits": golden[f"logits_{side}"]} for side in SIDES]
    return criterion(*features)


def assert_same(actual, expected):
    """To 1e-10 of the largest entry."""
    torch.testing.assert_close(
        actual.detach(), expected.to(actual.dtype), rtol=0, atol=1e-10 * float(expected.abs().max())
    )


def batch(n=11, widths=(5, 7), classes=6, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    return [{"feat": draw(n, width), "logits": draw(n, classes)} for width in widths]


def seeded(*args, **kwargs):
    torch.manual_seed(0)
    return otgd(*args, **{"embed_dim": 6, "k": 4, **kwargs}).double()


def test_all_golden_files_are_here():
    assert [path.stem for path in GOLDEN] == [
        "otgd_01_iid_n16",
        "otgd_02_class_n32",
        "otgd_03_iters10",
        "otgd_04_gamma5_weights",
    ]


def test_terms_and_total_are_the_authors(golden):
    output = run(published(golden, "code"), golden)
    assert list(output.terms) == ["f", "g", "gf", "fg"]
    for term, name in {"f": "loss_f", "g": "loss_g", "gf": "loss_gf", "fg": "loss_fg_code"}.items():
        assert_same(output.terms[term], golden[name])
    assert_same(output.value, golden["loss"])


def test_the_figures_fourth_term_pairs_g_of_the_student_with_f_of_the_teacher(golden):
    output = run(published(golden, "figure"), golden)
    assert_same(output.terms["fg"], golden["loss_fg_figure"])
    for term, name in {"f": "loss_f", "g": "loss_g", "gf": "loss_gf"}.items():
        assert_same(output.terms[term], golden[name])
    weight = golden["weights_e_g_ge_eg"][3]
    assert_same(output.value, golden["loss"] + weight * (golden["loss_fg_figure"] - golden["loss_fg_code"]))


def test_the_plan_and_its_cost_are_the_authors_transposed(golden):
    seen = run(published(golden, "code"), golden).comparisons["g"]
    n = seen.plan.shape[0]
    assert_same(n * seen.plan.T, golden["plan_g"])
    assert_same(1 - seen.cost.T, golden["similarity_zscored_g"])


def test_nodes_are_the_authors_before_and_after_message_passing(golden):
    compared = {name: seen.graphs for name, seen in run(published(golden, "code"), golden).comparisons.items()}
    for i, side in enumerate(SIDES):
        assert_same(compared["f"][i].x, golden[f"emb_{side}"])
        assert_same(compared["g"][i].x, golden[f"gnn_{side}"])


def test_edges_are_the_authors(golden):
    for i, side in enumerate(SIDES):
        edge_index = run(published(golden, "code"), golden).comparisons["g"].graphs[i].edge_index
        expected = golden[f"edge_index_{side}"]
        assert edge_index.shape == expected.shape
        assert set(map(tuple, edge_index.T.tolist())) == set(map(tuple, expected.T.tolist()))


def test_gradients_of_features_and_of_all_parameters_are_the_authors(golden):
    criterion = published(golden, "code")
    for side in SIDES:
        golden[f"f_{side}"].requires_grad_()
    run(criterion, golden).value.backward()
    for side in SIDES:
        assert_same(golden[f"f_{side}"].grad, golden[f"grad_f_{side}"])
    found = gradients_by_their_names(criterion)
    assert found.keys() == {name for name in golden if name.startswith("grad.")}
    for name, gradient in found.items():
        assert_same(gradient, golden[name])
    assert sum(x.numel() for x in found.values()) == sum(p.numel() for p in criterion.parameters())


def plan_by_loops(student, teacher, gamma, iters, tol):
    """The published iteration on plain lists: rows are the teacher's; a last round scales rows and columns to one."""
    n = len(student)
    cosine = [[float(t @ s / t.norm() / s.norm()) for s in student] for t in teacher]
    entries = [x for row in cosine for x in row]
    mean = sum(entries) / len(entries)
    spread = (sum((x - mean) ** 2 for x in entries) / (len(entries) - 1)) ** 0.5
    kernel = [[np.exp(-gamma * (1 - (x - mean) / spread)) for x in row] for row in cosine]
    for _ in range(iters):
        kernel = [[x / sum(row) / n for x in row] for row in kernel]
        columns = [sum(row[j] for row in kernel) for j in range(n)]
        if max(abs(x - 1 / n) for x in columns) <= tol:
            break
        kernel = [[x / columns[j] / n for j, x in enumerate(row)] for row in kernel]
    kernel = [[x / sum(row) for x in row] for row in kernel]
    columns = [sum(row[j] for row in kernel) for j in range(n)]
    return [[x / columns[j] for j, x in enumerate(row)] for row in kernel]


@pytest.mark.parametrize(
    ("gamma", "iters", "tol"), [(1.0, 1, 0.0), (3.0, 2, 0.0), (3.0, 20, 3e-3), (3.0, 20, 1e9), (8.0, 30, 1e-4)]
)
def test_every_term_is_the_distance_of_the_published_plan_from_the_identity(gamma, iters, tol):
    criterion = seeded(5, 7, epsilon=1 / gamma, num_iters=iters, tol=tol or None)
    for seen in criterion(*batch()).comparisons.values():
        plan = plan_by_loops(*(graph.x.detach() for graph in seen.graphs), gamma, iters, tol)
        gap = sum((x - (i == j)) ** 2 for i, row in enumerate(plan) for j, x in enumerate(row)) ** 0.5
        assert float(seen.value.detach()) == pytest.approx(gap, rel=1e-9)
        torch.testing.assert_close(len(plan) * seen.plan.detach().T, torch.tensor(plan, dtype=torch.float64))


def test_a_tolerance_stops_the_sweeps_early():
    def value(**kwargs):
        return float(seeded(5, 7, epsilon=1 / 8, **kwargs)(*batch()).value.detach())

    assert value(num_iters=30, tol=1e9) != pytest.approx(value(num_iters=30), rel=1e-6)
    assert value(num_iters=30, tol=1e-13) == pytest.approx(value(num_iters=30), rel=1e-9)


def test_the_released_code_gives_the_student_no_gradient_from_the_fourth_term():
    student, teacher = batch()
    student["feat"].requires_grad_()
    size = {}
    for cross in ("code", "figure"):
        criterion = seeded(5, 7, cross=cross)
        wanted = [student["feat"], *criterion.student.parameters()]
        found = torch.autograd.grad(criterion(student, teacher).terms["fg"], wanted, allow_unused=True)
        size[cross] = [0.0 if gradient is None else float(gradient.abs().max()) for gradient in found]
    assert size["code"] == [0.0] * len(size["code"])
    assert min(size["figure"]) > 0


@pytest.mark.parametrize("cross", ["code", "figure"])
def test_logits_choose_the_neighbours_and_get_no_gradient(cross):
    student, teacher = batch()
    criterion = seeded(5, 7, cross=cross)
    before = criterion(student, teacher).value
    for features in (student, teacher):
        features["logits"].requires_grad_()
        features["feat"].requires_grad_()
    logits = [student["logits"], teacher["logits"]]
    value = criterion(student, teacher).value
    assert torch.autograd.grad(value, logits, allow_unused=True) == (None, None)
    other = batch(seed=1)[0]["logits"]
    assert criterion({**student, "logits": other}, teacher).value != before


@pytest.mark.parametrize("n", [2, 9, 16])
def test_a_uniform_plan_costs_the_root_of_n_minus_one(n):
    same = [{**features, "feat": torch.ones_like(features["feat"])} for features in batch(n)]
    for criterion, expected in ((seeded(5, 7), (n - 1) ** 0.5), (seeded(5, 7, intensive=True), 1.0)):
        for value in criterion(*same).terms.values():
            assert float(value.detach()) == pytest.approx(expected, rel=1e-12)


def test_intensive_terms_are_the_published_ones_over_the_root_of_n_minus_one():
    extensive, intensive = seeded(5, 7)(*batch()).terms, seeded(5, 7, intensive=True)(*batch()).terms
    for name, value in extensive.items():
        torch.testing.assert_close(intensive[name], value / 10**0.5)


def test_weights_are_those_of_f_g_gf_fg_in_this_order():
    terms = seeded(5, 7)(*batch()).terms
    for weights in [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (2.0, 3.0, 5.0, 7.0)]:
        value = seeded(5, 7, weights=weights)(*batch()).value
        expected = sum(w * terms[name] for w, name in zip(weights, ("f", "g", "gf", "fg"), strict=True))
        torch.testing.assert_close(value, expected)


def test_omitted_widths_are_read_off_the_first_batch():
    explicit = seeded(5, 7)
    lazy = seeded()
    lazy(*batch(n=4))
    lazy.load_state_dict(explicit.state_dict())
    assert [tuple(p.shape) for p in lazy.parameters()] == [tuple(p.shape) for p in explicit.parameters()]
    torch.testing.assert_close(lazy(*batch()).value, explicit(*batch()).value, rtol=0, atol=0)


def test_a_lazy_criterion_loads_a_state_before_its_first_batch():
    explicit, lazy = seeded(5, 7), seeded()
    lazy.load_state_dict(explicit.state_dict())
    torch.testing.assert_close(lazy(*batch()).value, explicit(*batch()).value, rtol=0, atol=0)


def test_an_optimiser_made_before_the_first_batch_trains_a_lazy_criterion():
    criterion = seeded()
    optimiser = torch.optim.SGD(criterion.parameters(), lr=0.05)
    first = criterion(*batch()).value
    before = {name: p.detach().clone() for name, p in criterion.named_parameters()}
    for _ in range(3):
        optimiser.zero_grad()
        criterion(*batch()).value.backward()
        optimiser.step()
    assert all((p != before[name]).any() for name, p in criterion.named_parameters())
    assert criterion(*batch()).value < first


CONVS = {
    "tag": TAGConv,
    "gcn": GCNConv,
    "sage": SAGEConv,
    "gat": GATConv,
    GraphConv: GraphConv,
}


@pytest.mark.parametrize(("conv", "kind"), CONVS.items(), ids=lambda x: getattr(x, "__name__", x))
def test_every_convolution_takes_part(conv, kind):
    criterion = seeded(5, 7, conv=conv)
    output = criterion(*batch())
    output.value.backward()
    for i, network in enumerate(SIDES.values()):
        (layer,) = getattr(criterion, network).convs
        assert type(layer) is kind
        f, g = output.comparisons["f"].graphs[i], output.comparisons["g"].graphs[i]
        torch.testing.assert_close(g.x, nn.functional.normalize(layer(f.x, f.edge_index)))
        assert any(p.grad.abs().max() > 0 for p in layer.parameters())
        assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_g_is_the_graph_after_the_last_of_several_layers():
    criterion = seeded(5, 7, num_layers=2)
    seen = criterion(*batch()).comparisons
    for i, network in enumerate(SIDES.values()):
        encoder = getattr(criterion, network)
        x, edges = seen["f"].graphs[i].x, seen["f"].graphs[i].edge_index
        for conv in encoder.convs:
            x = nn.functional.normalize(conv(x, edges))
        assert len(encoder.convs) == 2
        torch.testing.assert_close(seen["g"].graphs[i].x, x)
    assert seen["gf"].graphs[1].x is seen["g"].graphs[1].x
    assert seen["fg"].graphs[0].x is seen["g"].graphs[0].x


def test_the_convolution_starts_as_one_xavier_map_of_both_parts():
    torch.manual_seed(0)
    weights = torch.cat([lin.weight for lin in otgd(8, 8).student.convs[0].lins], dim=1)
    expected = torch.empty(128, 256)
    nn.init.xavier_normal_(expected, gain=2**0.5)
    # 32768 draws know their deviation to 0.4 %.
    assert float(weights.std().detach()) == pytest.approx(float(expected.std()), rel=0.02)


def test_neighbours_are_k_with_the_sample_itself():
    graph = seeded(5, 7, k=3)(*batch()).comparisons["f"].graphs[0]
    source, centre = graph.edge_index
    assert torch.bincount(centre).tolist() == [3] * 11
    assert sorted(centre[source == centre].tolist()) == list(range(11))


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"k": 0}, "k needs an integer of at least 1, got 0"),
        ({"k": -3}, "k needs .* got -3"),
        ({"epsilon": 0.0}, "epsilon needs a finite number above 0, got 0.0"),
        ({"epsilon": -1}, "epsilon needs .* got -1"),
        ({"epsilon": float("nan")}, "epsilon needs .* got nan"),
        ({"num_iters": 0}, "num_iters needs .* got 0"),
        ({"num_layers": 0}, "num_layers needs .* got 0"),
        ({"embed_dim": 0}, "embed_dim needs .* got 0"),
        ({"tol": 0.0}, "tol needs .* got 0.0"),
    ],
)
def test_options_out_of_range_are_refused_at_construction(option, match):
    with pytest.raises(ValueError, match=match):
        otgd(**option)


@pytest.mark.parametrize("option", [{"cross": "paper"}, {"conv": "gin"}, {"weights": (1.0, 1.0, 1.0)}])
def test_unknown_words_are_refused_at_construction(option):
    with pytest.raises(REFUSED):
        otgd(**option)
