"""Answers as a file to keep: CSV for spreadsheets; JSON is what the interface for programs says anyway."""

import csv
import io
from collections.abc import Sequence

from darkroom.engines.prediction import Answer, Failure

COLUMNS = ("name", "label", "confidence", "sure", "unlike", "error")
"""Then follow the classes with their probabilities; `unlike` is empty where the model knows nothing of novelty."""

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
        return [harmless(answer.name), "", "", "", "", answer.error, *[""] * len(classes)]
    shares = dict(answer.probabilities)
    unlike = "" if answer.novelty is None else _word(answer.novelty.unlike)
    found = [f"{shares[name]:.6f}" if name in shares else "" for name in classes]
    told = (f"{answer.confidence:.6f}", _word(answer.sure), unlike)
    return [harmless(answer.name), harmless(answer.label), *told, "", *found]


def _word(value: bool) -> str:
    return "yes" if value else "no"
