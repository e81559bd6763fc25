"""Decoding: every mode, orientation and format; bounds; broken and hostile files."""

import io
import os
import struct
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from darkroom.errors import ImageError
from darkroom.preprocess import MAX_PIXELS, Preprocessing, decode, load, opened, orientation, resized, upright_size
from pictures import (
    BLUE,
    RED,
    STORED_CORNER,
    animated,
    bomb,
    broken_files,
    encoded,
    has_avif,
    marked,
    noisy,
    oriented,
    raw_png,
    red_quarter,
    truncated,
)

BACKGROUND = (10, 200, 60)


def pixels(content: bytes, **options: Any) -> list[list[tuple[int, ...]]]:
    """Rows of colours of the decoded picture."""
    return [[tuple(colour) for colour in row] for row in np.asarray(decode(content, **options)).tolist()]


def one_line(raised: pytest.ExceptionInfo[Exception]) -> str:
    text = str(raised.value)
    assert text
    assert "\n" not in text
    assert len(text) < 250
    return text


# Modes


def test_bilevel_becomes_black_and_white() -> None:
    image = Image.fromarray(np.array([[True, False]]))
    assert image.mode == "1"
    assert pixels(encoded(image)) == [[(255, 255, 255), (0, 0, 0)]]


def test_grey_is_repeated() -> None:
    assert pixels(encoded(Image.fromarray(np.array([[0, 77, 255]], np.uint8)))) == [[(0,) * 3, (77,) * 3, (255,) * 3]]


def test_grey_with_alpha_lies_on_the_background() -> None:
    image = Image.new("LA", (3, 1))
    for place, value in enumerate([(80, 0), (80, 255), (80, 128)]):
        image.putpixel((place, 0), value)
    (row,) = pixels(encoded(image), background=(0, 255, 100))
    assert row[:2] == [(0, 255, 100), (80, 80, 80)]
    assert row[2] == (40, 167, 90)  # 128/255 of 80 and 127/255 of the background, rounded


def test_rgba_is_composited() -> None:
    image = Image.fromarray(np.array([[[200, 0, 0, 0], [200, 0, 0, 255], [200, 0, 0, 51]]], np.uint8))
    assert pixels(encoded(image)) == [[(255, 255, 255), (200, 0, 0), (244, 204, 204)]]
    assert pixels(encoded(image), background=BACKGROUND)[0][0] == BACKGROUND


def test_premultiplied_alpha_is_not_multiplied_again() -> None:
    image = Image.fromarray(np.array([[[200, 100, 0, 102]]], np.uint8))
    expected = pixels(encoded(image))
    for format_ in ("TIFF",):
        assert pixels(encoded(image, format_)) == expected
    from darkroom.preprocess import rendered

    premultiplied = image.convert("RGBa")
    assert np.abs(np.subtract(np.asarray(rendered(premultiplied))[0, 0], expected[0][0])).max() <= 2
    grey = Image.merge("LA", [Image.new("L", (1, 1), 200), Image.new("L", (1, 1), 102)])
    assert abs(rendered(grey.convert("La")).getpixel((0, 0))[0] - (200 * 0.4 + 255 * 0.6)) <= 2


def palette_picture() -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *BLUE, 0, 255, 0])
    for place in range(3):
        image.putpixel((place, 0), place)
    return image


def test_palette_without_transparency() -> None:
    assert pixels(encoded(palette_picture())) == [[RED, BLUE, (0, 255, 0)]]


@pytest.mark.parametrize("format_", ["PNG", "GIF"])
def test_palette_with_one_transparent_entry(format_: str) -> None:
    content = encoded(palette_picture(), format_, transparency=1)
    assert pixels(content, background=BACKGROUND) == [[RED, BACKGROUND, (0, 255, 0)]]


def test_palette_with_an_alpha_for_each_entry() -> None:
    content = encoded(palette_picture(), transparency=bytes([255, 0, 51]))
    assert pixels(content) == [[RED, (255, 255, 255), (204, 255, 204)]]


def test_palette_with_alpha_band() -> None:
    image = palette_picture().convert("PA")
    image.putalpha(Image.fromarray(np.array([[255, 0, 255]], np.uint8)))
    assert pixels(encoded(image, "TIFF"), background=BACKGROUND) == [[RED, BACKGROUND, (0, 255, 0)]]


