"""One shape for every error: RFC 9457 problem details, which name no file, line or library of this program."""

from http import HTTPStatus
from typing import Any

from flask import Flask, Response, current_app, json
from werkzeug.exceptions import HTTPException

from darkroom.errors import EngineError
from darkroom.web.service import service

MEDIA_TYPE = "application/problem+json"


def problem(status: int, detail: str) -> dict[str, Any]:
    """The members of a problem; `about:blank` says that the status tells its kind."""
    return {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}


def respond(status: int, detail: str) -> Response:
    """A response that carries a problem."""
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
    current_app.logger.error("the engine cannot answer: %s", error)
    return "The model cannot answer at the moment; the server's log says why."


def _on_http_error(error: HTTPException) -> Response:
    response = respond(error.code or 500, detail_of(error))
    kept = {name: value for name, value in error.get_headers() if name.lower() in ("allow", "retry-after")}
    response.headers.update(kept)
    return response


def _on_engine_error(error: EngineError) -> Response:
    return respond(503, engine_trouble(error))


def _on_bug(error: Exception) -> Response:
    current_app.logger.exception("unexpected error", exc_info=error)
    return respond(500, "The server made a mistake, which its log describes. The request may be tried again.")
