"""Archives of published data sets: checked before they are unpacked, and unpacked whole or not at all."""

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        title: The data set's name.
        url: Where it is published.
        name: The file's name.
        size: In bytes.
        md5: Its checksum.
        folder: What it unpacks to.
        layout: What that folder has in it, in words.

    >>> Archive("Cats", "https://cats.org/cats.zip", "cats.zip", 9, "0" * 32, "cats", "cats").name
    'cats.zip'
    """

    title: str
    url: str
    name: str
    size: int
    md5: str
    folder: str
    layout: str

    def unpacked(self, root: Path, download: bool = False) -> Path:
        """The archive's folder, unpacked from the archive, which is downloaded if asked, where it is not there.

        A folder that is there is taken as it is. What is unpacked becomes visible by one renaming, so that what an
        interrupted process leaves is no data set.

        Raises:
            ValueError: Where there is neither folder nor archive, and for an archive that is cut off or another one.
        """
        target, path = root / self.folder, root / self.name
        if target.is_dir():
            return target
        if not (path.is_file() or download):
            raise ValueError(
                f"{self.title} is missing: needs the folder {self.folder} ({self.layout}), or the archive {self.name}, "
                f"in {root.resolve()}, got neither. The archive is {self.url}, {self.size} bytes, md5 {self.md5}; put "
                "it there, or have it downloaded with download=True"
            )
        if not path.is_file():
            self._download(path)
        self._check(path)
        self._unpack(path, target)
        return target

    def _check(self, path: Path) -> None:
        from torchvision.datasets.utils import calculate_md5

        size = path.stat().st_size
        if size != self.size:
            raise ValueError(f"{path} needs {self.size} bytes, got {size}: delete it and get it again from {self.url}")
        md5 = calculate_md5(path)
        if md5 != self.md5:
            raise ValueError(f"{path} needs md5 {self.md5}, got {md5}: delete it and get it again from {self.url}")

    def _download(self, path: Path) -> None:
        from torchvision.datasets.utils import download_url

        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Checked below, like an archive that was there.
            download_url(self.url, path.parent, part.name)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def _unpack(self, path: Path, target: Path) -> None:
        from torchvision.datasets.utils import extract_archive

        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            extract_archive(path, part)
            try:
                os.rename(part / self.folder, target)
            except OSError:
                # Another process may have been faster.
                if not target.is_dir():
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