def test_key_colours_are_transparent() -> None:
    rgb = raw_png(2, 1, b"\0" + bytes([1, 2, 3, 4, 5, 6]), colour=2, transparency=struct.pack(">3H", 1, 2, 3))
    assert pixels(rgb, background=BACKGROUND) == [[BACKGROUND, (4, 5, 6)]]
    grey = raw_png(2, 1, b"\0" + bytes([9, 8]), transparency=struct.pack(">H", 9))
    assert pixels(grey, background=BACKGROUND) == [[BACKGROUND, (8, 8, 8)]]


def test_16_bit_key_colours_are_transparent() -> None:
    key = struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)
    rgb = raw_png(2, 1, b"\0" + key + struct.pack(">3H", 0x3400, 0, 0xFFFF), depth=16, colour=2, transparency=key)
    assert pixels(rgb, background=BACKGROUND) == [[BACKGROUND, (0x34, 0, 0xFF)]]
    key = struct.pack(">H", 1000)
    grey = raw_png(2, 1, b"\0" + key + struct.pack(">H", 1001), depth=16, transparency=key)
    assert pixels(grey, background=BACKGROUND) == [[BACKGROUND, (4, 4, 4)]]


def test_cmyk() -> None:
    image = Image.new("CMYK", (2, 1), (0, 255, 255, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    assert pixels(encoded(image, "TIFF")) == [[RED, (0, 0, 0)]]
    jpeg = np.asarray(decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")))  # Adobe's, inverted
    assert np.abs(jpeg.astype(int) - RED).max() <= 4


def test_ycbcr() -> None:
    image = noisy(4, 4)
    assert np.abs(np.subtract(pixels(encoded(image.convert("YCbCr"), "TIFF")), np.asarray(image))).max() <= 3


def test_lab() -> None:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = Image.new("RGB", (4, 4), (180, 90, 40))
    lab = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    assert lab is not None
    assert np.abs(np.asarray(decode(encoded(lab, "TIFF"))).astype(int) - (180, 90, 40)).max() <= 4


def test_hsv() -> None:
    from darkroom.preprocess import rendered

    assert rendered(Image.new("HSV", (1, 1), (0, 255, 255))).getpixel((0, 0)) == RED


SIXTEEN = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
EIGHT = [(value,) * 3 for value in (0, 0, 1, 1, 128, 255)]  # round(v / 257)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_16_bit_grey(mode: str, format_: str) -> None:
    order = ">u2" if mode == "I;16B" else "<u2"
    image = Image.frombytes(mode, (6, 1), SIXTEEN.astype(order).tobytes())
    assert pixels(encoded(image, format_)) == [EIGHT]


def test_every_16_bit_value_is_rounded() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    result = np.asarray(decode(encoded(Image.fromarray(every))))[..., 0]
    assert (result == np.rint(every / 257.0)).all()


def test_pgm_of_16_bits_keeps_its_scale_even_when_dark() -> None:
    assert pixels(b"P5\n2 1\n65535\n" + struct.pack(">2H", 200, 257)) == [[(1, 1, 1), (1, 1, 1)]]


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.float32, [0.0, 0.5, 1.0], [0, 128, 255]),
        (np.float32, [0.0, 1.5, 254.6], [0, 2, 255]),
        (np.float32, [0.0, 300.0, 65535.0], [0, 1, 255]),
        (np.int32, [0, 1, 255], [0, 1, 255]),
        (np.int32, [0, 256, 65535], [0, 1, 255]),
        (np.int32, [0, 0, 1], [0, 0, 1]),
    ],
)
def test_the_range_of_values_decides_for_wide_integers_and_floats(
    dtype: Any, values: list[float], expected: list[int]
) -> None:
    image = Image.fromarray(np.array([values], dtype))
    assert image.mode in ("I", "F")
    assert pixels(encoded(image, "TIFF")) == [[(value,) * 3 for value in expected]]


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0.5, np.nan]], np.float32),
        np.array([[0.5, np.inf]], np.float32),
        np.array([[-1.0, 1.0]], np.float32),
        np.array([[0, 70_000]], np.int32),
        np.array([[-1, 0]], np.int32),
    ],
)
def test_values_of_no_known_range_are_refused(values: Any) -> None:
    with pytest.raises(ImageError, match=r"its values go from .* rescale them") as raised:
        decode(encoded(Image.fromarray(values), "TIFF"))
    one_line(raised)


