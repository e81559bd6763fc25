"""The one way by which a number gets into a report: by its path in a run's files, formatted and recorded.

    facts.tell("metrics.test.accuracy.value", "percent")  ->  "91.6 %"

Paths begin with the name of a file without its ending (config, metrics, history, bundle, insights, comparison,
ablation), or with `darkroom`, for what this program holds fixed. Parts between dots are keys, or places in a list
(negative ones count from its end); `join` makes paths of parts that hold dots themselves. `count:PATH` is how many
entries are there, `sum:PATH` the sum of all numbers beneath it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from darkroom import __version__
from darkroom.errors import RunError

COUNT, SUM = "count:", "sum:"

FIXED = {"confidence": 0.95, "version": __version__}
"""What this program holds fixed and texts tell of: the level of all intervals, for one."""


@dataclass(frozen=True)
class Fact:
    """A value that was told: where it came from, and how it was shown."""

    path: str
    style: str
    value: Any
    shown: str


@dataclass
class Facts:
    """Contents of files by name, and what has been told of them, in the order of telling."""

    files: Mapping[str, Any]
    told: list[Fact] = field(default_factory=list)

    def tell(self, path: str, style: str) -> str:
        """The value at `path`, formatted and recorded; raises `RunError` where the files hold nothing there."""
        fact = Fact(path, style, value := self.value(path), shown_as(value, style))
        self.told.append(fact)
        return fact.shown

    def value(self, path: str) -> Any:
        """The value at `path` as it is, for decisions and drawings."""
        if path.startswith(COUNT):
            return len(self.value(path.removeprefix(COUNT)))
        if path.startswith(SUM):
            return _sum(self.value(path.removeprefix(SUM)))
        here: Any = {**self.files, "darkroom": FIXED}
        for part in split(path):
            try:
                here = here[int(part)] if isinstance(here, Sequence) and not isinstance(here, str) else here[part]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise RunError(f"nothing is known of {path} (at {part}): evaluate and export the run again") from error
        return here

    def has(self, path: str) -> bool:
        """Whether the files hold something at `path`."""
        try:
            return self.value(path) not in (None, [], {})
        except RunError:
            return False


def join(*parts: object) -> str:
    """The path of these parts; their own dots are written as ~1, and ~ as ~0."""
    return ".".join(str(part).replace("~", "~0").replace(".", "~1") for part in parts)


def split(path: str) -> list[str]:
    """The parts of a path: the inverse of `join`."""
    return [part.replace("~1", ".").replace("~0", "~") for part in path.split(".")]


def shown_as(value: Any, style: str) -> str:
    """A value as a reader sees it."""
    return STYLES[style](value)


def _sum(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sum(map(_sum, value.values()))
    return sum(map(_sum, value)) if isinstance(value, list) else value


def _number(value: float) -> str:
    """At most three significant digits, with an exponent only for the smallest."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _amount(value: float) -> str:
    """Parameters or multiply-adds: in words from a million on."""
    if value >= 1e9:
        return f"{value / 1e9:.1f} billion"
    return f"{value / 1e6:.1f} million" if value >= 1e6 else f"{value:,.0f}"


STYLES: dict[str, Callable[[Any], str]] = {
    "percent": lambda value: f"{100 * value:.1f} %",
    "whole percent": lambda value: f"{100 * value:.0f} %",
    "points": lambda value: f"{100 * value:.1f} points",
    "signed points": lambda value: f"{100 * value:+.1f}".replace("-", "−"),
    "decimal": lambda value: f"{value:.3f}",
    "number": _number,
    "count": lambda value: f"{value:,}",
    "times": lambda value: f"{value:,} {'time' if value == 1 else 'times'}",
    "amount": _amount,
    "millions": lambda value: f"{value / 1e6:,.1f}",
    "duration": _duration,
    "minutes": lambda value: f"{value / 60:.1f}",
    "joules": lambda value: f"{value / 1000:,.1f} kJ",
    "megabytes": lambda value: f"{value / 1e6:.1f}",
    "gigabytes": lambda value: f"{value / 2**30:.0f} GiB",
    "milliseconds": lambda value: f"{value:.1f}",
    "probability": lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
    "shape": lambda value: "×".join(f"{side:,}" for side in value),
    "date": lambda value: f"{datetime.fromisoformat(value):%d %B %Y}".removeprefix("0"),
    "text": str,
}
"""How values are shown; the words of a style are what templates ask for."""
