from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from graphkd.inspection import packing


def words(text):
    return np.frombuffer(b64decode(text), dtype="<u2")


def image(uri):
    kind, data = uri.split(",")
    assert kind == "data:image/png;base64"
    return (255 * imread(BytesIO(b64decode(data, validate=True)), format="png")).round().astype(int)


def test_numbers_are_written_lowest_byte_first():
    assert b64decode(packing.text(np.array([258], dtype=">u2"))) == b"\x02\x01"


def test_masses_are_told_to_a_percent_over_five_orders_of_magnitude():
    plan = np.array([[1.0, 1e-3], [1e-5, 0.0]])
    packed = packing.masses([plan])
    read = packed["scale"] * (words(packed["parts"][0]) / 65535.0) ** 2
    np.testing.assert_allclose(read, plan.ravel(), rtol=0.01)
    assert read[3] == 0


def test_plans_of_all_steps_share_one_scale():
    packed = packing.masses([np.array([[4.0]]), np.array([[1.0]])])
    assert packed["scale"] == 4
    assert [words(part)[0] for part in packed["parts"]] == [65535, 32768]


def test_plans_without_mass_are_written_as_zeros():
    assert words(packing.masses([np.zeros((2, 2))])["parts"][0]).tolist() == [0] * 4


def test_costs_are_told_between_the_smallest_and_the_largest():
    packed = packing.costs([np.array([[-1.0, 0.0]]), np.array([[1.0, np.inf]])])
    assert (packed["low"], packed["high"]) == (-1, 1)
    assert [list(b64decode(part)) for part in packed["parts"]] == [[0, 128], [255, 255]]


@pytest.mark.parametrize("cost", [np.full((1, 2), 3.0), np.full((1, 2), np.nan)])
def test_costs_that_do_not_vary_or_are_not_known_are_the_smallest(cost):
    assert list(b64decode(packing.costs([cost])["parts"][0])) == [0, 0]


def test_pictures_stand_row_by_row_in_the_sprite():
    pictures = torch.arange(5).view(5, 1, 1, 1).expand(5, 1, 2, 4).mul(50).byte()
    made = packing.sprite(pictures)
    assert (made["columns"], made["rows"], made["width"], made["height"]) == (3, 2, 4, 2)
    sheet = image(made["uri"])[..., :3]
    assert sheet.shape == (4, 12, 3)
    assert sheet[::2, ::4, 0].tolist() == [[0, 50, 100], [150, 200, 0]]


def test_colours_of_pictures_are_kept():
    picture = torch.tensor([10, 20, 30]).view(1, 3, 1, 1).byte()
    assert image(packing.sprite(picture)["uri"])[0, 0, :3].tolist() == [10, 20, 30]


def test_large_pictures_are_shrunk_and_keep_their_proportions():
    made = packing.sprite(torch.zeros(1, 3, 30, 60).byte())
    assert (made["height"], made["width"]) == (24, 48)


def test_pictures_are_smaller_where_they_would_weigh_too_much(monkeypatch):
    noise = torch.randint(0, 256, (4, 3, 48, 48)).byte()
    assert packing.sprite(noise)["width"] == 48
    monkeypatch.setattr(packing, "LARGEST_SPRITE", 20_000)
    assert packing.sprite(noise)["width"] == 32
    monkeypatch.setattr(packing, "LARGEST_SPRITE", 10)
    assert packing.sprite(noise)["width"] == 24


def test_a_figure_is_drawn_on_white():
    figure = Figure(figsize=(1, 1), facecolor="black")
    figure.add_subplot().plot([0, 1])
    assert (image(packing.figure(figure))[0, 0] == 255).all()
