"""Archives unpacked safely and once: the folder is named after the archive's content, and is whole or absent."""

import bz2
import gzip
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from darkroom import files
from darkroom.data.storage import MEGABYTE, build_folder, in_megabytes, megabytes, reopen_folder
from darkroom.errors import ArchiveError
from darkroom.progress import track


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that an archive may unpack to: generous for pictures, too little for a bomb."""

    unpacked_bytes: int = 200 * 10**9
    files: int = 5_000_000
    ratio: int = 200
    """Unpacked bytes for each byte of the archive; judged only beyond `ratio_free_bytes`."""
    ratio_free_bytes: int = 2**30

    def most_bytes(self, archive_bytes: int) -> int:
        """Bytes that an archive of `archive_bytes` may unpack to."""
        return min(self.unpacked_bytes, max(self.ratio_free_bytes, self.ratio * archive_bytes))


LIMITS = Limits()

OPENER_OF_MAGIC: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error),
    *(NotImplementedError, RuntimeError, ValueError, IndexError, OverflowError),
)
"""What the standard library raises on a damaged archive."""


@dataclass(frozen=True)
class Member:
    """A regular file inside an archive; `position` is how many bytes of the archive lie before it."""

    name: str
    size: int
    position: int
    blocks: Callable[[], Iterator[bytes]]


def unpack(archive: Path, cache: Path, *, limits: Limits = LIMITS) -> Path:
    """Folder in `cache` with all files of a .zip or .tar[.gz|.bz2|.xz]; an interrupted call is continued by the next.

    Raises:
        ArchiveError: it is damaged, encrypted, too large, or holds links or paths that lead out of the folder.
    """
    folder = cache / "archives" / content_hash(archive, cache)[:32]
    record = folder.with_suffix(".json")
    if folder.is_dir() and files.read_remembered(record).get("files") != _count_files(folder):
        reopen_folder(folder)  # someone deleted files

    def fill(partial: Path) -> None:
        steps = _extract(archive, partial, limits)
        total = in_megabytes(archive.stat().st_size)
        for _ in track(megabytes(steps), total=total, what=f"Unpacking {archive.name} (MB)"):
            pass
        files.write_json(record, {"archive": archive.name, "files": _count_files(partial)})

    return build_folder(folder, fill, resume=True)


def content_hash(archive: Path, cache: Path) -> str:
    """SHA-256 of the archive, remembered in `cache` while its path, size and time of change stay the same."""
    status = archive.stat()
    place, version = str(archive.resolve()), [status.st_size, status.st_mtime_ns]
    memory = cache / "archives" / "hashes.json"
    known = files.read_remembered(memory)
    if place not in known or known[place][:2] != version:
        known = {name: entry for name, entry in known.items() if os.path.exists(name)}
        known[place] = [*version, files.sha256_of(archive)]
        files.write_json(memory, known)
    return str(known[place][2])


def _count_files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def _extract(archive: Path, folder: Path, limits: Limits) -> Iterator[int]:
    """Write every member below `folder`, yielding the position in the archive; real bytes are counted, not headers."""
    most = limits.most_bytes(archive.stat().st_size)
    fresh = not os.listdir(folder)
    names: set[str] = set()
    parents: set[str] = set()
    unpacked = 0
    for member in _members(archive):
        name = safe_name(archive, member.name)
        if os.path.normcase(name) in names:
            raise ArchiveError(f"{archive} holds {name!r} twice: make the archive again, each file once")
        names.add(os.path.normcase(name))
        if len(names) > limits.files:
            raise ArchiveError(f"{archive} holds more than {limits.files:,} files: too many for a set of pictures")
        target = os.path.join(folder, *name.split("/"))
        _make_parent(archive, name, target, parents)
        unpacked += _write(archive, member, target, most=most - unpacked, fresh=fresh)
        yield member.position
    yield archive.stat().st_size


def _make_parent(archive: Path, name: str, target: str, parents: set[str]) -> None:
    parent = os.path.dirname(target)
    if parent in parents:
        return
    try:
        os.makedirs(parent, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ArchiveError(f"{archive} holds two things of the same name at {name!r}") from error
    parents.add(parent)


def _write(archive: Path, member: Member, target: str, *, most: int, fresh: bool) -> int:
    """Bytes written or found: a file of the right size is whole, since files are written front to back."""
    too_large = f"{archive} unpacks to more than is plausible for its size: unpack it yourself if you trust it"
    if member.size > most:
        raise ArchiveError(too_large)
    if not fresh and _size_of(target) == member.size:
        return member.size
    written = 0
    with _create(archive, member, target, "xb" if fresh else "wb") as stream:
        for block in member.blocks():
            written += len(block)
            if written > most:
                raise ArchiveError(too_large)
            stream.write(block)
    if written != member.size:
        raise ArchiveError(f"{archive} is damaged: {member.name!r} has {written} bytes instead of {member.size}")
    return written


def _create(archive: Path, member: Member, target: str, mode: Literal["xb", "wb"]) -> IO[bytes]:
    try:
        return open(target, mode)
    except (FileExistsError, IsADirectoryError) as error:
        raise ArchiveError(f"{archive} holds two things of the same name at {member.name!r}") from error


def _size_of(path: str) -> int | None:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def safe_name(archive: Path, name: str) -> str:
    """`name` as a relative path with single slashes; raises `ArchiveError` where it could lead out of the folder."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    absolute = text.startswith("/") or re.match(r"[A-Za-z]:", text)
    if absolute or not parts or ".." in parts or "\\" in text or "\0" in text or "\ufffd" in text:
        raise ArchiveError(f"{archive} holds the unsafe path {text!r}: unpack it yourself if you trust it")
    return "/".join(parts)


