"""The server that carries the web app through sockets."""

import gc
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import bundles
from darkroom.config import ServeConfig
from darkroom.engines.base import Engine
from darkroom.errors import UsageError
from darkroom.web import create_app
from darkroom.web.server import Server, serve

RED = bundles.encoded((240, 10, 10))


@contextmanager
def running(app: Flask, settings: ServeConfig) -> Iterator[Server]:
    """A server in a thread of its own."""
    server = Server(app, settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()


def fetch(server: Server, method: str, url: str, **options: Any) -> tuple[http.client.HTTPResponse, bytes]:
    """One request over a real socket."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request(method, url, **options)
        response = connection.getresponse()
        return response, response.read()


def test_the_server_answers_and_stops(engine: Engine) -> None:
    settings = ServeConfig(port=0)
    with running(create_app(engine, settings), settings) as server:
        assert server.port > 0
        assert server.url == f"http://127.0.0.1:{server.port}/"
        response, body = fetch(server, "GET", "/healthz")
        assert (response.status, json.loads(body)) == (200, {"status": "alive"})
        assert response.headers["Server"] == "darkroom"
    with pytest.raises(ConnectionRefusedError):
        fetch(server, "GET", "/healthz")


def test_what_never_reaches_the_application_has_the_same_shape(engine: Engine) -> None:
    settings = ServeConfig(port=0, max_request_megabytes=0.001)
    with running(create_app(engine, settings), settings) as server:
        response, body = fetch(server, "POST", "/api/v1/predict", body=b"x" * 2000)
        assert response.status == 413
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert set(json.loads(body)) == {"type", "title", "status", "detail"}
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as raw:
            raw.sendall(b"no request\r\n\r\n")
            assert b"application/problem+json" in raw.recv(4000)


def test_a_port_in_use_is_one_line(engine: Engine) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} .* in use .* --port"):
            Server(Flask("unused"), ServeConfig(port=port))


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_a_host_that_is_not_here_is_one_line(host: str) -> None:
    with pytest.raises(UsageError, match=rf"--host {host}") as caught:
        Server(Flask("unused"), ServeConfig(host=host, port=0))
    assert "\n" not in str(caught.value)


PROGRAM = """
import sys
from pathlib import Path
from darkroom.config import ServeConfig
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.web import create_app
from darkroom.web.server import serve
settings = ServeConfig(port=0, host=sys.argv[2])
with OnnxRuntimeEngine.open(Path(sys.argv[1])) as engine:
    serve(create_app(engine, settings), settings)
"""


@pytest.mark.parametrize(("host", "number"), [("127.0.0.1", signal.SIGTERM), ("0.0.0.0", signal.SIGINT)])  # noqa: S104
def test_serve_says_where_it_is_and_ends_on_signals(folder: Path, host: str, number: signal.Signals) -> None:
    command = [sys.executable, "-u", "-W", "error", "-c", PROGRAM, str(folder), host]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"colours at http://127\.0\.0\.1:(\d+)/", line)
        assert found, line
        with closing(http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=10)) as connection:
            connection.request("GET", "/readyz")
            assert connection.getresponse().status == 200
        os.kill(process.pid, number)
        rest = process.stderr.read()
        assert process.wait(10) == 0
    assert rest.endswith("stopped\n")
    assert "Traceback" not in rest
    assert ("opens it to the network" in rest) == (host == "0.0.0.0")  # noqa: S104


def test_the_garbage_collector_passes_over_what_was_there_before(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen: list[int] = []
    monkeypatch.setattr(Server, "run", lambda server: (frozen.append(gc.get_freeze_count()), server.close()))
    settings = ServeConfig(port=0)
    serve(create_app(engine, settings), settings)
    assert frozen[0] > 10_000
    assert gc.get_freeze_count() == 0


def test_serve_in_a_thread_leaves_signals_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    servers: list[Server] = []
    run = Server.run
    monkeypatch.setattr(Server, "run", lambda server: (servers.append(server), run(server)))
    settings = ServeConfig(port=0)
    thread = threading.Thread(target=serve, args=(create_app(engine, settings), settings))
    thread.start()
    deadline = time.monotonic() + 10
    while not servers and time.monotonic() < deadline:
        time.sleep(0.01)
    servers[0].stop()
    thread.join(10)
    assert not thread.is_alive()
