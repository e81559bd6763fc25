"""Answers as a file to keep: CSV for spreadsheets; JSON is what the interface for programs says anyway."""

import csv
import io
from collections.abc import Sequence

from darkroom.engines.prediction import Answer, Failure

COLUMNS = ("name", "label", "confidence", "sure", "error")
"""Then follow the classes with their probabilities."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What begins so is computed by spreadsheets, and a file's name is for strangers to choose."""


def to_csv(answers: Sequence[Answer], classes: Sequence[str]) -> str:
    """A row a picture, under names of columns; lines end as RFC 4180 has it."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow([*COLUMNS, *map(harmless, classes)])
    writer.writerows(_row(answer, classes) for answer in answers)
    return stream.getvalue()


def harmless(text: str) -> str:
    """Text that a spreadsheet shows and does not compute."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _row(answer: Answer, classes: Sequence[str]) -> list[str]:
    if isinstance(answer, Failure):
        return [harmless(answer.name), "", "", "", answer.error, *[""] * len(classes)]
    shares = dict(answer.probabilities)
    sure = "yes" if answer.sure else "no"
    found = [f"{shares[name]:.6f}" if name in shares else "" for name in classes]
    return [harmless(answer.name), harmless(answer.label), f"{answer.confidence:.6f}", sure, "", *found]
