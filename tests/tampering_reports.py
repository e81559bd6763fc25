"""Ways to tamper with a report, and the checks that must find each of them."""

from collections.abc import Callable
from typing import Any

from pptx import Presentation

from darkroom import files
from darkroom.runs import Run
from tampering import REPORT_FILES, Tampering, edited


def insights_changed(run: Run) -> None:
    with edited(run.insights) as insights:
        insights["mistakes"]["n"] += 1


def advice_changed(run: Run) -> None:
    with edited(run.insights) as insights:
        insights["advice"] = [*insights["advice"], "longer"][::-1]


def number_in_report_changed(run: Run) -> None:
    with edited(run.told) as told:
        told["report"][5]["shown"] = "99.9 %"


def value_in_report_changed(run: Run) -> None:
    with edited(run.told) as told:
        next(entry for entry in told["slides"] if entry["path"] == "metrics.test.n")["value"] += 1


def pdf_edited(run: Run) -> None:
    run.report.write_bytes(run.report.read_bytes() + b" ")


def slides_edited(run: Run) -> None:
    run.slides.write_bytes(run.slides.read_bytes() + b" ")


def report_said_to_be_whole(run: Run) -> None:
    """What whoever edits a report does next: bring the hashes in report.json up to date."""
    with edited(run.told) as told:
        told["report_sha256"], told["slides_sha256"] = files.sha256_of(run.report), files.sha256_of(run.slides)
        told["sha256"] = {name: files.sha256_of(run.folder / name) for name in told["sha256"]}


def entry_left_out(run: Run) -> None:
    with edited(run.told) as told:
        del told["report"][7]


def all_entries_left_out(run: Run) -> None:
    with edited(run.told) as told:
        told["report"], told["slides"] = [], []


def page_changed(run: Run) -> None:
    with edited(run.told) as told:
        told["report"][7]["page"] += 1


def slide_changed(run: Run) -> None:
    with edited(run.told) as told:
        told["slides"][-1]["slide"] -= 1


def pdf_edited_consistently(run: Run) -> None:
    run.report.write_bytes(run.report.read_bytes() + b"%")
    report_said_to_be_whole(run)


def _slides_edited(run: Run, edit: Callable[[Any], None]) -> None:
    slides = Presentation(str(run.slides))
    edit(slides)
    slides.save(str(run.slides))
    report_said_to_be_whole(run)


def slides_retitled(run: Run) -> None:
    def edit(slides: Any) -> None:
        slides.slides[0].shapes.title.text_frame.text = "99.9 % of all pictures are right"

    _slides_edited(run, edit)


def notes_edited(run: Run) -> None:
    def edit(slides: Any) -> None:
        slides.slides[1].notes_slide.notes_text_frame.text = "The test split was opened once."

    _slides_edited(run, edit)


def chart_edited(run: Run) -> None:
    def edit(slides: Any) -> None:
        charts = (shape.chart for slide in slides.slides for shape in slide.shapes if shape.has_chart)
        next(charts).chart_title.text_frame.text = "flawless"

    _slides_edited(run, edit)


def slide_added(run: Run) -> None:
    _slides_edited(run, lambda slides: slides.slides.add_slide(slides.slide_layouts[6]))


def metrics_from_elsewhere(run: Run) -> None:
    other = run.folder.with_name("other.json")
    other.write_bytes(run.metrics.read_bytes())
    with edited(run.told) as told:
        told["files"]["metrics"] = f"../{other.name}"


def made_by_another_version(run: Run) -> None:
    with edited(run.told) as told:
        told["made_by"]["typst"] = "0.1"


def made_by_nobody(run: Run) -> None:
    with edited(run.told) as told:
        del told["made_by"]


def figure_changed(run: Run) -> None:
    path = run.figures / "confusion_matrix_test.svg"
    path.write_text(path.read_text().replace("<svg", "<!-- retouched --><svg", 1))


def figure_exchanged(run: Run) -> None:
    (run.figures / "network.svg").write_bytes((run.figures / "samples.svg").read_bytes())
    report_said_to_be_whole(run)


def figure_of_slides_changed(run: Run) -> None:
    (run.figures / "preprocessing.png").write_bytes((run.figures / "samples.png").read_bytes())


def figure_removed(run: Run) -> None:
    (run.figures / "reliability_test.svg").unlink()


OF_REPORTS: list[Tampering] = [
    (number_in_report_changed, {"report, numbers", "report, made again"}),
    (value_in_report_changed, {"report, numbers", "report, made again"}),
    (entry_left_out, {"report, made again"}),
    (all_entries_left_out, {"report, made again"}),
    (page_changed, {"report, made again"}),
    (slide_changed, {"report, made again"}),
    (pdf_edited, {REPORT_FILES}),
    (slides_edited, {REPORT_FILES}),
    (pdf_edited_consistently, {"report.pdf"}),
    (slides_retitled, {"slides.pptx"}),
    (notes_edited, {"slides.pptx"}),
    (chart_edited, {"slides.pptx"}),
    (slide_added, {"slides.pptx"}),
    (metrics_from_elsewhere, {REPORT_FILES}),
    (made_by_another_version, {"report, versions"}),
    (made_by_nobody, {"report, versions"}),
    (figure_changed, {REPORT_FILES}),
    (figure_exchanged, {"report.pdf"}),
    (figure_of_slides_changed, {REPORT_FILES}),
    (figure_removed, {REPORT_FILES}),
    (insights_changed, {"insights"}),
    (advice_changed, {"insights"}),
]
"""The run beneath it is whole."""
