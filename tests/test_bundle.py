"""The deployable folder: whole or refused."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import bundles
from darkroom import bundle as bundle_module
from darkroom.bundle import Bundle, BundleInfo, Golden, write_bundle
from darkroom.errors import BundleError
from darkroom.preprocess import Preprocessing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundles.make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def refusal(folder: Path) -> str:
    """The one line with which a bundle is refused."""
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def resign(folder: Path, **changes: object) -> None:
    """Rewrite bundle.json with `changes` and a hash that fits, as a forger or another version would."""
    path = folder / "bundle.json"
    content = {**json.loads(path.read_text()), **changes}
    del content["sha256"]
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def test_what_was_written_is_what_opens(folder: Path) -> None:
    opened = Bundle.open(folder)
    expected = bundles.bundle_info()
    assert dataclasses.replace(opened.info, files={}) == expected
    assert opened.model.read_bytes() == bundles.colour_model()
    golden = bundles.golden()
    assert opened.golden.encoded == golden.encoded
    np.testing.assert_array_equal(opened.golden.pixels, golden.pixels)
    np.testing.assert_array_equal(opened.golden.probabilities, golden.probabilities)
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "golden.npz", "model.onnx"]
    opened.check_preprocessing()


def test_class_names_of_any_script_survive(tmp_path: Path) -> None:
    classes = ("größe", "猫", 'quote"d', "a\\b", "🙂")
    assert bundles.make_bundle(tmp_path / "b", classes=classes).info.classes == classes
    assert Bundle.open(tmp_path / "b").info.classes == classes


def test_the_same_bundle_is_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    bundles.make_bundle(tmp_path / "again")
    for name in ("bundle.json", "golden.npz", "model.onnx"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("name", ["bundle.json", "model.onnx", "golden.npz"])
def test_a_changed_byte_anywhere_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    original = path.read_bytes()
    step = 7 if name == "bundle.json" else max(1, len(original) // 40)
    for place in [*range(0, len(original), step), len(original) - 1]:
        for change in (1, 32):
            path.write_bytes(original[:place] + bytes([original[place] ^ change]) + original[place + 1 :])
            assert name in refusal(folder), place
    path.write_bytes(original)
    Bundle.open(folder)


@pytest.mark.parametrize(
    "change", [lambda text: text + "\n", lambda text: text[:-1], lambda text: text.replace(" ", "")]
)
def test_white_space_is_part_of_the_bytes(folder: Path, change) -> None:
    path = folder / "bundle.json"
    path.write_text(change(path.read_text()))
    assert "changed after the export" in refusal(folder)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_cut_and_missing_files_are_named(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{name} was changed after the export" in refusal(folder)
    path.unlink()
    assert f"{name} is missing" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"format": 1}', b"\xff\xfe", b"[" * 100_000])
def test_anything_else_in_place_of_the_description_is_refused(folder: Path, content: bytes) -> None:
    (folder / "bundle.json").write_bytes(content)
    assert "bundle.json" in refusal(folder)


def test_what_is_not_a_bundle_is_told_so(tmp_path: Path) -> None:
    assert "is not a bundle" in refusal(tmp_path)
    assert "darkroom export" in refusal(tmp_path / "missing")


@pytest.mark.parametrize(
    ("version", "remedy"), [(2, "upgrade darkroom"), (0, "darkroom export"), ("x", "darkroom export")]
)
def test_other_versions_say_what_to_do(folder: Path, version: object, remedy: str) -> None:
    resign(folder, format=version)
    assert remedy in refusal(folder)


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a/../../b", "..", ".", "a\\b", "c:d", "a//b", ""])
def test_names_do_not_lead_out_of_the_folder(folder: Path, name: str) -> None:
    files = json.loads((folder / "bundle.json").read_text())["files"]
    resign(folder, files={**files, name: "0" * 64})
    assert "lies outside" in refusal(folder)


def test_every_listed_file_is_verified(folder: Path) -> None:
    files = json.loads((folder / "bundle.json").read_text())["files"]
    (folder / "saved_model").mkdir()
    extra = folder / "saved_model" / "model.pb"
    extra.write_bytes(b"graph")
    resign(folder, files={**files, "saved_model/model.pb": hashlib.sha256(b"graph").hexdigest()})
    Bundle.open(folder)
    extra.write_bytes(b"other")
    assert "model.pb was changed" in refusal(folder)


def test_unlisted_model_is_refused(folder: Path) -> None:
    files = json.loads((folder / "bundle.json").read_text())["files"]
    del files["model.onnx"]
    resign(folder, files=files)
    assert "model.onnx" in refusal(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ["a", "a", "b", "c", "d"]},
        {"classes": []},
        {"classes": None},
        {"temperature": 0},
        {"temperature": "hot"},
        {"threshold": 2},
        {"preprocessing": {"width": 3}},
        {"files": ["model.onnx"]},
        {"classes": ["only", "four", "of", "five"]},
    ],
)
def test_nonsense_with_a_fitting_hash_is_refused(folder: Path, changes: dict[str, object]) -> None:
    resign(folder, **changes)
    refusal(folder)


def test_preprocessing_that_differs_is_refused(tmp_path: Path) -> None:
    stretched = Preprocessing(24, 16, interpolation="nearest")
    bundle = bundles.make_bundle(tmp_path / "b", preprocessing=stretched)
    with pytest.raises(BundleError, match="golden picture 1 is prepared differently"):
        bundle.check_preprocessing()


def test_a_lossless_picture_must_match_exactly_and_a_lossy_one_nearly(tmp_path: Path) -> None:
    for kind, fits in (("PNG", False), ("JPEG", True)):
        examples = bundles.golden([bundles.encoded((200, 90, 40), kind)])
        examples.pixels[0, 3, 5, 1] += 1
        bundle = bundles.make_bundle(tmp_path / kind, examples=examples)
        if fits:
            bundle.check_preprocessing()
        else:
            with pytest.raises(BundleError, match="prepared differently"):
                bundle.check_preprocessing()


def test_golden_picture_that_this_machine_cannot_read_is_refused(tmp_path: Path) -> None:
    good = bundles.golden([bundles.encoded((200, 90, 40))])
    bundle = bundles.make_bundle(tmp_path / "b", examples=dataclasses.replace(good, encoded=(b"no picture",)))
    with pytest.raises(BundleError, match="cannot be read here"):
        bundle.check_preprocessing()


@pytest.mark.parametrize(
    "change",
    [
        {"encoded": ()},
        {"encoded": (b"x",) * 11},
        {"pixels": np.zeros((3, 8, 8, 3), np.uint8)},
        {"logits": np.zeros((3, 2), np.float32)},
        {"probabilities": np.zeros((3, 5), np.float64)},
    ],
)
def test_golden_of_a_wrong_form_is_never_written(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        bundles.make_bundle(tmp_path / "b", examples=dataclasses.replace(bundles.golden(), **change))
    assert list(tmp_path.iterdir()) == []


def test_pickles_are_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    np.savez(path, encoded=np.array([object()]), offsets=np.array([0]))
    with pytest.raises(BundleError, match="cannot be read"):
        Golden.read(path)


def test_a_new_bundle_replaces_an_old_one(folder: Path) -> None:
    bundles.make_bundle(folder, name="newer")
    assert Bundle.open(folder).info.name == "newer"
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_the_graph_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(bundles.colour_model())
    write_bundle(tmp_path / "b", info=bundles.bundle_info(), onnx=tmp_path / "graph.onnx", golden=bundles.golden())
    assert Bundle.open(tmp_path / "b").model.read_bytes() == bundles.colour_model()


@pytest.mark.parametrize("moment", ["_fill", "open", "rename"])
def test_an_interrupted_write_leaves_the_old_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    rename = Path.rename

    def interrupt_putting_in_place(path: Path, target: Path) -> Path:
        if ".new." in path.name:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        if moment == "_fill":
            patch.setattr(bundle_module.files, "write_text", interrupt)
        elif moment == "open":
            patch.setattr(Bundle, "open", interrupt)
        else:
            patch.setattr(Path, "rename", interrupt_putting_in_place)
        with pytest.raises(KeyboardInterrupt):
            bundles.make_bundle(folder, name="newer")
    assert Bundle.open(folder).info.name == "colours"
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_nothing_foreign_is_deleted(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"notes\.txt"):
        bundles.make_bundle(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BundleError, match="is a file"):
        bundles.make_bundle(tmp_path / "file")


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    bundles.make_bundle(tmp_path / "b")
    Bundle.open(tmp_path / "b")


def test_a_moved_bundle_still_opens(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    assert Bundle.open(tmp_path / "elsewhere" / "copy").info == BundleInfo.read(folder / "bundle.json")
