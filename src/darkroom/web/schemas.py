"""The shapes of what the interface takes and gives, as JSON Schema 2020-12; tests hold real answers against them."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def reference(name: str) -> Schema:
    """A schema of `SCHEMAS`, by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def listing(items: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": items, **more}


def record(properties: Mapping[str, Schema], *, optional: tuple[str, ...] = (), extensible: bool = False) -> Schema:
    """An object of which all properties are there, but for the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": extensible}


def text(description: str = "", **more: Any) -> Schema:
    """A string."""
    return {"type": "string", **({"description": description} if description else {}), **more}


TABLE: Schema = {"type": "object"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
BINARY: Schema = {"type": "string", "format": "binary"}
BASE64: Schema = text(
    "A picture's file in base64 (RFC 4648).",
    contentEncoding="base64",
    pattern="^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
)

_UPLOAD = record({"name": text("The file's name."), "content": BASE64}, optional=("name",))


def _form(**bounds: int) -> Schema:
    """A form of pictures, which may have other fields, too."""
    pictures = listing(BINARY, minItems=1, **bounds)
    return {
        "type": "object",
        "properties": {"files": pictures, "file": {**pictures, "description": "Another name for files."}},
        "anyOf": [{"required": ["files"]}, {"required": ["file"]}],
    }


def _json(**bounds: int) -> Schema:
    """Pictures in JSON."""
    return record({"files": listing(reference("Upload"), minItems=1, **bounds)})


_RANKED = record({"label": text(), "probability": SHARE})
_NOVELTY = record(
    {
        "score": {"type": "number", "description": "Higher is more unlike the pictures of training."},
        "unlike": {"type": "boolean", "description": "Whether the score is above the model's threshold."},
    }
)
_PREDICTION = record(
    {
        "name": text("The file's name as it is shown."),
        "label": text("The best class."),
        "confidence": {**SHARE, "description": "Calibrated probability of the best class."},
        "sure": {"type": "boolean", "description": "Whether the confidence reaches the model's threshold."},
        "probabilities": listing(reference("RankedClass"), description="Best first; all of them, or the first `top`."),
        "novelty": {**_NOVELTY, "description": "Only from models that know a threshold for it."},
    },
    optional=("novelty",),
)
_PROBLEM = record(
    {
        "type": text(const="about:blank"),
        "title": text("The status in words."),
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": text("What was wrong, in a sentence."),
    }
)
_SHORT_MODEL = {
    "name": text(),
    "threshold": {**SHARE, "description": "Below this confidence an answer is not sure."},
    "weights_sha256": {"type": ["string", "null"]},
    "bundle_sha256": text("Of all files of the bundle that answers."),
}
_MODEL = record(
    {
        **_SHORT_MODEL,
        "classes": listing(text(), minItems=1),
        "temperature": {"type": "number", "exclusiveMinimum": 0},
        "preprocessing": TABLE,
        "limits": {**TABLE, "additionalProperties": COUNT},
        **dict.fromkeys(("facts", "metrics", "parity", "quantisation", "novelty", "provenance"), TABLE),
    }
)
_EXPLANATION = record(
    {
        "name": text("The file's name as it is shown."),
        "label": text("The class that is explained."),
        "weights": listing(
            listing(SHARE), description="Rows of how much each part of what the network saw speaks for the class."
        ),
        "box": listing(
            {"type": "number"},
            description="Left, top, right and bottom of what the network saw, in fractions of the upright picture's "
            "sides; bars that were added to fill the shape lie below 0 and above 1.",
            minItems=4,
            maxItems=4,
        ),
    }
)

# ---- TensorFlow Serving's ----

_BYTES = record({"b64": BASE64})
_PIXELS = listing(listing(listing({"type": "integer", "minimum": 0, "maximum": 255})))
_ROW = {"anyOf": [_PIXELS, _BYTES, record({"pixels": _PIXELS}), record({"pictures": _BYTES})]}
_ROWS = listing(_ROW, minItems=1)
_COLUMN = {"anyOf": [_ROWS, record({"pixels": _ROWS}), record({"pictures": _ROWS})]}
_TENSORFLOW_REQUEST = {
    "type": "object",
    "properties": {
        "signature_name": text(
            "serving_default for pixels, encoded for files; by the form of the rows if not given.",
            enum=["", "serving_default", "encoded"],
        ),
        "instances": {**_ROWS, "description": "A row a picture."},
        "inputs": {**_COLUMN, "description": "The same by columns: a list of rows, or an object of one such list."},
    },
    "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    "additionalProperties": False,
}
_NUMBERS = listing({"type": "number"})
_TENSORFLOW_ROW = record({"logits": _NUMBERS, "probabilities": listing(SHARE)})
_TENSORFLOW_ANSWER = {
    "oneOf": [
        record({"predictions": listing(_TENSORFLOW_ROW)}),
        record({"outputs": record({"logits": listing(_NUMBERS), "probabilities": listing(listing(SHARE))})}),
    ]
}
_VERSION = record(
    {
        "version": text("A number, as text."),
        "state": text(enum=["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]),
        "status": record({"error_code": text(), "error_message": text()}),
    }
)

SCHEMAS: Mapping[str, Schema] = {
    "Problem": {**_PROBLEM, "description": "What is said of every error (RFC 9457)."},
    "Upload": _UPLOAD,
    "UploadForm": _form(),
    "Uploads": _json(),
    "OneUploadForm": _form(maxItems=1),
    "OneUpload": _json(maxItems=1),
    "RankedClass": _RANKED,
    "Prediction": _PREDICTION,
    "PictureError": record({"name": text(), "error": reference("Problem")}),
    "Predictions": record(
        {
            "predictions": listing({"anyOf": [reference("Prediction"), reference("PictureError")]}),
            "model": record(_SHORT_MODEL),
        }
    ),
    "Explanation": _EXPLANATION,
    "Model": _MODEL,
    "Status": record({"status": text()}),
    "TensorFlowRequest": _TENSORFLOW_REQUEST,
    "TensorFlowAnswer": _TENSORFLOW_ANSWER,
    "TensorFlowStatus": record({"model_version_status": listing(_VERSION)}),
    "TensorFlowMetadata": record(
        {
            "model_spec": record({"name": text(), "signature_name": text(), "version": text()}),
            "metadata": record({"signature_def": TABLE}),
        }
    ),
    "TensorFlowError": record({"error": text("What was wrong.")}),
}
