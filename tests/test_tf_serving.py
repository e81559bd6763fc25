"""The engine that asks a TensorFlow Serving, against a double of it: right answers or one clear line, in time."""

import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bundles
from darkroom.config import ServeConfig
from darkroom.engines.base import Engine
from darkroom.engines.choice import open_engine
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.errors import BundleError, EngineError, UsageError
from darkroom.web import create_app
from serving import serving

pytest.importorskip("grpc", reason="grpcio is not installed: pip install 'darkroom[tf-client]'")
pytest.importorskip("google.protobuf", reason="protobuf is not installed: pip install 'darkroom[tf-client]'")

from darkroom.engines import tf_serving, tf_serving_rest
from darkroom.engines import tf_serving_messages as messages
from darkroom.engines.tf_serving import ATTEMPTS, TfServingEngine, connect
from darkroom.engines.tf_serving_transport import Asked, VersionStatus
from serving_fake import FACES, FakeServing, colours, protocol

FAKE = Path(__file__).with_name("serving_fake.py")
UNAVAILABLE = ("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full")


@pytest.fixture(params=list(FACES))
def face(request: pytest.FixtureRequest) -> str:
    """The protocol that is spoken."""
    return str(request.param)


@pytest.fixture
def fake() -> FakeServing:
    """A server with one version of the colours."""
    return FakeServing({1: colours()})


