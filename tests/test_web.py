"""The web app through Flask's test client."""

import io
import json
import logging
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

import bundles
from darkroom.config import ServeConfig
from darkroom.engines.base import Answers, Engine
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.errors import EngineError
from darkroom.web import create_app
from darkroom.web.page import percent
from darkroom.web.uploads import clean_name

RED = bundles.encoded((240, 10, 10))


@pytest.fixture
def client(engine: Engine) -> FlaskClient:
    return create_app(engine, ServeConfig()).test_client()


class FailingEngine(Engine):
    """An engine that raises what it was given."""

    def __init__(self, error: Exception) -> None:
        super().__init__(bundles.bundle_info())
        self.error = error

    def run(self, pixels: np.ndarray) -> Answers:
        """Raise."""
        raise self.error

    def close(self) -> None:
        """Nothing to let go of."""


def upload(
    client: FlaskClient, *files: tuple[str, bytes], field: str = "files", url: str = "/api/v1/predict"
) -> TestResponse:
    """Post `files` as a form."""
    return client.post(url, data={field: [(io.BytesIO(content), name) for name, content in files]})


def assert_problem(response: TestResponse, status: int, *words: str) -> None:
    """Hold the one shape of all errors."""
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    content = json.loads(response.data)
    assert set(content) == {"type", "title", "status", "detail"}
    assert content["type"] == "about:blank"
    assert content["status"] == status
    assert content["title"]
    for word in words:
        assert word in content["detail"]
    for leak in ("Traceback", "site-packages", ".py", "/work"):
        assert leak not in content["detail"]


# ---- answers ----


def test_twenty_pictures_of_which_three_are_broken(client: FlaskClient, folder: Path) -> None:
    pictures = bundles.mixed_pictures()
    response = upload(client, *pictures)
    assert response.status_code == 200
    predictions = response.get_json()["predictions"]
    assert [entry["name"] for entry in predictions] == [name for name, _ in pictures]
    failed = [entry for entry in predictions if "error" in entry]
    answered = [entry for entry in predictions if "error" not in entry]
    assert [entry["name"] for entry in failed] == ["cut off.jpg", "text.png", "empty.png"]
    assert len(answered) == 17
    for entry in failed:
        assert set(entry) == {"name", "error"}
        assert set(entry["error"]) == {"type", "title", "status", "detail"}
        assert entry["error"]["status"] == 422
    for entry in answered:
        assert set(entry) == {"name", "label", "confidence", "sure", "probabilities"}
        values = [item["probability"] for item in entry["probabilities"]]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1, abs=1e-5)
        assert entry["label"] == entry["probabilities"][0]["label"]
        assert entry["sure"] == (entry["confidence"] >= 0.6)
        for colour in ("red", "green", "blue"):
            if entry["name"].startswith(colour):
                assert entry["label"] == colour
    model = response.get_json()["model"]
    assert model.pop("bundle_sha256") == json.loads((folder / "bundle.json").read_text())["sha256"]
    assert model == {"name": "colours", "threshold": 0.6, "weights_sha256": "ab" * 32}


def test_the_field_may_be_called_file(client: FlaskClient) -> None:
    [entry] = upload(client, ("a.png", RED), field="file").get_json()["predictions"]
    assert entry["label"] == "red"


def test_top_limits_the_listed_classes(client: FlaskClient) -> None:
    [entry] = upload(client, ("a.png", RED), url="/api/v1/predict?top=2").get_json()["predictions"]
    assert len(entry["probabilities"]) == 2
    for value in ("0", "-1", "x", "", "²", "1.5"):
        assert_problem(upload(client, ("a.png", RED), url=f"/api/v1/predict?top={value}"), 400, "top")


def test_the_model_tells_all_of_itself(client: FlaskClient) -> None:
    content = client.get("/api/v1/model").get_json()
    assert content["name"] == "colours"
    assert content["classes"] == list(bundles.CLASSES)
    assert content["preprocessing"]["width"] == 24
    assert len(content["preprocessing"]["steps"]) >= 4
    assert content["limits"] == {
        "max_request_bytes": 64_000_000,
        "max_file_bytes": 20_000_000,
        "max_files": 64,
        "max_pixels": 100_000_000,
    }
    assert content["facts"]["parameters"] == 20
    assert content["metrics"]["validation"]["accuracy"]["value"] == 0.953
    assert content["provenance"]["seed"] == 0


def test_health_and_readiness(client: FlaskClient) -> None:
    assert client.get("/healthz").get_json() == {"status": "alive"}
    assert client.get("/readyz").get_json() == {"status": "ready"}


