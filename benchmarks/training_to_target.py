"""Ours against two peers: seconds to the Keras tutorial CNN's own accuracy, and accuracy in the textbook's minutes.

    python benchmarks/training_to_target.py DATA [--rounds 3] [--minutes 7] [--peers keras textbook] [--budgets 0.5 1 …]
        [any option of `darkroom train`: it goes to ours, as in --recipe quick]

Each round has a seed of its own, which also draws the split; all contestants get the same pixels of the same training,
validation and test pictures, the same cores, and take turns in being first.

keras              the tutorial's CNN for 10 epochs; its test accuracy is the target
ours-to-target     `darkroom train --minutes B`, with the smallest of --budgets that in a pilot with another seed beat
                   the CNN's validation accuracy by a point; the pilot never opens the test pictures and does not count
                   (a single budget is taken as it is, without a pilot)
ours               `darkroom train --minutes M`
textbook-cut       ResNet-18 with its 200-epoch schedule, stopped after M minutes
textbook-compressed  the same with the schedule squeezed into M minutes

`seconds` are those of training: of keras its `fit` with the validation after each epoch; of ours the probe of this
machine, augmentation, training and every validation. Reading and decoding pictures, imports and the test are not in it.
`process_seconds` are those of a whole process: of ours with looking through all picture files (their pixels come out of
the cache) and drawing its figures, of the peers with loading arrays and the test.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from darkroom import workflow
from darkroom.config import DataConfig
from darkroom.data.dataset import DataSet, prepare
from darkroom.errors import UsageError
from darkroom.progress import say
from darkroom.runs import Run
from measuring import (
    argument_parser,
    darkroom_options,
    launch,
    processor_only,
    ratio,
    rotated,
    run_process,
    short_name,
    show,
    summarise,
    workspace,
    write_results,
)

HERE = Path(__file__).resolve().parent
KERAS_PYTHON = HERE / ".venv-keras" / "bin" / "python"
MAKE_KERAS = "make benchmarks/.venv-keras"

BUDGETS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Minutes."""

PILOT_SEED = 1000
MARGIN = 0.01
"""By so much the pilot must beat the target, so that the luck of one seed does not choose too short a budget."""

SMALLEST, ENLARGED = 18, 32
"""Sides in pixels: the tutorial's CNN needs the first; smaller pictures are shown to all contestants at the second."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Contest:
    """What all contestants of one seed share."""

    options: argparse.Namespace
    ours: tuple[str, ...]
    folder: Path
    data: DataConfig

    @property
    def arrays(self) -> Path:
        """Pixels and labels of the three splits of this seed; those of the seed before are replaced."""
        return self.folder / "benchmark-arrays.npz"

    def with_seed(self, seed: int) -> "Contest":
        """The same with another split, whose arrays are written."""
        contest = replace(self, data=replace(self.data, seed=seed))
        dataset = prepare(self.options.data, contest.data)
        if (side := dataset.preprocessing.width) < SMALLEST:
            say(f"pictures of {side} pixels are enlarged to {ENLARGED} for all contestants")
            contest = replace(contest, data=replace(contest.data, image_size=ENLARGED))
            dataset = prepare(self.options.data, contest.data)
        write_arrays(contest.arrays, dataset)
        return contest

    def keras(self) -> Row:
        """The tutorial's CNN."""
        return self._peer("keras", self.options.keras_python, "keras_cnn.py", "--epochs", self.options.keras_epochs)

    def textbook(self, schedule: str) -> Row:
        """The textbook recipe for the minutes that ours gets."""
        words = ("--minutes", self.options.minutes, "--schedule", schedule)
        return self._peer(f"textbook-{schedule}", sys.executable, "textbook.py", *words)

    def _peer(self, name: str, python: str | Path, script: str, *words: object) -> Row:
        seed = self.data.seed
        result = self.folder / f"{name}-{seed}.json"
        command = [python, HERE / script, self.arrays, "--out", result, "--seed", str(seed), *map(str, words)]
        process_seconds = run_process(command, name)
        return {**json.loads(result.read_text()), "process_seconds": process_seconds}

    def train_ours(self, name: str, minutes: float) -> tuple[Run, float]:
        """One training by the command line, and the wall seconds of its process."""
        run = Run(self.folder / f"{name}-{self.data.seed}")
        words = ["--out", run.folder, "--overwrite", "--minutes", str(minutes), "--seed", str(self.data.seed)]
        words += self.ours
        if self.data.image_size and not any(word.startswith("--image-size") for word in self.ours):
            words += ["--image-size", str(self.data.image_size)]
        command = [sys.executable, "-m", "darkroom", "train", self.options.data, *words]
        return run, run_process(command, name)

    def ours_in(self, name: str, minutes: float) -> Row:
        """Train for `minutes` and test as `darkroom run` does."""
        run, process_seconds = self.train_ours(name, minutes)
        for split in ("validation", "test"):
            workflow.evaluate(run, split=split, data_config=self.data)
        metrics, content = run.read_metrics(), run.read_config()
        result = content["training"]["result"]
        return {
            "seconds": result["seconds"],
            "process_seconds": process_seconds,
            "test_accuracy": metrics["test"]["accuracy"]["value"],
            "validation_accuracy": metrics["validation"]["accuracy"]["value"],
            "epochs": result["epochs"],
            "curve": [(row["elapsed"], row["validation_accuracy"]) for row in run.read_history()],
            "parameters": content["network"]["parameters"],
        }


