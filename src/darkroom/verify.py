"""`darkroom verify`: everything that a run claims, computed again from what lies beneath it.

    pictures -> manifest -> config.json
    weights, graph -> bundle.json
    pictures + graph -> predictions -> temperature, threshold, metrics -> bundle.json
    all of these -> insights.json -> report.json -> report.pdf, slides.pptx

Nothing is repaired or written. A check that cannot be made, because a file is missing or damaged, fails.
"""

import json
import math
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from darkroom import files
from darkroom.bundle import Bundle
from darkroom.comparison.folder import Comparison
from darkroom.config import DataConfig
from darkroom.data.dataset import located
from darkroom.data.manifest import Manifest
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.errors import DarkroomError, ReportError, RunError
from darkroom.evaluation.calibration import fit_temperature, not_sure_threshold, probabilities
from darkroom.evaluation.metrics import headline, measure
from darkroom.preprocess import load
from darkroom.progress import track
from darkroom.report.facts import Facts, shown_as
from darkroom.report.insights import insights_of
from darkroom.report.source import contents_of, read_json
from darkroom.runs import Run

STORED_TOLERANCE = 1e-2
"""Largest difference in probability between stored predictions and the bundle's answers, as at export."""

EXACT = 1e-6
"""Relative difference from which recomputed numbers are other ones; processors may differ in the last digits."""

AT_ONCE = 256
TIMEOUT = 10.0
"""Seconds to wait for a server."""


@dataclass(frozen=True)
class Check:
    """What was checked, whether it holds, and what was found."""

    name: str
    passed: bool
    detail: str


def verify(path: Path, config: DataConfig, *, sample: int | None = None, server: str | None = None) -> Iterator[Check]:
    """All checks of a run, or of a comparison and the run that it chose, one after the other.

    `sample` bounds how many pictures of a split are read and answered again; `server` is the address of one that is
    said to serve this model.
    """
    compared, run, place = Comparison(path), Run(path), Run(path)
    if compared.content.is_file():
        yield _check("comparison", lambda: _comparison(compared))
        try:
            run = compared.chosen
        except RunError:  # told by the check above
            return
    yield from Verification(run, config, sample).checks()
    if any(file.is_file() for file in place.reported):
        yield _check("insights", lambda: _insights(place, run))
        yield _check("report", lambda: _report(place))
    if server is not None:
        yield _check("server", lambda: _server(server, run))


@dataclass(frozen=True)
class Verification:
    """A run that is verified."""

    run: Run
    config: DataConfig
    sample: int | None

    def checks(self) -> Iterator[Check]:
        """Those of the run folder, from the pictures up."""
        yield _check("manifest", self.manifest_and_pictures)
        yield _check("bundle", self.bundle)
        if self.run.int8_bundle.is_dir():
            yield _check("int8 bundle", self.int8_bundle)
        yield _check("train: pictures", lambda: self.pictures("train"))
        for split in self._splits():
            for name, what in (
                ("pictures", self.pictures),
                ("labels", self.labels),
                ("predictions", self.predictions),
                ("metrics", self.metrics),
                ("what the bundle says", self.told_by_bundle),
            ):
                yield _check(f"{split}: {name}", lambda what=what, split=split: what(split))  # type: ignore[misc]
        yield _check("temperature and threshold", self.calibration)

    def _splits(self) -> list[str]:
        """The splits that were evaluated; none, where that cannot be told, which other checks will find."""
        try:
            return self.run.judges()
        except (DarkroomError, LookupError, TypeError):
            return ["validation"]

    @cached_property
    def _manifest(self) -> Manifest:
        return located(self.run, self.config)

    def manifest_and_pictures(self) -> str:
        """The manifest is the one of config.json, and its pictures are there."""
        return f"{len(self._manifest.rows):,} pictures, as when the run began"

    def bundle(self) -> str:
        """Its files have their hashes, its golden pictures their answers, and it is of this run's weights and data."""
        bundle, content = Bundle.open(self.run.bundle), self.run.read_config()
        OnnxRuntimeEngine.open(self.run.bundle).close()
        of_bundle = {
            "classes": list(bundle.info.classes),
            "preprocessing": bundle.info.preprocessing.to_json(),
            "fingerprint": bundle.info.provenance["fingerprint"],
            "weights": bundle.info.provenance["weights_sha256"],
        }
        data = content["data"]
        of_run = {name: data[name] for name in ("classes", "preprocessing", "fingerprint")}
        _require_same("bundle.json", of_bundle, "the run", of_run | {"weights": files.sha256_of(self.run.weights)})
        return f"answers as when it was exported; weights {of_bundle['weights'][:12]}…"

    def int8_bundle(self) -> str:
        """Its files have their hashes, its golden pictures their answers, and it was made of this run's weights."""
        with OnnxRuntimeEngine.open(self.run.int8_bundle) as engine:
            weights = engine.bundle.provenance["weights_sha256"]
        _require_same("bundle-int8", weights, "the run", files.sha256_of(self.run.weights))
        return "answers as when it was exported"

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

    def labels(self, split: str) -> str:
        """Stored predictions are of the pictures of the split, with their labels."""
        stored, ids = self.run.read_predictions(split), self._manifest.indices(split)
        if not np.array_equal(stored.ids, ids) or not np.array_equal(stored.labels, self._manifest.labels()[ids]):
            raise RunError("predictions.npz has other pictures or labels than the manifest")
        return f"those of the manifest, {len(ids):,} of them"

    def predictions(self, split: str) -> str:
        """The bundle gives the stored answers to the pictures."""
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
        _require_same("metrics.json", metrics[split], "the predictions", measure(stored.labels, answers, classes))
        return "every one follows from the predictions"

    def told_by_bundle(self, split: str) -> str:
        """bundle.json tells what metrics.json does."""
        info, metrics = Bundle.open(self.run.bundle).info, self.run.read_metrics()
        told = {name: getattr(info, name) for name in ("temperature", "threshold")}
        _require_same("bundle.json", told, "metrics.json", {name: metrics[name] for name in told})
        _require_same("bundle.json", info.metrics[split], "metrics.json", headline(metrics[split]))
        return "what metrics.json says"

    def calibration(self) -> str:
        """Temperature and threshold follow from the predictions of validation, unless a refit has learned these."""
        if self.run.refitted:
            return "those of the network before the refit, whose predictions stay as they are"
        metrics, stored = self.run.read_metrics(), self.run.read_predictions("validation")
        temperature = fit_temperature(stored.logits, stored.labels)
        threshold = asdict(not_sure_threshold(stored.labels, probabilities(stored.logits, temperature)))
        expected = {"temperature": temperature, "threshold": threshold["value"]}
        said = {name: metrics[name] for name in expected}
        _require_same("metrics.json", said, "the predictions", expected)
        return "follow from validation"

    def _of(self, split: str, seen: int, what: str) -> str:
        count = len(self._manifest.indices(split))
        return f"{seen:,} of {count:,} {what}" if seen < count else f"all {count:,} {what}"


