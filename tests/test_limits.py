"""Who may ask, how often, and how much: keys, pace, other origins, and time for decoding, through Flask's client."""

import io
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

import bundles
from darkroom.config import ServeConfig
from darkroom.engines import decoding
from darkroom.engines.base import Engine
from darkroom.engines.decoding import Bounds, decode_pictures
from darkroom.engines.prediction import Failure, Prediction, predict_pictures
from darkroom.errors import ImageError, UsageError
from darkroom.preprocess import load, opened
from darkroom.web import OPEN, create_app
from darkroom.web.keys import Keys, add_key
from darkroom.web.pace import MOST_CLIENTS, Pace, client_of
from serving import RED, FormulaEngine, assert_problem, upload

# ---- keys ----


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def key(key_file: Path) -> str:
    return add_key(key_file, "laboratory")


@pytest.fixture
def guarded(engine: Engine, key_file: Path, key: str) -> FlaskClient:
    """A client of a server that asks for keys."""
    return create_app(engine, ServeConfig(api_keys=key_file)).test_client()


def test_a_key_is_kept_as_its_hash_and_for_its_owner_only(key_file: Path, key: str) -> None:
    text = key_file.read_text()
    assert key not in text
    assert key.removeprefix("darkroom_") not in text
    assert len(key) > 40
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert Keys.read(key_file).owner(key) == "laboratory"


def test_keys_are_added_and_told_apart(key_file: Path, key: str) -> None:
    other = add_key(key_file, "office")
    keys = Keys.read(key_file)
    assert (keys.owner(key), keys.owner(other)) == ("laboratory", "office")
    for wrong in ("", key[:-1], key + "x", key.upper(), "x" * 10_000, "ключ", "\udce9"):
        assert keys.owner(wrong) is None
    lines = key_file.read_text().splitlines(keepends=True)
    key_file.write_text("".join(line for line in lines if not line.startswith("laboratory")))
    assert Keys.read(key_file).owner(key) is None


def test_a_group_that_may_read_the_file_still_may(key_file: Path, key: str) -> None:
    key_file.chmod(0o640)
    add_key(key_file, "office")
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "x" * 65, "größe", "a:b"])
def test_names_that_would_break_the_file_are_refused(key_file: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot stand in the file"):
        add_key(key_file, name)
    assert not key_file.exists()


def test_a_name_has_one_key(key_file: Path, key: str) -> None:
    with pytest.raises(UsageError, match="has a key of laboratory already"):
        add_key(key_file, "laboratory")


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "cannot be read"), ("", "holds no key"), ("# only\n\n", "holds no key"), ("a sha256:12\n", "line 1 of")],
)
def test_files_that_are_none_of_ours_are_refused_at_start(
    engine: Engine, key_file: Path, text: str | None, said: str
) -> None:
    if text is not None:
        key_file.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        create_app(engine, ServeConfig(api_keys=key_file))
    assert "\n" not in str(caught.value)


def test_a_key_that_was_put_into_the_file_by_mistake_is_not_shown(key_file: Path) -> None:
    key_file.write_text("darkroom_abcdefgh\n")
    with pytest.raises(UsageError) as caught:
        Keys.read(key_file)
    assert "abcdefgh" not in str(caught.value)


CLOSED = [("POST", "/api/v1/predict"), ("POST", "/api/v1/explain"), ("GET", "/metrics")]
CLOSED += [("POST", f"/v1/models/colours{version}:predict") for version in ("", "/versions/1")]
OPENED = ["/", "/model", "/api/v1/", "/api/v1/openapi.json", "/api/v1/model", "/healthz", "/readyz"]
OPENED += ["/static/darkroom.css", "/v1/models/colours", "/v1/models/colours/metadata"]


