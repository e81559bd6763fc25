"""`darkroom compare`: networks trained on one data set in one budget, measured alike, and one chosen."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom import files, workflow
from darkroom.bundle import INFO_FILE, BundleInfo
from darkroom.comparison.folder import (
    Comparison,
    begun_with,
    folder_name,
    plain,
    require_same_data,
    require_same_pictures,
)
from darkroom.config import OURS, CompareConfig, DataConfig, Preference, TrainConfig
from darkroom.errors import DarkroomError, ExportError, RunError, TrainingStoppedError, UsageError
from darkroom.progress import say
from darkroom.provenance import provenance
from darkroom.runs import Run, rebuilt
from darkroom.training import launch

if TYPE_CHECKING:
    from darkroom.comparison.choice import Verdict
    from darkroom.comparison.measure import Serving
    from darkroom.comparison.plan import Plan, Speed, Splits, Stage
    from darkroom.data.dataset import DataSet
    from darkroom.data.manifest import Manifest
    from darkroom.training.candidates import Candidate


@dataclass(frozen=True)
class Entry:
    """A candidate that is trained, evaluated on validation, exported and timed."""

    network: str
    how: str
    run: Run
    serving: "Serving"

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
        return {"network": self.network, "how": self.how, "serving": asdict(self.serving), **told_by(self.run)}


def told_by(run: Run) -> dict[str, Any]:
    """What the run of a candidate says of it."""
    content, metrics = run.read_config(), run.read_metrics()
    network, result = content["network"], content["training"]["result"]
    return {
        "name": run.folder.name,
        "image_size": content["data"]["preprocessing"]["width"],
        "parameters": network["parameters"],
        "multiply_adds": network["multiply_adds"],
        "epochs": result["epochs"],
        "best_epoch": result["best_epoch"],
        "train_seconds": run.train_seconds,
        "train_joules": result.get("joules"),
        "test_openings": metrics["test_openings"],
        **{split: _headline(metrics[split]) for split in ("validation", "test") if split in metrics},
    }


def _headline(block: Mapping[str, Any]) -> dict[str, Any]:
    return {name: block[name] for name in ("accuracy", "macro_f1", "log_loss", "ece", "n")}


@dataclass
class Contest:
    """A comparison under way; what is `kept` is written down, so that it can be resumed to the same choice."""

    data: str
    place: Comparison
    data_config: DataConfig
    config: CompareConfig
    entrants: dict[str, "Candidate"]
    datasets: dict[str, "DataSet"]
    kept: dict[str, Any]
    began: float
    entries: list[Entry] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Sentences on candidates that are left out, since an error kept them from being entered."""

    @property
    def seconds(self) -> float:
        """That it has taken, before it was interrupted too."""
        return time.perf_counter() - self.began

    @property
    def seconds_left(self) -> float:
        """Of the budget."""
        return 60 * self.config.minutes - self.seconds

    @property
    def manifest(self) -> "Manifest":
        """Of all candidates."""
        return next(iter(self.datasets.values())).manifest

    @property
    def splits(self) -> "Splits":
        """Pictures of each split."""
        from darkroom.comparison.plan import Splits

        return Splits(*(len(self.manifest.indices(split)) for split in ("train", "validation", "test")))

    @property
    def speeds(self) -> "dict[str, Speed]":
        """What was measured of the backbones."""
        from darkroom.comparison.plan import Speed

        return {name: Speed(**values) for name, values in self.kept["speeds"].items()}

    def keep(self, **news: Any) -> None:
        """Write down what is settled now."""
        self.kept |= news | {"seconds": self.seconds}
        self.place.keep(self.kept)

    def prepared(self, name: str) -> "DataSet":
        """The pictures as that network wants them, opened once."""
        from darkroom.data.dataset import prepared_for

        if name not in self.datasets:
            any_of_them = next(iter(self.datasets.values()))
            self.datasets[name] = prepared_for(any_of_them, self.data_config, self.entrants[name].preprocessing)
        return self.datasets[name]

    def planned(self, what: str, make: "Callable[[], Plan]") -> "Plan":
        """A plan, made once and told."""
        from darkroom.comparison.plan import Plan

        plans = self.kept.get("plans", {})
        if what not in plans:
            self.keep(plans={**plans, what: make().to_json()})
        plan = Plan.from_json(self.kept["plans"][what])
        for line in plan.lines():
            say(line)
        return plan

    def enter(self, stage: "Stage", **options: Any) -> None:
        """Train one candidate, evaluate it on validation, export and time it; where that fails, it is left out."""
        run = self.place.run(stage.name if stage.name == OURS else f"{stage.name}-{stage.what}")
        say(f"== {run.folder.name} ==")
        try:
            self._train(stage, run, options)
            serving = self._measured(run, self.prepared(stage.name))
            self.entries.append(Entry(stage.name, stage.what, run, serving))
        except TrainingStoppedError:
            raise
        except (DarkroomError, MemoryError, RuntimeError) as error:  # the last: of PyTorch, where memory is short
            self.failures.append(f"left out: {run.folder.name}, which failed: {' '.join(str(error).split())}")
            say(self.failures[-1])

    def _train(self, stage: "Stage", run: Run, options: Mapping[str, Any]) -> None:
        """Train it from the beginning, or from where a comparison that is resumed was interrupted."""
        from darkroom.comparison.measure import energy_counters, joules_since

        begun = run.config.exists()
        if begun and run.finished:
            return
        before = energy_counters()
        workflow.train(
            self.data,
            run,
            data_config=self.data_config,
            config=_requested(run) if begun else self._config(stage, options),
            resume=begun,
            overwrite=not begun and run.holds(),
            dataset=self.prepared(stage.name),
        )
        if not begun and (used := joules_since(before)) is not None:  # of a resumed one a part is not known
            content = run.read_config()
            content["training"]["result"]["joules"] = used
            run.write_config(content)

    def _config(self, stage: "Stage", options: Mapping[str, Any]) -> TrainConfig:
        if stage.name == OURS:
            return TrainConfig(**options)
        given, arithmetic = self.entrants[stage.name].given, self.speeds[stage.name].options
        return TrainConfig(model=given, random_weights=self.config.random_weights, **arithmetic, **options)

    def _measured(self, run: Run, dataset: "DataSet") -> "Serving":
        from darkroom.comparison.measure import Serving, serving_of

        if not run.metrics.exists():
            workflow.evaluate(run, split="validation", data_config=self.data_config, dataset=dataset)
        if not run.bundle.exists():
            workflow.export(run, data_config=self.data_config, dataset=dataset)
        known = self.kept.get("serving", {})
        if run.folder.name not in known:
            self.keep(serving={**known, run.folder.name: asdict(serving_of(run.bundle, dataset))})
        return Serving(**self.kept["serving"][run.folder.name])


