"""The one way by which a number gets into a report: by its path in a run's files, formatted and recorded.

    facts.tell("metrics.test.accuracy.value", "percent")  ->  "91.6 %"

Paths begin with the name of a file without its ending (config, metrics, history, bundle, insights, comparison,
ablation), or with `darkroom`, for what this program holds fixed. Parts between dots are keys, or places in a list
(negative ones count from its end); `join` makes paths of parts that hold dots themselves. `count:PATH` is how many
entries are there, `sum:PATH` the sum of all numbers beneath it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from darkroom.errors import RunError

COUNT, SUM = "count:", "sum:"

FIXED = {"confidence": 0.95, "few": 5}
"""What this program holds fixed and texts tell of: the level of all intervals, and pictures that say too little."""

REMEDY = "evaluate and export the run again"

NOTHING = 1e-9
"""What is nearer to 0 than this is an error of rounding."""


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
                raise RunError(f"nothing is known of {path} (at {part}): {REMEDY}") from error
        return here

    def words(self, path: str) -> str:
        """The text at `path`; a number is an error of whoever asks, since `tell` alone shows numbers."""
        value = self.value(path)
        if not isinstance(value, str):
            raise TypeError(f"{path} is {value!r}, which is no text: numbers are told by tell(path, style)")
        return value

    def has(self, path: str) -> bool:
        """Whether the files hold something at `path`."""
        try:
            return self.value(path) not in (None, [], {})
        except RunError:
            return False


@contextmanager
def damage_told(what: str, remedy: str) -> Iterator[None]:
    """Tell in one line of contents that have another form than darkroom writes; raises `RunError`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RunError(f"{what} is damaged ({type(error).__name__}: {error}): {remedy}") from error


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


def fixed(value: float, digits: int, *, sign: str = "", whole: float = math.inf) -> str:
    """So many digits behind the point, and more where a value would else be shown as 0 or `whole` without being it."""
    if abs(value) < NOTHING:
        value = 0.0
    elif abs(value) < 10**-digits:
        digits = 1 - math.floor(math.log10(abs(value)))
    elif 0 < whole - value < 0.5 * 10**-digits * (1 + NOTHING):
        digits = -math.floor(math.log10(whole - value) + NOTHING * 1000)
    return f"{value:{sign},.{digits}f}".replace("-", "−")


def _percent(value: float, digits: int = 1) -> str:
    return f"{fixed(100 * value, digits, whole=100)} %"


def _counted(thing: str) -> Callable[[int], str]:
    return lambda value: f"{value:,} {thing if value == 1 else f'{thing}s'}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{fixed(seconds, 0)} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _amount(value: float) -> str:
    """Parameters or multiply-adds: in words from a million on."""
    if value >= 1e9:
        return f"{value / 1e9:.1f} billion"
    return f"{value / 1e6:.1f} million" if value >= 1e6 else f"{value:,.0f}"


STYLES: dict[str, Callable[[Any], str]] = {
    "percent": _percent,
    "whole percent": lambda value: _percent(value, 0),
    "points": lambda value: f"{fixed(100 * value, 1)} points",
    "signed points": lambda value: fixed(100 * value, 1, sign="+" if abs(value) > NOTHING else ""),
    "decimal": lambda value: fixed(value, 3, whole=1),
    "number": _number,
    "count": lambda value: f"{value:,}",
    "times": _counted("time"),
    "epochs": _counted("epoch"),
    "steps": _counted("step"),
    "pictures": _counted("picture"),
    "mistakes": _counted("mistake"),
    "amount": _amount,
    "millions": lambda value: fixed(value / 1e6, 1),
    "duration": _duration,
    "minutes": lambda value: fixed(value / 60, 1),
    "joules": lambda value: f"{fixed(value / 1000, 1)} kJ",
    "megabytes": lambda value: fixed(value / 1e6, 1),
    "gigabytes": lambda value: f"{fixed(value / 2**30, 0)} GiB",
    "milliseconds": lambda value: fixed(value, 1),
    "probability": lambda value: "< 0.001" if value < 0.001 else fixed(value, 3, whole=1),
    "shape": lambda value: "×".join(f"{side:,}" for side in value),
    "date": lambda value: f"{datetime.fromisoformat(value):%d %B %Y}".removeprefix("0"),
    "text": str,
}
"""How values are shown; the words of a style are what templates ask for."""
