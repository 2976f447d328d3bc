import pytest
import torch

from graphkd.datasets import transforms

PLAIN: transforms.Statistics = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
# Dark on the left, bright on the right, and the same in each row.
RAMP = (torch.arange(40) * 6).to(torch.uint8).expand(3, 40, 40)


@pytest.mark.parametrize(
    "transform",
    [
        transforms.crop_and_flip(PLAIN, size=40, padding=4),
        transforms.rotate_and_flip(PLAIN, degrees=20),
        transforms.resized_crop_and_flip(*PLAIN, size=16),
    ],
    ids=["crop", "rotation", "resized crop"],
)
def test_half_of_the_images_are_flipped(transform):
    flipped = 0
    for _ in range(100):
        image = transform(RAMP)
        middle = image[0, image.shape[1] // 2]
        flipped += int(middle[5] > middle[-6])
    # 50 with a deviation of 5.
    assert 30 < flipped < 70


def test_a_resized_crop_is_a_part_of_the_image():
    transform = transforms.resized_crop_and_flip(*PLAIN, size=16)
    spans = torch.stack([(image := transform(RAMP))[0].amax() - image[0].amin() for _ in range(50)])
    assert spans.min() < 0.5
    assert spans.max() > 0.7


def test_without_chance_an_image_is_normalised_by_channel():
    image = torch.full((3, 2, 2), 255, dtype=torch.uint8)
    seen = transforms.as_it_is(((0.5, 0.25, 0.0), (0.5, 0.25, 2.0)))(image)
    torch.testing.assert_close(seen[:, 0, 0], torch.tensor([1.0, 3.0, 0.5]))
