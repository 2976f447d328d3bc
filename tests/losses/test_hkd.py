"""HKD against its definition, written again with plain loops, over several steps of its memories."""

import pytest
import torch
from jaxtyping import TypeCheckError

from graphkd.losses import hkd

REFUSED = (ValueError, TypeCheckError)
SIZE, DIM, CLASSES = 13, 5, 3
NETWORKS = ("student", "teacher")


def draw(n=6, widths=(4, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    index = torch.randperm(SIZE, generator=generator)[:n]
    return [
        {"feat": normal(n, width).requires_grad_(), "logits": 2 * normal(n, 10), "index": index} for width in widths
    ]


def unit(x):
    return x / (x * x).sum().sqrt()


def neighbours(logits, i, k):
    """The sample itself, then its nearest in cosine distance of class probabilities."""
    rows = [row.exp() / row.exp().sum() for row in logits]
    near = sorted((j for j in range(len(rows)) if j != i), key=lambda j: -float(unit(rows[i]) @ unit(rows[j])))
    return [i, *near[: k - 1]]


def encoded(encoder, side, k):
    """f and g of every sample: the graph convolution adds a map of the sample and one of its neighbours' mean."""
    f = [unit(encoder.embed.weight @ row + encoder.embed.bias) for row in side["feat"]]
    (conv,) = encoder.convs
    own, other = (lin.weight for lin in conv.lins)
    g = []
    for i in range(len(f)):
        near = neighbours(side["logits"], i, k)
        g.append(unit(own @ f[i] + other @ (sum(f[j] for j in near) / len(near)) + conv.bias))
    return f, g


def contrast(anchors, partners, negatives, temperature):
    """``negatives``: for each sample a list of rows."""
    total = 0
    for anchor, partner, others in zip(anchors, partners, negatives, strict=True):
        right = (anchor @ partner / temperature).exp()
        wrong = sum((anchor @ row / temperature).exp() for row in others)
        total = total - (right / (right + wrong)).log() / len(anchors)
    return total


def published(criterion, sides, negatives, *, k, temperature, blend, own_negatives):
    """The two terms; ``negatives`` has the places of each sample's negatives in the memory of each network."""
    index = sides[0]["index"].tolist()
    banks = [getattr(criterion, name).bank.rows.clone() for name in NETWORKS]
    seen = [encoded(getattr(criterion, name).encoder, side, k) for name, side in zip(NETWORKS, sides, strict=True)]
    feature = graph = 0
    for me, it in ((0, 1), (1, 0)):
        f, g = seen[me]
        source = me if own_negatives else it
        others = [[banks[source][place] for place in places] for places in negatives[source]]
        feature = feature + contrast(f, [banks[it][place] for place in index], others, temperature)
        partners = [
            unit((1 - blend) * banks[it][place] + blend * seen[it][1][i].detach()) for i, place in enumerate(index)
        ]
        graph = graph + contrast(g, partners, others, temperature)
    return feature, graph


def built(**options):
    options = {"embed_dim": DIM, "k": 3, "num_negatives": 9, "temperature": 0.4, **options}
    return hkd(4, 7, num_samples=SIZE, **options).double()


def assert_same_slopes(ours, theirs, leaves):
    for actual, expected in zip(*(torch.autograd.grad(value, leaves) for value in (ours, theirs)), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("own_negatives", [False, True])
@pytest.mark.parametrize(("n", "k"), [(6, 3), (3, 8)])
def test_with_given_negatives_it_is_its_definition_in_every_step(own_negatives, n, k):
    criterion = built(k=k, own_negatives=own_negatives, blend=0.4)
    for step in range(3):
        sides = draw(n, seed=step)
        drawn = torch.randint(SIZE, (n, 4), generator=torch.Generator().manual_seed(step))
        options = {"k": k, "temperature": 0.4, "blend": 0.4, "own_negatives": own_negatives}
        expected = published(criterion, sides, [drawn.tolist()] * 2, **options)
        output = criterion(*(side | {"negatives": drawn} for side in sides))
        torch.testing.assert_close(
            output.terms, dict(zip(("feature", "graph"), expected, strict=True)), rtol=1e-10, atol=0
        )
        torch.testing.assert_close(output.value, sum(expected), rtol=1e-10, atol=0)
        leaves = [sides[0]["feat"], sides[1]["feat"], *criterion.parameters()]
        assert_same_slopes(output.value, sum(expected), leaves)


@pytest.mark.parametrize("own_negatives", [False, True])
def test_drawn_negatives_are_of_other_samples_and_classes(own_negatives):
    criterion, sides = built(own_negatives=own_negatives, num_negatives=30).eval(), draw()
    labels = torch.tensor([0, 1, 0, -100, 2, 1])
    known = torch.arange(SIZE) % CLASSES
    for name in NETWORKS:
        getattr(criterion, name).bank.labels.copy_(known)
    torch.manual_seed(3)
    drawn = [torch.randint(SIZE, (30,)) for _ in NETWORKS]
    negatives = [
        [
            [place for place in places.tolist() if place != index and not labels[i] == known[place] >= 0]
            for i, index in enumerate(sides[0]["index"].tolist())
        ]
        for places in drawn
    ]
    assert len({len(places) for places in negatives[0]}) > 1
    expected = published(criterion, sides, negatives, k=3, temperature=0.4, blend=0.25, own_negatives=own_negatives)
    torch.manual_seed(3)
    output = criterion(*sides, labels)
    torch.testing.assert_close(output.value, sum(expected), rtol=1e-10, atol=0)
    assert_same_slopes(output.value, sum(expected), [sides[0]["feat"], *criterion.parameters()])


def test_memories_follow_the_features_before_message_passing_in_training_only():
    criterion, sides = built(momentum=0.9), draw()
    before = [getattr(criterion, name).bank.rows.clone() for name in NETWORKS]
    criterion.eval()(*sides)
    assert all(
        torch.equal(getattr(criterion, name).bank.rows, rows) for name, rows in zip(NETWORKS, before, strict=True)
    )
    criterion.train()(*sides)
    for name, side, rows in zip(NETWORKS, sides, before, strict=True):
        f, _ = encoded(getattr(criterion, name).encoder, side, 3)
        for i, place in enumerate(side["index"].tolist()):
            wanted = unit(0.9 * rows[place] + 0.1 * f[i].detach())
            torch.testing.assert_close(getattr(criterion, name).bank.rows[place], wanted)


def test_the_defaults_are_the_published_ones():
    criterion = hkd(num_samples=20)
    for name in NETWORKS:
        remembering = getattr(criterion, name)
        assert remembering.bank.rows.shape == (20, 128)
        assert (remembering.bank.momentum, remembering.num_negatives, remembering.blend) == (0.9, 16384, 0.25)
        assert remembering.encoder.build.keywords == {"k": 8}
    assert criterion.losses["graph"].reduction.temperature == 0.07


def test_the_pairing_counts():
    criterion, (student, teacher) = built().eval(), draw()
    values = []
    for shift in (0, 1):
        torch.manual_seed(0)
        moved = {name: x.roll(shift, 0) for name, x in teacher.items()}
        values.append(criterion(student, moved | {"index": student["index"]}).value)
    assert not torch.isclose(*values)


def test_what_is_needed_is_said():
    criterion, (student, teacher) = built(), draw()
    for name in ("index", "logits", "feat"):
        with pytest.raises(KeyError, match=name):
            criterion({key: x for key, x in student.items() if key != name}, teacher)
    with pytest.raises(ValueError, match="memory of 13 samples"):
        criterion(student | {"index": student["index"] + SIZE}, teacher)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_samples": 0},
        {"embed_dim": 0},
        {"k": 0},
        {"num_negatives": 0},
        {"temperature": 0.0},
        {"momentum": 1.5},
        {"blend": -0.1},
    ],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(REFUSED):
        hkd(**{"num_samples": 5, **arguments})