# Orientation

LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "JPEG": {"quality": 95}}


@pytest.mark.parametrize("format_", [*LOSSLESS, "AVIF", "HEIF"])
@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation_comes_upright(value: int, format_: str) -> None:
    if format_ == "AVIF" and not has_avif():
        pytest.skip("this Pillow is built without AVIF")
    content = oriented(value, format_, size=(128, 64), **LOSSLESS.get(format_, {}))
    upright = np.asarray(decode(content))
    assert upright.shape == ((128, 64, 3) if value >= 5 else (64, 128, 3))
    assert red_quarter(upright) == STORED_CORNER[value]
    with opened(content) as image:
        assert upright_size(image) == upright.shape[1::-1]


def test_turning_differs_from_its_mirror() -> None:
    """A quarter in a corner cannot tell 1 from 5: here the mark's sides have different lengths."""
    image = Image.new("RGB", (8, 4), BLUE)
    image.paste(RED, (0, 0, 6, 1))  # along the stored first row
    for value in range(1, 9):
        exif = Image.Exif()
        exif[274] = value
        red = np.asarray(decode(encoded(image, exif=exif)))[..., 0] > 128
        if value >= 5:  # the stored first row has become a column
            assert red.shape == (8, 4)
            assert red.sum(axis=0).max() == 6
        else:
            assert red.shape == (4, 8)
            assert red.sum(axis=1).max() == 6


def test_exif_orientation_is_a_remark_in_heif() -> None:
    exif = Image.Exif()
    exif[274] = 6
    content = encoded(marked(128, 64), "HEIF", exif=exif)  # as an object, pillow-heif writes the tag but no `irot`
    assert b"irot" not in content
    assert np.asarray(decode(content)).shape == (64, 128, 3)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_damaged_exif_counts_as_none(exif: bytes) -> None:
    content = encoded(marked(), "JPEG", exif=exif)
    assert red_quarter(np.asarray(decode(content))) == ("top", "left")


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_unknown_orientations_count_as_none(value: int) -> None:
    with opened(oriented(value)) as image:
        assert orientation(image) == 1
    assert red_quarter(np.asarray(decode(oriented(value)))) == ("top", "left")


def test_metadata_that_cannot_be_read_count_as_none() -> None:
    class Damaged(Image.Image):
        def getexif(self) -> Image.Exif:
            raise struct.error("unpack requires a buffer of 8 bytes")

    assert orientation(Damaged()) == 1


# Formats


@pytest.mark.parametrize(("format_", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_the_first_frame_counts(format_: str, options: dict[str, Any]) -> None:
    result = np.asarray(decode(animated(format_, **options)))
    assert result.shape == (6, 8, 3)
    assert (result == RED).all()


def test_mpo_of_phones_gives_its_first_picture() -> None:
    content = encoded(marked(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 32))])
    assert red_quarter(np.asarray(decode(content))) == ("top", "left")


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF"])
def test_content_decides_the_format(format_: str, tmp_path: Path) -> None:
    if format_ == "AVIF" and not has_avif():
        pytest.skip("this Pillow is built without AVIF")
    content = encoded(marked(128, 64), format_)
    path = tmp_path / ("wrong.png" if format_ != "PNG" else "wrong.jpg")
    path.write_bytes(content)
    result = np.asarray(decode(path))
    assert red_quarter(result) == ("top", "left")
    assert result.tobytes() == decode(content).tobytes()


# Broken and hostile files


@pytest.mark.parametrize("name", broken_files())
def test_broken_files_give_one_line(name: str, tmp_path: Path) -> None:
    content = broken_files()[name]
    with pytest.raises(ImageError) as from_bytes:
        load(content, Preprocessing(8, 8))
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImageError) as from_path:
        load(path, Preprocessing(8, 8))
    assert one_line(from_bytes) == one_line(from_path)