@pytest.mark.parametrize(("method", "url"), CLOSED)
def test_without_a_key_there_is_no_answer(guarded: FlaskClient, method: str, url: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-Api-Key": "wrong"}, {"Authorization": "Basic eDp5"}):
        response = guarded.open(url, method=method, headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert "API key" in response.text


@pytest.mark.parametrize("url", OPENED)
def test_what_is_open_needs_no_key(guarded: FlaskClient, url: str) -> None:
    with guarded.get(url) as response:
        assert response.status_code == 200


def test_every_end_point_is_either_open_or_closed(engine: Engine) -> None:
    app = create_app(engine, ServeConfig())
    every = {rule.endpoint for rule in app.url_map.iter_rules()}
    assert every >= OPEN
    assert every - OPEN == {"api.predict", "api.explain", "api.metrics", "tensorflow.predict"}


def test_a_key_opens(guarded: FlaskClient, key: str) -> None:
    for headers in ({"Authorization": f"Bearer {key}"}, {"X-Api-Key": key}, {"Authorization": f"bearer {key}"}):
        assert upload(guarded, ("a.png", RED), headers=headers).status_code == 200
        assert guarded.get("/metrics", headers=headers).status_code == 200


def test_the_page_asks_for_the_key_and_takes_it(guarded: FlaskClient, key: str) -> None:
    assert 'name="key"' in guarded.get("/").text
    for sent, status in ((key, 200), ("wrong", 401), (None, 401)):
        form = {"files": (io.BytesIO(RED), "a.png"), **({} if sent is None else {"key": sent})}
        response = guarded.post("/", data=form)
        assert response.status_code == status
        assert response.content_type.startswith("text/html")
        assert ('data-state="answered"' in response.text) == (status == 200)
        assert ("API key: type" in response.text) == (status == 401)
        assert ("does not know that" in response.text) == (sent == "wrong")


def test_the_description_asks_for_the_key(guarded: FlaskClient) -> None:
    document = guarded.get("/api/v1/openapi.json").get_json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    predict, health = (document["paths"][path] for path in ("/api/v1/predict", "/healthz"))
    assert predict["post"]["security"] == [{"bearer": []}, {"header": []}]
    assert "WWW-Authenticate" in predict["post"]["responses"]["401"]["headers"]
    assert health["get"]["security"] == []
    assert "401" not in health["get"]["responses"]


def test_without_keys_none_is_asked_for(engine: Engine) -> None:
    client = create_app(engine, ServeConfig()).test_client()
    assert 'name="key"' not in client.get("/").text
    assert upload(client, ("a.png", RED), headers={"Authorization": "Bearer whatever"}).status_code == 200


# ---- pace ----


def test_a_bucket_is_filled_at_its_pace() -> None:
    now = [0.0]
    pace = Pace(60, clock=lambda: now[0])
    assert [pace.seconds_to_wait("a") for _ in range(11)] == [0] * 10 + [1]
    assert pace.seconds_to_wait("b") == 0, "others are not concerned"
    now[0] = 0.5
    assert pace.seconds_to_wait("a") == 1
    now[0] = 1.0
    assert pace.seconds_to_wait("a") == 0
    assert pace.seconds_to_wait("a") == 1
    now[0] = 1000
    assert [pace.seconds_to_wait("a") for _ in range(11)] == [0] * 10 + [1]


def test_a_slow_pace_says_how_long() -> None:
    pace = Pace(1, clock=lambda: 0.0)
    assert pace.seconds_to_wait("a") == 0
    assert pace.seconds_to_wait("a") == 60


@given(st.lists(st.floats(0, 100), max_size=200), st.floats(0.5, 600))
def test_nobody_goes_faster_than_allowed(gaps: list[float], per_minute: float) -> None:
    now = [0.0]
    pace = Pace(per_minute, clock=lambda: now[0])
    allowed = 0
    for gap in gaps:
        now[0] += gap
        allowed += pace.seconds_to_wait("a") == 0
    assert allowed <= max(1, per_minute / 6) + now[0] * per_minute / 60 + 1e-6


def test_many_clients_do_not_fill_the_memory() -> None:
    pace = Pace(60, clock=lambda: 0.0)
    for place in range(MOST_CLIENTS + 100):
        pace.seconds_to_wait(f"client {place}")
    assert len(pace._buckets) == MOST_CLIENTS


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::"),
        ("unix", "unix"),
        (None, ""),
    ],
)
def test_what_counts_as_a_client(address: str | None, client: str) -> None:
    assert client_of(address) == client


