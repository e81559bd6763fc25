"""Measure the main job: read and decode a data set afresh, train, evaluate as the bundle answers; one row a seed.

    python benchmarks/main_job.py DATA [--seeds 0 1 2] [--minutes M | --epochs N] [--title TEXT] [--keep FOLDER]

Writes benchmarks/results/main-job-TITLE.json with command, commit, machine, versions, n, mean and spread. Run nothing
else meanwhile.
"""

import argparse
import json
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path

from darkroom import files, workflow
from darkroom.config import DataConfig, TrainConfig
from darkroom.data.dataset import prepare
from darkroom.provenance import provenance
from darkroom.runs import Run

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run all seeds and write one file of results."""
    options = parse()
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as temporary:
        folder = options.keep or Path(temporary)
        rows = [measure(options, seed, folder) for seed in options.seeds]
    summary = {name: spread([row[name] for row in rows]) for name in rows[0] if name not in ("seed", "test_n")}
    title = options.title or Path(options.data).name.split(".")[0]
    # Folders of this machine mean nothing elsewhere.
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    command = shlex.join(["python", "benchmarks/main_job.py", *words])
    target = RESULTS / f"main-job-{title}.json"
    files.write_json(target, {"command": command, **provenance(), "n": len(rows), "summary": summary, "runs": rows})
    print(json.dumps(summary, indent=2))
    print(target)


def parse() -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--title")
    parser.add_argument("--keep", type=Path, help="leave runs and caches in this folder")
    return parser.parse_args()


def measure(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, float]:
    """One run with a cache of its own, so that unpacking and decoding are measured too."""
    data_config = DataConfig(seed=seed, cache=folder / f"cache-{seed}")
    config = TrainConfig(minutes=options.minutes, epochs=options.epochs)
    run = Run(folder / f"run-{seed}")
    start = time.perf_counter()
    prepare(options.data, data_config)
    prepared = time.perf_counter() - start
    workflow.run_all(options.data, run, data_config=data_config, config=config)
    metrics, result = run.read_metrics(), run.read_config()["training"]["result"]
    budget = {"share_of_budget": result["seconds"] / (60 * options.minutes)} if options.minutes else {}
    return {
        "seed": seed,
        "prepare_seconds": prepared,
        "train_seconds": result["seconds"],
        **budget,
        "epochs": result["epochs"],
        "total_seconds": time.perf_counter() - start,
        "validation_accuracy": metrics["validation"]["accuracy"]["value"],
        "test_accuracy": metrics["test"]["accuracy"]["value"],
        "test_macro_f1": metrics["test"]["macro_f1"]["value"],
        "test_log_loss": metrics["test"]["log_loss"]["value"],
        "test_ece": metrics["test"]["ece"]["value"],
        "test_n": metrics["test"]["n"],
    }


def spread(values: list[float]) -> dict[str, float | None]:
    """Mean, standard deviation over the runs, and extremes."""
    return {
        "mean": statistics.fmean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "low": min(values),
        "high": max(values),
    }


if __name__ == "__main__":
    main()
