import pytest
import torch

from graphkd.datasets import SyntheticData
from graphkd.datasets.synthetic import SPREAD, drawn, superclass, traits


def test_every_class_has_as_many_images_as_asked():
    data = SyntheticData(train_per_class=3, test_per_class=2)
    assert data.num_classes == 100
    assert data.parts.train.labels.bincount().tolist() == [3] * 100
    assert data.parts.test.labels.bincount().tolist() == [2] * 100
    assert data.parts.train.labels.tolist() != sorted(data.parts.train.labels.tolist())
    assert data.parts.train.classes[7] == "1.2"


def test_images_depend_on_their_seed_only():
    first = drawn(1, 4)
    torch.manual_seed(1)
    assert torch.equal(first.images, drawn(1, 4).images)
    assert first.targets == drawn(1, 4).targets
    assert not torch.equal(first.images, drawn(1, 5).images)


def test_the_runs_seed_changes_no_image_but_the_datas_does():
    one, two, other = (SyntheticData(1, 1, data_seed=data, seed=seed) for data, seed in ((0, 0), (0, 1), (1, 0)))
    assert torch.equal(one.parts.train.source.images, two.parts.train.source.images)
    assert not torch.equal(one.parts.train.source.images, other.parts.train.source.images)


def test_no_two_sets_share_images():
    sets = [part.source.images for seed in (0, 1) for part in SyntheticData(1, 1, data_seed=seed).parts[::2]]
    assert len({tuple(image.flatten()[:200].tolist()) for images in sets for image in images}) == 400


def test_classes_of_a_superclass_are_further_apart_than_chance_moves_them_but_not_by_much():
    distances = torch.cdist(traits().reshape(20, 5, 3), traits().reshape(20, 5, 3))
    nearest = distances[:, ~torch.eye(5, dtype=torch.bool)].amin(1)
    torch.testing.assert_close(nearest, torch.full((20,), 1.17557), atol=1e-4, rtol=0)
    assert SPREAD < nearest.min() / 2 < 2 * SPREAD


def test_images_of_a_superclass_look_more_alike_than_others():
    images = drawn(8, 0)
    labels = torch.tensor(images.targets)
    # The colour of the middle, freed of how light it is: a flower's hue.
    middle = images.images[:, :, 8:24, 8:24].float().mean((2, 3))
    colour = middle - middle.mean(1, keepdim=True)
    means = torch.stack([colour[labels == c].mean(0) for c in range(100)])
    distances, group = torch.cdist(means, means), torch.arange(100) // 5
    inside = (group == group.reshape(-1, 1)) & ~torch.eye(100, dtype=torch.bool)
    assert 2 * distances[inside].mean() < distances[group != group.reshape(-1, 1)].mean()


def test_images_use_the_range_of_bytes():
    images = drawn(2, 0).images.float()
    assert images.amin() < 20
    assert images.amax() > 235
    assert 90 < images.mean() < 150
    assert images.std((0, 2, 3)).min() > 40


@pytest.mark.parametrize("option", ["train_per_class", "test_per_class"])
def test_sets_without_images_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} needs an integer of at least 1, got 0"):
        SyntheticData(**{option: 0})


@pytest.mark.slow
def test_a_small_network_learns_superclasses_before_classes():
    torch.manual_seed(0)
    data = SyntheticData(train_per_class=60, test_per_class=10)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, 2), torch.nn.BatchNorm2d(32), torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3, 2), torch.nn.BatchNorm2d(64), torch.nn.ReLU(),
        torch.nn.Conv2d(64, 96, 3), torch.nn.BatchNorm2d(96), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(96, 100),
    )  # fmt: skip
    optimizer, loader = torch.optim.AdamW(network.parameters(), lr=3e-3), data.train_dataloader()
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        images, labels = (torch.cat(parts) for parts in zip(*data.test_dataloader(), strict=True))
        chosen = network(images).argmax(1)
    right = (chosen == labels).float().mean()
    near = torch.tensor([superclass(int(a)) == superclass(int(b)) for a, b in zip(chosen, labels, strict=True)])
    # By chance 1 % and 5 %, and 20 % of the samples whose super-class is right.
    assert 0.05 < right < 0.9
    assert near.float().mean() > 0.25
    assert right / near.float().mean() < 0.9
