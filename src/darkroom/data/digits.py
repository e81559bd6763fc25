"""The 1,797 handwritten digits of 8×8 pixels in scikit-learn (Alpaydin and Kaynak 1998), as picture files."""

from pathlib import Path

import numpy as np

from darkroom.data.pictures import bitmap
from darkroom.data.storage import build_folder
from darkroom.errors import DataError


def digits_folder(cache: Path) -> Path:
    """Folder in `cache` with class folders 0 … 9; raises `DataError` without scikit-learn."""
    return build_folder(cache / "digits", _write)


def _write(folder: Path) -> None:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("the digits come with scikit-learn: pip install 'darkroom[train]'") from error
    content = load_digits()
    pixels = np.round(content.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), from 0 … 16
    for number, (label, picture) in enumerate(zip(content.target, pixels, strict=True)):
        place = folder / str(label) / f"{number:04d}.bmp"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(bitmap(picture))
