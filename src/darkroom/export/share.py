"""A run's bundle made fit to be given away: without pictures of the data, and with a licence."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from darkroom import files
from darkroom.bundle import MODEL_FILE, Bundle, BundleInfo, Golden, write_bundle
from darkroom.engines.base import Engine
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.errors import BundleError, RunError, UsageError
from darkroom.export.card import model_card
from darkroom.export.drawn import drawn_pictures
from darkroom.preprocess import load
from darkroom.runs import Run


def share_bundle(bundle: Path, folder: Path, *, licence: str | None = None) -> Bundle:
    """Write into `folder` the `bundle` of a run, with golden pictures that are drawn; the data is not needed.

    Raises:
        BundleError: the run was trained or evaluated again after the bundle was made.
        RunError: the bundle does not lie in a run.
        UsageError: `licence` is no identifier.
    """
    if licence is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", licence):
        raise UsageError(f"--licence is {licence!r}: give an identifier such as mit, apache-2.0 or cc-by-4.0")
    run = Run(bundle.parent)
    if not run.config.is_file():
        raise RunError(f"{bundle} lies in no run, of which the model card tells: name the run folder")
    config, metrics = run.read_config(), run.read_metrics()
    with OnnxRuntimeEngine.open(bundle) as engine:
        _require_current(run, engine.bundle)
        golden = _drawn_golden(engine)
        provenance = {**engine.bundle.provenance, "golden": "drawn", "licence": licence and licence.lower()}
        info = replace(engine.bundle, provenance=provenance)
    shared = write_bundle(
        folder, info=info, onnx=bundle / MODEL_FILE, golden=golden, card=model_card(config, metrics, info)
    )
    OnnxRuntimeEngine.open(folder).close()
    return shared


def _require_current(run: Run, info: BundleInfo) -> None:
    """The card describes the run as it is, so the bundle must be of these weights and these evaluations."""
    measured = set(run.judges())
    same_weights = run.weights.is_file() and info.provenance.get("weights_sha256") == files.sha256_of(run.weights)
    if not same_weights or measured != set(info.metrics):
        what = "evaluated" if same_weights else "trained"
        remedy = f"make it anew with `darkroom export {run.folder}`"
        raise BundleError(f"the run {run.folder} was {what} after its bundle was made: {remedy}")


def _drawn_golden(engine: Engine) -> Golden:
    """Drawn pictures and the engine's answers, which the export has proved to be the network's."""
    encoded = drawn_pictures(engine.bundle.preprocessing)
    pixels = np.stack([load(content, engine.bundle.preprocessing) for content in encoded])
    answers = engine.answer(pixels)
    return Golden(encoded, pixels, answers.logits, answers.probabilities)
