"""`darkroom ablate`: one thing taken away or exchanged at a time, in trainings of equal budget, over several seeds."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from darkroom import files, workflow
from darkroom.config import AblateConfig, DataConfig, Factor, TrainConfig
from darkroom.errors import RunError, UsageError
from darkroom.progress import say
from darkroom.provenance import provenance
from darkroom.runs import Run
from darkroom.training import launch

DEFAULT_MINUTES = 1.0
"""Of each training where neither minutes nor epochs are given."""

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


@dataclass(frozen=True)
class Variant:
    """Settings that differ from the baseline in one thing."""

    factor: Factor
    what: str
    changes: dict[str, Any]


def variants_of(factor: Factor, base: Mapping[str, Any]) -> list[Variant]:
    """What to try for a factor, given the completed settings of the baseline."""
    optimiser, schedule = base["optimiser"], base["schedule"]
    changes: dict[Factor, list[tuple[str, dict[str, Any]]]] = {
        "augmentation": [("no augmentation", PLAIN)],
        "flip": [("no mirroring" if base["flip"] else "mirroring", {"flip": not base["flip"]})],
        "optimiser": [(f"{other} instead of {optimiser}", {"optimiser": other}) for other in ("sgd", "adamw")],
        "schedule": [(f"{other} instead of {schedule}", {"schedule": other}) for other in ("linear", "cosine")],
        "label-smoothing": [("no label smoothing", {"label_smoothing": 0.0})],
        "ema": [("no averaging of weights", {"ema_decay": 0.0})],
        "width": [(f"width × {factor:g}", {"width": factor * base["width"]}) for factor in (0.5, 2.0)],
        "convolutions": [("a third convolution a stage", {"convolutions": 3})],
        "dropout": [("dropout 0.2", {"dropout": 0.2}) if not base["dropout"] else ("no dropout", {"dropout": 0.0})],
    }
    tried = [Variant(factor, what, change) for what, change in changes[factor]]
    return [variant for variant in tried if any(base[name] != value for name, value in variant.changes.items())]


class Ablation:
    """The folder of an ablation; the one place that knows its file names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content = folder / "ablation.json"
        self.figure = folder / "figures" / "ablation"
        self.runs = folder / "runs"

    def holds(self) -> bool:
        """Whether the folder holds anything of an ablation."""
        return self.content.exists() or self.runs.exists()

    def clear(self) -> None:
        """Delete what belongs to an ablation, and nothing else that may lie in the folder."""
        shutil.rmtree(self.runs, ignore_errors=True)
        for path in (*(self.figure.with_suffix(suffix) for suffix in (".svg", ".png")), self.content):
            path.unlink(missing_ok=True)

    def run(self, what: str, seed: int) -> Run:
        """The run of one training."""
        return Run(self.runs / f"{''.join(c if c.isalnum() or c in '-_.' else '-' for c in what)}-seed-{seed}")


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

    The test split stays closed. Raises what `workflow.train` does.
    """
    from darkroom.evaluation.effects import effect
    from darkroom.figures.comparison import effects

    launch.refuse_several("ablate")
    place = Ablation(folder)
    _claim(place, resume=resume, overwrite=overwrite)
    if training.minutes is None and training.epochs is None:
        training = replace(training, minutes=DEFAULT_MINUTES)
    if overwrite:
        place.clear()
    seeds = [data_config.seed + number for number in range(config.seeds)]

    def accuracies(what: str, changed: TrainConfig) -> list[float]:
        return [_accuracy(data, place.run(what, seed), replace(data_config, seed=seed), changed) for seed in seeds]

    base = accuracies("baseline", training)
    settings = place.run("baseline", seeds[0]).read_config()["training"]["settings"]
    variants = [variant for factor in config.of for variant in variants_of(factor, _flat(settings))]
    rows = []
    for variant in variants:
        values = accuracies(variant.what, replace(training, **variant.changes))
        rows.append({**asdict(variant), "accuracies": values, **asdict(effect(values, base))})
    content = {
        **provenance(),
        "data": data,
        "budget": {"minutes": training.minutes, "epochs": training.epochs},
        "seeds": seeds,
        "baseline": base,
        "settings": settings,
        "effects": rows,
    }
    effects(place.figure, rows=rows, baseline=base)
    files.write_json(place.content, content)
    return content


def _accuracy(data: str, run: Run, data_config: DataConfig, config: TrainConfig) -> float:
    """Validation accuracy of one training, made now where it is not there yet."""
    if not (run.config.exists() and run.finished):
        say(f"== {run.folder.name} ==")
        workflow.train(data, run, data_config=data_config, config=config, overwrite=run.holds())
    return float(run.read_config()["training"]["result"]["best_validation_accuracy"])


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings, **settings["augmentation"]}


def lines(content: Mapping[str, Any]) -> Iterator[str]:
    """A table for people."""
    base, rows = content["baseline"], content["effects"]
    budget = content["budget"]
    each = f"{budget['minutes']:g} minutes" if budget["minutes"] is not None else f"{budget['epochs']} epochs"
    yield f"baseline: {_percent(sum(base) / len(base))} on validation, {len(base)} trainings of {each} each"
    width = max(len(row["what"]) for row in rows)
    for row in sorted(rows, key=lambda row: row["mean"]):
        sure = "" if row["low"] <= 0 <= row["high"] else "  *"
        interval = f"({_signed(row['low'])} to {_signed(row['high'])})"
        yield f"{row['what']:<{width}}  {_signed(row['mean'])} points {interval}{sure}"
    yield "95 % intervals over seeds (paired t); * where they leave out 0. Nothing is corrected for their number."


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"


def _claim(place: Ablation, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds an ablation, unless the user says that it is to be resumed or replaced."""
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other: give one of them")
    if place.folder.exists() and not place.folder.is_dir():
        raise UsageError(f"--out {place.folder} is a file: give a folder")
    if place.holds() and not (resume or overwrite):
        raise RunError(f"{place.folder} already holds an ablation: --resume it, --overwrite it, or give another --out")
