from pathlib import Path

import pytest
import torch
from PIL import Image

from graphkd.datasets import ImageFolderData, ImageNetData

CLASSES = ["cat", "dog", "emu"]


def write(folder: Path, part: str, per_class: int, classes: list[str] = CLASSES) -> None:
    for c, name in enumerate(classes):
        (folder / part / name).mkdir(parents=True)
        for i in range(per_class):
            Image.new("RGB", (30, 20), (60 * c, 10 * i, 0)).save(folder / part / name / f"{i}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "train", 5)
    write(tmp_path, "test", 2)
    return tmp_path


def test_folders_are_classes_in_alphabetical_order(folder):
    data = ImageFolderData(str(folder), size=16, batch_size=15)
    assert data.num_classes == 3
    assert data.parts.train.classes == CLASSES
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (15, 3, 16, 16)
    assert labels.bincount().tolist() == [5, 5, 5]
    red = images[:, 0, 0, 0] * 0.229 + 0.485
    torch.testing.assert_close(red, labels * 60 / 255, atol=1e-5, rtol=0)


def test_test_images_are_scaled_and_the_middle_cut_out(tmp_path):
    write(tmp_path, "train", 1)
    image = Image.new("RGB", (64, 32))
    image.paste((255, 255, 255), (24, 8, 40, 24))  # the middle
    write(tmp_path, "val", 1)
    image.save(tmp_path / "val" / "cat" / "0.png")
    data = ImageFolderData(str(tmp_path), size=14, mean=[0, 0, 0], std=[1, 1, 1])
    seen = data.parts.test[0].image
    assert seen.shape == (3, 14, 14)
    # 32 pixels become 16, of which 14 are seen: the square of 16 pixels becomes one of 8, at 3 to 10.
    expected = torch.zeros(14, 14)
    expected[3:11, 3:11] = 1
    assert (seen[0] - expected).abs().mean() < 0.1
    assert seen[0, 7, 7] == 1


def test_one_other_folder_is_the_test_split(tmp_path):
    write(tmp_path, "train", 5)
    write(tmp_path, "val", 2)
    data = ImageFolderData(str(tmp_path), validation=3)
    assert [len(part) for part in data.parts] == [12, 3, 6]
    assert "val" in data.parts.test.source.root.parts
    assert len(ImageFolderData(str(tmp_path)).parts.validation) == 6


def test_of_two_other_folders_val_is_to_choose_settings_on(folder):
    write(folder, "val", 1)
    data = ImageFolderData(str(folder))
    assert [len(part) for part in data.parts] == [15, 3, 6]
    with pytest.raises(ValueError, match="validation=0 for data with validation images of their own, got 3"):
        ImageFolderData(str(folder), validation=3).setup()


@pytest.mark.parametrize(("there", "message"), [
    ([], "got none of these folders"),
    (["train"], "got only train"),
    (["test"], "got only test"),
    (["val", "test"], "got only val and test"),
])  # fmt: skip
def test_missing_folders_say_what_is_needed(tmp_path, there, message):
    for part in there:
        write(tmp_path, part, 1)
    with pytest.raises(ValueError, match=f"train/<class>/<image> and test/<class>/<image>.* in {tmp_path}.*{message}"):
        ImageFolderData(str(tmp_path)).setup()


def test_parts_with_other_classes_are_refused(tmp_path):
    write(tmp_path, "train", 1)
    write(tmp_path, "test", 1, ["cat", "dog", "gnu"])
    with pytest.raises(ValueError, match="got others: emu, gnu"):
        ImageFolderData(str(tmp_path)).setup()


def test_a_class_without_images_is_refused(folder):
    (folder / "train" / "fox").mkdir()
    with pytest.raises(ValueError, match="no valid file for the classes fox"):
        ImageFolderData(str(folder)).setup()


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_file_that_is_no_image_is_named(folder, content):
    (folder / "train" / "dog" / "3.png").write_bytes(content)
    with pytest.raises(ValueError, match="dog.3.png needs to be a whole image"):
        list(ImageFolderData(str(folder), size=8).train_dataloader())


@pytest.mark.parametrize(("options", "message"), [
    ({"size": 0}, "size needs an integer of at least 1, got 0"),
    ({"mean": [0.5]}, "mean needs three numbers, .* got 1"),
    ({"std": [1, 0, 1]}, "std needs a finite number above 0, got 0"),
])  # fmt: skip
def test_bad_sizes_and_colours_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ImageFolderData("somewhere", **options)


class SmallImageNet(ImageNetData):
    known_classes, train_images, test_images = 3, 15, 6


def test_imagenet_is_read_from_train_and_val_whatever_else_is_there(tmp_path):
    write(tmp_path, "train", 5)
    write(tmp_path, "val", 2)
    (tmp_path / "test").mkdir()
    data = SmallImageNet(str(tmp_path), validation=0.2)
    assert [len(part) for part in data.parts] == [12, 3, 6]
    assert data.parts.train[0].image.shape == (3, 224, 224)


@pytest.mark.parametrize("part", ["train", "val"])
def test_imagenet_that_was_not_unpacked_to_the_end_is_refused(tmp_path, part):
    write(tmp_path, "train", 5)
    write(tmp_path, "val", 2)
    (tmp_path / part / "emu" / "1.png").unlink()
    with pytest.raises(ValueError, match=f"{part} needs ImageNet's .* images, got"):
        SmallImageNet(str(tmp_path)).setup()


def test_missing_imagenet_says_what_is_needed_and_where_from(tmp_path):
    with pytest.raises(ValueError) as error:
        ImageNetData(str(tmp_path)).setup()
    for word in (
        "train/<wnid>",
        "ILSVRC2012_img_train.tar (147897477120 bytes, md5 1d675b47d978889d74fa0da5fadfb00e)",
        "ILSVRC2012_img_val.tar (6744924160 bytes, md5 29b22e2961454d5413ddabcf34fc5622)",
        "https://image-net.org/",
        str(tmp_path.resolve()),
    ):
        assert word in str(error.value)
