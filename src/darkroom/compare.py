"""`darkroom compare`: networks trained on one data set in one budget, measured alike, and one chosen."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom import files, workflow
from darkroom.comparison.folder import Comparison
from darkroom.config import OURS, CompareConfig, DataConfig, TrainConfig
from darkroom.errors import RunError, UsageError
from darkroom.progress import say
from darkroom.provenance import provenance
from darkroom.runs import Run
from darkroom.training import launch

if TYPE_CHECKING:
    from darkroom.comparison.choice import Verdict
    from darkroom.comparison.measure import Serving
    from darkroom.comparison.plan import Plan, Speed, Splits, Stage
    from darkroom.data.dataset import DataSet
    from darkroom.training.candidates import Candidate

LEAST_MINUTES = 0.2
"""Of a training that the plan grants no time any more: it was promised, and so it takes place."""


@dataclass(frozen=True)
class Entry:
    """A candidate that is trained, evaluated on validation, exported and timed."""

    network: str
    how: str
    run: Run
    serving: "Serving"
    joules: float | None

    @property
    def title(self) -> str:
        """Its name in tables."""
        return self.run.folder.name

    @property
    def rank(self) -> tuple[float, float]:
        """By which the best are found: accuracy, then log loss, on validation."""
        block = self.run.read_metrics()["validation"]
        return block["accuracy"]["value"], -block["log_loss"]["value"]

    def to_json(self) -> dict[str, Any]:
        """All that is known of it, for comparison.json."""
        content, metrics = self.run.read_config(), self.run.read_metrics()
        network, result = content["network"], content["training"]["result"]
        return {
            "name": self.title,
            "network": self.network,
            "how": self.how,
            "image_size": content["data"]["preprocessing"]["width"],
            "parameters": network["parameters"],
            "multiply_adds": network["multiply_adds"],
            "epochs": result["epochs"],
            "best_epoch": result["best_epoch"],
            "train_seconds": self.run.train_seconds,
            "train_joules": self.joules,
            "serving": asdict(self.serving),
            **{split: _headline(metrics[split]) for split in ("validation", "test") if split in metrics},
        }


def _headline(block: Mapping[str, Any]) -> dict[str, Any]:
    return {name: block[name] for name in ("accuracy", "macro_f1", "log_loss", "ece", "n")}


@dataclass
class Contest:
    """A comparison under way."""

    data: str
    place: Comparison
    data_config: DataConfig
    config: CompareConfig
    dataset: "DataSet"
    entrants: dict[str, "Candidate"]
    resume: bool
    began: float

    @property
    def seconds_left(self) -> float:
        """Of the budget."""
        return 60 * self.config.minutes - (time.perf_counter() - self.began)

    def prepared(self, name: str) -> "DataSet":
        """The pictures as that network wants them."""
        from darkroom.data.dataset import prepared_for

        return prepared_for(self.dataset, self.data_config, self.entrants[name].preprocessing)

    def enter(self, stage: "Stage", **options: Any) -> Entry:
        """Train one candidate, evaluate it on validation, export and time it."""
        from darkroom.comparison.measure import joules, serving_of

        name, dataset = stage.name, self.prepared(stage.name)
        run = self.place.run(name if name == OURS else f"{name}-{stage.what}")
        random_weights = self.config.random_weights and name != OURS
        config = TrainConfig(model=self.entrants[name].given, random_weights=random_weights, **options)
        say(f"== {run.folder.name} ==")
        before = joules()
        if not (self.resume and run.config.exists() and run.finished):
            workflow.train(
                self.data, run, data_config=self.data_config, config=config, overwrite=run.holds(), dataset=dataset
            )
        after = joules()
        if not run.metrics.exists():
            workflow.evaluate(run, split="validation", data_config=self.data_config)
        if not run.bundle.exists():
            workflow.export(run, data_config=self.data_config)
        used = after - before if before is not None and after is not None and after >= before else None
        return Entry(name, stage.what, run, serving_of(run.bundle, dataset), used)


def compare(
    data: str,
    folder: Path,
    *,
    data_config: DataConfig,
    config: CompareConfig,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train and measure all candidates, choose on validation, open the test split once; the content of comparison.json.

    Raises:
        ModelError: a network is unknown or its weights are not at hand; nothing is trained then.
        RunError: the folder holds a comparison already.
    """
    from darkroom.comparison.plan import Splits
    from darkroom.data.dataset import prepare
    from darkroom.training.machine import use_threads

    launch.refuse_several("compare")
    began = time.perf_counter()
    place = Comparison(folder)
    _claim(place, resume=resume, overwrite=overwrite)
    entrants = _entrants(config)
    use_threads(None)
    contest = Contest(data, place, data_config, config, prepare(data, data_config), entrants, resume, began)
    splits = Splits(*(len(contest.dataset.manifest.indices(split)) for split in ("train", "validation", "test")))
    speeds = dict(_speeds(contest))
    if overwrite:  # only now: what cannot be compared must not cost the comparison that was there
        place.clear()
    entries, left_out = _train_all(contest, speeds, splits)
    verdicts = _choose(contest, entries)
    _open_test(contest, entries, verdicts)
    return _write(contest, entries, verdicts, speeds, left_out)


