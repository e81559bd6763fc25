"""One shape for every error: RFC 9457 problem details, which name no file, line or library of this program.

Whoever opens a page in a browser gets the same words as a page.
"""

from http import HTTPStatus
from typing import Any

from flask import Flask, Response, current_app, json, render_template, request
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_accept_header

from darkroom.errors import EngineError
from darkroom.web.service import service
from darkroom.web.tracing import request_id

MEDIA_TYPE = "application/problem+json"

KEPT_HEADERS = frozenset({"allow", "retry-after", "www-authenticate"})

COME_BACK_SECONDS = 1
"""What Retry-After says to those who are refused because of others, or of the engine."""

TENSORFLOW_PATHS = "/v1/"
"""Below it, errors have the shape of TensorFlow Serving's, `{"error": …}`, since its clients read them there."""


PROGRAM_PATHS = ("/api/", TENSORFLOW_PATHS)
"""Below these, errors are for programs, whatever a request accepts."""


def problem(status: int, detail: str) -> dict[str, Any]:
    """The members of a problem; `about:blank` says that the status tells its kind."""
    return {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}


def respond(status: int, detail: str) -> Response:
    """A response to the current request that carries a problem."""
    if is_for_people(request.path, request.headers.get("Accept", "")):
        return _page(status, detail)
    return refusal(request.path, status, detail)


def respond_outside(app: Flask, status: int, detail: str, *, path: str, accept: str) -> Response:
    """As `respond`, for a request that never reached `app`."""
    if not is_for_people(path, accept):
        return refusal(path, status, detail)
    with app.test_request_context("/"):  # where the template finds the addresses of its links
        return _page(status, detail)


def is_for_people(path: str, accept: str) -> bool:
    """Whether a request would rather have a page than JSON, as browsers would, and no program's path is asked."""
    kinds = parse_accept_header(accept, MIMEAccept)
    return kinds.quality("text/html") > kinds.quality("application/json") and not path.startswith(PROGRAM_PATHS)


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


def _page(status: int, detail: str) -> Response:
    return Response(render_template("error.html", **problem(status, detail)), status)


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