def main(arguments: Sequence[str]) -> None:
    """Pilot, rounds, table, file."""
    options, ours = parse(arguments)
    data_config, _ = darkroom_options(options.data, [*ours, "--minutes", str(options.minutes)])
    if data_config.image_size and data_config.image_size < SMALLEST:
        raise UsageError(f"--image-size is {data_config.image_size}: the tutorial's CNN needs at least {SMALLEST}")
    processor_only()
    if "keras" in options.peers:
        require_tensorflow(options.keras_python)
    with workspace(options.keep) as folder:
        contest = Contest(options, tuple(ours), folder, data_config)
        pilot = run_pilot(contest) if "keras" in options.peers else {}
        rounds = [run_round(contest, number, pilot.get("minutes")) for number in range(options.rounds)]
    rows = {name: [entry["contestants"][name] for entry in rounds] for name in rounds[0]["contestants"]}
    ratios = ratios_of(rows, minutes=options.minutes)
    show(ratios)
    content = {
        "what_counts": __doc__.partition("\n\nkeras ")[2],
        "versions": rows["keras"][0]["versions"] if "keras" in rows else {},
        "n": len(rounds),
        "minutes": options.minutes,
        "pilot": pilot,
        "ratios": ratios,
        "summary": {name: summarise(values) for name, values in rows.items()},
        "rounds": rounds,
    }
    target = options.results / f"training-to-target-{options.title or short_name(options.data)}.json"
    write_results(target, script=__file__, arguments=arguments, content=content)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of this script, and the words that are darkroom's."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=7.0, help="what ours and the textbook recipe get")
    parser.add_argument("--peers", nargs="*", choices=["keras", "textbook"], default=["keras", "textbook"])
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS, help="minutes that the pilot tries")
    parser.add_argument("--keras-epochs", type=int, default=10)
    parser.add_argument("--keras-python", type=Path, default=KERAS_PYTHON, help="a Python that has TensorFlow")
    parser.add_argument("--keep", type=Path, help="leave the runs in this folder")
    options, ours = parser.parse_known_args(arguments)
    if options.rounds < 1 or not options.peers:
        parser.error("give at least one round and one of the peers keras and textbook")
    return options, ours


