"""The PDF: every number in it comes from a file and can be found again, and any names of classes can be set."""

import json
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from darkroom import files
from darkroom.errors import ReportError, RunError
from darkroom.figures import evaluation as draw
from darkroom.figures.data import class_balance
from darkroom.report.document import typeset
from darkroom.report.facts import Facts, shown_as
from darkroom.report.write import write_report
from darkroom.runs import Run
from finished import Finished
from reported import LONG, ODD, Reported, figures_of, invented, with_rivals

CREATED = "2026-03-07T09:10:11+00:00"
MARGIN = 56.7
"""Points at the left and right of the text: 2 cm."""


needs_pdftotext = pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed")


def told_by(run: Run) -> dict[str, Any]:
    """The content of report.json."""
    content: dict[str, Any] = json.loads(run.told.read_text(encoding="utf-8"))
    return content


def unpacked(pdf: bytes) -> bytes:
    """The file, and what its compressed streams hold."""
    parts = [pdf]
    for found in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        with suppress(zlib.error):
            parts.append(zlib.decompressobj().decompress(found[1]))
    return b"\n".join(parts)


def count_pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", unpacked(pdf)))


def text_of(pdf: bytes, *options: str) -> str:
    """What pdftotext reads."""
    return subprocess.run(["pdftotext", *options, "-", "-"], input=pdf, capture_output=True, check=True).stdout.decode()


def closed(text: str) -> str:
    """Without any white space: where lines break is the typesetter's business."""
    return "".join(text.split())


def test_the_pdf_is_tagged_titled_and_has_its_usual_length(reported_run: Reported) -> None:
    pdf = reported_run.run.report.read_bytes()
    assert pdf.startswith(b"%PDF-")
    inside = unpacked(pdf)
    assert 8 <= count_pages(pdf) <= 14
    assert b"A classifier for blobs" in inside
    assert b"/StructTreeRoot" in inside
    assert re.search(rb"/Marked\s+true", inside)
    assert re.search(rb"pdfuaid:part\W+1\b", inside), "PDF/UA"
    assert re.search(rb"/Lang\s*\(en", inside)


def test_a_report_takes_seconds(reported_run: Reported) -> None:
    assert reported_run.seconds < 20


def test_every_number_is_listed_with_its_source_and_page(reported_run: Reported) -> None:
    run, told = reported_run.run, told_by(reported_run.run)
    pages = count_pages(run.report.read_bytes())
    read = {"config": run.read_config(), "metrics": run.read_metrics(), "history": run.read_history()}
    read |= {
        name: json.loads(path.read_text())
        for name, path in (("insights", run.insights), ("bundle", run.bundle / "bundle.json"))
    }
    facts = Facts(read)
    assert len(told["report"]) > 100
    for entry in told["report"]:
        assert set(entry) == {"path", "style", "value", "shown", "page"}
        assert entry["value"] == facts.value(entry["path"])
        assert entry["shown"] == shown_as(entry["value"], entry["style"])
        assert 1 <= entry["page"] <= pages
    on_first = {entry["path"] for entry in told["report"] if entry["page"] == 1}
    assert {f"metrics.test.accuracy.{part}" for part in ("value", "low", "high")} | {"metrics.test.n"} <= on_first
    assert told["files"] == {
        "bundle": "bundle/bundle.json",
        "config": "config.json",
        "history": "history.csv",
        "metrics": "metrics.json",
    }
    assert told["report_sha256"] == files.sha256_of(run.report)
    assert told["slides_sha256"] == files.sha256_of(run.slides)


@needs_pdftotext
def test_every_number_stands_on_its_page(reported_run: Reported) -> None:
    pages = [closed(page) for page in text_of(reported_run.run.report.read_bytes()).split("\f")]
    for entry in told_by(reported_run.run)["report"]:
        if entry["style"] not in ("text", "date"):  # words may be parted at the end of a line
            assert entry["shown"].split()[0] in pages[entry["page"] - 1], entry


