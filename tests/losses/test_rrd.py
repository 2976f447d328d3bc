"""RRD against its definition, written again with plain loops and a list for a queue."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from graphkd.losses import rrd

REFUSED = (ValueError, TypeCheckError)


def draw(n=4, widths=(5, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {"feat": torch.randn(n, width, generator=generator, dtype=torch.float64).requires_grad_()} for width in widths
    ]


def built(**options):
    options = {"embed_dim": 3, "queue_size": 10, "student_temperature": 0.3, "teacher_temperature": 0.2, **options}
    return rrd(5, 7, **options).double()


def embedded(linear, x):
    rows = [linear.weight @ row + linear.bias for row in x]
    return [row / (row * row).sum().sqrt() for row in rows]


def softmax(scores):
    weights = [score.exp() for score in scores]
    return [weight / sum(weights) for weight in weights]


def published(criterion, student, teacher, queue, size, temperatures=(0.3, 0.2)):
    """The value, and the queue with the batch in it: the latest ``size`` embeddings of the teacher."""
    v = embedded(criterion.student.embed, student["feat"])
    w = [row.detach() for row in embedded(criterion.teacher.build.embed, teacher["feat"])]
    queue = [*queue, *w][-size:]
    total = 0
    for i in range(len(v)):
        ours = softmax([v[i] @ row / temperatures[0] for row in queue])
        theirs = softmax([w[i] @ row / temperatures[1] for row in queue])
        total = total - sum(t * o.log() for o, t in zip(ours, theirs, strict=True)) / len(v)
    return total, queue


@pytest.mark.parametrize("sizes", [[4, 4, 4, 4], [3, 5, 2, 6, 4]])
def test_it_is_its_definition_in_every_step_in_value_and_every_gradient(sizes):
    criterion, queue = built(), []
    for step, n in enumerate(sizes):
        student, teacher = draw(n, seed=step)
        expected, queue = published(criterion, student, teacher, queue, 10)
        output = criterion(student, teacher)
        torch.testing.assert_close(output.value, expected, rtol=1e-10, atol=0)
        leaves = [student["feat"], *(p for p in criterion.parameters() if p.requires_grad)]
        assert len(leaves) == 3
        for ours, theirs in zip(*(torch.autograd.grad(x, leaves) for x in (output.value, expected)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * float(theirs.abs().max()))
    assert len(queue) == 10


def test_out_of_training_the_value_is_the_same_and_the_queue_stays():
    criterion = built()
    for step in range(4):
        criterion.train()(*draw(seed=step))
        before = criterion.teacher.build.queue.rows.clone()
        value = criterion.eval()(*draw(seed=step + 1)).value
        assert torch.equal(criterion.teacher.build.queue.rows, before)
        assert criterion.eval()(*draw(seed=step + 1)).value == value
    assert criterion.train()(*draw(seed=4)).value == value
    assert not torch.equal(criterion.teacher.build.queue.rows, before)


def test_the_teachers_projector_is_fixed_whether_its_width_is_given_or_not():
    student, teacher = draw()
    for criterion in (built(), rrd(queue_size=10).double()):
        (gradient,) = torch.autograd.grad(criterion(student, teacher).value, teacher["feat"], allow_unused=True)
        assert gradient is None
        frozen = {name for name, p in criterion.named_parameters() if not p.requires_grad}
        assert frozen == {"teacher.build.embed.weight", "teacher.build.embed.bias"}


def test_a_teacher_that_is_certain_makes_it_the_contrast_with_its_own_row():
    criterion = built(teacher_temperature=0.001)
    student, teacher = draw(6)
    v = embedded(criterion.student.embed, student["feat"])
    w = embedded(criterion.teacher.build.embed, teacher["feat"])
    expected = -sum(softmax([v[i] @ row / 0.3 for row in w])[i].log() for i in range(6)) / 6
    torch.testing.assert_close(criterion(student, teacher).value, expected)


def test_equal_similarities_give_the_logarithm_of_the_queues_size():
    criterion = built()
    for n, filled in ((4, 4), (4, 8), (4, 10), (12, 12)):
        alike = [{"feat": torch.ones(n, width, dtype=torch.float64)} for width in (5, 7)]
        assert float(criterion(*alike).value.detach()) == pytest.approx(math.log(filled))


def test_the_defaults_are_the_published_ones():
    criterion = rrd()
    assert criterion.teacher.build.queue.rows.shape == (16384, 128)
    assert criterion.losses["relation"].coupling.epsilon == 0.1
    assert criterion.losses["relation"].reduction.target.temperature == 0.02


def test_the_pairing_counts_and_labels_do_not():
    criterion, (student, teacher) = built().eval(), draw()
    value = criterion(student, teacher).value
    assert criterion(student, teacher, torch.zeros(4, dtype=torch.int64)).value == value
    assert not torch.isclose(criterion(student, {"feat": teacher["feat"].roll(1, 0)}).value, value)


@pytest.mark.parametrize(
    "arguments",
    [{"embed_dim": 0}, {"queue_size": 0}, {"student_temperature": 0.0}, {"teacher_temperature": float("inf")}],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(REFUSED):
        rrd(**arguments)
