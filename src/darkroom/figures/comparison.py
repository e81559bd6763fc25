"""The figure of a comparison: accuracy against latency."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from darkroom.figures import style
from darkroom.figures.style import BLUE, INK, LINE, MUTED, ORANGE, SMALL, WIDTH, Sheet

Row = Mapping[str, Any]


@style.look()
def accuracy_latency(path: Path, *, rows: Sequence[Row]) -> Figure:
    """Draw validation accuracy over the milliseconds for one picture, with 95 % intervals and the Pareto front."""
    chosen = next(row for row in rows if row["chosen"])
    sheet = Sheet(
        4.2,
        title=f"{chosen['name']} is chosen: {_percent(_accuracy(chosen))} in {_milliseconds(chosen):.1f} ms",
        subtitle="validation accuracy against time for one picture; upper left is better; bars are 95 % intervals",
    )
    axes = sheet.panel(0.65, sheet.top + 0.2, WIDTH - 0.85, 3.3)
    front = pareto(rows)
    axes.step(
        [_milliseconds(row) for row in front],
        [_accuracy(row) for row in front],
        where="post",
        color=LINE,
        linewidth=1.2,
        zorder=1,
    )
    for row in rows:
        _point(axes, row, on_front=row in front)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds for one picture (ONNX Runtime, log scale)")
    axes.set_ylabel("validation accuracy")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.margins(x=0.18, y=0.08)
    return sheet.save(path)


def _point(axes: Any, row: Row, *, on_front: bool) -> None:
    accuracy = row["validation"]["accuracy"]
    colour = ORANGE if row["chosen"] else BLUE if on_front else MUTED
    value = accuracy["value"]
    axes.errorbar(
        [_milliseconds(row)],
        [value],
        yerr=[[value - accuracy["low"]], [accuracy["high"] - value]],
        fmt="D" if row["chosen"] else "o",
        color=colour,
        markersize=6,
        capsize=2.5,
        linewidth=1,
        zorder=3,
    )
    axes.annotate(
        row["name"],
        (_milliseconds(row), value),
        xytext=(6, 4),
        textcoords="offset points",
        fontsize=SMALL + 0.5,
        color=INK,
        weight="bold" if row["chosen"] else "normal",
    )


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
        sure = not row["low"] <= 0 <= row["high"]
        color = BLUE if sure else MUTED
        axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=color, linewidth=1.6)
        axes.plot([100 * row["mean"]], [place], "o", color=color, markersize=5)
    axes.set_ylim(len(ranked) - 0.5, -0.5)
    axes.set_yticks(range(len(ranked)), [row["what"] for row in ranked])
    axes.set_xlabel("points")
    return sheet.save(path)
