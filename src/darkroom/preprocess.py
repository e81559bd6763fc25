"""The preprocessing contract: from the bytes of a picture to the uint8 pixels a network sees.

Training, evaluation, command line and server all call `load`. Its steps, version 2:

1. Content decides the format, never the file's name: JPEG (MPO too), PNG, GIF, WebP, BMP, TIFF, PPM, JPEG 2000, AVIF,
   HEIF. Width × height is held against a bound before any pixel is decoded.
2. Of animations and multi-page files the first frame counts, of HEIF files the primary picture. Of a JPEG much larger
   than is needed only the low frequencies are decoded, so that it comes at 1/2, 1/4 or 1/8 of its sides: the
   smallest of these in which the part that step 6 uses is at least twice as wide and high as the target, and no side
   shorter than two pixels. All further steps are about what comes so. (Not with `nearest`, which picks pixels instead
   of averaging them, and not of lossless JPEG, which has no frequencies.)
3. Colour becomes 8-bit RGB: palettes are looked up; grey is repeated; CMYK, YCbCr, HSV and LAB are converted by
   Pillow's formulas; embedded ICC profiles are not applied. Of 16-bit colour Pillow keeps the high bytes; 16-bit grey v
   becomes round(v / 257). Pictures of 32-bit integers or floats say nothing of their range, so their values decide:
   floats within 0..1 are multiplied by 255, values within 0..255 stay, within 0..65535 are divided by 257, always
   rounded half up; anything else is refused. (Integers of a PPM file are 16-bit by its definition.)
4. Transparency, be it a channel, a palette entry or a key colour, is composited on `background` at full size.
5. EXIF (or XMP) orientation is applied; damaged metadata counts as none. HEIF and AVIF files turn themselves by a
   property of their own, beside which their standards make EXIF orientation a mere remark.
6. `resize` brings the picture to width × height in one antialiased step of `interpolation`:
   - cover: the largest centred box of the target's aspect ratio, its sides multiplied by `crop_fraction`, is scaled;
     the box's sides and place are fractions of pixels, not rounded;
   - stretch: the whole picture is scaled, whatever its aspect ratio;
   - pad: the whole picture is scaled to fit, its shorter side rounded half up to at least 1 pixel, and centred on
     `background`, an odd pixel going right or below.
   A picture that has the target's size already keeps its pixels bit for bit.

A change to any of this is a new `version`, and those before go on answering as they did: in version 1 a JPEG is always
decoded at its full size. Scaling to floats and normalisation belong to the network's graph.
"""

import functools
import io
import re
import stat
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from darkroom.errors import DataError, ImageError, UsageError

VERSION = 2
"""Of the contract's semantics; recorded with every bundle and every pixel cache."""

OLDEST_VERSION = 1
"""The first that is still kept to, for bundles that have it."""

REDUCTIONS = (8, 4, 2)
SPARE = 2
"""How much larger than the target a reduced JPEG stays at least, so that the filter has something to average."""

