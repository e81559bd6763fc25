"""A comparison told to people: a table, why each candidate won or lost, and a paragraph made of the numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from darkroom.comparison.choice import RULES

Row = Mapping[str, Any]

HEADER = ("network", "accuracy (95 %)", "macro F1", "log loss", "ECE", "parameters", "MMAC", "MB", "ms", "1/s", "min")

LATE = 1.02
"""Part of the minutes from which on they count as not kept."""


def lines(content: Mapping[str, Any]) -> Iterator[str]:
    """All of it, from the content of comparison.json; candidates with the most accurate first."""
    rows = sorted(content["candidates"], key=lambda row: -row["validation"]["accuracy"]["value"])
    yield from table(rows)
    yield ""
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        yield f"{row['name']:<{width}}  {'chosen: ' if row['chosen'] else ''}{row['reason']}"
    yield from content["left_out"]
    yield ""
    yield paragraph(content)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """One line a candidate; energy where the machine has told of any."""
    energy = any(row["train_joules"] is not None for row in rows)
    cells = [(*HEADER, "kJ"), *(_cells(row) for row in rows)]
    cells = cells if energy else [line[:-1] for line in cells]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for name, *numbers in cells:
        padded = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        yield "  ".join([name.ljust(widths[0]), *padded])
    yield (
        "on validation; MMAC: million multiply-adds; MB: graph; ms: for one picture, 1/s: pictures a second in "
        "batches of 32, in ONNX Runtime on this machine; min: training, where fine-tuning takes over the features "
        "that are counted with the frozen network" + ("; kJ: of the processor meanwhile" if energy else "")
    )


def _cells(row: Row) -> tuple[str, ...]:
    block, serving, joules = row["validation"], row["serving"], row["train_joules"]
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
        f"{joules / 1000:.1f}" if joules is not None else "?",
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
    if chosen["train_joules"] is not None:
        yield f"While it was trained, the processor used {chosen['train_joules'] / 1000:.1f} kJ."
    baseline = _baseline(rows)
    if baseline is not None and baseline is not chosen:
        gap = accuracy["value"] - baseline["validation"]["accuracy"]["value"]
        minutes = baseline["train_seconds"] / 60
        where = f"{_points(abs(gap))} {'behind' if gap >= 0 else 'ahead'}"
        yield f"Our own network, trained from scratch in {minutes:.1f} minutes, is {where}."


def _baseline(rows: Sequence[Row]) -> Row | None:
    """Our own network, if it took part."""
    return next((row for row in rows if row["how"] == "from scratch"), None)


def _on_test(rows: Sequence[Row], chosen: Row) -> Iterator[str]:
    if "test" not in chosen:
        return
    accuracy = chosen["test"]["accuracy"]
    sentence = (
        f"On {chosen['test']['n']:,} test pictures, opened {_times(chosen['test_openings'])} after the choice, it "
        f"reaches {_percent(accuracy['value'])} ({_percent(accuracy['low'])} to {_percent(accuracy['high'])})"
    )
    baseline = _baseline(rows)
    if baseline is not None and baseline is not chosen and "test" in baseline:
        sentence += f"; {baseline['name']}, the baseline, {_percent(baseline['test']['accuracy']['value'])}"
    yield sentence + "."


def _limits(content: Mapping[str, Any], chosen: Row) -> Iterator[str]:
    pictures = chosen["validation"]["n"]
    yield (
        f"Limits: one split and one training each (seed {content['seed']}), so that the luck of training is not in "
        f"these intervals; of {pictures:,} pictures, one is {_points(1 / pictures)}; times are those of this machine."
    )
    yield (
        "The epoch, the penalty and the network were all chosen on the same validation pictures, so that their numbers "
        "flatter, most of all those of networks with many epochs to choose from."
    )
    if content["choice"]["prefer"] != "accuracy" and any(map(_undecided, content["candidates"])):
        yield "For some candidates these pictures are too few to tell whether they are close to the best: see above."
    if content["left_out"]:
        yield f"{len(content['left_out'])} thing(s) were left out: see above."
    taken, given = content["seconds"] / 60, content["requested"]["minutes"]
    if taken > LATE * given:
        yield f"All this took {taken:.1f} minutes instead of {given:g}."


def _undecided(row: Row) -> bool:
    """Whether a candidate may be as good as the best, and is not shown to be."""
    pair = row["against_best"]
    return pair is not None and not pair["distinguishable"] and not row["close_to_best"]


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"
