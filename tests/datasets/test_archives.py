import hashlib
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from graphkd.datasets.archives import Archive


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address that a folder's files are published at."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def archive(folder: Path, files: int = 3) -> Archive:
    """An archive that lies in a folder."""
    path = folder / "cats.zip"
    with zipfile.ZipFile(path, "w") as file:
        for i in range(files):
            file.writestr(f"cats/{i}.txt", str(i))
    content = path.read_bytes()
    md5 = hashlib.md5(content).hexdigest()
    return Archive("Cats", path.as_uri(), path.name, len(content), md5, "cats", "with texts")


def test_a_folder_is_taken_before_an_archive(tmp_path):
    cats = archive(tmp_path)
    assert cats.unpacked(tmp_path) == tmp_path / "cats"
    assert sorted(path.name for path in (tmp_path / "cats").iterdir()) == ["0.txt", "1.txt", "2.txt"]
    (tmp_path / "cats.zip").write_bytes(b"")
    assert cats.unpacked(tmp_path) == tmp_path / "cats"


def test_an_archive_is_downloaded_only_if_asked(tmp_path, capsys):
    (tmp_path / "there").mkdir()
    cats, here = archive(tmp_path / "there"), tmp_path / "here" / "sets"
    with pytest.raises(
        ValueError, match="Cats is missing: needs the folder cats .with texts., or the archive cats.zip"
    ):
        cats.unpacked(here)
    with served(tmp_path / "there") as address:
        published = replace(cats, url=f"{address}/cats.zip")
        assert (published.unpacked(here, download=True) / "2.txt").read_text() == "2"
    assert sorted(os.listdir(here)) == ["cats", "cats.zip"]


def test_a_download_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "there").mkdir()
    cats, here = archive(tmp_path / "there"), tmp_path / "here"
    archive(tmp_path / "there", files=4)
    with served(tmp_path / "there") as address, pytest.raises(ValueError, match=f"needs {cats.size} bytes, got"):
        replace(cats, url=f"{address}/cats.zip").unpacked(here, download=True)
    assert os.listdir(here) == ["cats.zip"]


def test_a_download_that_fails_leaves_nothing(tmp_path, capsys):
    cats, here = archive(tmp_path), tmp_path / "here"
    with served(tmp_path) as address, pytest.raises(OSError, match="404"):
        replace(cats, url=f"{address}/dogs.zip").unpacked(here, download=True)
    assert os.listdir(here) == []


def test_a_download_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    def breaks_off(url: str, root: Path, name: str) -> None:
        (root / name).write_bytes(b"half")
        raise OSError("connection lost")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", breaks_off)
    cats = archive(tmp_path)
    with pytest.raises(OSError, match="connection lost"):
        cats.unpacked(tmp_path / "here", download=True)
    assert os.listdir(tmp_path / "here") == []


def test_what_another_process_has_unpacked_meanwhile_is_taken(tmp_path, monkeypatch):
    cats, rename = archive(tmp_path), os.rename

    def second(source, target):
        (tmp_path / "cats").mkdir()
        (tmp_path / "cats" / "first").touch()
        rename(source, target)

    monkeypatch.setattr("graphkd.datasets.archives.os.rename", second)
    assert os.listdir(cats.unpacked(tmp_path)) == ["first"]
    assert sorted(os.listdir(tmp_path)) == ["cats", "cats.zip"]


def test_an_archive_without_the_folder_is_an_error(tmp_path):
    cats = archive(tmp_path)
    dogs = replace(cats, folder="dogs")
    with pytest.raises(FileNotFoundError):
        dogs.unpacked(tmp_path)
    assert os.listdir(tmp_path) == ["cats.zip"]


SLOW = """
import time, zipfile
from pathlib import Path
from graphkd.datasets.archives import Archive
whole = zipfile.ZipFile.extract
def extract(self, member, *rest):
    done = whole(self, member, *rest)
    print("one", flush=True)
    time.sleep(60)
    return done
def extractall(self, path):
    for each in self.namelist():
        extract(self, each, path)
zipfile.ZipFile.extractall = extractall
Archive(*{arguments!r}).unpacked(Path({folder!r}))
"""


@pytest.mark.slow
def test_a_process_killed_while_it_unpacks_leaves_nothing_that_reads_as_whole(tmp_path):
    cats = archive(tmp_path)
    arguments = (cats.title, cats.url, cats.name, cats.size, cats.md5, cats.folder, cats.layout)
    script = SLOW.format(arguments=arguments, folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "cats").exists()
    assert len(os.listdir(cats.unpacked(tmp_path))) == 3
