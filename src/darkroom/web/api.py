"""The interface for programs: predictions, the model's papers, and what whoever watches the server asks."""

from typing import Any

import numpy as np
from flask import Blueprint, Response, request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from darkroom.bundle import BundleInfo
from darkroom.engines.prediction import Answer, Failure
from darkroom.errors import UsageError
from darkroom.web.endpoints import JSON, Endpoint, Parameter, add_to, open_names
from darkroom.web.problems import problem, respond
from darkroom.web.readiness import readiness
from darkroom.web.schemas import BINARY, reference, text
from darkroom.web.service import service
from darkroom.web.uploads import read_uploads

blueprint = Blueprint("api", __name__)


def predict() -> dict[str, Any]:
    """An answer or a problem for each picture in the request, in order."""
    shared = service()
    answers = shared.answer(read_uploads(request, shared.limits), top=_top())
    return {"predictions": [answer_to_json(answer) for answer in answers], "model": _short(shared.engine.bundle)}


def explain() -> dict[str, Any] | Response:
    """Where in one picture a class is seen."""
    shared = service()
    uploads = read_uploads(request, shared.limits)
    if len(uploads) > 1:
        raise RequestEntityTooLarge(f"There are {len(uploads)} pictures in the request: send one at a time.")
    try:
        found = shared.explain(uploads[0], label=request.args.get("label"))
    except UsageError as error:
        raise BadRequest(f"{error}.") from error
    if isinstance(found, Failure):
        return respond(422, found.error)
    weights = np.round(found.weights.astype(float), 4).tolist()
    box = [round(edge, 6) for edge in found.box]
    return {"name": found.name, "label": found.label, "weights": weights, "box": box}


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
        "novelty": dict(info.novelty),
        "provenance": dict(info.provenance),
    }


def health() -> dict[str, str]:
    """Whether the process lives."""
    return {"status": "alive"}


def ready() -> dict[str, str]:
    """Whether the engine answers a black picture within 2 s, or has just done so; 503 when it does not."""
    readiness().check()
    return {"status": "ready"}


def metrics() -> Response:
    """Numbers for Prometheus: requests, waiting, errors, predicted classes, confidence."""
    content, media_type = service().metrics.exposition(request.headers.get("Accept", ""))
    return Response(content, content_type=media_type)


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """One entry of `predictions`."""
    if isinstance(answer, Failure):
        return {"name": answer.name, "error": problem(422, answer.error)}
    ranked = [{"label": label, "probability": round(value, 6)} for label, value in answer.probabilities]
    content = {
        "name": answer.name,
        "label": answer.label,
        "confidence": round(answer.confidence, 6),
        "sure": answer.sure,
        "probabilities": ranked,
    }
    if answer.novelty is not None:
        content["novelty"] = {"score": round(answer.novelty.score, 4), "unlike": answer.novelty.unlike}
    return content


def _short(info: BundleInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "threshold": info.threshold,
        "weights_sha256": info.provenance.get("weights_sha256"),
        "bundle_sha256": info.sha256,
    }


def _top() -> int | None:
    value = request.args.get("top")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and int(value[:9]) >= 1):
        raise BadRequest("top must be a whole number from 1: it says how many classes each answer lists.")
    return int(value[:9])


FILE = {"image/*": BINARY, "application/octet-stream": BINARY}
UPLOADS = {"multipart/form-data": reference("UploadForm"), JSON: reference("Uploads"), **FILE}
ONE_UPLOAD = {"multipart/form-data": reference("OneUploadForm"), JSON: reference("OneUpload"), **FILE}
TOP = Parameter("top", "How many classes each answer lists; all when not given.", {"type": "integer", "minimum": 1})
LABEL = Parameter("label", "The class to explain; the best one when not given.", text())

ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/api/v1/predict",
        view=predict,
        tag="Pictures",
        bodies=UPLOADS,
        parameters=(TOP,),
        answers={JSON: reference("Predictions")},
        errors=(400, 413, 415),
    ),
    Endpoint(
        method="POST",
        path="/api/v1/explain",
        view=explain,
        tag="Pictures",
        bodies=ONE_UPLOAD,
        parameters=(LABEL,),
        answers={JSON: reference("Explanation")},
        errors=(400, 413, 415, 422),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/model",
        view=model,
        tag="Model",
        answers={JSON: reference("Model")},
        is_open=True,
    ),
    Endpoint(
        method="GET",
        path="/healthz",
        view=health,
        tag="Watching",
        answers={JSON: reference("Status")},
        is_open=True,
    ),
    Endpoint(
        method="GET",
        path="/readyz",
        view=ready,
        tag="Watching",
        answers={JSON: reference("Status")},
        is_open=True,
    ),
    Endpoint(
        method="GET",
        path="/metrics",
        view=metrics,
        tag="Watching",
        answers={
            "text/plain": text("The text format of Prometheus."),
            "application/openmetrics-text": text("OpenMetrics, where it is asked for."),
        },
    ),
)

OPEN = open_names(blueprint, ENDPOINTS)

add_to(blueprint, ENDPOINTS)
