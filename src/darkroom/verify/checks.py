"""What a check is, and how two contents of JSON files are held against each other."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darkroom.errors import DarkroomError, RunError

EXACT = 1e-6
"""Relative difference from which recomputed numbers are other ones; processors may differ in the last digits."""


@dataclass(frozen=True)
class Check:
    """What was checked, whether it holds, and what was found."""

    name: str
    passed: bool
    detail: str


def check(name: str, holds: Callable[[], str]) -> Check:
    """Whether `holds` returns what it found; raises `ModuleNotFoundError` where a package is missing to find out."""
    try:
        return Check(name, True, holds())
    except DarkroomError as error:
        return Check(name, False, str(error))
    except ModuleNotFoundError:
        raise
    except Exception as error:  # a file whose content was changed may have any form
        return Check(name, False, f"cannot be checked: {type(error).__name__} {error}")


def require_same(left: str, said: Any, right: str, expected: Any) -> None:
    """Raise `RunError` that names the first difference."""
    where = difference(said, expected)
    if where:
        raise RunError(f"{left} and {right} differ in {where}")


def difference(said: Any, expected: Any, where: str = "") -> str | None:
    """Where two contents of JSON files differ first, as a path; None where they are the same."""
    if isinstance(expected, Mapping) and isinstance(said, Mapping):
        for name in (*said, *expected):
            if (name in said) != (name in expected):
                return f"{where}.{name}".lstrip(".")
        pairs: Iterator[tuple[Any, Any, Any]] = ((name, said[name], expected[name]) for name in expected)
    elif _is_list(expected) and _is_list(said):
        if len(said) != len(expected):
            return f"{where} (its length)".lstrip()
        pairs = ((place, *both) for place, both in enumerate(zip(said, expected, strict=True)))
    else:
        return None if _same(said, expected) else where or "their value"
    return next((found for name, a, b in pairs if (found := difference(a, b, f"{where}.{name}".lstrip(".")))), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _same(said: Any, expected: Any) -> bool:
    if isinstance(said, float) and isinstance(expected, float):
        return math.isclose(said, expected, rel_tol=EXACT, abs_tol=EXACT) or (math.isnan(said) and math.isnan(expected))
    return bool(said == expected)
