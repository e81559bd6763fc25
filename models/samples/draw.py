"""Draws the pictures that the page offers to try on the model cifar10; nothing of them comes from any data.

    python models/samples/draw.py

All that were drawn are here, whatever the model says of them; none was changed until it fitted.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Shape = tuple[str, Any, Colour]
"""A method of Pillow's `ImageDraw`, where, and in which colour."""

SIDE, SHOWN = 256, 128
BLACK, DARK, WHITE, GLASS = (15, 15, 15), (30, 30, 30), (236, 236, 234), (50, 65, 85)


def row(kind: str, places: Any, size: tuple[int, int], top: int, fill: Colour) -> list[Shape]:
    """The same shape several times, side by side."""
    return [(kind, (left, top, left + size[0], top + size[1]), fill) for left in places]


SCENES: dict[str, tuple[Colour, Colour, list[Shape]]] = {  # colours above and below, then what lies on them
    "airplane": (
        (70, 130, 210),
        (190, 215, 240),
        [
            ("ellipse", (25, 110, 235, 145), WHITE),
            ("polygon", [(110, 128), (150, 128), (90, 215), (68, 215)], (190, 195, 205)),
            ("polygon", [(120, 118), (150, 118), (115, 60), (98, 60)], (170, 176, 188)),
            ("polygon", [(28, 125), (62, 118), (35, 70), (16, 70)], (40, 70, 150)),
            *row("rectangle", range(75, 200, 10), (4, 5), 121, GLASS),
            ("ellipse", (90, 150, 118, 164), (120, 125, 135)),
        ],
    ),
    "automobile": (
        (190, 205, 215),
        (220, 220, 215),
        [
            ("rectangle", (0, 170, SIDE, SIDE), (105, 105, 108)),
            ("rectangle", (0, 120, SIDE, 172), (120, 140, 100)),
            ("polygon", [(75, 120), (100, 80), (175, 80), (205, 120)], (170, 20, 25)),
            ("polygon", [(84, 119), (104, 87), (134, 87), (134, 119)], GLASS),
            ("polygon", [(141, 119), (141, 87), (171, 87), (194, 119)], GLASS),
            ("rectangle", (22, 116, 236, 170), (190, 25, 30)),
            *row("ellipse", (45, 165), (50, 50), 145, DARK),
            *row("ellipse", (58, 178), (24, 24), 158, (180, 180, 185)),
            ("ellipse", (224, 128, 238, 142), (250, 240, 190)),
        ],
    ),
    "bird": (
        (120, 170, 220),
        (200, 220, 235),
        [
            ("polygon", [(0, 204), (SIDE, 184), (SIDE, 196), (0, 216)], (90, 65, 45)),
            ("ellipse", (80, 95, 190, 195), (150, 110, 70)),
            ("ellipse", (60, 55, 120, 120), (170, 120, 70)),
            ("ellipse", (75, 120, 150, 195), (220, 190, 150)),
            ("polygon", [(62, 85), (35, 95), (62, 100)], (230, 170, 40)),
            ("ellipse", (75, 75, 87, 87), BLACK),
            ("polygon", [(170, 150), (245, 190), (235, 205), (150, 185)], (90, 65, 45)),
            ("polygon", [(110, 120), (190, 125), (200, 180)], (100, 70, 45)),
            *row("rectangle", (112, 132), (4, 16), 190, (60, 40, 20)),
        ],
    ),
    "deer": (
        (150, 190, 130),
        (90, 130, 60),
        [
            ("ellipse", (70, 110, 190, 170), (150, 100, 55)),
            ("polygon", [(165, 130), (195, 120), (215, 60), (190, 55)], (150, 100, 55)),
            ("ellipse", (185, 40, 240, 75), (150, 100, 55)),
            *row("rectangle", (85, 105, 160, 178), (9, 85), 150, (120, 80, 45)),
            *[("polygon", [(x, 45), (x - 12, 10), (x - 8, 9), (x + 4, 45)], (90, 60, 30)) for x in (195, 208)],
            ("ellipse", (64, 115, 80, 135), WHITE),
            ("ellipse", (213, 52, 219, 58), BLACK),
        ],
    ),
    "frog": (
        (90, 120, 70),
        (120, 100, 70),
        [
            ("ellipse", (50, 90, 210, 225), (95, 150, 50)),
            ("ellipse", (70, 140, 190, 225), (190, 200, 140)),
            ("ellipse", (65, 55, 195, 150), (105, 165, 55)),
            *row("ellipse", (80, 155), (32, 35), 40, (105, 165, 55)),
            *row("ellipse", (86, 161), (20, 23), 45, (230, 200, 60)),
            *row("ellipse", (92, 167), (9, 14), 50, BLACK),
            *row("ellipse", (30, 170), (60, 65), 170, (85, 140, 45)),
        ],
    ),
    "ship": (
        (150, 190, 230),
        (210, 225, 240),
        [
            ("rectangle", (0, 165, SIDE, SIDE), (40, 80, 120)),
            ("polygon", [(20, 140), (240, 140), (215, 185), (45, 185)], (150, 30, 30)),
            ("rectangle", (20, 132, 240, 142), WHITE),
            ("rectangle", (90, 95, 190, 133), WHITE),
            ("rectangle", (110, 70, 170, 96), (225, 225, 225)),
            *row("rectangle", range(98, 185, 14), (7, 9), 105, GLASS),
            ("rectangle", (130, 40, 152, 70), (30, 30, 60)),
        ],
    ),
    "truck": (
        (170, 200, 230),
        (225, 230, 235),
        [
            ("rectangle", (0, 190, SIDE, SIDE), (110, 110, 112)),
            ("rectangle", (10, 60, 170, 175), WHITE),
            ("polygon", [(176, 175), (176, 95), (215, 95), (240, 135), (248, 140), (248, 175)], (30, 80, 170)),
            ("polygon", [(186, 135), (186, 105), (211, 105), (230, 135)], GLASS),
            ("rectangle", (10, 175, 248, 186), DARK),
            *row("ellipse", (25, 65, 190), (40, 40), 166, BLACK),
            *row("ellipse", (36, 76, 201), (18, 18), 177, (150, 150, 150)),
        ],
    ),
}


def drawn(above: Colour, below: Colour, shapes: list[Shape]) -> Image.Image:
    """A scene, its edges softened."""
    columns = np.linspace(above, below, SIDE)[:, None]  # (SIDE, 1, 3)
    picture = Image.fromarray(columns.repeat(SIDE, axis=1).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for kind, place, fill in shapes:
        getattr(draw, kind)(place, fill=fill)
    return picture.filter(ImageFilter.GaussianBlur(1)).resize((SHOWN, SHOWN), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    folder = Path(__file__).with_name("cifar10")
    folder.mkdir(exist_ok=True)
    for name, scene in SCENES.items():
        drawn(*scene).save(folder / f"{name}.png", optimize=True)