def test_readiness_is_asked_again_where_no_thread_could_be_started(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert client.get("/readyz").status_code == 500
    assert client.get("/readyz").get_json() == {"status": "ready"}


def test_requests_at_the_same_time_get_their_own_answers(engine: Engine) -> None:
    app = create_app(engine, ServeConfig())
    colours = {"red": (240, 10, 10), "green": (10, 240, 10), "blue": (10, 10, 240)}

    def ask(place: int) -> bool:
        names = [list(colours)[(place + step) % 3] for step in range(4)]
        files = [(name, bundles.encoded(colours[name])) for name in names]
        answers = upload(app.test_client(), *files).get_json()["predictions"]
        return [answer["label"] for answer in answers] == names

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(24)))


# ---- errors and limits ----

ENDPOINTS = ["/", "/api/v1/predict", "/api/v1/model", "/healthz", "/readyz"]


@pytest.mark.parametrize(
    "url", ["/missing", "/api/v1/missing", "/static/missing.js", "/static/../server.py", "/healthz/x"]
)
def test_what_does_not_exist_is_a_problem(client: FlaskClient, url: str) -> None:
    assert_problem(client.get(url), 404)


@pytest.mark.parametrize("url", ENDPOINTS)
@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH"])
def test_other_methods_are_a_problem(client: FlaskClient, url: str, method: str) -> None:
    response = client.open(url, method=method)
    assert_problem(response, 405)
    assert "OPTIONS" in response.headers["Allow"]


def test_predict_takes_no_get_and_model_no_post(client: FlaskClient) -> None:
    assert_problem(client.get("/api/v1/predict"), 405)
    for url in ("/api/v1/model", "/healthz", "/readyz"):
        assert_problem(client.post(url), 405)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 415),
        ({"json": {"files": []}}, 400),
        ({"data": b"raw", "content_type": "text/plain"}, 415),
        ({"data": {"other": (io.BytesIO(b"x"), "x")}}, 400),
        ({"data": {"files": "a text field"}, "content_type": "multipart/form-data"}, 400),
        ({"data": b"--x\r\nbroken", "content_type": "multipart/form-data; boundary=x"}, 400),
        ({"data": b"", "content_type": "multipart/form-data"}, 400),
    ],
)
def test_requests_without_pictures_say_what_to_send(client: FlaskClient, options: dict[str, Any], status: int) -> None:
    assert_problem(client.post("/api/v1/predict", **options), status, "files")


def test_a_request_that_is_too_large(engine: Engine) -> None:
    client = create_app(engine, ServeConfig(max_request_megabytes=0.01)).test_client()
    assert_problem(upload(client, ("a.png", bytes(20_000))), 413, "10 kB")
    assert upload(client, ("a.png", RED)).status_code == 200


def test_too_many_pictures_and_a_flood_of_parts(engine: Engine) -> None:
    client = create_app(engine, ServeConfig(max_files=3)).test_client()
    assert upload(client, *[("a.png", RED)] * 3).status_code == 200
    assert_problem(upload(client, *[("a.png", RED)] * 4), 413, "4 pictures", "up to 3 pictures")
    assert_problem(upload(client, *[("a.png", b"")] * 150), 413, "up to 3 pictures")


def test_a_picture_that_is_too_large_fails_alone(engine: Engine) -> None:
    client = create_app(engine, ServeConfig(max_file_megabytes=0.002, max_megapixels=0.002)).test_client()
    files = [("bytes.png", bytes(2001)), ("a.png", RED), ("pixels.png", bundles.encoded((1, 1, 1), size=(60, 40)))]
    large, answered, many = upload(client, *files).get_json()["predictions"]
    assert "too large: 2 kB" in large["error"]["detail"]
    assert answered["label"] == "red"
    assert "60×40" in many["error"]["detail"]


@pytest.mark.parametrize("url", ["/api/v1/predict", "/readyz"])
def test_an_engine_that_fails_is_503_without_its_words(url: str, caplog: pytest.LogCaptureFixture) -> None:
    client = create_app(FailingEngine(EngineError("/work/secret.onnx is gone")), ServeConfig()).test_client()
    with caplog.at_level(logging.ERROR):
        response = client.get(url) if url == "/readyz" else upload(client, ("a.png", RED), url=url)
    assert_problem(response, 503)
    assert response.headers["Retry-After"] == "1"
    assert "secret" not in response.text
    assert "secret" in caplog.text
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("url", ["/api/v1/predict", "/readyz", "/"])
def test_a_bug_is_500_without_its_trace(url: str, caplog: pytest.LogCaptureFixture) -> None:
    client = create_app(FailingEngine(RuntimeError("/work/secret.py line 3")), ServeConfig()).test_client()
    with caplog.at_level(logging.ERROR):
        response = client.get(url) if url == "/readyz" else upload(client, ("a.png", RED), url=url)
    assert_problem(response, 500)
    assert "secret" not in response.text
    assert "RuntimeError" in caplog.text


