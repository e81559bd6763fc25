"""The run folder: the one place that knows its file names. Stages talk to each other through these files only."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from darkroom import files
from darkroom.errors import RunError


@dataclass(frozen=True)
class Predictions:
    """Logits of one split: `ids` (N,) and `labels` (N,) int64, `logits` (N, K) float32, untempered."""

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]


class Run:
    """A run folder; opening one that does not exist costs nothing, reading a missing file raises `RunError`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.json"
        self.manifest = folder / "manifest.csv"
        self.history = folder / "history.csv"
        self.checkpoint = folder / "checkpoint.pt"
        self.weights = folder / "model.safetensors"
        self.predictions = folder / "predictions.npz"
        self.metrics = folder / "metrics.json"
        self.figures = folder / "figures"
        self.samples = folder / "samples"
        self.bundle = folder / "bundle"
        self.tensorboard = folder / "tensorboard"

    def figure(self, name: str) -> Path:
        """Path of a figure, to which its kind (.svg, .png) is added."""
        return self.figures / name

    def holds(self) -> bool:
        """Whether the folder holds anything of a run."""
        return any(path.exists() for path in self._contents())

    def clear(self) -> None:
        """Delete what belongs to a run, and nothing else that may lie in the folder."""
        for path in self._contents():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _contents(self) -> list[Path]:
        return [path for path in vars(self).values() if path != self.folder]

    def read_config(self) -> dict[str, Any]:
        """Settings, class names, preprocessing and provenance of the run."""
        return self._read_json(self.config, "start it with `darkroom train`")

    def write_config(self, content: Mapping[str, Any]) -> None:
        """Replace config.json."""
        files.write_json(self.config, dict(content))

    def read_metrics(self) -> dict[str, Any]:
        """All metrics of the run."""
        return self._read_json(self.metrics, f"make it with `darkroom evaluate {self.folder}`")

    def write_metrics(self, content: Mapping[str, Any]) -> None:
        """Replace metrics.json."""
        files.write_json(self.metrics, dict(content))

    def read_history(self) -> list[dict[str, float]]:
        """A row an epoch, all values as numbers."""
        self._require(self.history, "train first")
        with self.history.open(newline="", encoding="utf-8") as stream:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Replace history.csv; all rows have the same columns."""
        with files.replacing(self.history) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["epoch"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def read_predictions(self, split: str) -> Predictions:
        """Stored predictions of `split` ("validation" or "test")."""
        self._require(self.predictions, f"make it with `darkroom evaluate {self.folder}`")
        with np.load(self.predictions, allow_pickle=False) as stored:
            if f"{split}_ids" not in stored:
                raise RunError(f"{self.predictions} holds no predictions of {split}: run `darkroom evaluate` first")
            return Predictions(*(stored[f"{split}_{name}"] for name in ("ids", "labels", "logits")))

    def write_predictions(self, split: str, predictions: Predictions) -> None:
        """Add or replace the predictions of one split, keeping those of the other."""
        stored: dict[str, npt.NDArray[Any]] = {}
        if self.predictions.exists():
            with np.load(self.predictions, allow_pickle=False) as old:
                stored = {name: old[name] for name in old.files}
        for name in ("ids", "labels", "logits"):
            stored[f"{split}_{name}"] = getattr(predictions, name)
        with files.replacing(self.predictions) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **stored)

    def _read_json(self, path: Path, remedy: str) -> dict[str, Any]:
        self._require(path, remedy)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{path} is not readable JSON ({error}): delete it and {remedy}") from error
        if not isinstance(content, dict):
            raise RunError(f"{path} does not hold a JSON object: delete it and {remedy}")
        return content

    def _require(self, path: Path, remedy: str) -> None:
        if not self.folder.is_dir():
            raise RunError(f"no run folder at {self.folder}: {remedy}")
        if not path.is_file():
            raise RunError(f"{path} is missing: {remedy}")
