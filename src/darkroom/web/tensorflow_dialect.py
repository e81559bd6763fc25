"""TensorFlow Serving's REST interface, answered by our engine, so that clients can move between the two servers.

The model has the bundle's name and one version, 1. It has the two signatures of an exported SavedModel:
`serving_default` takes pixels as the network sees them, `encoded` takes picture files as {"b64": …}. As there, one bad
row fails the whole request, with {"error": …}.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from flask import Blueprint, g, request
from werkzeug.exceptions import BadRequest, NotFound, RequestEntityTooLarge

from darkroom.engines.base import Answers
from darkroom.engines.prediction import name_answers
from darkroom.errors import ImageError
from darkroom.web.endpoints import JSON, Endpoint, Parameter, add_to, open_names
from darkroom.web.schemas import reference, text
from darkroom.web.service import service
from darkroom.web.uploads import SPARE_VALUES, VALUES_A_PICTURE, Extent, decode_base64, read_json

VERSION = "1"
PIXELS, ENCODED = "serving_default", "encoded"
INPUTS = {PIXELS: "pixels", ENCODED: "pictures"}
"""The one input of each signature."""

MOST_ROWS = 1024

MOST_PIXELS = 2**20
"""In lists a pixel takes some 100 bytes of memory, whatever it takes on the wire."""

blueprint = Blueprint("tensorflow", __name__)


@dataclass(frozen=True)
class Asked:
    """A request understood: rows of pixels or of files, and whether the answer is to be in rows too."""

    signature: str
    rows: list[Any]
    by_rows: bool


def predict(name: str, version: str = VERSION) -> dict[str, Any]:
    """Logits and probabilities of each row."""
    _require(name, version)
    shared, asked = service(), _understood(read_json(request, _extent()))
    g.pictures = len(asked.rows)
    answers = shared.engine.answer(_encoded(asked.rows) if asked.signature == ENCODED else _pixels(asked.rows))
    shared.metrics.count_answers(name_answers(shared.engine.bundle, [""] * len(asked.rows), answers))
    columns = {name: values.tolist() for name, values in answers._asdict().items()}
    if not asked.by_rows:
        return {"outputs": columns}
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def status(name: str, version: str = VERSION) -> dict[str, Any]:
    """The versions of the model and their states."""
    _require(name, version)
    fine = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": VERSION, "state": "AVAILABLE", "status": fine}]}


def metadata(name: str, version: str = VERSION) -> dict[str, Any]:
    """The signatures of the model: names, types and shapes of what goes in and comes out."""
    _require(name, version)
    return {
        "model_spec": {"name": name, "signature_name": "", "version": VERSION},
        "metadata": {"signature_def": {"signature_def": _signatures()}},
    }


def _understood(content: Any) -> Asked:
    """What a body asks for; raises werkzeug's 400 or 413."""
    if not isinstance(content, dict) or ("instances" in content) == ("inputs" in content):
        raise BadRequest("The body must be an object with either instances (rows) or inputs (columns).")
    unknown = set(content) - {"instances", "inputs", "signature_name"}
    if unknown:
        raise BadRequest(f"The body has {min(unknown)[:40]!r}: signature_name, instances and inputs are known.")
    by_rows = "instances" in content
    rows = content["instances"] if by_rows else _unnamed(content["inputs"])
    if not isinstance(rows, list) or not rows:
        raise BadRequest(f"{'instances' if by_rows else 'inputs'} must be a list with a row for each picture.")
    rows = [_unnamed(row) for row in rows]
    signature = _signature(content.get("signature_name", ""), rows)
    most = service().limits.files if signature == ENCODED else _most_rows()
    if len(rows) > most:
        raise RequestEntityTooLarge(f"There are {len(rows)} rows: send at most {most} at a time.")
    return Asked(signature, rows, by_rows)


