"""Hidden squares cover a picture evenly, and the map lies where the class is."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import bundles
from darkroom.engines.base import Answers, Engine
from darkroom.engines.explanation import explain, squares
from darkroom.errors import UsageError
from darkroom.preprocess import Preprocessing


class Spot(Engine):
    """Sees the first class where a place of the picture is bright, and is very certain of it."""

    def __init__(self, place: tuple[int, int], side: int) -> None:
        super().__init__(bundles.bundle_info(preprocessing=Preprocessing(side, side)))
        self._place = place

    def run(self, pixels: npt.NDArray[np.uint8]) -> Answers:
        """Logits from one pixel; probabilities of a softmax that saturates."""
        logits = np.zeros((len(pixels), len(bundles.CLASSES)), np.float32)
        logits[:, 0] = pixels[:, *self._place, 0] / 255 * 60
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return Answers(logits, powers / powers.sum(axis=1, keepdims=True))

    def close(self) -> None:
        """Nothing to let go of."""


def picture(place: tuple[int, int], side: int) -> bytes:
    """Black, with one white dot."""
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[place] = 255
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(("place", "cell"), [((3, 29), (0, 7)), ((17, 5), (4, 1)), ((31, 31), (7, 7))])
def test_the_map_is_highest_where_the_class_is(place: tuple[int, int], cell: tuple[int, int]) -> None:
    found = explain(Spot(place, 32), "dot", picture(place, 32), label=None)
    assert found.label == bundles.CLASSES[0]
    assert found.weights.shape == (8, 8)
    assert found.weights[cell] == 1
    far = np.abs(np.indices((8, 8)) - np.array(cell)[:, None, None]).max(axis=0) > 1
    assert found.weights[far].max() == 0


@pytest.mark.parametrize("side", [1, 2, 5, 8, 28, 224])
def test_every_cell_is_hidden_and_none_left_out(side: int) -> None:
    hidden = squares(side, side)
    assert hidden.shape[1:] == (min(8, side), min(8, side))
    assert hidden.any(axis=0).all()
    assert hidden.any(axis=(1, 2)).all()
    found = explain(Spot((0, 0), side), "dot", picture((0, 0), side))
    assert np.isfinite(found.weights).all()


def test_a_class_that_is_not_there_is_named() -> None:
    known: dict[str, Any] = {"label": "cat"}
    with pytest.raises(UsageError, match="no class 'cat'"):
        explain(Spot((0, 0), 8), "dot", picture((0, 0), 8), **known)