def require_tensorflow(python: Path) -> None:
    """Raise `UsageError` where the environment of the Keras CNN is missing or broken."""
    remedy = f"make it with `{MAKE_KERAS}`, or leave this peer out with --peers textbook"
    try:
        command = [python, "-c", "import tensorflow"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        raise UsageError(f"no TensorFlow at {python} ({error.strerror}): {remedy}") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UsageError(f"{python} cannot import TensorFlow ({reason}): {remedy}")


def write_arrays(path: Path, dataset: DataSet) -> None:
    """Pixels (N, H, W, 3) uint8 and labels (N,) of the three splits, and the names of the classes."""
    labels = dataset.manifest.labels()
    arrays: dict[str, Any] = {"classes": np.array(dataset.manifest.classes)}
    for split in ("train", "validation", "test"):
        ids = dataset.manifest.indices(split)
        arrays |= {f"{split}_pixels": dataset.pixels[ids], f"{split}_labels": labels[ids]}
    np.savez(path, **arrays)


def run_pilot(contest: Contest) -> Row:
    """The smallest budget with which ours beats the CNN on validation, by another seed than those that count."""
    budgets = sorted(contest.options.budgets)
    if len(budgets) == 1:
        return {"minutes": budgets[0]}
    contest = contest.with_seed(PILOT_SEED)
    say("pilot: the Keras CNN")
    target = contest.keras()["validation_accuracy"]
    tried = []
    for minutes in budgets:
        say(f"pilot: ours in {minutes:g} minutes; the CNN reached {target:.2%} on validation")
        run, _ = contest.train_ours("pilot", minutes)
        tried.append((minutes, run.read_config()["training"]["result"]["best_validation_accuracy"]))
        if tried[-1][1] >= target + MARGIN:
            return {"minutes": minutes, "keras_validation_accuracy": target, "tried": tried}
    reached = max(accuracy for _, accuracy in tried)
    raise UsageError(
        f"ours reached {reached:.1%} on validation in up to {budgets[-1]:g} minutes, where the Keras CNN reached "
        f"{target:.1%}: give longer --budgets"
    )


def run_round(contest: Contest, number: int, target_minutes: float | None) -> Row:
    """All contestants once, beginning with another one each round."""
    contest = contest.with_seed(number)
    minutes, peers = contest.options.minutes, contest.options.peers
    jobs = {}
    if "keras" in peers:
        jobs["keras"] = contest.keras
        jobs["ours-to-target"] = lambda: contest.ours_in("ours-to-target", target_minutes)
    if "textbook" in peers:
        jobs["textbook-cut"] = lambda: contest.textbook("cut")
        jobs["ours"] = lambda: contest.ours_in("ours", minutes)
        jobs["textbook-compressed"] = lambda: contest.textbook("compressed")
    rows: dict[str, Row] = {}
    for name in rotated(list(jobs), number):
        say(f"round {number + 1} of {contest.options.rounds}: {name}")
        rows[name] = jobs[name]()
    if "keras" in peers:
        compare_with_target(rows["ours-to-target"], rows["keras"])
    return {"seed": number, "order": list(rows), "contestants": {name: rows[name] for name in jobs}}


def compare_with_target(ours: Row, keras: Row) -> None:
    """Say in both rows when validation first reached the CNN's last accuracy, and in ours whether its test did."""
    target = keras["validation_accuracy"]
    for row in (ours, keras):
        row["first_at_target_seconds"] = first_reached(row["curve"], target)
    ours["reached"] = ours["test_accuracy"] >= keras["test_accuracy"]


def first_reached(curve: Sequence[tuple[float, float]], target: float) -> float | None:
    """Seconds at the end of the first epoch whose accuracy is at least `target`; None where none is."""
    return next((seconds for seconds, accuracy in curve if accuracy >= target), None)


def ratios_of(rows: Mapping[str, Sequence[Row]], *, minutes: float) -> list[Row]:
    """Seconds to the Keras CNN's accuracy, and accuracies after the same minutes."""
    ratios = []
    if "keras" in rows:
        ours, keras = rows["ours-to-target"], rows["keras"]
        reached = f"to its test accuracy (reached in {sum(row['reached'] for row in ours)} of {len(ours)} rounds)"
        for what, mine, its in (
            (f"training {reached}", "seconds", "seconds"),
            (f"whole process {reached}", "process_seconds", "process_seconds"),
            ("training to the CNN's first epoch at its last accuracy", "seconds", "first_at_target_seconds"),
        ):
            times = {"ours": [row[mine] for row in ours], "theirs": [row[its] for row in keras]}
            ratios.append(ratio(what, peer="Keras tutorial CNN", unit="s", less_is_better=True, **times))
    for schedule in ("cut", "compressed") if "ours" in rows else ():
        ours, theirs = ([100 * row["test_accuracy"] for row in rows[name]] for name in ("ours", f"textbook-{schedule}"))
        what, peer = f"test accuracy after {minutes:g} min", f"ResNet-18, schedule {schedule}"
        ratios.append(ratio(what, peer=peer, ours=ours, theirs=theirs, unit="%"))
    return ratios


if __name__ == "__main__":
    launch(main)
