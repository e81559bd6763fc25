"""`darkroom client`: a server asked from Python and from the command line."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import bundles
from darkroom import cli
from darkroom.client import Client, form
from darkroom.engines.base import Engine
from darkroom.engines.prediction import Failure, Prediction, predict_pictures
from darkroom.errors import ServerError, UsageError
from darkroom.web.keys import add_key
from darkroom.web.server import Server
from serving import RED, FormulaEngine, serving


@pytest.fixture
def server(engine: Engine) -> Iterator[Server]:
    with serving(engine, max_files=3, max_file_megabytes=0.05) as server:
        yield server


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Twenty files of which three are broken."""
    paths = []
    for name, content in bundles.mixed_pictures():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content)
    return paths


def test_the_answers_are_those_of_the_engine(engine: Engine, server: Server, pictures: list[Path]) -> None:
    here = predict_pictures(engine, [(str(path), path) for path in pictures])
    there = list(Client(server.url).predict(pictures))
    assert [answer.name for answer in there] == [str(path) for path in pictures]
    for near, far in zip(here, there, strict=True):
        if isinstance(near, Failure):
            assert far == near
        else:
            assert isinstance(far, Prediction)
            assert (far.label, far.sure) == (near.label, near.sure)
            assert far.confidence == pytest.approx(near.confidence, abs=1e-6)
            assert dict(far.probabilities) == pytest.approx(dict(near.probabilities), abs=1e-6)


def test_files_that_cannot_be_sent_fail_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "large.png").write_bytes(bytes(60_000))
    paths = [tmp_path / name for name in ("large.png", "red.png", "missing.png")]
    large, red, missing = Client(server.url).predict(paths, top=1)
    assert isinstance(large, Failure)
    assert "60,000 bytes, where the server takes 50,000" in large.error
    assert isinstance(red, Prediction)
    assert len(red.probabilities) == 1
    assert isinstance(missing, Failure)
    assert "cannot be read" in missing.error


def test_novelty_comes_along(tmp_path: Path) -> None:
    (tmp_path / "grey.png").write_bytes(bundles.encoded((100, 100, 100)))
    novelty = {"score": "energy", "threshold": -3.0, "false_alarms": 0.05}
    with serving(FormulaEngine(novelty=novelty)) as server:
        [answer] = Client(server.url).predict([tmp_path / "grey.png"])
    assert isinstance(answer, Prediction)
    assert answer.novelty is not None
    assert answer.novelty.unlike


def test_a_key_opens(engine: Engine, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys", "me")
    (tmp_path / "red.png").write_bytes(RED)
    with serving(engine, api_keys=tmp_path / "keys") as server:
        [answer] = Client(server.url, key=key).predict([tmp_path / "red.png"])
        assert isinstance(answer, Prediction)
        with pytest.raises(ServerError, match=r"answers 401: .*API key.* \(request [0-9a-f]{16}\)"):
            list(Client(server.url).predict([tmp_path / "red.png"]))


def test_hostile_names_stay_within_their_quotes() -> None:
    media_type, body = form([(Path('a"; name="b\r\n\r\nx.png'), b"content")])
    boundary = media_type.rpartition("=")[2].encode()
    head, _, rest = body.partition(b"\r\n\r\n")
    first, second = head.split(b"\r\n")
    assert first == b"--" + boundary
    assert second == b'Content-Disposition: form-data; name="files"; filename="a%22; name=%22bx.png"'
    assert rest == b"content\r\n--" + boundary + b"--\r\n"


class Scripted(BaseHTTPRequestHandler):
    """Answers as its list says, from the first entry to the last, which is repeated."""

    answers: list[tuple[int, dict[str, str], bytes]] = []  # noqa: RUF012  (each test has a class of its own)

    def do_GET(self) -> None:
        """Give the next answer."""
        status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Read what comes, then the same."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def scripted() -> Iterator[tuple[str, list[tuple[int, dict[str, str], bytes]]]]:
    """The address of a server that is no darkroom, and the answers that it gives."""
    answers: list[tuple[int, dict[str, str], bytes]] = []
    other = HTTPServer(("127.0.0.1", 0), type("Handler", (Scripted,), {"answers": answers}))
    thread = threading.Thread(target=other.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{other.server_port}", answers
    other.shutdown()
    other.server_close()
    thread.join(10)


BUSY = json.dumps({"detail": "come back later"}).encode()


def test_a_busy_server_is_asked_again(scripted: tuple[str, list[tuple[int, dict[str, str], bytes]]]) -> None:
    url, answers = scripted
    slept: list[float] = []
    answers += [(503, {"Retry-After": "7"}, BUSY), (429, {}, BUSY), (503, {"Retry-After": "9999"}, BUSY)]
    answers += [(200, {"Content-Type": "application/json"}, b'{"limits": {}}')]
    assert Client(url, sleep=slept.append).model() == {"limits": {}}
    assert slept == [7.0, 1.0, 60.0]


def test_a_server_that_stays_busy_is_given_up(scripted: tuple[str, list[tuple[int, dict[str, str], bytes]]]) -> None:
    url, answers = scripted
    slept: list[float] = []
    answers.append((503, {}, BUSY))
    with pytest.raises(ServerError, match=r"is busy \(come back later\)"):
        Client(url, sleep=slept.append).model()
    assert len(slept) == 5


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>", "is it a server of darkroom"),
        (200, b"{}", "says nothing of its limits"),
        (200, b"[]", "says nothing of its limits"),
        (404, b"<html>", "answers 404: Not Found"),
        (500, b'{"detail": "a mistake"}', "answers 500: a mistake"),
    ],
)
def test_what_is_no_darkroom_is_told_in_one_line(
    scripted: tuple[str, list[tuple[int, dict[str, str], bytes]]], status: int, body: bytes, said: str
) -> None:
    url, answers = scripted
    answers.append((status, {}, body))
    with pytest.raises(ServerError, match=said) as caught:
        Client(url).model()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_is_carried_nowhere_else(
    scripted: tuple[str, list[tuple[int, dict[str, str], bytes]]], status: int
) -> None:
    url, answers = scripted
    answers += [(status, {"Location": f"{url}/elsewhere"}, b""), (200, {}, b'{"limits": {}}')]
    with pytest.raises(ServerError, match=rf"answers {status}: .*sends to {url}/elsewhere"):
        Client(url, key="secret").model()
    assert len(answers) == 1, "it was asked once"


