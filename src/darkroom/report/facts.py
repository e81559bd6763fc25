"""The one way by which a number gets into a report: by its path in a run's files, formatted and recorded.

    facts.tell("metrics.test.accuracy.value", "percent")  ->  "91.6 %"

Paths begin with the name of a file without its ending (config, metrics, comparison, ablation, bundle, history); parts
between dots are keys, or places in a list (negative ones count from its end). `count:PATH` is how many entries are there.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from darkroom.errors import RunError
from darkroom.runs import Run

Style = Literal[
    "percent", "points", "count", "number", "precise", "seconds", "minutes", "milliseconds", "millions", "megabytes",
    "date", "text",
]  # fmt: skip

COUNT = "count:"


@dataclass(frozen=True)
class Fact:
    """A value that was told: where it came from, how it was shown, and, once laid out, on which page or slide."""

    path: str
    style: Style
    value: Any
    shown: str

    def to_json(self) -> dict[str, Any]:
        """Plain values for report.json."""
        return vars(self)


@dataclass
class Facts:
    """Files of a run, and what has been told of them; `told` holds facts in the order of their first telling."""

    files: Mapping[str, Any]
    told: list[Fact] = field(default_factory=list)

    def tell(self, path: str, style: Style) -> str:
        """The value at `path`, formatted; raises `RunError` where the files hold nothing there."""
        return self.fact(path, style).shown

    def fact(self, path: str, style: Style) -> Fact:
        """The same with its origin, recorded."""
        value = self.value(path)
        if style not in STYLES:
            raise RunError(f"{style} is no style of numbers: give one of {', '.join(STYLES)}")
        fact = Fact(path, style, value, STYLES[style](value))
        self.told.append(fact)
        return fact

    def value(self, path: str) -> Any:
        """The value at `path` as it is, for decisions: it is not told, and so not recorded."""
        if path.startswith(COUNT):
            return len(self.value(path.removeprefix(COUNT)))
        here: Any = self.files
        for part in parts(path):
            try:
                here = here[int(part)] if isinstance(here, Sequence) and not isinstance(here, str) else here[part]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise RunError(f"nothing is known of {path} (at {part}): evaluate and export the run first") from error
        return here

    def has(self, path: str) -> bool:
        """Whether the files hold something at `path`."""
        try:
            return self.value(path) is not None
        except RunError:
            return False


def parts(path: str) -> list[str]:
    """The parts of a path; one that holds dots itself stands in angle brackets, as in metrics.test.per_class.<a.b>.f1."""
    found, rest = [], path
    while rest:
        if rest.startswith("<"):
            part, _, rest = rest[1:].partition(">")
            rest = rest.removeprefix(".")
        else:
            part, _, rest = rest.partition(".")
        found.append(part)
    return found


def files_of(run: Run) -> dict[str, Any]:
    """What the files of a run hold, by name; figures and predictions are not among them."""
    content: dict[str, Any] = {"config": run.read_config(), "metrics": run.read_metrics()}
    if run.history.is_file():
        content["history"] = run.read_history()
    if (info := run.bundle / "bundle.json").is_file():
        content["bundle"] = _read(info)
    return content


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): export the run again") from error


def _number(value: float, digits: int = 3) -> str:
    """So many significant digits, no exponent for what people read easily."""
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}" if abs(value) >= 1e-4 else f"{value:.{digits - 1}e}"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:.1f} hours"


STYLES: dict[str, Callable[[Any], str]] = {
    "percent": lambda value: f"{100 * value:.1f} %",
    "points": lambda value: f"{100 * value:+.1f}",
    "count": lambda value: f"{value:,}",
    "number": _number,
    "precise": lambda value: f"{value:.3f}",
    "seconds": lambda value: f"{value:.0f} s",
    "minutes": _clock,
    "milliseconds": lambda value: f"{value:.1f} ms",
    "millions": lambda value: f"{value / 1e6:,.1f} million",
    "megabytes": lambda value: f"{value / 1e6:.1f} MB",
    "date": lambda value: f"{datetime.fromisoformat(value):%-d %B %Y}",
    "text": str,
}
"""How a value is shown."""
