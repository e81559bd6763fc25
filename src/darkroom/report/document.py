"""The PDF: a Jinja template gives the text, Typst sets it, and tells on which page each number ended up."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import matplotlib
import typst
from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError, pass_context
from markupsafe import Markup

from darkroom.errors import ReportError
from darkroom.progress import say
from darkroom.report.arrange import HEIGHT, Arrangement, arranged, aspect_of, source_of
from darkroom.report.facts import REMEDY, Facts, damage_told, join
from darkroom.report.story import story_of, title_of

TEMPLATE, LAYOUT, SHOWN = "report.typ.j2", "layout.typ", "shown.typ"
STANDARD: Literal["ua-1"] = "ua-1"
"""PDF/UA: readable by screen readers, with tags, titles and words for every figure."""
NO_LETTER = "could not be displayed"
"""What Typst says of letters that no font has, which that standard forbids."""


@dataclass(frozen=True)
class Told:
    """A number in the PDF: its path, as it is shown, and on which page."""

    path: str
    shown: str
    page: int


def typeset(facts: Facts, figures: Mapping[str, Path], *, created: str) -> tuple[bytes, list[Told]]:
    """The PDF and its numbers; `figures` are SVG files by name, and `created` dates the document.

    Raises `ReportError` where Typst refuses the text.
    """
    with tempfile.TemporaryDirectory(prefix="darkroom-report-") as temporary:
        folder = Path(temporary)
        (folder / "figures").mkdir()
        for name, path in figures.items():
            shutil.copyfile(path, folder / "figures" / f"{name}.svg")
        environment = environment_for(facts, figures)
        source, _, _ = environment.loader.get_source(environment, LAYOUT)  # type: ignore[union-attr]
        (folder / LAYOUT).write_text(source, encoding="utf-8")
        text = _text(environment, facts, figures)
        (folder / "report.typ").write_text(text, encoding="utf-8")
        drawn = {name: aspect_of(path) for name, path in figures.items() if f"#picture({quoted(name)}" in text}
        return _compiled(folder, created, drawn)


def _text(environment: Environment, facts: Facts, figures: Mapping[str, Path]) -> str:
    """The text in Typst's language; raises `RunError` where what the files hold has another form."""
    with damage_told("what the report reads", REMEDY):
        try:
            return environment.get_template(TEMPLATE).render(title=title_of(facts), **story_of(facts, figures))
        except UndefinedError as error:
            raise LookupError(str(error)) from error


def _compiled(folder: Path, created: str, figures: Mapping[str, float]) -> tuple[bytes, list[Told]]:
    fonts = [Path(matplotlib.get_data_path()) / "fonts" / "ttf"]  # DejaVu, which the figures are lettered in
    timestamp = int(datetime.fromisoformat(created).timestamp())
    try:
        _write(folder, {})
        compiler = typst.Compiler(folder / "report.typ", root=folder, font_paths=fonts)
        _write(folder, arranged(figures, partial(_end, compiler, folder)))
        try:
            pdf = compiler.compile(format="pdf", pdf_standards=STANDARD, timestamp=timestamp)
        except typst.TypstError as error:
            if NO_LETTER not in str(error):
                raise
            say("No font here has all letters of the class names: some are shown as boxes, and the PDF is not PDF/UA")
            pdf = compiler.compile(format="pdf", timestamp=timestamp)
        told = json.loads(compiler.query("<told>", field="value"))
    except RuntimeError as error:  # Typst's own errors, and what its queries raise
        raise ReportError(f"the report cannot be typeset: {error}") from error
    if not isinstance(pdf, bytes):  # as its types allow, of other formats
        raise ReportError("the typesetter gave no PDF: install the versions of constraints.txt")
    return pdf, [Told(**entry) for entry in told]


def _write(folder: Path, arrangement: Arrangement) -> None:
    (folder / SHOWN).write_text(source_of(arrangement), encoding="utf-8")


def _end(compiler: typst.Compiler, folder: Path, arrangement: Arrangement) -> float:
    """Points to the end of the text; a layout that differs a little from the last one takes milliseconds."""
    _write(folder, arrangement)
    (end,) = json.loads(compiler.query("<end>", field="value"))
    return float((end["page"] - 1) * HEIGHT + end["y"])


def environment_for(facts: Facts, figures: Mapping[str, Path]) -> Environment:
    """Jinja as the templates need it: `n` tells a number, all else must be text, and is escaped."""
    environment = Environment(
        loader=PackageLoader("darkroom.report"),
        autoescape=True,  # so that what `finalize` has escaped, or macros have made, is not escaped again
        finalize=pass_context(lambda _, value: markup(value)),  # with a context, nothing is computed before it
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    def telling(function: str) -> Callable[..., Markup]:
        def tell(path: str, style: str = "text") -> Markup:
            return Markup(f"#{function}({quoted(path)}, {quoted(facts.tell(path, style))});")  # noqa: S704

        return tell

    functions: dict[str, Callable[..., Any]] = {
        "n": telling("told"),
        "listing": telling("listing"),
        "digest": telling("digest"),
        "value": facts.value,
        "has": facts.has,
        "join": join,
        "has_figure": figures.__contains__,
        "quoted": lambda text: Markup(quoted(text)),  # noqa: S704
    }
    environment.globals.update(functions)
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:]
    return environment


def markup(value: Any) -> Markup:
    """Text as Typst shows it literally; a number that was not told by `n` is an error of the template."""
    if isinstance(value, Markup):
        return value
    if not isinstance(value, str):
        raise TypeError(f"the template shows {value!r}, which is no text: numbers are told by n(path, style)")
    return Markup(f"#{quoted(value)};")  # noqa: S704  # Typst, not HTML


def quoted(text: str) -> str:
    """A string literal of Typst."""
    return '"' + "".join(_escaped(letter) for letter in text) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return f"\\u{{{ord(letter):x}}}" if letter < " " else letter
