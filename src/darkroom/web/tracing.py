"""An id for each request, and a line of JSON in the access log; neither pictures nor their names are ever written."""

import itertools
import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, g, request

from darkroom.web.service import service

HEADER = "X-Request-Id"
LONGEST_PATH = 200

log = logging.getLogger("darkroom.access")
log.propagate = False  # whoever serves gives it a place; a test client has none
log.addHandler(logging.NullHandler())

_PROCESS, _NUMBERS = secrets.token_hex(4), itertools.count(1)
"""Of which new ids are made: they need to be unique, not secret, and random numbers cost a switch of threads."""

_SANE = re.compile(r"[A-Za-z0-9._~-]{1,64}")


def register(app: Flask) -> None:
    """Trace every request of `app`; to be registered before all else, so that the line is written after all else."""
    app.before_request(_begin)
    app.after_request(_end)


@contextmanager
def writing_access_log() -> Iterator[None]:
    """Let the access log go to standard output, a line a request."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def request_id() -> str:
    """The id of the current request."""
    return str(g.get("request_id", "-"))


def sane_id(wanted: str | None) -> str:
    """The id that a client or proxy gave, where it is fit to be repeated in headers and logs, or else a new one."""
    return wanted if wanted is not None and _SANE.fullmatch(wanted) else f"{_PROCESS}{next(_NUMBERS):08x}"


def is_recording() -> bool:
    """Whether somebody wants the lines of the access log."""
    return log.isEnabledFor(logging.INFO)  # at its level, which is unset unless somebody does


def record(**facts: Any) -> None:
    """Write one line of the access log, where somebody wants it."""
    if is_recording():
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        log.info(json.dumps({"time": stamp} | facts, ensure_ascii=True))


def _begin() -> None:
    asked = request._get_current_object()  # type: ignore[attr-defined]  # the proxy looks it up at every use
    g.request_id = sane_id(asked.headers.get(HEADER))
    g.begun = time.perf_counter()
    g.pictures = 0
    waited = asked.environ.get("darkroom.waited")  # from our server; others do not tell
    if waited is not None:
        service().metrics.waited.observe(waited)


def _end(response: Response) -> Response:
    asked = request._get_current_object()  # type: ignore[attr-defined]
    response.headers[HEADER] = g.request_id
    seconds = time.perf_counter() - g.begun
    service().metrics.count_request(asked.method, asked.endpoint, response.status_code, seconds)
    if is_recording():
        record(
            id=g.request_id,
            client=asked.remote_addr,
            key=g.get("key_name"),
            method=asked.method,
            path=asked.path[:LONGEST_PATH],
            status=response.status_code,
            seconds=round(seconds, 6),
            bytes_in=asked.content_length or 0,
            bytes_out=response.calculate_content_length(),
            pictures=g.pictures,
        )
    return response
