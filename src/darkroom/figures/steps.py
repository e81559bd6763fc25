"""The figure of a picture on its way through the preprocessing contract."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from darkroom.figures import style
from darkroom.figures.style import MARGIN, MUTED, WIDTH, Sheet

Pixels = npt.NDArray[np.uint8]
GAP = 0.3


@style.look()
def preprocessing(path: Path, *, steps: Sequence[tuple[str, str, Pixels]]) -> Figure:
    """Draw (title, note, pixels of shape (H, W, 3)) side by side, with arrows between them."""
    side = (WIDTH - 2 * MARGIN - GAP * (len(steps) - 1)) / len(steps)
    sheet = Sheet(side + 0.5, title="A picture on its way to the network")
    for place, (title, note, pixels) in enumerate(steps):
        left = MARGIN + place * (side + GAP)
        sheet.picture(pixels, left, sheet.top, width=side, height=side)
        sheet.text(left, sheet.top + side + 0.14, title, width=side)
        sheet.text(left, sheet.top + side + 0.3, note, size=7.5, color=MUTED, width=side)
        if place:
            sheet.text(left - GAP / 2, sheet.top + side / 2, "→", size=12, color=MUTED, horizontal="center")
    return sheet.save(path)
