"""The interface for programs as an OpenAPI 3.1 document, made of the rows from which the routes are made."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from darkroom import __version__
from darkroom.web.endpoints import JSON, Endpoint, Parameter
from darkroom.web.problems import MEDIA_TYPE, TENSORFLOW_PATHS
from darkroom.web.schemas import SCHEMAS, Schema, reference, text

ALWAYS = (500, 503)
BUSY = 429
STRANGER = 401
ELSEWHERE = 421

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key made with `darkroom key`."},
    "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}

HEADERS = {
    "RequestId": {
        "description": "The id that the request came with in this header, or a new one; the server's log has it too.",
        "schema": text(),
    },
    "RetryAfter": {"description": "Seconds after which to come back.", "schema": {"type": "integer", "minimum": 1}},
    "Authenticate": {"description": "How to send a key: as Bearer.", "schema": text()},
}

_COME_BACK = {"Retry-After": "RetryAfter"}
HEADERS_OF = {STRANGER: {"WWW-Authenticate": "Authenticate"}, BUSY: _COME_BACK, 503: _COME_BACK}
"""What a refusal carries beside its id."""


@dataclass(frozen=True, kw_only=True)
class Asks:
    """What a server asks for before it answers: keys, a pace, and one of its names."""

    keys: bool
    paced: bool
    named: bool


Choices = Mapping[str, Sequence[str]]
"""Names of parameters that this server takes certain values of only, and these."""


def document(endpoints: Iterable[Endpoint], *, title: str, asks: Asks, choices: Choices) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operations = paths.setdefault(address_of(endpoint), {})
        operations[endpoint.method.lower()] = _operation(endpoint, asks, choices)
    components: dict[str, Any] = {
        "schemas": SCHEMAS,
        "headers": HEADERS,
        **({"securitySchemes": SECURITY_SCHEMES} if asks.keys else {}),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": __version__,
            "description": "Pictures in, classes out. Every error has one shape; every answer an X-Request-Id.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": components,
    }


def address_of(endpoint: Endpoint) -> str:
    """The path as OpenAPI writes it."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", endpoint.path)


def summary_of(endpoint: Endpoint) -> str:
    """The first line of what the view says of itself."""
    return (inspect.getdoc(endpoint.view) or endpoint.name).splitlines()[0]


def statuses_of(endpoint: Endpoint, asks: Asks) -> list[int]:
    """With what an end point may refuse."""
    more = {STRANGER: asks.keys and not endpoint.is_open, BUSY: asks.paced, ELSEWHERE: asks.named}
    return sorted({*endpoint.errors, *ALWAYS, *(status for status, applies in more.items() if applies)})


def _operation(endpoint: Endpoint, asks: Asks, choices: Choices) -> dict[str, Any]:
    errors = {str(status): _refusal(endpoint, status) for status in statuses_of(endpoint, asks)}
    operation: dict[str, Any] = {
        "operationId": _name(endpoint),
        "summary": summary_of(endpoint),
        "tags": [endpoint.tag],
        "responses": {"200": _response("A good answer.", endpoint.answers)} | errors,
    }
    if endpoint.parameters:
        operation["parameters"] = [_parameter(parameter, choices) for parameter in endpoint.parameters]
    if endpoint.bodies:
        operation["requestBody"] = {"required": True, "content": _content(endpoint.bodies)}
    if asks.keys:
        operation["security"] = [] if endpoint.is_open else [{name: []} for name in SECURITY_SCHEMES]
    return operation


def _name(endpoint: Endpoint) -> str:
    """Unique, though several paths may lead to one view."""
    variables = re.findall(r"<(?:\w+:)?(\w+)>", endpoint.path)
    return "_by_".join(filter(None, (endpoint.name, "_and_".join(variables))))


def _parameter(parameter: Parameter, choices: Choices) -> dict[str, Any]:
    known = {"enum": list(choices[parameter.name])} if parameter.name in choices else {}
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.description,
        "schema": {**parameter.schema, **known},
    }


def _refusal(endpoint: Endpoint, status: int) -> dict[str, Any]:
    foreign = endpoint.path.startswith(TENSORFLOW_PATHS)
    shapes = {JSON: reference("TensorFlowError")} if foreign else {MEDIA_TYPE: reference("Problem")}
    return _response(HTTPStatus(status).phrase, shapes, HEADERS_OF.get(status, {}))


def _response(description: str, shapes: Mapping[str, Schema], more: Mapping[str, str] | None = None) -> dict[str, Any]:
    carried = {"X-Request-Id": "RequestId", **(more or {})}
    headers = {name: {"$ref": f"#/components/headers/{kept}"} for name, kept in carried.items()}
    return {"description": description, "headers": headers, "content": _content(shapes)}


def _content(shapes: Mapping[str, Schema]) -> dict[str, Any]:
    return {media_type: {"schema": schema} for media_type, schema in shapes.items()}
