"""`darkroom ablate`: one thing taken away or exchanged at a time, in trainings of equal budget, over several seeds.

The budget is a number of minutes, or of passes over the pictures; with half of the pictures it is twice as many passes,
and so as many steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from darkroom import files, workflow
from darkroom.comparison.folder import Ablation, begun_with, plain, require_same_data, require_same_pictures
from darkroom.config import OURS, AblateConfig, DataConfig, Factor, TrainConfig
from darkroom.errors import RunError, TrainingError, TrainingStoppedError, UsageError
from darkroom.progress import say
from darkroom.provenance import provenance
from darkroom.runs import Run, rebuilt
from darkroom.training import launch

if TYPE_CHECKING:
    from darkroom.data.dataset import DataSet
    from darkroom.evaluation.effects import Effect

DEFAULT_MINUTES = 1.0
"""Of each training where neither minutes nor epochs are given."""

FACTORS: tuple[Factor, ...] = ("augmentation", "optimiser", "schedule", "label-smoothing", "ema", "width")
"""What is varied when nothing is named."""

OF_OURS: tuple[Factor, ...] = ("width", "convolutions")
"""What only our own network has."""

PLAIN: dict[str, Any] = {
    "flip": False,
    "translate": 0,
    "cutout": 0,
    "crop_scale": 1.0,
    "colour_jitter": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
}
"""No augmentation at all."""

BASELINE = "baseline"
HALF = "half of the training pictures"
PARTS = {HALF: 0.5, "a quarter of the training pictures": 0.25}

LITTLE = 0.01
"""Accuracy below which a doubling of the training pictures is not worth their collection; judgement."""

MORE_PICTURES = {
    "help": "more of them would help",
    "little": "more of the same would help little",
    "unsure": "the trainings are too few to tell whether more of them would help",
}

OF_DATA = frozenset({"train_fraction"})
"""What a variant may change of the data; all else is of the training."""


OF_OPTIMISER = dict.fromkeys(("learning_rate", "weight_decay", "momentum"))
"""What each optimiser has values of its own for."""


@dataclass(frozen=True)
class Variant:
    """Settings that differ from the baseline in one thing."""

    factor: Factor
    what: str
    changes: dict[str, Any]


def factors_of(config: AblateConfig, model: str) -> tuple[Factor, ...]:
    """What is varied; raises `UsageError` where a network that is not ours has nothing of the kind."""
    given = cast("tuple[Factor, ...]", config.of)  # which checks them
    if model == OURS:
        return given or FACTORS
    for factor in given:
        if factor in OF_OURS:
            raise UsageError(f"--of {factor} is for our own network, not for {model}: leave one of them out")
    return given or tuple(factor for factor in FACTORS if factor not in OF_OURS)


def variants_of(factor: Factor, base: Mapping[str, Any], *, model: str = OURS) -> list[Variant]:
    """What to try for a factor, given the completed settings of the baseline."""
    optimiser, schedule = base["optimiser"], base["schedule"]
    # Our network has mirrored filters where pictures are mirrored: neither can be varied alone.
    filters = "" if model != OURS else ", no mirrored filters" if base["flip"] else ", mirrored filters"
    changes: dict[Factor, list[tuple[str, dict[str, Any]]]] = {
        "augmentation": [(f"no augmentation{filters if base['flip'] else ''}", PLAIN)],
        "flip": [(f"{'no mirroring' if base['flip'] else 'mirroring'}{filters}", {"flip": not base["flip"]})],
        "optimiser": [
            (f"{other} instead of {optimiser}", {"optimiser": other, **OF_OPTIMISER})
            for other in ("sgd", "adamw")
            if other != optimiser
        ],
        "schedule": [(f"{other} instead of {schedule}", {"schedule": other}) for other in ("linear", "cosine")],
        "label-smoothing": [("no label smoothing", {"label_smoothing": 0.0})],
        "ema": [("no averaging of weights", {"ema_decay": 0.0})],
        "width": [(f"width × {factor:g}", {"width": factor * base["width"]}) for factor in (0.5, 2.0)],
        "convolutions": [("a third convolution a stage", {"convolutions": 3})],
        "dropout": [("dropout 0.2", {"dropout": 0.2}) if not base["dropout"] else ("no dropout", {"dropout": 0.0})],
        "pictures": [(what, with_part(part, base)) for what, part in PARTS.items()],
    }
    tried = [Variant(factor, what, change) for what, change in changes[factor]]
    return [variant for variant in tried if any(base[name] != value for name, value in variant.changes.items())]


def with_part(part: float, base: Mapping[str, Any]) -> dict[str, Any]:
    """What changes with a part of the baseline's training pictures: in as many minutes or steps, nothing else.

    What a recipe derives from the number of pictures or epochs is held as it is: batches, translation, cut-out. Where
    epochs are counted (`base["epochs"]`), there are as many more as make up the steps. Validation then chooses among
    more epochs, which flatters the part a little.
    """
    held = {name: base[name] for name in ("batch_size", "translate", "cutout")}
    changes = {"train_fraction": part * base["train_fraction"], **held}
    if base["epochs"] is None:
        return changes
    all_steps, steps = (steps_an_epoch(share * base["pictures"], base["batch_size"]) for share in (1, part))
    return {**changes, "epochs": max(1, round(base["epochs"] * all_steps / steps))}


def steps_an_epoch(pictures: float, batch_size: int) -> int:
    """As `Batches` cuts them."""
    return max(1, round(pictures / batch_size))


def changed(
    data_config: DataConfig, training: TrainConfig, changes: Mapping[str, Any]
) -> tuple[DataConfig, TrainConfig]:
    """The settings of a variant, from those of the baseline.

    Raises:
        UsageError: they do not go together.
    """
    of_data = {name: value for name, value in changes.items() if name in OF_DATA}
    of_training = {name: value for name, value in changes.items() if name not in OF_DATA}
    return replace(data_config, **of_data), replace(training, **of_training)


@dataclass(frozen=True)
class Series:
    """An ablation under way: what all its trainings share."""

    data: str
    place: Ablation
    data_config: DataConfig
    config: AblateConfig
    dataset: "DataSet"
    training: TrainConfig
    """Of the baseline, with all that each training would else settle for itself: network, arithmetic, threads."""
    settings: Mapping[str, Any]
    """Of the baseline, completed."""

    @property
    def seeds(self) -> list[int]:
        """From that of the data on."""
        return [self.data_config.seed + number for number in range(self.config.seeds)]

    @property
    def variants(self) -> list[Variant]:
        """Of all factors."""
        model = self.training.model
        base = {
            **self.settings,
            **self.settings["augmentation"],
            "epochs": self.training.epochs,
            "train_fraction": self.data_config.train_fraction,
            "pictures": len(self.dataset.manifest.indices("train")),
        }
        factors = factors_of(self.config, model)
        return [variant for factor in factors for variant in variants_of(factor, base, model=model)]

    def accuracies(self, what: str, changes: Mapping[str, Any]) -> list[float]:
        """Validation accuracy of one kind of training, a value a seed."""
        return [self._accuracy(self._run(what, seed), seed, changes) for seed in self.seeds]

    def pictures(self, what: str) -> int:
        """How many the first training of that kind has learned from."""
        counts = self._run(what, self.seeds[0]).read_config()["data"]["counts"]
        return int(sum(counts["train"].values()))

    def _run(self, what: str, seed: int) -> Run:
        return self.place.run(f"{what}-seed-{seed}")

    def _accuracy(self, run: Run, seed: int, changes: Mapping[str, Any]) -> float:
        begun = run.config.exists()
        if not (begun and run.finished):
            say(f"== {run.folder.name} ==")
            data_config, training = changed(replace(self.data_config, seed=seed), self.training, changes)
            workflow.train(
                self.data,
                run,
                data_config=data_config,
                config=training,
                resume=begun,
                overwrite=not begun and run.holds(),
                dataset=self.dataset if data_config == self.data_config else None,
            )
        return float(run.read_config()["training"]["result"]["best_validation_accuracy"])


def ablate(
    data: str,
    folder: Path,
    *,
    data_config: DataConfig,
    training: TrainConfig,
    config: AblateConfig,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train the baseline and each variant once a seed, and measure all on validation; the content of ablation.json.

    The test split stays closed. A variant that diverges is left out. Raises what `workflow.train` does, and:

    Raises:
        RunError: the folder holds an ablation already, or one of other pictures is to be resumed; or all have failed.
        UsageError: there is nothing to vary, or an ablation is to be resumed with other options than before.
    """
    launch.refuse_several("ablate")
    place = Ablation(folder)
    workflow.claim(place, resume=resume, overwrite=overwrite)
    with workflow.held(place):
        if resume and place.begun:
            series = _resumed(data, place, data_config, training, config)
        else:
            if resume:
                say(f"{folder} holds nothing to resume: starting anew")
            series = _begun(data, place, data_config, training, config, overwrite=overwrite)
        return _carried_out(series)


