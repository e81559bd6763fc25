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
        response.headers.update(headers_for(request.path, request.headers.get("Origin"), allowed))
        return response

    app.after_request(add)


def headers_for(path: str, origin: str | None, allowed: frozenset[str]) -> dict[str, str]:
    """What an answer to a page of `origin` carries, so that the page may read it: refusals, too, which say why."""
    if origin is None or origin not in allowed or not path.startswith(PREFIXES):
        return {}
    return {"Access-Control-Allow-Origin": origin, **HEADERS}
