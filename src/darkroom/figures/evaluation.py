"""Figures of what a network gets right and wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from darkroom.figures import style
from darkroom.figures.style import (
    BLUE,
    BODY,
    INK,
    LINE,
    MARGIN,
    MAX_HEIGHT,
    MUTED,
    ORANGE,
    SKY,
    SMALL,
    VERMILLION,
    WIDTH,
    Sheet,
)  # fmt: skip

Pairs = Sequence[tuple[str, str, int, float]]
Numbers = npt.NDArray[np.floating]

LISTED = 8
"""Confusions named below a matrix whose cells are too small for numbers."""
LINE_HEIGHT = 0.115
"""Inches from one small label to the next."""


@dataclass(frozen=True)
class _Grid:
    """Where a confusion matrix lies on its sheet, in inches."""

    left: float
    top: float
    cell: float
    label: float
    column_label: float
    numbers: float | None  # points, or None where numbers don't fit


@style.look()
def confusion_matrix(
    path: Path, *, confusion: Sequence[Sequence[int]], classes: Sequence[str], pairs: Pairs = ()
) -> Figure:
    """Draw counts, rows true and columns predicted, coloured by their share of the true class.

    Where numbers do not fit the cells, the first of `pairs` (true class, predicted class, pictures, share) are listed.
    """
    counts = np.array(confusion)  # (K, K)
    grid = _grid(counts, classes)
    side = len(classes) * grid.cell
    pairs = [] if grid.numbers else pairs[:LISTED]
    below = 0.3 + LINE_HEIGHT * 1.3 * -(-len(pairs) // 2) if pairs else 0.0
    sheet = Sheet(
        grid.top + side + MARGIN + below, title="Confusion matrix", subtitle="rows: true · columns: predicted class"
    )
    _color_key(sheet)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    _cells(sheet, grid, counts, _colors(shares))
    _class_labels(sheet, grid, classes)
    if pairs:
        _list_confusions(sheet, sheet.top + grid.top + side + 0.2, pairs)
    return sheet.save(path)


@style.look()
def reliability_diagram(
    path: Path,
    *,
    count: npt.NDArray[np.int64],
    confidence: Numbers,
    accuracy: Numbers,
    low: Numbers,
    high: Numbers,
    ece: Mapping[str, float],
    threshold: float | None = None,
) -> Figure:
    """Draw accuracy with its interval, and pictures, against confidence: (B,) each, in equal bins from 0 to 1.

    `ece` holds value, low and high of the expected calibration error, `threshold` the confidence of "not sure".
    """
    said = f"expected calibration error {ece['value']:.3f} (95 % interval {ece['low']:.3f} to {ece['high']:.3f})"
    sheet = Sheet(3.55, title="Can its confidence be believed?", subtitle=f"{said} · {count.sum():,} pictures")
    side = 2.75
    trust = sheet.panel(0.6, sheet.top + 0.25, side, side)
    histogram = sheet.panel(WIDTH - MARGIN - 0.12 - side + 0.35, sheet.top + 0.25, side - 0.35, side)
    filled = count > 0
    trust.plot((0, 1), (0, 1), color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    errors = np.abs(np.stack([accuracy - low, high - accuracy])[:, filled])
    trust.errorbar(
        confidence[filled], accuracy[filled], errors, fmt="o-", color=BLUE, markersize=4, elinewidth=1, linewidth=1
    )
    trust.set_ylim(-0.02, 1.02)
    trust.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    sheet.text(0.6, sheet.top + 0.1, "accuracy; dashed: ideal", color=MUTED)
    bins = len(count)
    histogram.bar((np.arange(bins) + 0.5) / bins, count, width=0.86 / bins, color=BLUE)
    histogram.set_ylim(bottom=0)
    histogram.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    histogram.yaxis.set_major_formatter("{x:,.0f}")
    sheet.text(WIDTH - MARGIN - 0.12 - side + 0.35, sheet.top + 0.1, "pictures", color=MUTED)
    for axes in (trust, histogram):
        _confidence_axis(axes, threshold)
    if threshold is not None:
        sheet.legend({f"not sure: below {style.percent(threshold)}": (LINE, "s")})
    return sheet.save(path)


@style.look()
def worst_mistakes(
    path: Path,
    *,
    pixels: npt.NDArray[np.uint8],
    true: Sequence[str],
    predicted: Sequence[str],
    confidence: Sequence[float],
) -> Figure:
    """Draw up to 20 wrongly classified pictures (n, H, W, 3), in the order given, with both names."""
    columns, number = 5, min(len(pixels), 20)
    width = (WIDTH - 2 * MARGIN) / columns
    side = width - 0.14
    pitch = side + 0.54
    rows = -(-number // columns)
    sheet = Sheet(
        max(rows * pitch, 0.35),
        title="The most confident mistakes" if number else "No mistakes",
        subtitle="what the network said and how surely, and what the picture is" if number else "",
    )
    if not number:
        sheet.text(MARGIN, sheet.top + 0.1, "Every picture of this split was classified correctly.", color=MUTED)
    for place in range(number):
        left, top = MARGIN + place % columns * width, sheet.top + place // columns * pitch
        sheet.picture(pixels[place], left, top, width=side, height=side)
        surely = style.percent(confidence[place])
        room = side - style.width_of(surely, size=8.5, weight="bold") - 0.1
        sheet.text(left, top + side + 0.12, predicted[place], size=8.5, weight="bold", color=VERMILLION, width=room)
        sheet.text(
            left + side, top + side + 0.12, surely, size=8.5, weight="bold", color=VERMILLION, horizontal="right"
        )
        sheet.text(left, top + side + 0.28, f"is {true[place]}", size=8.5, color=MUTED, width=side)
    return sheet.save(path)


@dataclass(frozen=True)
class Look:
    """A picture (H, W, 3), the map (H, W) of evidence for what was said of it, and whether that was right."""

    pixels: npt.NDArray[np.uint8]
    map: Numbers
    true: str
    predicted: str

    @property
    def right(self) -> bool:
        """Whether the network named it rightly."""
        return self.true == self.predicted


@style.look()
def activation_maps(path: Path, *, looks: Sequence[Look]) -> Figure:
    """Draw pictures beside themselves under their maps, three a row; those that were named wrongly last."""
    columns = 3
    width = (WIDTH - 2 * MARGIN) / columns
    side = (width - 0.2) / 2
    pitch = side + 0.42
    rows = -(-len(looks) // columns)
    sheet = Sheet(
        rows * pitch,
        title="Where the network looks",
        subtitle="evidence for the class that it names (Grad-CAM): bright where it counts, dark where it does not",
    )
    for place, look in enumerate(sorted(looks, key=lambda look: not look.right)):
        left, top = MARGIN + place % columns * width, sheet.top + place // columns * pitch
        sheet.picture(look.pixels, left, top, width=side, height=side)
        sheet.picture(lit(look.pixels, look.map), left + side + 0.04, top, width=side, height=side)
        text = look.predicted if look.right else f"{look.predicted}, is {look.true}"
        sheet.text(left, top + side + 0.12, text, size=7.5, color=INK if look.right else VERMILLION, width=2 * side)
    return sheet.save(path)


def lit(pixels: npt.NDArray[np.uint8], strength: Numbers) -> npt.NDArray[np.uint8]:
    """The picture (H, W, 3), dark where the map (H, W) of 0 to 1 is low."""
    light = 0.15 + 0.85 * np.sqrt(strength)[:, :, None]
    result: npt.NDArray[np.uint8] = (pixels * light).round().astype(np.uint8)
    return result


@style.look()
def per_class(path: Path, *, scores: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw precision, recall and F1 of each class, the best F1 first; `scores` are metrics.json's `per_class`."""
    present = {name: row for name, row in scores.items() if row["support"] > 0}
    ranked = sorted(present, key=lambda name: -present[name]["f1"])[-style.MAX_ROWS :]
    columns, rows = style.row_columns(max(1, len(ranked)))
    pitch = min(0.24, (MAX_HEIGHT - 0.95) / rows)
    size = BODY if pitch > 0.18 else SMALL + 0.5
    sheet = Sheet(rows * pitch + 0.3, title="Precision, recall and F1", subtitle=_per_class_note(scores, ranked))
    marks = {"precision": (SKY, ">"), "recall": (ORANGE, "s"), "f1": (INK, "o")}
    sheet.legend({name if name != "f1" else "F1": mark for name, mark in marks.items()})
    width = (WIDTH - 2 * MARGIN + 0.3) / columns
    label = min(style.widest(ranked, size=size), 0.4 * width) + 0.02
    room = width - 0.3 - label - 0.75
    lowest = min((min(present[name][mark] for mark in marks) for name in ranked), default=0.0)
    floor = np.floor(lowest * 10 - 1e-9).clip(0, 9) / 10
    for column in range(columns):
        left = MARGIN + column * width + label + 0.12
        shown = ranked[column * rows : (column + 1) * rows]
        _score_scale(sheet, left, room, floor, bottom=sheet.top + 0.24 + len(shown) * pitch)
        for place, name in enumerate(shown):
            middle = sheet.top + 0.24 + (place + 0.5) * pitch
            sheet.text(left - 0.12, middle, name, size=size, width=label, horizontal="right")
            sheet.text(left + room + 0.12, middle, f"{present[name]['f1']:.3f}", size=size, color=MUTED)
            places = {mark: left + room * (present[name][mark] - floor) / (1 - floor) for mark in marks}
            sheet.canvas.plot((min(places.values()), max(places.values())), (middle, middle), color=LINE, linewidth=1.5)
            for mark, (color, marker) in marks.items():
                sheet.canvas.plot(places[mark], middle, marker, color=color, markersize=min(5, 22 * pitch), mew=0)
    return sheet.save(path)


