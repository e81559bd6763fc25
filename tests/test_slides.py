"""The slides: one message each, whatever the classes are called, of parts that people can edit, readable from afar."""

import ast
import copy
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pptx import Presentation
from pptx.enum.shapes import MSO_SHAPE_TYPE
from pptx.util import Emu

from darkroom.figures import style
from darkroom.report import slides
from darkroom.report.canvas import BODY, SMALL, TITLE, Deck, fitted, short_names
from darkroom.report.facts import Fact, Facts
from darkroom.report.slides import deck
from reported import LONG, Reported, figures_of, invented, with_learning_curve, with_rivals

FOREIGN = ("قطة", "猫", "🐱 cat", "नमस्ते", "ჩიტი")
CASES: Mapping[str, Sequence[str]] = {"two": LONG[:2], "hundred": LONG, "foreign": FOREIGN}
PICTURE = MSO_SHAPE_TYPE.PICTURE

every_deck = pytest.mark.parametrize("case", ["usual", *CASES])
other_decks = pytest.mark.parametrize("case", CASES)


def opened(content: bytes) -> Any:
    """The presentation."""
    return Presentation(io.BytesIO(content))


class Decks:
    """Decks by name, each made once: that of the finished run, and others with all kinds of slides."""

    def __init__(self, reported: Reported) -> None:
        self.run = reported.run
        self.made = {"usual": opened(reported.run.slides.read_bytes())}
        self.facts: dict[str, list[tuple[Fact, int]]] = {}

    def __getitem__(self, case: str) -> Any:
        if case not in self.made:
            facts = Facts(with_rivals(invented(self.run, CASES[case], right=1)))
            content, places = deck(facts, figures_of(self.run), sorted(self.run.samples.iterdir()))
            self.made[case] = opened(content)
            self.facts[case] = list(zip(facts.told, places, strict=True))
        return self.made[case]


@pytest.fixture(scope="module")
def decks(reported_run: Reported) -> Decks:
    return Decks(reported_run)


def cells_of(slide: Any) -> Iterator[Any]:
    """Cells of the tables on a slide."""
    for shape in slide.shapes:
        if shape.has_table:
            yield from shape.table.iter_cells()


def frames_of(slide: Any) -> Iterator[Any]:
    """Everything that holds text on a slide, but for charts."""
    yield from (shape.text_frame for shape in slide.shapes if shape.has_text_frame)
    yield from (cell.text_frame for cell in cells_of(slide))


def charts_of(slide: Any) -> list[Any]:
    return [shape.chart for shape in slide.shapes if shape.has_chart]


def values_of(slide: Any) -> list[float]:
    """What the charts of a slide draw."""
    return [
        value
        for chart in charts_of(slide)
        for plot in chart.plots
        for series in plot.series
        for value in (*series.values, *(float(x.text) for x in series._element.xpath("./c:xVal//c:v")))
    ]


def words_on(slide: Any) -> str:
    """All text of a slide and its notes, on one line."""
    texts = [frame.text for frame in frames_of(slide)] + [slide.notes_slide.notes_text_frame.text]
    return " ".join(" ".join(texts).split())


def inches(length: int) -> float:
    return Emu(length).inches


@cache
def lines_in(text: str, width: float, *, size: float, bold: bool) -> int:
    """Lines that a text takes, measured as in figures."""
    with nullcontext() if text.isascii() else style.look():
        return len(style.wrap(text, width, lines=99, size=size * (1.08 if bold else 1)))


def height_of(frame: Any, width: float) -> float:
    """Inches that the text takes in lines of that width."""
    total = 0.0
    for place, paragraph in enumerate(frame.paragraphs):
        for run in paragraph.runs:
            size = run.font.size.pt
            total += lines_in(run.text, width, size=size, bold=bool(run.font.bold)) * 1.2 * size / 72
        if place < len(frame.paragraphs) - 1 and paragraph.space_after is not None:
            total += paragraph.space_after.inches
    return total


def overflow(frame: Any, box: Any, *, width: int, height: int) -> float:
    """Inches by which text exceeds its room; `box` has the margins."""
    room = inches(height - box.margin_top - box.margin_bottom)
    return height_of(frame, inches(width - box.margin_left - box.margin_right)) - room


