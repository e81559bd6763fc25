"""The checks of a report: it is made again from the files of the run, and held against the one that is there."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom import files
from darkroom.errors import ReportError
from darkroom.report.facts import Facts, shown_as
from darkroom.report.insights import insights_of
from darkroom.report.source import Source, read_json, source_of
from darkroom.report.write import Rendered, made_of, rendered
from darkroom.runs import Run
from darkroom.verify.checks import Check, check, difference, require_same


def report(place: Run, run: Run) -> Iterator[Check]:
    """All of them; `place` is the folder of the run, or of the comparison that chose it."""
    made = Report(place)
    yield check("insights", lambda: _insights(place, run))
    sound = [check("report, versions", made.versions), check("report, files", made.files)]
    yield from sound
    yield check("report, numbers", made.numbers)
    if all(seen.passed for seen in sound):  # else it could only be another report
        yield check("report, made again", made.again)
        yield check("report.pdf", made.pdf)
        yield check("slides.pptx", made.slides)


def _insights(place: Run, run: Run) -> str:
    """insights.json follows from the files of the run."""
    require_same("insights.json", read_json(place.insights), "the run", insights_of(run))
    return "follow from the other files"


@dataclass(frozen=True)
class Report:
    """The report in a folder."""

    place: Run

    @cached_property
    def _told(self) -> Any:
        return read_json(self.place.told)

    @cached_property
    def _source(self) -> Source:
        """Of what it would be made now; where an ablation lies, report.json alone knows."""
        ablation = self._told["files"].get("ablation")
        folder = self.place.folder / Path(ablation).parent if ablation is not None else None
        return source_of(self.place.folder, ablation=folder, draw=False)

    @cached_property
    def _made(self) -> Rendered:
        return rendered(self._source)

    def versions(self) -> str:
        """Other versions set the same numbers in another way, so that there is nothing to compare."""
        was = self._told.get("made_by", {})  # empty in reports of before
        now = made_of(self._source)["made_by"]
        for name in (*now, *was):
            if was.get(name) != now.get(name):
                raise ReportError(
                    f"made with {name} {was.get(name)}, and here is {now.get(name)}: install that version to check PDF "
                    f"and slides, or make them again with `darkroom report {self.place.folder}`"
                )
        return ", ".join(f"{name} {version}" for name, version in now.items())

    def files(self) -> str:
        """It is made of the files that a report of this folder is made of, and none has changed since."""
        expected, told = made_of(self._source), self._told
        require_same("files in report.json", told["files"], "those of the folder", expected["files"])
        for name, digest in expected["sha256"].items():
            if told["sha256"].get(name) != digest:
                raise ReportError(f"{name} is not the file that the report was made of")
        for name in told["sha256"].keys() - expected["sha256"].keys():
            raise ReportError(f"{name} is missing, of which the report was made")
        for path, name in ((self.place.report, "report_sha256"), (self.place.slides, "slides_sha256")):
            if files.sha256_of(path) != told[name]:
                raise ReportError(f"{path.name} is not the one that report.json speaks of")
        return f"made of {len(expected['sha256'])} files, which are as they were"

    def numbers(self) -> str:
        """Every number is shown as the files have it."""
        facts = Facts(self._source.contents)
        entries = [*self._told["report"], *self._told["slides"]]
        for entry in entries:
            value = facts.value(entry["path"])
            if shown_as(value, entry["style"]) != entry["shown"] or difference(value, entry["value"]):
                raise ReportError(f"{entry['path']} is shown as {entry['shown']}, but the files say {value!r:.60}")
        return f"{len(entries):,} numbers and texts, as in the files"

    def again(self) -> str:
        """report.json lists the numbers that a report shows, on the pages and slides that show them, and no others."""
        expected, told = self._made.told, self._told
        hashes = {"report_sha256", "slides_sha256"}
        said = {name: value for name, value in told.items() if name not in hashes}
        require_same("report.json", said, "a report made again", expected)
        return "shows the same numbers in the same places"

    def pdf(self) -> str:
        """The same bytes: Typst writes no time of its own."""
        if self.place.report.read_bytes() != self._made.pdf:
            raise ReportError(
                "is not what a report made again is: it was changed, or made where other fonts are installed; "
                f"`darkroom report {self.place.folder}` makes it anew"
            )
        return "is what a report made again is, byte for byte"

    def slides(self) -> str:
        """The same slides, notes, charts and pictures; of tables behind charts, all but the time of writing."""
        parts, expected = parts_of(self.place.slides.read_bytes()), parts_of(self._made.slides)
        for name in sorted(parts.keys() | expected.keys()):
            if parts.get(name) != expected.get(name):
                raise ReportError(f"{name} in slides.pptx is not what a report made again has there")
        return f"{len(parts)} parts, as in slides made again"


def parts_of(content: bytes) -> Mapping[str, Any]:
    """What the files in an Office file hold, by name: pictures as pixels, tables in their turn."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {entry.filename: _part(entry.filename, archive.read(entry)) for entry in archive.infolist()}


def _part(name: str, content: bytes) -> Any:
    if name.endswith(".xlsx"):  # charts take their numbers from it; XlsxWriter notes the time
        return {part: value for part, value in parts_of(content).items() if part != "docProps/core.xml"}
    if name.endswith(".png"):  # which another zlib packs in another way
        with Image.open(io.BytesIO(content)) as picture:
            return picture.mode, picture.size, picture.tobytes()
    return content
