"""The checks of a run folder, from the pictures up."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from darkroom import files
from darkroom.bundle import CARD_FILE, INFO_FILE, Bundle, BundleInfo
from darkroom.config import DataConfig
from darkroom.data.dataset import leaks, located
from darkroom.data.manifest import Manifest
from darkroom.data.split import SPLITS, UNUSED
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.errors import DarkroomError, RunError
from darkroom.evaluation.calibration import calibrate, probabilities
from darkroom.evaluation.metrics import measure
from darkroom.export.card import model_card
from darkroom.export.description import describe
from darkroom.preprocess import load
from darkroom.progress import track
from darkroom.runs import Run
from darkroom.verify.checks import Check, check, require_same

STORED_TOLERANCE = 1e-2
"""Largest difference in probability between stored predictions and the bundle's answers, as at export."""

AT_ONCE = 256
JUDGED = ("validation", "test")
PROVED = {"files", "parity", "quantisation"}
"""What bundle.json says beside what follows from the run: hashes, which opening it compares, and proofs at export."""


@dataclass(frozen=True)
class Verification:
    """A run that is verified; `sample` bounds how many pictures of a split are read and answered again."""

    run: Run
    config: DataConfig
    sample: int | None = None

    def checks(self) -> Iterator[Check]:
        """All of them, one after the other."""
        yield check("manifest", self.manifest_and_settings)
        yield check("history", self.history)
        yield check("bundle", self.bundle)
        yield check("what the bundle says", self.told_by_bundle)
        yield check("model card", self.card)
        if self.run.int8_bundle.is_dir():
            yield check("int8 bundle", self.int8_bundle)
        yield check("samples", self.samples)
        for split in self._splits_of_pictures():
            yield check(f"{split}: pictures", lambda split=split: self.pictures(split))  # type: ignore[misc]
        yield check("what was measured", self.measured)
        for split in sorted(self._splits_told().union(["validation"]), reverse=True):
            yield from self.checks_of(split)
            yield check(f"{split}: predictions", lambda split=split: self.predictions(split))  # type: ignore[misc]
        yield check("temperature and threshold", self.calibration)

    def checks_of(self, split: str) -> Iterator[Check]:
        """That the numbers of a split follow from its predictions; quick, and without its pictures."""
        yield check(f"{split}: labels", lambda: self.labels(split))
        yield check(f"{split}: metrics", lambda: self.metrics(split))

    def _splits_of_pictures(self) -> list[str]:
        """All that have pictures, be they judged or not: to hash a picture opens no test split."""
        try:
            held = {row.split for row in self._manifest.rows}
        except (DarkroomError, LookupError, TypeError):  # told by the check of the manifest
            held = {"train", *JUDGED}
        return [split for split in (*SPLITS, UNUSED) if split in held]

    def _splits_told(self) -> set[str]:
        """Those that any file knows something of; a damaged file is told of by other checks."""
        found: set[str] = set()
        for told in (self.run.read_metrics, self._predicted, lambda: self._info.metrics):
            try:
                found |= set(told()) & set(JUDGED)
            except (DarkroomError, LookupError, TypeError, OSError):
                continue
        return found

    def _predicted(self) -> list[str]:
        return [split for split in JUDGED if self.run.has_predictions(split)]

    @cached_property
    def _manifest(self) -> Manifest:
        return located(self.run, self.config)

    @cached_property
    def _info(self) -> BundleInfo:
        return BundleInfo.read(self.run.bundle / INFO_FILE)

    def manifest_and_settings(self) -> str:
        """The manifest is the one of config.json, which counts it rightly, and its pictures are there."""
        data = self.run.read_config()["data"]
        counted = {"counts": self._manifest.counts(), "leaks": leaks(self._manifest)}
        require_same("config.json", {name: data[name] for name in counted}, "the manifest", counted)
        return f"{len(self._manifest.rows):,} pictures, as when the run began"

    def history(self) -> str:
        """config.json says of the training what history.csv does, and metrics.json how long it took."""
        result, rows = self.run.read_config()["training"]["result"], self.run.read_history()
        require_same("config.json", result["epochs"], "history.csv", len(rows))
        # As in training: the highest accuracy, then the lowest loss, then the first.
        best = max(rows, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]), default=None)
        if best and result["best_epoch"]:
            said = {name: result[name] for name in ("best_epoch", "best_validation_accuracy")}
            found = {"best_epoch": int(best["epoch"]), "best_validation_accuracy": best["validation_accuracy"]}
            require_same("config.json", said, "history.csv", found)
        elif best and best["validation_accuracy"] > result["best_validation_accuracy"]:
            raise RunError(f"epoch {best['epoch']:.0f} of history.csv is better than what config.json calls the best")
        metrics = self.run.read_metrics()
        judged_before = self.run.refitted and "test" not in metrics
        seconds = result["seconds"] if judged_before else self.run.train_seconds
        require_same("metrics.json", metrics["train_seconds"], "config.json", seconds)
        return f"{len(rows):,} epochs, as in config.json"

    def bundle(self) -> str:
        """Its files have their hashes, its golden pictures their answers."""
        Bundle.open(self.run.bundle)
        OnnxRuntimeEngine.open(self.run.bundle).close()
        return "answers as when it was exported"

    def told_by_bundle(self) -> str:
        """bundle.json tells what follows from the run; config.json, history.csv and network.txt are as at export."""
        if "run_sha256" not in self._info.provenance:
            again = f"`darkroom export {self.run.folder}` makes it anew"
            raise RunError(f"bundle.json keeps no hashes of the run, as none did that was made before: {again}")
        said, expected = asdict(self._info), asdict(describe(self.run))
        told = {name: value for name, value in said.items() if name not in PROVED}
        require_same("bundle.json", told, "the run", {name: expected[name] for name in told})
        return f"what the run's files do; weights {self._info.provenance['weights_sha256'][:12]}…"

    def card(self) -> str:
        """The model card is the one that an export writes now; test may have been opened again since."""
        config, metrics = self.run.read_config(), self.run.read_metrics()
        card = (self.run.bundle / CARD_FILE).read_text(encoding="utf-8")
        least = int("test" in self._info.metrics)
        for openings in range(metrics["test_openings"], least - 1, -1):
            if card == model_card(config, metrics | {"test_openings": openings}, self._info):
                return "follows from the run"
        raise RunError(
            f"bundle/{CARD_FILE} is not what follows from the run: it was changed, the run was, or another version of "
            f"darkroom wrote it; `darkroom export {self.run.folder}` makes it anew"
        )

    def int8_bundle(self) -> str:
        """Its files have their hashes, its golden pictures their answers, and it was made of this run's weights."""
        with OnnxRuntimeEngine.open(self.run.int8_bundle) as engine:
            weights = engine.bundle.provenance["weights_sha256"]
        require_same("bundle-int8", weights, "the run", files.sha256_of(self.run.weights))
        return "answers as when it was exported"

    def samples(self) -> str:
        """The pictures in samples/ are those of the test split that their names give."""
        paths = sorted(self.run.samples.iterdir()) if self.run.samples.is_dir() else []
        for path in paths:
            number = path.stem.rpartition("-")[2]
            row = self._manifest.rows[int(number)] if number.isdecimal() else None
            if row is None or row.split != "test" or files.sha256_of(path) != row.sha256:
                raise RunError(f"samples/{path.name} is not the test picture that its name gives")
        return f"{len(paths)} of the test pictures"

    def _sampled(self, split: str) -> npt.NDArray[np.int64]:
        """Places of the pictures of a split that are looked at again: all, or evenly spread ones."""
        count = len(self._manifest.indices(split))
        most = count if self.sample is None else min(self.sample, count)
        return np.linspace(0, count - 1, most).round().astype(np.int64)

    def pictures(self, split: str) -> str:
        """The files of the pictures are those that the manifest names."""
        ids = self._manifest.indices(split)[self._sampled(split)]
        for id in track(ids, total=len(ids), what=f"Reading {split}"):
            self._manifest.content(int(id))
        return self._of(split, len(ids), "have the hash that the manifest gives them")

    def measured(self) -> str:
        """All files speak of the same splits; of validation alone, unless test was opened."""
        metrics = self.run.read_metrics()
        told = [split for split in JUDGED if split in metrics]
        require_same("predictions.npz", self._predicted(), "metrics.json", told)
        require_same("bundle.json", sorted(self._info.metrics), "metrics.json", sorted(self.run.judges()))
        if "test" in told and not metrics["test_openings"] >= 1:
            raise RunError("metrics.json holds results of test, and says that it was never opened")
        return f"{' and '.join(told)}; openings of test: {metrics['test_openings']}"

    def labels(self, split: str) -> str:
        """Stored predictions are of the pictures of the split, with their labels."""
        stored, ids = self.run.read_predictions(split), self._manifest.indices(split)
        if not np.array_equal(stored.ids, ids) or not np.array_equal(stored.labels, self._manifest.labels()[ids]):
            raise RunError("predictions.npz has other pictures or labels than the manifest")
        return f"those of the manifest, {len(ids):,} of them"

    def predictions(self, split: str) -> str:
        """The bundle gives the stored answers to the pictures."""
        if split == "validation" and self.run.refitted:
            return "not asked again: they are of the network before the refit, which is kept nowhere"
        stored, places = self.run.read_predictions(split), self._sampled(split)
        worst = 0.0
        with OnnxRuntimeEngine.open(self.run.bundle) as engine:
            temperature = engine.bundle.temperature
            parts = np.array_split(places, max(1, -(-len(places) // AT_ONCE)))
            for part in track(parts, total=len(parts), what=f"Answering {split} again", unit="parts"):
                contents = (self._manifest.content(int(stored.ids[place])) for place in part)
                pixels = np.stack([load(content, engine.bundle.preprocessing) for content in contents])
                expected = probabilities(stored.logits[part], temperature)
                worst = max(worst, float(np.abs(engine.predict(pixels) - expected).max()))
        if worst > STORED_TOLERANCE:
            raise RunError(f"the bundle answers otherwise, by up to {worst:.2g} in probability")
        return self._of(split, len(places), f"get the stored answers again, within {worst:.1e}")

    def metrics(self, split: str) -> str:
        """metrics.json follows from the predictions."""
        metrics, stored = self.run.read_metrics(), self.run.read_predictions(split)
        classes = self.run.read_config()["data"]["classes"]
        answers = probabilities(stored.logits, metrics["temperature"])
        require_same("metrics.json", metrics[split], "the predictions", measure(stored.labels, answers, classes))
        return "every one follows from the predictions"

    def calibration(self) -> str:
        """Temperature and threshold follow from the predictions of validation, after a refit from those before it."""
        metrics, stored = self.run.read_metrics(), self.run.read_predictions("validation")
        expected = calibrate(stored.logits, stored.labels)
        require_same("metrics.json", {name: metrics[name] for name in expected}, "the predictions", expected)
        return "follow from validation" + (", as it was before the refit" if self.run.refitted else "")

    def _of(self, split: str, seen: int, what: str) -> str:
        count = len(self._manifest.indices(split))
        return f"{seen:,} of {count:,} {what}" if seen < count else f"all {count:,} {what}"
