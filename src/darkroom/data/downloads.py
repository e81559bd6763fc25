"""One file from the web: resumed where it broke off, tried again, checked, and in place only when it is right."""

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NoReturn

from darkroom.data.storage import MEGABYTE, in_megabytes, locked, megabytes
from darkroom.errors import DownloadError
from darkroom.progress import say, track

BLOCK = MEGABYTE // 4


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a bad connection is put up with: seconds without a byte, failures in a row, first pause in seconds."""

    timeout: float = 30.0
    attempts: int = 5
    pause: float = 1.0


PATIENCE = Patience()


class _InterruptedError(Exception):
    """The connection failed in a way that may pass."""


def download(url: str, target: Path, *, md5: str, patience: Patience = PATIENCE) -> Path:
    """Return `target`, downloaded unless it is there; what arrived of it is kept for the next call.

    Raises:
        DownloadError: the server refuses, cannot be reached, or sends something with another MD5 checksum.
    """
    partial = target.with_name(target.name + ".partial")
    with locked(target.with_name(target.name + ".lock")):
        if not target.exists():
            positions = _persist(url, partial, patience)
            start = next(positions)
            steps = megabytes(done for done, _ in chain([start], positions))
            for _ in track(steps, total=in_megabytes(start[1]), what=f"Downloading {target.name} (MB)"):
                pass
            _check(url, partial, md5)
            partial.replace(target)
    return target


def _check(url: str, path: Path, md5: str) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        path.unlink()
        raise DownloadError(f"{url} sent a file with MD5 {found} instead of {md5}; it was removed: try again later")


def _persist(url: str, partial: Path, patience: Patience) -> Iterator[tuple[int, int]]:
    """Yield (bytes present, bytes in all) while downloading, over as many connections as it takes."""
    failures, furthest = 0, -1
    while True:
        try:
            for present, total in _receive(url, partial, patience.timeout):
                if present > furthest:  # a line that often breaks but gets on is not given up
                    furthest, failures = present, 0
                yield present, total
            return
        except (_InterruptedError, http.client.HTTPException, OSError) as error:
            failures += 1
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        if failures >= patience.attempts:
            remedy = "try again later, or give a local copy with --archive FILE"
            raise DownloadError(f"cannot download {url} ({reason}): {remedy}")
        say(f"download interrupted ({reason}): trying again")
        time.sleep(patience.pause * 2 ** (failures - 1))


def _receive(url: str, partial: Path, timeout: float) -> Iterator[tuple[int, int]]:
    """Yield (bytes present, bytes in all) over one connection, which goes on behind what is there already."""
    present = partial.stat().st_size if partial.exists() else 0
    response = _connect(url, partial, present, timeout)
    if response is None:
        yield present, present
        return
    with response:
        resumed = response.status == http.client.PARTIAL_CONTENT
        present = present if resumed else 0  # a server may ignore the range and send everything
        length = response.headers.get("Content-Length")
        total = present + int(length) if length else 0
        yield present, total
        with partial.open("ab" if resumed else "wb") as stream:
            while block := response.read(BLOCK):
                stream.write(block)
                present += len(block)
                yield present, total
    if present < total:
        raise _InterruptedError(f"the connection closed after {present:,} of {total:,} bytes")


def _connect(url: str, partial: Path, present: int, timeout: float) -> http.client.HTTPResponse | None:
    """The answer to a request for what lies behind `present` bytes; None where nothing does."""
    headers = {"User-Agent": "darkroom", **({"Range": f"bytes={present}-"} if present else {})}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the address is ours, not a user's
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and present:
            if error.headers.get("Content-Range") == f"bytes */{present}":
                return None
            return _start_over(partial, "what was there is longer than the file")
        if error.code >= 500 or error.code in (408, 429):
            raise _InterruptedError(f"the server answers {error.code} {error.msg}") from error
        problem = f"cannot download {url} (it answers {error.code} {error.msg})"
        raise DownloadError(f"{problem}: give a local copy with --archive FILE") from error
    if response.status == http.client.PARTIAL_CONTENT and _range_start(response) != present:
        response.close()
        return _start_over(partial, "the server sent another part than was asked for")
    return response


def _start_over(partial: Path, reason: str) -> NoReturn:
    partial.unlink()
    raise _InterruptedError(reason)


def _range_start(response: http.client.HTTPResponse) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None