def _most_rows() -> int:
    """Rows of pixels in one request."""
    contract = service().engine.bundle.preprocessing
    return max(1, min(MOST_ROWS, MOST_PIXELS // (contract.height * contract.width)))


def _extent() -> Extent:
    """What so many rows need: a row's lists in lists, three numbers a pixel, and an object around each row."""
    contract = service().engine.bundle.preprocessing
    objects = VALUES_A_PICTURE * max(MOST_ROWS, service().limits.files) + SPARE_VALUES
    a_row = contract.height * (4 * contract.width + 1) + 1
    return Extent(objects, objects + _most_rows() * a_row)


def _unnamed(value: Any) -> Any:
    """The value of the one input where it is named, as in {"pixels": …}."""
    named = isinstance(value, dict) and len(value) == 1 and next(iter(value)) in INPUTS.values()
    return next(iter(value.values())) if named else value


def _signature(name: Any, rows: Sequence[Any]) -> str:
    if name == "":  # TensorFlow takes serving_default then; here the form of the rows says what is meant
        return ENCODED if isinstance(rows[0], dict) else PIXELS
    if name not in (PIXELS, ENCODED):
        raise BadRequest(f"signature_name is {str(name)[:40]!r}: {PIXELS} and {ENCODED} are known.")
    return str(name)


def _pixels(rows: Sequence[Any]) -> npt.NDArray[np.uint8]:
    """uint8 (N, H, W, 3) of nested lists; raises werkzeug's 400."""
    contract = service().engine.bundle.preprocessing
    expected = (contract.height, contract.width, 3)
    try:
        values = np.array(rows)
    except ValueError as error:  # rows of unequal length
        raise BadRequest(f"The rows are not all of shape {list(expected)}.") from error
    if values.shape[1:] != expected or values.dtype.kind not in "iu":
        raise BadRequest(f"The rows must be whole numbers of shape {list(expected)}.")
    if values.min() < 0 or values.max() > 255:
        raise BadRequest("The rows must be whole numbers from 0 to 255.")
    return values.astype(np.uint8)


def _encoded(rows: Sequence[Any]) -> npt.NDArray[np.uint8]:
    """uint8 (N, H, W, 3) of files in base64; raises werkzeug's 400."""
    shared = service()
    contents = [_content(row, place) for place, row in enumerate(rows)]
    decoded = shared.engine.read(contents, shared.bounds)
    for place, it in enumerate(decoded):
        if isinstance(it, ImageError):
            raise BadRequest(f"Row {place}: {it}.")
    return np.stack([it for it in decoded if not isinstance(it, ImageError)])


def _content(row: Any, place: int) -> bytes:
    if not isinstance(row, dict) or set(row) != {"b64"} or not isinstance(row["b64"], str):
        raise BadRequest(f'Row {place} must be {{"b64": "…"}}, a picture\'s file in base64.')
    content = decode_base64(row["b64"], f"Row {place}")
    if len(content) > service().limits.file_bytes:
        raise BadRequest(f"Row {place} is a picture of {len(content)} bytes: {service().limits.in_words()}.")
    return content


def _require(name: str, version: str) -> None:
    """Raise werkzeug's 404 unless the model and its version are ours."""
    if name != service().engine.bundle.name:
        raise NotFound(f"Servable not found for request: Latest({name[:80]})")
    if version != VERSION:
        raise NotFound(f"Servable not found for request: Specific({name}, {version[:20]})")


def _signatures() -> dict[str, Any]:
    info = service().engine.bundle
    height, width, classes = info.preprocessing.height, info.preprocessing.width, len(info.classes)
    outputs = {name: _tensor("DT_FLOAT", -1, classes) for name in Answers._fields}
    inputs = {PIXELS: _tensor("DT_UINT8", -1, height, width, 3), ENCODED: _tensor("DT_STRING", -1)}
    return {
        name: {
            "inputs": {INPUTS[name]: given},
            "outputs": outputs,
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }
        for name, given in inputs.items()
    }


def _tensor(kind: str, *sizes: int) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in sizes]
    return {"dtype": kind, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": ""}


NAME = Parameter("name", "The model's name.", text(), "path")
NUMBER = Parameter("version", "The version's number: there is one, 1.", text(enum=[VERSION]), "path")
MODEL = "/v1/models/<name>"


def _endpoints(path: str, *parameters: Parameter) -> tuple[Endpoint, ...]:
    """What can be asked of a model, and of a version of it."""
    return (
        Endpoint(
            method="POST",
            path=f"{path}:predict",
            view=predict,
            tag="TensorFlow Serving",
            bodies={JSON: reference("TensorFlowRequest")},
            answers={JSON: reference("TensorFlowAnswer")},
            parameters=parameters,
            errors=(400, 404, 413),
        ),
        Endpoint(
            method="GET",
            path=path,
            view=status,
            tag="TensorFlow Serving",
            answers={JSON: reference("TensorFlowStatus")},
            parameters=parameters,
            errors=(404,),
            is_open=True,
        ),
        Endpoint(
            method="GET",
            path=f"{path}/metadata",
            view=metadata,
            tag="TensorFlow Serving",
            answers={JSON: reference("TensorFlowMetadata")},
            parameters=parameters,
            errors=(404,),
            is_open=True,
        ),
    )


ENDPOINTS = (*_endpoints(MODEL, NAME), *_endpoints(f"{MODEL}/versions/<version>", NAME, NUMBER))

OPEN = open_names(blueprint, ENDPOINTS)

add_to(blueprint, ENDPOINTS)