def _carried_out(series: Series) -> dict[str, Any]:
    from darkroom.evaluation.effects import effect
    from darkroom.figures.comparison import effects

    place, base = series.place, series.accuracies(BASELINE, {})
    rows, left_out = [], []
    for variant in series.variants:
        try:
            values = series.accuracies(variant.what, variant.changes)
        except TrainingStoppedError:
            raise
        except (TrainingError, MemoryError, RuntimeError) as error:  # such as one that diverges
            left_out.append(f"left out: {variant.what}, which failed: {' '.join(str(error).split())}")
            say(left_out[-1])
        else:
            rows.append({**asdict(variant), "accuracies": values, **asdict(effect(values, base))})
    if not rows:
        raise RunError("; ".join(left_out))
    content = {
        **provenance(),
        "data": series.data,
        "fingerprint": series.dataset.manifest.fingerprint,
        "budget": {"minutes": series.training.minutes, "epochs": series.training.epochs},
        "seeds": series.seeds,
        "baseline": base,
        "settings": series.settings,
        "effects": rows,
        "doubling": last_doubling(series, {BASELINE: base, **{row["what"]: row["accuracies"] for row in rows}}),
        "left_out": left_out,
    }
    files.write_text(place.text, "\n".join(lines(content)) + "\n")
    effects(place.figure, rows=rows, baseline=base)
    files.write_json(place.content, content)
    return content


