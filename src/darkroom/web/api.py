"""The interface for programs: predictions, the model's papers, and two questions for whoever watches the server."""

from typing import Any

import numpy as np
from flask import Blueprint, request
from werkzeug.exceptions import BadRequest

from darkroom.bundle import BundleInfo
from darkroom.engines.prediction import Failure, Prediction
from darkroom.web.problems import problem
from darkroom.web.service import service
from darkroom.web.uploads import read_uploads

blueprint = Blueprint("api", __name__)


@blueprint.post("/api/v1/predict")
def predict() -> dict[str, Any]:
    """An answer or a problem for each picture in the request, in order."""
    shared = service()
    answers = shared.answer(read_uploads(request, shared.limits), top=_top())
    return {"predictions": [answer_to_json(answer) for answer in answers], "model": _short(shared.engine.bundle)}


@blueprint.get("/api/v1/model")
def model() -> dict[str, Any]:
    """Everything that is known of the model."""
    shared = service()
    info = shared.engine.bundle
    return _short(info) | {
        "classes": list(info.classes),
        "temperature": info.temperature,
        "preprocessing": info.preprocessing.to_json() | {"steps": info.preprocessing.describe()},
        "limits": shared.limits.to_json(),
        "facts": dict(info.model),
        "metrics": dict(info.metrics),
        "parity": dict(info.parity),
        "quantisation": dict(info.quantisation),
        "provenance": dict(info.provenance),
    }


@blueprint.get("/healthz")
def health() -> dict[str, str]:
    """Whether the process lives."""
    return {"status": "alive"}


@blueprint.get("/readyz")
def ready() -> dict[str, str]:
    """Whether the engine answers, found out by asking it about a black picture; 503 when it does not."""
    engine = service().engine
    contract = engine.bundle.preprocessing
    engine.predict(np.zeros((1, contract.height, contract.width, 3), np.uint8))
    return {"status": "ready"}


def answer_to_json(answer: Prediction | Failure) -> dict[str, Any]:
    """One entry of `predictions`."""
    if isinstance(answer, Failure):
        return {"name": answer.name, "error": problem(422, answer.error)}
    ranked = [{"label": label, "probability": round(value, 6)} for label, value in answer.probabilities]
    return {
        "name": answer.name,
        "label": answer.label,
        "confidence": round(answer.confidence, 6),
        "sure": answer.sure,
        "probabilities": ranked,
    }


def _short(info: BundleInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "threshold": info.threshold,
        "weights_sha256": info.provenance.get("weights_sha256"),
    }


def _top() -> int | None:
    value = request.args.get("top")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and int(value[:9]) >= 1):
        raise BadRequest("top must be a whole number from 1: it says how many classes each answer lists.")
    return int(value[:9])