@style.look()
def confused_pairs(path: Path, *, pairs: Pairs) -> Figure:
    """Draw up to 15 (true class, predicted class, pictures, share of the true class) as bars, in the order given."""
    shown = pairs[:15]
    pitch = 0.25
    sheet = Sheet(
        max(len(shown), 1) * pitch + MARGIN,
        title="Classes most often confused" if shown else "No class was confused with another",
        subtitle="true class → what the network said; pictures and their share of the true class" if shown else "",
    )
    limit = 1.6
    true = min(style.widest([pair[0] for pair in shown]), limit) + 0.02
    said = min(style.widest([pair[1] for pair in shown]), limit) + 0.02
    left = MARGIN + true + 0.3 + said + 0.1
    notes = [f"{count:,} ({style.percent(share)})" for _, _, count, share in shown]
    inch = (WIDTH - MARGIN - left - style.widest(notes) - 0.12) / max((pair[2] for pair in shown), default=1)
    for place, ((name, other, count, _), note) in enumerate(zip(shown, notes, strict=True)):
        middle = sheet.top + (place + 0.5) * pitch
        sheet.text(MARGIN + true, middle, name, width=true, horizontal="right")
        sheet.text(MARGIN + true + 0.15, middle, "→", color=MUTED, horizontal="center")
        sheet.text(MARGIN + true + 0.3, middle, other, width=said)
        sheet.box(left, middle - 0.35 * pitch, count * inch, 0.7 * pitch, color=VERMILLION)
        sheet.text(left + count * inch + 0.06, middle, note, color=MUTED)
    return sheet.save(path)


