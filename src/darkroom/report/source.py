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
from darkroom.errors import ImageError, RunError
from darkroom.figures.steps import preprocessing as draw_steps
from darkroom.preprocess import Preprocessing, decode, load, used_part
from darkroom.report.insights import insights_of
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

    `figures` are SVG files by name, `insights` what is deduced of the run.
    """

    place: Run
    run: Run
    read: Mapping[str, Path]
    figures: Mapping[str, Path]
    insights: Mapping[str, Any]

    @property
    def contents(self) -> dict[str, Any]:
        """What the files hold."""
        return contents_of(self.read) | {"insights": self.insights}

    @property
    def samples(self) -> list[Path]:
        """Test pictures that people may try."""
        return sorted(self.run.samples.iterdir()) if self.run.samples.is_dir() else []


def source_of(path: Path, *, ablation: Path | None = None) -> Source:
    """What the run or comparison at `path` holds; deduces insights and draws what only reports show.

    Raises `RunError` where a file is missing, or the run has not been evaluated.
    """
    compared = Comparison(path)
    is_comparison = compared.content.is_file()
    run = compared.chosen if is_comparison else Run(path)
    insights = insights_of(run)
    read = {"config": run.config, "metrics": run.metrics, "history": run.history, "bundle": run.bundle / INFO_FILE}
    figures = {name: run.figure(name) for name in OF_THE_RUN}
    figures |= {name: run.figure(f"{name}_{insights['split']}") for name in BY_SPLIT}
    if is_comparison:
        read["comparison"], figures["accuracy_latency"] = compared.content, compared.figure
    if ablation is not None:
        ablated = Ablation(ablation)
        ablated.read()
        read["ablation"], figures["ablation"] = ablated.content, ablated.figure
    _draw_steps(run)
    vectors = {name: figure.with_name(f"{figure.name}.svg") for name, figure in figures.items()}
    return Source(
        place=Run(path),
        run=run,
        read={name: file for name, file in read.items() if file.is_file()},
        figures={name: file for name, file in vectors.items() if file.is_file()},
        insights=insights,
    )


def contents_of(read: Mapping[str, Path]) -> dict[str, Any]:
    """What files hold, by the same names; raises `RunError` where one is missing or damaged."""
    return {
        name: Run(path.parent).read_history() if path.suffix == ".csv" else read_json(path)
        for name, path in read.items()
    }


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises `RunError` where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): make it again") from error


def _draw_steps(run: Run) -> None:
    """Show the sample that the contract changes most on its way; without samples there is no such figure."""
    config = run.read_config()
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
