"""The figure of a comparison: accuracy against latency."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from darkroom.figures import style
from darkroom.figures.style import BLUE, INK, MUTED, ORANGE, SMALL, WIDTH, Sheet

Row = Mapping[str, Any]

DOTS = (0, (1, 2))
LEADER = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "linestyle": DOTS, "shrinkB": 4, "relpos": (0, 0.5)}

NAMED = 40
"""Candidates that the figure names; of more, the most accurate."""

PITCH, NAMES = 0.17, 2.35
"""Inches from name to name, and for a name."""

WHOLE_TICKS = (1, 2, 5)


@style.look()
def accuracy_latency(path: Path, *, rows: Sequence[Row]) -> Figure:
    """Draw validation accuracy over the milliseconds for one picture, with 95 % intervals and the Pareto front."""
    chosen = next(row for row in rows if row["chosen"])
    named = sorted(rows, key=lambda row: (-_accuracy(row), _milliseconds(row)))[:NAMED]
    tall = max(3.3, len(named) * PITCH)
    only = f"; the {NAMED} most accurate are named" if len(rows) > NAMED else ""
    sheet = Sheet(
        tall + 0.7,
        title=f"{chosen['name']} is chosen: {_percent(_accuracy(chosen))} in {_milliseconds(chosen):.1f} ms",
        subtitle=f"validation accuracy against time for one picture; upper left is better; bars: 95 % intervals{only}",
    )
    axes = sheet.panel(0.65, sheet.top + 0.1, WIDTH - 0.65 - NAMES - 0.4, tall)
    front = pareto(rows)
    times, accuracies = [_milliseconds(row) for row in front], [_accuracy(row) for row in front]
    axes.step(times, accuracies, where="post", color=BLUE, alpha=0.4, linewidth=1.2, zorder=1)
    for row in rows:
        _point(axes, row, on_front=row in front)
    _scale(axes, rows)
    _name(axes, named, tall)
    return sheet.save(path)


def _point(axes: Axes, row: Row, *, on_front: bool) -> None:
    accuracy = row["validation"]["accuracy"]
    value = accuracy["value"]
    axes.errorbar(
        [_milliseconds(row)],
        [value],
        yerr=[[value - accuracy["low"]], [accuracy["high"] - value]],
        fmt="D" if row["chosen"] else "o",
        color=ORANGE if row["chosen"] else BLUE if on_front else MUTED,
        markersize=6,
        capsize=2.5,
        linewidth=1,
        zorder=3,
    )


def _scale(axes: Axes, rows: Sequence[Row]) -> None:
    """Room around the points, and at least two numbers on each axis."""
    times = [_milliseconds(row) for row in rows]
    low, high = min(times) / 1.25, max(times) * 1.25
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    whole = [tick for tick in LogLocator(subs=WHOLE_TICKS).tick_values(low, high) if low <= tick <= high]
    axes.xaxis.set_major_locator(LogLocator(subs=WHOLE_TICKS) if len(whole) > 1 else MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("milliseconds for one picture (ONNX Runtime, log scale)")
    intervals = [row["validation"]["accuracy"] for row in rows]
    low, high = min(one["low"] for one in intervals), max(one["high"] for one in intervals)
    room = 0.05 * (high - low) or 0.01
    axes.set_ylim(low - room, high + room)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def _name(axes: Axes, rows: Sequence[Row], tall: float) -> None:
    """Names beside the axes, each tied to its point, as near to its height as the others leave room."""
    low, high = axes.get_ylim()
    wanted = [tall * (_accuracy(row) - low) / (high - low) for row in rows]  # inches from below, descending
    for row, place in zip(rows, spread(wanted, tall), strict=True):
        weight = "bold" if row["chosen"] else "normal"
        axes.annotate(
            style.shorten(row["name"], NAMES, size=SMALL + 0.5, weight=weight),
            (_milliseconds(row), _accuracy(row)),
            xytext=(1 + 0.25 / axes.get_position().width / WIDTH, place / tall),
            textcoords="axes fraction",
            fontsize=SMALL + 0.5,
            color=INK,
            weight=weight,
            verticalalignment="center",
            arrowprops=LEADER,
            zorder=2,
        )


def spread(wanted: Sequence[float], tall: float) -> list[float]:
    """Descending heights as near to the wanted ones as a pitch between them allows, from 0 to `tall`."""
    places: list[float] = []
    for number, height in enumerate(wanted):
        above = places[-1] - PITCH if places else tall
        below = (len(wanted) - 1 - number) * PITCH  # which the others need
        places.append(max(min(height, above), below))
    return places


def pareto(rows: Sequence[Row]) -> list[Row]:
    """Candidates than which no other is both faster and at least as accurate, the fastest first."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (_milliseconds(row), -_accuracy(row))):
        if not front or _accuracy(row) > _accuracy(front[-1]):
            front.append(row)
    return front


def _accuracy(row: Row) -> float:
    return float(row["validation"]["accuracy"]["value"])


def _milliseconds(row: Row) -> float:
    return float(row["serving"]["milliseconds"])


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


@style.look()
def effects(path: Path, *, rows: Sequence[Row], baseline: Sequence[float]) -> Figure:
    """Draw the effect of each change on validation accuracy with its interval, the most harmful first."""
    ranked = sorted(rows, key=lambda row: row["mean"])
    pitch, label = 0.28, 2.6
    sheet = Sheet(
        len(ranked) * pitch + 0.75,
        title="What each choice is worth",
        subtitle=f"change of validation accuracy against {_percent(sum(baseline) / len(baseline))}, in points; "
        f"{len(baseline)} seeds, 95 % intervals",
    )
    axes = sheet.panel(label, sheet.top + 0.15, WIDTH - label - 0.3, len(ranked) * pitch)
    axes.axvline(0, color=INK, linewidth=0.8)
    for place, row in enumerate(ranked):
        color = BLUE if row["sure"] else MUTED
        axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=color, linewidth=1.6)
        axes.plot([100 * row["mean"]], [place], "o", color=color, markersize=5)
    axes.set_ylim(len(ranked) - 0.5, -0.5)
    axes.set_yticks(range(len(ranked)), [style.shorten(row["what"], label - 0.2, size=7.5) for row in ranked])
    axes.set_xlabel("points")
    return sheet.save(path)