@pytest.fixture
def url(face: str, fake: FakeServing) -> Iterator[str]:
    """Where it listens."""
    with FACES[face](fake) as address:
        yield address


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that tests can wait for."""
    monkeypatch.setattr(tf_serving, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(tf_serving, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(tf_serving, "POLL_SECONDS", 0.05)


def settings(url: str, **changes: Any) -> ServeConfig:
    """To ask that server, without much patience."""
    return ServeConfig(**{"engine": "tf-serving", "tf_serving_url": url, "tf_serving_wait": 0.3} | changes)


def noise(count: int, seed: int = 0) -> np.ndarray:
    """Random pixels (count, H, W, 3)."""
    shape = (count, bundles.CONTRACT.height, bundles.CONTRACT.width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def agrees(engine: Any, count: int = 3, seed: int = 0) -> None:
    """The engine answers as the formula does."""
    pixels = noise(count, seed)
    answers = engine.answer(pixels)
    np.testing.assert_allclose(answers.probabilities, bundles.expected_probabilities(pixels), atol=1e-5)
    np.testing.assert_allclose(answers.logits, bundles.expected_logits(pixels), atol=1e-4)


def refuses(call: Any, said: str) -> None:
    """It fails in one line."""
    with pytest.raises(EngineError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


# Answers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 17, 70])
def test_answers_are_the_models_in_bounded_requests(folder: Path, fake: FakeServing, url: str, count: int) -> None:
    with open_engine(folder, settings(url, tf_serving_batch=16)) as engine:
        assert isinstance(engine, TfServingEngine)
        fake.asked.clear()
        agrees(engine, count)
        assert [number for _, number in fake.asked] == [16] * (count // 16) + ([count % 16] if count % 16 else [])


def test_numbers_may_come_as_bytes(folder: Path, fake: FakeServing) -> None:
    fake.as_content = True
    with FACES["grpc"](fake) as url, open_engine(folder, settings(url)) as engine:
        agrees(engine)


def test_threads_share_it(folder: Path, url: str) -> None:
    with open_engine(folder, settings(url)) as engine, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: agrees(engine, 1 + seed % 5, seed), range(40)))


def test_a_closed_engine_says_so_and_closes_twice(folder: Path, url: str) -> None:
    with open_engine(folder, settings(url)) as engine:
        engine.close()
        refuses(lambda: engine.predict(noise(1)), "closed")


def test_the_other_engine_is_the_default(folder: Path) -> None:
    with open_engine(folder, ServeConfig(workers=0)) as engine:
        assert isinstance(engine, OnnxRuntimeEngine)


def test_our_own_server_stands_in_for_tensorflow_serving(folder: Path, engine: Engine) -> None:
    """It speaks the same protocol, so that clients can move between the two."""
    with serving(engine) as server, open_engine(folder, settings(server.url)) as remote:
        assert isinstance(remote, TfServingEngine)
        for count in (1, 3, 40):
            agrees(remote, count)


# Versions, labels, readiness -----------------------------------------------------------------------------------------


def test_the_newest_version_is_asked_by_its_number(folder: Path, fake: FakeServing, url: str) -> None:
    fake.versions = {2: colours(temperature=9), 12: colours(), 13: colours()}
    fake.states[13] = "LOADING"
    with open_engine(folder, settings(url)) as engine:
        agrees(engine)
        fake.states.clear()  # a version that appears is not asked before the old one goes
        agrees(engine)
        assert {version for version, _ in fake.asked} == {12}


def test_a_version_can_be_chosen(folder: Path, fake: FakeServing, url: str) -> None:
    fake.versions = {1: colours(), 2: colours(temperature=9)}
    with open_engine(folder, settings(url, tf_serving_version=1)) as engine:
        agrees(engine)
        del fake.versions[1]
        refuses(lambda: engine.predict(noise(1)), "does not have what was asked for")


def test_a_label_can_be_chosen(folder: Path, fake: FakeServing, url: str) -> None:
    fake.versions, fake.labels = {1: colours(), 2: colours(temperature=9)}, {"stable": 1}
    with open_engine(folder, settings(url, tf_serving_label="stable")) as engine:
        agrees(engine)
        assert {version for version, _ in fake.asked} == {1}
    refuses(lambda: open_engine(folder, settings(url, tf_serving_label="canary")), "label: canary")


def test_what_comes_behind_a_label_is_proved_again(folder: Path, fake: FakeServing) -> None:
    fake.versions, fake.labels = {1: colours(), 2: colours(), 3: colours(temperature=9)}, {"stable": 1}
    with FACES["grpc"](fake) as url, open_engine(folder, settings(url, tf_serving_label="stable")) as engine:
        fake.labels["stable"] = 2
        fake.asked.clear()
        agrees(engine, 5)
        assert (2, len(bundles.golden().pixels)) in fake.asked
        fake.labels["stable"] = 3
        refuses(lambda: engine.predict(noise(1)), "refusing to predict")


def test_a_new_version_takes_over_when_the_old_one_goes(folder: Path, fake: FakeServing, url: str) -> None:
    with open_engine(folder, settings(url)) as engine:
        fake.versions = {2: colours()}
        agrees(engine)
        fake.versions = {3: colours(temperature=9)}
        refuses(lambda: engine.predict(noise(1)), "refusing to predict")
        fake.versions = {4: colours()}
        agrees(engine)


def test_a_version_that_was_not_asked_for_is_refused(folder: Path, fake: FakeServing) -> None:
    fake.claimed = 7
    with FACES["grpc"](fake) as url:
        refuses(lambda: open_engine(folder, settings(url)), "version 1 of colours, and version 7 answered")


def test_a_model_that_answers_otherwise_is_refused(folder: Path, fake: FakeServing, url: str) -> None:
    fake.versions[1] = colours(temperature=9)
    refuses(lambda: open_engine(folder, settings(url)), "answers the golden pictures differently")


def test_the_start_waits_until_the_model_is_loaded(folder: Path, fake: FakeServing, url: str) -> None:
    fake.states[1] = "LOADING"
    threading.Timer(0.3, fake.states.clear).start()
    with open_engine(folder, settings(url, tf_serving_wait=10)) as engine:
        agrees(engine)


def test_a_model_that_does_not_come_is_told_with_its_state(folder: Path, fake: FakeServing, url: str) -> None:
    fake.states[1] = "LOADING"
    refuses(
        lambda: open_engine(folder, settings(url)), r"version 1 is LOADING.*darkroom export RUN --format saved-model"
    )
    refuses(lambda: open_engine(folder, settings(url, tf_serving_version=5)), "version 5 of colours is not served")
    refuses(
        lambda: open_engine(folder, settings(url, tf_serving_model="other")), "other is not served.*find any versions"
    )


def test_a_model_that_could_not_be_loaded_is_told_at_once(folder: Path, fake: FakeServing, url: str) -> None:
    fake.states[1], fake.errors[1] = "END", "Op type not registered"
    start = time.monotonic()
    refuses(lambda: open_engine(folder, settings(url, tf_serving_wait=30)), "could not load.*not registered")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_server_that_is_not_there_is_one_line(folder: Path, scheme: str) -> None:
    refuses(lambda: open_engine(folder, settings(f"{scheme}://127.0.0.1:9")), "is not served at .*is not available")


def test_the_status_call_tells_every_version(folder: Path, fake: FakeServing, url: str) -> None:
    fake.versions[2], fake.states[2], fake.errors[2] = colours(), "END", "no space"
    with open_engine(folder, settings(url)) as engine:
        assert isinstance(engine, TfServingEngine)
        assert engine.status() == [VersionStatus(1, "AVAILABLE"), VersionStatus(2, "END", "no space")]


# Trouble -------------------------------------------------------------------------------------------------------------


def test_unavailable_is_tried_again(folder: Path, fake: FakeServing, url: str) -> None:
    with open_engine(folder, settings(url)) as engine:
        fake.asked.clear()
        fake.refusals = [UNAVAILABLE] * 2
        agrees(engine)
        assert len(fake.asked) == 3


def test_unavailable_is_not_tried_for_ever(folder: Path, fake: FakeServing, url: str) -> None:
    with open_engine(folder, settings(url)) as engine:
        fake.asked.clear()
        fake.refusals = [UNAVAILABLE] * 100
        refuses(lambda: engine.predict(noise(1)), r"is not available \(The batch scheduling queue")
        assert len(fake.asked) == ATTEMPTS


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"])
def test_other_refusals_are_not_tried_again(folder: Path, fake: FakeServing, url: str, code: str) -> None:
    with open_engine(folder, settings(url)) as engine:
        fake.asked.clear()
        fake.refusals = [(code, "no, thank you")]
        refuses(lambda: engine.predict(noise(1)), "cannot answer: .*no, thank you")
        assert len(fake.asked) == 1


def test_a_deadline_holds_and_is_not_tried_again(folder: Path, fake: FakeServing, url: str) -> None:
    with open_engine(folder, settings(url, tf_serving_timeout=1.0)) as engine:
        fake.asked.clear()
        fake.delay = 5
        start = time.monotonic()
        refuses(lambda: engine.predict(noise(1)), "did not answer within 1.0 seconds")
        assert time.monotonic() - start < 3
        assert len(fake.asked) == 1


def test_the_deadline_includes_what_is_tried_again(folder: Path, fake: FakeServing, url: str) -> None:
    with open_engine(folder, settings(url, tf_serving_timeout=1.0)) as engine:
        fake.delay, fake.refusals = 0.4, [UNAVAILABLE] * 100
        start = time.monotonic()
        refuses(lambda: engine.predict(noise(1)), "TensorFlow Serving at")
        assert time.monotonic() - start < 3


@contextmanager
def dripping(at_once: bytes, slowly: bytes) -> Iterator[str]:
    """The URL of a server that says the one at once and the other a byte in 0.2 seconds."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError), listener.accept()[0] as connection:
                connection.recv(2**20)
                connection.sendall(at_once)
                for byte in slowly:
                    if over.wait(0.2):
                        break
                    connection.sendall(bytes([byte]))

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join(10)


