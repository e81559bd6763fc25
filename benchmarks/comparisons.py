"""Measure comparisons of networks: one row a seed, which is a split, initial weights and orders of its own.

    python benchmarks/comparisons.py DATA --models cnn NAME … [--seeds 0 1 2 3 4] [--title TEXT] [--keep FOLDER]
        [any option of `darkroom compare`, as in --minutes 15 --test-fraction 0.3]

Writes benchmarks/results/comparison-TITLE.json with command, commit, machine, versions, n, mean and spread. What lies
finished in the folder that is kept is not done again. Run nothing else meanwhile.
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from darkroom.compare import compare
from darkroom.comparison.folder import Comparison
from darkroom.config import OURS
from darkroom.errors import UsageError
from darkroom.progress import say
from measuring import argument_parser, comparison_options, launch, short_name, summarise, workspace, write_results

Row = dict[str, Any]


def main(arguments: Sequence[str]) -> None:
    """Run all seeds, and write one file of results."""
    options, words = parse(arguments)
    with workspace(options.keep) as folder:
        rows = [measure(options.data, words, seed=seed, folder=folder) for seed in options.seeds]
    summary = {name: value for name, value in summarise(rows).items() if name not in ("seed", "minutes")}
    chosen = Counter(row["chosen"] for row in rows)
    print(json.dumps(summary, indent=2))
    content = {"n": len(rows), "chosen": dict(chosen.most_common()), "summary": summary, "runs": rows}
    target = options.results / f"comparison-{options.title or short_name(options.data)}.json"
    write_results(target, script=__file__, arguments=arguments, content=content)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of this script, and the words that are darkroom's."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--keep", type=Path, help="leave comparisons and caches in this folder")
    options, words = parser.parse_known_args(arguments)
    comparison_options(options.data, words)  # before anything is measured
    return options, words


def measure(data: str, words: Sequence[str], *, seed: int, folder: Path) -> Row:
    """One comparison with a cache of the seed's own, so that decoding and features are part of it."""
    data_config, config = comparison_options(data, words)
    data_config = replace(data_config, seed=seed, cache=folder / f"cache-{seed}")
    place = Comparison(folder / f"comparison-{seed}")
    say(f"seed {seed}")
    if not place.content.exists():
        compare(data, place.folder, data_config=data_config, config=config, resume=place.begun)
    content = json.loads(place.content.read_text(encoding="utf-8"))
    if content["requested"] != json.loads(json.dumps(asdict(config))) or place.kept()["data"] != data:
        raise UsageError(f"{place.folder} is a comparison of other data or with other options: give another --keep")
    return result_of(content)


def result_of(content: Mapping[str, Any]) -> Row:
    """What a finished comparison says of itself."""
    by_name = {one["name"]: one for one in content["candidates"]}
    chosen = next(one for one in content["candidates"] if one["chosen"])
    minutes = content["requested"]["minutes"]
    row = {
        "seed": content["seed"],
        "cores": content["hardware"]["cores"],
        "commit": content["commit"],
        "minutes": minutes,
        "seconds": content["seconds"],
        "share_of_budget": content["seconds"] / (60 * minutes),
        "chosen": chosen["name"],
        "test_n": chosen["test"]["n"],
        "test_accuracy": chosen["test"]["accuracy"]["value"],
        "test_macro_f1": chosen["test"]["macro_f1"]["value"],
        "test_log_loss": chosen["test"]["log_loss"]["value"],
        "test_ece": chosen["test"]["ece"]["value"],
    }
    if OURS in by_name:
        row["cnn_test_accuracy"] = by_name[OURS]["test"]["accuracy"]["value"]
    validation = {name: one["validation"]["accuracy"]["value"] for name, one in by_name.items()}
    seconds = {name: one["train_seconds"] for name, one in by_name.items()}
    latency = {name: one["serving"]["milliseconds"] for name, one in by_name.items()}
    return {
        **row,
        **{f"validation_accuracy {name}": value for name, value in validation.items()},
        **{f"train_seconds {name}": value for name, value in seconds.items()},
        **{f"milliseconds {name}": value for name, value in latency.items()},
    }


if __name__ == "__main__":
    launch(main)