@pytest.mark.parametrize("url", [*ENDPOINTS, "/missing", "/static/darkroom.css"])
def test_every_response_carries_the_security_headers(client: FlaskClient, url: str) -> None:
    with client.get(url) as response:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in response.headers


def test_uploads_never_touch_the_disk(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a temporary file was asked for")

    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", refuse)
    large = bundles.encoded((240, 10, 10), "BMP", size=(800, 600))
    assert len(large) > 1_000_000
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.bmp"\r\n\r\n'
    body = io.BytesIO(head + large + b"\r\n--x--\r\n")
    options: dict[str, Any] = {"input_stream": body, "content_type": "multipart/form-data; boundary=x"}
    response = client.post("/api/v1/predict", content_length=len(body.getvalue()), **options)
    assert response.get_json()["predictions"][0]["label"] == "red"


# ---- names ----

HOSTILE = [
    ("../../etc/passwd", "passwd"),
    ("C:\\Users\\me\\photo.png", "photo.png"),
    ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
    ("a\u202egnp.exe", "agnp.exe"),
    ("tab\there\x00.png", "tabhere.png"),
    ("", "picture"),
    ("/", "picture"),
    (None, "picture"),
]


@pytest.mark.parametrize(("name", "shown"), HOSTILE)
def test_names_are_cleaned(name: str | None, shown: str) -> None:
    assert clean_name(name) == shown


def test_long_names_are_cut_in_the_middle() -> None:
    assert clean_name("x" * 500 + "end of it.png").endswith("nd of it.png")


@given(st.text())
def test_any_name_becomes_a_short_visible_one(name: str) -> None:
    cleaned = clean_name(name)
    assert 1 <= len(cleaned) <= 120
    assert "\\" not in cleaned
    assert "/" not in cleaned
    assert "\n" not in cleaned


def test_a_hostile_name_and_class_are_escaped_on_the_page(tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    bundles.make_bundle(tmp_path / "b", classes=(script, "green", "blue", "dark", "bright"), name=script)
    with OnnxRuntimeEngine.open(tmp_path / "b", threads=1) as opened:
        client = create_app(opened, ServeConfig()).test_client()
        page = upload(client, ("<b onclick='x'>\".png", RED), url="/").text
    assert "<script>alert" not in page
    assert "<b onclick" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;"[:20]) >= 2


# ---- the page ----


def test_the_page_needs_nothing_from_elsewhere(client: FlaskClient) -> None:
    page = client.get("/").text
    assert "colours" in page
    assert "95.3 % right on validation pictures" in page
    for name in bundles.CLASSES:
        assert f"<li>{name}</li>" in page
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert address.startswith("/")
        with client.get(address) as response:
            assert response.status_code == 200, address
    assert "style=" not in page
    assert not re.search(r"<script(?![^>]*src=)|\son[a-z]+=", page)


def test_the_page_without_metrics_says_nothing_of_accuracy(tmp_path: Path) -> None:
    engine = FailingEngine(RuntimeError())
    engine.bundle = bundles.bundle_info(metrics={}, classes=tuple(f"class {place}" for place in range(100)))
    page = create_app(engine, ServeConfig()).test_client().get("/").text
    assert "right on" not in page
    assert "knows 100 classes" in page


def test_the_plain_form_is_answered(client: FlaskClient) -> None:
    response = upload(client, *bundles.mixed_pictures(), url="/")
    assert response.status_code == 200
    assert response.text.count('data-state="answered"') + response.text.count('data-state="unsure"') == 17
    assert response.text.count('data-state="failed"') == 3
    assert response.text.count('class="fill" width="') >= 17 * 5


def test_the_plain_form_tells_what_was_wrong(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    client = create_app(engine, ServeConfig(max_files=2)).test_client()
    for files, status, words in (([("", b"")], 400, "no picture"), ([("a", RED)] * 3, 413, "up to 2 pictures")):
        response = upload(client, *files, url="/")
        assert response.status_code == status
        assert response.content_type.startswith("text/html")
        assert words in response.text
    failing = create_app(FailingEngine(EngineError("secret")), ServeConfig()).test_client()
    response = upload(failing, ("a.png", RED), url="/")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert "cannot answer" in response.text
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("probability", "shown"),
    [(1, "> 99.9 %"), (0.9996, "> 99.9 %"), (0.9994, "99.9 %"), (0.1234, "12.3 %"), (1e-5, "< 0.1 %")],
)
def test_percentages_never_claim_certainty(probability: float, shown: str) -> None:
    assert re.sub(r"\s", " ", percent(probability)) == shown


# ---- imports ----


def test_web_and_engines_start_without_the_training_libraries() -> None:
    program = "import sys, darkroom.web, darkroom.web.server, darkroom.engines.onnx_runtime; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "torchvision", "timm", "matplotlib", "sklearn", "scipy", "onnx"} & set(loaded)
