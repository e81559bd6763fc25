"""The preprocessing contract: resizing, exact pixels, and the contract as JSON and in words."""

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from darkroom import preprocess
from darkroom.errors import DataError, UsageError
from darkroom.preprocess import Preprocessing, decode, load, resized, used_box
from pictures import (
    BLUE,
    RED,
    encoded,
    marked,
    noise,
    noisy,
)

BACKGROUND = (10, 200, 60)


# Resizing

SIDES = st.integers(1, 300)


@settings(max_examples=60, deadline=None)
@given(
    width=SIDES,
    height=SIDES,
    target=st.tuples(st.integers(1, 48), st.integers(1, 48)),
    resize=st.sampled_from(["cover", "stretch", "pad"]),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box"]),
)
@example(width=1, height=300, target=(48, 3), resize="cover", interpolation="lanczos")
@example(width=300, height=1, target=(3, 48), resize="pad", interpolation="box")
def test_the_shape_is_always_right(
    width: int, height: int, target: tuple[int, int], resize: Any, interpolation: Any
) -> None:
    contract = Preprocessing(*target, resize=resize, interpolation=interpolation)
    result = load(encoded(Image.new("RGB", (width, height), RED)), contract)
    assert result.shape == (target[1], target[0], 3)
    assert result.dtype == np.uint8
    if resize != "pad":
        assert (result == RED).all()


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1)])
@pytest.mark.parametrize("resize", ["cover", "stretch", "pad"])
def test_lines_have_no_empty_side(size: tuple[int, int], resize: Any) -> None:
    result = load(encoded(Image.new("RGB", size, RED)), Preprocessing(32, 32, resize=resize))
    assert result.shape == (32, 32, 3)
    assert (result == RED).all(axis=2).any()


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box"])
def test_pixels_of_the_right_size_stay(interpolation: Any) -> None:
    values = noise(40, 32)
    content = encoded(Image.fromarray(values))
    for resize in ("cover", "stretch", "pad"):
        contract = Preprocessing(40, 32, resize=resize, interpolation=interpolation)
        assert (load(content, contract) == values).all()
    assert (load(content, Preprocessing(32, 32, interpolation=interpolation)) == values[:, 4:36]).all()


def test_cover_keeps_the_centre_and_the_proportions() -> None:
    image = Image.new("RGB", (90, 30), BLUE)
    image.paste(RED, (30, 0, 60, 30))
    assert (load(encoded(image), Preprocessing(10, 10, interpolation="box")) == RED).all()
    assert (
        load(encoded(image.transpose(Image.Transpose.ROTATE_90)), Preprocessing(10, 10, interpolation="box")) == RED
    ).all()
    assert (load(encoded(image), Preprocessing(30, 10, interpolation="box"))[:, :10] == BLUE).all()


def test_crop_fraction_keeps_the_centre() -> None:
    image = Image.new("RGB", (40, 40), BLUE)
    image.paste(RED, (10, 10, 30, 30))
    assert (load(encoded(image), Preprocessing(10, 10, crop_fraction=0.5, interpolation="box")) == RED).all()
    assert (load(encoded(image), Preprocessing(10, 10, crop_fraction=0.75, interpolation="box"))[0] != RED).any()


def test_stretch_shows_everything() -> None:
    result = load(encoded(marked(60, 20)), Preprocessing(10, 10, resize="stretch", interpolation="box"))
    assert (result[:5, :5] == RED).all()
    assert (result[5:] == BLUE).all()


def test_pad_adds_bars_of_the_background() -> None:
    contract = Preprocessing(10, 10, resize="pad", interpolation="box", background=BACKGROUND)
    result = load(encoded(Image.new("RGB", (20, 10), RED)), contract)
    assert (result[:2] == BACKGROUND).all()
    assert (result[2:7] == RED).all()  # five rows: the odd one out goes below
    assert (result[7:] == BACKGROUND).all()
    tall = load(encoded(Image.new("RGB", (10, 20), RED)), contract)
    assert (tall == result.transpose(1, 0, 2)).all()


def test_large_pictures_are_averaged_not_sampled() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    inner = load(encoded(Image.fromarray(stripes)), Preprocessing(8, 8))[:, 1:-1]
    assert np.abs(inner.astype(int) - 127).max() <= 1


def test_resizing_happens_after_compositing() -> None:
    """Else the hidden colour of transparent pixels bleeds into the edges."""
    values = np.zeros((16, 16, 4), np.uint8)
    values[:, :8] = (255, 255, 255, 255)
    values[:, 8:] = (0, 0, 0, 0)
    assert (load(encoded(Image.fromarray(values)), Preprocessing(5, 5)) == 255).all()


# One contract everywhere