@needs_pdftotext
def test_what_was_not_run_is_listed_at_the_end(reported_run: Reported) -> None:
    text = closed(text_of(reported_run.run.report.read_bytes()))
    left_out = text.rpartition("Notinthisreport:")[2]
    assert "acomparisonwithothernetworks" in left_out
    assert "darkroomablate" in left_out
    assert "darkroomexport" not in left_out, "which was run"
    for heading in ("Thechoiceofthenetwork", "Whateachchoiceisworth"):
        assert heading not in text


@needs_pdftotext
def test_names_with_signs_of_typst_come_out_as_they_are(reported_run: Reported) -> None:
    run = reported_run.run
    names = (*ODD, "two\nlines")
    pdf, told = typeset(Facts(invented(run, names)), figures_of(run), created=CREATED)
    text = closed(text_of(pdf))
    assert [name for name in names if closed(name) not in text] == []
    assert any("back\\slash" in entry.path for entry in told)


def test_letters_that_no_font_has_stop_no_report(reported_run: Reported) -> None:
    names = ("قطة", "猫", "🐱 cat", "ჩიტი", "नमस्ते")
    pdf, _ = typeset(Facts(invented(reported_run.run, names)), {}, created=CREATED)
    assert count_pages(pdf) >= 3


def tall_figures(contents: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """The figures that grow with the number of classes."""
    block, classes = contents["metrics"]["test"], contents["config"]["data"]["classes"]
    draw.confusion_matrix(folder / "confusion_matrix", confusion=block["confusion_matrix"], classes=classes)
    draw.per_class(folder / "per_class", scores=block["per_class"])
    class_balance(folder / "class_balance", counts=contents["config"]["data"]["counts"])
    return {path.stem: path for path in folder.glob("*.svg")}


@needs_pdftotext
@pytest.mark.parametrize("classes", [2, 100])
def test_words_keep_to_the_page_and_to_themselves(reported_run: Reported, tmp_path: Path, classes: int) -> None:
    contents = with_rivals(invented(reported_run.run, LONG[:classes]))
    figures = figures_of(reported_run.run) | tall_figures(contents, tmp_path)
    pdf, told = typeset(Facts(contents), figures, created=CREATED)
    pages = re.findall(r'<page width="([\d.]+)" height="([\d.]+)">(.*?)</page>', text_of(pdf, "-bbox"), re.DOTALL)
    assert len(pages) == count_pages(pdf) >= max(entry.page for entry in told)
    for width, height, content in pages:
        words = re.findall(r'xMin="([-\d.]+)" yMin="([-\d.]+)" xMax="([-\d.]+)" yMax="([-\d.]+)">(.*?)</word>', content)
        boxes = sorted(
            (float(top), float(left), float(right), float(low), word) for left, top, right, low, word in words
        )
        outside = [
            box
            for box in boxes
            if box[0] < 0 or box[3] > float(height) or box[1] < MARGIN - 4 or box[2] > float(width) - MARGIN + 4
        ]
        assert outside == []
        lines = [(one, other) for one, other in pairwise(boxes) if abs(one[0] - other[0]) < 0.01]
        assert [(one, other) for one, other in lines if one[2] > other[1] + 2] == []


def test_report_and_verify_need_no_torch() -> None:
    program = (
        "import sys, darkroom.report.write, darkroom.verify; print({'torch', 'timm', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_what_cannot_be_typeset_leaves_the_old_report(reported_run: Finished, tmp_path: Path) -> None:
    run = reported_run.copy(tmp_path / "run").run
    kept = (run.report, run.slides, run.told, run.insights)
    before = [path.read_bytes() for path in kept]
    run.figure("network").with_suffix(".svg").write_text("<svg")
    with pytest.raises(ReportError, match="the report cannot be typeset"):
        write_report(run.folder)
    assert [path.read_bytes() for path in kept] == before
    assert list(run.folder.glob(".*")) == []


def test_what_is_missing_is_told(finished_run: Finished, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder"):
        write_report(tmp_path / "nowhere")
    run = finished_run.copy(tmp_path / "run").run
    with pytest.raises(RunError, match="nothing"):
        write_report(run.folder, ablation=tmp_path / "nothing")
    run.metrics.unlink()
    with pytest.raises(RunError, match="darkroom evaluate"):
        write_report(run.folder)
    assert not any(path.exists() for path in (run.report, run.slides, run.told, run.insights))
