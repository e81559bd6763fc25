"""Progress bars on a terminal, plain lines elsewhere; one look for every stage."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

console = Console(stderr=True, highlight=False, emoji=False)  # a folder may be called :cat:

PLAIN_INTERVAL = 10.0
"""Seconds between plain progress lines when the output is not a terminal."""


def say(message: str) -> None:
    """Tell the user one line about what happens; standard output stays free for results."""
    console.print(message, markup=False, soft_wrap=True)


def track(items: Iterable[Item], *, total: int, what: str, unit: str = "") -> Iterator[Item]:
    """Yield `items` while showing how many of `total` are done."""
    if console.quiet:
        yield from items
    elif console.is_terminal:
        yield from _bar(items, total, what)
    else:
        yield from _lines(items, total, what, unit)


def _bar(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        for item in items:
            yield item
            progress.advance(task)


def _lines(items: Iterable[Item], total: int, what: str, unit: str) -> Iterator[Item]:
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= PLAIN_INTERVAL:
            last = time.monotonic()
            print(f"{what}: {done} of {total}{' ' + unit if unit else ''}", file=sys.stderr, flush=True)