def _members(archive: Path) -> Iterator[Member]:
    with archive.open("rb") as stream:
        magic = stream.read(8)
    if magic.startswith(b"PK"):
        return _zip_members(archive)
    opener = next((found for start, found in OPENER_OF_MAGIC.items() if magic.startswith(start)), None)
    return _tar_members(archive, opener)


def _zip_members(archive: Path) -> Iterator[Member]:
    with _translating(archive), zipfile.ZipFile(archive) as opened:
        position = 0
        for info in opened.infolist():
            _check_zip_member(archive, info)
            position += info.compress_size
            if not info.is_dir():
                yield Member(_zip_name(info), info.file_size, position, _zip_blocks(archive, opened, info))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name as stored; where it is not marked as UTF-8 but is (as macOS writes it), as UTF-8 and not as CP437."""
    name = info.orig_filename
    if info.flag_bits & 0x800 or name.isascii():
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _check_zip_member(archive: Path, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 0x1:
        raise ArchiveError(f"{archive} is encrypted: unpack it yourself and give the folder")
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError(f"{archive} holds a link or device, {info.filename!r}: unpack it yourself if you trust it")


def _zip_blocks(archive: Path, opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], Iterator[bytes]]:
    def blocks() -> Iterator[bytes]:
        with _translating(archive), opened.open(info) as stream:
            while block := stream.read(MEGABYTE):
                yield block

    return blocks


class _TarStream:
    """What `tarfile` reads from; keeps the last block, since tarfile takes a broken header for a regular end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MEGABYTE:  # tarfile reads a long name or a pax header at once, of whatever size it claims
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.last = self._stream.read(size)
        return self.last


def _tar_members(archive: Path, opener: Callable[..., Any] | None) -> Iterator[Member]:
    with _translating(archive), archive.open("rb") as raw, opener(raw) if opener else raw as plain:
        stream = _TarStream(plain)
        with _open_tar(archive, stream) as opened:
            while (info := opened.next()) is not None:
                cast(Any, opened).members.clear()  # or millions of them would stay in memory
                _check_tar_member(archive, info)
                if info.isreg():
                    yield Member(info.name, info.size, raw.tell(), _tar_blocks(archive, stream, info))
        _check_tar_end(archive, stream)


def _open_tar(archive: Path, stream: _TarStream) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:")
    except tarfile.ReadError as error:
        raise ArchiveError(f"{archive} is not a .zip or .tar[.gz|.bz2|.xz] archive of pictures") from error


def _check_tar_member(archive: Path, info: tarfile.TarInfo) -> None:
    if not (info.isreg() or info.isdir()) or info.issparse():
        raise ArchiveError(f"{archive} holds a link or device, {info.name!r}: unpack it yourself if you trust it")


def _check_tar_end(archive: Path, stream: _TarStream) -> None:
    if len(stream.last) < tarfile.BLOCKSIZE or any(stream.last):
        raise ArchiveError(f"{archive} is damaged or cut off: download or copy it again")
    for _ in range(64):  # the checksum of the compression stands behind the padding
        if not stream.read(MEGABYTE):
            break


def _tar_blocks(archive: Path, stream: _TarStream, info: tarfile.TarInfo) -> Callable[[], Iterator[bytes]]:
    def blocks() -> Iterator[bytes]:
        with _translating(archive):
            stream.seek(info.offset_data)
            left = info.size
            while left and (block := stream.read(min(left, MEGABYTE))):
                left -= len(block)
                yield block

    return blocks


@contextmanager
def _translating(archive: Path) -> Iterator[None]:
    """Turn what the standard library raises on a damaged archive into one clear line."""
    try:
        yield
    except DAMAGE as error:
        raise ArchiveError(f"{archive} is damaged or cut off ({error}): download or copy it again") from error
    except OSError as error:
        if error.errno is not None:
            raise ArchiveError(f"cannot read {archive}: {error.strerror}") from error
        raise ArchiveError(f"{archive} is damaged or cut off ({error}): download or copy it again") from error


def forget(folder: Path) -> None:
    """Delete a folder that `unpack` made, once what was needed has been taken out of it."""
    folder.with_suffix(".json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
