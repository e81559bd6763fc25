"""Every form of DATA: what becomes a picture, a class, a split; what is left out; what is refused."""

import hashlib
import os
import shutil
import unicodedata
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from darkroom.config import DataConfig
from darkroom.data.pictures import bitmap
from darkroom.data.sources import Source, natural_order, open_source
from darkroom.errors import DarkroomError, UsageError

ITALIAN = ["cane", "cavallo", "elefante", "farfalla", "gallina", "gatto", "mucca", "pecora", "ragno", "scoiattolo"]


def draw(folder: Path, *names: str) -> Path:
    """Make a set of files; a source reads names only, so that a byte of content is enough."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def read(data: Path | str, **settings: object) -> Source:
    cache = Path(data).parent / "cache" if isinstance(data, Path) else Path("/nonexistent")
    return open_source(str(data), DataConfig(**{"cache": cache, **settings}))


def labels(source: Source) -> dict[str, str]:
    return {picture.name: picture.label for picture in source.pictures}


def refusal(data: Path | str, **settings: object) -> str:
    with pytest.raises(DarkroomError) as caught:
        read(data, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_class_folders(tmp_path: Path) -> None:
    source = read(draw(tmp_path / "pets", "cats/10.jpg", "cats/9.jpg", "cats/tabby/1.png", "dogs/1.jpg"))
    assert source.name == "pets"
    assert source.classes == ("cats", "dogs")
    assert list(labels(source).items()) == [
        ("cats/9.jpg", "cats"),
        ("cats/10.jpg", "cats"),
        ("cats/tabby/1.png", "cats"),
        ("dogs/1.jpg", "dogs"),
    ]
    assert {picture.split for picture in source.pictures} == {None}
    assert source.pictures[0].path == source.root / "cats/9.jpg"
    assert source.pictures[0].path.is_absolute()
    assert source.ignored == ()


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    assert read(draw(tmp_path / "set", *(f"{name}/a.jpg" for name in ("10", "1", "2")))).classes == ("1", "2", "10")


@given(st.lists(st.text(st.sampled_from("01a9/-é²"), min_size=1, max_size=6), unique=True))
def test_order_does_not_depend_on_what_was_found_first(names: list[str]) -> None:
    assert natural_order(names) == natural_order(reversed(names))
    assert sorted(names) == sorted(natural_order(names))


def test_natural_order_counts() -> None:
    names = [f"{folder}/{number}" for folder in ("a", "a-1", "b2", "b10") for number in range(12)]
    assert natural_order(reversed(names)) == names
    assert all(first != second for first, second in pairwise(natural_order(["01", "1", "001"])))


@pytest.mark.parametrize("validation", [None, "val", "Valid", "VALIDATION"])
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "TEST"), ("training_set", "test_set")])
def test_given_splits(tmp_path: Path, train: str, test: str, validation: str | None) -> None:
    given_splits = {train: "train", test: "test", **({validation: "validation"} if validation else {})}
    files = [f"{split}/{name}/1.jpg" for split in given_splits for name in ("cats", "dogs")]
    source = read(draw(tmp_path / "set", *files))
    assert source.classes == ("cats", "dogs")
    assert {picture.name.split("/")[0]: picture.split for picture in source.pictures} == given_splits


def test_train_and_validation_without_test(tmp_path: Path) -> None:
    source = read(draw(tmp_path / "set", "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "val/b/2.jpg"))
    assert [picture.split for picture in source.pictures] == ["train", "train", "validation", "validation"]


def test_a_class_missing_from_a_split_shifts_nothing(tmp_path: Path) -> None:
    source = read(draw(tmp_path / "set", "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "test/c/2.jpg"))
    assert source.classes == ("a", "b", "c")
    assert labels(source)["test/c/2.jpg"] == "c"


def test_splits_wrapped_as_on_kaggle(tmp_path: Path) -> None:
    files = [f"{split}/{split}/{name}/1.jpg" for split in ("training_set", "test_set") for name in ("cats", "dogs")]
    source = read(draw(tmp_path / "set", *files, "training_set/training_set/_DS_Store.txt"))
    assert source.classes == ("cats", "dogs")
    assert {picture.split for picture in source.pictures} == {"train", "test"}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    source = read(draw(tmp_path / "set", "train/1.jpg", "bus/1.jpg", "car/1.jpg"))
    assert source.classes == ("bus", "car", "train")
    assert {picture.split for picture in source.pictures} == {None}


def test_other_folders_beside_splits_are_left_out_by_name(tmp_path: Path) -> None:
    source = read(draw(tmp_path / "set", "train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg", "test/3.jpg", "extra/1.jpg"))
    assert source.classes == ("a", "b")
    assert source.ignored == ("extra/1.jpg: outside the class folders", "test/3.jpg: outside the class folders")


def test_wrapping_folders_are_gone_through(tmp_path: Path) -> None:
    folder = draw(tmp_path / "set", "Data/Images/a/1.jpg", "Data/Images/b/1.jpg", "Data/Labels/1.xml", "readme.md")
    source = read(folder)
    assert source.classes == ("a", "b")
    assert source.root == folder / "Data" / "Images"
    assert list(labels(source)) == ["a/1.jpg", "b/1.jpg"]


def test_housekeeping_is_no_class_and_no_picture(tmp_path: Path) -> None:
    hidden = [
        *(".ipynb_checkpoints/1.jpg", "__MACOSX/a/._1.jpg", "__pycache__/1.jpg", "a/.ipynb_checkpoints/2.jpg"),
        *("a/.DS_Store", "a/._1.jpg", "a/Thumbs.db", "b/desktop.ini", "@eaDir/1.jpg"),
    ]
    others = ["labels.csv", "a/notes.TXT", "b/model.pt"]
    folder = draw(tmp_path / "set", "wrapper/a/1.jpg", "wrapper/b/1.jpg")
    draw(folder / "wrapper", *hidden, *others)
    draw(folder, "__MACOSX/wrapper/._a")
    source = read(folder)
    assert source.classes == ("a", "b")
    assert list(labels(source)) == ["a/1.jpg", "b/1.jpg"]
    left_out = {line.partition(":")[0] for line in source.ignored}
    assert {f"wrapper/{name}" for name in others} < left_out
    assert {"wrapper/.ipynb_checkpoints", "wrapper/a/Thumbs.db", "wrapper/a/._1.jpg", "__MACOSX"} < left_out
    assert "wrapper/a/notes.TXT: not a picture (.txt)" in source.ignored


def test_pictures_with_odd_extensions_are_kept(tmp_path: Path) -> None:
    odd = ["a/none", "a/1.jpg_large", "a/2.jfif", "a/3.JPG", "b/photo.2024-01-01"]
    assert set(labels(read(draw(tmp_path / "set", *odd)))) == set(odd)


def test_empty_class_folders_are_no_classes(tmp_path: Path) -> None:
    folder = draw(tmp_path / "set", "a/1.jpg", "b/1.jpg")
    (folder / "c" / "d").mkdir(parents=True)
    source = read(folder)
    assert source.classes == ("a", "b")
    assert source.ignored == ("c: no pictures inside",)


def test_labels_are_in_one_unicode_form(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "café")
    source = read(draw(tmp_path / "set", f"train/{decomposed}/1.jpg", "test/café/2.jpg", "train/tea/1.jpg"))
    assert source.classes == ("café", "tea")
    assert all(picture.path.exists() for picture in source.pictures)


def test_links_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    elsewhere = draw(tmp_path / "elsewhere", "1.jpg", "2.jpg")
    folder = draw(tmp_path / "set", "a/1.jpg")
    (folder / "b").symlink_to(elsewhere)
    (folder / "a" / "2.jpg").symlink_to(elsewhere / "2.jpg")
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "a" / "self").symlink_to("self")
    (folder / "a" / "broken.jpg").symlink_to("nowhere")
    source = read(folder)
    assert list(labels(source)) == ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"]
    assert [line.partition(":")[0] for line in source.ignored] == ["a/broken.jpg", "a/loop", "a/self"]


def test_names_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    folder = draw(tmp_path / "set", "a/1.jpg", "b/1.jpg")
    try:
        Path(os.fsdecode(os.fsencode(folder / "a") + b"/\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only valid names")
    source = read(folder)
    assert list(labels(source)) == ["a/1.jpg", "b/1.jpg"]
    assert source.ignored == ("a/\ufffd.jpg: a name that is not valid text: rename it",)


def test_the_users_folder_is_left_as_it_was(tmp_path: Path) -> None:
    folder = draw(tmp_path / "set", "a/1.jpg", "b/1.jpg")
    before = sorted(folder.rglob("*"))
    read(folder)
    assert sorted(folder.rglob("*")) == before
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("form", ["zip", "tar", "gztar", "bztar", "xztar"])
def test_archives_read_like_their_folders(tmp_path: Path, form: str) -> None:
    folder = draw(tmp_path / "pets.v2", "cats/1.jpg", "dogs/1.jpg")
    archive = Path(shutil.make_archive(str(folder), form, tmp_path, "pets.v2"))
    source = read(archive)
    assert source.name == "pets.v2"
    assert labels(source) == labels(read(folder))
    assert [picture.path.read_bytes() for picture in source.pictures] == [b"cats/1.jpg", b"dogs/1.jpg"]


@pytest.mark.parametrize("wrapper", ["raw-img", "Animals-10/raw-img", "."])
def test_animals10_in_english(tmp_path: Path, wrapper: str) -> None:
    folder = draw(tmp_path / "set", *(f"{wrapper}/{name}/1.jpeg" for name in ITALIAN), "translate.py")
    english = ["butterfly", "cat", "chicken", "cow", "dog", "elephant", "horse", "sheep", "spider", "squirrel"]
    source = read(folder)
    assert list(source.classes) == english
    assert labels(source)["cane/1.jpeg"] == "dog"
    named = open_source("animals10", DataConfig(archive=folder, cache=tmp_path / "cache"))
    assert (named.name, named.pictures, named.classes) == ("animals10", source.pictures, source.classes)
    archive = Path(shutil.make_archive(str(folder), "zip", folder))
    assert labels(open_source("animals10", DataConfig(archive=archive, cache=tmp_path / "cache"))) == labels(source)


def test_some_italian_names_alone_stay_italian(tmp_path: Path) -> None:
    assert read(draw(tmp_path / "set", "cane/1.jpg", "gatto/1.jpg")).classes == ("cane", "gatto")
    assert read(draw(tmp_path / "raw-img", "cane/1.jpg", "gatto/1.jpg")).classes == ("cat", "dog")


def test_animals10_needs_its_archive(tmp_path: Path) -> None:
    assert "kaggle.com" in refusal("animals10")
    assert "--archive" in refusal("animals10")
    folder = draw(tmp_path / "set", "cats/1.jpg", "dogs/1.jpg")
    assert "not Animals-10: it holds the class 'cats'" in refusal("animals10", archive=folder)
    assert "does not exist" in refusal("animals10", archive=tmp_path / "nowhere.zip")


def test_archive_goes_with_named_sets_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not with digits"):
        open_source("digits", DataConfig(archive=tmp_path, cache=tmp_path))


def test_digits_are_written_once(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    (tmp_path / "digits.partial" / "rest").mkdir(parents=True)  # of an interrupted run
    source = open_source("digits", DataConfig(cache=tmp_path))
    assert source.classes == tuple("0123456789")
    content = load_digits()
    assert len(source.pictures) == len(content.target) == 1797
    for picture in source.pictures[::50]:
        number = int(picture.path.stem)
        assert int(picture.label) == content.target[number]
        expected = [[round(value * 255 / 16) for value in row] for row in content.images[number]]
        np.testing.assert_array_equal(np.asarray(Image.open(picture.path)), expected)
    written = {picture.path: picture.path.stat().st_mtime_ns for picture in source.pictures}
    again = open_source("digits", DataConfig(cache=tmp_path))
    assert again == source
    assert {picture.path: picture.path.stat().st_mtime_ns for picture in again.pictures} == written


def test_bitmaps_have_the_same_bytes_everywhere() -> None:
    pixels = np.arange(192, dtype=np.uint8)
    digests = [hashlib.sha256(bitmap(pixels.reshape(shape))).hexdigest()[:16] for shape in ((16, 12), (8, 8, 3))]
    assert digests == ["2b8d56306a3dc626", "230ab7b3b66e1d4c"]  # of the fingerprint of digits and cifar10


HELP = "expected a folder for each class"


def test_layouts_that_are_refused(tmp_path: Path) -> None:
    assert HELP in refusal(draw(tmp_path / "flat", "1.jpg", "2.jpg"))
    assert "no class folders" in refusal(tmp_path / "flat")
    assert "one class only ('cats')" in refusal(draw(tmp_path / "one", "cats/1.jpg", "cats/2.jpg"))
    assert "one class only" in refusal(draw(tmp_path / "splits", "train/cats/1.jpg", "test/cats/1.jpg"))
    assert "no pictures" in refusal(draw(tmp_path / "texts", "a/1.txt", "b/2.txt"))
    assert "no class folders" in refusal(draw(tmp_path / "unsorted", "train/1.jpg", "test/2.jpg", "val/3.jpg"))
    assert "no train/" in refusal(draw(tmp_path / "no-train", "val/a/1.jpg", "val/b/1.jpg", "test/a/1.jpg"))
    several = draw(tmp_path / "several", "train/a/1.jpg", "training/b/1.jpg", "test/a/2.jpg")
    assert "several folders for one split: train, training" in refusal(several)
    (tmp_path / "empty").mkdir()
    assert "no pictures" in refusal(tmp_path / "empty")


def test_paths_that_are_refused(tmp_path: Path) -> None:
    draw(tmp_path, "flowers/a/1.jpg", "photo.jpg")
    assert refusal(tmp_path / "flower").endswith("does not exist: did you mean flowers?")
    assert "did you mean cifar10?" in refusal("cifar-10")
    assert "one of digits, cifar10, animals10" in refusal(tmp_path / "zzz" / "qqq")
    assert "neither a folder nor" in refusal(tmp_path / "photo.jpg")
    draw(tmp_path, "broken.zip")
    assert "not a .zip or .tar" in refusal(tmp_path / "broken.zip")


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root may read everything")
def test_a_locked_folder_is_said(tmp_path: Path) -> None:
    folder = draw(tmp_path / "set", "a/1.jpg", "b/1.jpg")
    (folder / "a").chmod(0)
    assert "Permission denied" in refusal(folder)
    (folder / "a").chmod(0o700)


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a/1.jpg", "x")
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert str(tmp_path / "cache") in refusal(tmp_path / "set.zip")


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    draw(folder, "images/1.jpg", "images/2.jpg", "3.jpg")
    (folder / "set.csv").write_text(text, encoding=encoding)
    return folder / "set.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables(tmp_path: Path, encoding: str, separator: str) -> None:
    text = f"Path,LABEL,note\nimages/2.jpg, cafe\u0301 ,x\n\nimages\\1.jpg,tea,y\n{tmp_path}/3.jpg,tea,z\n"
    source = read(table(tmp_path, text.replace(",", separator), encoding))
    assert source.name == "set"
    assert source.root == tmp_path
    assert source.classes == ("café", "tea")
    assert labels(source) == {"3.jpg": "tea", "images/1.jpg": "tea", "images/2.jpg": "café"}
    assert {picture.split for picture in source.pictures} == {None}
    assert all(picture.path.is_file() for picture in source.pictures)


def test_tables_with_splits_quotes_and_places_outside(tmp_path: Path) -> None:
    draw(tmp_path, "outside, far.jpg")
    text = '"path","label","split"\n"../outside, far.jpg",a,Train\n3.jpg,b,val\nimages/1.jpg,b,test\n./3.jpg,b,valid\n'
    source = read(table(tmp_path / "table", text))
    assert {picture.name: picture.split for picture in source.pictures} == {
        "../outside, far.jpg": "train",
        "3.jpg": "validation",
        "images/1.jpg": "test",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: expected the header path,label[,split]"),
        ("images/1.jpg,a\n3.jpg,b\n", "line 1: expected the header"),
        ("path,label\n", "lists no pictures"),
        ("path,label\n3.jpg,a\n\nimages/9.jpg,b\n", "line 4: no file images/9.jpg"),
        ("path,label\nimages,a\n", "line 2: no file images"),
        ("path,label\n3.jpg\n", "line 2: the label is empty"),
        ("path,label\n3.jpg,  \n", "line 2: the label is empty"),
        ("path,label\n,a\n", "line 2: the path is empty"),
        ("path,label,split\n3.jpg,a,dev\n", "line 2: split is 'dev'"),
        ("path,label,split\n3.jpg,a,train\nimages/1.jpg,b,\n", "line 3: no split"),
        ("path,label\n3.jpg,a\nimages/1.jpg,b\n./3.jpg,b\n", "line 4: 3.jpg has another label than in line 2"),
        ("path,label,split\n3.jpg,a,train\n3.jpg,a,test\n", "line 3: 3.jpg has another split than in line 2"),
        ("path,label\n3.jpg,a\nimages/1.jpg,a\n", "one class only"),
        ('path,label\n"3.jpg"x,a\n', "line 2: not readable as CSV"),
        ("path,label\n3\0.jpg,a\n", "line 2: no"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in refusal(table(tmp_path, text))


def test_tables_in_other_encodings_are_refused(tmp_path: Path) -> None:
    assert "UTF-8" in refusal(table(tmp_path, "path,label\n3.jpg,café\n", "latin-1"))