MAX_PIXELS = 200_000_000
"""Default bound on width × height of a picture."""

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
Resize = Literal["cover", "stretch", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box"]
Pixels = npt.NDArray[np.uint8]

WHITE: Colour = (255, 255, 255)

# Only formats that announce themselves by their first bytes and need no outside program: EPS, for one, would start
# Ghostscript. MPO is opened by the JPEG reader.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000")
_FTYP_FORMATS = ("AVIF", "HEIF")

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow's own guard speaks through warnings and a limit for the whole process, and knows no bound of the caller's.
# `_check_bounds` takes its place, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes pixels; travels in config.json and bundle.json."""

    width: int
    height: int
    resize: Resize = "cover"
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bilinear"
    background: Colour = WHITE
    version: int = VERSION

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            value = getattr(self, name)
            _check(_is_whole(value) and 1 <= value <= 8192, f"{name} is {value!r}: give 1 to 8192 pixels")
        for name, choices in (("resize", get_args(Resize)), ("interpolation", get_args(Interpolation))):
            value = getattr(self, name)
            _check(value in choices, f"{name} is {value!r}: give one of {', '.join(choices)}")
        fraction = self.crop_fraction
        is_number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
        _check(is_number and 0 < fraction <= 1, f"crop_fraction is {fraction!r}: give more than 0, at most 1")
        _check(self.resize == "cover" or fraction == 1, f"crop_fraction {fraction} needs resize cover: leave it at 1")
        _check(_is_colour(self.background), f"background is {self.background!r}: give three whole numbers 0 to 255")
        _check(_is_ours(self.version), f"version is {self.version!r}: this darkroom knows {_VERSIONS}")

    def to_json(self) -> dict[str, Any]:
        """A dictionary for JSON, from which `from_json` makes an equal object."""
        return {**asdict(self), "background": list(self.background)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_json`; raises `DataError` where keys, values or version are not ours."""
        known = {field.name for field in fields(cls)}
        if not isinstance(content, Mapping):
            raise DataError(f"preprocessing must be an object with {', '.join(sorted(known))}, not {_short(content)}")
        if "version" in content and not _is_ours(content["version"]):  # before the keys: another version has others
            raise DataError(
                f"preprocessing is of version {content['version']!r} and this darkroom knows {_VERSIONS}: "
                "use the darkroom that wrote it, or export it again"
            )
        odd = [f"lacks {name}" for name in sorted(known - set(content))]
        odd += [f"has an unknown {name}" for name in sorted(map(str, set(content) - known))]
        if odd:
            raise DataError(f"preprocessing {_short(' and '.join(odd))}: use the file that darkroom wrote")
        try:
            background = content["background"]
            return cls(**{**content, "background": tuple(background) if isinstance(background, list) else background})
        except UsageError as error:
            raise DataError(f"preprocessing cannot be used: {error}") from error

    @property
    def reduces(self) -> bool:
        """Whether a large JPEG is decoded at a part of its size."""
        return self.version >= 2 and self.interpolation != "nearest"

    def describe(self) -> list[str]:
        """The steps in plain words, in the order in which they happen."""
        size = f"{self.width}×{self.height} pixels"
        kept = "" if self.crop_fraction == 1 else f" {self.crop_fraction:.4g} of"
        resizing = {
            "cover": f"cut out{kept} the largest centred part of the target's shape and scale it to {size}",
            "stretch": f"scale the whole picture to {size} without keeping its proportions",
            "pad": f"scale the whole picture to fit {size} and fill the bars with the background",
        }[self.resize]
        reduced = ["decode a JPEG much larger than needed at 1/2, 1/4 or 1/8 of its sides"]
        return [
            *(reduced if self.reduces else []),
            "take the first frame and convert it to 8-bit RGB",
            "lay transparent parts on the background #{:02x}{:02x}{:02x}".format(*self.background),
            "turn it upright as its EXIF orientation says",
            f"{resizing} ({self.interpolation}, antialiased)".replace("nearest, antialiased", "nearest"),
            f"hand {self.height}×{self.width}×3 values of 0 to 255 to the network, which normalises them itself",
        ]


def load(
    source: Path | bytes,
    preprocessing: Preprocessing,
    *,
    max_pixels: int = MAX_PIXELS,
    max_seconds: float | None = None,
) -> Pixels:
    """Pixels (H, W, 3) of one picture as the network sees them; raises `ImageError`, leaving the name to the caller."""
    with opened(source, max_pixels=max_pixels, max_seconds=max_seconds) as image:
        # MPO is one, too; lossless ones quantise nothing, and cannot be reduced.
        if preprocessing.reduces and isinstance(image, JpegImageFile) and image.quantization:
            _reduce(image, preprocessing)
        return np.array(resized(rendered(image, background=preprocessing.background), preprocessing))


def decode(source: Path | bytes, *, background: Colour = WHITE, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame, upright, in mode RGB, at its own size; raises `ImageError`, leaving the name to the caller."""
    with opened(source, max_pixels=max_pixels) as image:
        return rendered(image, background=background)


@contextmanager
def opened(
    source: Path | bytes, *, max_pixels: int = MAX_PIXELS, max_seconds: float | None = None
) -> Iterator[Image.Image]:
    """Open a picture within bounds, not yet decoded; whatever fails in the `with` block becomes an `ImageError`.

    After `max_seconds`, bytes in memory are read no further, which ends decoders that read as they go (JPEG, PNG, GIF).
    """
    _silence_pillow()
    try:
        with _stream(source, max_seconds) as stream, Image.open(stream, formats=_formats(stream)) as image:
            _check_bounds(image, max_pixels)
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not a picture of a format that darkroom reads, or damaged at its start") from error
    except MemoryError as error:
        raise ImageError("not enough memory to decode it") from error
    except Exception as error:  # Pillow's readers let anything through, from zlib.error to IndexError
        raise ImageError(f"cannot be decoded: {_short(error) or type(error).__name__}") from error


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or where it is damaged."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata is no reason to refuse good pixels, and no viewer does
        return 1
    return int(value) if value in _TRANSPOSITIONS else 1


def rendered(image: Image.Image, *, background: Colour = WHITE) -> Image.Image:
    """An opened picture decoded to upright RGB."""
    image.load()
    rgb = _to_rgb(image, background)
    turn = _TRANSPOSITIONS.get(orientation(image))
    return rgb if turn is None else rgb.transpose(turn)


def resized(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """An RGB picture brought to the target's size."""
    target = (preprocessing.width, preprocessing.height)
    filter_ = Image.Resampling[preprocessing.interpolation.upper()]
    whole = (0.0, 0.0, float(image.width), float(image.height))
    if preprocessing.resize == "stretch":
        return _scaled(image, target, filter_, whole)
    if preprocessing.resize == "cover":
        return _scaled(image, target, filter_, _covering_box(image.size, target, preprocessing.crop_fraction))
    size = _fitting_size(image.size, target)
    canvas = Image.new("RGB", target, preprocessing.background)
    canvas.paste(_scaled(image, size, filter_, whole), _margins(size, target))
    return canvas


def _scaled(
    image: Image.Image, size: tuple[int, int], filter_: Image.Resampling, box: tuple[float, float, float, float]
) -> Image.Image:
    """The box of a picture at that size: first the width, then the height, each rounded to whole levels.

    Pillow 13 takes the height first where that is less work, its predecessors never did, and pixels differ by up to 30
    levels: the contract has one order, whatever the version.
    """
    left, top, right, bottom = box
    if filter_ == Image.Resampling.NEAREST:  # has no order, and no weights to round
        return image.resize(size, filter_, box=box)
    narrow = image.resize((size[0], image.height), filter_, box=(left, 0, right, image.height))
    return narrow.resize(size, filter_, box=(0, top, size[0], bottom))


def _reduce(image: JpegImageFile, preprocessing: Preprocessing) -> None:
    """Let an opened JPEG be decoded at a part of its size, where that is as the contract has it."""
    width, height = image.size
    target = (preprocessing.width, preprocessing.height)
    if orientation(image) >= 5:  # turned by a quarter afterwards
        target = (target[1], target[0])
    if preprocessing.resize == "cover":
        left, top, right, bottom = _covering_box(image.size, target, preprocessing.crop_fraction)
        spare = min((right - left) / target[0], (bottom - top) / target[1])
    elif preprocessing.resize == "stretch":
        spare = min(width / target[0], height / target[1])
    else:
        spare = max(width / target[0], height / target[1])
    for reduction in REDUCTIONS:
        if min(spare, width, height) >= SPARE * reduction:
            image.draft(None, (width // reduction, height // reduction))
            return


def used_part(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The part of a picture that reaches the network, at its own size, its edges rounded to whole pixels."""
    if preprocessing.resize != "cover":
        return image
    target = (preprocessing.width, preprocessing.height)
    left, top, right, bottom = map(round, _covering_box(image.size, target, preprocessing.crop_fraction))
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def used_box(size: tuple[int, int], preprocessing: Preprocessing) -> Box:
    """Where that part lies, in fractions of an upright picture of that size; bars of `pad` lie beyond 0 and 1."""
    (width, height), target = size, (preprocessing.width, preprocessing.height)
    if preprocessing.resize == "stretch":
        return 0.0, 0.0, 1.0, 1.0
    if preprocessing.resize == "cover":
        left, top, right, bottom = _covering_box(size, target, preprocessing.crop_fraction)
        return left / width, top / height, right / width, bottom / height
    fitted = _fitting_size(size, target)
    left, top = _margins(fitted, target)
    return -left / fitted[0], -top / fitted[1], (target[0] - left) / fitted[0], (target[1] - top) / fitted[1]


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened picture once it is upright; it need not be decoded for that."""
    width, height = image.size
    turned = orientation(image) >= 5 and image.format != "TIFF"  # Pillow tells a TIFF's size as if it were upright
    return (height, width) if turned else (width, height)


def _covering_box(
    size: tuple[int, int], target: tuple[int, int], crop_fraction: float
) -> tuple[float, float, float, float]:
    (width, height), (target_width, target_height) = size, target
    wider = width * target_height > height * target_width
    box_width = (height * target_width / target_height if wider else width) * crop_fraction
    box_height = (height if wider else width * target_height / target_width) * crop_fraction
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def _margins(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Of a centred picture: left of it and above."""
    return (target[0] - size[0]) // 2, (target[1] - size[1]) // 2


def _fitting_size(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    (width, height), (target_width, target_height) = size, target
    if width * target_height > height * target_width:
        return target_width, max(1, (2 * height * target_width + width) // (2 * width))
    return max(1, (2 * width * target_height + height) // (2 * height)), target_height


def _to_rgb(image: Image.Image, background: Colour) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_eight_bits(image)
    elif image.mode == "LAB":
        image = _lab_to_rgb(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # premultiplied grey converts to nothing but this
        image = image.convert("LA")
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:  # of a 16-bit PNG, whose low bytes are gone
        image.info["transparency"] = tuple(part >> 8 for part in key)
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(rgba, mask=rgba)
    return canvas


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits as L, or as LA where a key value is transparent."""
    values = np.asarray(image)  # (H, W)
    scale = np.float32(_scale(image, values))
    levels = np.empty(values.shape, dtype=np.uint8)
    rows = max(1, 2**20 // values.shape[1])
    for top in range(0, len(values), rows):  # in bands: as floats a large picture takes twice its memory and more
        band = values[top : top + rows].astype(np.float32)
        levels[top : top + rows] = np.floor(band * scale + np.float32(0.5))
    grey = Image.fromarray(levels)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey.putalpha(Image.fromarray(np.where(values == key, np.uint8(0), np.uint8(255))))
    return grey


def _scale(image: Image.Image, values: npt.NDArray[Any]) -> float:
    if image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I"):
        return 1 / 257
    low, high = float(values.min()), float(values.max())  # NaN if any value is
    if low >= 0 and high <= 1 and image.mode == "F":
        return 255.0
    if low >= 0 and high <= 65535:
        return 1.0 if high <= 255 else 1 / 257
    raise ImageError(f"its values go from {low:g} to {high:g}: rescale them to 0..1 (floats), 0..255 or 0..65535")


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms  # rarely needed

    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        raise ImageError("its LAB colours cannot be converted")
    return converted


class _TimedBytes(io.BytesIO):
    """Bytes that can be read for some seconds only."""

    def __init__(self, content: bytes, seconds: float) -> None:
        super().__init__(content)
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        """As `BytesIO.read`; raises `ImageError` when the time is over."""
        if time.monotonic() > self._end:
            raise too_slow(self._seconds)
        return super().read(size)


def too_slow(seconds: float) -> ImageError:
    """What to raise or tell of a picture whose decoding was given up."""
    return ImageError(f"takes longer than {seconds:g} s to decode")


def _stream(source: Path | bytes, max_seconds: float | None = None) -> BinaryIO:
    if isinstance(source, bytes | bytearray | memoryview):
        stream: BinaryIO = io.BytesIO(source) if max_seconds is None else _TimedBytes(source, max_seconds)
    else:
        stream = _open_file(source)
    if not stream.read(1):
        stream.close()
        raise ImageError("empty: it holds not a single byte")
    stream.seek(0)
    return stream


def _open_file(path: Path) -> BinaryIO:
    try:
        if stat.S_ISREG(path.stat().st_mode):  # a pipe would block for ever
            return path.open("rb")
    except FileNotFoundError as error:
        raise ImageError("no such file") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    raise ImageError("a folder, not a picture" if path.is_dir() else "not a regular file")


def _formats(stream: BinaryIO) -> tuple[str, ...]:
    brand = stream.read(12)[4:8]
    stream.seek(0)
    if brand != b"ftyp":
        return _FORMATS
    _register_heif()
    return _FTYP_FORMATS


@functools.cache
def _register_heif() -> None:
    import pillow_heif  # slow to import, and seldom needed

    pillow_heif.register_heif_opener()


def _check_bounds(image: Image.Image, max_pixels: int) -> None:
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    tile = (tags.get(322, 0), tags.get(323, 0))  # a TIFF's tiles are decoded whole, however small the picture is
    for width, height in (image.size, tile):
        if width * height > max_pixels:
            raise ImageError(f"too many pixels: {width}×{height}, where {max_pixels:,} are allowed")
    if min(image.size) < 1:
        raise ImageError(f"no pixels: its size is {image.size[0]}×{image.size[1]}")


_PILLOW_FILTER = ("ignore", None, Warning, re.compile(r"PIL\.|pillow_heif"), 0)


def _silence_pillow() -> None:
    """Keep Pillow's remarks on odd metadata from the screen; `catch_warnings` is not for programs with threads."""
    if _PILLOW_FILTER not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW_FILTER[3].pattern)


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(f"preprocessing: {message}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_ours(version: object) -> bool:
    return isinstance(version, int) and _is_whole(version) and OLDEST_VERSION <= version <= VERSION


_VERSIONS = f"{OLDEST_VERSION} to {VERSION}"


def _is_colour(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(_is_whole(part) and 0 <= part <= 255 for part in value)


def _short(content: object) -> str:
    text = " ".join(str(content).split())
    return text if len(text) <= 160 else text[:159] + "…"
