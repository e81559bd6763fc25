"""What all benchmarks share: counting, ratios, files of results, the table, and mistakes told in one line."""

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import cyclopts
from rich.console import Console
from rich.table import Table

from darkroom import files
from darkroom.cli import app
from darkroom.config import CompareConfig, DataConfig, TrainConfig
from darkroom.data.sources import ARCHIVE_SUFFIXES
from darkroom.errors import DarkroomError, UsageError
from darkroom.progress import say
from darkroom.provenance import provenance

Item = TypeVar("Item")

TINY = 1e-9
"""Divides instead of zero, such as the accuracy of a network that has learnt nothing."""

RESULTS = Path(__file__).parent / "results"

OURS_TO_GIVE = ("--out", "--overwrite", "--resume", "--seed")
"""Options of darkroom that every benchmark sets itself."""

LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
"""Processes that wanted to run in the minute before the script began: well below 1 where nothing else ran."""

ORIGIN = provenance()
"""From when the script began: what is committed meanwhile is not what is measured."""


def processor_only() -> None:
    """Hide graphics cards from this process and those that it starts, so that all contestants have the same cores."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def argument_parser(script: str, description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(
        prog=f"python benchmarks/{Path(script).name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what is not ours is darkroom's
    )
    parser.add_argument("--title", help="what the file of results is called after")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the file of results")
    return parser


def darkroom_options(data: str, words: Sequence[str]) -> tuple[DataConfig, TrainConfig]:
    """Options of `darkroom train` as its own command line reads them; raises `UsageError` where it would not."""
    arguments = command_arguments("train", data, words)
    return arguments.get("data_config", DataConfig()), arguments.get("training", TrainConfig())


def comparison_options(data: str, words: Sequence[str]) -> tuple[DataConfig, CompareConfig]:
    """The same of `darkroom compare`."""
    arguments = command_arguments("compare", data, words)
    return arguments.get("data_config", DataConfig()), arguments.get("comparison", CompareConfig())


def command_arguments(command: str, data: str, words: Sequence[str]) -> Mapping[str, Any]:
    """What a command of darkroom's would be called with."""
    for word in words:
        if word.partition("=")[0] in OURS_TO_GIVE:
            raise UsageError(f"{word.partition('=')[0]} is the benchmark's own to give: leave it out")
    try:
        _, bound, _ = app.parse_args([command, data, *words], print_error=False, exit_on_error=False)
    except cyclopts.CycloptsError as error:
        raise UsageError(str(error)) from error
    return bound.arguments


def short_name(path: str | Path) -> str:
    """The name of a data set or run without folders and endings of archives."""
    name = Path(path).name
    return next((name[: -len(suffix)] for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)), name)


def command_line(script: str, arguments: Sequence[str]) -> str:
    """What was typed; folders of this machine mean nothing elsewhere and are left out."""
    words = [Path(word).name if "/" in word else word for word in arguments]
    return shlex.join(["python", f"benchmarks/{Path(script).name}", *words])


def write_results(target: Path, *, script: str, arguments: Sequence[str], content: Mapping[str, Any]) -> None:
    """Write a file of results with command, time, versions, machine and commit, and say where it lies."""
    origin = {"command": command_line(script, arguments), **ORIGIN, "load_before": LOAD}
    versions = origin["versions"] | content.get("versions", {})
    files.write_json(target, {**origin, **content, "versions": versions})
    say(f"written: {target}")


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, standard deviation over the runs, and extremes."""
    return {
        "mean": statistics.fmean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "low": min(values),
        "high": max(values),
    }


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """The spread of every number that all `rows` have."""
    names = [name for name, value in rows[0].items() if isinstance(value, int | float)]
    return {name: spread([row[name] for row in rows]) for name in names if all(name in row for row in rows)}


def ratio(
    what: str, *, peer: str, ours: Sequence[float], theirs: Sequence[float], unit: str, less_is_better: bool = False
) -> dict[str, Any]:
    """How many times better ours is than the peer of the same round, above 1 where it is better."""
    pairs = zip(ours, theirs, strict=True)
    ratios = [their / (our or TINY) if less_is_better else our / (their or TINY) for our, their in pairs]
    return {
        "what": what,
        "peer": peer,
        "unit": unit,
        "n": len(ratios),
        "ours": spread(ours),
        "theirs": spread(theirs),
        "ratio": spread(ratios),
    }


def show(ratios: Sequence[Mapping[str, Any]]) -> None:
    """Print one table of ratios on standard output."""
    table = Table("what", "peer", "unit", title="ours against peers (ratio above 1: ours is better)")
    for name in ("ours", "peer's", "ratio", "low–high", "n"):
        table.add_column(name, justify="right")
    for row in ratios:
        extremes = f"{row['ratio']['low']:.3g}–{row['ratio']['high']:.3g}"
        numbers = [f"{row['ours']['mean']:.4g}", f"{row['theirs']['mean']:.4g}", f"{row['ratio']['mean']:.3g}"]
        table.add_row(row["what"], row["peer"], row["unit"], *numbers, extremes, str(row["n"]))
    console = Console()
    Console(width=None if console.is_terminal else 140).print(table)


def rotated(items: Sequence[Item], by: int) -> list[Item]:
    """`items` beginning with another one each round, so that none is always first on a cool machine."""
    start = by % len(items)
    return [*items[start:], *items[:start]]


def run_process(command: Sequence[str | Path], what: str) -> float:
    """Wall seconds of a process; its output goes to standard error. Raises `DarkroomError` where it fails."""
    start = time.perf_counter()
    code = subprocess.run([str(word) for word in command], stdout=sys.stderr, check=False).returncode  # noqa: S603
    if code:
        raise DarkroomError(f"{what} ended with exit code {code}: its own message stands above")
    return time.perf_counter() - start


@contextmanager
def workspace(keep: Path | None) -> Iterator[Path]:
    """A folder for runs and arrays: `keep`, or one that is deleted afterwards."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
    else:
        with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as temporary:
            yield Path(temporary)


def launch(main: Callable[[Sequence[str]], None]) -> None:
    """Run a script's `main` with the words of the command line; errors of the user's become one line and code 2."""
    try:
        main(sys.argv[1:])
    except DarkroomError as error:
        say(f"{Path(sys.argv[0]).name}: error: {' '.join(str(error).split())}")
        sys.exit(2)
    except KeyboardInterrupt:
        say(f"{Path(sys.argv[0]).name}: stopped")
        sys.exit(130)
