import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.config import DataConfig
from darkroom.data.doctor import Finding, Report, examine
from darkroom.data.inspection import inspect_pictures
from darkroom.data.manifest import build_manifest
from darkroom.data.pictures import Picture, Source
from darkroom.errors import DataError


def scene(seed: int, width: int = 60, height: int = 40) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def healthy(per_class: int = 40, classes: tuple[str, ...] = ("cat", "dog")) -> dict[str, bytes]:
    return {
        f"{label}/{number}.png": encoded(scene(1000 * place + number))
        for place, label in enumerate(classes)
        for number in range(per_class)
    }


def report_of(
    folder: Path, content: dict[str, bytes], *, given: bool = False, ignored: tuple[str, ...] = (), **options: object
) -> Report:
    """Write the files and examine them; `given` takes the first folder of a name as its split."""
    pictures = []
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        pictures.append(Picture(name, path, name.split("/")[-2], name.split("/")[0] if given else None))
    classes = tuple(sorted({picture.label for picture in pictures}))
    source = Source("pets", folder, tuple(pictures), classes, ignored)
    inspections = inspect_pictures(pictures)
    config = DataConfig(**options)  # type: ignore[arg-type]
    try:
        manifest = build_manifest(source, inspections, config)
    except DataError:
        manifest = None
    return examine(source, inspections, manifest, config)


def by_title(report: Report) -> dict[str, Finding]:
    return {finding.title: finding for finding in report.findings}


def test_healthy_data_has_no_findings_and_true_facts(tmp_path: Path) -> None:
    content = healthy()
    report = report_of(tmp_path, content)
    assert report.findings == ()
    assert report.facts == {
        "pictures": 80,
        "readable": 80,
        "bytes": sum(map(len, content.values())),
        "classes": {"cat": 40, "dog": 40},
        "formats": {"PNG": 80},
        "modes": {"RGB": 80},
        "width": {"min": 60, "median": 60, "max": 60},
        "height": {"min": 40, "median": 40, "max": 40},
        "splits": {"train": 56, "validation": 12, "test": 12},
    }
    lines = report.lines()
    assert lines[0] == f"pets: 80 pictures in 2 classes, {report.facts['bytes'] / 1e6:.1f} MB"
    assert lines[-1] == "0 errors, 0 warnings, 0 notes. Nothing was changed."


def oriented(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", exif=exif)


def grey16() -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(5).integers(0, 60000, (40, 60), dtype=np.uint16)))


def animation() -> bytes:
    return encoded(scene(91), "WEBP", save_all=True, append_images=[scene(92)])


ODD_PICTURES = [
    ("cat/broken.png", encoded(scene(90))[:500], "error", "unreadable pictures"),
    ("cat/copy.png", encoded(scene(3)), "note", "groups of identical files"),
    ("cat/again.jpg", encoded(scene(3), "JPEG", quality=80), "note", "groups of near-identical pictures"),
    ("dog/copy.png", encoded(scene(3)), "warning", "identical files with different labels"),
    ("dog/again.webp", encoded(scene(3), "WEBP"), "warning", "near-identical pictures with different labels"),
    ("cat/misnamed.jpg", encoded(scene(93)), "note", "names that do not fit the content"),
    ("cat/turned.jpg", oriented(scene(94), 6), "note", "pictures that their EXIF data turn"),
    ("cat/clear.png", encoded(scene(95).convert("RGBA")), "note", "transparent pictures"),
    ("cat/print.jpg", encoded(scene(96).convert("CMYK"), "JPEG"), "note", "CMYK pictures"),
    ("cat/deep.png", grey16(), "note", "pictures of more than 8 bits"),
    ("cat/moving.webp", animation(), "note", "animations and files of several pages"),
    ("cat/banner.png", encoded(scene(97, 150, 50)), "note", "elongated pictures"),
    ("cat/huge.png", encoded(Image.new("1", (8000, 7000))), "note", "very large pictures"),
    ("cat/thumb.png", encoded(scene(98, 12, 9)), "note", "small pictures"),
    ("cat/grey.png", encoded(scene(99).convert("L")), "note", "grey pictures among coloured ones"),
    ("cat/wide.png", encoded(scene(99, 80, 40)), "note", "different sizes"),
    ("bird/1.png", b"broken", "error", "classes without a readable picture"),
    ("bird/only.png", encoded(scene(89)), "warning", "small classes"),
    ("bird/only.png", encoded(scene(89)), "warning", "classes missing from test"),
    ("bird/only.png", encoded(scene(89)), "warning", "classes of unequal size"),
]


