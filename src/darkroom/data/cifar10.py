"""CIFAR-10 from its official binary archive (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from darkroom.data.archives import content_hash, forget, unpack
from darkroom.data.downloads import PATIENCE, Patience, download
from darkroom.data.pictures import bitmap
from darkroom.data.storage import build_folder
from darkroom.errors import ArchiveError, DataError
from darkroom.progress import track

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"

SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE  # bytes: a label, then the red, green and blue plane
FOLDER = "cifar-10-batches-bin"
BATCHES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}
FORM = f"the binary archive from {URL}"


def cifar10_folder(
    cache: Path, *, archive: Path | None = None, url: str = URL, md5: str = MD5, patience: Patience = PATIENCE
) -> Path:
    """Folder in `cache` with train/<class>/00001.bmp … and test/…, numbered as in the archive.

    Without `archive`, a local copy whose form is checked, `url` is downloaded and its checksum `md5` is.
    Raises `DownloadError` or `ArchiveError`.
    """
    if archive is not None:
        local = _local(archive.expanduser())
        folder = cache / "cifar10" / content_hash(local, cache)[:32]
        return build_folder(folder, lambda partial: _convert(local, cache, partial))
    folder = cache / "cifar10" / md5
    if folder.is_dir():
        return folder
    fetched = download(url, cache / "downloads" / url.rpartition("/")[2], md5=md5, patience=patience)
    return build_folder(folder, lambda partial: _convert(fetched, cache, partial))


def _local(archive: Path) -> Path:
    if not archive.is_file():
        problem = "is a folder" if archive.is_dir() else "does not exist"
        raise DataError(f"--archive {archive} {problem}: give a file, {FORM}")
    return archive


def _convert(archive: Path, cache: Path, folder: Path) -> None:
    unpacked = unpack(archive, cache)
    try:
        splits = _read(archive, unpacked / FOLDER)
        _write(splits, _class_names(archive, unpacked / FOLDER / "batches.meta.txt"), folder)
    finally:
        forget(unpacked)


def _read(archive: Path, folder: Path) -> dict[str, npt.NDArray[np.uint8]]:
    """Records (N, 3073) of each split, checked."""
    return {
        split: np.concatenate([_read_batch(archive, folder / name) for name in names])
        for split, names in BATCHES.items()
    }


def _read_batch(archive: Path, path: Path) -> npt.NDArray[np.uint8]:
    if not path.is_file():
        raise ArchiveError(f"{archive} holds no {FOLDER}/{path.name}: give {FORM}")
    content = np.fromfile(path, dtype=np.uint8)
    if content.size == 0 or content.size % RECORD:
        problem = f"{path.name} has {content.size} bytes, not whole records of {RECORD}"
        raise ArchiveError(f"{archive}: {problem}: give {FORM}")
    records = content.reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        raise ArchiveError(f"{archive}: {path.name} holds label {records[:, 0].max()}, beyond 9: give {FORM}")
    return records


def _class_names(archive: Path, path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    names = text.split()
    if len(set(names)) != 10 or len(names) != 10 or not all(name.isidentifier() for name in names):
        raise ArchiveError(f"{archive}: {FOLDER}/batches.meta.txt does not name ten classes: give {FORM}")
    return names


def _write(splits: dict[str, npt.NDArray[np.uint8]], names: list[str], folder: Path) -> None:
    for split in splits:
        for name in names:
            (folder / split / name).mkdir(parents=True)
    pictures = _pictures(splits, names)
    total = sum(len(records) for records in splits.values())
    for name, content in track(pictures, total=total, what="Writing CIFAR-10", unit="pictures"):
        (folder / name).write_bytes(content)


def _pictures(splits: dict[str, npt.NDArray[np.uint8]], names: list[str]) -> Iterator[tuple[str, bytes]]:
    for split, records in splits.items():
        planes = records[:, 1:].reshape(-1, 3, SIDE, SIDE)  # (N, channel, row, column)
        for number, (label, picture) in enumerate(zip(records[:, 0], planes, strict=True), start=1):
            yield f"{split}/{names[label]}/{number:05d}.bmp", bitmap(picture.transpose(1, 2, 0))
