"""The interface for programs, described: as an OpenAPI document, and as a page of our own."""

import json
from typing import Any

from flask import Blueprint, render_template

from darkroom.web import api, openapi, tensorflow_dialect
from darkroom.web.endpoints import JSON, Endpoint, add_to, open_names
from darkroom.web.gate import gate
from darkroom.web.schemas import SCHEMAS, text
from darkroom.web.service import service

blueprint = Blueprint("docs", __name__)


def document() -> dict[str, Any]:
    """This interface as an OpenAPI 3.1 document."""
    info = service().engine.bundle
    choices = {"name": [info.name], "label": info.classes}
    return openapi.document(_here(), title=f"darkroom: {info.name}", choices=choices, asks=_asks())


def show() -> str:
    """This interface as a page for people."""
    asks = _asks()
    rows = [
        {
            "row": endpoint,
            "address": openapi.address_of(endpoint),
            "summary": openapi.summary_of(endpoint),
            "statuses": openapi.statuses_of(endpoint, asks),
        }
        for endpoint in _here()
    ]
    shapes = {name: json.dumps(schema, indent=2) for name, schema in SCHEMAS.items()}
    info, limits = service().engine.bundle, service().limits
    return render_template("docs.html", info=info, endpoints=rows, shapes=shapes, limits=limits, keys=asks.keys)


def _here() -> list[Endpoint]:
    """What is answered at this port."""
    return [endpoint for endpoint in ALL if not (gate().metrics_apart and endpoint.view is api.metrics)]


def _asks() -> openapi.Asks:
    ours = gate()
    return openapi.Asks(keys=ours.keys is not None, paced=ours.pace is not None, named=bool(ours.hosts))


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/api/v1/openapi.json",
        view=document,
        tag="This description",
        answers={JSON: {"type": "object"}},
        is_open=True,
    ),
    Endpoint(
        method="GET",
        path="/api/v1/",
        view=show,
        tag="This description",
        answers={"text/html": text()},
        is_open=True,
    ),
)

ALL = (*api.ENDPOINTS, *tensorflow_dialect.ENDPOINTS, *ENDPOINTS)

OPEN = open_names(blueprint, ENDPOINTS)

add_to(blueprint, ENDPOINTS)
