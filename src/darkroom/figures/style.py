"""One look for all figures: colours, type, and a sheet laid out in inches that fits an A4 page at its own size."""

import unicodedata
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.patches import Rectangle

from darkroom import files

WIDTH = 6.7
"""Inches; the text of an A4 page with margins of 2 cm. Figures are drawn to be shown unscaled."""
MAX_HEIGHT = 9.4
"""Inches left on such a page beside a caption."""
MARGIN = 0.08
PNG_DPI = 150
SVG_IMAGE_DPI = 220
MEASURE_DPI = 720

MAX_ROWS = 100
"""Classes that one figure lists; of more, those that matter most."""

TITLE, BODY, SMALL = 10.5, 8.0, 6.5
"""Points; nothing is set smaller than `SMALL`."""

# Okabe and Ito's colours, told apart with any common colour blindness
BLUE, ORANGE, GREEN, VERMILLION, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"
INK, MUTED, LINE, WASH = "#1B2430", "#5B6673", "#C9D0D8", "#F3F5F7"

RIGHT_SCALE = LinearSegmentedColormap.from_list("right", ["#FFFFFF", "#8FC3E2", BLUE, "#00304F"])
WRONG_SCALE = LinearSegmentedColormap.from_list("wrong", ["#FFFFFF", "#F5C08A", VERMILLION, "#6B2A00"])

# matplotlib brings DejaVu Sans, so Latin, Greek, Cyrillic and Arabic look alike on every machine; the others help where
# they are installed (matplotlib cannot draw fonts of colour bitmaps, such as Noto Color Emoji)
FALLBACK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "Microsoft YaHei"),
    *("PingFang SC", "Hiragino Sans", "Yu Gothic", "Malgun Gothic", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Hebrew", "Nirmala UI"),
    *("Noto Emoji", "Segoe UI Symbol", "Symbola"),
)

Horizontal = Literal["left", "center", "right"]
Vertical = Literal["top", "center", "bottom", "baseline"]


@lru_cache
def _settings() -> Any:  # matplotlib types its settings by a literal of all names
    installed = {font.name for font in fontManager.ttflist}
    return {
        "font.family": ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)],
        "font.size": BODY,
        "text.color": INK,
        "text.hinting": "none",  # letters as wide in print and on screen as measured
        "text.parse_math": False,  # a class may be called "$5_bill$"
        "axes.edgecolor": LINE,
        "axes.labelcolor": MUTED,
        "axes.labelsize": BODY,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.unicode_minus": True,
        "grid.color": LINE,
        "grid.linewidth": 0.4,
        "xtick.color": LINE,
        "ytick.color": LINE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        "lines.linewidth": 1.6,
        # letters as outlines: a reader's or typesetter's substitute font would overflow what was measured here;
        # matplotlib keeps each text readable as a comment beside its outlines
        "svg.fonttype": "path",
        "svg.hashsalt": "darkroom",  # the same input gives the same bytes
        "image.composite_image": False,
    }


@contextmanager
def look() -> Iterator[None]:
    """Draw in darkroom's look whatever the process has set, and pass over letters that no installed font has."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_settings())
        warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from")
        warnings.filterwarnings("ignore", message=r"(?s)Matplotlib currently does not support")
        yield


class Sheet:
    """A figure of `WIDTH` x `height` inches; places are inches from its top left corner, downwards."""

    def __init__(self, height: float, *, title: str, subtitle: str = "") -> None:
        self.title = title
        self.height = height + header_height(subtitle)
        self.top = header_height(subtitle)
        self.figure = Figure(figsize=(WIDTH, self.height), facecolor="white")
        FigureCanvasAgg(self.figure)
        self.canvas = self.figure.add_axes((0, 0, 1, 1))
        self.canvas.set(xlim=(0, WIDTH), ylim=(self.height, 0))
        self.canvas.set_axis_off()
        self.text(MARGIN, MARGIN, title, size=TITLE, weight="bold", vertical="top", width=WIDTH - 2 * MARGIN)
        if subtitle:
            self.text(MARGIN, 0.31, subtitle, color=MUTED, vertical="top", width=WIDTH - 2 * MARGIN)

    def text(
        self,
        left: float,
        top: float,
        text: str,
        *,
        size: float = BODY,
        color: str = INK,
        weight: str = "normal",
        horizontal: Horizontal = "left",
        vertical: Vertical = "center",
        width: float | None = None,
        rotation: float = 0,
    ) -> None:
        """Write one line of text, shortened to `width` inches where given."""
        shown = text if width is None else shorten(text, width, size=size, weight=weight)
        artist = self.canvas.text(left, top, shown, size=size, color=color, weight=weight)
        artist.set(ha=horizontal, va=vertical, rotation=rotation, rotation_mode="anchor")

    def panel(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes of their own in a rectangle of the sheet."""
        box = (left / WIDTH, 1 - (top + height) / self.height, width / WIDTH, height / self.height)
        return self.figure.add_axes(box)

    def picture(self, pixels: npt.NDArray[np.uint8], left: float, top: float, *, width: float, height: float) -> None:
        """Show `pixels` (H, W, 3), centred and as large as fits; tiny pictures keep their square pixels."""
        rows, columns = pixels.shape[:2]
        scale = min(width / columns, height / rows)  # inches a pixel
        shown_width, shown_height = columns * scale, rows * scale
        left, top = left + (width - shown_width) / 2, top + (height - shown_height) / 2
        interpolation = "nearest" if scale * PNG_DPI >= 1 else "hanning"
        extent = (left, left + shown_width, top + shown_height, top)
        self.canvas.imshow(pixels, extent=extent, interpolation=interpolation, aspect="auto", zorder=2)
        self.canvas.set(xlim=(0, WIDTH), ylim=(self.height, 0))

    def box(self, left: float, top: float, width: float, height: float, *, color: str) -> None:
        """Fill a rectangle of the sheet."""
        self.canvas.add_patch(Rectangle((left, top), width, height, facecolor=color, edgecolor="none"))

    def legend(self, entries: Mapping[str, tuple[str, str]]) -> None:
        """Name a (colour, marker) each, at the right of the title's line."""
        right = WIDTH - MARGIN
        for name, (color, marker) in reversed(list(entries.items())):
            right -= width_of(name)
            self.text(right, 0.17, name, color=MUTED)
            right -= 0.12
            self.canvas.plot(right, 0.17, marker, color=color, markersize=6, markeredgewidth=0)
            right -= 0.2

    def save(self, path: Path) -> Figure:
        """Write `path`.svg and `path`.png, whole or not at all, and give the figure back."""
        for suffix, dpi in ((".svg", SVG_IMAGE_DPI), (".png", PNG_DPI)):
            metadata = {"Title": self.title, **({"Date": None} if suffix == ".svg" else {})}
            with files.replacing(path.with_name(path.name + suffix)) as temporary:
                self.figure.savefig(temporary, dpi=dpi, metadata=metadata)
        return self.figure


