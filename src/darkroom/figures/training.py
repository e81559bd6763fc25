"""Figures of a training run."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from darkroom.figures import style
from darkroom.figures.style import BLUE, INK, MUTED, ORANGE, WIDTH, Sheet

History = Sequence[Mapping[str, float]]


@style.look()
def learning_curves(path: Path, *, history: History, best_epoch: int | None) -> Figure:
    """Draw losses, accuracies and the learning rate over epochs; `history` holds the rows of history.csv."""
    sheet = Sheet(3.75, title="Learning curves", subtitle=_summary(history, best_epoch))
    sheet.legend({"training": (BLUE, "s"), "validation": (ORANGE, "s")})
    left, right, width = 0.6, WIDTH / 2 + 0.6, WIDTH / 2 - 0.75
    loss = _panel(sheet, left, 0.25, width, 1.95, "loss (training: what is minimised; validation: log loss)")
    accuracy = _panel(sheet, right, 0.25, width, 1.95, "accuracy")
    rate = _panel(sheet, left, 2.62, WIDTH - 0.75, 0.62, "learning rate")
    rate.set_xlabel("epoch")
    for axes, column in ((loss, "loss"), (accuracy, "accuracy")):
        _line(axes, history, f"train_{column}", BLUE)
        _line(axes, history, f"validation_{column}", ORANGE)
        _mark(axes, history, f"validation_{column}", best_epoch)
    _line(rate, history, "learning_rate", INK)
    rate.set_ylim(bottom=0)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=_decimals(accuracy), symbol=" %"))
    rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    for axes in (loss, accuracy, rate):
        _epochs(axes, [row["epoch"] for row in history])
    return sheet.save(path)


def _panel(sheet: Sheet, left: float, top: float, width: float, height: float, name: str) -> Axes:
    axes = sheet.panel(left, sheet.top + top, width, height)
    sheet.text(left, sheet.top + top - 0.14, name, color=MUTED)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3 if height < 1 else 6, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(length=2)
    return axes


def _line(axes: Axes, history: History, column: str, color: str) -> None:
    points = [(row["epoch"], row[column]) for row in history if math.isfinite(row.get(column, math.nan))]
    if points:
        axes.plot(*zip(*points, strict=True), color=color, marker="o" if len(history) <= 25 else "", markersize=3)


def _mark(axes: Axes, history: History, column: str, best_epoch: int | None) -> None:
    """Ring the point of the best epoch and draw a line through it."""
    for row in history:
        if row["epoch"] == best_epoch:
            axes.axvline(row["epoch"], color=MUTED, linewidth=0.7, linestyle=(0, (3, 3)), zorder=1)
            axes.plot(
                row["epoch"], row[column], "o", markersize=7, markerfacecolor="white", markeredgecolor=ORANGE,
                markeredgewidth=1.6,
            )  # fmt: skip


def _epochs(axes: Axes, epochs: Sequence[float]) -> None:
    """Whole epochs only, and room about a single one."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    first, last = min(epochs), max(epochs)
    room = max(0.5, 0.02 * (last - first)) if last - first < 25 else 0.02 * (last - first)
    axes.set_xlim(first - room, last + room)


def _decimals(axes: Axes) -> int:
    low, high = axes.get_ylim()
    return 0 if high - low > 0.06 else 1


def _summary(history: History, best_epoch: int | None) -> str:
    said = [f"{len(history):,} epoch{'s' if len(history) > 1 else ''}"]
    for row in history:
        if row["epoch"] == best_epoch:
            accuracy, loss = row["validation_accuracy"], row["validation_loss"]
            said.append(f"best is epoch {best_epoch}: validation accuracy {accuracy:.1%}, loss {loss:.3g}")
    speeds = sorted(row["images_per_second"] for row in history if "images_per_second" in row)
    if speeds:
        said.append(f"{speeds[len(speeds) // 2]:,.0f} pictures a second")
    return " · ".join(said).replace("%", " %")