@every_deck
def test_there_are_ten_to_fourteen_slides_with_titles_and_notes(decks: Decks, case: str) -> None:
    shown = decks[case]
    assert 10 <= len(shown.slides) <= 14
    titles = [slide.shapes.title.text_frame.text for slide in shown.slides]
    assert all(title.strip() for title in titles)
    assert len(set(titles)) == len(titles)
    assert inches(shown.slide_width) / inches(shown.slide_height) == pytest.approx(16 / 9, abs=0.01)
    for slide in shown.slides:
        title, notes = slide.shapes.title, slide.notes_slide.notes_text_frame.text
        width = inches(title.width) - 0.2
        assert lines_in(title.text_frame.text, width, size=TITLE, bold=True) <= 2
        assert len(notes) > 40, "enough to be read aloud"


@other_decks
def test_a_comparison_and_an_ablation_have_slides_of_their_own(decks: Decks, case: str) -> None:
    assert len(decks[case].slides) == 14


@every_deck
def test_everything_lies_within_its_slide(decks: Decks, case: str) -> None:
    shown = decks[case]
    for slide in shown.slides:
        for shape in slide.shapes:
            assert min(shape.left, shape.top) >= 0, shape.name
            assert shape.left + shape.width <= shown.slide_width + 1, shape.name
            assert shape.top + shape.height <= shown.slide_height + 1, shape.name
            if shape.has_table:
                rows, columns = shape.table.rows, shape.table.columns
                assert shape.top + sum(row.height for row in rows) <= shown.slide_height
                assert sum(column.width for column in columns) <= shape.width + len(columns)


@every_deck
def test_nothing_is_too_small_to_be_read(decks: Decks, case: str) -> None:
    for slide in decks[case].slides:
        sizes = [
            run.font.size for frame in frames_of(slide) for paragraph in frame.paragraphs for run in paragraph.runs
        ]
        assert sizes
        assert None not in sizes, "of the layout's size, whatever that is"
        assert min(size.pt for size in sizes) >= SMALL == 16
        for chart in charts_of(slide):
            drawn = [int(size) for size in chart._chartSpace.xpath(".//a:defRPr/@sz | .//a:rPr/@sz")]
            assert min(drawn) >= 1400


@every_deck
def test_text_keeps_to_its_box(decks: Decks, case: str) -> None:
    for number, slide in enumerate(decks[case].slides, start=1):
        for shape in slide.shapes:
            if shape.has_text_frame and shape.text_frame.text:
                frame = shape.text_frame
                assert overflow(frame, frame, width=shape.width, height=shape.height) <= 0.02, (number, frame.text)
            if shape.has_table:
                for row in shape.table.rows:
                    for cell, column in zip(row.cells, shape.table.columns, strict=True):
                        over = overflow(cell.text_frame, cell, width=column.width, height=row.height)
                        assert over <= 0.02, (number, cell.text_frame.text)


@every_deck
def test_texts_do_not_lie_on_each_other(decks: Decks, case: str) -> None:
    for slide in decks[case].slides:
        boxes = [shape for shape in slide.shapes if shape.has_chart or shape.has_table or shape.shape_type == PICTURE]
        boxes += [shape for shape in slide.shapes if shape.has_text_frame and shape.is_placeholder]
        for place, one in enumerate(boxes):
            for other in boxes[:place]:
                apart = (
                    one.left + one.width <= other.left + 1
                    or other.left + other.width <= one.left + 1
                    or one.top + one.height <= other.top + 1
                    or other.top + other.height <= one.top + 1
                )
                assert apart, (one.name, other.name)


@every_deck
def test_charts_and_tables_can_be_edited(decks: Decks, case: str) -> None:
    drawn = [(slide, chart) for slide in decks[case].slides for chart in charts_of(slide)]
    assert len(drawn) >= (3 if case == "usual" else 6)
    assert all(chart.part.chart_workbook.xlsx_part is not None for _, chart in drawn)
    assert all(values_of(slide) for slide, _ in drawn)
    assert sum(any(True for _ in cells_of(slide)) for slide in decks[case].slides) == (2 if case == "usual" else 3)


def test_no_sentence_of_the_usual_deck_is_cut(decks: Decks) -> None:
    cut = [frame.text for slide in decks["usual"].slides for frame in frames_of(slide) if "…" in frame.text]
    assert cut == []


def is_on(slide: Any, fact: Fact) -> bool:
    """Whether what was told is in the words of a slide, or drawn by its charts."""
    if " ".join(fact.shown.split()) in words_on(slide):
        return True
    if isinstance(fact.value, str | list):
        return False
    wanted = (fact.value, 100 * fact.value)
    return any(value == pytest.approx(one, rel=1e-9) for value in values_of(slide) for one in wanted)