@pytest.mark.parametrize(("name", "data", "severity", "title"), ODD_PICTURES)
def test_each_oddity_is_found_once_and_named(tmp_path: Path, name: str, data: bytes, severity: str, title: str) -> None:
    finding = by_title(report_of(tmp_path, healthy() | {name: data}))[title]
    assert finding.severity == severity
    expected = name.split("/")[0] if "class" in title else "80×40" if "sizes" in title else name
    assert any(expected in example for example in finding.examples)
    assert finding.count == (2 if title in ("different sizes", "classes of unequal size") else 1)
    assert finding.explanation.endswith(".")


def test_copies_across_a_given_split_are_leaks(tmp_path: Path) -> None:
    content = {f"train/{name}": data for name, data in healthy().items()}
    content |= {f"test/{label}/{n}.png": encoded(scene(5000 + n)) for n, label in enumerate(["cat", "dog"] * 10)}
    content["test/dog/same.png"] = content["train/dog/7.png"]
    content["test/cat/saved-again.jpg"] = encoded(scene(12), "JPEG", quality=70)
    leaks = by_title(report_of(tmp_path, content, given=True))["copies on both sides of the given split"]
    assert leaks.severity == "warning"
    assert set(leaks.examples) == {
        "train/cat/12.png = test/cat/saved-again.jpg",
        "train/dog/7.png = test/dog/same.png",
    }


def test_a_class_missing_from_a_given_train_split_is_said(tmp_path: Path) -> None:
    content = {f"train/{name}": data for name, data in healthy().items()}
    content |= {f"test/{label}/{n}.png": encoded(scene(5000 + n)) for n, label in enumerate(["cat", "dog", "cow"])}
    found = by_title(report_of(tmp_path, content, given=True))
    assert found["classes missing from train"].examples == ("cow",)
    assert "cannot be learnt" in found["classes missing from train"].explanation


def test_files_that_give_their_class_away(tmp_path: Path) -> None:
    content = healthy() | {f"cow/{n}.jpg": encoded(scene(7000 + n, 90, 90), "JPEG") for n in range(30)}
    found = by_title(report_of(tmp_path, content))["classes given away by their files"]
    assert set(found.examples) == {
        "file format: cow is JPEG, the other classes are not",
        "size: cow is 90×90, the other classes are not",
    }


def test_small_is_measured_by_the_wanted_size_where_one_is_given(tmp_path: Path) -> None:
    finding = by_title(report_of(tmp_path, healthy(), image_size=64))["small pictures"]
    assert finding.count == 80
    assert "64 pixels of --image-size" in finding.explanation
    assert "small pictures" not in by_title(report_of(tmp_path, healthy(), image_size=40))


def test_data_that_cannot_be_split_is_examined_all_the_same(tmp_path: Path) -> None:
    report = report_of(tmp_path, {"cat/1.png": encoded(scene(1)), "cat/2.png": encoded(scene(1))})
    found = by_title(report)
    assert {"a single class", "small classes", "groups of identical files"} <= set(found)
    assert report.facts["splits"] is None
    assert report_of(tmp_path, {"cat/1.png": b"x"}).facts["width"] is None


def test_the_report_is_json_and_text_grave_things_first(tmp_path: Path) -> None:
    content = healthy() | {f"cat/bad\n{number}.png": b"broken" for number in range(8)}
    content |= {"dog/copy.png": encoded(scene(3)), "cat/turned.jpg": oriented(scene(94), 6)}
    report = report_of(tmp_path, content, ignored=(".DS_Store: hidden",))
    assert json.loads(json.dumps(report.to_json()))["findings"][0]["count"] == 8
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    lines = report.lines()
    assert all(line.isprintable() for line in lines)
    assert "error: unreadable pictures (8)" in lines
    assert any(line.strip().startswith("cat/bad\\n0.png: ") for line in lines)
    assert "    … and 3 more" in lines
    assert "    .DS_Store: hidden" in lines
    assert lines[-1].startswith("1 error, 1 warning, ")


def test_nothing_of_the_users_is_written(tmp_path: Path) -> None:
    def state() -> dict[str, tuple[str, int]]:
        return {
            str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in tmp_path.rglob("*")
            if path.is_file()
        }

    content = healthy(5) | {"cat/broken.jpg": b"broken"}
    report_of(tmp_path, content)
    before = state()
    pictures = [Picture(name, tmp_path / name, name.split("/")[0], None) for name in content]
    source = Source("pets", tmp_path, tuple(pictures), ("cat", "dog"), ())
    inspections = inspect_pictures(pictures)
    examine(source, inspections, build_manifest(source, inspections, DataConfig()), DataConfig())
    assert state() == before
