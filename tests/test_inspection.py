import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.data.inspection import inspect_file, inspect_pictures
from darkroom.data.pictures import Picture
from darkroom.data.workers import decoding_pool
from darkroom.errors import DataError, ImageError
from darkroom.preprocess import Preprocessing, load

ORIENTATION = 0x0112


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth colourful picture, as photos are."""
    values = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def grey_levels(thumbnail: bytes | None, other: bytes | None) -> float:
    assert thumbnail is not None
    assert other is not None
    pair = [np.frombuffer(content, dtype=np.uint8).astype(float) for content in (thumbnail, other)]
    return float(np.sqrt(np.mean((pair[0] - pair[1]) ** 2)))


def test_what_a_picture_is(tmp_path: Path) -> None:
    content = encoded(scene(40, 30), "PNG")
    seen = inspect_file(write(tmp_path / "a.jpg", content))
    assert (seen.sha256, seen.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (seen.width, seen.height, seen.mode, seen.format, seen.frames, seen.orientation) == (
        40,
        30,
        "RGB",
        "PNG",
        1,
        1,
    )
    assert seen.error is None
    assert not seen.transparent
    whole = load(content, Preprocessing(8, 8, resize="stretch", interpolation="box", version=1))
    assert seen.thumbnail == whole.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_and_thumbnail_are_those_of_the_upright_picture(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encoded(scene(600, 400), "JPEG", exif=exif)
    seen = inspect_file(write(tmp_path / "a.jpg", content))
    assert seen.orientation == orientation
    assert (seen.width, seen.height) == ((600, 400) if orientation < 5 else (400, 600))
    whole = load(content, Preprocessing(8, 8, resize="stretch", interpolation="box", version=1))
    assert grey_levels(seen.thumbnail, whole.tobytes()) < 1


def test_modes_frames_and_transparency(tmp_path: Path) -> None:
    frames = [scene(20, 20, seed).quantize() for seed in range(3)]
    gif = inspect_file(write(tmp_path / "a", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    assert (gif.mode, gif.frames, gif.transparent) == ("P", 3, False)
    clear = inspect_file(write(tmp_path / "b", encoded(scene(20, 20).convert("RGBA"), "PNG")))
    assert (clear.mode, clear.transparent) == ("RGBA", True)
    print_ready = inspect_file(write(tmp_path / "c", encoded(scene(20, 20).convert("CMYK"), "JPEG")))
    assert (print_ready.mode, print_ready.format) == ("CMYK", "JPEG")


def broken_pictures() -> dict[str, bytes]:
    jpeg, png = encoded(scene(900, 700), "JPEG"), encoded(scene(300, 300), "PNG")
    return {
        "empty": b"",
        "text": b"not a picture at all, whatever its name",
        "truncated jpeg": jpeg[: len(jpeg) // 2],
        "truncated small jpeg": encoded(scene(32, 32), "JPEG")[:-60],
        "truncated png": png[: len(png) // 2],
        "header only": png[:40],
    }


@pytest.mark.parametrize("kind", broken_pictures())
def test_unreadable_pictures_get_an_error_and_never_raise(tmp_path: Path, kind: str) -> None:
    content = broken_pictures()[kind]
    seen = inspect_file(write(tmp_path / "a.png", content))
    with pytest.raises(ImageError) as caught:
        load(content, Preprocessing(32, 32))
    assert seen.error == str(caught.value)
    assert seen.thumbnail is None
    assert seen.sha256 == hashlib.sha256(content).hexdigest()


def test_a_file_that_is_gone_and_a_folder_get_an_error(tmp_path: Path) -> None:
    assert inspect_file(tmp_path / "gone.png").error == "cannot be read (No such file or directory)"
    assert inspect_file(tmp_path).error == "cannot be read (Is a directory)"


def test_many_pictures_go_through_processes_and_keep_their_order(tmp_path: Path) -> None:
    content = {f"{number}.png": encoded(scene(9, 9, seed=number % 40), "PNG") for number in range(600)}
    content["77.png"] = b"broken"
    pictures = [Picture(name, write(tmp_path / name, data), "a", None) for name, data in content.items()]
    found = inspect_pictures(pictures)
    assert [seen.sha256 for seen in found] == [hashlib.sha256(data).hexdigest() for data in content.values()]
    assert [place for place, seen in enumerate(found) if seen.error is not None] == [77]
    assert found == [inspect_file(picture.path) for picture in pictures]


def test_few_pictures_and_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", encoded(scene(9, 9), "PNG"))
    assert inspect_pictures([Picture("a.png", path, "a", None)]) == [inspect_file(path)]
    assert inspect_pictures([]) == []


def test_a_process_that_dies_is_one_clear_line() -> None:
    message = r"^a process that decoded pictures died: free some memory, .*$"
    with pytest.raises(DataError, match=message), decoding_pool(most=1) as pool:
        list(pool.map(os._exit, [1]))
