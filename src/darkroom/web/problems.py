"""One shape for every error: RFC 9457 problem details, which name no file, line or library of this program."""

from http import HTTPStatus
from typing import Any

from flask import Flask, Response, current_app, json, request
from werkzeug.exceptions import HTTPException

from darkroom.errors import EngineError
from darkroom.web.service import service
from darkroom.web.tracing import request_id

MEDIA_TYPE = "application/problem+json"

KEPT_HEADERS = frozenset({"allow", "retry-after", "www-authenticate"})

COME_BACK_SECONDS = 1
"""What Retry-After says to those who are refused because of others, or of the engine."""

TENSORFLOW_PATHS = "/v1/"
"""Below it, errors have the shape of TensorFlow Serving's, `{"error": …}`, since its clients read them there."""


def problem(status: int, detail: str) -> dict[str, Any]:
    """The members of a problem; `about:blank` says that the status tells its kind."""
    return {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}


def respond(status: int, detail: str) -> Response:
    """A response to the current request that carries a problem."""
    return refusal(request.path, status, detail)


def refusal(path: str, status: int, detail: str) -> Response:
    """A response that carries a problem, in the shape that clients of `path` expect."""
    if path.startswith(TENSORFLOW_PATHS):
        return Response(json.dumps({"error": detail}), status, content_type="application/json")
    return Response(json.dumps(problem(status, detail)), status, content_type=MEDIA_TYPE)


def register(app: Flask) -> None:
    """Answer every error of `app` with a problem."""
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(EngineError, _on_engine_error)
    app.register_error_handler(Exception, _on_bug)


def detail_of(error: HTTPException) -> str:
    """What an HTTP error has to say to people."""
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and error.description == type(error).description:
        return f"The request is too large: {service().limits.in_words()}."
    return error.description or ""


def engine_trouble(error: EngineError) -> str:
    """Log what the engine said, which may name files of this machine, and give what strangers may read."""
    current_app.logger.error("request %s: the engine cannot answer: %s", request_id(), error)
    return "The model cannot answer at the moment; the server's log says why."


def _on_http_error(error: HTTPException) -> Response:
    response = respond(error.code or 500, detail_of(error))
    kept = {name: value for name, value in error.get_headers() if name.lower() in KEPT_HEADERS}
    response.headers.update(kept)
    return response


def _on_engine_error(error: EngineError) -> Response:
    response = respond(503, engine_trouble(error))
    response.headers["Retry-After"] = str(COME_BACK_SECONDS)
    return response


def _on_bug(error: Exception) -> Response:
    current_app.logger.exception("request %s: unexpected error", request_id(), exc_info=error)
    return respond(500, "The server made a mistake, which its log describes. The request may be tried again.")