def _requested(run: Run) -> TrainConfig:
    return rebuilt(TrainConfig, run.read_config()["training"]["requested"])


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

    A candidate that fails is left out.

    Raises:
        ModelError: a network is unknown or its weights are not at hand; nothing is trained then.
        RunError: the folder holds a comparison already, or one of other pictures is to be resumed; or all have failed.
        UsageError: a comparison is to be resumed with other options than it was begun with.
    """
    launch.refuse_several("compare")
    place = Comparison(folder)
    workflow.claim(place, resume=resume, overwrite=overwrite)
    with workflow.held(place):
        if resume and place.begun:
            contest = _resumed(data, place, data_config, config)
        else:
            if resume:
                say(f"{folder} holds nothing to resume: starting anew")
            contest = _begun(data, place, data_config, config, overwrite=overwrite)
        try:
            return _carried_out(contest)
        finally:
            with suppress(OSError):
                contest.keep()  # the seconds that it has taken, if it is interrupted


def _carried_out(contest: Contest) -> dict[str, Any]:
    left_out = _train_all(contest)
    if not contest.entries:
        raise RunError(f"no candidate could be compared: {'; '.join([*left_out, *contest.failures])}")
    verdicts = _choose(contest)
    _open_test(contest, verdicts)
    return _write(contest, verdicts, [*left_out, *contest.failures])


def _begun(data: str, place: Comparison, data_config: DataConfig, config: CompareConfig, *, overwrite: bool) -> Contest:
    contest = _contest(data, place, data_config, config, {})
    speeds = {name: asdict(speed) for name, speed in _speeds(contest)}
    if overwrite:  # only now: what cannot be compared must not cost the comparison that was there
        place.clear()
    requested = {"data": plain(data_config), "comparison": plain(contest.config)}
    contest.keep(data=data, fingerprint=contest.manifest.fingerprint, requested=requested, speeds=speeds)
    return contest


def _resumed(data: str, place: Comparison, data_config: DataConfig, config: CompareConfig) -> Contest:
    kept = place.kept()
    require_same_data(place, data, kept)
    data_config = begun_with(place, data_config, kept["requested"]["data"])
    contest = _contest(data, place, data_config, begun_with(place, config, kept["requested"]["comparison"]), kept)
    require_same_pictures(place, contest.manifest.fingerprint, kept)
    return contest


def _contest(
    data: str, place: Comparison, data_config: DataConfig, config: CompareConfig, kept: dict[str, Any]
) -> Contest:
    from darkroom.data.dataset import prepare
    from darkroom.training.machine import use_threads

    began = time.perf_counter() - kept.get("seconds", 0.0)
    entrants = _entrants(config)
    config = replace(config, models=tuple(entrant.given for entrant in entrants.values()))
    use_threads(None)
    first, entrant = next(iter(entrants.items()))
    datasets = {first: prepare(data, data_config, entrant.preprocessing)}
    return Contest(data, place, data_config, config, entrants, datasets, kept, began)


def granted(seconds: float) -> dict[str, Any]:
    """The options of a training that may take so long; where nothing is left, the least, since it was promised."""
    from darkroom.comparison.plan import LEAST_SECONDS

    return {"minutes": max(LEAST_SECONDS, seconds) / 60}


def _train_all(contest: Contest) -> list[str]:
    """Backbones as they are; then our network, and the best backbones as a whole, in equal shares of what is left.

    Returns sentences on what was left out for want of time.
    """
    from darkroom.comparison import plan
    from darkroom.data.dataset import suitable_size
    from darkroom.training.recipes import may_mirror

    speeds, splits, ours = contest.speeds, contest.splits, OURS in contest.entrants
    mirrors = may_mirror(suitable_size(contest.manifest))
    part = plan.FROZEN_PART if ours or contest.config.finetune else plan.FROZEN_ALONE
    # The test split is opened for the chosen network and for ours, whichever they will be.
    opening = ours * plan.opening_seconds(0.0, splits)
    fastest = min((speed.answer for speed in speeds.values()), default=0.0)
    at_least = opening + plan.opening_seconds(fastest, splits)
    first = contest.planned(
        "frozen",
        lambda: plan.plan_frozen(
            list(speeds.values()), splits, seconds=contest.seconds_left - at_least, part=part, mirrors=mirrors
        ),
    )
    for stage in first.stages:
        contest.enter(stage, frozen=True, flip=None if first.mirrored else False)
    ranked = sorted(contest.entries, key=lambda entry: entry.rank, reverse=True)
    tuned = [speeds[entry.network] for entry in ranked[: contest.config.finetune]]
    slowest = max((speeds[entry.network].answer for entry in contest.entries), default=0.0)
    held_back = opening + plan.opening_seconds(slowest, splits)
    second = contest.planned(
        "trainings",
        lambda: plan.plan_trainings(tuned, splits, ours=ours, seconds=contest.seconds_left - held_back),
    )
    for number, stage in enumerate(second.stages):
        share = (contest.seconds_left - held_back) / (len(second.stages) - number)
        answer = speeds[stage.name].answer if stage.name in speeds else 0.0
        contest.enter(stage, **granted(plan.training_seconds(share, answer, splits)))
    return [*first.left_out, *second.left_out]


def _speeds(contest: Contest) -> "Iterator[tuple[str, Speed]]":
    """Speeds of the backbones on this machine; their weights are loaded for the first time here."""
    from darkroom.comparison.measure import speed_of
    from darkroom.data.dataset import suitable_size
    from darkroom.training.recipes import complete

    random_weights, manifest = contest.config.random_weights, contest.manifest
    for name, entrant in contest.entrants.items():
        if name == OURS:
            continue
        dataset = contest.prepared(name)
        say(f"Measuring {name} at {dataset.preprocessing.width} pixels")
        settings = complete(
            TrainConfig(model=entrant.given, random_weights=random_weights),
            image_size=dataset.preprocessing.width,
            pictures=len(manifest.indices("train")),
            own_size=suitable_size(manifest),
        )
        architecture = entrant.architecture(dataset, settings)
        normalisation = entrant.normalisation(dataset)
        network = entrant.new(dataset, architecture, seed=contest.data_config.seed, normalisation=normalisation)
        yield name, speed_of(name, network, dataset, settings)


def _choose(contest: Contest) -> "list[Verdict]":
    rows = [(entry.network, entry.run, asdict(entry.serving)) for entry in contest.entries]
    return verdicts_on(rows, contest.config.prefer)


def verdicts_on(rows: Sequence[tuple[str, Run, Mapping[str, Any]]], prefer: Preference) -> "list[Verdict]":
    """A verdict on each candidate, of whom network, run and what was measured of serving it are given.

    Raises:
        RunError: they were not evaluated on the same pictures.
    """
    import numpy as np

    from darkroom.comparison.choice import Candidate, choose

    predictions = [run.read_predictions("validation") for _, run, _ in rows]
    for (_, run, _), said in zip(rows, predictions, strict=True):
        if not np.array_equal(said.ids, predictions[0].ids) or not np.array_equal(said.labels, predictions[0].labels):
            raise RunError(
                f"{run.folder.name} and {rows[0][1].folder.name} were evaluated on other pictures: compare again with "
                "--overwrite"
            )
    candidates = [
        Candidate(
            name=run.folder.name,
            network=network,
            right=said.logits.argmax(axis=1) == said.labels,
            log_loss=run.read_metrics()["validation"]["log_loss"]["value"],
            milliseconds=serving["milliseconds"],
            megabytes=serving["bytes"] / 1e6,
        )
        for (network, run, serving), said in zip(rows, predictions, strict=True)
    ]
    return choose(candidates, prefer)


def _open_test(contest: Contest, verdicts: "Sequence[Verdict]") -> None:
    """Once, for the chosen network, and for ours beside it as the baseline.

    Raises:
        RunError: it was opened for another choice before.
    """
    chosen = next(verdict.name for verdict in verdicts if verdict.chosen)
    before = contest.kept.get("chosen", chosen)
    if before != chosen:
        raise RunError(
            f"{contest.place.folder} has opened the test split for {before}, and {chosen} would be chosen now: compare "
            "again in another --out"
        )
    contest.keep(chosen=chosen)
    for entry in contest.entries:
        if entry.title == chosen or entry.network == OURS:
            dataset = contest.prepared(entry.network)
            if "test" not in entry.run.read_metrics():
                workflow.evaluate(entry.run, split="test", data_config=contest.data_config, dataset=dataset)
            if "test" not in BundleInfo.read(entry.run.bundle / INFO_FILE).metrics:  # which is to tell of it
                _tell_of_test(contest, entry, dataset)
    contest.keep()


def _tell_of_test(contest: Contest, entry: Entry, dataset: "DataSet") -> None:
    """Export once more, with what test has said; where that fails, the bundle stays that tells of validation."""
    try:
        workflow.export(entry.run, data_config=contest.data_config, dataset=dataset)
    except ExportError as error:
        contest.failures.append(f"the bundle of {entry.title} does not tell of test: {error}")
        say(contest.failures[-1])


def _write(contest: Contest, verdicts: "Sequence[Verdict]", left_out: Sequence[str]) -> dict[str, Any]:
    from darkroom.comparison.choice import summary
    from darkroom.comparison.words import lines
    from darkroom.figures.comparison import accuracy_latency

    rows = [{**entry.to_json(), **verdict.to_json()} for entry, verdict in zip(contest.entries, verdicts, strict=True)]
    described = contest.prepared(contest.entries[0].network).to_json()
    content = {
        **provenance(),
        "seed": contest.data_config.seed,
        "data": {name: value for name, value in described.items() if name != "preprocessing"},  # each has its own
        "requested": asdict(contest.config),
        "choice": summary(verdicts, contest.config.prefer),
        "candidates": rows,
        "left_out": list(left_out),
        "speeds": contest.kept["speeds"],
        "plans": contest.kept["plans"],
        "seconds": contest.seconds,
    }
    files.write_text(contest.place.text, "\n".join(lines(content)) + "\n")
    accuracy_latency(contest.place.figure, rows=rows)
    files.write_json(contest.place.content, content)
    return content


def _entrants(config: CompareConfig) -> dict[str, "Candidate"]:
    """Candidates by the names that tables and folders give them; their weights are at hand, or within reach."""
    from darkroom.training.candidates import Pretrained, candidate

    entrants: dict[str, Candidate] = {}
    for given in config.models or _default_models():
        entrant = candidate(given, random_weights=config.random_weights and given != OURS)
        if folder_name(entrant.kind).lower() in {folder_name(kind).lower() for kind in entrants}:
            raise UsageError(f"--models {given} has the name of another network, {entrant.kind}: rename the folder")
        if isinstance(entrant, Pretrained) and not config.random_weights:
            from darkroom.models.backbones import require_weights

            require_weights(entrant.found)
        entrants[entrant.kind] = entrant
    return entrants


def _default_models() -> tuple[str, ...]:
    from darkroom.models.backbones import DEFAULTS
    from darkroom.models.inference import best_device

    return (OURS, *DEFAULTS["processor" if best_device().type == "cpu" else "accelerator"])
