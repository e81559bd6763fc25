"""What the tests of the server share: engines that wait or fail, a server in a thread, requests and their checks."""

import http.client
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import bundles
from darkroom.config import ServeConfig
from darkroom.engines.base import Answers, Engine
from darkroom.web import create_app
from darkroom.web.server import Server

RED = bundles.encoded((240, 10, 10))


class FormulaEngine(Engine):
    """Answers by the formula of the colour bundles; `changes` replace fields of its info."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(bundles.bundle_info(**changes))

    def run(self, pixels: np.ndarray) -> Answers:
        """Answer in numpy."""
        return Answers(bundles.expected_logits(pixels), bundles.expected_probabilities(pixels))

    def close(self) -> None:
        """Nothing to let go of."""


class GatedEngine(FormulaEngine):
    """Answers when its gate is opened; `asked` counts those who wait, or did."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(**changes)
        self.gate = threading.Event()
        self.asked = threading.Semaphore(0)

    def run(self, pixels: np.ndarray) -> Answers:
        """Wait for the gate."""
        self.asked.release()
        assert self.gate.wait(30)
        return super().run(pixels)


@contextmanager
def running(app: Flask, settings: ServeConfig) -> Iterator[Server]:
    """A server in a thread of its own, which is stopped at the end."""
    server = Server(app, settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def serving(engine: Engine, **settings: Any) -> Iterator[Server]:
    """A server of `engine` on a free port."""
    config = ServeConfig(port=0, **settings)
    with running(create_app(engine, config), config) as server:
        yield server


def fetch(server: Server, method: str, url: str, **options: Any) -> tuple[http.client.HTTPResponse, bytes]:
    """One request over a real socket."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        connection.request(method, url, **options)
        response = connection.getresponse()
        return response, response.read()


def post_picture(server: Server, content: bytes = RED, **headers: str) -> tuple[http.client.HTTPResponse, Any]:
    """One picture as the body, and the JSON of the answer."""
    given = {"Content-Type": "image/png", **{name.replace("_", "-"): value for name, value in headers.items()}}
    response, body = fetch(server, "POST", "/api/v1/predict", body=content, headers=given)
    return response, json.loads(body)


def upload(
    client: FlaskClient, *files: tuple[str, bytes], url: str = "/api/v1/predict", **options: Any
) -> TestResponse:
    """Post `files` as a form."""
    return client.post(url, data={"files": [(io.BytesIO(content), name) for name, content in files]}, **options)


def assert_problem(response: TestResponse, status: int, *words: str) -> None:
    """Hold the one shape of all errors."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    assert_problem_content(json.loads(response.data), status, *words)


def assert_problem_content(content: Mapping[str, Any], status: int, *words: str) -> None:
    """Hold the members of a problem."""
    assert set(content) == {"type", "title", "status", "detail"}
    assert content["type"] == "about:blank"
    assert content["status"] == status
    assert content["title"]
    for word in words:
        assert word in content["detail"]
    for leak in ("Traceback", "site-packages", ".py", "/work"):
        assert leak not in content["detail"]


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for what another thread brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
