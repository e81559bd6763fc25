"""All benchmarks one after the other, then one table of their ratios: what `make bench` runs.

    python benchmarks/bench.py DATA [--rounds 3] [--minutes 7] [--peers keras textbook] [--run RUN]
        [any other option of training_to_target.py, and any of `darkroom train`]

Inference is measured on RUN, or on what training_to_target.py has trained. Run nothing else meanwhile. With the
defaults, two cores and CIFAR-10 it takes about an hour and a half.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import training_to_target
from darkroom.errors import UsageError
from darkroom.progress import say
from measuring import darkroom_options, launch, run_process, short_name, show, workspace

HERE = Path(__file__).resolve().parent


def main(arguments: Sequence[str]) -> None:
    """Training, throughput, inference, table."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run", type=Path)
    own, rest = parser.parse_known_args(arguments)
    options, words = training_to_target.parse(rest)
    data_config, _ = darkroom_options(options.data, words)
    title = options.title or short_name(options.data)
    common = ["--rounds", str(options.rounds), "--title", title, "--results", str(options.results)]
    with workspace(options.keep) as folder:
        measure("training_to_target.py", *rest, "--keep", str(folder))
        measure("throughput.py", options.data, *common, *words)
        measure("inference.py", str(own.run or trained_run(folder)), *common, "--cache", str(data_config.cache))
    names = [f"{kind}-{title}.json" for kind in ("training-to-target", "throughput", "inference")]
    show([row for name in names for row in json.loads((options.results / name).read_text())["ratios"]])


def measure(script: str, *words: str) -> None:
    """Run one benchmark in a process of its own, so that none leaves threads or memory to the next."""
    say(f"== {script} ==")
    run_process([sys.executable, HERE / script, *words], script)


def trained_run(folder: Path) -> Path:
    """A run of ours that training_to_target.py has left: the one with the most time, where both were made."""
    runs = [run for name in ("ours", "ours-to-target") if (run := folder / f"{name}-0").is_dir()]
    if not runs:
        raise UsageError("no run to measure inference on: give --run RUN")
    return runs[0]


if __name__ == "__main__":
    launch(main)
