"""Draws the pictures of the tests: every mode, every orientation, every way of being broken."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, features

RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The picture's file, as bytes."""
    if format == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def noise(width: int, height: int, *, seed: int = 0, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Random pixels (H, W, channels), or (H, W) for one channel."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def noisy(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """A random RGB picture."""
    return Image.fromarray(noise(width, height, seed=seed))


def marked(width: int = 64, height: int = 32) -> Image.Image:
    """Blue, with a red upper left quarter: shows how it has been turned."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    return image


def red_quarter(pixels: npt.NDArray[np.uint8]) -> tuple[str, str]:
    """Where the red quarter of a `marked` picture lies in pixels (H, W, 3); fails unless it is exactly one."""
    height, width = pixels.shape[:2]
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    found = [
        (vertical, horizontal)
        for row, vertical in zip(rows, ("top", "bottom"), strict=True)
        for column, horizontal in zip(columns, ("left", "right"), strict=True)
        if pixels[row, column, 0] > 128
    ]
    assert len(found) == 1, f"red in {found}"
    return found[0]


STORED_CORNER = {  # EXIF 2.32, tag 274: where the stored first row and first column are on the upright picture
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("top", "left"),
    6: ("top", "right"),
    7: ("bottom", "right"),
    8: ("bottom", "left"),
}


def oriented(orientation: int, format: str = "JPEG", *, size: tuple[int, int] = (64, 32), **options: Any) -> bytes:
    """A `marked` picture of stored `size` whose metadata ask for `orientation`."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(marked(*size), format, exif=exif.tobytes(), **options)


def animated(format: str, **options: Any) -> bytes:
    """Three frames: red, blue, blue."""
    frames = [Image.new("RGB", (8, 6), colour) for colour in (RED, BLUE, (0, 255, 0))]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100, **options)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def raw_png(
    width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 0, transparency: bytes | None = None
) -> bytes:
    """A PNG from filtered rows, for what Pillow does not write; `colour` 0 is grey, 2 RGB, 4 grey with alpha."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header)]
    if transparency is not None:
        chunks.append(png_chunk(b"tRNS", transparency))
    chunks += [png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of less than 100 bytes that claims enormous dimensions."""
    return raw_png(width, height, b"")


def truncated(format: str = "JPEG") -> bytes:
    """The first half of a picture's file."""
    content = encoded(noisy(64, 48), format)
    return content[: len(content) // 2]


def broken_files() -> dict[str, bytes]:
    """Files that are no pictures, by a name that says why."""
    return {
        "empty.png": b"",
        "text.jpg": b"this is not a picture\n" * 20,
        "zeros.png": bytes(4096),
        "truncated.jpg": truncated("JPEG"),
        "truncated.png": truncated("PNG"),
        "signature-only.png": b"\x89PNG\r\n\x1a\n",
        "no-height.png": raw_png(5, 0, b""),
        "bomb.png": bomb(),
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n",
        "ftyp.heic": b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00mif1heicmiaf" + bytes(200),
    }


def has_avif() -> bool:
    """Whether this Pillow reads and writes AVIF."""
    return bool(features.check("avif"))


def write_class_folders(root: Path, *, classes: int = 3, pictures: int = 6, size: tuple[int, int] = (24, 16)) -> None:
    """Random PNG files as ROOT/class-0/0.png …, all of them different."""
    for label in range(classes):
        folder = root / f"class-{label}"
        folder.mkdir(parents=True)
        for number in range(pictures):
            (folder / f"{number}.png").write_bytes(encoded(noisy(*size, seed=1000 * label + number)))