def _train_all(contest: Contest, speeds: Mapping[str, "Speed"], splits: "Splits") -> tuple[list[Entry], list[str]]:
    """Backbones as they are; then our network, and the best backbones as a whole, in equal shares of what is left."""
    from darkroom.comparison import plan

    first = plan.plan_frozen(list(speeds.values()), splits, seconds=contest.seconds_left)
    _tell(first)
    flip = None if first.mirrored else False
    entries = [contest.enter(stage, frozen=True, flip=flip) for stage in first.stages]
    ranked = sorted(entries, key=lambda entry: entry.rank, reverse=True)
    tuned = [speeds[entry.network] for entry in ranked[: contest.config.finetune]]
    # The test split is opened for the chosen network and for ours, whichever they will be.
    answer = max((speed.answer for speed in speeds.values()), default=0.0)
    held_back = 2 * (splits.test * answer + plan.OVERHEAD_SECONDS)
    second = plan.plan_trainings(tuned, splits, ours=OURS in contest.entrants, seconds=contest.seconds_left - held_back)
    _tell(second)
    for number, stage in enumerate(second.stages):
        share = (contest.seconds_left - held_back) / (len(second.stages) - number)
        answer = speeds[stage.name].answer if stage.name in speeds else 0.0
        minutes = max(LEAST_MINUTES, plan.training_seconds(share, answer, splits) / 60)
        entries.append(contest.enter(stage, minutes=minutes))
    return entries, [*first.left_out, *second.left_out]


def _tell(plan: "Plan") -> None:
    for line in plan.lines():
        say(line)


def _speeds(contest: Contest) -> Iterator[tuple[str, "Speed"]]:
    """Speeds of the backbones on this machine; their weights are loaded for the first time here."""
    from darkroom.comparison.measure import speed_of
    from darkroom.training.recipes import complete

    for name, entrant in contest.entrants.items():
        if name == OURS:
            continue
        dataset = contest.prepared(name)
        say(f"Measuring {name} at {dataset.preprocessing.width} pixels")
        pictures = len(dataset.manifest.indices("train"))
        settings = complete(TrainConfig(model=entrant.given), image_size=dataset.preprocessing.width, pictures=pictures)
        architecture = entrant.architecture(dataset, settings)
        normalisation = entrant.normalisation(dataset)
        network = entrant.new(dataset, architecture, seed=contest.data_config.seed, normalisation=normalisation)
        yield name, speed_of(name, network, dataset)


def _choose(contest: Contest, entries: Sequence[Entry]) -> "list[Verdict]":
    from darkroom.comparison.choice import Candidate, choose

    candidates = []
    for entry in entries:
        predictions = entry.run.read_predictions("validation")
        candidates.append(
            Candidate(
                name=entry.title,
                right=predictions.logits.argmax(axis=1) == predictions.labels,
                log_loss=entry.run.read_metrics()["validation"]["log_loss"]["value"],
                milliseconds=entry.serving.milliseconds,
                megabytes=entry.serving.bytes / 1e6,
            )
        )
    return choose(candidates, contest.config.prefer)


def _open_test(contest: Contest, entries: Sequence[Entry], verdicts: "Sequence[Verdict]") -> None:
    """Once, for the chosen network, and for ours beside it as the baseline."""
    for entry, verdict in zip(entries, verdicts, strict=True):
        if (verdict.chosen or entry.network == OURS) and "test" not in entry.run.read_metrics():
            workflow.evaluate(entry.run, split="test", data_config=contest.data_config)
            workflow.export(entry.run, data_config=contest.data_config)  # so that the bundle can tell of it


def _write(
    contest: Contest,
    entries: Sequence[Entry],
    verdicts: "Sequence[Verdict]",
    speeds: Mapping[str, "Speed"],
    left_out: Sequence[str],
) -> dict[str, Any]:
    from darkroom.comparison.choice import summary
    from darkroom.comparison.words import lines
    from darkroom.figures.comparison import accuracy_latency

    rows = [{**entry.to_json(), **verdict.to_json()} for entry, verdict in zip(entries, verdicts, strict=True)]
    content = {
        **provenance(),
        "seed": contest.data_config.seed,
        "data": contest.dataset.to_json(),
        "requested": asdict(contest.config),
        "choice": summary(verdicts, contest.config.prefer),
        "candidates": rows,
        "left_out": list(left_out),
        "speeds": {name: asdict(speed) for name, speed in speeds.items()},
        "seconds": time.perf_counter() - contest.began,
    }
    files.write_text(contest.place.text, "\n".join(lines(content)) + "\n")
    accuracy_latency(contest.place.figure, rows=rows)
    files.write_json(contest.place.content, content)
    return content


def _entrants(config: CompareConfig) -> dict[str, "Candidate"]:
    """Candidates by the names that tables and folders give them."""
    from darkroom.training.candidates import candidate

    entrants: dict[str, Candidate] = {}
    for given in config.models or _default_models():
        entrant = candidate(given, random_weights=config.random_weights and given != OURS)
        if entrant.kind in entrants:
            raise UsageError(f"--models {given} and {entrants[entrant.kind].given} have the same name: rename a folder")
        entrants[entrant.kind] = entrant
    return entrants


def _default_models() -> tuple[str, ...]:
    from darkroom.models.backbones import DEFAULTS
    from darkroom.models.inference import best_device

    return (OURS, *DEFAULTS["processor" if best_device().type == "cpu" else "accelerator"])


def _claim(place: Comparison, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds a comparison, unless the user says that it is to be resumed or replaced."""
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other: give one of them")
    if place.folder.exists() and not place.folder.is_dir():
        raise UsageError(f"--out {place.folder} is a file: give a folder")
    if place.holds() and not (resume or overwrite):
        raise RunError(f"{place.folder} already holds a comparison: --resume it, --overwrite it, or give another --out")