def last_doubling(series: Series, accuracies: Mapping[str, Sequence[float]]) -> dict[str, Any] | None:
    """What the second half of the training pictures has added, and what that says of still more of them.

    None where no training had half of them.
    """
    from darkroom.evaluation.effects import effect

    if HALF not in accuracies:
        return None
    gain = effect(accuracies[BASELINE], accuracies[HALF])
    return {"from": series.pictures(HALF), "to": series.pictures(BASELINE), **asdict(gain), "more": more(gain)}


def more(gain: "Effect") -> str:
    """Which sentence of `MORE_PICTURES` the gain by the last doubling supports."""
    if gain.low > 0:
        return "help"
    return "little" if gain.high < LITTLE else "unsure"


def _begun(
    data: str,
    place: Ablation,
    data_config: DataConfig,
    training: TrainConfig,
    config: AblateConfig,
    *,
    overwrite: bool,
) -> Series:
    """Settle the baseline once: what is measured for it then holds for all trainings."""
    from darkroom.training.settle import settle

    if training.frozen:
        raise UsageError("--frozen trains nothing that could be varied: leave it out")
    if training.refit:
        raise UsageError("--refit trains anew after what is measured here: leave it out")
    factors_of(config, training.model)
    if training.minutes is None and training.epochs is None:
        training = replace(training, minutes=DEFAULT_MINUTES)
    dataset = _prepared(data, data_config, training)
    settled = settle(dataset, data_config=data_config, config=training)["training"]
    pinned, settings = _pinned(training, settled), settled["settings"]
    series = Series(data, place, data_config, config, dataset, pinned, settings)
    if not series.variants:
        raise UsageError(f"--of {' '.join(config.of)} would change nothing of the baseline: name something else")
    for variant in series.variants:
        changed(data_config, pinned, variant.changes)  # which refuses what does not go together, before any training
    if overwrite:  # only now: what cannot be trained must not cost the ablation that was there
        place.clear()
    place.keep(
        {
            "data": data,
            "fingerprint": dataset.manifest.fingerprint,
            "requested": {"data": plain(data_config), "training": plain(training), "ablation": plain(config)},
            "pinned": plain(pinned),
            "settings": settings,
        }
    )
    return series


def _resumed(
    data: str, place: Ablation, data_config: DataConfig, training: TrainConfig, config: AblateConfig
) -> Series:
    kept = place.kept()
    requested = kept["requested"]
    require_same_data(place, data, kept)
    data_config = begun_with(place, data_config, requested["data"])
    training = begun_with(place, training, requested["training"])
    config = begun_with(place, config, requested["ablation"])
    dataset = _prepared(data, data_config, training)
    require_same_pictures(place, dataset.manifest.fingerprint, kept)
    return Series(data, place, data_config, config, dataset, rebuilt(TrainConfig, kept["pinned"]), kept["settings"])


def _prepared(data: str, data_config: DataConfig, training: TrainConfig) -> "DataSet":
    from darkroom.data.dataset import prepare
    from darkroom.training.candidates import candidate

    return prepare(data, data_config, candidate(training.model, random_weights=training.random_weights).preprocessing)


def _pinned(training: TrainConfig, settled: Mapping[str, Any]) -> TrainConfig:
    """The training with what was settled by measuring this machine."""
    from darkroom.comparison.measure import options_of
    from darkroom.training.machine import Arithmetic

    measured = options_of(Arithmetic(**settled["arithmetic"]), settled["threads"])
    if training.model == OURS:
        measured |= {name: settled["settings"][name] for name in ("width", "convolutions")}
    return replace(training, **measured)


def lines(content: Mapping[str, Any]) -> Iterator[str]:
    """A table for people."""
    base, rows = content["baseline"], content["effects"]
    budget = content["budget"]
    each = f"{budget['minutes']:g} minutes" if budget["minutes"] is not None else f"{budget['epochs']} epochs"
    yield f"baseline: {_percent(sum(base) / len(base))} on validation, {len(base)} trainings of {each} each"
    width = max(len(row["what"]) for row in rows)
    for row in sorted(rows, key=lambda row: row["mean"]):
        sure = "  *" if row["sure"] else ""
        interval = f"({_signed(row['low'])} to {_signed(row['high'])})"
        yield f"{row['what']:<{width}}  {_signed(row['mean'])} points {interval}{sure}"
    if doubling := content["doubling"]:
        interval = f"({_signed(doubling['low'])} to {_signed(doubling['high'])})"
        yield (
            f"from {doubling['from']:,} training pictures to {doubling['to']:,}: {_signed(doubling['mean'])} points "
            f"{interval}; {MORE_PICTURES[doubling['more']]}"
        )
    yield from content["left_out"]
    yield "95 % intervals over seeds (paired t); * where they leave out 0. Nothing is corrected for their number."


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"
