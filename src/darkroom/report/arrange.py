"""How large each figure is shown, so that pages are full: what does not fit onto one leaves a gap at its end."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

WIDTH, HEIGHT = 482.0, 728.0
"""Points that the text of a page takes."""
TALLEST = 0.84 * HEIGHT
"""Of a figure, which leaves room for a long caption."""
SCALES = (0.86, 0.95, 0.78, 0.72)
"""Parts of the width, the usual one first; smaller ones would make letters too small."""
FLOAT_COST, SMALL_COST, EXTRA_PAGE_COST = 25.0, 60.0, 2000.0
"""Points of empty paper that are worth it: to show a figure before or after its place, the full width, a 15th page."""
MOST_PAGES = 14
SWEEPS = 2


@dataclass(frozen=True)
class Shown:
    """A part of the width, and whether a figure may float to the top or bottom of a page, past the text around it."""

    scale: float
    floats: bool = False

    @property
    def cost(self) -> float:
        """Points of empty paper that it is worth."""
        return FLOAT_COST * self.floats + SMALL_COST * (1 - self.scale)


Arrangement = Mapping[str, Shown]
Laid = Callable[[Arrangement], float]
"""Points from the top of the first page to the end of the text, in such an arrangement."""


def arranged(figures: Mapping[str, float], laid: Laid) -> dict[str, Shown]:
    """The arrangement with the least empty paper that is found by changing one figure after the other.

    `figures` has their height for each point of width, in their order.
    """
    found = {name: next(choices(aspect)) for name, aspect in figures.items()}
    best = _waste(figures, found, laid)
    for _ in range(SWEEPS):
        before = best
        for name, aspect in figures.items():
            for choice in choices(aspect):
                tried = {**found, name: choice}
                waste = _waste(figures, tried, laid)
                if waste < best - 1:
                    found, best = tried, waste
        if best == before:
            break
    return found


def choices(aspect: float) -> Iterator[Shown]:
    """How a figure may be shown; none is taller than a page."""
    most = TALLEST / (WIDTH * max(aspect, 0.01))
    scales = list(dict.fromkeys(min(scale, most) for scale in SCALES))
    yield from map(Shown, scales)
    yield Shown(scales[0], floats=True)


def _waste(figures: Mapping[str, float], arrangement: Arrangement, laid: Laid) -> float:
    """Points that are empty, beside those of the text, which are always the same."""
    end = laid(arrangement)
    filled = sum(WIDTH * arrangement[name].scale * aspect for name, aspect in figures.items())
    late = max(0.0, end / HEIGHT - MOST_PAGES) * EXTRA_PAGE_COST
    return end - filled + late + sum(shown.cost for shown in arrangement.values())


def aspect_of(figure: Path) -> float:
    """Height of an SVG file by its width; 0 where it does not say, as of one that is damaged."""
    head = figure.read_bytes()[:2000].decode("utf-8", errors="replace")
    try:
        _, _, width, height = map(float, re.findall(r'viewBox="([^"]*)"', head)[0].split())
        return height / width
    except (LookupError, ValueError, ZeroDivisionError):
        return 0.0


def source_of(arrangement: Arrangement) -> str:
    """The arrangement in Typst's language."""
    rows = (
        f'"{name}": (scale: {100 * shown.scale:.2f}%, placement: {"auto" if shown.floats else "none"}),'
        for name, shown in arrangement.items()
    )
    return f"#let shown = ({' '.join(rows) or ':'})\n"
