"""Live progress of training: a bar on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn

from darkroom.progress import console, say

LINE_INTERVAL = 2.0
"""Least seconds between two lines about epochs, so that quick epochs do not flood the screen."""


class Display:
    """Shows epochs as lines and steps as a bar."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task = progress.add_task("training", total=1.0, detail="") if progress else None
        self._last_line = -LINE_INTERVAL

    def step(self, *, epoch: int, epochs: int, done: float, loss: float, speed: float, seconds_left: float) -> None:
        """One optimiser step is done; `done` is the part of the plan, `speed` in pictures a second."""
        if self._progress is None or self._task is None:
            return
        detail = f"epoch {epoch}/{epochs}  loss {loss:.3f}  {speed:,.0f} pictures/s  {clock(seconds_left)} left"
        self._progress.update(self._task, completed=done, detail=detail)

    def epoch(self, row: Mapping[str, float], *, epochs: int, best: bool, last: bool, seconds_left: float) -> None:
        """One epoch is done; `row` is its line of history.csv."""
        if not last and time.monotonic() - self._last_line < LINE_INTERVAL:
            return
        self._last_line = time.monotonic()
        say(
            f"epoch {row['epoch']:>3.0f}/{epochs}  loss {row['train_loss']:.3f}  "
            f"train {row['train_accuracy']:6.2%}  {_validation(row, best=best)}"
            f"{row['images_per_second']:>7,.0f} pictures/s  "
            f"{clock(row['elapsed'])}, {clock(seconds_left)} left"
        )


def _validation(row: Mapping[str, float], *, best: bool) -> str:
    accuracy = row["validation_accuracy"]
    return "" if math.isnan(accuracy) else f"validation {accuracy:6.2%}{' *' if best else '  '} "


@contextmanager
def live() -> Iterator[Display]:
    """A display for the length of a training."""
    if not console.is_terminal or console.quiet:
        yield Display(None)
        return
    columns = (BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.fields[detail]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        yield Display(progress)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
