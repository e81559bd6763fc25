"""From what the user typed to decoded pictures, and back from a run folder."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from darkroom.config import DataConfig
from darkroom.data.dataset import PHOTO, DataSet, leaks, prepare, reopen, suitable_size
from darkroom.data.manifest import Manifest, Row
from darkroom.errors import DataError, RunError
from darkroom.files import sha256_of
from darkroom.preprocess import load
from darkroom.runs import Run
from finished import CLASSES, PICTURES_A_CLASS, UNREADABLE, Finished, draw_blobs
from pictures import encoded, noisy, write_class_folders


def prepared(folder: Path, *, pictures: int = 12) -> tuple[DataSet, Run, DataConfig]:
    """A data set of its own with the run folder that `reopen` reads."""
    draw_blobs(folder / "blobs", pictures=pictures)
    config = DataConfig(cache=folder / "cache")
    dataset = prepare(str(folder / "blobs"), config)
    return dataset, begun(dataset, folder / "run"), config


def begun(dataset: DataSet, folder: Path) -> Run:
    """What `reopen` reads of a run."""
    run = Run(folder)
    dataset.manifest.write(run.manifest)
    data = {**dataset.to_json(), "manifest_sha256": sha256_of(run.manifest)}
    run.write_config({"data": data, "training": {}, "network": {}})
    return run


def assert_same(left: DataSet, right: DataSet) -> None:
    """The same pictures, in the same order, with the same names."""
    np.testing.assert_array_equal(left.pixels, right.pixels)
    for name in ("argument", "name", "preprocessing"):
        assert getattr(left, name) == getattr(right, name)
    assert replace(left.manifest, root=Path()) == replace(right.manifest, root=Path())


def test_prepared_pixels_are_those_of_the_contract(finished_run: Finished) -> None:
    dataset = finished_run.dataset()
    assert dataset.manifest.classes == CLASSES, "natural order"
    assert len(dataset.manifest.rows) == len(CLASSES) * PICTURES_A_CLASS
    for id in (0, 77, 179):
        np.testing.assert_array_equal(dataset.pixels[id], load(dataset.manifest.path(id), dataset.preprocessing))


def test_the_user_is_told_what_was_found_and_what_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, _, _ = prepared(tmp_path)
    said = capsys.readouterr().err
    assert "blobs: 36 pictures of 3 classes" in said
    assert f"  {UNREADABLE}: " in said
    assert [name for name, _ in dataset.manifest.unreadable] == [UNREADABLE]


def test_many_unreadable_pictures_do_not_fill_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_blobs(tmp_path / "blobs", pictures=12)
    for number in range(30):
        (tmp_path / "blobs" / CLASSES[0] / f"bad-{number}.png").write_bytes(b"no picture")
    dataset = prepare(str(tmp_path / "blobs"), DataConfig(cache=tmp_path / "cache"))
    said = capsys.readouterr().err
    assert "left out, because unreadable: 31" in said
    assert "11 more" in said
    assert said.count("bad-") == 20
    assert len(dataset.to_json()["unreadable"]) == 31


@pytest.mark.parametrize(
    ("size", "expected"), [((24, 16), 16), ((5, 4), 8), ((64, 90), 64), ((65, 300), PHOTO), ((8, 8), 8)]
)
def test_size_follows_the_shorter_side(tmp_path: Path, size: tuple[int, int], expected: int) -> None:
    write_class_folders(tmp_path / "data", size=size, pictures=4)
    dataset = prepare(str(tmp_path / "data"), DataConfig(cache=tmp_path / "cache"))
    assert dataset.pixels.shape[1:] == (expected, expected, 3)
    assert suitable_size(dataset.manifest) == expected


def test_size_does_not_follow_the_part_that_is_trained_on() -> None:
    pictures = (("train", 16), ("unused", 40), ("unused", 40), ("validation", 64), ("test", 64), ("test", 64))
    rows = tuple(
        Row(place, f"{place}.png", "cat", split, "0" * 64, side, side, place)
        for place, (split, side) in enumerate(pictures)
    )
    manifest = Manifest(Path(), ("cat",), rows, "")
    assert suitable_size(manifest) == 40


def test_a_size_that_was_given_is_kept(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "data", pictures=4)
    dataset = prepare(str(tmp_path / "data"), DataConfig(cache=tmp_path / "cache", image_size=10))
    assert (dataset.preprocessing.width, dataset.preprocessing.height) == (10, 10)


def test_reopening_gives_the_same(tmp_path: Path) -> None:
    dataset, run, config = prepared(tmp_path)
    assert_same(reopen(run, config), dataset)


def test_reopening_without_the_cache_decodes_again(tmp_path: Path) -> None:
    dataset, run, config = prepared(tmp_path)
    pixels = np.array(dataset.pixels)
    shutil.rmtree(config.cache)
    again = reopen(run, config)
    np.testing.assert_array_equal(again.pixels, pixels)
    assert (config.cache / "pixels").is_dir()


def test_an_archive_whose_unpacked_files_are_gone_is_unpacked_again(tmp_path: Path) -> None:
    draw_blobs(tmp_path / "blobs", pictures=12)
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "blobs")
    config = DataConfig(cache=tmp_path / "cache")
    dataset = prepare(archive, config)
    run = begun(dataset, tmp_path / "run")
    pixels = np.array(dataset.pixels)
    shutil.rmtree(config.cache)
    elsewhere = DataConfig(cache=tmp_path / "another cache")
    again = reopen(run, elsewhere)
    np.testing.assert_array_equal(again.pixels, pixels)
    assert again.manifest.path(0).is_file()
    assert again.manifest.root.is_relative_to(elsewhere.cache)


def test_data_that_has_moved_away_is_said_in_a_line(tmp_path: Path) -> None:
    _, run, config = prepared(tmp_path)
    (tmp_path / "blobs").rename(tmp_path / "moved")
    with pytest.raises(RunError, match=r"no longer at .*blobs: put them back") as caught:
        reopen(run, config)
    assert "\n" not in str(caught.value)


def test_other_data_in_its_place_is_said_in_a_line(tmp_path: Path) -> None:
    _, run, config = prepared(tmp_path)
    (tmp_path / "blobs").rename(tmp_path / "moved")
    write_class_folders(tmp_path / "blobs")
    with pytest.raises(RunError, match=r"holds others: put .* back as it was"):
        reopen(run, config)


def test_a_picture_that_changed_is_not_decoded(tmp_path: Path) -> None:
    dataset, run, config = prepared(tmp_path)
    changed = dataset.manifest.path(5)
    changed.write_bytes(encoded(noisy(12, 12)))
    shutil.rmtree(config.cache)
    with pytest.raises(DataError, match="has changed since it was inspected") as caught:
        reopen(run, config)
    assert str(changed) in str(caught.value)


def test_a_picture_that_changed_does_not_change_what_was_cached(tmp_path: Path) -> None:
    """The run's own pixels stay valid: they carry the hash of the picture as it was."""
    dataset, run, config = prepared(tmp_path)
    pixels = np.array(dataset.pixels)
    dataset.manifest.path(5).write_bytes(encoded(noisy(12, 12)))
    np.testing.assert_array_equal(reopen(run, config).pixels, pixels)


