"""The pixel cache: every picture of a manifest decoded once, into one memory-mapped file.

`pixels-KEY.npy` holds the pixels, `pixels-KEY.json` beside it the whole key, the shape and a CRC-32 a block. The key
covers all that decides a pixel: the hashes of the pictures in their order, the preprocessing, and the version of
the decoder. A file that does not match its checksums is decoded again.
"""

import errno
import hashlib
import io
import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from darkroom import files
from darkroom.data.workers import decoding_pool
from darkroom.errors import DataError, ImageError
from darkroom.preprocess import Preprocessing, load
from darkroom.progress import say, track

if TYPE_CHECKING:  # what is imported here is imported by every worker process
    from darkroom.data.manifest import Manifest

Pixels = npt.NDArray[np.uint8]

_LAYOUT = 1  # of the two files; part of the key
_BLOCK_BYTES, _BLOCK_ROWS = 4 << 20, 512  # one block is one job of a worker and has one checksum
_FEW_BYTES = 32_000_000  # of picture files: up to here starting other processes takes longer than it saves
_FEW_PICTURES = 2_000
_ABANDONED = 600.0  # seconds without a write after which a temporary file's builder must be dead


@dataclass(frozen=True)
class _Job:
    """Pictures of one block, with the hashes they had when they were inspected, and where their pixels go."""

    paths: tuple[Path, ...]
    hashes: tuple[str, ...]
    preprocessing: Preprocessing
    target: Path
    offset: int
    """Byte of `target` at which the block starts."""


def pixels(manifest: "Manifest", preprocessing: Preprocessing, folder: Path) -> Pixels:
    """Read-only pixels (N, H, W, 3), row i for row i of the manifest; decoded only where `folder` lacks them.

    Raises:
        DataError: a picture has changed since it was inspected, or `folder` cannot hold the cache.
    """
    if not manifest.rows:
        raise DataError("the data set holds no readable picture")
    _sweep(folder)
    key = pixels_key(preprocessing, [row.sha256 for row in manifest.rows])
    path = folder / f"pixels-{key[:20]}.npy"
    shape = _shape(manifest, preprocessing)
    cached = _intact(path, key, shape)
    if cached is None:
        if os.path.exists(path):  # unlike Path.exists it never raises
            say(f"The pixel cache {path} is damaged or unfinished: decoding the pictures again")
        _build(path, key, manifest, preprocessing)
        cached = _mapped(path, shape)
    return cached