def test_path_and_bytes_and_threads_give_the_same_pixels(tmp_path: Path) -> None:
    contract = Preprocessing(32, 24)
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded(noisy(200, 150), "JPEG"))
    expected = load(path, contract)
    assert (load(path.read_bytes(), contract) == expected).all()
    barrier = threading.Barrier(8)

    def decoded(_: int) -> bool:
        barrier.wait()
        return bool((load(path, contract) == expected).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(decoded, range(8)))


def test_pixels_belong_to_the_caller() -> None:
    result = load(encoded(noisy(8, 8)), Preprocessing(8, 8))
    result[:] = 0
    assert result.flags["C_CONTIGUOUS"]


GOLDEN = {
    ("RGB", "cover", "bilinear", 1.0): "9f8c7ddec2133397",
    ("RGB", "cover", "bicubic", 0.875): "3356daa20bab872e",
    ("RGB", "stretch", "lanczos", 1.0): "42e9bb4440e37637",
    ("RGBA", "pad", "box", 1.0): "1d01329ab5142dcd",
    ("LA", "cover", "nearest", 1.0): "44f7adcb3086564b",
    ("I;16", "cover", "bilinear", 1.0): "7d281d63fd924bb9",
}


def golden_picture(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.random.default_rng(3).integers(0, 65536, (53, 71), dtype=np.uint16))
    channels = {"RGB": 3, "RGBA": 4, "LA": 2}[mode]
    bands = [Image.fromarray(noise(71, 53, seed=band, channels=1)) for band in range(channels)]
    return Image.merge(mode, bands)


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_exact_pixels(case: Any) -> None:
    """If this fails, the contract has changed: give it a new version, or every trained model is silently off."""
    mode, resize, interpolation, crop_fraction = case
    contract = Preprocessing(
        32, 24, resize=resize, interpolation=interpolation, crop_fraction=crop_fraction, background=BACKGROUND
    )
    result = load(encoded(golden_picture(mode)), contract)
    assert hashlib.sha256(result.tobytes()).hexdigest()[:16] == GOLDEN[case]


# Which part is used


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (250, 250), (301, 64)])
@pytest.mark.parametrize(
    "contract",
    [
        Preprocessing(30, 20),
        Preprocessing(24, 24, crop_fraction=0.875),
        Preprocessing(24, 24, resize="stretch"),
        Preprocessing(31, 24, resize="pad", background=BACKGROUND),
    ],
)
def test_the_box_says_which_part_reaches_the_network(size: tuple[int, int], contract: Preprocessing) -> None:
    across, down = np.meshgrid((np.arange(size[0]) + 0.5) / size[0], (np.arange(size[1]) + 0.5) / size[1])
    ramps = np.stack([across, down, np.zeros_like(across)], axis=-1)  # red tells the column, green the row
    seen = np.asarray(resized(Image.fromarray((255 * ramps).round().astype(np.uint8)), contract)) / 255
    left, top, right, bottom = used_box(size, contract)
    columns = left + (right - left) * (np.arange(contract.width) + 0.5) / contract.width
    rows = top + (bottom - top) * (np.arange(contract.height) + 0.5) / contract.height
    inside = np.ix_((rows > 0) & (rows < 1), (columns > 0) & (columns < 1))
    found = np.moveaxis(seen[inside][..., :2], -1, 0)
    expected = np.stack(np.meshgrid(columns[inside[1][0]], rows[inside[0][:, 0]]))
    assert found.size
    assert np.abs(found - expected).max() < 0.05  # edges are averaged over what there is of them


# Large JPEG files


