"""A deck of 16:9 slides as the stories in slides.py need it: titles, native charts, tables and shapes that fit."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pptx import Presentation
from pptx.chart.data import CategoryChartData, XyChartData
from pptx.dml.color import RGBColor
from pptx.enum.chart import (
    XL_CHART_TYPE,
    XL_LABEL_POSITION,
    XL_LEGEND_POSITION,
    XL_MARKER_STYLE,
    XL_TICK_LABEL_POSITION,
)
from pptx.enum.shapes import MSO_SHAPE
from pptx.enum.text import MSO_ANCHOR, PP_ALIGN
from pptx.util import Inches, Pt

from darkroom.figures import style

WIDTH, HEIGHT = 13.333, 7.5
MARGIN = 0.6
TOP, BOTTOM = 1.65, 0.55
"""Inches above and below what a slide shows."""
ROOM = HEIGHT - TOP - BOTTOM
FONT = "Arial"
TITLE, BODY, TEXT, SMALL = 28, 20, 18, 16
"""Points; nothing is smaller than `SMALL`, so that the last row can read it."""

BOLDER = 1.08
"""How much wider bold letters are."""

Number = float | int
Box = tuple[float, float, float, float]
"""Left, top, width and height in inches."""


class Deck:
    """Slides in the making; `number` is that of the last one."""

    def __init__(self) -> None:
        self._presentation = Presentation()
        self._presentation.slide_width, self._presentation.slide_height = Inches(WIDTH), Inches(HEIGHT)
        self.number = 0

    def slide(self, title: str, *, notes: str) -> "Slide":
        """A new slide; its title says in at most two lines what there is to see."""
        layout = self._presentation.slide_layouts[5]  # title only
        slide = self._presentation.slides.add_slide(layout)
        self.number += 1
        slide.notes_slide.notes_text_frame.text = notes
        placed = Slide(slide)
        placed.name(title)
        return placed

    def to_bytes(self, *, title: str) -> bytes:
        """The file."""
        properties = self._presentation.core_properties
        properties.title, properties.author = title, "darkroom"
        stream = io.BytesIO()
        self._presentation.save(stream)
        return stream.getvalue()


class Slide:
    """One slide, on which everything is placed in inches."""

    def __init__(self, slide: Any) -> None:  # python-pptx types little
        self._slide = slide

    def name(self, title: str) -> None:
        """Put the title where readers of slides, human or not, look for it."""
        shape = self._slide.shapes.title
        shape.left, shape.top, shape.width, shape.height = map(Inches, (MARGIN, 0.4, WIDTH - 2 * MARGIN, 1.1))
        frame = shape.text_frame
        frame.word_wrap, frame.vertical_anchor = True, MSO_ANCHOR.MIDDLE
        frame.text = fitted(title, WIDTH - 2 * MARGIN - 0.2, size=TITLE, lines=2, weight="bold")
        for paragraph in frame.paragraphs:
            paragraph.alignment = PP_ALIGN.LEFT
            _letter(paragraph.runs, size=TITLE, bold=True)

    def text(
        self,
        box: Box,
        lines: Sequence[str],
        *,
        size: int = BODY,
        bold: bool = False,
        color: str = style.INK,
        bullets: bool = False,
        align: Literal["left", "center"] = "left",
    ) -> None:
        """Paragraphs in a box; where they do not all fit, each keeps to its share of the height."""
        shape = self._slide.shapes.add_textbox(*map(Inches, box))
        frame = shape.text_frame
        frame.word_wrap = True
        frame.vertical_anchor = MSO_ANCHOR.TOP
        room = _room_for(lines, box[2] - 0.3, box[3], size)
        for place, line in enumerate(lines):
            paragraph = frame.paragraphs[0] if place == 0 else frame.add_paragraph()
            shown = fitted(line, box[2] - 0.3, size=size, lines=room)
            paragraph.text = f"• {shown}" if bullets else shown
            paragraph.alignment = PP_ALIGN.CENTER if align == "center" else PP_ALIGN.LEFT
            paragraph.space_after = Pt(size / 3)
            _letter(paragraph.runs, size=size, bold=bold, color=color)

    def card(self, box: Box, *, value: str, label: str) -> None:
        """A large value over what it is."""
        left, top, width, height = box
        self.shape(box, color=style.WASH)
        self.text(
            (left, top + 0.12 * height, width, 0.5 * height),
            [value],
            size=32,
            bold=True,
            color=style.BLUE,
            align="center",
        )
        self.text(
            (left, top + 0.58 * height, width, 0.4 * height), [label], size=SMALL, color=style.MUTED, align="center"
        )

    def shape(self, box: Box, *, color: str, words: Sequence[str] = (), ink: str = style.INK, lines: int = 3) -> None:
        """A rounded box, with words in its middle, each on at most so many lines."""
        shape = self._slide.shapes.add_shape(MSO_SHAPE.ROUNDED_RECTANGLE, *map(Inches, box))
        shape.adjustments[0] = 0.06
        shape.fill.solid()
        shape.fill.fore_color.rgb = _rgb(color)
        shape.line.fill.background()
        shape.shadow.inherit = False
        frame = shape.text_frame
        frame.word_wrap, frame.vertical_anchor = True, MSO_ANCHOR.MIDDLE
        for place, line in enumerate(words):
            paragraph = frame.paragraphs[0] if place == 0 else frame.add_paragraph()
            paragraph.text = fitted(line, box[2] - 0.25, size=SMALL, lines=lines)
            paragraph.alignment = PP_ALIGN.CENTER
            _letter(paragraph.runs, size=SMALL, bold=place == 0, color=ink)

    def arrow(self, box: Box) -> None:
        """An arrow to the right."""
        shape = self._slide.shapes.add_shape(MSO_SHAPE.RIGHT_ARROW, *map(Inches, box))
        shape.fill.solid()
        shape.fill.fore_color.rgb = _rgb(style.LINE)
        shape.line.fill.background()
        shape.shadow.inherit = False

    def picture(self, source: Path | io.BytesIO, box: Box, *, words: str) -> None:
        """A picture as large as the box allows, in its middle, with `words` for those who cannot see it."""
        left, top, width, height = box
        shape = self._slide.shapes.add_picture(
            str(source) if isinstance(source, Path) else source, Inches(left), Inches(top)
        )
        scale = min(Inches(width) / shape.width, Inches(height) / shape.height)
        shape.width, shape.height = int(shape.width * scale), int(shape.height * scale)
        shape.left = Inches(left) + (Inches(width) - shape.width) // 2
        shape.top = Inches(top) + (Inches(height) - shape.height) // 2
        shape._element.nvPicPr.cNvPr.set("descr", words)

    def table(
        self,
        box: Box,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        words: str,
        first: float = 0.34,
        widths: Sequence[float] = (),
        left: int = 1,
    ) -> None:
        """A native table; columns take those parts of the width, or the first one `first`, and all keep to their cells.

        The first `left` columns are set left. `words` are for those who cannot see it.
        """
        frame = self._slide.shapes.add_table(len(rows) + 1, len(head), *map(Inches, box))
        frame._element.nvGraphicFramePr.cNvPr.set("descr", words)
        parts = widths or (first, *[(1 - first) / max(1, len(head) - 1)] * (len(head) - 1))
        sizes = [part * box[2] for part in parts]
        line = min(0.52, box[3] / (len(rows) + 1))
        size = min(TEXT, max(SMALL, int(line * 72 / 1.75)))
        for column, wanted in zip(frame.table.columns, sizes, strict=True):
            column.width = Inches(wanted)
        for number, row in enumerate([head, *rows]):
            frame.table.rows[number].height = Inches(line)
            for column, text in enumerate(row):
                cell = frame.table.cell(number, column)
                self._cell(cell, text, width=sizes[column], head=number == 0, left=column < left, size=size)

    def _cell(self, cell: Any, text: str, *, width: float, head: bool, left: bool, size: int) -> None:
        cell.margin_top = cell.margin_bottom = Inches(0.02)
        cell.margin_left = cell.margin_right = Inches(0.08)
        cell.vertical_anchor = MSO_ANCHOR.MIDDLE
        size = size if style.width_of(text, size=size * (BOLDER if head else 1)) <= width - 0.16 else SMALL
        cell.text = fitted(text, width - 0.16, size=size, lines=1, weight="bold" if head else "normal")
        paragraph = cell.text_frame.paragraphs[0]
        paragraph.alignment = PP_ALIGN.LEFT if left else PP_ALIGN.RIGHT
        _letter(paragraph.runs, size=size, bold=head, color="#FFFFFF" if head else style.INK)
        cell.fill.solid()
        cell.fill.fore_color.rgb = _rgb(style.BLUE if head else "#FFFFFF")

    def listing(self, box: Box, rows: Sequence[tuple[str, str]], *, first: float = 0.2) -> None:
        """Rows of what is spoken of, on a wash, and what is said of it; they share the height."""
        left, top, width, height = box
        pitch = min(height / len(rows), 1.3)
        lines = max(1, int((pitch - 0.16) / (1.25 * BODY / 72)))
        size = _common_size([said for _, said in rows], (1 - first) * width - 0.35, pitch - 0.14)
        for place, (what, said) in enumerate(rows):
            at = top + place * pitch
            self.shape((left, at, first * width, pitch - 0.1), color=style.WASH, words=[what], lines=lines)
            room = (left + first * width + 0.1, at, (1 - first) * width - 0.1, pitch - 0.1)
            self._beside(room, said, size=size)

    def _beside(self, box: Box, said: str, *, size: int) -> None:
        """Text in the middle of a row."""
        shape = self._slide.shapes.add_textbox(*map(Inches, box))
        frame = shape.text_frame
        frame.word_wrap, frame.vertical_anchor = True, MSO_ANCHOR.MIDDLE
        frame.margin_top = frame.margin_bottom = Inches(0.02)
        frame.text = fitted(said, box[2] - 0.25, size=size, lines=_lines_in(box[3] - 0.04, size))
        _letter(frame.paragraphs[0].runs, size=size)

    def bars(
        self,
        box: Box,
        values: Mapping[str, Number],
        *,
        format: str,
        series: str,
        low: float | None = None,
        high: float | None = None,
        color: str = style.BLUE,
        words: str,
    ) -> None:
        """A native bar chart, the first bar at the top."""
        data = CategoryChartData(number_format=format)
        names = short_names(list(values), box[2] * 0.35)
        data.categories = names[::-1]
        data.add_series(series, list(values.values())[::-1])
        chart = self._chart(XL_CHART_TYPE.BAR_CLUSTERED, box, data, words)
        chart.has_legend, chart.has_title = False, False
        plot = chart.plots[0]
        plot.gap_width, plot.has_data_labels = 45, True
        plot.data_labels.font.size, plot.data_labels.number_format = Pt(SMALL), format
        plot.data_labels.number_format_is_linked = False
        plot.data_labels.position = XL_LABEL_POSITION.OUTSIDE_END
        plot.series[0].format.fill.solid()
        plot.series[0].format.fill.fore_color.rgb = _rgb(color)
        plot.series[0].invert_if_negative = False
        _axis(chart.category_axis, grid=False)
        chart.category_axis.tick_label_position = XL_TICK_LABEL_POSITION.LOW  # beside bars to the left, not on them
        _axis(chart.value_axis, grid=True, format=format, low=low, high=high)

    def lines(
        self,
        box: Box,
        xs: Sequence[Number],
        series: Mapping[str, Sequence[Number]],
        *,
        format: str,
        across: str,
        up: str,
        high: float | None = None,
        words: str,
    ) -> None:
        """A native chart of lines over numbers."""
        self._xy(
            box,
            {name: (xs, values) for name, values in series.items()},
            XL_CHART_TYPE.XY_SCATTER_LINES_NO_MARKERS,
            formats=(format, "0"),
            titles=(up, across),
            high=(high, None),
            words=words,
        )

    def points(
        self,
        box: Box,
        series: Mapping[str, tuple[Sequence[Number], Sequence[Number]]],
        *,
        formats: tuple[str, str],
        across: str,
        up: str,
        guide: str = "",
        high: tuple[float | None, float | None] = (None, None),
        named: bool = False,
        words: str,
    ) -> None:
        """A native chart of points, a series each with a name; that of the name `guide` is a thin line.

        Where they are `named`, the names stand beside the points, else in a legend.

        LibreOffice loses points of a series that is followed by a longer one, so that a guide has two.
        """
        self._xy(
            box,
            series,
            XL_CHART_TYPE.XY_SCATTER,
            formats=formats,
            titles=(up, across),
            high=high,
            guide=guide,
            named=named,
            words=words,
        )

    def _xy(
        self,
        box: Box,
        series: Any,
        kind: Any,
        *,
        formats: tuple[str, str],
        titles: tuple[str, str],
        high: tuple[float | None, float | None],
        guide: str = "",
        named: bool = False,
        words: str,
    ) -> None:
        """`formats`, `titles` and ends (`high`) are those of the axis upwards, then of the one across."""
        data = XyChartData(number_format="General")
        for name, (xs, ys) in series.items():
            added = data.add_series(name)
            for x, y in zip(xs, ys, strict=True):
                added.add_data_point(x, y)
        chart = self._chart(kind, box, data, words)
        chart.has_title = False
        chart.has_legend = len(series) > 1 and not named
        if chart.has_legend:
            chart.legend.position, chart.legend.include_in_layout = XL_LEGEND_POSITION.BOTTOM, False
            chart.legend.font.size = Pt(SMALL)
        for place, drawn in enumerate(chart.plots[0].series):
            color = _rgb(COLORS[place % len(COLORS)])
            if drawn.name == guide:
                drawn.marker.style = XL_MARKER_STYLE.NONE
                drawn.format.line.color.rgb, drawn.format.line.width = _rgb(style.MUTED), Pt(1.5)
            elif kind == XL_CHART_TYPE.XY_SCATTER:
                drawn.format.line.fill.background()
                drawn.marker.style, drawn.marker.size = XL_MARKER_STYLE.CIRCLE, 11
                drawn.marker.format.fill.solid()
                drawn.marker.format.fill.fore_color.rgb = color
                drawn.marker.format.line.fill.background()
                if named:
                    _name_point(drawn)
            else:
                drawn.format.line.color.rgb, drawn.format.line.width = color, Pt(2.5)
        _axis(chart.value_axis, grid=True, format=formats[0], title=titles[0], high=high[0])
        _axis(chart.category_axis, grid=False, format=formats[1], title=titles[1], high=high[1])
        if named:
            chart.category_axis.minimum_scale = 0
            chart.category_axis.major_unit = max(1, round(max(x for xs, _ in series.values() for x in xs) / 5))

    def _chart(self, kind: Any, box: Box, data: Any, words: str) -> Any:
        """A native chart, with words for those who cannot see it."""
        frame = self._slide.shapes.add_chart(kind, *map(Inches, box), data)
        frame._element.nvGraphicFramePr.cNvPr.set("descr", words)
        return frame.chart


COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.VERMILLION, style.SKY, style.MUTED, "#CC79A7", style.INK)


def fitted(text: str, width: float, *, size: float, lines: int, weight: str = "normal") -> str:
    """`text`, cut to what fits on so many lines of `width` inches in DejaVu Sans, which is wider than Arial."""
    size *= BOLDER if weight == "bold" else 1
    shown = [style.shorten(text, width, size=size)] if lines == 1 else style.wrap(text, width, lines=lines, size=size)
    return " ".join(shown) if "…" in "".join(shown) else text


def _common_size(texts: Sequence[str], width: float, height: float) -> int:
    """The largest letters in which each of the texts fits into a box of that size; the smallest, where none do."""
    for size in (BODY, TEXT):
        if all("…" not in fitted(text, width, size=size, lines=_lines_in(height, size)) for text in texts):
            return size
    return SMALL


def _room_for(texts: Sequence[str], width: float, height: float, size: float) -> int:
    """Lines that each of the paragraphs may take in a box of that size."""
    pitch, gaps = 1.25 * size / 72, len(texts) * size / 3 / 72
    taken = [len(style.wrap(text, width, lines=20, size=size)) for text in texts]
    if sum(taken) * pitch + gaps <= height:
        return max(taken, default=1)
    return max(1, int(height / max(1, len(texts)) / pitch))


def _lines_in(height: float, size: float) -> int:
    return max(1, int(height / (1.22 * size / 72)))


def short_names(names: Sequence[str], width: float) -> list[str]:
    """Names that fit beside a chart, told apart by a number where shortening made them alike."""
    short = [style.shorten(name, width, size=SMALL) for name in names]
    return [
        f"{name} ({short[:place].count(name) + 1})" if short.count(name) > 1 else name
        for place, name in enumerate(short)
    ]


def _name_point(drawn: Any) -> None:
    """The name of a series beside its only point."""
    label = drawn.points[0].data_label
    label.position = XL_LABEL_POSITION.RIGHT
    label.has_text_frame = True
    label.text_frame.text = drawn.name
    _letter(label.text_frame.paragraphs[0].runs, size=SMALL, bold=True)


def _letter(runs: Any, *, size: float, bold: bool = False, color: str = style.INK) -> None:
    for run in runs:
        run.font.size, run.font.bold, run.font.name = Pt(size), bold, FONT
        run.font.color.rgb = _rgb(color)


def _axis(
    axis: Any, *, grid: bool, format: str = "", title: str = "", low: float | None = None, high: float | None = None
) -> None:
    axis.has_major_gridlines = grid
    axis.tick_labels.font.size = Pt(SMALL)
    axis.format.line.color.rgb = _rgb(style.LINE)
    if grid:
        axis.major_gridlines.format.line.color.rgb = _rgb(style.LINE)
    if format:
        axis.tick_labels.number_format, axis.tick_labels.number_format_is_linked = format, False
    if low is not None:
        axis.minimum_scale = low
    if high is not None:
        axis.maximum_scale = high
    if title:
        axis.has_title = True
        axis.axis_title.text_frame.text = title
        _letter(axis.axis_title.text_frame.paragraphs[0].runs, size=SMALL, color=style.MUTED)


def _rgb(color: str) -> RGBColor:
    found: RGBColor = RGBColor.from_string(color.removeprefix("#"))
    return found
