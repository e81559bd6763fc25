"""Archives: unpacked once, safely, and continued after a kill."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.data import archives
from darkroom.data.archives import Limits, safe_name, unpack
from darkroom.data.storage import locked
from darkroom.errors import ArchiveError

FILES = {"cats/1.jpg": b"a cat" * 500, "cats/2.jpg": b"", "dogs/été.jpg": np.random.default_rng(0).bytes(5000)}
SUFFIXES = [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"]


def make(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        kind = path.suffix[1:] if path.suffix != ".tar" else ""
        with tarfile.open(path, f"w:{kind}") as archive:
            for name, content in files.items():
                add(archive, name, content)
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **attributes: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    archive.addfile(info, io.BytesIO(content))


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(archive: Path, cache: Path, limits: Limits = archives.LIMITS) -> str:
    """The one line with which `archive` is refused; nothing unpacked may be left."""
    with pytest.raises(ArchiveError) as caught:
        unpack(archive, cache, limits=limits)
    message = str(caught.value)
    assert str(archive) in message
    assert "\n" not in message
    assert not [path for path in (cache / "archives").iterdir() if path.is_dir()]
    return message


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unpacks_every_kind(tmp_path: Path, suffix: str) -> None:
    archive = make(tmp_path / f"set{suffix}", FILES)
    assert content(unpack(archive, tmp_path / "cache")) == FILES


def test_second_run_unpacks_nothing_even_after_a_move(tmp_path: Path) -> None:
    archive = make(tmp_path / "set.zip", FILES)
    folder = unpack(archive, tmp_path / "cache")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    moved = archive.rename(tmp_path / "other.zip")
    assert unpack(moved, tmp_path / "cache") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_changed_archive_is_unpacked_again(tmp_path: Path) -> None:
    archive = make(tmp_path / "set.tar", FILES)
    first = unpack(archive, tmp_path / "cache")
    make(archive, {**FILES, "dogs/3.jpg": b"new"})
    second = unpack(archive, tmp_path / "cache")
    assert content(second) == {**FILES, "dogs/3.jpg": b"new"}
    assert content(first) == FILES


@pytest.mark.parametrize("spoilt", ["not json", "[]"])
def test_deleted_files_and_spoilt_memory_are_mended(tmp_path: Path, spoilt: str) -> None:
    archive = make(tmp_path / "set.zip", FILES)
    folder = unpack(archive, tmp_path / "cache")
    (folder / "cats" / "1.jpg").unlink()
    (tmp_path / "cache" / "archives" / "hashes.json").write_text(spoilt)
    assert content(unpack(archive, tmp_path / "cache")) == FILES


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "C:/evil", "c:evil", "a\\..\\evil", "a/..", ".", "//host/evil"]
)
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_unsafe_paths_are_refused(tmp_path: Path, name: str, suffix: str) -> None:
    archive = make(tmp_path / f"set{suffix}", {"cats/1.jpg": b"x", name: b"evil"})
    assert "unsafe path" in refusal(archive, tmp_path / "cache")
    assert not list(tmp_path.rglob("*evil*"))


@given(st.text(st.sampled_from("ab./\\:\0 "), max_size=12))
def test_safe_names_stay_inside(name: str) -> None:
    try:
        found = safe_name(Path("set.zip"), name)
    except ArchiveError:
        return
    assert not os.path.isabs(found)
    assert os.path.normpath(os.path.join("/cache", found)).startswith("/cache/")
    assert [part for part in found.split("/") if part in ("", ".", "..")] == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        add(archive, "cats/1.jpg", b"x")
        add(archive, "cats/2.jpg", type=kind, linkname="1.jpg")
    assert "link or device" in refusal(tmp_path / "set.tar", tmp_path / "cache")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("cats/1.jpg")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert "link or device" in refusal(tmp_path / "set.zip", tmp_path / "cache")


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        add(archive, "cats/1.jpg", b"one")
        add(archive, "./cats//1.jpg", b"two")
    assert "twice" in refusal(tmp_path / "set.tar", tmp_path / "cache")


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b", "a"]])
def test_a_file_and_a_folder_of_one_name_are_refused(tmp_path: Path, names: list[str]) -> None:
    archive = make(tmp_path / "set.zip", dict.fromkeys(names, b"x"))
    assert "same name" in refusal(archive, tmp_path / "cache")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bounds_hold(tmp_path: Path, suffix: str) -> None:
    archive = make(tmp_path / f"set{suffix}", {str(number): bytes(2000) for number in range(10)})
    unpack(archive, tmp_path / "enough", limits=Limits(files=10, unpacked_bytes=20_000))
    assert "more than 9 files" in refusal(archive, tmp_path / "cache", Limits(files=9))
    assert "plausible" in refusal(archive, tmp_path / "cache", Limits(unpacked_bytes=19_999))


def test_a_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    archive = make(tmp_path / "set.tar.xz", {"bomb.bmp": bytes(2**21)})
    assert "plausible" in refusal(archive, tmp_path / "cache", Limits(ratio=100, ratio_free_bytes=2**20))
    unpack(archive, tmp_path / "other", limits=Limits(ratio=100, ratio_free_bytes=2**21))


def test_a_lying_size_is_refused(tmp_path: Path) -> None:
    archive = make(tmp_path / "set.zip", {"cats/1.jpg": bytes(5000)})
    data = archive.read_bytes().replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little"))
    archive.write_bytes(data)
    assert "damaged" in refusal(archive, tmp_path / "cache")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_archive_is_refused_wherever_it_is_cut(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    whole = make(tmp_path / f"whole{suffix}", {f"{number}.jpg": rng.bytes(512) for number in range(6)}).read_bytes()
    meaningful = whole if suffix != ".tar" else whole.rstrip(b"\0")
    cuts = {len(meaningful) * part // 10 for part in range(1, 10)} | {len(meaningful) - 1, 1024, 2048}
    for cut in cuts:
        archive = tmp_path / f"cut{suffix}"
        archive.write_bytes(whole[:cut])
        refusal(archive, tmp_path / f"cache{cut}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_changed_bytes_never_escape_as_other_errors(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(2)
    whole = make(tmp_path / f"whole{suffix}", {f"{number}.jpg": rng.bytes(300) for number in range(4)}).read_bytes()
    archive = tmp_path / f"changed{suffix}"
    for trial in range(25):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        archive.write_bytes(damaged)
        with suppress(ArchiveError):
            unpack(archive, tmp_path / f"cache{trial}")


def test_a_broken_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    archive = make(tmp_path / "set.tar", {"1.jpg": b"x" * 512, "2.jpg": b"y" * 512})
    damaged = bytearray(archive.read_bytes())
    damaged[1024 + 10] ^= 1  # in the second member's header
    archive.write_bytes(damaged)
    assert "damaged" in refusal(archive, tmp_path / "cache")


def test_encrypted_is_refused(tmp_path: Path) -> None:
    archive = make(tmp_path / "set.zip", {"1.jpg": b"x"})
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # flag in the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    archive.write_bytes(data)
    assert "encrypted" in refusal(archive, tmp_path / "cache")


@pytest.mark.parametrize("data", [b"", b"no archive at all", b"\x1f\x8bxx", b"PK\x03\x04"])
def test_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "set.zip").write_bytes(data)
    refusal(tmp_path / "set.zip", tmp_path / "cache")


def test_mac_names_in_a_zip_are_utf8(tmp_path: Path) -> None:
    archive = make(tmp_path / "set.zip", {"cafXX.jpg": b"x"})
    archive.write_bytes(archive.read_bytes().replace(b"cafXX", "café".encode()))  # without the mark for UTF-8
    assert list(content(unpack(archive, tmp_path / "cache"))) == ["café.jpg"]


def many(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    files = {f"{number % 10}/{number}.jpg": bytes([number % 256]) * 200 for number in range(4000)}
    return make(tmp_path / "set.tar", files), files


def start(archive: Path, cache: Path) -> subprocess.Popen[bytes]:
    code = "import sys, pathlib; from darkroom.data.archives import unpack; unpack(*map(pathlib.Path, sys.argv[1:]))"
    return subprocess.Popen([sys.executable, "-c", code, archive, cache])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_while_unpacking_goes_on_where_it_was(tmp_path: Path) -> None:
    archive, files = many(tmp_path)
    cache = tmp_path / "cache"
    process = start(archive, cache)
    deadline = time.monotonic() + 30
    while not list(cache.glob("archives/*.partial/3/*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    (partial,) = cache.glob("archives/*.partial")
    kept = content(partial)
    assert 0 < len(kept) < len(files)
    first = partial / "0" / "0.jpg"
    inode = first.stat().st_ino, first.stat().st_mtime_ns
    folder = unpack(archive, cache)
    assert content(folder) == files
    assert ((folder / "0/0.jpg").stat().st_ino, (folder / "0/0.jpg").stat().st_mtime_ns) == inode
    assert not partial.exists()


def test_half_a_file_is_not_taken_for_whole(tmp_path: Path) -> None:
    archive = make(tmp_path / "set.tar", FILES)
    partial = tmp_path / "cache" / "archives" / (archives.content_hash(archive, tmp_path / "cache")[:32] + ".partial")
    (partial / "cats").mkdir(parents=True)
    (partial / "cats" / "1.jpg").write_bytes(FILES["cats/1.jpg"][:100])
    assert content(unpack(archive, tmp_path / "cache")) == FILES


def test_two_processes_share_one_folder(tmp_path: Path) -> None:
    archive, files = many(tmp_path)
    processes = [start(archive, tmp_path / "cache") for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    (folder,) = (path for path in (tmp_path / "cache" / "archives").iterdir() if path.is_dir())
    assert content(folder) == files


def test_a_lock_is_waited_for_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(tmp_path / "lock"):
        thread.start()
        time.sleep(0.15)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert "waiting for another darkroom" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_that_claims_much_memory_is_refused(tmp_path: Path, kind: bytes) -> None:
    archive = tmp_path / "bomb.tar.xz"
    header = tarfile.TarInfo("name")
    header.type, header.size = kind, 64 << 20
    with tarfile.open(archive, "w:xz") as opened:
        opened.addfile(header, io.BytesIO(bytes(64 << 20)))
    assert archive.stat().st_size < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match=r"^[^\n]+$"):
            unpack(archive, tmp_path / "cache")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20, "the header was read whole, whatever size it claims"
