"""The pixel cache: right content, decoded once, never trusted when damaged, never left half-written."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from darkroom.data import cache
from darkroom.data.cache import pixels
from darkroom.data.manifest import Manifest, Row
from darkroom.errors import DataError
from darkroom.files import sha256_of
from darkroom.preprocess import Preprocessing, load
from pictures import encoded, noisy, write_class_folders

CONTRACT = Preprocessing(12, 8)


def manifest_of(root: Path) -> Manifest:
    """All pictures below `root`, by path."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    rows = tuple(
        Row(
            id=number,
            path=path.relative_to(root).as_posix(),
            label=path.parent.name,
            split="train",
            sha256=sha256_of(path),
            width=24,
            height=16,
            duplicate_group=number,
        )
        for number, path in enumerate(paths)
    )
    return Manifest(root, tuple(sorted({row.label for row in rows})), rows, fingerprint="")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    write_class_folders(tmp_path / "pictures")
    return manifest_of(tmp_path / "pictures")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "of pixels"


def expected(manifest: Manifest, contract: Preprocessing = CONTRACT) -> np.ndarray:
    return np.stack([load(manifest.path(row.id), contract) for row in manifest.rows])


def stored(folder: Path, suffix: str = ".npy") -> Path:
    """The only file of this suffix; fails if there are others."""
    (path,) = folder.glob(f"*{suffix}")
    return path


def test_rows_are_the_pictures_of_the_manifest(manifest: Manifest, folder: Path) -> None:
    result = pixels(manifest, CONTRACT, folder)
    assert result.shape == (18, 8, 12, 3)
    assert result.dtype == np.uint8
    assert (result == expected(manifest)).all()
    assert isinstance(result, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        result[0, 0, 0, 0] = 1


def test_numpy_opens_the_file(manifest: Manifest, folder: Path) -> None:
    result = pixels(manifest, CONTRACT, folder)
    assert (np.load(stored(folder), mmap_mode="r") == result).all()
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".npy"]


def test_a_second_call_decodes_nothing(manifest: Manifest, folder: Path) -> None:
    first = np.array(pixels(manifest, CONTRACT, folder))
    shutil.rmtree(manifest.root)
    assert (pixels(manifest, CONTRACT, folder) == first).all()


def test_another_contract_or_order_is_another_cache(manifest: Manifest, folder: Path) -> None:
    pixels(manifest, CONTRACT, folder)
    other = Preprocessing(12, 8, interpolation="box")
    assert (pixels(manifest, other, folder) == expected(manifest, other)).all()
    rows = tuple(replace(row, id=number) for number, row in enumerate(reversed(manifest.rows)))
    turned = Manifest(manifest.root, manifest.classes, rows, fingerprint="")
    assert (pixels(turned, CONTRACT, folder) == expected(turned)).all()
    assert len(list(folder.glob("*.npy"))) == 3


def test_pictures_may_move(manifest: Manifest, folder: Path, tmp_path: Path) -> None:
    """The key is what the pictures hold, not where they lie."""
    first = np.array(pixels(manifest, CONTRACT, folder))
    manifest.root.rename(tmp_path / "moved")
    moved = manifest_of(tmp_path / "moved")
    stamp = stored(folder).stat().st_mtime_ns
    assert (pixels(moved, CONTRACT, folder) == first).all()
    assert stored(folder).stat().st_mtime_ns == stamp


def flip_first(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def flip_pixel(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_first, flip_pixel, cut, lengthen, empty, Path.unlink])
@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_damage_is_found_and_mended(manifest: Manifest, folder: Path, damage: object, suffix: str) -> None:
    pixels(manifest, CONTRACT, folder)
    array, sidecar = stored(folder).read_bytes(), json.loads(stored(folder, ".json").read_text())
    damage(stored(folder, suffix))  # type: ignore[operator]
    assert (pixels(manifest, CONTRACT, folder) == expected(manifest)).all()
    assert stored(folder).read_bytes() == array
    assert json.loads(stored(folder, ".json").read_text()) == sidecar
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    "change", [{"key": "0" * 64}, {"shape": [18, 12, 8, 3]}, {"crc32": []}, {"crc32": 5}, {"crc32": None}]
)
def test_a_foreign_sidecar_is_not_trusted(manifest: Manifest, folder: Path, change: dict[str, object]) -> None:
    pixels(manifest, CONTRACT, folder)
    sidecar = stored(folder, ".json")
    whole = sidecar.read_text()
    sidecar.write_text(json.dumps({**json.loads(whole), **change}))
    assert (pixels(manifest, CONTRACT, folder) == expected(manifest)).all()
    assert sidecar.read_text() == whole


