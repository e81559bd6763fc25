"""`darkroom report`: report.pdf, slides.pptx, and report.json with every number that they show."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom import files
from darkroom.report.document import typeset
from darkroom.report.facts import Fact, Facts
from darkroom.report.slides import deck
from darkroom.report.source import Source, source_of
from darkroom.runs import Run


def write_report(path: Path, *, ablation: Path | None = None) -> Run:
    """Report the run or comparison at `path`; returns the folder that holds the results, by the names of its files.

    Raises:
        ReportError: the text cannot be typeset.
        RunError: the run is not evaluated, or a file is missing or damaged.
    """
    source = source_of(path, ablation=ablation)
    place, contents = source.place, source.contents
    pdf, pages = _document(contents, source)
    slides, shown = _slides(contents, source)
    files.write_json(place.insights, dict(source.insights))
    files.write_bytes(place.report, pdf)
    files.write_bytes(place.slides, slides)
    told = {
        "report_sha256": files.sha256_of(place.report),
        "slides_sha256": files.sha256_of(place.slides),
        "files": {name: os.path.relpath(file, place.folder) for name, file in source.read.items()},
        "report": pages,
        "slides": shown,
    }
    files.write_json(place.told, told)
    return place


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