def _comparison(compared: Comparison) -> str:
    """comparison.json says of each candidate what its run does."""
    rows = compared.read()["candidates"]
    for row in rows:
        run = compared.run(row["name"])
        metrics = run.read_metrics()
        for split in ("validation", "test"):
            if split in row:
                said = {name: row[split][name] for name in row[split]}
                _require_same(
                    f"{row['name']} in comparison.json", said, "its run", {n: metrics[split][n] for n in said}
                )
    return f"{len(rows)} candidates, as in their runs"


def _insights(place: Run, run: Run) -> str:
    """insights.json follows from the files of the run."""
    _require_same("insights.json", read_json(place.insights), "the run", insights_of(run))
    return "follow from the other files"


def _report(place: Run) -> str:
    """report.json tells what the files say, and PDF and slides are those that were made with it."""
    told = read_json(place.told)
    for path, name in ((place.report, "report_sha256"), (place.slides, "slides_sha256")):
        if files.sha256_of(path) != told[name]:
            raise ReportError(f"{path.name} is not the one that report.json speaks of")
    read = {name: place.folder / where for name, where in told["files"].items()} | {"insights": place.insights}
    facts = Facts(contents_of(read))
    entries = [*told["report"], *told["slides"]]
    for entry in entries:
        value = facts.value(entry["path"])
        if shown_as(value, entry["style"]) != entry["shown"] or _difference(value, entry["value"]):
            raise ReportError(f"{entry['path']} is shown as {entry['shown']}, but the files say {value!r:.60}")
    return f"{len(entries):,} numbers and texts, as in the files"


def _server(address: str, run: Run) -> str:
    """A server speaks of the bundle's weights."""
    url = f"{address.rstrip('/')}/api/v1/model"
    if not url.startswith(("http://", "https://")):
        raise ReportError(f"--server is {address}: give an address such as http://127.0.0.1:8000")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310  # the scheme is checked above
            said = json.load(answer)["weights_sha256"]
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{url} does not answer as darkroom does ({error})") from error
    if said != Bundle.open(run.bundle).info.provenance["weights_sha256"]:
        raise ReportError(f"{address} serves a model of other weights ({said!r:.14}…)")
    return "serves a model of these weights"


def _check(name: str, holds: Callable[[], str]) -> Check:
    try:
        return Check(name, True, holds())
    except DarkroomError as error:
        return Check(name, False, str(error))
    except Exception as error:  # a file whose content was changed may have any form
        return Check(name, False, f"cannot be checked: {type(error).__name__} {error}")


def _require_same(left: str, said: Any, right: str, expected: Any) -> None:
    where = _difference(said, expected)
    if where:
        raise RunError(f"{left} and {right} differ in {where}")


def _difference(said: Any, expected: Any, where: str = "") -> str | None:
    """Where two contents of JSON files differ first, as a path; None where they are the same."""
    if isinstance(expected, Mapping) and isinstance(said, Mapping):
        if said.keys() != expected.keys():
            return f"{where} (the names in it)"
        pairs: Iterator[tuple[Any, Any, Any]] = ((name, said[name], expected[name]) for name in expected)
    elif _is_list(expected) and _is_list(said):
        if len(said) != len(expected):
            return f"{where} (its length)"
        pairs = ((place, *both) for place, both in enumerate(zip(said, expected, strict=True)))
    else:
        return None if _same(said, expected) else where or "their value"
    return next((found for name, a, b in pairs if (found := _difference(a, b, f"{where}.{name}".lstrip(".")))), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _same(said: Any, expected: Any) -> bool:
    if isinstance(said, float) and isinstance(expected, float):
        return math.isclose(said, expected, rel_tol=EXACT, abs_tol=EXACT) or (math.isnan(said) and math.isnan(expected))
    return bool(said == expected)
