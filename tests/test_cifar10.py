"""CIFAR-10 from a small archive of the official form, local or served by an unreliable web server."""

import hashlib
import io
import re
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.config import DataConfig
from darkroom.data.cifar10 import cifar10_folder
from darkroom.data.downloads import Patience, download
from darkroom.data.sources import open_source
from darkroom.errors import DarkroomError, DataError, DownloadError

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
HASTY = Patience(timeout=0.5, attempts=3, pause=0.001)


def records(count: int, seed: int) -> np.ndarray:
    """Records (count, 3073) with labels 0, 1, … 9, 0, …"""
    drawn = np.random.default_rng(seed).integers(0, 256, (count, 3073), dtype=np.uint8)
    drawn[:, 0] = np.arange(count) % 10
    return drawn


def official_files() -> dict[str, bytes]:
    files = {"test_batch.bin": records(20, 9).tobytes(), "batches.meta.txt": "\n".join([*NAMES, "", ""]).encode()}
    return {**{f"data_batch_{n}.bin": records(10 + n, n).tobytes() for n in (3, 1, 2, 5, 4)}, **files}


def archive_of(files: dict[str, bytes], path: Path, folder: str = "cifar-10-batches-bin") -> Path:
    with tarfile.open(path, "w:" + path.suffix[1:].replace("tar", "")) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@dataclass
class Behaviour:
    """What a server does: the answer to each request in turn, the last one for ever; and what it was asked."""

    content: bytes
    answers: list[str] = field(default_factory=lambda: ["all"])
    ranges: list[str | None] = field(default_factory=list)

    def next(self) -> str:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self) -> None:
        behaviour, answer = self.behaviour, self.behaviour.next()
        asked = self.headers.get("Range")
        behaviour.ranges.append(asked)
        if answer.isdigit():
            self.send_error(int(answer))
            return
        total = len(behaviour.content)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and answer != "ignore range" else 0
        if start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.answer(behaviour.content, start=start, cut=answer == "cut", wrong=answer == "wrong part")

    def answer(self, content: bytes, *, start: int, cut: bool, wrong: bool) -> None:
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start + wrong}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start : start + (len(content) - start) // 2] if cut else content[start:])

    def log_message(self, format: str, *arguments: object) -> None:
        """Be silent."""


@pytest.fixture
def serve() -> Iterator[object]:
    """A function that serves a behaviour and returns the address."""
    servers = []

    def start(behaviour: Behaviour) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"behaviour": behaviour}))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def one_line(error: pytest.ExceptionInfo[DarkroomError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pixels_labels_and_order_are_those_of_the_records(tmp_path: Path) -> None:
    archive = archive_of(official_files(), tmp_path / "cifar.tar.gz")
    source = open_source("cifar10", DataConfig(archive=archive, cache=tmp_path / "cache"))
    assert source.classes == tuple(NAMES)
    assert source.name == "cifar10"
    expected = {"train": np.concatenate([records(10 + n, n) for n in range(1, 6)]), "test": records(20, 9)}
    assert len(source.pictures) == 85
    for picture in source.pictures:
        record = expected[str(picture.split)][int(picture.path.stem) - 1]
        assert picture.label == NAMES[record[0]]
        red_green_blue = record[1:].reshape(3, 32, 32)
        np.testing.assert_array_equal(np.asarray(Image.open(picture.path)), np.moveaxis(red_green_blue, 0, 2))


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz", ".tar.bz2"])
def test_local_copy_is_read_and_left_alone(tmp_path: Path, suffix: str) -> None:
    archive = archive_of(official_files(), tmp_path / f"cifar{suffix}")
    before = archive.read_bytes(), archive.stat().st_mtime_ns
    folder = cifar10_folder(tmp_path / "cache", archive=archive)
    assert len(list(folder.glob("train/*/*.bmp"))) == 65
    assert (archive.read_bytes(), archive.stat().st_mtime_ns) == before
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.bmp")}
    assert cifar10_folder(tmp_path / "cache", archive=archive) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.bmp")} == written


def spoilt(**changes: bytes | None) -> dict[str, bytes]:
    files = {**official_files(), **{name.replace("__", "."): content for name, content in changes.items()}}
    return {name: content for name, content in files.items() if content is not None}


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (spoilt(test_batch__bin=None), "holds no cifar-10-batches-bin/test_batch.bin"),
        (spoilt(data_batch_3__bin=b"x" * 3072), "3072 bytes, not whole records"),
        (spoilt(data_batch_3__bin=b""), "0 bytes, not whole records"),
        (spoilt(data_batch_3__bin=b"\x0a" * 3073), "label 10"),
        (spoilt(batches__meta__txt=None), "does not name ten classes"),
        (spoilt(batches__meta__txt=b"a b c"), "does not name ten classes"),
        (spoilt(batches__meta__txt="\n".join(["../x", *NAMES[1:]]).encode()), "does not name ten classes"),
        ({"data_batch_1": b"a pickle"}, "holds no cifar-10-batches-bin/data_batch_1.bin"),
    ],
)
def test_other_archives_are_refused(tmp_path: Path, files: dict[str, bytes], problem: str) -> None:
    archive = archive_of(files, tmp_path / "cifar.tar.gz")
    with pytest.raises(DataError) as caught:
        cifar10_folder(tmp_path / "cache", archive=archive)
    assert problem in one_line(caught)
    assert not list((tmp_path / "cache").rglob("*.bmp"))


