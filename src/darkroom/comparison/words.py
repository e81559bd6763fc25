"""A comparison told to people: a table, why each candidate won or lost, and a paragraph made of the numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from darkroom.comparison.choice import RULES

Row = Mapping[str, Any]


def lines(content: Mapping[str, Any]) -> Iterator[str]:
    """All of it, from the content of comparison.json."""
    rows = content["candidates"]
    yield from table(rows)
    yield ""
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        yield f"{row['name']:<{width}}  {'chosen: ' if row['chosen'] else ''}{row['reason']}"
    yield from content["left_out"]
    yield ""
    yield paragraph(content)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """One line a candidate, the most accurate first."""
    header = (
        "network",
        "accuracy (95 %)",
        "macro F1",
        "log loss",
        "ECE",
        "parameters",
        "MMAC",
        "MB",
        "ms",
        "1/s",
        "min",
    )
    cells = [header, *(_cells(row) for row in sorted(rows, key=lambda row: -row["validation"]["accuracy"]["value"]))]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    for name, *numbers in cells:
        padded = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        yield "  ".join([name.ljust(widths[0]), *padded])
    yield (
        "on validation; MMAC: million multiply-adds; MB: bundle; ms: for one picture, 1/s: pictures a second in "
        "batches of 32, in ONNX Runtime on this machine; min: training"
    )


def _cells(row: Row) -> tuple[str, ...]:
    block, serving = row["validation"], row["serving"]
    accuracy = block["accuracy"]
    return (
        f"{'* ' if row['chosen'] else '  '}{row['name']}",
        f"{_percent(accuracy['value'])} ({_percent(accuracy['low'])}–{_percent(accuracy['high'])})",
        _percent(block["macro_f1"]["value"]),
        f"{block['log_loss']['value']:.3f}",
        f"{block['ece']['value']:.3f}",
        f"{row['parameters']:,}",
        f"{row['multiply_adds'] / 1e6:,.0f}",
        f"{serving['bytes'] / 1e6:.1f}",
        f"{serving['milliseconds']:.1f}",
        f"{serving['pictures_a_second']:,.0f}",
        f"{row['train_seconds'] / 60:.1f}",
    )


def paragraph(content: Mapping[str, Any]) -> str:
    """The choice, its reasons and its limits."""
    rows, choice = content["candidates"], content["choice"]
    chosen = next(row for row in rows if row["chosen"])
    return " ".join([*_chosen(rows, chosen, choice), *_on_test(rows, chosen), *_limits(content, chosen)])


def _chosen(rows: Sequence[Row], chosen: Row, choice: Mapping[str, Any]) -> Iterator[str]:
    accuracy = chosen["validation"]["accuracy"]
    yield (
        f"Of {len(rows)} candidates, {chosen['name']} was chosen: {chosen['reason']}. It puts "
        f"{_percent(accuracy['value'])} of {chosen['validation']['n']:,} validation pictures into the right class "
        f"(95 % interval {_percent(accuracy['low'])} to {_percent(accuracy['high'])})."
    )
    yield f"The rule: {RULES[choice['prefer']]}."
    if choice["prefer"] != "accuracy":
        yield f"Close means {choice['close'].removeprefix('close: ')}."
    baseline = next((row for row in rows if row["how"] == "from scratch"), None)
    if baseline is not None and baseline is not chosen:
        gap = accuracy["value"] - baseline["validation"]["accuracy"]["value"]
        minutes = baseline["train_seconds"] / 60
        yield f"Our own network, trained from scratch in {minutes:.1f} minutes, is {_points(gap)} behind."


def _on_test(rows: Sequence[Row], chosen: Row) -> Iterator[str]:
    if "test" not in chosen:
        return
    accuracy = chosen["test"]["accuracy"]
    sentence = (
        f"On {chosen['test']['n']:,} test pictures, opened once after the choice, it reaches "
        f"{_percent(accuracy['value'])} ({_percent(accuracy['low'])} to {_percent(accuracy['high'])})"
    )
    others = [row for row in rows if "test" in row and row is not chosen]
    if others:
        sentence += f"; {others[0]['name']}, the baseline, {_percent(others[0]['test']['accuracy']['value'])}"
    yield sentence + "."


def _limits(content: Mapping[str, Any], chosen: Row) -> Iterator[str]:
    pictures = chosen["validation"]["n"]
    yield (
        f"Limits: one split and one training each (seed {content['seed']}), so that the luck of training is not in "
        f"these intervals; of {pictures:,} pictures, one is {_points(1 / pictures)}; times are those of this machine."
    )
    if content["left_out"]:
        yield f"For want of time, {len(content['left_out'])} thing(s) were left out: see above."


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"
