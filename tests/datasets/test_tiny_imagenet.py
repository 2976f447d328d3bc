import hashlib
import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from graphkd.datasets import TinyImageNetData
from graphkd.datasets.tiny_imagenet import ARCHIVE

WNIDS = ["n02124075", "n01443537", "n04067472"]
RED = {"n01443537": 10, "n02124075": 100, "n04067472": 200}
PER_CLASS, TEST = 4, 6


def jpeg(red: int, grey: bool = False) -> bytes:
    image = Image.new("RGB", (64, 64), (red, 50, 90))
    file = io.BytesIO()
    (image.convert("L") if grey else image).save(file, "JPEG", quality=95)
    return file.getvalue()


def official() -> dict[str, bytes]:
    """A small set in the official layout; the first image of each class is grey, as some are."""
    files = {"wnids.txt": "\n".join(WNIDS).encode() + b"\n", "words.txt": b"n00001740\tentity\n"}
    for wnid in WNIDS:
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b""
        for i in range(PER_CLASS):
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = jpeg(RED[wnid], grey=i == 0)
    rows = [f"val_{i}.JPEG\t{WNIDS[i % 3]}\t0\t32\t44\t62" for i in range(TEST)]
    files["val/val_annotations.txt"] = "\n".join(rows).encode() + b"\n"
    files |= {f"val/images/val_{i}.JPEG": jpeg(RED[WNIDS[i % 3]]) for i in range(TEST)}
    return files | {"test/images/test_0.JPEG": jpeg(0)}


def written(folder: Path, files: dict[str, bytes]) -> type[TinyImageNetData]:
    """Write a zip, and tell a data module its size and checksum in place of the official ones."""
    path = folder / ARCHIVE.name
    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(f"tiny-imagenet-200/{name}", content)
    content = path.read_bytes()

    class SmallData(TinyImageNetData):
        known_classes = 3
        train_per_class, test_images = PER_CLASS, TEST

        def archive(self):
            return replace(ARCHIVE, size=len(content), md5=hashlib.md5(content).hexdigest())

    return SmallData


@pytest.fixture
def small(tmp_path: Path) -> type[TinyImageNetData]:
    return written(tmp_path, official())


def test_a_zip_in_the_official_layout_is_read(tmp_path, small):
    train, validation, test = small(str(tmp_path), augment=False).parts
    assert train.classes == sorted(WNIDS)
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert test.labels.tolist() == [1, 0, 2, 1, 0, 2]
    assert len(validation) == TEST
    for part in (train, test):
        for i in range(len(part)):
            image, label, *_ = part[i]
            assert image.shape == (3, 64, 64)
            if part is test or i % PER_CLASS:
                colour = (image.mean((1, 2)) * torch.tensor([0.2302, 0.2265, 0.2262])) + torch.tensor(
                    [0.4802, 0.4481, 0.3975]
                )
                red = RED[sorted(WNIDS)[label]]
                # JPEG changes the colours by a little.
                torch.testing.assert_close(colour * 255, torch.tensor([red, 50.0, 90.0]), atol=3, rtol=0)


def test_images_are_turned_and_flipped(tmp_path, small):
    train = small(str(tmp_path)).parts.train
    black = (0 - 0.4481) / 0.2265
    corners = torch.stack([train[5, view].image[1, 0, 0] for view in range(20)])
    assert (corners < black + 0.01).float().mean() > 0.5
    assert len({train[5, view].image.sum().item() for view in range(20)}) > 10


def test_the_unpacked_folder_is_read_without_the_zip(tmp_path, small):
    small(str(tmp_path)).prepare_data()
    (tmp_path / ARCHIVE.name).unlink()
    images, labels = next(iter(small(str(tmp_path), batch_size=12).train_dataloader()))
    assert images.shape == (12, 3, 64, 64)
    assert labels.bincount().tolist() == [4, 4, 4]


def test_missing_data_say_what_is_needed_and_where_from(tmp_path):
    with pytest.raises(ValueError) as error:
        TinyImageNetData(str(tmp_path)).setup()
    for word in (ARCHIVE.url, ARCHIVE.name, "248100043", ARCHIVE.md5, "wnids.txt", str(tmp_path.resolve())):
        assert word in str(error.value)


def test_a_zip_that_is_cut_off_is_refused_and_leaves_nothing(tmp_path, small):
    path = tmp_path / ARCHIVE.name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="bytes, got .* get it again from http://cs231n"):
        small(str(tmp_path)).setup()
    assert os.listdir(tmp_path) == [ARCHIVE.name]


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("wnids.txt", "got no .*wnids.txt"),
        ("val/val_annotations.txt", "got no .*val_annotations.txt"),
        ("train/n01443537/images/n01443537_2.JPEG", "got 3 images instead of 4"),
        ("val/images/val_3.JPEG", "got 5 of 6 images"),
    ],
)
def test_a_folder_that_was_not_unpacked_to_the_end_is_refused(tmp_path, small, lost, message):
    small(str(tmp_path)).prepare_data()
    (tmp_path / "tiny-imagenet-200" / lost).unlink()
    with pytest.raises(ValueError, match=f"unpacked from tiny-imagenet-200.zip to the end.*{message}"):
        small(str(tmp_path)).setup()


def test_annotations_that_stop_too_early_are_refused(tmp_path):
    files = official()
    files["val/val_annotations.txt"] = files["val/val_annotations.txt"][:60]
    with pytest.raises(ValueError, match="instead of 6"):
        written(tmp_path, files)(str(tmp_path)).setup()


def test_annotations_of_other_classes_are_refused(tmp_path):
    files = official()
    files["val/val_annotations.txt"] = files["val/val_annotations.txt"].replace(b"n04067472", b"n00000001")
    with pytest.raises(ValueError, match="got others: n00000001"):
        written(tmp_path, files)(str(tmp_path)).setup()


def test_an_image_that_is_cut_off_is_named(tmp_path, small):
    data = small(str(tmp_path), batch_size=6)
    data.prepare_data()
    file = tmp_path / "tiny-imagenet-200" / "val" / "images" / "val_4.JPEG"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match="val_4.JPEG needs to be a whole image"):
        next(iter(data.test_dataloader()))
