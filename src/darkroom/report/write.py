"""`darkroom report`: report.pdf, slides.pptx, and report.json with every number that they show."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from darkroom import __version__, files
from darkroom.report.document import typeset
from darkroom.report.facts import Fact, Facts
from darkroom.report.slides import deck
from darkroom.report.source import Source, source_of
from darkroom.runs import Run

MAKERS = ("typst", "python-pptx", "matplotlib")
"""Packages on whose version it depends what PDF and slides look like, byte for byte."""


@dataclass(frozen=True)
class Rendered:
    """What a report is before it is written; `told` is report.json without the hashes of the other two."""

    pdf: bytes
    slides: bytes
    told: Mapping[str, Any]


def write_report(path: Path, *, ablation: Path | None = None) -> Run:
    """Report the run or comparison at `path`; returns the folder that holds the results, by the names of its files.

    Raises:
        ReportError: the text cannot be typeset.
        RunError: the run is not evaluated, or a file is missing or damaged.
    """
    source = source_of(path, ablation=ablation)
    place, made = source.place, rendered(source)
    files.write_json(place.insights, dict(source.insights))
    files.write_bytes(place.report, made.pdf)
    files.write_bytes(place.slides, made.slides)
    hashes = {"report_sha256": files.sha256_of(place.report), "slides_sha256": files.sha256_of(place.slides)}
    files.write_json(place.told, {**hashes, **made.told})
    return place


def rendered(source: Source) -> Rendered:
    """The report of a source; nothing is written. Raises what `write_report` does."""
    contents = source.contents
    pdf, pages = _document(contents, source)
    slides, shown = _slides(contents, source)
    return Rendered(pdf, slides, {**made_of(source), "report": pages, "slides": shown})


def made_of(source: Source) -> dict[str, Any]:
    """By what a report is made, and of which files with which content."""
    return {
        "made_by": {"darkroom": __version__} | {name: version(name) for name in MAKERS},
        "files": {name: _relative(file, source) for name, file in source.read.items()},
        "sha256": {_relative(file, source): files.sha256_of(file) for file in _placed(source)},
    }


def _placed(source: Source) -> Iterator[Path]:
    """Every file that is read or shown: of figures the SVG of the PDF, and the PNG that slides may take."""
    yield from source.read.values()
    for figure in source.figures.values():
        yield from (path for path in (figure, figure.with_suffix(".png")) if path.is_file())
    yield from source.samples


def _relative(path: Path, source: Source) -> str:
    return Path(os.path.relpath(path, source.place.folder)).as_posix()


def _document(contents: Mapping[str, Any], source: Source) -> tuple[bytes, list[dict[str, Any]]]:
    facts = Facts(contents)
    pdf, told = typeset(facts, source.figures, created=contents["config"]["created"])
    by_shown = {(fact.path, fact.shown): fact for fact in facts.told}
    return pdf, [_entry(by_shown[entry.path, entry.shown], page=entry.page) for entry in told]


def _slides(contents: Mapping[str, Any], source: Source) -> tuple[bytes, list[dict[str, Any]]]:
    facts = Facts(contents)
    content, places = deck(facts, source.figures, source.samples)
    return content, [_entry(fact, slide=slide) for fact, slide in zip(facts.told, places, strict=True)]


def _entry(fact: Fact, **place: int) -> dict[str, Any]:
    return {**vars(fact), **place}