def test_what_is_no_file_gives_one_line(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    for path, reason in [(tmp_path, "a folder"), (tmp_path / "none.jpg", "no such file"), (pipe, "not a regular file")]:
        with pytest.raises(ImageError, match=reason) as raised:
            decode(path)
        one_line(raised)
    with pytest.raises(ImageError, match="cannot be read"):
        decode(Path("a\0b.png"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_forbidden_files_give_one_line(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(marked()))
    path.chmod(0)
    with pytest.raises(ImageError, match="cannot be read"):
        decode(path)


def test_the_reasons_are_told() -> None:
    with pytest.raises(ImageError, match="truncated"):
        decode(truncated("JPEG"))
    with pytest.raises(ImageError, match="empty"):
        decode(b"")
    with pytest.raises(ImageError, match="not a picture"):
        decode(b"hello world, hello world")


@pytest.mark.parametrize(
    ("foreign", "message"),
    [(MemoryError(), "not enough memory"), (IndexError(), "cannot be decoded: IndexError"), (OSError("a\nb"), "a b")],
)
def test_foreign_exceptions_are_translated(foreign: Exception, message: str) -> None:
    with pytest.raises(ImageError, match=message) as raised, opened(encoded(marked())):
        raise foreign
    one_line(raised)


def test_enormous_dimensions_are_refused_before_decoding() -> None:
    with pytest.raises(ImageError, match="60000×60000, where 200,000,000 are allowed"):
        decode(bomb())


def test_the_bound_is_the_callers() -> None:
    content = encoded(noisy(10, 10))
    assert decode(content, max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match="10×10, where 99 are allowed"):
        load(content, Preprocessing(4, 4), max_pixels=99)


def test_pillows_own_limit_does_not_undercut_ours() -> None:
    with pytest.raises(ImageError, match="cannot be decoded"):  # the file has no pixels, but its size is within bounds
        decode(bomb(19_000, 10_000))
    assert MAX_PIXELS > 19_000 * 10_000


def test_tiles_of_a_tiff_are_bounded_too() -> None:
    entries = [(256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    entries += [(322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 200), (325, 4, 1, 20)]
    packed = b"".join(
        struct.pack("<HHI", tag, kind, count) + struct.pack("<HH" if kind == 3 else "<I", *([value, 0][: 5 - kind]))
        for tag, kind, count, value in entries
    )
    content = b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)
    with pytest.raises(ImageError, match="60000×60000"):
        decode(content.ljust(300, b"\0"))


def test_programs_are_not_reached() -> None:
    """EPS would start Ghostscript."""
    with pytest.raises(ImageError, match="not a picture of a format"):
        decode(encoded(marked(), "EPS"))


def test_pillows_remarks_stay_silent() -> None:
    content = encoded(marked(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(content)).getexif().get(274)
    assert seen, "the file must be one that Pillow remarks on"
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        decode(content)
    assert not seen


FILES = [
    encoded(noisy(9, 7), format_)
    for format_ in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", *(["AVIF"] if has_avif() else []))
] + [encoded(noisy(16, 16), "HEIF"), oriented(6), animated("PNG"), encoded(palette_picture(), transparency=b"\0\x80")]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    content=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_damage_gives_pixels_or_an_image_error(content: bytes, changes: list[tuple[float, int]], kept: float) -> None:
    damaged = bytearray(content[: int(kept * len(content))])
    for place, value in changes:
        if damaged:
            damaged[int(place * len(damaged))] = value
    with suppress(ImageError):
        assert load(bytes(damaged), Preprocessing(8, 8), max_pixels=1_000_000).shape == (8, 8, 3)


@pytest.mark.parametrize("filter_", ["box", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(9, 40), (40, 9), (61, 47), (24, 200), (200, 16)])
def test_the_width_comes_first_whatever_pillow_would_take(filter_: Any, size: tuple[int, int]) -> None:
    """Pillow 13 takes the height first where that is less work: rounding after it gives other pixels."""
    noise = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image, resampling = Image.fromarray(noise), Image.Resampling[filter_.upper()]
    expected = image.resize((24, size[1]), resampling).resize((24, 16), resampling)
    contract = Preprocessing(24, 16, resize="stretch", interpolation=filter_)
    assert np.array_equal(np.asarray(resized(image, contract)), np.asarray(expected))
