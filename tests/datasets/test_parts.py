import pickle

import pytest
import torch
from torch import Tensor

from graphkd.datasets.parts import ArrayImages, Part

IMAGES = ArrayImages(
    torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1).expand(6, 3, 2, 2), [0, 1, 2] * 2, list("abc")
)


def noisy(image: Tensor) -> Tensor:
    return image + torch.rand(3, 2, 2)


def part(seed: int = 0, view: int = 0) -> Part:
    return Part(IMAGES, torch.tensor([5, 2, 0]), torch.tensor([2, -100, 0]), noisy, seed, view)


def test_samples_are_the_rows_with_their_labels_and_places():
    for index, (row, label) in enumerate([(5, 2), (2, -100), (0, 0)]):
        sample = part()[index]
        assert sample.image.floor().eq(row).all()
        assert sample[1:] == (label, index, 0)
    assert len(part()) == 3
    assert part().classes == ["a", "b", "c"]


def test_a_sample_depends_on_seed_view_and_index_alone():
    seen = {}
    for seed in range(3):
        for view in range(3):
            for index in range(3):
                seen[seed, view, index] = part(seed)[index, view].image - part().rows[index]
    assert len({tuple(image.flatten().tolist()) for image in seen.values()}) == 27
    torch.manual_seed(123)
    torch.rand(5)
    for (seed, view, index), image in reversed(seen.items()):
        assert torch.equal(part(seed)[index, view].image - part().rows[index], image)
        assert torch.equal(part(seed, view)[index].image - part().rows[index], image)
    assert part(view=2)[1].view == 2


def test_noise_is_as_if_drawn_at_random():
    images = ArrayImages(torch.zeros(500, 3, 2, 2, dtype=torch.uint8), [0] * 500, ["a"])
    source = Part(images, torch.arange(500), torch.zeros(500, dtype=torch.int64), noisy)
    first = torch.stack([torch.stack([source[i, view].image[0, 0, 0] for i in range(500)]) for view in range(4)])
    # 500 uniform numbers: their mean has a deviation of 0.013, the correlation of two views one of 0.045.
    assert (first.mean(1) - 0.5).abs().max() < 0.06
    assert (torch.corrcoef(first) - torch.eye(4)).abs().max() < 0.2
    neighbours = torch.corrcoef(torch.stack([first[:, :-1].flatten(), first[:, 1:].flatten()]))
    assert neighbours[0, 1].abs() < 0.1


def test_loading_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    part()[0, 7]
    assert torch.equal(before, torch.get_rng_state())


def test_parts_can_be_sent_to_other_processes():
    sent = pickle.loads(pickle.dumps(part(seed=4)))
    assert torch.equal(sent[2, 1].image, part(seed=4)[2, 1].image)


def test_a_place_outside_is_an_error():
    with pytest.raises(IndexError):
        part()[3, 0]