def test_every_number_is_on_its_slide(decks: Decks) -> None:
    usual = decks["usual"]
    entries = json.loads(decks.run.told.read_text(encoding="utf-8"))["slides"]
    assert len(entries) > 50
    for entry in entries:
        assert set(entry) == {"path", "style", "value", "shown", "slide"}
        fact = Fact(*(entry[name] for name in ("path", "style", "value", "shown")))
        assert is_on(usual.slides[entry["slide"] - 1], fact), entry
    silent = "The evidence names nothing"
    titles = {number: slide.shapes.title.text_frame.text for number, slide in enumerate(usual.slides, start=1)}
    assert {entry["slide"] for entry in entries} == {
        number for number, title in titles.items() if not title.startswith(silent)
    }


@other_decks
def test_numbers_are_on_their_slides_beside_long_names(decks: Decks, case: str) -> None:
    shown = decks[case].slides
    assert [(fact, place) for fact, place in decks.facts[case] if not is_on(shown[place - 1], fact)] == []


REPORT = Path(slides.__file__).parent
TOLD_ELSEWHERE = {
    "tell",
    "told",
    "words",
    "join",
    "_short",
    "_origin",
    "_machine",
    "title_of",
    "_how_apart",
    "wrong",
    "leaks",
}
"""What slides may call inside of texts: it tells numbers, or gives text only."""


