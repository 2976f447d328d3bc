import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from graphkd.datasets import CIFAR10Data, CIFAR100Data
from graphkd.datasets.cifar import CIFARData

Files = dict[str, bytes]


class OldPickler(pickle.Pickler):
    """Writes arrays as numpy did under Python 2, which the published batches come from."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.dtype):
            return np.dtype, (obj.str[1:], 0, 1), (3, "|", None, None, None, -1, -1, 0)
        return NotImplemented


def pickled(content: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    OldPickler(file, protocol=2).dump(content)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def batch(labels: list[int], key: str, first: int) -> bytes:
    """Image i has first + i in all of its red, 1 in its green and 2 in its blue, but for green's first row."""
    data = np.zeros((len(labels), 3, 32, 32), dtype=np.uint8)
    data[:, 0] = first + np.arange(len(labels)).reshape(-1, 1, 1)
    data[:, 1], data[:, 2] = 1, 2
    data[:, 1, 0] = 255
    return pickled({"data": data.reshape(len(labels), -1), key: labels})


def cifar100() -> Files:
    meta = pickled({"fine_label_names": [f"class{c}" for c in range(100)], "coarse_label_names": []})
    labels = [i * 37 % 100 for i in range(200)]
    return {"train": batch(labels, "fine_labels", 0), "test": batch(labels[:100], "fine_labels", 50), "meta": meta}


def cifar10() -> Files:
    batches = {f"data_batch_{i}": batch([(i + j) % 10 for j in range(20)], "labels", 20 * (i - 1)) for i in range(1, 6)}
    meta = pickled({"label_names": [f"class{c}" for c in range(10)]})
    return batches | {"test_batch": batch(list(range(10)), "labels", 100), "batches.meta": meta}


def written(folder: Path, base: type[CIFARData], torchvision: Any, files: Files) -> type[CIFARData]:
    """Write an archive in the official format, and tell a data module its checksums in place of the official ones."""
    archive = folder / torchvision.filename
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{torchvision.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}

    class Small(torchvision):
        tgz_md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        train_list = [[name, md5[name]] for name, _ in torchvision.train_list]
        test_list = [[name, md5[name]] for name, _ in torchvision.test_list]
        meta = torchvision.meta | {"md5": md5[torchvision.meta["filename"]]}

    class SmallData(base):
        archive_size = archive.stat().st_size

        def files(self) -> Any:
            return Small

    return SmallData


@pytest.fixture
def small(tmp_path: Path) -> type[CIFARData]:
    return written(tmp_path, CIFAR100Data, datasets.CIFAR100, cifar100())


def test_an_archive_of_cifar100_is_read(tmp_path, small):
    data = small(str(tmp_path), augment=False)
    train, validation, test = data.parts
    assert (len(train), len(validation), len(test)) == (200, 100, 100)
    assert data.num_classes == len(train.classes) == 100
    assert train.classes[3] == "class3"
    mean, std = torch.tensor([0.5071, 0.4867, 0.4408]), torch.tensor([0.2675, 0.2565, 0.2761])
    for part, first in ((train, 0), (test, 50)):
        for i in (0, 17):
            image, label, *_ = part[i]
            assert label == i * 37 % 100
            colours = torch.tensor([first + i, 1, 2]).expand(32, 32, 3).permute(2, 0, 1).clone()
            colours[1, 0] = 255
            expected = (colours / 255 - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
            torch.testing.assert_close(image, expected)


def test_an_archive_of_cifar10_is_read_batch_by_batch(tmp_path):
    small = written(tmp_path, CIFAR10Data, datasets.CIFAR10, cifar10())
    train, _, test = small(str(tmp_path), augment=False).parts
    assert (len(train), len(test)) == (100, 10)
    assert train.labels.tolist() == [(i + j) % 10 for i in range(1, 6) for j in range(20)]
    red = torch.stack([train[i].image[0, 0, 0] for i in range(100)])
    torch.testing.assert_close(red, (torch.arange(100) / 255 - 0.4914) / 0.2470)


def test_images_are_cropped_and_flipped(tmp_path, small):
    train = small(str(tmp_path)).parts.train
    black = (torch.zeros(3) - torch.tensor([0.5071, 0.4867, 0.4408])) / torch.tensor([0.2675, 0.2565, 0.2761])
    rows = []
    for i in range(100):
        image = train[i].image
        assert image.shape == (3, 32, 32)
        padding = (image - black.reshape(3, 1, 1)).abs().sum(0) < 1e-5
        assert padding.all(1).sum() <= 4
        assert padding.all(0).sum() <= 4
        rows.append(int(padding.all(1).sum()))
    assert set(rows) == {0, 1, 2, 3, 4}


def test_the_folder_is_read_without_the_archive(tmp_path, small):
    small(str(tmp_path)).prepare_data()
    (tmp_path / "cifar-100-python.tar.gz").unlink()
    assert len(small(str(tmp_path)).parts.train) == 200


@pytest.mark.parametrize("data", [CIFAR10Data, CIFAR100Data])
def test_missing_data_say_what_is_needed_and_where_from(tmp_path, data):
    files, module = data(str(tmp_path)).files(), data(str(tmp_path))
    with pytest.raises(ValueError) as error:
        module.train_dataloader()
    size = {CIFAR10Data: 170498071, CIFAR100Data: 169001437}[data]
    for word in (files.base_folder, files.filename, files.url, files.tgz_md5, str(size), str(tmp_path.resolve())):
        assert word in str(error.value)
    assert files.meta["filename"] in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[: len(content) // 2], "bytes, got"),
        (lambda content: content[:500] + bytes([content[500] ^ 1]) + content[501:], "md5"),
    ],
    ids=["cut off", "changed"],
)
def test_a_corrupt_archive_is_refused_and_leaves_nothing(tmp_path, small, spoil: Callable[[bytes], bytes], message):
    archive = tmp_path / "cifar-100-python.tar.gz"
    archive.write_bytes(spoil(archive.read_bytes()))
    with pytest.raises(ValueError, match=f"{message}.* get it again from https://"):
        small(str(tmp_path)).setup()
    assert os.listdir(tmp_path) == [archive.name]


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_folder_with_a_missing_or_changed_file_is_refused(tmp_path, small, name):
    small(str(tmp_path)).prepare_data()
    file = tmp_path / "cifar-100-python" / name
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=f"got {name} missing or with another checksum"):
        small(str(tmp_path)).setup()
    file.unlink()
    with pytest.raises(ValueError, match=f"got {name} missing"):
        small(str(tmp_path)).setup()
    file.write_bytes(content)
    small(str(tmp_path)).setup()


def test_a_set_with_other_classes_is_refused(tmp_path):
    files = cifar100() | {"meta": pickled({"fine_label_names": ["cat", "dog"]})}
    small = written(tmp_path, CIFAR100Data, datasets.CIFAR100, files)
    with pytest.raises(ValueError, match="needs 100 classes, got 2"):
        small(str(tmp_path)).setup()


def test_checksums_are_the_published_ones():
    # As on https://www.cs.toronto.edu/~kriz/cifar.html
    assert CIFAR10Data().archive().md5 == "c58f30108f718f92721af3b95e74349a"
    assert CIFAR100Data().archive().md5 == "eb9058c3a382ffc7106e4002c42a8d85"
