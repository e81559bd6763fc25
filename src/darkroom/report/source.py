"""What a report is made of: a run, and where they are given, the comparison that chose it and an ablation."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from darkroom.bundle import INFO_FILE
from darkroom.comparison.folder import Ablation, Comparison
from darkroom.data.manifest import Manifest
from darkroom.errors import ImageError, RunError
from darkroom.figures.steps import preprocessing as draw_steps
from darkroom.files import sha256_of
from darkroom.preprocess import Preprocessing, decode, load, used_part
from darkroom.report.insights import history_of, insights_from, manifest_of
from darkroom.runs import Run

BY_SPLIT = (
    "confusion_matrix",
    "per_class",
    "confused_pairs",
    "reliability",
    "worst_mistakes",
    "surest_mistakes",
    "activation_maps",
)
OF_THE_RUN = ("samples", "class_balance", "preprocessing", "network", "augmentation", "learning_curves")


@dataclass(frozen=True)
class Source:
    """The `place` of a report, the run it is about, the files it reads by the names that paths begin with, and figures.

    `contents` is what the files held, each read once, with what is deduced of them; `figures` are SVG files by name.
    """

    place: Run
    run: Run
    read: Mapping[str, Path]
    figures: Mapping[str, Path]
    contents: Mapping[str, Any]

    @property
    def insights(self) -> Mapping[str, Any]:
        """What follows from the others."""
        insights: Mapping[str, Any] = self.contents["insights"]
        return insights

    @property
    def samples(self) -> list[Path]:
        """Test pictures that people may try."""
        return sorted(self.run.samples.iterdir()) if self.run.samples.is_dir() else []


def source_of(path: Path, *, ablation: Path | None = None, draw: bool = True) -> Source:
    """What the run or comparison at `path` holds; deduces insights and, if it is to `draw`, what only reports show.

    Raises `RunError` where a file is missing, or the run has not been evaluated.
    """
    compared = Comparison(path)
    is_comparison = compared.content.is_file()
    run, place = compared.chosen if is_comparison else Run(path), Run(path)
    _require_room(place)
    files = {"config": run.config, "metrics": run.metrics, "history": run.history, "bundle": run.bundle / INFO_FILE}
    if is_comparison:
        files["comparison"] = compared.content
    if ablation is not None:
        files["ablation"] = _ablated(ablation).content
    read = {name: file for name, file in files.items() if file.is_file()}
    contents = _contents(run, read)
    _require_one_data_set(contents, ablation)
    if draw:
        _draw_steps(run, contents["config"])
    figures = _figures(run, contents["insights"]["split"])
    if is_comparison:
        figures["accuracy_latency"] = compared.figure
    if ablation is not None:
        figures["ablation"] = Ablation(ablation).figure
    vectors = {name: figure.with_name(f"{figure.name}.svg") for name, figure in figures.items()}
    return Source(
        place=place,
        run=run,
        read=read,
        figures={name: file for name, file in vectors.items() if file.is_file()},
        contents=contents,
    )


def _contents(run: Run, read: Mapping[str, Path]) -> dict[str, Any]:
    """What the files hold and what follows from it; each is read once, lest two states of a run be mixed."""
    config, metrics = run.read_config(), run.read_metrics()
    history = history_of(run, config)
    manifest = _one_split(run, config)
    others = {name: read_json(path) for name, path in read.items() if name not in ("config", "metrics", "history")}
    insights = insights_from(run, config, metrics, history, manifest)
    return {"config": config, "metrics": metrics, "history": history, **others, "insights": insights}


def _figures(run: Run, split: str) -> dict[str, Path]:
    """Places of the figures of a run, without their endings."""
    return {name: run.figure(name) for name in OF_THE_RUN} | {name: run.figure(f"{name}_{split}") for name in BY_SPLIT}


def _require_room(place: Run) -> None:
    """Raise `RunError` where something else lies where the results go."""
    for path in place.reported:
        if path.is_dir():
            raise RunError(f"{path} is a folder, where a file of the report goes: move it away")


def _ablated(folder: Path) -> Ablation:
    ablated = Ablation(folder)
    ablated.read()
    return ablated


def _require_one_data_set(contents: Mapping[str, Any], ablation: Path | None) -> None:
    """Raise `RunError` where the ablation is about other pictures."""
    if ablation is None:
        return
    about = contents["ablation"].get("fingerprint") or Ablation(ablation).kept().get("fingerprint")
    if about != contents["config"]["data"]["fingerprint"]:
        name = contents["config"]["data"]["name"]
        raise RunError(
            f"--ablation {ablation} is about other pictures or labels than {name}: give one of the same data"
        )


def _one_split(run: Run, config: Mapping[str, Any]) -> Manifest:
    """The manifest; raises `RunError` where it or the predictions are not those that config.json speaks of."""
    data, classes = config["data"], config["data"]["classes"]
    if run.manifest.is_file() and sha256_of(run.manifest) != data.get("manifest_sha256"):
        raise RunError(f"{run.manifest} was changed after the run began: put the old one back, or start a new run")
    manifest = manifest_of(run, config)
    for split in filter(run.has_predictions, ("validation", "test")):
        stored, ids = run.read_predictions(split), manifest.indices(split)
        if not np.array_equal(stored.ids, ids) or stored.logits.shape != (len(ids), len(classes)):
            raise RunError(
                f"{run.predictions} is about other pictures or classes than {run.manifest.name} ({split}): "
                f"run `darkroom evaluate {run.folder}` again"
            )
    return manifest


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises `RunError` where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): make it again") from error


def _draw_steps(run: Run, config: Mapping[str, Any]) -> None:
    """Show the sample that the contract changes most on its way; without samples there is no such figure."""
    contract = Preprocessing.from_json(config["data"]["preprocessing"])
    samples = sorted(run.samples.iterdir()) if run.samples.is_dir() else []
    pictures = []
    for sample in samples:
        try:
            pictures.append((decode(sample), load(sample, contract)))
        except ImageError:
            continue
    if not pictures:
        return
    picture, pixels = max(pictures, key=lambda pair: abs(np.log(pair[0].width / pair[0].height)))
    part = used_part(picture, contract)
    mean, std = (np.array(config["training"][name]) for name in ("mean", "std"))
    normalised = (pixels - mean) / std
    draw_steps(
        run.figure("preprocessing"),
        steps=[
            ("as it came", _size(picture), np.asarray(picture)),
            ("the part that is used", _size(part), np.asarray(part)),
            ("as the network gets it", f"{contract.width}×{contract.height} pixels", pixels),
            ("normalised", f"values from {normalised.min():.1f} to {normalised.max():.1f}", _shown(normalised)),
        ],
    )


def _size(picture: Any) -> str:
    return f"{picture.width}×{picture.height} pixels"


def _shown(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Normalised values as colours: from two deviations below the mean to two above it."""
    result: npt.NDArray[np.uint8] = ((values + 2) / 4 * 255).clip(0, 255).round().astype(np.uint8)
    return result