def header_height(subtitle: str) -> float:
    """Inches that title and subtitle take."""
    return 0.62 if subtitle else 0.42


def width_of(text: str, *, size: float = BODY, weight: str = "normal") -> float:
    """Inches that one line of text takes."""
    return _measure(text, size, weight, tuple(mpl.rcParams["font.family"]))


def widest(texts: Sequence[str], *, size: float = BODY, weight: str = "normal") -> float:
    """Inches that the longest of the lines takes; 0 without lines."""
    return max((width_of(text, size=size, weight=weight) for text in texts), default=0.0)


def shorten(text: str, width: float, *, size: float = BODY, weight: str = "normal") -> str:
    """`text` on one line, with an ellipsis for part of its middle if it takes more than `width` inches."""
    line = " ".join(text.split())
    if width_of(line, size=size, weight=weight) <= width:
        return line
    low, high = 0, len(line)
    while low < high:
        middle = (low + high + 1) // 2
        fits = width_of(_abridge(line, middle), size=size, weight=weight) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return _abridge(line, low)


def wrap(text: str, width: float, *, lines: int, size: float = BODY) -> list[str]:
    """`text` on at most `lines` lines of `width` inches, broken at spaces and underscores where possible."""
    done: list[str] = []
    rest = " ".join(text.split())
    while rest and len(done) < lines - 1:
        end = _line_end(rest, width, size)
        done.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*done, shorten(rest, width, size=size)] if rest else done


def row_columns(count: int) -> tuple[int, int]:
    """Columns, and rows in each, that show `count` (at most `MAX_ROWS`) named rows on one page in legible letters."""
    columns = 1 if count <= 40 else 2
    return columns, -(-count // columns)


def ink_on(color: tuple[float, ...]) -> str:
    """The colour of letters to be read on a background of red, green and blue from 0 to 1."""
    return INK if float(np.dot(color[:3], (0.299, 0.587, 0.114))) > 0.55 else "white"


def percent(share: float) -> str:
    """A share of 1 in whole per cent, finer where that would call the nearly certain certain."""
    if 0.995 <= share < 1:
        return "> 99.9 %" if share >= 0.9995 else f"{100 * share:.1f} %"
    return f"{100 * share:.0f} %"


def _line_end(text: str, width: float, size: float) -> int:
    """Where to break `text` so that what is before keeps to `width` inches; at least one character on."""
    if width_of(text, size=size) <= width:
        return len(text)
    last = max(1, bisect_right(range(len(text)), width, key=lambda end: width_of(text[:end], size=size)) - 1)
    gaps = (end for end in range(last, 0, -1) if text[end - 1] in " _-" or text[end] == " ")
    return next(gaps, last)


def _abridge(line: str, kept: int) -> str:
    """The first and last characters of `line`, together `kept`: names of a kind often differ at their end only."""
    head = kept - kept * 2 // 5
    tail = len(line) - kept * 2 // 5
    while 0 < head < len(line) and _joined(line, head):
        head -= 1
    while 0 < tail < len(line) and _joined(line, tail):
        tail += 1
    return line[:head].rstrip() + "…" + line[tail:].lstrip()


def _joined(line: str, place: int) -> bool:
    """Whether a cut at `place` would part a letter from its accent, or the pieces of an emoji."""
    return bool(unicodedata.combining(line[place])) or "\u200d" in line[place - 1 : place + 1]


@lru_cache(maxsize=20_000)
def _measure(text: str, size: float, weight: str, family: tuple[str, ...]) -> float:
    properties = FontProperties(family=list(family), size=size, weight=weight)
    width, _, _ = _renderer().get_text_width_height_descent(text, properties, ismath=False)
    return float(width) / MEASURE_DPI


@lru_cache
def _renderer() -> Any:  # matplotlib's renderers are not typed
    renderer: Any = RendererAgg
    return renderer(8, 8, MEASURE_DPI)
