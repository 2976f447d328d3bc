"""CRD against the authors' values (tests/golden), over several steps of its memories, and against loops."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from published_values import golden_files, load

from graphkd.losses import crd

FILES = golden_files("crd_*.npz")
REFUSED = (ValueError, TypeCheckError)
SIDES = {"s": ("student", "memory_v1"), "t": ("teacher", "memory_v2")}


def published(golden):
    criterion = crd(
        golden["s0.feat_student"].shape[1],
        golden["s0.feat_teacher"].shape[1],
        num_samples=int(golden["n_data"]),
        embed_dim=int(golden["feat_dim"]),
        num_negatives=int(golden["nce_k"]),
        temperature=float(golden["nce_t_used"]),
        momentum=float(golden["nce_m_used"]),
    ).double()
    with torch.no_grad():
        for short, (network, memory) in SIDES.items():
            remembering = getattr(criterion, network)
            remembering.encoder.embed.weight.copy_(golden[f"param.embed_{short}.linear.weight"])
            remembering.encoder.embed.bias.copy_(golden[f"param.embed_{short}.linear.bias"])
            remembering.bank.rows.copy_(golden[f"param.contrast.{memory}"])
    return criterion


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_value_every_gradient_and_the_memories_are_the_authors_in_each_step(path, assert_golden):
    golden = load(path)
    criterion = published(golden)
    for step in range(int(golden["steps"])):
        now = {name.removeprefix(f"s{step}."): x for name, x in golden.items() if name.startswith(f"s{step}.")}
        shared = {"index": now["idx"], "negatives": now["contrast_idx"][:, 1:]}
        assert (now["contrast_idx"][:, 0] == now["idx"]).all()
        student, teacher = (now[f"feat_{side}"].double().requires_grad_() for side in ("student", "teacher"))
        criterion.zero_grad()
        output = criterion({"feat": student, **shared}, {"feat": teacher, **shared})
        output.value.backward()
        assert_golden(output.value.reshape(1), now["loss_f64"])
        assert_golden(student.grad, now["grad_student_f64"])
        assert_golden(teacher.grad, now["grad_teacher_f64"])
        normalizers = criterion.losses["contrast"].reduction.log_normalizer.exp().flatten() * int(golden["n_data"])
        assert_golden(normalizers, torch.stack([now["Z_v1"], now["Z_v2"]]))
        for short, (network, memory) in SIDES.items():
            remembering = getattr(criterion, network)
            assert_golden(remembering.bank.rows, now[f"{memory}_after"])
            for entry in ("weight", "bias"):
                gradient = getattr(remembering.encoder.embed, entry).grad
                assert_golden(gradient, now[f"grad.embed_{short}.linear.{entry}"])


def test_all_golden_files_are_here():
    assert [path.stem[4:6] for path in FILES] == ["01", "02", "04"]


def batch(n=5, widths=(4, 6), num_samples=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(num_samples, generator=generator)[:n]
    return [
        {"feat": torch.randn(n, width, generator=generator, dtype=torch.float64), "index": index} for width in widths
    ]


def test_drawn_negatives_of_a_samples_own_class_do_not_count():
    student, teacher = batch()
    labels = torch.tensor([0, 1, 0, -100, 1])
    criterion = crd(4, 6, num_samples=12, num_negatives=40, embed_dim=3, temperature=0.5).double()
    for network in (criterion.student, criterion.teacher):
        network.bank.labels.copy_(torch.arange(12) % 3)
    torch.manual_seed(3)
    output = criterion.eval()(student, teacher, labels)
    first, second = output.comparisons["contrast"].graphs
    total = 0.0
    torch.manual_seed(3)
    draws = [torch.randint(12, (40,)) for _ in range(2)]  # The student's encoder draws first: its memory is side two.
    for problem, drawn in ((0, draws[1]), (1, draws[0])):
        v, rows = first.x[problem].detach(), second.x[problem]
        h = [[math.exp(float(v[i] @ rows[j]) / 0.5) for j in range(len(rows))] for i in range(5)]
        negatives = [
            [k for k in range(40) if drawn[k] != student["index"][i] and not (labels[i] == drawn[k] % 3 >= 0)]
            for i in range(5)
        ]
        scores = [h[i][i] for i in range(5)] + [h[i][5 + k] for i in range(5) for k in negatives[i]]
        z = 12 * sum(scores) / len(scores)
        for i in range(5):
            noise = len(negatives[i]) / 12
            total -= math.log(h[i][i] / z / (h[i][i] / z + noise + 1e-7)) / 5
            total -= sum(math.log(noise / (h[i][5 + k] / z + noise + 1e-7)) for k in negatives[i]) / 5
    assert float(output.value.detach()) == pytest.approx(total, rel=1e-10)


def test_evaluating_changes_neither_memory_nor_normalizer():
    student, teacher = batch()
    criterion = crd(4, 6, num_samples=12, num_negatives=8).double()
    criterion(student, teacher)
    before = {name: x.clone() for name, x in criterion.state_dict().items()}
    criterion.eval()(*batch(seed=1))
    after = criterion.state_dict()
    assert all(torch.equal(after[name], x) for name, x in before.items())
    criterion.train()(*batch(seed=1))
    assert not torch.equal(criterion.student.bank.rows, before["student.bank.rows"])


def test_what_is_needed_is_said():
    student, teacher = batch()
    criterion = crd(4, 6, num_samples=12, num_negatives=8).double()
    with pytest.raises(KeyError, match="index"):
        criterion({"feat": student["feat"]}, teacher)
    with pytest.raises(ValueError, match="memory of 12 samples"):
        criterion(student | {"index": student["index"] + 12}, teacher)


@pytest.mark.parametrize(
    "arguments",
    [{"num_samples": 0}, {"embed_dim": 0}, {"num_negatives": 0}, {"temperature": 0.0}, {"momentum": 1.5}],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(REFUSED):
        crd(**{"num_samples": 5, **arguments})