def test_who_asks_too_often_is_told_when_to_come_back(engine: Engine) -> None:
    client = create_app(engine, ServeConfig(max_requests_per_minute=12)).test_client()
    assert [client.get("/api/v1/model").status_code for _ in range(2)] == [200, 200]
    response = client.get("/api/v1/model")
    assert_problem(response, 429, "come back in")
    assert 1 <= int(response.headers["Retry-After"]) <= 5
    assert response.headers["X-Request-Id"]
    assert client.get("/api/v1/model", environ_base={"REMOTE_ADDR": "192.0.2.9"}).status_code == 200
    for url in ("/healthz", "/readyz"):
        assert [client.get(url).status_code for _ in range(20)] == [200] * 20
    document = create_app(engine, ServeConfig(max_requests_per_minute=60)).test_client().get("/api/v1/openapi.json")
    responses = document.get_json()["paths"]["/api/v1/predict"]["post"]["responses"]
    assert "Retry-After" in responses["429"]["headers"]


def test_the_pace_is_that_of_the_key(engine: Engine, key_file: Path, key: str) -> None:
    other = add_key(key_file, "office")
    settings = ServeConfig(api_keys=key_file, max_requests_per_minute=6)
    client = create_app(engine, settings).test_client()
    sent = [key, key, other, "wrong", "wrong"]
    found = [upload(client, ("a", RED), headers={"X-Api-Key": one}).status_code for one in sent]
    assert found == [200, 429, 200, 401, 429], "who guesses is held to the pace of the address"


# ---- other origins ----

PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


def test_other_origins_are_refused_by_default(engine: Engine) -> None:
    client = create_app(engine, ServeConfig()).test_client()
    for response in (
        upload(client, ("a", RED), headers={"Origin": "https://example.org"}),
        client.options("/api/v1/predict", headers={"Origin": "https://example.org", **PREFLIGHT}),
    ):
        assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


def test_origins_on_the_list_may_call_the_interface_only(engine: Engine, key_file: Path, key: str) -> None:
    settings = ServeConfig(allow_origins="https://example.org, https://b.example:8443", api_keys=key_file)
    client = create_app(engine, settings).test_client()
    ours = {"Origin": "https://example.org"}
    asked = client.options("/api/v1/predict", headers={**ours, **PREFLIGHT})
    assert asked.status_code == 200
    assert asked.headers["Access-Control-Allow-Origin"] == "https://example.org"
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in asked.headers["Access-Control-Allow-Headers"]
    answered = upload(client, ("a", RED), headers={**ours, "X-Api-Key": key})
    assert answered.headers["Access-Control-Allow-Origin"] == "https://example.org"
    assert "Origin" in answered.headers["Vary"]
    assert "X-Request-Id" in answered.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in answered.headers
    refused = upload(client, ("a", RED), headers=ours)
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "https://example.org", "so that the page can read why"
    for stranger in ("https://example.org.evil.example", "http://example.org", "null", "https://b.example"):
        response = client.get("/api/v1/model", headers={"Origin": stranger})
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Origin" in response.headers["Vary"]
    assert "Access-Control-Allow-Origin" not in client.get("/", headers=ours).headers


# ---- names ----

ODD_HOSTS = [
    "",
    "evil.example",
    "example.org.evil.example",
    "example.org, evil.example",
    "a b",
    "<script>",
    "[::1",
    ":80",
]
ODD_HOSTS += ["example.org@evil.example", "example.org:80:80", "x" * 60, "example.org/..", "\xe9"]


