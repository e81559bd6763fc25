"""The server through real sockets: a bounded queue and memory, slow clients, proxies, and a stop that loses nothing."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from flask import request

from darkroom.config import ServeConfig
from darkroom.engines.base import Engine
from darkroom.web import create_app, listener, readiness
from darkroom.web.listener import MOST_AHEAD
from darkroom.web.parser import Memory
from darkroom.web.proxies import Proxy
from darkroom.web.server import Server
from serving import RED, GatedEngine, assert_problem_content, fetch, post_picture, running, serving, until


def connect(server: Server) -> socket.socket:
    """A bare connection."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.fixture
def gated() -> Iterator[GatedEngine]:
    """An engine that answers when the test lets it."""
    engine = GatedEngine()
    yield engine
    engine.gate.set()


def health(server: Server) -> int:
    """How the server answers whoever watches it."""
    return fetch(server, "GET", "/healthz")[0].status


# ---- the queue ----


def test_who_comes_after_a_full_queue_is_told_to_come_back(gated: GatedEngine) -> None:
    with serving(gated, threads=2, max_queue=3) as server, ThreadPoolExecutor(10) as pool:
        answered = [pool.submit(post_picture, server) for _ in range(2)]
        for _ in answered:
            assert gated.asked.acquire(timeout=20)
        waiting = [pool.submit(post_picture, server) for _ in range(3)]
        until(lambda: len(server._listener.task_dispatcher.queue) == 3)
        begun = time.monotonic()
        response, content = post_picture(server)
        assert time.monotonic() - begun < 5, "nobody waits to be refused"
        assert_problem_content(content, 503, "come back later")
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"
        assert response.headers["X-Request-Id"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert health(server) == 200, "who is busy lives"
        assert fetch(server, "GET", "/metrics")[0].status == 200
        gated.gate.set()
        for future in answered + waiting:
            response, content = future.result(20)
            assert response.status == 200
            assert content["predictions"][0]["label"] == "red"


def test_a_storm_is_answered_or_refused_and_none_is_lost(engine: Engine) -> None:
    with serving(engine, threads=2, max_queue=4) as server, ThreadPoolExecutor(32) as pool:
        found = [response.status for response, _ in pool.map(lambda _: post_picture(server), range(200))]
        assert set(found) <= {200, 503}
        assert found.count(200) >= 10
        assert post_picture(server)[0].status == 200


def test_a_refused_request_keeps_its_id(gated: GatedEngine) -> None:
    with serving(gated, threads=1, max_queue=1) as server, ThreadPoolExecutor(4) as pool:
        first = pool.submit(post_picture, server)
        assert gated.asked.acquire(timeout=20)
        second = pool.submit(post_picture, server)
        until(lambda: len(server._listener.task_dispatcher.queue) == 1)
        response, _ = post_picture(server, X_Request_Id="mine-1")
        assert (response.status, response.headers["X-Request-Id"]) == (503, "mine-1")
        gated.gate.set()
        assert first.result(20)[0].status == second.result(20)[0].status == 200


def test_clients_of_tensorflow_are_refused_in_its_shape(gated: GatedEngine) -> None:
    body = json.dumps({"instances": [[[[9, 9, 9]] * 24] * 16]})
    with serving(gated, threads=1, max_queue=1) as server, ThreadPoolExecutor(4) as pool:
        first = pool.submit(fetch, server, "POST", "/v1/models/colours:predict", body=body)
        assert gated.asked.acquire(timeout=20)
        second = pool.submit(fetch, server, "POST", "/v1/models/colours:predict", body=body)
        until(lambda: len(server._listener.task_dispatcher.queue) == 1)
        response, content = fetch(server, "POST", "/v1/models/colours:predict", body=body)
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"
        assert set(json.loads(content)) == {"error"}
        gated.gate.set()
        assert first.result(20)[0].status == second.result(20)[0].status == 200


# ---- whoever watches ----


def test_who_asks_whether_the_engine_is_ready_keeps_nobody_waiting(gated: GatedEngine) -> None:
    with serving(gated) as server, ThreadPoolExecutor(8) as pool:
        begun = time.monotonic()
        asked = [pool.submit(fetch, server, "GET", "/readyz") for _ in range(8)]
        assert gated.asked.acquire(timeout=20)
        asked_at = time.monotonic()
        assert health(server) == 200
        assert time.monotonic() - asked_at < 1, "this asks nobody"
        answers = [future.result(20) for future in asked]
        assert time.monotonic() - begun < 5, "an engine that takes so long is not ready"
        assert {response.status for response, _ in answers} == {503}
        assert_problem_content(json.loads(answers[0][1]), 503, "cannot answer at the moment")
        assert not gated.asked.acquire(timeout=0), "the engine is asked once"
        gated.gate.set()
        until(lambda: fetch(server, "GET", "/readyz")[0].status == 200)


def test_an_answer_of_the_engine_is_repeated_for_a_while(gated: GatedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    gated.gate.set()
    client = create_app(gated, ServeConfig()).test_client()
    assert [client.get("/readyz").status_code for _ in range(20)] == [200] * 20
    assert gated.asked.acquire(timeout=0)
    assert not gated.asked.acquire(timeout=0)
    monkeypatch.setattr(readiness, "FRESH_SECONDS", 0.0)
    assert client.get("/readyz").status_code == 200
    assert gated.asked.acquire(timeout=0)


# ---- memory and disk ----


def test_memory_is_held_and_let_go() -> None:
    memory = Memory(10)
    assert memory.change(6)
    assert not memory.change(5)
    assert memory.change(4)
    assert memory.held == 10
    assert memory.change(-10)
    assert memory.held == 0


@pytest.mark.parametrize("chunked", [False, True])
def test_requests_beyond_the_memory_are_refused_and_room_is_made_again(gated: GatedEngine, chunked: bool) -> None:
    limits: dict[str, Any] = {"max_request_megabytes": 1, "max_memory_megabytes": 1, "max_file_megabytes": 1}
    large = RED + bytes(700_000)  # a picture with something behind it
    with serving(gated, **limits) as server, ThreadPoolExecutor(2) as pool:
        first = pool.submit(post_picture, server, large)
        assert gated.asked.acquire(timeout=20)
        response, content = chunks(server, large) if chunked else whole(server, large)
        assert response.status == 503
        assert_problem_content(json.loads(content), 503, "as many requests as it can")
        assert health(server) == 200
        gated.gate.set()
        assert first.result(20)[0].status == 200
        until(lambda: server._listener.memory.held == 0)
        assert post_picture(server, large)[0].status == 200


def whole(server: Server, content: bytes) -> tuple[http.client.HTTPResponse, bytes]:
    """A picture at once."""
    return fetch(server, "POST", "/api/v1/predict", body=content, headers={"Content-Type": "image/png"})


def chunks(server: Server, content: bytes) -> tuple[http.client.HTTPResponse, bytes]:
    """A picture in parts of unknown number."""
    parts = (content[start : start + 100_000] for start in range(0, len(content), 100_000))
    headers = {"Content-Type": "image/png", "Transfer-Encoding": "chunked"}
    return fetch(server, "POST", "/api/v1/predict", body=parts, headers=headers, encode_chunked=True)


def test_a_chunked_picture_is_answered(engine: Engine) -> None:
    with serving(engine) as server:
        response, content = chunks(server, RED + bytes(300_000))
        assert response.status == 200
        assert json.loads(content)["predictions"][0]["label"] == "red"


def test_a_client_that_goes_away_leaves_nothing_behind(engine: Engine) -> None:
    with serving(engine) as server:
        with closing(connect(server)) as connection:
            connection.sendall(
                b"POST /api/v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + bytes(5000)
            )
            until(lambda: server._listener.memory.held == 5000)
        until(lambda: server._listener.memory.held == 0)


def test_no_upload_becomes_a_file(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a temporary file was asked for")

    for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile"):
        monkeypatch.setattr(f"tempfile.{name}", refuse)
    with serving(engine) as server:
        response, content = post_picture(server, RED + bytes(12_000_000))
    assert response.status == 200
    assert content["predictions"][0]["label"] == "red"


# ---- slow clients, and odd ones ----


@pytest.mark.parametrize(
    "beginning",
    [
        b"G",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"POST /api/v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome",
    ],
)
def test_who_sends_a_byte_now_and_then_is_cut_off(engine: Engine, beginning: bytes) -> None:
    with serving(engine, max_transfer_seconds=1.0) as server, closing(connect(server)) as connection:
        connection.sendall(beginning)
        begun = time.monotonic()
        connection.settimeout(0.2)
        closed = False
        while not closed and time.monotonic() - begun < 15:
            try:
                connection.sendall(b"a")
                closed = connection.recv(100) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
        assert closed
        assert 0.5 < time.monotonic() - begun < 10
        assert health(server) == 200


def test_who_takes_no_answer_is_cut_off(engine: Engine) -> None:
    with serving(engine, max_transfer_seconds=1.0) as server, closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        # More answers than the buffers of two sockets hold, none of which is read.
        connection.sendall(b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
        until(lambda: len(server._listener.active_channels) >= 1)
        until(lambda: len(server._listener.active_channels) == 0, seconds=60)
        assert health(server) == 200


def test_connections_beyond_the_bound_wait(engine: Engine) -> None:
    with serving(engine, max_connections=2, max_transfer_seconds=1.0) as server:
        held = [connect(server) for _ in range(2)]
        for connection in held:
            connection.sendall(b"GET")
        assert health(server) == 200, "when those who say nothing have been cut off"
        for connection in held:
            connection.close()


def test_who_says_nothing_locks_nobody_out(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with serving(engine, max_connections=3) as server, contextlib.ExitStack() as held:
        silent = [held.enter_context(closing(connect(server))) for _ in range(8)]
        for _ in range(3):
            begun = time.monotonic()
            assert health(server) == 200
            assert time.monotonic() - begun < 8
        assert received(silent[0]) == b"", "the one that has been idle for longest is closed"
    assert "connection limit" not in caplog.text, "a stranger could fill the log"


def test_who_has_a_request_under_way_makes_no_room(gated: GatedEngine) -> None:
    with serving(gated, max_connections=2) as server, ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(post_picture, server) for _ in range(2)]
        for _ in asked:
            assert gated.asked.acquire(timeout=20)
        with closing(connect(server)):
            time.sleep(2.5)  # longer than a connection counts as fresh
            gated.gate.set()
            assert [future.result(20)[0].status for future in asked] == [200, 200]


def test_a_connection_without_a_byte_is_closed_before_one_that_is_kept(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "SILENT_SECONDS", 0.5)
    with serving(engine) as server, closing(http.client.HTTPConnection("127.0.0.1", server.port)) as kept:
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        with closing(connect(server)) as silent:
            assert received(silent) == b""
        kept.request("GET", "/healthz")
        assert kept.getresponse().status == 200


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"no request\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbroken header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 99999999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ],
)
def test_tricks_with_headers_are_refused_in_the_usual_shape(engine: Engine, request_text: bytes, status: int) -> None:
    with serving(engine) as server:
        with closing(connect(server)) as connection:
            connection.sendall(request_text)
            head, _, body = received(connection).partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.0 {status}".encode()) or head.startswith(f"HTTP/1.1 {status}".encode()), head
        assert b"X-Request-Id: " in head
        assert_problem_content(json.loads(body), status)
        assert health(server) == 200


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_who_expects_to_go_on_with_nothing_is_answered(engine: Engine, request_text: bytes) -> None:
    with serving(engine) as server, closing(connect(server)) as connection:
        for _ in range(2):
            connection.sendall(request_text)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_who_expects_to_go_on_is_told_to_and_then_answered(engine: Engine) -> None:
    with serving(engine) as server, closing(connect(server)) as connection:
        connection.sendall(b"POST /api/v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n")
        connection.sendall(b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(RED))
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(RED)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_what_a_body_holds_is_not_taken_for_https(engine: Engine) -> None:
    with serving(engine) as server, closing(connect(server)) as connection:
        connection.sendall(b"POST /api/v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n")
        connection.sendall(b"Content-Length: %d\r\n\r\n" % (len(RED) + 4))
        time.sleep(0.2)  # so that what follows comes by itself
        connection.sendall(b"\x16\x03\x01\x02")
        time.sleep(0.2)
        connection.sendall(RED)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X_Forwarded_For"])
def test_nobody_chooses_an_address_without_a_trusted_proxy(engine: Engine, name: str) -> None:
    with serving(engine, max_requests_per_minute=6) as server:
        for place, expected in enumerate((200, 429)):
            value = f"for=192.0.2.{place}" if name == "Forwarded" else f"192.0.2.{place}"
            assert fetch(server, "GET", "/api/v1/model", headers={name: value})[0].status == expected


def test_a_trusted_proxy_tells_the_address(engine: Engine) -> None:
    with serving(engine, max_requests_per_minute=6, trusted_proxy="127.0.0.1") as server:

        def ask(chain: str) -> int:
            return fetch(server, "GET", "/api/v1/model", headers={"X-Forwarded-For": chain})[0].status

        assert ask("192.0.2.1") == 200
        assert ask("192.0.2.2") == 200
        assert ask("192.0.2.1") == 429
        assert ask("203.0.113.9, 192.0.2.1") == 429, "what the client wrote itself does not count"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": '"bad'},
        {"X-Forwarded-For": ":."},
        {"X-Forwarded-Proto": "gopher"},
        {"X-Forwarded-Proto": "https, gopher"},
    ],
)
def test_what_a_proxy_garbles_is_refused_in_the_usual_shape(
    engine: Engine, lines: list[dict[str, Any]], headers: dict[str, str]
) -> None:
    with serving(engine, trusted_proxy="*") as server:
        response, body = fetch(server, "GET", "/api/v1/model", headers={**headers, "X-Request-Id": "mine-2"})
        assert_problem_content(json.loads(body), 400, f"The header {min(headers)} is malformed")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Request-Id"] == "mine-2"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert [(line["id"], line["status"], line["path"]) for line in lines] == [("mine-2", 400, "/api/v1/model")]


def test_who_is_refused_is_in_the_log_as_anybody(gated: GatedEngine, lines: list[dict[str, Any]]) -> None:
    settings: dict[str, Any] = {"threads": 1, "max_queue": 1, "trusted_proxy": "*"}
    with serving(gated, **settings) as server, ThreadPoolExecutor(4) as pool:
        first = pool.submit(post_picture, server)
        assert gated.asked.acquire(timeout=20)
        second = pool.submit(post_picture, server)
        until(lambda: len(server._listener.task_dispatcher.queue) == 1)
        post_picture(server, X_Forwarded_For="203.0.113.9, 192.0.2.1")
        until(lambda: len(lines) == 1)
        gated.gate.set()
        assert first.result(20)[0].status == second.result(20)[0].status == 200
    [line] = [line for line in lines if line.get("refused")]
    assert (line["client"], line["method"], line["path"]) == ("192.0.2.1", "POST", "/api/v1/predict")
    assert (line["status"], line["bytes_in"]) == (503, len(RED))
    assert line["bytes_out"] > 50
    assert 0 <= line["seconds"] < 60


def test_pages_of_other_origins_may_read_why_they_are_refused(gated: GatedEngine) -> None:
    settings: dict[str, Any] = {"threads": 1, "max_queue": 1, "allow_origins": "https://example.org"}
    with serving(gated, **settings) as server, ThreadPoolExecutor(4) as pool:
        first = pool.submit(post_picture, server)
        assert gated.asked.acquire(timeout=20)
        second = pool.submit(post_picture, server)
        until(lambda: len(server._listener.task_dispatcher.queue) == 1)
        ours, _ = post_picture(server, Origin="https://example.org")
        strangers, _ = post_picture(server, Origin="https://evil.example")
        gated.gate.set()
        assert first.result(20)[0].status == second.result(20)[0].status == 200
    assert ours.status == strangers.status == 503
    assert ours.headers["Access-Control-Allow-Origin"] == "https://example.org"
    assert "Retry-After" in ours.headers["Access-Control-Expose-Headers"]
    assert ours.headers.get_all("Cross-Origin-Resource-Policy") == ["cross-origin"]
    assert "Access-Control-Allow-Origin" not in strangers.headers


@pytest.mark.parametrize(
    ("address", "peer", "is_believed"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("*", "192.0.2.1", True),
        ("", "127.0.0.1", False),
        ("", "", False),
    ],
)
def test_a_proxy_is_known_however_its_address_is_written(address: str, peer: str, is_believed: bool) -> None:
    assert Proxy(address, 1).client(peer, "198.51.100.7") == ("198.51.100.7" if is_believed else peer)


def test_of_several_schemes_the_proxy_s_own_counts(engine: Engine) -> None:
    with serving(engine, trusted_proxy="127.0.0.1") as server:
        for schemes, expected in (("http, https", b"https://x.example/"), ("https,http", b"http://x.example/")):
            headers = {"Host": "x.example", "X-Forwarded-Proto": schemes}
            response, page = fetch(server, "GET", "/", headers=headers)
            assert response.status == 200
            assert expected in page


def test_the_page_s_address_follows_the_proxy(engine: Engine) -> None:
    with serving(engine, trusted_proxy="127.0.0.1") as server:
        headers = {"Host": "darkroom.example", "X-Forwarded-Proto": "https"}
        _, page = fetch(server, "GET", "/", headers=headers)
    assert b"https://darkroom.example/api/v1/predict" in page


# ---- the end ----


def test_stopping_finishes_what_has_begun(gated: GatedEngine) -> None:
    config = ServeConfig(port=0, threads=2)
    with ThreadPoolExecutor(8) as pool:
        with running(create_app(gated, config), config) as server:
            asked = [pool.submit(post_picture, server) for _ in range(5)]
            for _ in range(2):
                assert gated.asked.acquire(timeout=20)
            until(lambda: len(server._listener.task_dispatcher.queue) == 3)
            slow = connect(server)
            slow.sendall(b"POST /api/v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n")
            slow.sendall(b"Content-Length: %d\r\n\r\n" % len(RED) + RED[:10])
            until(lambda: server._listener.memory.held == 5 * len(RED) + 10)
            server.stop()
            until(lambda: server._listener.socket.fileno() == -1)
            with pytest.raises(OSError, match=r"refused|reset"):
                health(server)
            slow.sendall(RED[10:])
            gated.gate.set()
            with closing(slow):
                answer = received(slow)
        for future in asked:
            response, content = future.result(20)
            assert (response.status, content["predictions"][0]["label"]) == (200, "red")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"Connection: close" in head
    assert json.loads(body)["predictions"][0]["label"] == "red"


def test_stopping_waits_for_so_long_only(gated: GatedEngine) -> None:
    config = ServeConfig(port=0, stop_seconds=0.3)
    server = Server(create_app(gated, config), config)
    thread = threading.Thread(target=server.run)
    thread.start()
    with closing(connect(server)) as connection:
        connection.sendall(b"POST /api/v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n")
        connection.sendall(b"Content-Length: %d\r\n\r\n" % len(RED) + RED)
        assert gated.asked.acquire(timeout=20)
        begun = time.monotonic()
        server.stop()
        thread.join(20)
        assert not thread.is_alive()
        assert time.monotonic() - begun < 10
        gated.gate.set()


def test_requests_that_come_at_once_are_bounded(engine: Engine) -> None:
    """Thousands fit into one piece, and each answer that is not taken would be held."""
    with serving(engine) as server, closing(connect(server)) as connection:
        connection.sendall(b"GET /static/darkroom.js HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        answers = received(connection)
    assert answers.count(b"HTTP/1.1 200 OK") == MOST_AHEAD + 1
    assert answers.count(b"HTTP/1.1 503 Service Unavailable") == 1
    assert answers.endswith(b'"detail": "Too many requests came at once on one connection."}')


def test_answers_that_are_not_taken_keep_no_file_open(engine: Engine) -> None:
    """waitress would hold the file itself until it is sent."""
    settings, wrappers = ServeConfig(port=0), []
    app = create_app(engine, settings)
    app.before_request(lambda: wrappers.append(request.environ.get("wsgi.file_wrapper")))
    with running(app, settings) as server:
        assert fetch(server, "GET", "/static/darkroom.js")[0].status == 200
    assert wrappers == [None]


def test_an_idle_server_stops_at_once(engine: Engine) -> None:
    with serving(engine) as server, closing(http.client.HTTPConnection("127.0.0.1", server.port)) as kept:
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        begun = time.monotonic()
    assert time.monotonic() - begun < 3, "a connection that is kept open holds nothing up"
