from pathlib import Path
from typing import Any

import pytest
from torchvision.datasets.imagenet import ARCHIVE_META

from graphkd import datasets
from graphkd.datasets import CIFAR10Data, CIFAR100Data, TinyImageNetData
from graphkd.datasets.archived_data import ArchivedData

PAGE = (Path(__file__).parents[2] / "data" / "README.md").read_text()


def test_the_page_names_every_data_set():
    names = [name for name in dir(datasets) if name.endswith("Data")]
    assert len(names) >= 7
    assert [name for name in names if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize("data", [CIFAR10Data, CIFAR100Data, TinyImageNetData])
def test_the_page_has_each_archive_as_the_class_has_it(data: type[ArchivedData]):
    archive: Any = data().archive()
    row = next(line for line in PAGE.splitlines() if f"[{archive.name}]" in line)
    for fact in (archive.url, str(archive.size), archive.md5, f"`{archive.folder}/`"):
        assert fact in row


def test_the_page_has_imagenets_checksums():
    for name, md5 in ARCHIVE_META.values():
        assert any(name in line and md5 in line for line in PAGE.splitlines())