def _grid(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> _Grid:
    """The largest cells, up to 1.1 inches, that leave room for labels."""
    label = min(style.widest(classes, size=7.5), 1.5)
    left = MARGIN + label + 0.1
    cell = min((WIDTH - MARGIN - left) / len(classes), 1.1)
    level = style.widest(classes, size=7.5) <= cell - 0.08
    column_label = 0.16 if level else min(style.widest(classes, size=7.5), 1.2) + 0.1
    cell = min(cell, (MAX_HEIGHT - 0.62 - column_label - 1.0) / len(classes))
    widest_number = f"{counts.max():,}"
    sizes = (9.0, 8.0, 7.0, SMALL)
    fitting = [size for size in sizes if style.width_of(widest_number, size=size) <= 0.86 * cell and size / 50 <= cell]
    return _Grid(left, column_label, cell, label, column_label, fitting[0] if fitting else None)


def _colors(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Red, green and blue (K, K, 3): what is right in blue, what is wrong in red, of which even little shows."""
    colors = style.WRONG_SCALE(np.sqrt(shares))[..., :3]
    diagonal = np.arange(len(shares))
    colors[diagonal, diagonal] = style.RIGHT_SCALE(shares.diagonal())[:, :3]
    return colors


def _cells(sheet: Sheet, grid: _Grid, counts: npt.NDArray[np.int64], colors: npt.NDArray[np.float64]) -> None:
    top, side = sheet.top + grid.top, len(counts) * grid.cell
    if grid.numbers is None:
        extent = (grid.left, grid.left + side, top + side, top)
        sheet.canvas.imshow(colors, extent=extent, interpolation="nearest", aspect="auto")
        sheet.canvas.set(xlim=(0, WIDTH), ylim=(sheet.height, 0))
        corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]) * side + (grid.left, top)
        sheet.canvas.plot(*corners.T, color=LINE, linewidth=0.7)
        return
    for row, column in np.ndindex(*counts.shape):
        left, upper = grid.left + column * grid.cell, top + row * grid.cell
        color = tuple(colors[row, column]) if counts[row, column] else style.WASH
        sheet.canvas.add_patch(
            Rectangle((left, upper), grid.cell, grid.cell, facecolor=color, edgecolor="white", linewidth=0.8)
        )
        if counts[row, column]:
            ink = style.ink_on(tuple(colors[row, column]))
            lines = [f"{counts[row, column]:,}"]
            if grid.cell > 0.7:
                lines.append(style.percent(counts[row, column] / counts[row].sum()))
            for line, text in enumerate(lines):
                middle = upper + grid.cell / 2 + (line - (len(lines) - 1) / 2) * 0.17
                size = grid.numbers if line == 0 else 7.5
                sheet.text(left + grid.cell / 2, middle, text, size=size, color=ink, horizontal="center")


def _class_labels(sheet: Sheet, grid: _Grid, classes: Sequence[str]) -> None:
    """Names at rows and columns; where not all fit, at every second, fifth, tenth ... one."""
    steps = (1, 2, 5, 10, 20, 50, 100, 200, 500)
    step = next((step for step in steps if step * grid.cell >= LINE_HEIGHT), len(classes))
    size = 7.5 if grid.cell * step > 0.14 else SMALL
    level = style.widest(classes, size=7.5) <= grid.cell - 0.08
    top = sheet.top + grid.top
    for place in range(0, len(classes), step):
        middle = (place + 0.5) * grid.cell
        row = (grid.left - 0.06, top + middle)
        column = (grid.left + middle, top - 0.06)
        sheet.text(*row, classes[place], size=size, width=grid.label, horizontal="right")
        if level:
            sheet.text(*column, classes[place], size=size, horizontal="center", vertical="bottom")
        else:
            room = grid.column_label - 0.08
            sheet.text(*column, classes[place], size=size, width=room, rotation=90)
        if step > 1:
            sheet.canvas.plot((grid.left - 0.04, grid.left), (row[1], row[1]), color=MUTED, linewidth=0.6)
            sheet.canvas.plot((column[0], column[0]), (top - 0.04, top), color=MUTED, linewidth=0.6)


def _color_key(sheet: Sheet) -> None:
    right = WIDTH - MARGIN
    for name, scale, root in (("wrong", style.WRONG_SCALE, True), ("right", style.RIGHT_SCALE, False)):
        right = _ramp(sheet, right, name, scale, root=root) - 0.25


def _ramp(sheet: Sheet, right: float, name: str, scale: Colormap, *, root: bool) -> float:
    """Draw a colour scale from 0 to 100 % of a true class that ends at `right`; returns where it starts."""
    middle, length = 0.37, 0.7
    right -= style.width_of("100 %", size=7.5)
    sheet.text(right, middle, "100 %", size=7.5, color=MUTED)
    values = np.linspace(0, 1, 128)[None]
    left = right - 0.05 - length
    extent = (left, left + length, middle + 0.05, middle - 0.05)
    colors = scale(np.sqrt(values) if root else values)
    sheet.canvas.imshow(colors, extent=extent, interpolation="nearest", aspect="auto")
    sheet.canvas.set(xlim=(0, WIDTH), ylim=(sheet.height, 0))
    said = f"{name}: 0"
    left -= style.width_of(said, size=7.5) + 0.05
    sheet.text(left, middle, said, size=7.5, color=MUTED)
    return left


def _list_confusions(sheet: Sheet, top: float, pairs: Pairs) -> None:
    sheet.text(MARGIN, top, "Most often confused, true → predicted", size=7.5, weight="bold")
    rows = -(-len(pairs) // 2)
    width = WIDTH / 2 - MARGIN
    for place, (true, predicted, count, share) in enumerate(pairs):
        left, middle = MARGIN + place // rows * width, top + 0.17 + place % rows * LINE_HEIGHT * 1.3
        note = f"{count:,} ({style.percent(share)})"
        room = (width - 0.35 - style.width_of(f"{note} → ", size=7)) / 2
        names = " → ".join(style.shorten(name, room, size=7) for name in (true, predicted))
        sheet.text(left, middle, names, size=7)
        sheet.text(left + width - 0.2, middle, note, size=7, color=MUTED, horizontal="right")


def _confidence_axis(axes: Axes, threshold: float | None) -> None:
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("confidence")
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.tick_params(length=2)
    if threshold is not None:
        axes.axvspan(0, threshold, color=LINE, alpha=0.35, linewidth=0, zorder=0)


def _score_scale(sheet: Sheet, left: float, room: float, floor: float, *, bottom: float) -> None:
    """Vertical lines at tenths, or fifths where there are many, named at their top."""
    step = 0.1 if 1 - floor <= 0.45 else 0.2
    for value in np.arange(1, floor - 1e-9, -step):
        place = left + room * (value - floor) / (1 - floor)
        sheet.canvas.plot((place, place), (sheet.top + 0.22, bottom), color=LINE, linewidth=0.5, zorder=0)
        sheet.text(place, sheet.top + 0.12, f"{value:.1f}", size=7.5, color=MUTED, horizontal="center")


def _per_class_note(scores: Mapping[str, Mapping[str, float]], ranked: Sequence[str]) -> str:
    absent = [name for name, row in scores.items() if row["support"] == 0]
    said = []
    if len(ranked) < len(scores) - len(absent):
        said.append(f"the {len(ranked)} weakest of {len(scores):,} classes")
    if absent:
        said.append(f"without pictures here: {', '.join(absent)}")
    return " · ".join(said)