@pytest.mark.parametrize(
    "host", ["example.org", "EXAMPLE.org:8000", "example.org.", "[::1]", "[::1]:80", "127.0.0.1:1"]
)
def test_the_server_answers_under_its_names(engine: Engine, host: str) -> None:
    client = create_app(engine, ServeConfig(hosts="example.org, [::1],127.0.0.1")).test_client()
    for url in ("/", "/api/v1/model"):
        assert client.get(url, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_under_other_names_only_probes_are_answered(engine: Engine, host: str) -> None:
    client = create_app(engine, ServeConfig(hosts="example.org")).test_client()
    for url in ("/", "/api/v1/model", "/metrics", "/static/darkroom.css", "/missing"):
        assert_problem(client.get(url, headers={"Host": host}), 421, "not asked under that name")
    document = client.get("/api/v1/openapi.json", base_url="http://example.org").get_json()
    assert "421" in document["paths"]["/api/v1/predict"]["post"]["responses"]
    for url in ("/healthz", "/readyz"):
        assert client.get(url, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_without_a_list_odd_names_do_no_harm(engine: Engine, host: str) -> None:
    response = create_app(engine, ServeConfig()).test_client().get("/", headers={"Host": host})
    assert response.status_code in (200, 400)
    assert "<script>" not in response.text


@pytest.mark.parametrize("address", ["localhost", "10.0.0.0/8", "127.0.0.1:80", " "])
def test_a_proxy_that_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=r"--trusted-proxy is .* give the address from which it asks"):
        ServeConfig(trusted_proxy=address)


@pytest.mark.parametrize("hosts", ["https://example.org", "example.org:80", "a b"])
def test_names_that_are_none_are_one_line(hosts: str) -> None:
    with pytest.raises(UsageError, match=r"--hosts has .* without scheme and port"):
        ServeConfig(hosts=hosts)


# ---- frames ----


def test_nobody_may_show_the_page_in_a_frame_but_who_is_named(engine: Engine) -> None:
    usual = create_app(engine, ServeConfig()).test_client().get("/").headers
    assert "frame-ancestors 'none'" in usual["Content-Security-Policy"]
    assert usual["X-Frame-Options"] == "DENY"
    settings = ServeConfig(frame_ancestors="https://huggingface.co, https://b.example")
    framed = create_app(engine, settings).test_client().get("/").headers
    assert framed["Content-Security-Policy"].endswith("frame-ancestors https://b.example https://huggingface.co")
    assert "default-src 'none'" in framed["Content-Security-Policy"]
    assert "X-Frame-Options" not in framed


# ---- time for decoding ----


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_decoders_that_read_as_they_go_are_stopped(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    now = [0.0]
    monkeypatch.setattr("darkroom.preprocess.time", SimpleNamespace(monotonic=lambda: now[0]))
    content = bundles.encoded((240, 120, 60), kind, size=(600, 600))

    def decode() -> None:
        with opened(content, max_seconds=5) as image:
            now[0] = 5.1
            image.load()

    with pytest.raises(ImageError, match="takes longer than 5 s"):
        decode()


def test_a_bound_in_time_changes_no_pixel() -> None:
    for name, content in bundles.mixed_pictures():
        try:
            expected = load(content, bundles.CONTRACT)
        except ImageError:
            continue
        assert (load(content, bundles.CONTRACT, max_seconds=60) == expected).all(), name


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Decoding a picture that begins with "stuck" waits for the event, in a library that cannot be stopped."""
    opened = threading.Event()

    def decode(content: bytes, *arguments: object, **options: object) -> object:
        if content.startswith(b"stuck"):
            opened.wait(20)
        return load(content, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(decoding, "load", decode)
    yield opened
    opened.set()


def test_a_picture_that_takes_too_long_is_given_up_and_the_others_are_not(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ThreadPoolExecutor(2)
    monkeypatch.setattr(decoding, "available_cores", lambda: 2)
    monkeypatch.setattr(decoding, "_decoders", lambda: pool)
    begun = time.monotonic()
    sources = [("a", RED), ("b", b"stuck"), ("c", RED)]
    answers = predict_pictures(FormulaEngine(), sources, bounds=Bounds(max_seconds=0.3))
    assert time.monotonic() - begun < 10
    assert [type(answer) for answer in answers] == [Prediction, Failure, Prediction]
    assert "takes longer than 0.3 s" in answers[1].error  # type: ignore[union-attr]


def test_a_picture_that_is_stuck_takes_the_time_of_no_other(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ThreadPoolExecutor(2)
    monkeypatch.setattr(decoding, "available_cores", lambda: 2)
    monkeypatch.setattr(decoding, "_decoders", lambda: pool)
    sources = [("stuck", b"stuck"), *((str(place), RED) for place in range(9))]
    answers = predict_pictures(FormulaEngine(), sources, bounds=Bounds(max_seconds=0.3))
    assert [type(answer) for answer in answers] == [Failure, *[Prediction] * 9]


def test_without_a_bound_decoding_is_waited_for(stuck: threading.Event) -> None:
    threading.Timer(0.3, stuck.set).start()
    [decoded] = decode_pictures([b"stuck"], bundles.CONTRACT, Bounds())
    assert isinstance(decoded, ImageError)
    assert "not a picture" in str(decoded)


def test_the_server_has_a_bound(stuck: threading.Event) -> None:
    client = create_app(FormulaEngine(), ServeConfig(max_decode_seconds=0.2)).test_client()
    [entry] = upload(client, ("a", b"stuck")).get_json()["predictions"]
    assert "takes longer than 0.2 s" in entry["error"]["detail"]
