"""Files are whole or absent, whatever happens while they are written."""

import hashlib
import json
import math
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom import files


def write_half(path: Path, error: BaseException) -> None:
    """Begin to replace a file, and fail."""
    with files.replacing(path) as temporary:
        temporary.write_bytes(b"half of the n")
        raise error


def test_content_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "notes.txt"
    files.write_text(path, "first, and longer")
    files.write_text(path, "zweite – 猫")
    assert path.read_bytes() == "zweite – 猫".encode()
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    files.write_bytes(path, b"old")
    with pytest.raises(RuntimeError, match="power cut"):
        write_half(path, RuntimeError("power cut"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_no_file_where_there_was_none(tmp_path: Path, kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        write_half(tmp_path / "new.txt", kind())
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    files.write_text(path, "kept")
    with pytest.raises(FileNotFoundError), files.replacing(path):
        pass
    assert path.read_text() == "kept"


def test_the_temporary_file_lies_beside_with_the_same_suffix(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    with files.replacing(path) as temporary:
        assert temporary.parent == path.parent, "a rename across file systems is no rename"
        assert temporary.suffix == ".npz", "numpy would add it"
        assert temporary.name.startswith(".")
        assert not path.exists()
        temporary.write_bytes(b"x")
    assert path.exists()


def test_a_folder_in_the_way_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        files.write_text(tmp_path / "taken", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "ours", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "ours").stat().st_mode & 0o777 == 0o640


def test_of_many_writers_at_once_one_wins_whole(tmp_path: Path) -> None:
    path = tmp_path / "contested"
    contents = [bytes([number]) * 200_000 for number in range(8)]
    seen: list[bytes] = []

    def write(content: bytes) -> None:
        for _ in range(3):
            files.write_bytes(path, content)
            seen.append(path.read_bytes())

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 24, "a writer failed"
    assert set(seen) <= set(contents)
    assert list(tmp_path.iterdir()) == [path]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    path = tmp_path_factory.getbasetemp() / "content.json"
    files.write_json(path, content)
    assert json.loads(path.read_text(encoding="utf-8")) == content


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_no_nan_and_refusing_it_keeps_the_old(tmp_path: Path, value: float) -> None:
    path = tmp_path / "metrics.json"
    files.write_json(path, {"value": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"value": value})
    assert json.loads(path.read_text()) == {"value": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert files.sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()
