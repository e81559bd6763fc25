"""Folders of the cache that are whole or absent, and safe to share between processes."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from darkroom.errors import DataError
from darkroom.progress import say

MEGABYTE = 2**20
POLL_SECONDS = 0.1


def build_folder(folder: Path, fill: Callable[[Path], None], *, resume: bool = False) -> Path:
    """Return `folder`; if missing, `fill` a folder beside it, under a lock, and rename that into place.

    What an interruption left is filled further with `resume`, thrown away without. Raises `DataError` on a full disk.
    """
    if folder.is_dir():
        return folder
    partial = folder.with_name(folder.name + ".partial")
    try:
        with locked(folder.with_name(folder.name + ".lock")):
            if not folder.is_dir():
                _fill(partial, fill, resume)
                partial.rename(folder)
    except OSError as error:
        raise DataError(f"cannot write to the cache {folder.parent}: {error.strerror or error}") from error
    return folder


def reopen_folder(folder: Path) -> None:
    """Let the next `build_folder` with `resume` fill `folder` again, keeping what is in it."""
    partial = folder.with_name(folder.name + ".partial")
    with locked(folder.with_name(folder.name + ".lock")):
        if folder.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
            folder.rename(partial)


def _fill(partial: Path, fill: Callable[[Path], None], resume: bool) -> None:
    if not resume:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    try:
        fill(partial)
    except Exception:  # not an interruption: what is there is of no use, and may fill the disk
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if hasattr(os, "sync"):
        os.sync()  # once for all files: after a power cut the final name must not stand for half the content


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on `path` against other processes; the system releases it even after a kill.

    Without `wait`, raises `BlockingIOError` where another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        waiting = False
        while not _try_lock(stream.fileno()):
            if not wait:
                raise BlockingIOError(f"{path} is held by another process")
            if not waiting:
                say(f"waiting for another darkroom that holds {path}")
                waiting = True
            time.sleep(POLL_SECONDS)
        if not wait and not path.exists():  # its holder has just deleted it: whoever comes next would lock a new file
            raise BlockingIOError(f"{path} was held by another process")
        yield


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: going on beats not working at all
            return True
        return True


def megabytes(positions: Iterable[int]) -> Iterator[int]:
    """Turn growing positions in bytes into one item a megabyte, which is what a progress bar counts."""
    shown, position = 0, 0
    for position in positions:
        while shown + MEGABYTE <= position:
            shown += MEGABYTE
            yield shown
    if position > shown:
        yield position


def in_megabytes(size: int) -> int:
    """Number of items that `megabytes` yields for `size` bytes."""
    return -(-size // MEGABYTE)