def pixels_key(preprocessing: Preprocessing, hashes: Sequence[str]) -> str:
    """A hash of all that decides the pixels of pictures whose files have those SHA-256."""
    # Other versions of these carry other decoders, whose pixels differ by a level here and there.
    decoders = [version("pillow"), version("pillow-heif")]
    content = [_LAYOUT, decoders, preprocessing.to_json(), list(hashes)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _intact(path: Path, key: str, shape: tuple[int, ...]) -> Pixels | None:
    """The cached pixels if all of them are what the builder wrote."""
    header, blocks = _header(shape), _blocks(shape)
    try:
        stored = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        checksums = list(stored["crc32"])
        with path.open("rb") as stream:
            same_header = stream.read(len(header)) == header
            size = os.fstat(stream.fileno()).st_size
        content = _mapped(path, shape)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    whole = same_header and size == len(header) + math.prod(shape) and len(checksums) == len(blocks)
    if not whole or stored != _sidecar(key, shape, checksums):
        return None
    pairs = track(zip(blocks, checksums, strict=True), total=len(blocks), what="Checking the pixel cache")
    return content if all(zlib.crc32(content[block].data) == checksum for block, checksum in pairs) else None


def _build(path: Path, key: str, manifest: "Manifest", preprocessing: Preprocessing) -> None:
    shape = _shape(manifest, preprocessing)
    size = math.prod(shape)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with files.replacing(path) as temporary:
            temporary.write_bytes(_header(shape))
            checksums = _decode_all(_jobs(manifest, preprocessing, temporary))
        files.write_json(path.with_suffix(".json"), _sidecar(key, shape, checksums))
    except OSError as error:
        raise DataError(
            f"the pixel cache of {size / 1e6:,.0f} MB cannot be written to {path.parent} ({error.strerror or error}): "
            "make room there or name another folder with --cache"
        ) from error


def _decode_all(jobs: list[_Job]) -> list[int]:
    """Run `jobs` under one progress bar that counts pictures; returns the blocks' checksums."""
    checksums: list[int] = []

    def each_picture() -> Iterator[None]:
        for job, checksum in zip(jobs, map(_decode, jobs) if _are_few(jobs) else _in_processes(jobs), strict=True):
            checksums.append(checksum)
            yield from (None for _ in job.paths)

    for _ in track(each_picture(), total=sum(len(job.paths) for job in jobs), what="Decoding", unit="pictures"):
        pass
    return checksums


def _in_processes(jobs: list[_Job]) -> Iterator[int]:
    with decoding_pool(most=len(jobs)) as pool:
        yield from pool.map(_decode, jobs)


def _are_few(jobs: list[_Job]) -> bool:
    if sum(len(job.paths) for job in jobs) > _FEW_PICTURES:
        return False
    try:
        return sum(path.stat().st_size for job in jobs for path in job.paths) <= _FEW_BYTES
    except OSError:
        return True  # the decoder will say which file is gone


def _decode(job: _Job) -> int:
    """Write the pixels of one block into its place; returns their CRC-32."""
    preprocessing = job.preprocessing
    block = np.empty((len(job.paths), preprocessing.height, preprocessing.width, 3), dtype=np.uint8)
    for place, (path, sha256) in enumerate(zip(job.paths, job.hashes, strict=True)):
        block[place] = _load_unchanged(path, sha256, preprocessing)
    with job.target.open("rb+") as stream:  # not mapped: on a full disk a write fails, but a mapped page kills
        stream.seek(job.offset)
        stream.write(block.data)
    return zlib.crc32(block.data)


def _load_unchanged(path: Path, sha256: str, preprocessing: Preprocessing) -> Pixels:
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path} can no longer be read ({reason}): put it back, or start again without it") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path} has changed since it was inspected: put the old file back, or start a new run")
    try:
        return load(content, preprocessing)
    except ImageError as error:
        raise DataError(f"{path} cannot be used: {error}") from error


def _jobs(manifest: "Manifest", preprocessing: Preprocessing, target: Path) -> list[_Job]:
    shape = _shape(manifest, preprocessing)
    start, row_bytes = len(_header(shape)), math.prod(shape[1:])
    return [
        _Job(
            paths=tuple(manifest.path(row.id) for row in manifest.rows[block]),
            hashes=tuple(row.sha256 for row in manifest.rows[block]),
            preprocessing=preprocessing,
            target=target,
            offset=start + block.start * row_bytes,
        )
        for block in _blocks(shape)
    ]


def _shape(manifest: "Manifest", preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    return len(manifest.rows), preprocessing.height, preprocessing.width, 3


def _blocks(shape: tuple[int, ...]) -> list[slice]:
    """Rows that are decoded and checked together."""
    rows = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // math.prod(shape[1:])))
    return [slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]


def _header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _mapped(path: Path, shape: tuple[int, ...]) -> Pixels:
    return np.memmap(path, dtype=np.uint8, mode="r", offset=len(_header(shape)), shape=shape)


def _sidecar(key: str, shape: tuple[int, ...], checksums: list[int]) -> dict[str, Any]:
    return {"key": key, "shape": list(shape), "crc32": checksums}


def _sweep(folder: Path) -> None:
    """Remove what builders left when they were killed."""
    for leftover in folder.glob(".pixels-*"):
        with suppress(OSError):  # someone else sweeps too, or may not be disturbed
            if time.time() - leftover.stat().st_mtime > _ABANDONED:
                leftover.unlink()
