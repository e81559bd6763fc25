"""Measure the main job: read and decode a data set afresh, train, evaluate as the bundle answers; one row a seed.

    python benchmarks/main_job.py DATA [--seeds 0 1 2] [--curve M …] [--title TEXT] [--keep FOLDER]
        [any option of `darkroom train`, as in --recipe best --minutes 45]

`--curve 2 5 10 20 45` measures accuracy against minutes: every seed with each of these budgets, one row each; data are
read once a seed. Writes benchmarks/results/main-job-TITLE.json with command, commit, machine, versions, n, mean and
spread. Run nothing else meanwhile.

`train_seconds` is what training took: the probe of this machine, augmentation, every step and every validation.
`total_seconds` is everything from the files to the finished bundle.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from darkroom import workflow
from darkroom.bundle import Bundle
from darkroom.config import TrainConfig
from darkroom.data.dataset import prepare
from darkroom.progress import say
from darkroom.runs import Run
from measuring import argument_parser, darkroom_options, launch, short_name, summarise, workspace, write_results

Row = dict[str, Any]


def main(arguments: Sequence[str]) -> None:
    """Run all seeds and budgets, and write one file of results."""
    options, words = parse(arguments)
    budgets = [f"{minutes:g}" for minutes in options.curve or ()]
    with workspace(options.keep) as folder:
        rows = []
        for seed in options.seeds:
            for budget in budgets or [None]:
                given = [*words, "--minutes", budget] if budget else words
                say(f"seed {seed}" + (f", {budget} minutes" if budget else ""))
                rows.append(measure(options.data, given, seed=seed, folder=folder))
    summary = by_budget(rows, budgets) if budgets else summary_of(rows)
    content = {"n": len(options.seeds), "summary": summary, "runs": rows}
    target = options.results / f"main-job-{options.title or short_name(options.data)}.json"
    print(json.dumps(summary, indent=2))
    write_results(target, script=__file__, arguments=arguments, content=content)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of this script, and the words that are darkroom's."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--curve", type=float, nargs="+", metavar="M", help="budgets in minutes, one row each")
    parser.add_argument("--keep", type=Path, help="leave runs and caches in this folder")
    options, words = parser.parse_known_args(arguments)
    darkroom_options(options.data, words)  # before anything is measured
    return options, words


def measure(data: str, words: Sequence[str], *, seed: int, folder: Path) -> Row:
    """One run with a cache of the seed's own, so that unpacking and decoding are measured where they happen."""
    data_config, config = darkroom_options(data, words)
    data_config = replace(data_config, seed=seed, cache=folder / f"cache-{seed}")
    fresh = not data_config.cache.exists()
    run = Run(folder / (f"run-{seed}" if config.minutes is None else f"run-{seed}-{config.minutes:g}-minutes"))
    start = time.perf_counter()
    prepare(data, data_config)
    prepared = time.perf_counter() - start
    workflow.run_all(data, run, data_config=data_config, config=config)
    row = {"seed": seed, **result_of(run, config), "total_seconds": time.perf_counter() - start}
    return {**row, "prepare_seconds": prepared} if fresh else row


def result_of(run: Run, config: TrainConfig) -> Row:
    """What a finished run says of itself."""
    metrics, result = run.read_metrics(), run.read_config()["training"]["result"]
    minutes = config.minutes
    budget = {"minutes": minutes, "share_of_budget": run.train_seconds / (60 * minutes)} if minutes else {}
    test = metrics["test"]
    return {
        **budget,
        "train_seconds": run.train_seconds,
        "epochs": result["epochs"],
        "validation_accuracy": metrics["validation"]["accuracy"]["value"],
        "test_accuracy": test["accuracy"]["value"],
        "bundle_test_accuracy": Bundle.open(run.bundle).info.parity["test"]["accuracy"],
        "test_macro_f1": test["macro_f1"]["value"],
        "test_log_loss": test["log_loss"]["value"],
        "test_ece": test["ece"]["value"],
        "test_n": test["n"],
    }


def summary_of(rows: Sequence[Row]) -> Mapping[str, Any]:
    """Mean and spread over the seeds."""
    return {name: value for name, value in summarise(rows).items() if name not in ("seed", "minutes", "test_n")}


def by_budget(rows: Sequence[Row], budgets: Sequence[str]) -> Mapping[str, Any]:
    """The same for each budget in minutes."""
    return {budget: summary_of([row for row in rows if row["minutes"] == float(budget)]) for budget in budgets}


if __name__ == "__main__":
    launch(main)
