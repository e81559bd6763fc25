"""Cross-origin requests: refused by browsers unless the operator has named the origin."""

from flask import Flask, Response, request

from darkroom.web.gate import HEADER as KEY_HEADER
from darkroom.web.tracing import HEADER as ID_HEADER

PREFIXES = ("/api/", "/v1/")
"""Only programs' interfaces; no page of another site may use the page."""

HEADERS = {
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": f"Authorization, Content-Type, {KEY_HEADER}, {ID_HEADER}",
    "Access-Control-Expose-Headers": f"{ID_HEADER}, Retry-After",
    "Access-Control-Max-Age": "600",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


def register(app: Flask, allowed: frozenset[str]) -> None:
    """Let pages of the origins `allowed`, none of them being the default, call the interface for programs."""
    if not allowed:
        return

    def add(response: Response) -> Response:
        if request.path.startswith(PREFIXES):
            response.vary.add("Origin")
            origin = request.headers.get("Origin")
            if origin in allowed:
                response.headers["Access-Control-Allow-Origin"] = origin
                response.headers.update(HEADERS)
        return response

    app.after_request(add)
