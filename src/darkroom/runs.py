"""The run folder: the one place that knows its file names. Stages talk to each other through these files only."""

import csv
import hashlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from darkroom import files
from darkroom.errors import RunError

if TYPE_CHECKING:  # numpy would take a third of the time that `darkroom --help` has
    import numpy as np
    import numpy.typing as npt

SPLIT_ARRAYS = ("ids", "labels", "logits")

Value = TypeVar("Value")


@dataclass(frozen=True)
class Predictions:
    """Logits of one split: `ids` (N,) and `labels` (N,) int64, `logits` (N, K) float32, untempered."""

    ids: "npt.NDArray[np.int64]"
    labels: "npt.NDArray[np.int64]"
    logits: "npt.NDArray[np.float32]"


class Run:
    """A run folder; opening one that does not exist costs nothing, reading a missing file raises `RunError`."""

    kind = "run"

    def __init__(self, folder: str | Path) -> None:
        self.folder = folder = Path(folder)
        self.config = folder / "config.json"
        self.manifest = folder / "manifest.csv"
        self.layers = folder / "network.txt"
        self.history = folder / "history.csv"
        self.checkpoint = folder / "checkpoint.pt"
        self.weights = folder / "model.safetensors"
        self.refit = folder / "refit"
        self.predictions = folder / "predictions.npz"
        self.metrics = folder / "metrics.json"
        self.insights = folder / "insights.json"
        self.report, self.slides = folder / "report.pdf", folder / "slides.pptx"
        self.told = folder / "report.json"
        self.figures = folder / "figures"
        self.samples = folder / "samples"
        self.bundle = folder / "bundle"
        self.int8_bundle = folder / "bundle-int8"
        self.saved_model = folder / "saved_model"
        self.tensorboard = folder / "tensorboard"

    def figure(self, name: str) -> Path:
        """Path of a figure, to which its kind (.svg, .png) is added."""
        return self.figures / name

    def holds(self) -> bool:
        """Whether the folder holds anything of a run."""
        return any(path.exists() for path in self._contents())

    @property
    def begun(self) -> bool:
        """Whether a run was started here, and what `holds` finds is not some other figures/ or samples/."""
        return self.manifest.exists() or self.config.exists()

    @property
    def reported(self) -> tuple[Path, ...]:
        """What `darkroom report` writes, into the folder of a run or of a comparison."""
        return self.insights, self.report, self.slides, self.told

    @property
    def trained(self) -> bool:
        """Whether training has ended and its weights are there, be it that a refit follows."""
        return self.weights.is_file() and "result" in self.read_config()["training"]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        training = self.read_config()["training"]
        return self.trained and ("refit" in training or not training["requested"].get("refit", False))

    @property
    def refitted(self) -> bool:
        """Whether the weights have learned from the validation pictures too."""
        return "refit" in self.read_config()["training"]

    @property
    def train_seconds(self) -> float:
        """What training took, the refit included."""
        training = self.read_config()["training"]
        return float(training["result"]["seconds"] + training.get("refit", {}).get("seconds", 0.0))

    def hashes(self) -> dict[str, str]:
        """SHA-256 of what training left, by the names of the files: a bundle keeps them, so that changes are noticed.

        Of config.json without what may change later: the seconds that stages take, and where the pictures lie.
        """
        content = self.read_config()
        settled = {name: value for name, value in content.items() if name != "seconds"}
        settled["data"] = {name: value for name, value in content["data"].items() if name != "root"}
        config = hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()
        others = {path.name: files.sha256_of(path) for path in (self.history, self.layers) if path.is_file()}
        return {self.config.name: config, **others}

    def clear(self) -> None:
        """Delete what belongs to a run, and nothing else that may lie in the folder."""
        for path in reversed(self._contents()):  # what makes it a run goes last, so that this can be done again
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @property
    def lock(self) -> Path:
        """Held by the process that changes the run."""
        return self.folder / ".lock"

    def sweep(self) -> None:
        """Delete what killed processes left beside the checkpoint; only for the process that trains."""
        for leftover in self.folder.glob(f".{self.checkpoint.stem}.*{self.checkpoint.suffix}"):
            leftover.unlink(missing_ok=True)

    def _contents(self) -> list[Path]:
        return [path for path in vars(self).values() if path != self.folder]

    def read_config(self) -> dict[str, Any]:
        """Settings, class names, preprocessing and provenance of the run."""
        content = self._read_json(self.config, "start it with `darkroom train`")
        missing = [part for part in ("data", "training", "network") if part not in content]
        if missing:  # many programs write a config.json
            raise RunError(f"{self.config} is not that of a run (it says nothing of {missing[0]}): name a run folder")
        return content

    def write_config(self, content: Mapping[str, Any]) -> None:
        """Replace config.json."""
        files.write_json(self.config, dict(content))

    def add_seconds(self, seconds: Mapping[str, float]) -> None:
        """Add the seconds that stages took to those of earlier parts of the same run, in config.json."""
        content = self.read_config()
        before = content.get("seconds", {})
        content["seconds"] = before | {stage: before.get(stage, 0.0) + value for stage, value in seconds.items()}
        self.write_config(content)

    def read_metrics(self) -> dict[str, Any]:
        """All metrics of the run."""
        return self._read_json(self.metrics, f"make it with `darkroom evaluate {self.folder}`")

    def judges(self) -> list[str]:
        """The splits in metrics.json that speak of the weights as they are: after a refit, test alone."""
        return judges_of(self.read_config(), self.read_metrics())

    def write_metrics(self, content: Mapping[str, Any]) -> None:
        """Replace metrics.json."""
        files.write_json(self.metrics, dict(content))

    def read_history(self) -> list[dict[str, float]]:
        """A row an epoch, all values as numbers."""
        self._require(self.history, "train first")
        try:
            with self.history.open(newline="", encoding="utf-8") as stream:
                return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
        except (ValueError, TypeError, csv.Error) as error:
            raise RunError(f"{self.history} is damaged ({error}): train again with --overwrite") from error

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Replace history.csv; all rows have the same columns."""
        with files.replacing(self.history) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["epoch"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def read_predictions(self, split: str) -> Predictions:
        """Stored predictions of `split` ("validation" or "test")."""
        self._require(self.predictions, f"make it with `darkroom evaluate {self.folder}`")
        stored = self._read_arrays()
        names = [f"{split}_{name}" for name in SPLIT_ARRAYS]
        if not stored.keys() >= set(names):
            raise RunError(f"{self.predictions} holds no predictions of {split}: run `darkroom evaluate` first")
        return Predictions(*(stored[name] for name in names))

    def has_predictions(self, split: str) -> bool:
        """Whether predictions of `split` are stored."""
        return self.predictions.is_file() and f"{split}_ids" in self._read_arrays()

    def write_predictions(self, split: str, predictions: Predictions) -> None:
        """Add or replace the predictions of one split, keeping those of the other."""
        import numpy as np

        stored = self._read_arrays() if self.predictions.exists() else {}
        stored |= {f"{split}_{name}": getattr(predictions, name) for name in SPLIT_ARRAYS}
        with files.replacing(self.predictions) as temporary:
            np.savez_compressed(temporary, **stored)  # type: ignore[arg-type]  # an option of it looks like an array

    def _read_arrays(self) -> "dict[str, npt.NDArray[Any]]":
        import numpy as np

        try:
            with self.predictions.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            raise RunError(f"{self.predictions} is damaged: delete it and run `darkroom evaluate` again") from error

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


def judges_of(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """The splits in the content of metrics.json that speak of the weights as they are."""
    refitted = "refit" in config["training"]
    return [split for split in ("validation", "test") if split in metrics and (split == "test" or not refitted)]


def rebuilt(kind: Callable[..., Value], values: Mapping[str, Any]) -> Value:
    """`kind` of the values that config.json holds; raises `RunError` where another version of darkroom wrote others."""
    try:
        return kind(**values)
    except TypeError as error:
        raise RunError(
            f"config.json describes what this version of darkroom does not know ({error}): "
            "use the version that made the run, or train again with --overwrite"
        ) from error
