"""The interface for programs as an OpenAPI 3.1 document, made of the rows from which the routes are made."""

import inspect
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from darkroom import __version__
from darkroom.web.endpoints import JSON, Endpoint, Parameter
from darkroom.web.problems import MEDIA_TYPE, TENSORFLOW_PATHS
from darkroom.web.schemas import SCHEMAS, Schema, reference, text

ALWAYS = (500, 503)
BUSY = 429
STRANGER = 401

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key made with `darkroom key`."},
    "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}

REQUEST_ID = {
    "description": "The id that the request came with in this header, or a new one; the server's log has it too.",
    "schema": text(),
}


def document(endpoints: Iterable[Endpoint], *, title: str, keys: bool, paced: bool) -> dict[str, Any]:
    """The whole document; `keys` and `paced` say whether the server asks for keys and limits the pace."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operations = paths.setdefault(address_of(endpoint), {})
        operations[endpoint.method.lower()] = _operation(endpoint, keys=keys, paced=paced)
    components: dict[str, Any] = {
        "schemas": SCHEMAS,
        "headers": {"RequestId": REQUEST_ID},
        **({"securitySchemes": SECURITY_SCHEMES} if keys else {}),
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


def statuses_of(endpoint: Endpoint, *, keys: bool, paced: bool) -> list[int]:
    """With what an end point may refuse."""
    strangers = [STRANGER] if keys and not endpoint.is_open else []
    return sorted({*endpoint.errors, *ALWAYS, *strangers, *([BUSY] if paced else [])})


def _operation(endpoint: Endpoint, *, keys: bool, paced: bool) -> dict[str, Any]:
    errors = {str(status): _refusal(endpoint, status) for status in statuses_of(endpoint, keys=keys, paced=paced)}
    operation: dict[str, Any] = {
        "operationId": _name(endpoint),
        "summary": summary_of(endpoint),
        "tags": [endpoint.tag],
        "responses": {"200": _response("A good answer.", endpoint.answers)} | errors,
    }
    if endpoint.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in endpoint.parameters]
    if endpoint.bodies:
        operation["requestBody"] = {"required": True, "content": _content(endpoint.bodies)}
    if keys:
        operation["security"] = [] if endpoint.is_open else [{name: []} for name in SECURITY_SCHEMES]
    return operation


def _name(endpoint: Endpoint) -> str:
    """Unique, though several paths may lead to one view."""
    variables = re.findall(r"<(?:\w+:)?(\w+)>", endpoint.path)
    return "_by_".join(filter(None, (endpoint.name, "_and_".join(variables))))


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _refusal(endpoint: Endpoint, status: int) -> dict[str, Any]:
    foreign = endpoint.path.startswith(TENSORFLOW_PATHS)
    shapes = {JSON: reference("TensorFlowError")} if foreign else {MEDIA_TYPE: reference("Problem")}
    return _response(HTTPStatus(status).phrase, shapes)


def _response(description: str, shapes: Mapping[str, Schema]) -> dict[str, Any]:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    return {"description": description, "headers": headers, "content": _content(shapes)}


def _content(shapes: Mapping[str, Schema]) -> dict[str, Any]:
    return {media_type: {"schema": schema} for media_type, schema in shapes.items()}