@pytest.mark.parametrize(
    ("at_once", "slowly"),
    [
        (b"", b"HTTP/1.1 200 OK and more"),
        (b"HTTP/1.1 200 OK\r\n", b"Content-Length: 20\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", b"{" + 19 * b" "),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"{" + 19 * b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 5 * b"1\r\n \r\n"),
    ],
)
def test_a_deadline_holds_while_the_answer_drips(at_once: bytes, slowly: bytes) -> None:
    with dripping(at_once, slowly) as url, closing(connect(url)) as transport:
        start = time.monotonic()
        refuses(lambda: transport.status("colours", 0.5), "did not answer within 0.5 seconds")
        assert time.monotonic() - start < 1.5


@pytest.mark.parametrize("length", [b"Content-Length: 2000\r\n", b""])
def test_an_answer_without_end_is_refused(length: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf_serving_rest, "MOST_BYTES", 1000)
    with (
        dripping(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + bytes(2000), b"") as url,
        closing(connect(url)) as transport,
    ):
        refuses(lambda: transport.status("colours", 5), "answers more than 1,000 bytes")


def test_the_deadline_includes_another_version_and_its_proof(folder: Path, fake: FakeServing, url: str) -> None:
    """For all threads that wait for it, too; the golden pictures are several requests."""
    given = settings(url, tf_serving_timeout=0.6, tf_serving_batch=1)
    with open_engine(folder, given) as engine, ThreadPoolExecutor(4) as pool:
        fake.versions, fake.delay = {2: colours()}, 0.25

        def seconds(_: int) -> float:
            start = time.monotonic()
            refuses(lambda: engine.predict(noise(1)), "did not answer within|is not proved yet")
            return time.monotonic() - start

        assert max(pool.map(seconds, range(4))) < 1.5
        fake.delay = 0
        agrees(engine)