@pytest.mark.parametrize(
    ("size", "contract", "decoded"),
    [
        ((500, 700), Preprocessing(32, 32), (125, 175)),  # an eighth would be less than 64 pixels wide
        ((1024, 1024), Preprocessing(32, 32), (128, 128)),
        ((4001, 1030), Preprocessing(32, 32), (501, 129)),  # what is used is the square in the middle
        ((4001, 1030), Preprocessing(32, 32, crop_fraction=0.4), (1001, 258)),
        ((4001, 1030), Preprocessing(32, 32, resize="stretch"), (501, 129)),
        ((4001, 256), Preprocessing(32, 32, resize="stretch"), (1001, 64)),
        ((4001, 256), Preprocessing(32, 32, resize="pad"), (501, 32)),  # 4001 pixels become 32, so 256 become 2
        ((4001, 1030), Preprocessing(32, 32, interpolation="nearest"), (4001, 1030)),
        ((4001, 1030), Preprocessing(32, 32, version=1), (4001, 1030)),
        ((127, 127), Preprocessing(32, 32), (127, 127)),
        ((5, 4000), Preprocessing(8, 8, resize="pad"), (3, 2000)),  # nothing narrower than two pixels
    ],
)
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(
    size: tuple[int, int], contract: Preprocessing, decoded: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(preprocess, "rendered", lambda image, background: seen.append(image.size) or image)
    monkeypatch.setattr(preprocess, "resized", lambda image, contract: image)
    load(encoded(Image.new("RGB", size, RED), "JPEG"), contract)
    assert seen == [decoded]
    quarter = Image.Exif()
    quarter[0x0112] = 6  # the file holds it lying, and it is used upright
    upright = Preprocessing(**{**asdict(contract), "width": contract.height, "height": contract.width})
    load(encoded(Image.new("RGB", size, RED), "JPEG", exif=quarter), upright)
    assert seen[1] == decoded


def test_a_reduced_jpeg_looks_as_the_whole_one() -> None:
    smooth = noisy(9, 7).resize((1440, 1120), Image.Resampling.BICUBIC)
    content = encoded(smooth, "JPEG", quality=95)
    whole = load(content, Preprocessing(40, 32, version=1)).astype(int)
    reduced = load(content, Preprocessing(40, 32)).astype(int)
    assert (whole != reduced).any(), "it was not reduced"
    assert np.abs(whole - reduced).max() <= 4
    assert (
        load(content, Preprocessing(40, 32, version=1)) == np.array(resized(decode(content), Preprocessing(40, 32)))
    ).all()


# The contract itself


@pytest.mark.parametrize(
    "contract",
    [
        Preprocessing(32, 24),
        Preprocessing(1, 8192, "pad", 1, "lanczos", (0, 1, 2)),
        Preprocessing(224, 224, crop_fraction=0.875),
    ],
)
def test_json_round_trip(contract: Preprocessing) -> None:
    assert Preprocessing.from_json(json.loads(json.dumps(contract.to_json()))) == contract


def test_the_defaults_are_part_of_the_contract() -> None:
    assert Preprocessing(32, 24).to_json() == {
        "width": 32,
        "height": 24,
        "resize": "cover",
        "crop_fraction": 1.0,
        "interpolation": "bilinear",
        "background": [255, 255, 255],
        "version": 2,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, "version 3 .* knows 1 to 2"),
        ({"version": 0}, "version 0 .* knows 1 to 2"),
        ({"version": "1"}, "version '1'"),
        ({"version": True}, "version True"),
        ({"colour": "red"}, "has an unknown colour"),
        ({"version": 3, "gamma": 1}, "version 3"),
        ({"width": 0}, "width is 0"),
        ({"width": 8.5}, "width is 8.5"),
        ({"height": True}, "height is True"),
        ({"height": 10_000}, "height is 10000"),
        ({"resize": "crop"}, "resize is 'crop': give one of cover, stretch, pad"),
        ({"resize": ["cover"]}, "resize is"),
        ({"interpolation": "area"}, "interpolation is 'area'"),
        ({"crop_fraction": 0}, "crop_fraction is 0"),
        ({"crop_fraction": float("nan")}, "crop_fraction is nan"),
        ({"crop_fraction": "1"}, "crop_fraction is '1'"),
        ({"crop_fraction": 0.5, "resize": "pad"}, "needs resize cover"),
        ({"background": [1, 2]}, "background"),
        ({"background": [0, 0, 256]}, "background"),
        ({"background": "white"}, "background"),
        ({"background": None}, "background"),
    ],
)
def test_unusable_contracts_are_refused(change: dict[str, Any], message: str) -> None:
    content = {**Preprocessing(32, 32).to_json(), **change}
    with pytest.raises(DataError, match=message) as raised:
        Preprocessing.from_json(content)
    assert "\n" not in str(raised.value)


def test_missing_keys_and_other_types_are_refused() -> None:
    content = Preprocessing(8, 8).to_json()
    del content["background"]
    with pytest.raises(DataError, match="lacks background"):
        Preprocessing.from_json(content)
    for other in ([], None, "text", 3):
        with pytest.raises(DataError, match="must be an object"):
            Preprocessing.from_json(other)  # type: ignore[arg-type]


def test_construction_refuses_with_a_usage_error() -> None:
    with pytest.raises(UsageError, match="preprocessing: width is 0: give 1 to 8192 pixels"):
        Preprocessing(0, 8)


def test_the_description_names_what_differs() -> None:
    base = Preprocessing(32, 24)
    words = " ".join(base.describe())
    assert "32×24" in words
    assert "#ffffff" in words
    for other in (
        Preprocessing(32, 24, resize="pad"),
        Preprocessing(32, 24, resize="stretch"),
        Preprocessing(32, 24, crop_fraction=0.875),
        Preprocessing(32, 24, interpolation="lanczos"),
        Preprocessing(32, 24, background=BACKGROUND),
    ):
        assert other.describe() != base.describe()
    assert "0.875" in " ".join(Preprocessing(32, 24, crop_fraction=0.875).describe())