LIMITS = {"max_file_bytes": 10**6, "max_request_bytes": 10**7, "max_files": 4}
ENTRY = {"label": "red", "confidence": 0.9, "sure": True, "probabilities": [{"label": "red", "probability": 0.9}]}


@pytest.mark.parametrize(
    ("limits", "content"),
    [
        ({}, {}),
        ([], {}),
        ({**LIMITS, "max_files": None}, {}),
        (LIMITS, []),
        (LIMITS, {"predictions": None}),
        (LIMITS, {"predictions": []}),
        (LIMITS, {"predictions": [{}]}),
        (LIMITS, {"predictions": ["red"]}),
        (LIMITS, {"predictions": [{"error": "no"}]}),
        (LIMITS, {"predictions": [{**ENTRY, "confidence": "much"}]}),
        (LIMITS, {"predictions": [{**ENTRY, "novelty": {"odd": 1}}]}),
    ],
)
def test_answers_of_another_form_are_told_in_one_line(
    scripted: tuple[str, list[tuple[int, dict[str, str], bytes]]], tmp_path: Path, limits: object, content: object
) -> None:
    url, answers = scripted
    answers += [(200, {}, json.dumps(answer).encode()) for answer in ({"limits": limits}, content)]
    (tmp_path / "red.png").write_bytes(RED)
    with pytest.raises(ServerError, match="of another form") as caught:
        list(Client(url).predict([tmp_path / "red.png"]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 99\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_broken_http_is_told_in_one_line(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ServerError, match=r"cannot be asked|answers 500: Oh") as caught:
            Client(f"http://127.0.0.1:{listener.getsockname()[1]}").model()
        thread.join(10)
    assert "\n" not in str(caught.value)


def test_nobody_there_is_told_in_one_line() -> None:
    with pytest.raises(ServerError, match="cannot be asked"):
        Client("http://127.0.0.1:9").model()


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x", "file:///etc/passwd", "http://"])
def test_addresses_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no address of a server"):
        Client(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://x:99999",
        "http://x?a",
        "http://x#a",
        "http://x/?",
        "http://me:secret@x",
        "http://x?secret",
    ],
)
def test_addresses_with_too_much_are_refused_and_repeat_no_password(url: str) -> None:
    with pytest.raises(UsageError, match="no address of a server") as caught:
        Client(url)
    assert "secret" not in str(caught.value)


def test_a_key_keeps_no_space_around_it_and_is_never_shown(engine: Engine, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys", "me")
    with serving(engine, api_keys=tmp_path / "keys") as server:
        assert Client(server.url, key=f"{key}\r\n").model()["name"]
    with pytest.raises(UsageError, match="characters that no key has") as caught:
        Client("http://x", key="sec\nret")
    assert "sec" not in str(caught.value)


def test_https_to_a_server_of_http_is_told_at_once(engine: Engine) -> None:
    with serving(engine) as server:
        begun = time.monotonic()
        with pytest.raises(ServerError, match="cannot be asked"):
            Client(server.url.replace("http:", "https:")).model()
        assert time.monotonic() - begun < 20


# ---- on the command line ----


def run(*arguments: object) -> int:
    """Exit code of a command run in this process."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def test_the_command_prints_what_predict_prints(
    server: Server, folder: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for options in ((), ("--top", "1"), ("--json",)):
        assert run("predict", folder, *pictures, *options) == 0
        near = capsys.readouterr().out
        assert run("client", server.url, *pictures, *options) == 0
        far = capsys.readouterr().out
        if options == ("--json",):
            names = [[entry["name"] for entry in json.loads(text)] for text in (near, far)]
            assert names[0] == names[1]
        else:
            assert far == near


def test_the_key_may_come_from_the_environment(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "red.png").write_bytes(RED)
    assert run("key", tmp_path / "keys", "me") == 0
    captured = capsys.readouterr()
    key = captured.out.strip()
    assert key.startswith("darkroom_")
    assert key not in captured.err
    with serving(engine, api_keys=tmp_path / "keys") as server:
        assert run("client", server.url, tmp_path / "red.png") == 2
        assert "answers 401" in capsys.readouterr().err
        monkeypatch.setenv("DARKROOM_API_KEY", key)
        assert run("client", server.url, tmp_path / "red.png") == 0
        assert "red" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("client", "http://127.0.0.1:9"), "no pictures are named"),
        (("client", "http://127.0.0.1:9", "x.png", "--top", "0"), "--top is 0"),
        (("client", "nonsense", "."), "there are no pictures in the folder"),
        (("key", "keys", "a b"), "cannot stand in the file"),
    ],
)
def test_wrong_commands_are_said_in_one_line(
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1