def test_a_sidecar_that_is_no_object_is_not_trusted(manifest: Manifest, folder: Path) -> None:
    pixels(manifest, CONTRACT, folder)
    stored(folder, ".json").write_text("[1]")
    assert (pixels(manifest, CONTRACT, folder) == expected(manifest)).all()


def test_many_blocks(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_BLOCK_ROWS", 5)
    assert (pixels(manifest, CONTRACT, folder) == expected(manifest)).all()
    content = bytearray(stored(folder).read_bytes())
    content[-2] ^= 128  # in the last, shorter block
    stored(folder).write_bytes(content)
    assert (pixels(manifest, CONTRACT, folder) == expected(manifest)).all()


def test_other_processes_give_the_same(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_BLOCK_ROWS", 5)
    monkeypatch.setattr(cache, "_FEW_PICTURES", 0)
    assert (pixels(manifest, CONTRACT, folder) == expected(manifest)).all()
    (manifest.root / "class-2" / "5.png").write_bytes(b"changed")
    with pytest.raises(DataError, match=r"5\.png has changed"):
        pixels(manifest, Preprocessing(9, 9), folder)
    assert len(list(folder.iterdir())) == 2


def test_a_changed_picture_is_an_error_and_leaves_nothing(manifest: Manifest, folder: Path) -> None:
    path = manifest.path(7)
    path.write_bytes(encoded(noisy(24, 16, seed=99)))
    with pytest.raises(DataError, match="has changed since it was inspected") as raised:
        pixels(manifest, CONTRACT, folder)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(folder.iterdir())


def test_a_lost_picture_is_an_error_and_leaves_nothing(manifest: Manifest, folder: Path) -> None:
    manifest.path(7).unlink()
    with pytest.raises(DataError, match=r"1\.png can no longer be read \(No such file"):
        pixels(manifest, CONTRACT, folder)
    assert not list(folder.iterdir())


def test_an_undecodable_picture_is_named(manifest: Manifest, folder: Path) -> None:
    manifest.path(3).write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"3\.png cannot be used: not a picture"):
        pixels(manifest_of(manifest.root), CONTRACT, folder)


def test_a_manifest_without_pictures_is_an_error(manifest: Manifest, folder: Path) -> None:
    with pytest.raises(DataError, match="no readable picture"):
        pixels(Manifest(manifest.root, (), (), fingerprint=""), CONTRACT, folder)


def test_a_full_disk_is_one_clear_line(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 99, 1))
    with pytest.raises(DataError, match=r"pixel cache of 0 MB cannot be written to .* \(No space left on device\)"):
        pixels(manifest, CONTRACT, folder)
    assert not list(folder.iterdir())


def test_a_disk_that_fills_up_is_one_clear_line(
    manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "_decode", fail)
    with pytest.raises(DataError, match=r"No space left on device.*--cache"):
        pixels(manifest, CONTRACT, folder)
    assert not list(folder.iterdir())


def test_a_folder_that_is_a_file_is_one_clear_line(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(DataError, match=r"File exists.*--cache"):
        pixels(manifest, CONTRACT, tmp_path / "file")


def test_builders_at_the_same_time_do_not_disturb_each_other(manifest: Manifest, folder: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: pixels(manifest, CONTRACT, folder), range(4)))
    assert all((result == expected(manifest)).all() for result in results)
    assert len(list(folder.iterdir())) == 2


def test_leftovers_of_killed_builders_are_removed(manifest: Manifest, folder: Path) -> None:
    folder.mkdir(parents=True)
    old, young, other = (folder / name for name in (".pixels-a.1.npy", ".pixels-b.2.npy", "mine.npy"))
    for path in (old, young, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    pixels(manifest, CONTRACT, folder)
    assert not old.exists()
    assert young.exists()  # its builder may be at work
    assert other.exists()


BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from darkroom.data import cache
from test_cache import CONTRACT, manifest_of
cache._BLOCK_ROWS = 1
decode = cache._decode
def slow(job):
    print("decoding", flush=True)
    import time
    time.sleep(0.2)
    return decode(job)
cache._decode = slow
cache.pixels(manifest_of(Path({root!r})), CONTRACT, Path({folder!r}))
"""


def test_a_killed_builder_leaves_nothing_that_is_believed(manifest: Manifest, folder: Path) -> None:
    script = BUILD.format(tests=str(Path(__file__).parent), root=str(manifest.root), folder=str(folder))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == b"decoding\n"
        process.send_signal(signal.SIGKILL)
    assert [path.name[0] for path in folder.iterdir()] == ["."]
    assert (pixels(manifest, CONTRACT, folder) == expected(manifest)).all()
