"""Figures of a data set: its pictures, the sizes of its classes and splits, its augmentation."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from darkroom.figures import style
from darkroom.figures.style import BODY, MARGIN, MAX_HEIGHT, MUTED, SMALL, VERMILLION, WIDTH, Sheet

Pixels = npt.NDArray[np.uint8]

GAP = 0.06
"""Inches between pictures."""
SPLIT_COLORS = {"train": style.BLUE, "validation": style.ORANGE, "test": style.GREEN}
SAMPLE_LAYOUTS = ((12, 1, 8), (26, 2, 3), (48, 3, 2), (style.MAX_ROWS, 4, 2))
"""For up to so many classes: columns of classes, and pictures a class."""


@style.look()
def samples(path: Path, *, pixels_by_class: Mapping[str, Pixels]) -> Figure:
    """Draw some pictures (n, H, W, 3) of each class, beside its name."""
    names = list(pixels_by_class)[: style.MAX_ROWS]
    columns, most = next((columns, most) for limit, columns, most in SAMPLE_LAYOUTS if len(names) <= limit)
    rows = -(-len(names) // columns)
    shown = max(1, min(most, max(len(pixels_by_class[name]) for name in names)))
    size = BODY if columns < 3 else SMALL
    width = (WIDTH - 2 * MARGIN + 0.2) / columns  # of a column of classes, with the space after it
    label = min(style.widest(names, size=size) + 0.1, (0.28 if columns == 1 else 0.5) * width)
    pitch = min((width - 0.2 - label) / shown, (MAX_HEIGHT - 0.7) / rows, 0.85)
    sheet = Sheet(rows * pitch + MARGIN, title="Pictures of each class", subtitle=_left_out(pixels_by_class))
    for place, name in enumerate(names):
        left, top = MARGIN + place // rows * width, sheet.top + place % rows * pitch
        lines = style.wrap(name, label - 0.08, lines=max(1, int((pitch - GAP) / 0.11)), size=size)
        for line, text in enumerate(lines):
            sheet.text(left, top + (pitch - GAP) / 2 + (line - (len(lines) - 1) / 2) * size / 55, text, size=size)
        for index, pixels in enumerate(pixels_by_class[name][:shown]):
            sheet.picture(pixels, left + label + index * pitch, top, width=pitch - GAP, height=pitch - GAP)
    return sheet.save(path)


@style.look()
def class_balance(path: Path, *, counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw the number of pictures of each class, a bar cut into the splits; `counts` are by split, then class."""
    classes = list(dict.fromkeys(name for by_class in counts.values() for name in by_class))
    parts = {name: [by_class.get(name, 0) for by_class in counts.values()] for name in classes}
    shown = _largest_and_smallest(parts)
    columns, rows = style.row_columns(len(shown))
    pitch = min(0.26, (MAX_HEIGHT - 0.75) / rows)
    size = BODY if pitch > 0.18 else SMALL + 0.5
    colors = [SPLIT_COLORS.get(split, MUTED) for split in counts]
    sheet = Sheet(rows * pitch + MARGIN, title="Pictures in each class and split", subtitle=_balance(parts, shown))
    sheet.legend({split: (color, "s") for split, color in zip(counts, colors, strict=True)})
    notes = {name: _count_note(parts[name], detailed=columns == 1) for name in shown}
    width = (WIDTH - 2 * MARGIN + 0.25) / columns
    label = min(style.widest(shown, size=size), 0.4 * width) + 0.02
    room = width - 0.25 - label - style.widest(list(notes.values()), size=size) - 0.2  # of the longest bar
    inch = room / max(1, *(sum(part) for part in parts.values()))
    for place, name in enumerate(shown):
        left, middle = MARGIN + place // rows * width, sheet.top + (place % rows + 0.5) * pitch
        sheet.text(left + label, middle, name, size=size, width=label, horizontal="right")
        left += label + 0.08
        for part, color in zip(parts[name], colors, strict=True):
            sheet.box(left, middle - 0.34 * pitch, part * inch, 0.68 * pitch, color=color)
            left += part * inch
        sheet.text(left + 0.06, middle, notes[name], size=size, color=MUTED if all(parts[name]) else VERMILLION)
    return sheet.save(path)


@style.look()
def augmented(path: Path, *, originals: Pixels, views: Pixels) -> Figure:
    """Draw up to 8 `originals` (n, H, W, 3), each beside up to 8 of its augmented `views` (n, v, H, W, 3)."""
    originals, views = originals[:8], views[:8, :8]
    after_original = 0.2
    pitch = min(0.85, (WIDTH - 2 * MARGIN - after_original) / (1 + views.shape[1]), (MAX_HEIGHT - 0.9) / len(originals))
    sheet = Sheet(len(originals) * pitch + 0.22 + MARGIN, title="What the network sees")
    first_view = MARGIN + pitch + after_original
    sheet.text(MARGIN, sheet.top + 0.05, "original", color=MUTED, size=7.5)
    sheet.text(first_view, sheet.top + 0.05, "augmented views, new ones in every epoch", color=MUTED, size=7.5)
    for row, (original, versions) in enumerate(zip(originals, views, strict=True)):
        top, side = sheet.top + 0.2 + row * pitch, pitch - GAP
        sheet.picture(original, MARGIN, top, width=side, height=side)
        for column, version in enumerate(versions):
            sheet.picture(version, first_view + column * pitch, top, width=side, height=side)
    return sheet.save(path)


def _left_out(by_class: Mapping[str, Pixels]) -> str:
    return f"the first {style.MAX_ROWS} of {len(by_class):,} classes" if len(by_class) > style.MAX_ROWS else ""


def _largest_and_smallest(parts: Mapping[str, list[int]]) -> list[str]:
    """All classes in their order, or where there are too many, the ends of their ranking by size."""
    if len(parts) <= style.MAX_ROWS:
        return list(parts)
    ranked = sorted(parts, key=lambda name: -sum(parts[name]))
    return ranked[: style.MAX_ROWS // 2] + ranked[-style.MAX_ROWS // 2 :]


def _balance(parts: Mapping[str, list[int]], shown: list[str]) -> str:
    sizes = [sum(part) for part in parts.values()]
    said = [f"{sum(sizes):,} pictures, {len(sizes):,} classes of {min(sizes):,} to {max(sizes):,}"]
    if len(shown) < len(parts):
        said.append(f"the {len(shown) // 2} largest and {len(shown) // 2} smallest are shown")
    if not all(all(parts[name]) for name in shown):
        said.append("red numbers: a split has none")
    return " · ".join(said)


def _count_note(part: list[int], *, detailed: bool) -> str:
    return " + ".join(f"{count:,}" for count in part) if detailed else f"{sum(part):,}"
