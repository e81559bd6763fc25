"""A network drawn as a row of volumes that shrink in height (resolution) and grow in width (channels)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from darkroom.figures import style
from darkroom.figures.style import MARGIN, MUTED, SMALL, WIDTH, Sheet

SLOTS = 8
"""Volumes side by side."""
TALLEST, LOWEST, WIDEST, NARROWEST = 1.25, 0.12, 0.34, 0.07
"""Inches of a volume's front."""
LINE = 0.125
"""Inches from one line of a label to the next."""
KIND_LINES = 8
"""Lines that name the layers of one volume."""
PASSING = ("Identity", "Flatten", "Dropout")
"""Layers of pre-trained networks that compute nothing where they are used."""
SHORT = {"AdaptiveAvgPool2d": "global mean pooling", "SelectAdaptivePool2d": "global mean pooling"}
"""Names that people know, by those of PyTorch and timm."""
COLORS = (("conv", style.BLUE), ("pool", style.GREEN), ("linear", style.VERMILLION), ("full", style.VERMILLION))


@dataclass(frozen=True)
class LayerRow:
    """One layer: its output of shape (C, H, W) or (C,), without the batch, and multiply-adds for one picture."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class _Volume:
    rows: tuple[LayerRow, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows[-1].output_shape

    @property
    def kinds(self) -> list[str]:
        """Kinds of layer in their order, with their number where it is more than one; what only passes on is none."""
        number = Counter(SHORT.get(row.kind, row.kind) for row in self.rows if row.kind not in PASSING)
        return [kind if count == 1 else f"{count} × {kind}" for kind, count in number.items()]


@style.look()
def diagram(path: Path, *, layers: Sequence[LayerRow]) -> Figure:
    """Draw the layers from the first to the last; more than 8 are drawn as stages of one resolution each."""
    volumes = _volumes([row for row in layers if row.output_shape])  # parameters in no layer count, and have no volume
    lines = -(-len(volumes) // SLOTS)
    slot = (WIDTH - 2 * MARGIN) / min(SLOTS, max(len(volumes), 5))
    labels = [_label(volume, slot - 0.14) for volume in volumes]
    pitch = TALLEST + 0.55 + max(len(label) for label in labels) * LINE
    parameters, work = sum(row.parameters for row in layers), sum(row.multiply_adds for row in layers)
    subtitle = f"{len(layers)} layers, {_short(parameters)} parameters, {_short(work)} multiply-adds a picture"
    sheet = Sheet(lines * pitch, title="The network", subtitle=subtitle)
    tallest = max(_resolution(volume) for volume in volumes)
    widest = max(volume.shape[0] for volume in volumes)
    for place, (volume, label) in enumerate(zip(volumes, labels, strict=True)):
        middle = MARGIN + (place % SLOTS + 0.5) * slot
        base = sheet.top + place // SLOTS * pitch + TALLEST + 0.25
        height = max(LOWEST, TALLEST * (_resolution(volume) / tallest) ** 0.5)
        width = max(NARROWEST, WIDEST * (volume.shape[0] / widest) ** 0.5)
        if place % SLOTS:
            _arrow(sheet, middle - slot / 2, base - TALLEST / 2)
        _box(sheet, middle, base - (TALLEST - height) / 2, width, height, color=_color(volume))
        for line, text in enumerate(label):
            weight, color = ("bold" if line == 0 else "normal"), (MUTED if line == len(label) - 1 else style.INK)
            top = base + 0.18 + line * LINE
            sheet.text(
                middle, top, text, size=SMALL, weight=weight, color=color, width=slot - 0.06, horizontal="center"
            )
    return sheet.save(path)


def _volumes(layers: Sequence[LayerRow]) -> list[_Volume]:
    if len(layers) <= SLOTS:
        return [_Volume((row,)) for row in layers]
    stages: list[list[LayerRow]] = []
    for row in layers:
        if stages and stages[-1][-1].output_shape[1:] == row.output_shape[1:]:
            stages[-1].append(row)
        else:
            stages.append([row])
    return [_Volume(tuple(stage)) for stage in stages]


def _box(sheet: Sheet, middle: float, base: float, width: float, height: float, *, color: str) -> None:
    """A box in oblique projection, its front `width` x `height`."""
    depth = 0.22 * height
    left, right, top = middle - (width + depth) / 2, middle + (width - depth) / 2, base - height
    front = ((left, base), (right, base), (right, top), (left, top))
    roof = ((left, top), (right, top), (right + depth, top - depth), (left + depth, top - depth))
    side = ((right, base), (right, top), (right + depth, top - depth), (right + depth, base - depth))
    for corners, shade in ((front, 0.0), (roof, 0.45), (side, -0.25)):
        sheet.canvas.add_patch(
            Polygon(corners, facecolor=_shade(color, shade), edgecolor="white", linewidth=0.5, joinstyle="round")
        )


def _shade(color: str, amount: float) -> tuple[float, ...]:
    """`color`, lighter by a positive `amount` and darker by a negative one."""
    target = 1.0 if amount > 0 else 0.0
    return tuple(part + (target - part) * abs(amount) for part in to_rgb(color))


def _arrow(sheet: Sheet, left: float, top: float) -> None:
    sheet.canvas.plot(left, top, ">", color=style.LINE, markersize=3.5, markeredgewidth=0)


def _label(volume: _Volume, width: float) -> list[str]:
    """Output shape, kinds of layer, parameters: lines of `width` inches."""
    shape = "×".join(str(side) for side in volume.shape)
    kinds: list[str] = []
    for place, kind in enumerate(volume.kinds):
        lines = style.wrap(kind, width, lines=3, size=SMALL)
        if len(kinds) + len(lines) > KIND_LINES:
            kinds = [*kinds[: KIND_LINES - 1], f"+ {len(volume.kinds) - place} more kinds"]
            break
        kinds += lines
    parameters = sum(row.parameters for row in volume.rows)
    return [shape, *kinds, f"{_short(parameters)} param." if parameters else "–"]


def _resolution(volume: _Volume) -> int:
    return max(volume.shape[1:], default=1)


def _color(volume: _Volume) -> str:
    """By the kind of layer that works most; of equals, the first."""
    kind = max(volume.rows, key=lambda row: row.multiply_adds).kind.lower()
    return next((color for word, color in COLORS if word in kind), MUTED)


def _short(number: int) -> str:
    """Three figures and a unit: 1.97 M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