def test_an_answer_that_is_cut_off_is_asked_for_again(folder: Path, fake: FakeServing) -> None:
    with FACES["http"](fake) as url, open_engine(folder, settings(url)) as engine:
        fake.dropped = 2
        agrees(engine)
        fake.dropped = 100
        refuses(lambda: engine.predict(noise(1)), "is not available")


def test_a_server_that_dies_in_the_middle_is_one_line(folder: Path, face: str) -> None:
    """A program of its own, gone while it holds a request; the golden pictures are its first."""
    with subprocess.Popen([sys.executable, FAKE, face, "2"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            with open_engine(folder, settings(address, tf_serving_wait=30)) as engine:
                agrees(engine)
                refuses(lambda: engine.predict(noise(1)), "is not available")
                assert server.wait(10) == 9
                refuses(lambda: engine.predict(noise(1)), "is not available")
        finally:
            server.kill()


def test_answers_that_are_none_are_refused(folder: Path, fake: FakeServing, url: str) -> None:
    whole = colours()
    with open_engine(folder, settings(url)) as engine:
        fake.versions[1] = lambda *asked: {"logits": whole(*asked)["logits"]}
        refuses(lambda: engine.predict(noise(1)), "gives no .*probabilities")
        fake.versions[1] = lambda *asked: {name: values[:, :2] for name, values in whole(*asked).items()}
        refuses(lambda: engine.predict(noise(1)), "finite numbers")
        fake.versions[1] = lambda *asked: {name: np.full_like(values, np.nan) for name, values in whole(*asked).items()}
        refuses(lambda: engine.predict(noise(1)), "finite numbers")


def test_what_is_no_tensorflow_serving_is_told(folder: Path) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>welcome</html>")

        def log_message(self, *_: Any) -> None:
            """Be silent."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        refuses(lambda: open_engine(folder, settings(f"http://127.0.0.1:{server.server_port}")), "tells no status")
        server.shutdown()
        thread.join()


def test_a_changed_bundle_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    bundle = bundles.make_bundle(tmp_path / "b")
    bundle.model.write_bytes(bundle.model.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="was changed"):
        open_engine(tmp_path / "b", settings("grpc://127.0.0.1:9"))


# The messages --------------------------------------------------------------------------------------------------------


def test_a_request_has_the_bytes_of_the_protocol() -> None:
    """Written out by hand from the numbers of predict.proto, model.proto and tensor.proto."""
    pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 1, 3)
    request = messages.predict_request("s", "p", messages.pixels_tensor(pixels), model="m")
    request.model_spec.version.value = 5
    shape = b"".join(bytes([0x12, 2, 0x08, size]) for size in (1, 2, 1, 3))
    tensor = b"\x08\x04" + b"\x12" + bytes([len(shape)]) + shape + b"\x22\x06" + bytes(range(6))
    entry = b"\x0a\x01p" + b"\x12" + bytes([len(tensor)]) + tensor
    spec = b"\x0a\x01m" + b"\x12\x02\x08\x05" + b"\x1a\x01s"
    wire = b"\x0a" + bytes([len(spec)]) + spec + b"\x12" + bytes([len(entry)]) + entry
    assert request.SerializeToString(deterministic=True) == wire
    log = messages.warm_up_record(request)
    assert log.startswith(b"\x32")
    assert log.endswith(wire)


def test_tensors_are_read_by_tensorflows_own_description() -> None:
    """TensorBoard carries TensorFlow's tensor.proto."""

    tensor_pb2 = pytest.importorskip("tensorboard.compat.proto.tensor_pb2", reason="tensorboard is not installed")
    read = tensor_pb2.TensorProto.FromString(messages.pixels_tensor(noise(2)).SerializeToString())
    assert (read.dtype, [d.size for d in read.tensor_shape.dim]) == (4, [2, 16, 24, 3])
    assert read.tensor_content == noise(2).tobytes()
    read = tensor_pb2.TensorProto.FromString(messages.strings_tensor([b"\0\xff", b""]).SerializeToString())
    assert (read.dtype, list(read.string_val)) == (7, [b"\0\xff", b""])
    written = tensor_pb2.TensorProto(dtype=1, float_val=[1.5, -2.0])
    written.tensor_shape.dim.add(size=2)
    ours = messages.TensorProto.FromString(written.SerializeToString())
    np.testing.assert_array_equal(messages.floats_of(ours), np.array([1.5, -2], np.float32))


def test_official_messages_agree_where_they_are_installed() -> None:
    pytest.importorskip("tensorflow_serving.apis.predict_pb2", reason="tensorflow-serving-api is not installed")
    official = protocol()
    request = messages.predict_request("s", "p", messages.pixels_tensor(noise(1)), model="m")
    request.model_spec.version_label = "stable"
    read = official.PredictRequest.FromString(request.SerializeToString())
    assert (read.model_spec.name, read.model_spec.version_label, read.model_spec.signature_name) == ("m", "stable", "s")
    assert read.inputs["p"].tensor_content == noise(1).tobytes()


@pytest.mark.parametrize(
    ("fields", "shape", "said"),
    [
        ({"float_val": [1.0]}, (2, 3), [[1, 1, 1], [1, 1, 1]]),
        ({"float_val": [1.0, 2.0]}, (3,), [1, 2, 2]),
        ({"tensor_content": np.array([3, 4], "<f4").tobytes()}, (2, 1), [[3], [4]]),
        ({"float_val": []}, (0, 5), np.zeros((0, 5))),
    ],
)
def test_floats_are_read_however_they_were_written(fields: Any, shape: Any, said: Any) -> None:
    tensor = messages.TensorProto(dtype=1, **fields)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    np.testing.assert_array_equal(messages.floats_of(tensor), np.array(said, np.float32))


@pytest.mark.parametrize("fields", [{"dtype": 2}, {"dtype": 1, "float_val": [1, 2, 3]}, {"dtype": 1}])
def test_tensors_that_are_no_such_floats_are_refused(fields: Any) -> None:
    tensor = messages.TensorProto(**fields)
    tensor.tensor_shape.dim.add(size=2)
    refuses(lambda: messages.floats_of(tensor), "TensorFlow Serving answered")


# Settings, page, command line ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["grpc://host", "grpc://host:1/path", "http://", "ftp://host:1", "host:8500", "grpc://a:123456"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="--tf-serving-url is"):
        settings(address)


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="Port out of range"):
        connect("http://host:99999")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tf_serving_version": -1}, "--tf-serving-version is -1"),
        ({"tf_serving_version": 1, "tf_serving_label": "x"}, "contradict each other"),
        ({"tf_serving_batch": 0}, "--tf-serving-batch is 0"),
        ({"tf_serving_timeout": 0}, "--tf-serving-timeout is 0"),
        ({"tf_serving_wait": float("inf")}, "--tf-serving-wait is inf"),
        ({"engine": "onnxruntime"}, "by --engine tf-serving only"),
        ({"tf_serving_url": ""}, "say where with --tf-serving-url"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        settings("grpc://host:8500", **changes)


def test_the_places_of_rest_follow_its_documentation() -> None:
    from darkroom.engines.tf_serving_rest import _place

    assert _place(Asked("m")) == "/v1/models/m"
    assert _place(Asked("m", 3)) == "/v1/models/m/versions/3"
    assert _place(Asked("m", None, "a/b")) == "/v1/models/m/labels/a%2Fb"


def test_the_page_answers_through_it_and_says_when_it_cannot(
    folder: Path, fake: FakeServing, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.web.readiness.FRESH_SECONDS", 0.0)
    with open_engine(folder, settings(url)) as engine:
        client = create_app(engine, ServeConfig()).test_client()
        form = {"files": (io.BytesIO(bundles.encoded((230, 20, 20))), "red.png")}
        answer = client.post("/api/v1/predict", data=form)
        assert answer.get_json()["predictions"][0]["label"] == "red"
        assert client.get("/readyz").status_code == 200
        fake.refusals = [UNAVAILABLE] * 100
        assert client.get("/readyz").status_code == 503
        fake.refusals.clear()
        assert client.get("/readyz").status_code == 200


def test_a_server_that_asks_elsewhere_loads_no_tensorflow(folder: Path, fake: FakeServing, url: str) -> None:
    program = (
        "import sys; from pathlib import Path; from darkroom.config import ServeConfig\n"
        "from darkroom.engines.choice import open_engine; import darkroom.web.server\n"
        "settings = ServeConfig(engine='tf-serving', tf_serving_url=sys.argv[2])\n"
        "with open_engine(Path(sys.argv[1]), settings): print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, folder, url], capture_output=True, text=True, check=True)
    assert "'darkroom.engines.tf_serving'" in done.stdout
    for name in ("torch", "tensorflow", "tensorflow_serving", "onnxruntime"):
        assert f"'{name}'" not in done.stdout


def test_serve_takes_it_from_the_command_line(folder: Path, url: str) -> None:
    command = [sys.executable, "-m", "darkroom", "serve", folder, "--port", "0"]
    options = ["--engine", "tf-serving", "--tf-serving-url", url]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        greeting = server.stderr.readline()
        found = re.search(r"darkroom serves colours at http://127\.0\.0\.1:(\d+)/", greeting)
        assert found, greeting + server.stderr.read()
        with closing(http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=10)) as connection:
            connection.request("GET", "/readyz")
            assert connection.getresponse().status == 200
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
        assert server.wait(30) == 0


def test_the_check_of_a_real_server_passes_on_the_double(folder: Path, url: str) -> None:
    """The script that is meant for the real binary runs the same questions here."""
    check = Path(__file__).parents[1] / "deploy" / "tensorflow-serving" / "check.py"
    done = subprocess.run([sys.executable, check, folder, url, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(one["passed"] for one in json.loads(done.stdout)[url])