@pytest.mark.parametrize(("place", "problem"), [("nowhere.tar.gz", "does not exist"), (".", "is a folder")])
def test_archives_that_are_no_files_are_refused(tmp_path: Path, place: str, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        cifar10_folder(tmp_path / "cache", archive=tmp_path / place)
    assert problem in one_line(caught)


def test_download_cut_in_the_middle_is_resumed(tmp_path: Path, serve) -> None:
    content = archive_of(official_files(), tmp_path / "cifar.tar.gz").read_bytes()
    behaviour = Behaviour(content, ["cut", "all"])
    cache = tmp_path / "cache"
    folder = cifar10_folder(cache, url=serve(behaviour), md5=md5(content), patience=HASTY)
    assert behaviour.ranges == [None, f"bytes={len(content) // 2}-"]
    assert len(list(folder.rglob("*.bmp"))) == 85
    assert (cache / "downloads/cifar-10-binary.tar.gz").read_bytes() == content
    assert not list(cache.rglob("*.partial"))
    assert cifar10_folder(cache, url="http://127.0.0.1:1/", md5=md5(content)) == folder  # asks nobody


CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.mark.parametrize(
    ("present", "answers", "requests"),
    [
        (0, ["all"], [None]),
        (0, ["503", "cut", "all"], [None, None, "bytes=1500000-"]),
        (0, ["cut", "cut", "cut", "cut", "cut", "all"], None),  # more cuts than attempts, but each gets on
        (1000, ["all"], ["bytes=1000-"]),
        (1000, ["ignore range"], ["bytes=1000-"]),
        (1000, ["wrong part", "all"], ["bytes=1000-", None]),
        (3_000_000, ["all"], ["bytes=3000000-"]),  # 416: all was there
    ],
)
def test_downloads_come_out_whole(
    tmp_path: Path, serve, present: int, answers: list[str], requests: list[str | None] | None
) -> None:
    behaviour = Behaviour(CONTENT, answers)
    (tmp_path / "file.partial").write_bytes(CONTENT[:present])
    target = download(serve(behaviour), tmp_path / "file", md5=md5(CONTENT), patience=HASTY)
    assert target.read_bytes() == CONTENT
    assert requests is None or behaviour.ranges == requests
    assert not (tmp_path / "file.partial").exists()


def test_more_than_the_file_is_thrown_away(tmp_path: Path, serve) -> None:
    behaviour = Behaviour(CONTENT)
    (tmp_path / "file.partial").write_bytes(CONTENT + b"more")
    download(serve(behaviour), tmp_path / "file", md5=md5(CONTENT), patience=HASTY)
    assert behaviour.ranges == ["bytes=3000004-", None]


def test_a_wrong_file_is_removed(tmp_path: Path, serve) -> None:
    with pytest.raises(DownloadError) as caught:
        download(serve(Behaviour(CONTENT)), tmp_path / "file", md5=md5(b"other"), patience=HASTY)
    assert f"MD5 {md5(CONTENT)} instead of {md5(b'other')}" in one_line(caught)
    assert not list(tmp_path.glob("file*[!k]"))


@pytest.mark.parametrize(("answer", "requests"), [("404", 1), ("503", 3)])
def test_refusals_end_in_one_line(tmp_path: Path, serve, answer: str, requests: int) -> None:
    behaviour = Behaviour(CONTENT, [answer])
    with pytest.raises(DownloadError) as caught:
        download(serve(behaviour), tmp_path / "file", md5=md5(CONTENT), patience=HASTY)
    assert answer in one_line(caught)
    assert "--archive" in str(caught.value)
    assert len(behaviour.ranges) == requests


def test_a_server_that_always_cuts_at_one_place_is_given_up(tmp_path: Path, serve) -> None:
    behaviour = Behaviour(b"x", ["cut"])  # half of one byte is none
    with pytest.raises(DownloadError) as caught:
        download(serve(behaviour), tmp_path / "file", md5=md5(b"x"), patience=HASTY)
    assert "closed after 0 of 1 bytes" in one_line(caught)
    assert len(behaviour.ranges) == 3


def test_nobody_there_ends_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        download("http://127.0.0.1:1/file", tmp_path / "file", md5="", patience=HASTY)
    assert "refused" in one_line(caught)


def test_a_silent_server_times_out(tmp_path: Path) -> None:
    patience = Patience(timeout=0.05, attempts=2, pause=0.001)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        with pytest.raises(DownloadError) as caught:
            download(url, tmp_path / "file", md5="", patience=patience)
    assert "timed out" in one_line(caught)