def test_a_run_without_its_manifest_is_said_in_a_line(tmp_path: Path) -> None:
    _, run, config = prepared(tmp_path)
    run.manifest.unlink()
    with pytest.raises(RunError, match=r"manifest.csv is missing"):
        reopen(run, config)


def test_nothing_of_the_users_is_written(tmp_path: Path) -> None:
    draw_blobs(tmp_path / "blobs", pictures=12)
    before = {path: path.read_bytes() for path in sorted((tmp_path / "blobs").rglob("*")) if path.is_file()}
    prepare(str(tmp_path / "blobs"), DataConfig(cache=tmp_path / "cache"))
    after = {path: path.read_bytes() for path in sorted((tmp_path / "blobs").rglob("*")) if path.is_file()}
    assert before == after


def test_fingerprint_and_counts_are_written_down(finished_run: Finished) -> None:
    content = finished_run.run.read_config()["data"]
    manifest: Manifest = finished_run.dataset().manifest
    assert content["fingerprint"] == manifest.fingerprint
    assert content["counts"] == manifest.counts()
    assert sum(sum(split.values()) for split in content["counts"].values()) == len(manifest.rows)


def test_an_edited_split_is_refused(finished_run: Finished, tmp_path: Path) -> None:
    copied = finished_run.copy(tmp_path / "run")
    text = copied.run.manifest.read_text()
    copied.run.manifest.write_text(text.replace(",test,", ",train,", 1))
    with pytest.raises(RunError, match="was changed after the run began"):
        copied.dataset()


def test_leaks_of_a_given_split_and_ignored_files_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_blobs(tmp_path / "data" / "train", pictures=12)
    draw_blobs(tmp_path / "data" / "test", pictures=4)  # the same seed: copies of the first of train
    (tmp_path / "data" / "train" / "notes.txt").write_text("of mine")
    dataset = prepare(str(tmp_path / "data"), DataConfig(cache=tmp_path / "cache"))
    assert leaks(dataset.manifest) >= 4
    told = capsys.readouterr().err
    assert f"leaks: {leaks(dataset.manifest)} training pictures" in told
    assert f"ignored: {len(dataset.ignored)} files or folders" in told
    assert dataset.to_json()["ignored"] == list(dataset.ignored)


def test_a_split_of_ours_leaks_nothing(finished_run: Finished) -> None:
    assert leaks(finished_run.dataset().manifest) == 0