def written_numbers(source: str) -> list[str]:
    """Texts with digits that stand in a module, but for docstrings and how numbers are formatted."""
    tree = ast.parse(source)
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            silent |= {id(part) for part in ast.walk(node.format_spec)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [
        text.value
        for text in texts
        if id(text) not in silent and any(letter.isdigit() for letter in re.sub(NO_NUMBERS, "", text.value))
    ]


NO_NUMBERS = r"(?i)f1|utf-8|ua-1|sha256|< 0\.001|#[\dA-F]{6}|~[01]|report\.typ\.j2|0%|0\.0%|#,##0|[+−]0\.0;?|^0$"
"""A metric, encodings, a standard, names of files and keys, what is said of the smallest, colours, and formats."""


@pytest.mark.parametrize("module", sorted(REPORT.glob("*.py")), ids=lambda path: path.stem)
def test_numbers_are_told_and_not_written(module: Path) -> None:
    assert written_numbers(module.read_text(encoding="utf-8")) == []


def smuggled(source: str) -> list[str]:
    """Parts of texts that may show a number which was not told: entries of contents, and results of other functions."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FormattedValue):
            called = [part.func for part in ast.walk(node.value) if isinstance(part, ast.Call)]
            names = {getattr(func, "attr", getattr(func, "id", "")) for func in called}
            foreign = {name for name in names if not hasattr(str, name)} - TOLD_ELSEWHERE
            numbers = [part for part in ast.walk(node.value) if isinstance(part, ast.BinOp)]
            entries = isinstance(node.value, ast.Subscript) and not isinstance(node.value.slice, ast.Slice)
            if foreign or numbers or entries:
                found.append(ast.unparse(node.value))
    return found


@pytest.mark.parametrize("module", ["slides.py", "making.py"])
def test_texts_of_slides_show_no_number_that_was_not_told(module: str) -> None:
    assert smuggled((REPORT / module).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line", ['f"{self.value(path)}"', "f\"{row['f1']} of all\"", 'f"{len(rows)} rows"', 'f"{100 * share:.1f} %"']
)
def test_a_number_that_somebody_shows_by_another_way_is_found(line: str) -> None:
    assert smuggled(line) != []


def test_charts_and_tables_have_words_for_those_who_cannot_see_them(decks: Decks) -> None:
    for case in ("usual", "two"):
        for slide in decks[case].slides:
            for shape in slide.shapes:
                if shape.has_chart or shape.has_table:
                    assert len(shape._element.nvGraphicFramePr.cNvPr.get("descr", "")) > 10, shape.name


def test_confidences_of_few_pictures_are_no_points(reported_run: Reported) -> None:
    contents = invented(reported_run.run, ("cat", "dog", "owl"), right=1)
    contents["insights"]["calibration"] = [
        {"confidence": 0.4, "accuracy": 1.0, "n": 4},
        {"confidence": 0.6, "accuracy": 0.5, "n": 5},
    ]
    shown = opened(deck(Facts(contents), {})[0]).slides
    (slide,) = (one for one in shown if "off by" in one.shapes.title.text_frame.text)
    assert {value for value in values_of(slide) if value in (0.4, 0.6)} == {0.6}
    assert "fewer than 5 pictures" in words_on(slide)


def test_candidates_are_named_in_full(reported_run: Reported) -> None:
    contents = with_rivals(invented(reported_run.run, ("cat", "dog")))
    rows = contents["comparison"]["candidates"] = [
        copy.deepcopy(contents["comparison"]["candidates"][0]) | {"name": name, "chosen": not place}
        for place, name in enumerate(f"mobilenetv{number}_100.tf_in1k-fine-tuned" for number in range(6))
    ]
    shown = opened(deck(Facts(contents), {})[0]).slides
    (slide,) = (one for one in shown if "is chosen among" in one.shapes.title.text_frame.text)
    assert [row["name"] for row in rows if row["name"] not in words_on(slide)] == []
    (chart,) = charts_of(slide)
    assert not chart.has_legend


def test_flawless_answers_make_a_deck_too(reported_run: Reported) -> None:
    facts = Facts(invented(reported_run.run, ("cat", "dog"), right=50))
    presentation = opened(deck(facts, figures_of(reported_run.run))[0])
    assert 10 <= len(presentation.slides) <= 14
    text = " ".join(words_on(slide) for slide in presentation.slides)
    assert "No picture was put into a wrong class" in text
    assert "taken for each other" not in text


def titles_of(presentation: Any) -> list[str]:
    """Of all slides, each on one line."""
    return [" ".join(slide.shapes.title.text_frame.text.split()) for slide in presentation.slides]


@pytest.mark.parametrize("more", ["help", "little", "unsure"])
def test_a_learning_curve_says_whether_more_pictures_would_help(reported_run: Reported, more: str) -> None:
    contents = with_learning_curve(invented(reported_run.run, ("cat", "dog", "owl")), more)
    contents["config"]["data"]["counts"]["unused"] = {"cat": 1000, "dog": 2}
    presentation = opened(deck(Facts(contents), figures_of(reported_run.run))[0])
    titles, text = titles_of(presentation), " ".join(words_on(slide) for slide in presentation.slides)
    assert ("What would help next: more training pictures" in titles) == (more == "help")
    assert ("More training pictures of the same kind would help little." in text) == (more == "little")
    assert any(title.startswith("What matters most: no augmentation") for title in titles), "not fewer pictures"
    assert "left aside 1,002" in text
    contents["ablation"]["effects"] = contents["ablation"]["effects"][-1:]
    alone = titles_of(opened(deck(Facts(contents), {})[0]))
    assert any(title.startswith("What matters most: half of the training pictures") for title in alone)
    contents["ablation"]["effects"][0] |= {"low": -0.06, "high": 0.01}
    assert "None of the choices that were tried matters more than chance may" in titles_of(
        opened(deck(Facts(contents), {})[0])
    )


def test_any_pictures_can_be_samples(reported_run: Reported, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for suffix in ("webp", "png"):
        Image.fromarray(pixels).save(tmp_path / f"cat.{suffix}")
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    facts = Facts(invented(reported_run.run, ("cat", "dog")))
    presentation = opened(deck(facts, {}, sorted(tmp_path.iterdir()))[0])
    pictures = [shape for slide in presentation.slides for shape in slide.shapes if shape.shape_type == PICTURE]
    assert len(pictures) == 2
    assert all(picture._element.nvPicPr.cNvPr.get("descr") for picture in pictures)


def test_wrapping_changes_no_letter() -> None:
    made, word = Deck(), "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen"
    command = "darkroom run pictures --label-smoothing 0.125 --weight-decay 0.00025 --learning-rate 0.0125 --no-flip"
    made.slide(word, notes="").text((1, 2, 4, 4), [command], size=BODY)
    title, text = (shape.text_frame.text for shape in opened(made.to_bytes(title="x")).slides[0].shapes)
    assert " ".join(text.split()) == command
    assert title == word


def test_fitted_lines_are_as_few_as_allowed() -> None:
    for lines in (1, 2, 3):
        found = fitted("a rather long sentence " * 20, 3, size=18, lines=lines)
        assert lines_in(found, 3, size=18, bold=False) == lines
        assert "…" in found
    assert fitted("short", 3, size=18, lines=2) == "short"


def test_shortened_names_stay_apart() -> None:
    names = short_names([f"{'x' * 60}{place}{'y' * 60}" for place in range(3)] + ["cat"], 2)
    assert len(set(names)) == 4
    assert names[-1] == "cat"
