"""Pages are full: of all ways to show figures that were tried, the one with the least empty paper is taken."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from darkroom.report.arrange import HEIGHT, SCALES, TALLEST, WIDTH, Shown, arranged, aspect_of, choices, source_of


class Pages:
    """A typesetter in small: before each figure stands so much text, and what does not fit goes onto the next page."""

    def __init__(self, figures: Mapping[str, float], text: float) -> None:
        self.figures, self.text, self.asked = figures, text, 0

    def end(self, arrangement: Mapping[str, Shown]) -> float:
        self.asked += 1
        place = 0.0
        for name, aspect in self.figures.items():
            place += self.text
            height = arrangement[name].scale * WIDTH * aspect
            left = HEIGHT - place % HEIGHT
            place += height if height <= left or arrangement[name].floats else left + height
        return place

    def empty(self, arrangement: Mapping[str, Shown]) -> float:
        filled = sum(self.text + arrangement[name].scale * WIDTH * aspect for name, aspect in self.figures.items())
        return self.end(arrangement) - filled


def test_a_figure_that_nearly_fits_is_made_to_fit() -> None:
    figures = {"first": 0.7, "second": 0.7}
    typesetter = Pages(figures, 40.0)
    found = arranged(figures, typesetter.end)
    usual = {name: Shown(SCALES[0]) for name in figures}
    assert typesetter.empty(usual) == pytest.approx(0)
    figures = {"first": 0.85, "second": 0.85}
    typesetter = Pages(figures, 20.0)
    assert typesetter.empty(usual) > 100
    found = arranged(figures, typesetter.end)
    assert typesetter.empty(found) < 30
    assert min(shown.scale for shown in found.values()) < SCALES[0]


def test_where_pages_are_full_letters_are_large() -> None:
    figures = {"only": 0.5}
    assert arranged(figures, Pages(figures, 100.0).end) == {"only": Shown(max(SCALES))}


def test_a_longer_report_has_smaller_figures() -> None:
    figures = {f"figure {place}": 0.9 for place in range(28)}
    typesetter = Pages(figures, 0.0)
    found = arranged(figures, typesetter.end)
    assert typesetter.end(found) <= typesetter.end({name: Shown(max(SCALES)) for name in figures})


def test_few_layouts_are_tried() -> None:
    figures = {f"figure {place}": 0.6 for place in range(13)}
    typesetter = Pages(figures, 150.0)
    arranged(figures, typesetter.end)
    assert typesetter.asked <= 13 * 5 * 2 + 1


@pytest.mark.parametrize("aspect", [0.0, 0.3, 1.0, 1.5, 3.0])
def test_no_figure_is_taller_than_a_page(aspect: float) -> None:
    for shown in choices(aspect):
        assert 0 < shown.scale <= 1
        assert shown.scale * WIDTH * aspect <= TALLEST + 1e-6


def test_the_shape_of_a_figure_is_read_from_its_file(tmp_path: Path) -> None:
    figure = tmp_path / "a.svg"
    figure.write_text('<?xml version="1.0"?>\n<svg width="482.4pt" viewBox="0 0 400 100" height="12pt">')
    assert aspect_of(figure) == 0.25
    for damaged in ("<svg", '<svg viewBox="0 0 1">', '<svg viewBox="0 0 0 9">', '<svg viewBox="a b c d">'):
        figure.write_text(damaged)
        assert aspect_of(figure) == 0.0


def test_typst_reads_the_arrangement() -> None:
    assert source_of({}) == "#let shown = (:)\n"
    text = source_of({"a": Shown(0.8), "b": Shown(0.9, floats=True)})
    assert '"a": (scale: 80.00%, placement: none),' in text
    assert '"b": (scale: 90.00%, placement: auto),' in text
