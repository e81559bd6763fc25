"""/metrics: what Prometheus is told."""

import json
import re
import socket
from collections.abc import Mapping
from contextlib import closing
from types import SimpleNamespace

import pytest
from flask.testing import FlaskClient

import bundles
from darkroom.config import ServeConfig
from darkroom.engines.base import Engine
from darkroom.errors import UsageError
from darkroom.web import create_app
from darkroom.web.server import Server
from serving import RED, FormulaEngine, assert_problem_content, fetch, post_picture, serving, until, upload

Numbers = Mapping[str, float]


def numbers(text: str) -> dict[str, float]:
    """Every sample by its name with its labels in order."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def read(client: FlaskClient) -> dict[str, float]:
    """What /metrics says now."""
    return numbers(client.get("/metrics").text)


@pytest.fixture
def client(engine: Engine) -> FlaskClient:
    return create_app(engine, ServeConfig()).test_client()


def test_requests_are_counted_by_what_they_asked_and_got(client: FlaskClient) -> None:
    upload(client, ("a.png", RED))
    client.get("/missing")
    client.get("/api/v1/predict")
    found = read(client)
    assert found['darkroom_requests_total{endpoint="api.predict",method="POST",status="200"}'] == 1
    assert found['darkroom_requests_total{endpoint="none",method="GET",status="404"}'] == 1
    assert found['darkroom_requests_total{endpoint="none",method="GET",status="405"}'] == 1
    assert found['darkroom_request_seconds_count{endpoint="api.predict"}'] == 1
    assert 0 < found['darkroom_request_seconds_sum{endpoint="api.predict"}'] < 60


def test_answers_are_counted(client: FlaskClient) -> None:
    upload(client, ("a", RED), ("b", RED), ("grey", bundles.encoded((60, 60, 60))), ("broken", b"x"))
    client.post("/v1/models/colours:predict", json={"instances": [[[[250, 0, 0]] * 24] * 16]})
    found = read(client)
    assert found['darkroom_predictions_total{label="red"}'] == 3
    assert found['darkroom_predictions_total{label="dark"}'] == 1
    assert found["darkroom_unreadable_pictures_total"] == 1
    assert found["darkroom_unsure_total"] == 1
    assert found["darkroom_confidence_count"] == 4
    assert found['darkroom_confidence_bucket{le="+Inf"}'] == 4
    assert found['darkroom_confidence_bucket{le="0.9"}'] == 1
    assert found["darkroom_novelty_count"] == 0


def test_novelty_is_counted_where_the_bundle_knows_it() -> None:
    novelty = {"score": "energy", "threshold": -3.0, "false_alarms": 0.05}
    client = create_app(FormulaEngine(novelty=novelty), ServeConfig()).test_client()
    upload(client, ("a", RED), ("grey", bundles.encoded((100, 100, 100))))
    found = read(client)
    assert found["darkroom_novelty_count"] == 2
    assert found["darkroom_unlike_pictures_total"] == 1


def test_what_is_needed_to_see_drift_is_there_from_the_start(client: FlaskClient) -> None:
    found = read(client)
    for label in bundles.CLASSES:
        assert found[f'darkroom_predictions_total{{label="{label}"}}'] == 0
    [known] = [name for name in found if name.startswith("darkroom_model_info")]
    assert re.fullmatch(r'darkroom_model_info{name="colours",weights_sha256="[0-9a-f]*"}', known)
    assert found[known] == 1
    assert 0 < found["darkroom_validation_accuracy"] <= 1
    assert "darkroom_validation_unlike_ratio" not in found, "this bundle knows nothing of it"


def test_novelty_is_counted_up_to_the_model_s_own_threshold() -> None:
    novelty = {"score": "energy", "threshold": -3.5, "false_alarms": 0.05}
    client = create_app(FormulaEngine(novelty=novelty), ServeConfig()).test_client()
    upload(client, ("a", RED), ("grey", bundles.encoded((100, 100, 100))))
    found = read(client)
    assert found["darkroom_validation_unlike_ratio"] == 0.05
    inside = found['darkroom_novelty_bucket{le="-3.5"}']
    assert found["darkroom_novelty_count"] - inside == found["darkroom_unlike_pictures_total"] == 1


def test_strangers_cannot_make_new_series(client: FlaskClient) -> None:
    before = set(read(client))
    for place in range(20):
        client.open(f"/x{place}", method=f"M{place}")
        client.get(f"/api/v1/model?{place}", headers={"X-Request-Id": f"id-{place}"})
    new = set(read(client)) - before
    assert not [name for name in new if re.search(r"x\d|M\d|id-", name)]


def test_two_applications_do_not_mix(engine: Engine) -> None:
    first, second = (create_app(engine, ServeConfig()).test_client() for _ in range(2))
    upload(first, ("a", RED))
    assert read(first)["darkroom_confidence_count"] == 1
    assert read(second)["darkroom_confidence_count"] == 0


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("", "text/plain"), ("text/plain", "text/plain"), ("application/openmetrics-text", "openmetrics")],
)
def test_the_format_is_the_one_that_was_asked_for(client: FlaskClient, accept: str, kind: str) -> None:
    response = client.get("/metrics", headers={"Accept": accept})
    assert kind in response.content_type
    assert "darkroom_requests" in response.text
    assert "process_resident_memory_bytes" in response.text


def test_the_server_shows_its_queue(engine: Engine) -> None:
    with serving(engine) as server:
        post_picture(server)
        fetch(server, "GET", "/", headers={"Transfer-Encoding": "gzip"})
        until(lambda: server._listener.memory.held == 0)  # it is let go of after the answer
        response, body = fetch(server, "GET", "/metrics")
        assert response.status == 200
        found = numbers(body.decode())
    assert found["darkroom_queue"] == 0
    assert found["darkroom_held_bytes"] == 0
    assert found["darkroom_connections"] >= 1
    assert found['darkroom_refused_requests_total{status="501"}'] == 1
    assert found["darkroom_queue_seconds_count"] >= 1
    assert found["darkroom_queue_seconds_sum"] < 30


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_metrics_may_have_a_port_of_their_own(engine: Engine) -> None:
    port = free_port()
    with serving(engine, metrics_port=port) as server:
        inside = SimpleNamespace(port=port)
        assert fetch(server, "GET", "/metrics")[0].status == 404
        assert fetch(server, "GET", "/healthz")[0].status == 200
        assert b'"/metrics"' not in fetch(server, "GET", "/api/v1/openapi.json")[1]
        response, body = fetch(inside, "GET", "/metrics")  # type: ignore[arg-type]
        assert response.status == 200
        assert b"darkroom_connections" in body
        for url in ("/", "/healthz", "/api/v1/model", "/missing"):
            response, body = fetch(inside, "GET", url)  # type: ignore[arg-type]
            assert response.status == 404
            assert_problem_content(json.loads(body), 404)
    with pytest.raises(ConnectionRefusedError):
        fetch(inside, "GET", "/metrics")  # type: ignore[arg-type]


def test_the_metrics_may_be_nowhere(engine: Engine) -> None:
    client = create_app(engine, ServeConfig(metrics_port=0)).test_client()
    assert client.get("/metrics").status_code == 404
    assert "/metrics" not in client.get("/api/v1/openapi.json").get_json()["paths"]
    assert "/metrics" not in client.get("/api/v1/").text
    assert client.get("/healthz").status_code == 200


def test_a_port_of_the_metrics_that_is_taken_is_one_line(engine: Engine) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = ServeConfig(port=0, metrics_port=taken.getsockname()[1])
        with pytest.raises(UsageError, match=r"in use .* --metrics-port"):
            Server(create_app(engine, settings), settings)
